package aibridge

import (
	"context"
	"errors"
	"fmt"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// fault is why a call cannot go on with the agent.
type fault struct {
	outcome outcome
	// status is what an INVITE is refused with.
	status int
	cause  error
}

func (f *fault) Error() string {
	if f.cause != nil {
		return string(f.outcome) + ": " + f.cause.Error()
	}
	return string(f.outcome)
}

func (f *fault) Unwrap() error { return f.cause }

// unavailable returns a fault that refuses with 503: the agent cannot take the call, a person can.
func unavailable(o outcome, cause error) *fault {
	return &fault{o, sip.StatusServiceUnavailable, cause}
}

// sessionFault says what it means that there is no session.
func sessionFault(err error) *fault {
	var field *invalid.FieldError
	var refused *aisession.RefusedError
	switch {
	case errors.Is(err, aisession.ErrNoSecret):
		return unavailable(outcomeNoSecret, err)
	case errors.Is(err, aisession.ErrPlain), errors.Is(err, aisession.ErrForbidden):
		return unavailable(outcomeForbidden, err)
	case errors.Is(err, aisession.ErrLate):
		return unavailable(outcomeSessionLate, err)
	case errors.As(err, &refused):
		return unavailable(outcomeSessionRefused, err)
	case errors.As(err, &field):
		return unavailable(outcomeSessionBad, err)
	}
	return unavailable(outcomeSession, err)
}

// inTime replaces a fault by the one of whoever ended the time: the caller who hung up, or the budget.
func inTime(ctx context.Context, f *fault) *fault {
	if ctx.Err() == nil {
		return f
	}
	cause := context.Cause(ctx)
	var ended *fault
	switch {
	case errors.As(cause, &ended):
		return ended
	case errors.Is(cause, context.DeadlineExceeded):
		return unavailable(outcomeConnectLate, f.cause)
	}
	return unavailable(outcomeInternal, cause)
}

// verdict is what a call in which the agent never spoke says of the gateway. What is our own fault, or our operator's,
// says nothing: other tenants may have the same gateway.
func (f *fault) verdict() aisession.Verdict {
	switch f.outcome {
	case outcomeSessionRefused:
		var refused *aisession.RefusedError
		if errors.As(f, &refused) && refused.Able() {
			return aisession.Works
		}
		return aisession.Broken
	case outcomeSession, outcomeSessionLate, outcomeSessionBad, outcomeChannel, outcomeConnectLate, outcomePeerLost,
		outcomeAgentFailed, outcomeAgentSilent, outcomeChannelLost:
		return aisession.Broken
	default:
		return aisession.Undecided
	}
}

// verdict is what a call that was connected says of the gateway at its end.
func (c *call) verdict(end *fault) aisession.Verdict {
	if c.relay.spoken.Load() {
		return aisession.Works
	}
	return end.verdict()
}

// settle tells the breaker what the call says of the gateway, once: as soon as there is something to say, because
// others may wait for it.
func (c *call) settle(v aisession.Verdict) {
	if c.judge != nil {
		c.judge(v)
		c.judge = nil
	}
}

// The causes of Q.850 that the switch is told. It sends the caller on for every cause but the first.
const (
	causeNormal      = 16 // normal call clearing
	causeUnspecified = 31 // normal, unspecified: what many telephones and carriers give
	causeFault       = 41 // temporary failure
)

// reason returns the header that tells the switch why (RFC 3326). A refusal or a BYE without it would look like the
// agent's own wish.
func reason(cause int, o outcome) sip.Header {
	return sip.NewHeader("Reason", fmt.Sprintf("Q.850;cause=%d;text=%q", cause, string(o)))
}

// expected tells whether an outcome is no fault.
func (o outcome) expected() bool {
	switch o {
	case outcomeCaller, outcomeAgent, outcomeTransferred, outcomeCancelled:
		return true
	default:
		return false
	}
}
