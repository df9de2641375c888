package mockgateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Session is the agent in one call. It is safe for concurrent use.
type Session struct {
	gateway *Gateway
	id      string
	token   string
	asked   Request
	fault   Fault
	offer   string
	pc      *webrtc.PeerConnection
	track   *track
	ear     Ear
	taken   atomic.Bool
	closed  sync.Once
	over    chan struct{}

	mu         sync.Mutex
	conn       *websocket.Conn
	candidates []webrtc.ICECandidateInit // ours, until there is a channel
	early      []webrtc.ICECandidateInit // theirs, until there is an answer
	answered   bool
	speaking   bool
	hz         float64
	report     Report
	changed    chan struct{} // closed and replaced when the report changes
	lastEvent  uint32
	lastSeq    uint16
	delays     []float64
}

// Report is what became of a session.
type Report struct {
	Request
	Fault     Fault  `json:"fault"`
	Connected bool   `json:"connected"`
	Packets   int    `json:"packets"` // of audio
	Gaps      int    `json:"gaps"`    // sequence numbers that did not follow
	Digits    string `json:"digits"`
	Holds     []bool `json:"holds"`
	Hangup    string `json:"hangup"` // the reason that edgvoip gave; empty while it gave none
	Over      bool   `json:"over"`
	// Echo is the share of what the caller sent last that is the gateway's own tone: nearly 1 when he says back what he
	// hears.
	Echo float64 `json:"echo"`
}

func newSession(g *Gateway, pc *webrtc.PeerConnection, asked Request, fault Fault) *Session {
	s := &Session{
		gateway: g, id: newID(), token: newID(), asked: asked, fault: fault, pc: pc, track: &track{}, over: make(chan struct{}), hz: g.opts.Hz,
		changed: make(chan struct{}),
	}
	s.report.Request, s.report.Fault = asked, fault
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		if state == webrtc.PeerConnectionStateConnected {
			s.change(func(r *Report) { r.Connected = true })
			go s.speak()
		}
	})
	pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c == nil {
			s.sendCandidate(webrtc.ICECandidateInit{})
		} else {
			s.sendCandidate(c.ToJSON())
		}
	})
	pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { s.listen(t) })
	return s
}

// makeOffer makes the offer that the session is given with.
func (s *Session) makeOffer() error {
	if _, err := s.pc.AddTrack(s.track); err != nil {
		return fmt.Errorf("track: %w", err)
	}
	o, err := s.pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	if err := s.pc.SetLocalDescription(o); err != nil {
		return fmt.Errorf("offer: %w", err)
	}
	s.offer = o.SDP
	switch s.fault {
	case BadSDP:
		s.offer = "v=0\r\nnonsense"
	case NoPCMU:
		s.offer = strings.ReplaceAll(strings.ReplaceAll(s.offer, "UDP/TLS/RTP/SAVPF 0 ", "UDP/TLS/RTP/SAVPF 111 "), "rtpmap:0 PCMU/8000", "rtpmap:111 opus/48000/2")
	}
	return nil
}

// change changes the report.
func (s *Session) change(f func(*Report)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.report)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Report returns what is known.
func (s *Session) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.report
	r.Holds = append([]bool(nil), r.Holds...)
	r.Echo = s.ear.Share(s.gateway.opts.Hz)
	return r
}

// Wait waits until the report is as it should be. Error: ctx's.
func (s *Session) Wait(ctx context.Context, as func(Report) bool) (Report, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		r := s.Report()
		if as(r) {
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// Share returns which share of what the caller sends is a tone of a frequency.
func (s *Session) Share(hz float64) float64 { return s.ear.Share(hz) }

// Delays returns how long stamped frames of the caller took, in milliseconds, as far as both clocks are one.
func (s *Session) Delays() []float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]float64(nil), s.delays...)
}

// message is what is exchanged over the channel.
type message struct {
	Type      string                   `json:"type"`
	SDP       string                   `json:"sdp,omitempty"`
	Candidate *webrtc.ICECandidateInit `json:"candidate,omitempty"`
	Active    *bool                    `json:"active,omitempty"`
	Reason    string                   `json:"reason,omitempty"`
	To        string                   `json:"to,omitempty"`
	Code      string                   `json:"code,omitempty"`
}

// channel takes the WebSocket of a session.
func (g *Gateway) channel(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	s := g.sessions[r.PathValue("id")]
	g.mu.Unlock()
	if s == nil || r.Header.Get("Authorization") != "Bearer "+s.token || s.fault == NoChannel || !s.taken.CompareAndSwap(false, true) {
		http.Error(w, "no such session", http.StatusForbidden)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"edgvoip.ai.v1"}})
	if err != nil {
		return
	}
	defer s.close()
	s.mu.Lock()
	s.conn = conn
	waiting := s.candidates
	s.candidates = nil
	s.mu.Unlock()
	if s.fault == DropEarly {
		_ = conn.CloseNow() // that is the fault
		return
	}
	for _, c := range waiting {
		s.sendCandidate(c) //nolint:contextcheck // as above
	}
	for {
		_, b, err := conn.Read(context.Background()) //nolint:contextcheck // the session ends it
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(b, &m); err != nil {
			return
		}
		if over := s.take(m); over {
			return
		}
	}
}

// take takes a message and tells whether it was the last.
func (s *Session) take(m message) (over bool) {
	switch m.Type {
	case "answer":
		if err := s.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: m.SDP}); err != nil {
			return true
		}
		s.mu.Lock()
		early := s.early
		s.answered, s.early = true, nil
		s.mu.Unlock()
		for _, c := range early {
			s.addCandidate(c)
		}
	case "candidate":
		s.mu.Lock()
		waits := !s.answered
		if waits {
			s.early = append(s.early, *m.Candidate)
		}
		s.mu.Unlock()
		if !waits {
			s.addCandidate(*m.Candidate)
		}
	case "hold":
		s.change(func(r *Report) { r.Holds = append(r.Holds, m.Active != nil && *m.Active) })
	case "hangup":
		s.change(func(r *Report) { r.Hangup = m.Reason })
		return true
	}
	return false
}

func (s *Session) addCandidate(c webrtc.ICECandidateInit) {
	if c.Candidate == "" || s.fault == NoConnect {
		return
	}
	_ = s.pc.AddICECandidate(c) // one that is of no use is not used
}

func (s *Session) sendCandidate(c webrtc.ICECandidateInit) {
	if s.fault == NoConnect && c.Candidate != "" {
		return
	}
	s.mu.Lock()
	if s.conn == nil {
		s.candidates = append(s.candidates, c)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	s.Send(message{Type: "candidate", Candidate: &c})
}

// Send sends a message, if there is a channel.
func (s *Session) Send(m any) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	b, err := json.Marshal(m)
	if err != nil || conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Write(ctx, websocket.MessageText, b) // whoever is gone does not hear it
}

// Begin goes on with another tone on another stream, of an SSRC that was not announced, as an agent does that begins
// anew.
func (s *Session) Begin(ssrc uint32, hz float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hz = hz
	s.track.begin(ssrc)
}

// Stream sends a packet of audio on another stream, of an SSRC that was not announced. It is what a broken gateway
// does.
func (s *Session) Stream(ssrc uint32, payload []byte) { s.track.stream(ssrc, payload) }

// Audio sends a packet of audio beside those that are sent every 20 ms.
func (s *Session) Audio(payload []byte) { s.track.audio(payload) }

// Leave ends the media, and says something a moment later.
func (s *Session) Leave(word any) {
	_ = s.pc.Close() // what cannot be closed is not there
	time.AfterFunc(30*time.Millisecond, func() { s.Send(word) })
}

// Do lets a fault of mid-call happen now.
func (s *Session) Do(f Fault) {
	switch f {
	case DropChannel:
		s.mu.Lock()
		conn := s.conn
		s.mu.Unlock()
		_ = conn.CloseNow() // that is the fault
	case HangUp:
		s.Send(message{Type: "hangup", Reason: "normal"})
	case LeaveFirst:
		s.Leave(message{Type: "hangup", Reason: "normal"})
	case GiveUp:
		s.Send(message{Type: "hangup", Reason: "failure"})
	case Error:
		s.Send(message{Type: "error", Code: "model_unavailable"})
	case Nonsense:
		s.Send(map[string]any{"type": "transfer", "to": "${system(id)}"})
	case Transfer:
		s.Send(message{Type: "transfer", To: s.gateway.opts.TransferTo})
	case StopMedia:
		s.mu.Lock()
		s.speaking = false
		s.mu.Unlock()
	}
}

// Resume speaks again after StopMedia.
func (s *Session) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.speaking = true
}

// Answered tells whether the offer was answered over the channel.
func (s *Session) Answered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answered
}

// speak plays the tone until the session is over, with a packet every 20 ms.
func (s *Session) speak() {
	after := s.gateway.opts.After
	if s.fault == LateMedia {
		select {
		case <-time.After(after + 5*time.Second):
		case <-s.over:
			return
		}
	} else if s.fault != None {
		timer := time.AfterFunc(after, func() { s.Do(s.fault) })
		defer timer.Stop()
	}
	s.mu.Lock()
	s.speaking = true
	s.mu.Unlock()
	var tone Tone
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.over:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		speaking := s.speaking
		tone.Hz = s.hz
		s.mu.Unlock()
		if speaking {
			s.track.audio(tone.Next())
		}
	}
}

// Press plays a digit to the caller (RFC 4733): three packets that it goes on, three that it is over.
func (s *Session) Press(digit byte) { s.track.press(digit) }

const digits = "0123456789*#ABCD"

// listen hears what the caller sends.
func (s *Session) listen(t *webrtc.TrackRemote) {
	for {
		p, _, err := t.ReadRTP()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.report.Packets > 0 && p.SequenceNumber != s.lastSeq+1 {
			s.report.Gaps++
		}
		s.lastSeq = p.SequenceNumber
		s.report.Packets++
		s.mu.Unlock()
		if p.PayloadType == eventsType {
			s.event(p)
			continue
		}
		s.ear.Hear(p.Payload)
		if at, ok := Stamped(p.Payload); ok {
			took := float64(time.Since(at).Microseconds()) / 1000
			s.mu.Lock()
			s.delays = append(s.delays, took)
			s.mu.Unlock()
		}
	}
}

// event notes a digit once, when it is over.
func (s *Session) event(p *rtp.Packet) {
	if len(p.Payload) < 4 || p.Payload[1]&0x80 == 0 || int(p.Payload[0]) >= len(digits) {
		return
	}
	s.mu.Lock()
	again := s.lastEvent == p.Timestamp
	s.lastEvent = p.Timestamp
	s.mu.Unlock()
	if !again {
		s.change(func(r *Report) { r.Digits += string(digits[p.Payload[0]]) })
	}
}

// close ends the session.
func (s *Session) close() {
	s.closed.Do(func() {
		close(s.over)
		s.mu.Lock()
		conn := s.conn
		s.mu.Unlock()
		if conn != nil {
			_ = conn.CloseNow() // it may be closed already
		}
		_ = s.pc.GracefulClose() // what cannot be closed is not there
		s.change(func(r *Report) { r.Over = true })
	})
}

// track is what the agent sends. It writes payload types itself, as there are two.
type track struct {
	mu     sync.Mutex
	writer webrtc.TrackLocalWriter
	header rtp.Header
}

// Bind implements webrtc.TrackLocal.
func (t *track) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writer, t.header = c.WriteStream(), rtp.Header{Version: 2, SSRC: uint32(c.SSRC()), SequenceNumber: 65500, Timestamp: 1 << 31}
	for _, p := range c.CodecParameters() {
		if p.MimeType == webrtc.MimeTypePCMU {
			return p, nil
		}
	}
	return webrtc.RTPCodecParameters{}, errors.New("no PCMU")
}

// Unbind implements webrtc.TrackLocal.
func (t *track) Unbind(webrtc.TrackLocalContext) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.writer = nil
	return nil
}

// ID implements webrtc.TrackLocal.
func (t *track) ID() string { return "agent" }

// RID implements webrtc.TrackLocal.
func (t *track) RID() string { return "" }

// StreamID implements webrtc.TrackLocal.
func (t *track) StreamID() string { return "agent" }

// Kind implements webrtc.TrackLocal.
func (t *track) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }

func (t *track) audio(payload []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header.Timestamp += FrameSamples
	t.write(0, payload)
}

func (t *track) begin(ssrc uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header.SSRC, t.header.SequenceNumber, t.header.Timestamp = ssrc, 7, 7
}

func (t *track) stream(ssrc uint32, payload []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.header.SSRC
	t.header.SSRC = ssrc
	t.write(0, payload)
	t.header.SSRC = before
}

func (t *track) press(digit byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.header.Timestamp += FrameSamples
	for i := range 6 {
		end := byte(0)
		if i >= 3 {
			end = 0x80
		}
		t.write(eventsType, []byte{byte(strings.IndexByte(digits, digit)), end | 10, 0, byte(min(i+1, 4) * 40)}) //nolint:gosec // a digit
	}
}

// write sends a packet. The caller has the lock.
func (t *track) write(pt uint8, payload []byte) {
	if t.writer == nil {
		return
	}
	t.header.SequenceNumber++
	t.header.PayloadType = pt
	h := t.header
	_, _ = t.writer.WriteRTP(&h, payload) // whoever is gone does not hear it
}
