package aibridge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/background"
)

const (
	// watchInterval is how often the watchdogs look.
	watchInterval = 100 * time.Millisecond
	// byeTimeout is how long the switch may take to answer a BYE, REFER or UPDATE.
	byeTimeout = 2 * time.Second
	// transferTimeout is how long the switch may take to end the call after it accepted a transfer.
	transferTimeout = 3 * time.Second
	// lastWordTimeout is how long is listened to a gateway whose media is gone: one that closes its peer connection
	// before it says why, or whose words come by a longer way.
	lastWordTimeout = 300 * time.Millisecond
)

// talk answers the switch and carries the call to its end, of which the switch knows.
func (c *call) talk(ctx context.Context) *fault {
	answer, f := c.answer()
	if f != nil {
		return f
	}
	c.bridge.opts.Metrics.connect.Observe(time.Since(c.begun).Seconds())
	c.relay.start(c.peer)
	over, cancel := context.WithCancel(ctx)
	defer cancel()
	unconfirmed := make(chan error, 1)
	go func() { unconfirmed <- c.dialog.confirm(over, answer) }()
	end, byPeer := c.converse(ctx, unconfirmed)
	cancel()
	c.settle(c.verdict(end))
	if !byPeer && end.outcome != outcomeCancelled {
		c.hangUp(ctx, end)
	}
	return end
}

// answer sends 200.
func (c *call) answer() (*sip.Response, *fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body := c.local.answer(*c.relay.far.Load())
	res := c.dialog.response(c.dialog.invite, sip.StatusOK, "OK", body, c.timer.headers()...)
	if err := c.dialog.tx.Respond(res); err != nil {
		if errors.Is(c.dialog.tx.Err(), sip.ErrTransactionCanceled) || errors.Is(err, sip.ErrTransactionCanceled) {
			return nil, &fault{outcome: outcomeCancelled}
		}
		return nil, unavailable(outcomeInternal, fmt.Errorf("respond 200: %w", err))
	}
	return res, nil
}

// converse waits for the end of the call. byPeer tells that the switch ended it.
func (c *call) converse(ctx context.Context, unconfirmed <-chan error) (end *fault, byPeer bool) {
	defer rescue(ctx, c.log, &end)
	watch := time.NewTicker(watchInterval)
	defer watch.Stop()
	for {
		select {
		case <-c.dialog.ended:
			return switchEnded(c.dialog.bye), true
		case <-ctx.Done():
			return inTime(ctx, errDrained), false
		case err := <-unconfirmed:
			if err != nil {
				return unavailable(outcomeNoAck, err), false
			}
			unconfirmed = nil
		case <-c.peer.lost:
			return c.lastWord(ctx)
		case err := <-c.peer.broken:
			return unavailable(outcomeAgentFailed, err), false
		case candidate := <-c.peer.candidates:
			c.tell(ctx, toMessage(candidate))
		case held := <-c.held:
			c.tell(ctx, aisession.Message{Type: aisession.TypeHold, Active: &held})
		case m, ok := <-c.channel.Messages():
			if end, byPeer := c.obey(ctx, m, ok); end != nil {
				return end, byPeer
			}
		case now := <-watch.C:
			if end := c.watch(ctx, now); end != nil {
				return end, false
			}
		}
	}
}

// lastWord listens for why the agent's media is gone. What he says then is done as if it had come before; a candidate
// says nothing.
func (c *call) lastWord(ctx context.Context) (end *fault, byPeer bool) {
	patience := time.After(lastWordTimeout)
	for {
		select {
		case <-c.dialog.ended:
			return switchEnded(c.dialog.bye), true
		case <-ctx.Done():
			return inTime(ctx, errDrained), false
		case <-patience:
			return unavailable(outcomePeerLost, nil), false
		case m, ok := <-c.channel.Messages():
			if m.Type == aisession.TypeCandidate {
				continue
			}
			return c.obey(ctx, m, ok)
		}
	}
}

// tell sends a message. Should it fail, the channel is about to be lost, which is heard of by itself.
func (c *call) tell(ctx context.Context, m aisession.Message) {
	if err := c.channel.Send(ctx, m); err != nil {
		c.log.DebugContext(ctx, "a message to the gateway was not sent", "error", err)
	}
}

// obey does what the agent asks. It returns nil if the call goes on.
func (c *call) obey(ctx context.Context, m aisession.Message, ok bool) (end *fault, byPeer bool) {
	switch {
	case !ok:
		return unavailable(outcomeChannelLost, c.channel.Err()), false
	case m.Type == aisession.TypeHangup && m.Reason == aisession.HangupNormal:
		return &fault{outcome: outcomeAgent}, false
	case m.Type == aisession.TypeTransfer:
		return c.transfer(ctx, m.To)
	case m.Type == aisession.TypeCandidate:
		if err := c.peer.addCandidate(*m.Candidate); err != nil {
			return unavailable(outcomeAgentFailed, err), false
		}
		return nil, false
	case m.Type == aisession.TypeError:
		return unavailable(outcomeAgentFailed, errors.New("the gateway says "+m.Code)), false
	default:
		return unavailable(outcomeAgentFailed, nil), false
	}
}

// watch is the watchdogs: media both ways, unless the call is held, and the session timer.
func (c *call) watch(ctx context.Context, now time.Time) *fault {
	c.mu.Lock()
	timer := c.timer
	c.mu.Unlock()
	if timer.expired(now) {
		return unavailable(outcomeExpired, nil)
	}
	if timer.refreshDue(now) {
		c.refresh(ctx, now)
	}
	agent, caller := c.relay.silence(now)
	d := c.relay.far.Load().direction
	switch {
	case c.relay.spoken.Load():
		c.settle(aisession.Works)
	case d != sendrecv: // the agent need not speak, for as long as it takes
		c.settle(aisession.Undecided)
	}
	switch {
	case d == sendrecv && agent > c.bridge.opts.AgentSilence:
		return unavailable(outcomeAgentSilent, nil)
	case d == sendrecv && caller > c.bridge.opts.CallerSilence:
		return unavailable(outcomeCallerSilent, nil)
	}
	return nil
}

// refresh refreshes the dialog as we have agreed to. If that fails, it is tried again until the timer expires.
func (c *call) refresh(ctx context.Context, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, byeTimeout)
	defer cancel()
	c.mu.Lock()
	header := sip.NewHeader("Session-Expires", c.timer.seconds()+";refresher=uac")
	c.mu.Unlock()
	res, err := c.dialog.request(ctx, sip.UPDATE, header, sip.NewHeader("Supported", "timer"))
	if err == nil && res.IsSuccess() {
		c.mu.Lock()
		c.timer.at = now
		c.mu.Unlock()
	}
}

// hangUp ends the call towards the switch: with cause 16 it ends the caller's call, with 41 it sends him to a person.
func (c *call) hangUp(ctx context.Context, end *fault) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), byeTimeout)
	defer cancel()
	cause := causeFault
	if end.outcome == outcomeAgent || end.outcome == outcomeTransferred {
		cause = causeNormal
	}
	if err := c.dialog.sendBye(ctx, reason(cause, end.outcome)); err != nil {
		c.log.WarnContext(ctx, "the switch did not answer the end of a call", "error", err)
	}
}

// transfer asks the switch to send the caller to an extension, which the switch's dialplan decides as for any transfer
// (docs/decisions/0008-transfers.md). The switch then ends our leg. Whatever fails sends the caller to the failover
// extension.
func (c *call) transfer(ctx context.Context, to string) (end *fault, byPeer bool) {
	asking, cancel := context.WithTimeout(ctx, byeTimeout)
	defer cancel()
	host := c.dialog.invite.From().Address.Host
	res, err := c.dialog.request(asking, sip.REFER, sip.NewHeader("Refer-To", "<sip:"+to+"@"+host+">"),
		sip.NewHeader("Referred-By", "<"+c.dialog.invite.Recipient.String()+">"))
	switch {
	case err != nil:
		return unavailable(outcomeTransferFailed, err), false
	case !res.IsSuccess():
		return unavailable(outcomeTransferFailed, fmt.Errorf("the switch answered %d", res.StatusCode)), false
	}
	select {
	case <-c.dialog.ended:
		return &fault{outcome: outcomeTransferred}, true
	case <-c.transferFailed:
		return unavailable(outcomeTransferFailed, errors.New("the switch says so")), false
	case <-time.After(transferTimeout):
		return unavailable(outcomeTransferFailed, errors.New("the switch did not take the call")), false
	case <-ctx.Done():
		return inTime(ctx, errDrained), false
	}
}

// transferNews reads the status line that a switch sends of a transfer (RFC 3515, 2.4.5).
func (c *call) transferNews(sipfrag string) {
	_, status, _ := strings.Cut(sipfrag, " ")
	if status == "" || status[0] < '3' || status[0] > '6' {
		return
	}
	background.Poke(c.transferFailed)
}
