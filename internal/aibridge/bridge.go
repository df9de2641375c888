// Package aibridge takes calls from a switch on the same machine, over SIP and RTP, and connects them over WebRTC to
// the session with an AI agent that W3's voice gateway gives. It answers the switch only when the agent can be heard,
// and whatever goes wrong, before or during the call, it tells the switch with a cause that sends the caller to a
// person.
//
//	INVITE ──► session (HTTP) ──► channel (WebSocket), offer, answer ──► ICE, DTLS ──► 200 ──► media, both ways
//	   │            │                          │                            │                     │
//	   └────────────┴───────── 503, Q.850 cause 41 ─────────────────────────┘          BYE, cause 16 or 41
package aibridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
)

// Sessions is where a Bridge gets sessions: *aisession.Client.
type Sessions interface {
	Check(t aisession.Trunk) error
	Open(ctx context.Context, t aisession.Trunk, r aisession.SessionRequest) (aisession.Session, error)
	Dial(ctx context.Context, s aisession.Session) (*aisession.Channel, error)
	AllowsICE(a netip.Addr) bool
	AllowsICEServer(url string) bool
}

// Trunks is where a Bridge looks up trunks: *aisession.Trunks.
type Trunks interface {
	Trunk(id uuid.UUID) (aisession.Trunk, error)
}

// Options describe a Bridge. No duration is zero.
type Options struct {
	// Addr is where SIP is listened for, over UDP and TCP, and where media is received.
	Addr netip.AddrPort
	// Peers are the networks that SIP is taken from and media is sent to; whatever else comes is dropped unread.
	Peers    []netip.Prefix
	Sessions Sessions
	Trunks   Trunks
	Limits   *aisession.Limits
	Breakers *aisession.Breakers
	// ConnectBudget bounds the time from INVITE to 200.
	ConnectBudget time.Duration
	// AgentSilence is how long an agent may send nothing, CallerSilence the switch; not while the call is held.
	AgentSilence, CallerSilence time.Duration
	// DrainTimeout is how long running calls may go on after Run was told to end.
	DrainTimeout time.Duration
	// MinSessionExpires is the shortest session timer that is accepted; zero means 90 s.
	MinSessionExpires time.Duration
	// Loopback lets the agent's media come over the loopback interface: for development.
	Loopback bool
	Metrics  *Metrics
	Log      *slog.Logger
}

// Bridge takes calls. Its zero value is not usable, see New.
type Bridge struct {
	opts  Options
	peers peers
	log   *slog.Logger

	ua     *sipgo.UserAgent
	server *sipgo.Server
	client *sipgo.Client
	udp    *net.UDPConn
	tcp    net.Listener

	mu       sync.Mutex
	draining bool
	dialogs  map[string]*call
	calls    sync.WaitGroup
	// base returns what every call's context comes from. drop ends it when calls must end.
	base func() context.Context
	drop context.CancelCauseFunc
}

// quiet is for the SIP library: its lines hold whole messages, with the numbers of callers.
var quiet = slog.New(slog.DiscardHandler)

// silenceSIP is for the lines of the library that no option reaches.
var silenceSIP = sync.OnceFunc(func() { sip.SetDefaultLogger(quiet) })

// New opens the ports and returns a bridge that does nothing until Run.
func New(ctx context.Context, o Options) (*Bridge, error) {
	if o.MinSessionExpires == 0 {
		o.MinSessionExpires = minSessionExpires
	}
	silenceSIP()
	b := &Bridge{opts: o, peers: o.Peers, log: o.Log.With("component", "aibridge"), dialogs: map[string]*call{}}
	if err := b.listen(ctx); err != nil {
		return nil, err
	}
	base, drop := context.WithCancelCause(context.WithoutCancel(ctx))
	b.base, b.drop = func() context.Context { return base }, drop
	if err := b.handle(base); err != nil {
		return nil, errors.Join(err, b.udp.Close(), b.tcp.Close())
	}
	return b, nil
}

// listen opens the same port for UDP and TCP.
func (b *Bridge) listen(ctx context.Context) error {
	const tries = 16 // port 0 gives a port of UDP that may be taken for TCP
	for try := 1; ; try++ {
		udp, err := listenUDP(ctx, b.opts.Addr)
		if err != nil {
			return err
		}
		tcp, err := (&net.ListenConfig{}).Listen(ctx, "tcp", udp.LocalAddr().String())
		if err == nil {
			b.udp, b.tcp = udp, listener{tcp, b.peers}
			return nil
		}
		_ = udp.Close() // nothing was sent
		if b.opts.Addr.Port() != 0 || try == tries {
			return fmt.Errorf("listen: %w", err)
		}
	}
}

// Addr returns where SIP is listened for.
func (b *Bridge) Addr() netip.AddrPort { return b.udp.LocalAddr().(*net.UDPAddr).AddrPort() }

// handle makes the SIP stack.
func (b *Bridge) handle(ctx context.Context) error {
	addr := b.Addr()
	var err error
	b.ua, err = sipgo.NewUA(sipgo.WithUserAgent("edgvoip-ai-bridge"), sipgo.WithUserAgentHostname(addr.Addr().String()),
		sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(quiet), sip.WithTransportLayerReadFilter(b.peers.filter()),
			sip.WithTransportLayerTransports(sip.TransportsConfig{TCP: b.peers.tcp()})),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(quiet),
			// So that a request whose connection breaks is sent by another one at once.
			sip.WithTransactionLayerTerminateOnConnClose()))
	if err != nil {
		return fmt.Errorf("SIP: %w", err)
	}
	if b.server, err = sipgo.NewServer(b.ua, sipgo.WithServerLogger(quiet)); err != nil {
		return fmt.Errorf("SIP: %w", err)
	}
	b.client, err = sipgo.NewClient(b.ua, sipgo.WithClientLogger(quiet), sipgo.WithClientHostname(addr.Addr().String()), sipgo.WithClientPort(int(addr.Port())))
	if err != nil {
		return fmt.Errorf("SIP: %w", err)
	}
	for method, handle := range map[sip.RequestMethod]sipgo.RequestHandler{
		sip.INVITE: b.invite, sip.ACK: b.ack, sip.BYE: b.bye, sip.OPTIONS: b.options, sip.UPDATE: b.update, sip.NOTIFY: b.notify,
		sip.CANCEL: outside, // one that matches is the transaction's
	} {
		b.server.OnRequest(method, b.rescued(ctx, handle))
	}
	b.server.OnNoRoute(b.rescued(ctx, b.notAllowed))
	return nil
}

// errDrained is why calls end that were still running when the drain was over.
var errDrained = unavailable(outcomeDraining, nil)

// Ready tells whether calls are taken.
func (b *Bridge) Ready() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.draining {
		return errors.New("shutting down")
	}
	return nil
}

// Run takes calls until ctx ends. Then it refuses new ones, lets those that run go on for at most DrainTimeout, ends
// the rest, and returns when nothing is left. It is called once.
func (b *Bridge) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	var servers sync.WaitGroup
	servers.Go(func() { failed <- b.server.ServeUDP(b.udp) })
	servers.Go(func() { failed <- b.server.ServeTCP(b.tcp) })
	var err error
	select {
	case err = <-failed:
		err = errors.Join(errors.New("SIP: a port is not served any more"), err)
	case <-ctx.Done():
	}
	b.drain(context.WithoutCancel(ctx), err != nil)
	err = errors.Join(err, ignoreClosed(b.ua.Close()), ignoreClosed(b.udp.Close()), ignoreClosed(b.tcp.Close()))
	servers.Wait()
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// drain waits for the calls.
func (b *Bridge) drain(ctx context.Context, atOnce bool) {
	b.mu.Lock()
	b.draining = true
	running := len(b.dialogs)
	b.mu.Unlock()
	b.log.InfoContext(ctx, "draining", "calls", running)
	over := make(chan struct{})
	go func() {
		b.calls.Wait()
		close(over)
	}()
	timeout := b.opts.DrainTimeout
	if atOnce {
		timeout = 0
	}
	select {
	case <-over:
	case <-time.After(timeout):
		b.drop(errDrained)
		<-over
	}
	b.drop(errDrained)
}

// enter counts a call until leave. It returns false while the bridge is draining.
func (b *Bridge) enter(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.draining {
		return false
	}
	b.dialogs[c.dialog.id] = c
	b.calls.Add(1)
	b.opts.Metrics.active.Inc()
	return true
}

func (b *Bridge) leave(c *call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.dialogs, c.dialog.id)
	b.opts.Metrics.active.Dec()
	b.calls.Done()
}

// find returns the call of a request in a dialog; nil if there is none, or none any more.
func (b *Bridge) find(req *sip.Request) *call {
	id, err := sip.DialogIDFromRequestUAS(req)
	if err != nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.dialogs[id]
	if c == nil || c.dialog.over() || !c.dialog.isWith(req) {
		return nil
	}
	return c
}
