// Package mockgateway plays W3's voice gateway: it gives sessions as docs/ai-gateway.md says, plays a tone to the
// caller, hears which tone the caller plays, and reports. It can go wrong in every way that a real one can, so that
// W3's developers see what becomes of the caller then. It is for tests and for playing; cmd/mockgateway is a program of
// it.
package mockgateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"

	"github.com/edgvoip/edgvoip/integration"
)

// Fault is a way to go wrong.
type Fault string

// The faults. They are chosen by what stands behind the last plus sign of the agent's name, as in demo+refuse, or for
// all calls by Options.Fault. Those in mid-call happen Options.After after the media began.
const (
	None        Fault = ""
	SlowSession Fault = "slow-session" // the session is answered too late
	Refuse      Fault = "refuse"       // 403
	Fail        Fault = "fail"         // 500
	BadAnswer   Fault = "bad-answer"   // no JSON
	BadSDP      Fault = "bad-sdp"
	NoPCMU      Fault = "no-pcmu"
	NoChannel   Fault = "no-channel" // the WebSocket is refused
	DropEarly   Fault = "drop-early" // the WebSocket is dropped before the call is connected
	NoConnect   Fault = "no-connect" // media never connects

	DropChannel Fault = "drop-channel" // the WebSocket is dropped
	StopMedia   Fault = "stop-media"
	LateMedia   Fault = "late-media"  // media connects, and the tone begins late
	HangUp      Fault = "hang-up"     // the agent has finished
	LeaveFirst  Fault = "leave-first" // the agent has finished: its media ends first, and it says so a moment later
	GiveUp      Fault = "give-up"     // the agent cannot go on
	Error       Fault = "error"
	Nonsense    Fault = "nonsense" // a message that is none
	Transfer    Fault = "transfer" // to Options.TransferTo
)

// Faults are all of them.
var Faults = []Fault{
	SlowSession, Refuse, Fail, BadAnswer, BadSDP, NoPCMU, NoChannel, DropEarly, NoConnect,
	DropChannel, StopMedia, LateMedia, HangUp, LeaveFirst, GiveUp, Error, Nonsense, Transfer,
}

// Options describe a Gateway.
type Options struct {
	// Secret is what requests are signed with; empty lets everything in.
	Secret string
	// Hz is the tone that is played; zero means 440.
	Hz float64
	// Fault is that of every call whose agent names none.
	Fault Fault
	// Choose chooses how a call goes wrong, in the place of the agent's name and Fault; nil leaves it to them. It must
	// be safe for concurrent use.
	Choose func(Request) Fault
	// After is when faults in mid-call happen; zero means a second.
	After time.Duration
	// TransferTo is the extension of the fault Transfer; empty means 1002.
	TransferTo string
	// Loopback keeps media on the loopback interface.
	Loopback bool
	// From tells where the caller's media may come from; nil lets it come from anywhere.
	From func(net.IP) bool
	Log  *slog.Logger
}

// Gateway gives sessions. It is an http.Handler, and safe for concurrent use.
type Gateway struct {
	opts Options
	api  *webrtc.API
	mux  *http.ServeMux

	mu       sync.Mutex
	sessions map[string]*Session // by id
	byCall   map[string]*Session
	arrived  chan struct{} // closed and replaced when a session is added
}

// SessionPath is where sessions are asked for.
const SessionPath = "/api/voip/ai-gateway/session"

// New returns a gateway.
func New(o Options) (*Gateway, error) {
	if o.Hz == 0 {
		o.Hz = 440
	}
	if o.After == 0 {
		o.After = time.Second
	}
	if o.TransferTo == "" {
		o.TransferTo = "1002"
	}
	g := &Gateway{opts: o, mux: http.NewServeMux(), sessions: map[string]*Session{}, byCall: map[string]*Session{}, arrived: make(chan struct{})}
	var err error
	if g.api, err = newAPI(o.Loopback, o.From); err != nil {
		return nil, err
	}
	g.mux.HandleFunc("POST "+SessionPath, g.give)
	g.mux.HandleFunc("GET /channel/{id}", g.channel)
	g.mux.HandleFunc("GET /report", g.report)
	return g, nil
}

func newAPI(loopback bool, from func(net.IP) bool) (*webrtc.API, error) {
	var engine webrtc.MediaEngine
	for _, c := range []webrtc.RTPCodecParameters{
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: sampleRate}, PayloadType: 0},
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: mimeEvents, ClockRate: sampleRate}, PayloadType: eventsType},
	} {
		if err := engine.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
			return nil, fmt.Errorf("codec: %w", err)
		}
	}
	var s webrtc.SettingEngine
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	if from != nil {
		s.SetRemoteIPFilter(from)
	}
	if loopback {
		s.SetIncludeLoopbackCandidate(true)
		s.SetIPFilter(net.IP.IsLoopback)
	}
	return webrtc.NewAPI(webrtc.WithMediaEngine(&engine), webrtc.WithSettingEngine(s)), nil
}

const (
	mimeEvents = "audio/telephone-event"
	// eventsType is not the payload type that switches use, so that it must be mapped.
	eventsType = 126
)

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.mux.ServeHTTP(w, r) }

// Request is what is asked for.
type Request struct {
	CallID       string `json:"callId"`
	CallerNumber string `json:"callerNumber"`
	AgentRef     string `json:"aiAgentRef"`
	TenantID     string `json:"tenantId"`
	StoreID      string `json:"storeId"`
}

// fault returns how a call goes wrong.
func (g *Gateway) fault(asked Request) Fault {
	if g.opts.Choose != nil {
		return g.opts.Choose(asked)
	}
	if i := strings.LastIndexByte(asked.AgentRef, '+'); i >= 0 {
		return Fault(asked.AgentRef[i+1:])
	}
	return g.opts.Fault
}

// give answers a request for a session.
func (g *Gateway) give(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
	if err != nil {
		http.Error(w, "body", http.StatusBadRequest)
		return
	}
	var asked Request
	switch {
	case !g.signed(r, body):
		http.Error(w, "signature", http.StatusUnauthorized)
		return
	case json.Unmarshal(body, &asked) != nil || asked.CallID == "" || r.Header.Get("X-Idempotency-Key") != asked.CallID:
		http.Error(w, "request", http.StatusBadRequest)
		return
	}
	fault := g.fault(asked)
	switch fault {
	case SlowSession:
		select {
		case <-time.After(10 * time.Second):
		case <-r.Context().Done():
		}
		return
	case Refuse:
		http.Error(w, "refused", http.StatusForbidden)
		return
	case Fail:
		http.Error(w, "failed", http.StatusInternalServerError)
		return
	case BadAnswer:
		_, _ = io.WriteString(w, "<html>") // whoever is gone needs no answer
		return
	}
	s, err := g.open(asked, fault) //nolint:contextcheck // a session outlives the request
	if err != nil {
		g.opts.Log.ErrorContext(r.Context(), "no session", "error", err)
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	scheme := "ws"
	if r.TLS != nil {
		scheme = "wss"
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // whoever is gone needs no answer
		"sessionId": s.id, "sdpOffer": s.offer, "wsEndpoint": scheme + "://" + r.Host + "/channel/" + s.id, "token": s.token,
		"expiresAt": time.Now().Add(time.Minute).UTC().Format(time.RFC3339),
	})
}

// signed tells whether one of a request's signatures is good.
func (g *Gateway) signed(r *http.Request, body []byte) bool {
	if g.opts.Secret == "" {
		return true
	}
	want := "sha256=" + integration.Sign(g.opts.Secret, r.Header.Get("X-Timestamp"), r.Method, r.URL.RequestURI(), body)
	return slices.Contains(strings.Split(r.Header.Get("X-edgvoip-Signature"), ", "), want)
}

// open makes a session.
func (g *Gateway) open(asked Request, fault Fault) (*Session, error) {
	pc, err := g.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, fmt.Errorf("peer connection: %w", err)
	}
	s := newSession(g, pc, asked, fault)
	if err := s.makeOffer(); err != nil {
		return nil, errors.Join(err, pc.Close())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions[s.id], g.byCall[asked.CallID] = s, s
	close(g.arrived)
	g.arrived = make(chan struct{})
	// One that nobody comes for is forgotten.
	time.AfterFunc(time.Minute, func() {
		if !s.taken.Load() {
			s.close()
		}
	})
	return s, nil
}

// Session waits for the session of a call.
func (g *Gateway) Session(ctx context.Context, callID string) (*Session, error) {
	for {
		g.mu.Lock()
		s, arrived := g.byCall[callID], g.arrived
		g.mu.Unlock()
		if s != nil {
			return s, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Close ends all sessions.
func (g *Gateway) Close() {
	g.mu.Lock()
	list := g.sessions
	g.sessions, g.byCall = map[string]*Session{}, map[string]*Session{}
	g.mu.Unlock()
	for _, s := range list {
		s.close()
	}
}

// report answers with what became of all sessions.
func (g *Gateway) report(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	list := make([]*Session, 0, len(g.sessions))
	for _, s := range g.sessions {
		list = append(list, s)
	}
	g.mu.Unlock()
	reports := make([]Report, len(list))
	for i, s := range list {
		reports[i] = s.Report()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reports) // whoever is gone needs no answer
}

func newID() string { return rand.Text() }
