package aibridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// call is one call from INVITE to the end. run is its only goroutine besides those that carry media; handlers of SIP
// requests leave word for it.
type call struct {
	bridge *Bridge
	dialog *dialog
	begun  time.Time
	log    *slog.Logger

	id, trunkID uuid.UUID
	trunk       aisession.Trunk
	session     string

	relay   *relay
	peer    *peer
	channel *aisession.Channel
	// judge tells the breaker what the gateway is worth; nil before and after.
	judge func(aisession.Verdict)

	mu    sync.Mutex // guards what follows
	local local
	timer sessionTimer
	// late is the number of the re-INVITE without an offer whose answer is to come in its ACK; zero if none is.
	late uint32

	// held is told when the switch holds the call, and when it does not any more.
	held chan bool
	// transferFailed is told when the switch says that a transfer failed.
	transferFailed chan struct{}
}

func newCall(b *Bridge, d *dialog) *call {
	return &call{bridge: b, dialog: d, begun: time.Now(), log: b.log, held: make(chan bool, 1), transferFailed: make(chan struct{}, 1)}
}

// run takes the call through all of its life.
func (c *call) run() {
	ctx, cancel := context.WithCancelCause(c.bridge.base())
	defer cancel(nil)
	// A CANCEL ends what waits, until the call is answered. The transaction itself answers it.
	c.dialog.tx.OnCancel(func(*sip.Request) { cancel(&fault{outcome: outcomeCancelled}) })
	var ok bool
	if c.trunkID, c.id, ok = callHeaders(c.dialog.invite); ok {
		ctx = telemetry.WithCorrelation(ctx, c.id.String())
		c.report(ctx, c.live(ctx))
		return
	}
	c.report(ctx, c.refuse(&fault{outcomeBadRequest, sip.StatusBadRequest, errors.New(headerTrunk + " or " + headerCall + " is missing or no UUID")}))
}

// report writes the one log line of a call.
func (c *call) report(ctx context.Context, end *fault) {
	c.bridge.opts.Metrics.calls.WithLabelValues(string(end.outcome)).Inc()
	level := slog.LevelInfo
	if !end.outcome.expected() {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("outcome", string(end.outcome)), slog.String("trunk", c.trunkID.String()), slog.Float64("seconds", time.Since(c.begun).Seconds()),
		slog.String("sip_call_id", clip(c.dialog.invite.CallID().Value())),
	}
	if c.session != "" {
		attrs = append(attrs, slog.String("session", c.session))
	}
	if end.cause != nil {
		attrs = append(attrs, slog.String("error", clip(end.cause.Error())))
	}
	c.log.LogAttrs(ctx, level, "call", attrs...)
}

// maxLogged bounds, in bytes, what others can make us write: a Call-ID, the names in a certificate.
const maxLogged = 256

// clip shortens a text to maxLogged.
func clip(s string) string {
	if len(s) > maxLogged {
		s = s[:maxLogged]
	}
	return strings.ToValidUTF8(s, "?")
}

// live connects the call, lets it go on until it ends, and cleans up. The fault says how it ended; the switch knows.
func (c *call) live(ctx context.Context) *fault {
	if !c.bridge.enter(c) {
		return c.refuse(errDrained)
	}
	defer c.bridge.leave(c)
	far, f := c.readRequest(c.dialog.invite)
	if f != nil {
		return c.refuse(f)
	}
	leave, f := c.admit()
	if f != nil {
		return c.refuse(f)
	}
	defer leave()
	var ok bool
	if c.judge, ok = c.bridge.opts.Breakers.Enter(c.trunk.Gateway.String()); !ok {
		return c.refuse(unavailable(outcomeBreaker, nil))
	}
	if f = c.connect(ctx, far); f != nil {
		c.settle(f.verdict())
		f = c.refuse(f)
	} else {
		f = c.talk(ctx)
		c.settle(aisession.Undecided) // unless it is settled
	}
	c.release(ctx, f.outcome)
	return f
}

// readRequest reads the rest of the INVITE.
func (c *call) readRequest(req *sip.Request) (media, *fault) {
	if r := req.GetHeader("Require"); r != nil && !strings.EqualFold(strings.TrimSpace(r.Value()), "timer") {
		return media{}, &fault{outcomeBadRequest, sip.StatusBadExtension, errors.New("an extension is required that is not known")}
	}
	timer, tooShort := readTimer(req, c.bridge.opts.MinSessionExpires, time.Now())
	if tooShort {
		return media{}, &fault{outcomeBadRequest, statusIntervalTooSmall, errors.New("Session-Expires is too short")}
	}
	c.timer = timer
	far, err := c.readMedia(req.Body())
	if err != nil {
		return media{}, &fault{outcomeBadMedia, sip.StatusNotAcceptableHere, err}
	}
	return far, nil
}

// readMedia reads the SDP of the switch. Its address must be a peer's: whoever calls could let the agent's voice be
// sent to anybody else. An unspecified one is held, and nothing is sent there.
func (c *call) readMedia(body []byte) (media, error) {
	m, err := parseMedia(body)
	if err == nil && !m.rtp.Addr().IsUnspecified() && !c.bridge.peers.has(m.rtp.Addr()) {
		return m, errStranger
	}
	return m, err
}

// statusIntervalTooSmall is 422 of RFC 4028.
const statusIntervalTooSmall = 422

// admit finds the trunk, whether its gateway can be asked at all, and the room for one more session.
func (c *call) admit() (leave func(), f *fault) {
	var err error
	if c.trunk, err = c.bridge.opts.Trunks.Trunk(c.trunkID); errors.Is(err, aisession.ErrUnknownTrunk) {
		return nil, unavailable(outcomeUnknownTrunk, err)
	} else if err != nil {
		return nil, unavailable(outcomeNotReady, err)
	}
	if err := c.bridge.opts.Sessions.Check(c.trunk); err != nil {
		return nil, sessionFault(err)
	}
	leave, err = c.bridge.opts.Limits.Enter(c.trunk.TenantID)
	if errors.Is(err, aisession.ErrTooManyOfATenant) {
		return nil, unavailable(outcomeTenantLimit, nil)
	} else if err != nil {
		return nil, unavailable(outcomeLimit, nil)
	}
	return leave, nil
}

// refuse refuses the INVITE, unless it was cancelled: that the transaction has answered.
func (c *call) refuse(f *fault) *fault {
	if f.outcome == outcomeCancelled {
		return f
	}
	headers := []sip.Header{reason(causeFault, f.outcome)}
	if f.status == statusIntervalTooSmall {
		headers = append(headers, c.bridge.minSE())
	}
	if err := c.dialog.respond(f.status, statusText(f.status), nil, headers...); err != nil && f.cause == nil {
		f = &fault{f.outcome, f.status, err}
	}
	return f
}

func statusText(status int) string {
	switch status {
	case sip.StatusBadRequest:
		return "Bad Request"
	case sip.StatusBadExtension:
		return "Bad Extension"
	case statusIntervalTooSmall:
		return "Session Interval Too Small"
	case sip.StatusNotAcceptableHere:
		return "Not Acceptable Here"
	case sip.StatusInternalServerError:
		return "Server Internal Error"
	default:
		return "Service Unavailable"
	}
}

// connect does everything that comes before 200, within the budget.
func (c *call) connect(ctx context.Context, far media) (end *fault) {
	defer rescue(ctx, c.log, &end)
	ctx, cancel := context.WithDeadline(ctx, c.begun.Add(c.bridge.opts.ConnectBudget))
	defer cancel()
	if err := c.dialog.respond(sip.StatusRinging, "Ringing", nil); err != nil {
		return inTime(ctx, unavailable(outcomeInternal, err))
	}
	if err := c.listen(ctx, far); err != nil {
		return &fault{outcomeInternal, sip.StatusInternalServerError, err}
	}
	s, f := c.open(ctx)
	if f != nil {
		return inTime(ctx, f)
	}
	if f := c.negotiate(ctx, s); f != nil {
		return inTime(ctx, f)
	}
	return nil
}

// listen opens the ports for the switch's media.
func (c *call) listen(ctx context.Context, far media) error {
	r, err := newRelay(ctx, c.bridge.opts.Addr.Addr(), far, c.bridge.opts.Metrics)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.relay = r
	c.local = local{addr: c.bridge.opts.Addr.Addr(), session: uint64(c.begun.UnixMilli())}
	c.local.rtp, c.local.rtcp = r.sockets.ports()
	return nil
}

// open asks for the session.
func (c *call) open(ctx context.Context) (aisession.Session, *fault) {
	asked := time.Now()
	r := aisession.SessionRequest{
		CallID: c.id.String(), CallerNumber: callerNumber(c.dialog.invite), AgentRef: c.trunk.AgentRef, TenantID: c.trunk.TenantID.String(),
	}
	if c.trunk.StoreID != uuid.Nil {
		r.StoreID = c.trunk.StoreID.String()
	}
	s, err := c.bridge.opts.Sessions.Open(ctx, c.trunk, r)
	c.bridge.opts.Metrics.session.Observe(time.Since(asked).Seconds())
	if err != nil {
		return s, sessionFault(err)
	}
	c.session = s.ID
	if err := checkOffer(s.Offer); err != nil {
		return s, unavailable(outcomeSessionBad, fmt.Errorf("sdpOffer: %w", err))
	}
	for _, server := range s.ICEServers {
		for _, u := range server.URLs {
			if !c.bridge.opts.Sessions.AllowsICEServer(u) {
				return s, unavailable(outcomeSessionBad, fmt.Errorf("iceServers: %w", aisession.ErrForbidden))
			}
		}
	}
	return s, nil
}

// negotiate answers the agent's offer and waits until media can flow.
func (c *call) negotiate(ctx context.Context, s aisession.Session) *fault {
	var err error
	if c.channel, err = c.bridge.opts.Sessions.Dial(ctx, s); err != nil {
		return unavailable(outcomeChannel, err)
	}
	if c.peer, err = newPeer(s, c.bridge.opts.Sessions.AllowsICE, c.bridge.opts.Loopback); errors.Is(err, errServers) {
		return unavailable(outcomeSessionBad, err)
	} else if err != nil {
		return &fault{outcomeInternal, sip.StatusInternalServerError, err}
	}
	answer, err := c.peer.answer(s.Offer)
	if err != nil {
		return unavailable(outcomeSessionBad, err)
	}
	c.peer.drain(c.peer.send.Read)
	if err := c.channel.Send(ctx, aisession.Message{Type: aisession.TypeAnswer, SDP: answer}); err != nil {
		return unavailable(outcomeChannelLost, err)
	}
	for {
		select {
		case <-c.peer.connected:
			return nil
		case <-c.peer.lost:
			return unavailable(outcomePeerLost, nil)
		case <-ctx.Done():
			return unavailable(outcomeConnectLate, nil)
		case candidate := <-c.peer.candidates:
			if err := c.channel.Send(ctx, toMessage(candidate)); err != nil {
				return unavailable(outcomeChannelLost, err)
			}
		case m, ok := <-c.channel.Messages():
			if f := c.hear(m, ok); f != nil {
				return f
			}
		}
	}
}

// hear takes a message of the agent before there is a call: only candidates have a place there.
func (c *call) hear(m aisession.Message, ok bool) *fault {
	switch {
	case !ok:
		return unavailable(outcomeChannelLost, c.channel.Err())
	case m.Type == aisession.TypeCandidate:
		if err := c.peer.addCandidate(*m.Candidate); err != nil {
			return unavailable(outcomeAgentFailed, err)
		}
		return nil
	case m.Type == aisession.TypeError:
		return unavailable(outcomeAgentFailed, errors.New("the gateway says "+m.Code))
	default:
		return unavailable(outcomeAgentFailed, fmt.Errorf("%s before the call was connected", m.Type))
	}
}

// release ends everything towards the agent, and the media. It may take a moment, so the switch is told before.
func (c *call) release(ctx context.Context, o outcome) {
	if c.channel != nil {
		c.channel.Close(ctx, hangupReason(o))
	}
	if c.peer != nil {
		c.peer.close()
	}
	if c.relay != nil {
		c.relay.close()
	}
}

// hangupReason returns what the gateway is told.
func hangupReason(o outcome) aisession.HangupReason {
	switch o {
	case outcomeCaller, outcomeAgent:
		return aisession.HangupNormal
	case outcomeCancelled:
		return aisession.HangupCancelled
	case outcomeTransferred:
		return aisession.HangupTransferred
	default:
		return aisession.HangupFailure
	}
}
