package aibridge

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"

	"github.com/edgvoip/edgvoip/aisession"
)

// How ICE is hurried: a caller waits. Candidates by the better kinds are waited for no longer than this.
const (
	iceDisconnected = 2 * time.Second
	iceFailed       = 4 * time.Second
	iceKeepAlive    = time.Second
	icePatience     = 300 * time.Millisecond
)

// newAPI returns the WebRTC of one call: PCMU and telephone events, no other codec, RTCP reports, media over UDP, and
// none to or from addresses that are not allowed.
func (p *peer) newAPI(loopback bool) (*webrtc.API, error) {
	var engine webrtc.MediaEngine
	for _, c := range []webrtc.RTPCodecParameters{
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: clockRate}, PayloadType: pcmu},
		{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: mimeEvents, ClockRate: clockRate}, PayloadType: 101},
	} {
		if err := engine.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
			return nil, fmt.Errorf("codec: %w", err)
		}
	}
	var registry interceptor.Registry
	if err := webrtc.ConfigureRTCPReports(&registry); err != nil {
		return nil, fmt.Errorf("RTCP reports: %w", err)
	}
	s := webrtc.SettingEngine{LoggerFactory: silent{}}
	s.SetICETimeouts(iceDisconnected, iceFailed, iceKeepAlive)
	s.SetSrflxAcceptanceMinWait(icePatience)
	s.SetPrflxAcceptanceMinWait(icePatience)
	s.SetRelayAcceptanceMinWait(icePatience)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetIncludeLoopbackCandidate(loopback)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.DisableActiveTCP(true)
	s.SetNet(p.network)
	s.BufferFactory = p.buffer
	s.SetRemoteIPFilter(func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && p.network.allow(a.Unmap())
	})
	return webrtc.NewAPI(webrtc.WithMediaEngine(&engine), webrtc.WithInterceptorRegistry(&registry), webrtc.WithSettingEngine(s)), nil
}

const mimeEvents = "audio/telephone-event"

// silent keeps pion's log to itself: it holds addresses and candidates, and what matters is seen by its effects.
type silent struct{}

// NewLogger implements logging.LoggerFactory.
func (silent) NewLogger(string) logging.LeveledLogger {
	return (&logging.DefaultLoggerFactory{DefaultLogLevel: logging.LogLevelDisabled}).NewLogger("")
}

// peer is the side of a call towards the agent.
type peer struct {
	pc      *webrtc.PeerConnection
	network *network
	out     *outgoing
	send    *webrtc.RTPSender
	// connected is closed when ICE and DTLS are done, lost when they are lost for good.
	connected, lost chan struct{}
	// candidates are our own as they are found; nil at the end.
	candidates chan *webrtc.ICECandidate
	// tracks are the streams that the agent sends, one after another.
	tracks chan incoming
	// broken is told when the agent sends more streams than can be meant.
	broken chan error
	// streams counts them, also those of RTCP.
	streams atomic.Int32
	// taken counts the agent's candidates. It belongs to the call's goroutine.
	taken int

	// draining are readers that close waits for; once it is closed none begins.
	mu       sync.Mutex
	closed   bool
	draining sync.WaitGroup
}

type incoming struct {
	track    *webrtc.TrackRemote
	receiver *webrtc.RTPReceiver
}

// newPeer returns the peer of a session, which has not answered yet. allow tells where media may go; loopback lets it
// go over the loopback interface. Error: errServers, or one of our own.
func newPeer(s aisession.Session, allow func(netip.Addr) bool, loopback bool) (*peer, error) {
	p := &peer{
		out: &outgoing{}, connected: make(chan struct{}), lost: make(chan struct{}),
		candidates: make(chan *webrtc.ICECandidate, 64), tracks: make(chan incoming, maxStreams), broken: make(chan error, 1),
	}
	var err error
	if p.network, err = newNetwork(allow); err != nil {
		return nil, err
	}
	api, err := p.newAPI(loopback)
	if err != nil {
		return nil, err
	}
	var servers []webrtc.ICEServer
	for _, i := range s.ICEServers {
		servers = append(servers, webrtc.ICEServer{URLs: i.URLs, Username: i.Username, Credential: i.Credential})
	}
	if p.pc, err = api.NewPeerConnection(webrtc.Configuration{ICEServers: servers}); err != nil {
		return nil, errServers
	}
	p.watch()
	if p.send, err = p.pc.AddTrack(p.out); err != nil {
		p.close()
		return nil, fmt.Errorf("track: %w", err)
	}
	return p, nil
}

func (p *peer) watch() {
	var connected, lost sync.Once
	p.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateConnected:
			connected.Do(func() { close(p.connected) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			lost.Do(func() { close(p.lost) })
		case webrtc.PeerConnectionStateUnknown, webrtc.PeerConnectionStateNew, webrtc.PeerConnectionStateConnecting,
			webrtc.PeerConnectionStateDisconnected: // media is watched by itself
		}
	})
	p.pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		select {
		case p.candidates <- c:
		default: // more addresses than anybody has
		}
	})
	p.pc.OnTrack(func(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
		select {
		case p.tracks <- incoming{t, r}:
		default: // more than can be meant: the call is about to end
		}
	})
}

// Bounds on what an agent may send. One stream is meant; a few more, after one another, are those of a gateway that
// begins anew.
const (
	maxStreams    = 16
	maxCandidates = 64
	// maxBuffered is how much of a stream may wait to be read, in bytes.
	maxBuffered = 64 << 10
)

var (
	errStreams    = errors.New("more streams than one")
	errCandidates = errors.New("more than 64 candidates")
	// errServers stands for errors that may repeat what the gateway wrote.
	errServers = errors.New("iceServers: one cannot be used")
)

// buffer is where a stream waits to be read. There is one for every SSRC that the agent thinks of, until the end of the
// call.
func (p *peer) buffer(packetio.BufferPacketType, uint32) io.ReadWriteCloser {
	b := packetio.NewBuffer()
	b.SetLimitSize(maxBuffered)
	if p.streams.Add(1) > maxStreams {
		b.SetLimitCount(1)
		select {
		case p.broken <- errStreams:
		default:
		}
	}
	return b
}

// answer takes the agent's offer and returns the answer to it. From then on candidates are looked for.
func (p *peer) answer(offer string) (string, error) {
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: withoutSSRCs(offer)}); err != nil {
		return "", fmt.Errorf("offer: %w", err)
	}
	a, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	if err := p.pc.SetLocalDescription(a); err != nil {
		return "", fmt.Errorf("answer: %w", err)
	}
	return a.SDP, nil
}

// withoutSSRCs returns an offer that announces no SSRCs. With one that does, pion lets no other be heard
// (peerconnection.go, handleUndeclaredSSRC); there is only one medium that a stream can be of.
func withoutSSRCs(offer string) string {
	var b strings.Builder
	for line := range strings.Lines(offer) {
		if !strings.HasPrefix(line, "a=ssrc:") && !strings.HasPrefix(line, "a=ssrc-group:") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// addCandidate takes one of the agent's candidates. An empty one is the end of them.
func (p *peer) addCandidate(c aisession.Candidate) error {
	if c.Candidate == "" {
		return nil
	}
	if p.taken++; p.taken > maxCandidates {
		return errCandidates
	}
	err := p.pc.AddICECandidate(webrtc.ICECandidateInit{
		Candidate: c.Candidate, SDPMid: c.SDPMid, SDPMLineIndex: c.SDPMLineIndex, UsernameFragment: c.UsernameFragment,
	})
	if err != nil {
		return errors.New("a candidate that cannot be read")
	}
	return nil
}

// toMessage returns a candidate of ours as it is sent; nil is the end of them.
func toMessage(c *webrtc.ICECandidate) aisession.Message {
	out := aisession.Candidate{}
	if c != nil {
		init := c.ToJSON()
		out = aisession.Candidate{Candidate: init.Candidate, SDPMid: init.SDPMid, SDPMLineIndex: init.SDPMLineIndex, UsernameFragment: init.UsernameFragment}
	}
	return aisession.Message{Type: aisession.TypeCandidate, Candidate: &out}
}

// drain reads what only has to be read: RTCP of the other side, which would pile up and which the interceptors must
// see.
func (p *peer) drain(read func([]byte) (int, interceptor.Attributes, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.draining.Go(func() {
		b := make([]byte, 1500)
		for {
			if _, _, err := read(b); err != nil {
				return
			}
		}
	})
}

// farewell is how long a peer may take to say goodbye, to the agent and to TURN servers.
const farewell = time.Second

// close ends everything; nothing is left when it returns.
func (p *peer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	late := time.AfterFunc(farewell, p.network.abort)
	_ = p.pc.GracefulClose() // what cannot be closed is not there
	late.Stop()
	p.network.abort()
	p.draining.Wait()
}

// outgoing is the stream to the agent. It is a webrtc.TrackLocal that leaves SSRC and payload types to whoever writes,
// as there are two payload types.
type outgoing struct {
	mu     sync.Mutex
	writer webrtc.TrackLocalWriter
	ssrc   uint32
	events int
}

// Bind implements webrtc.TrackLocal.
func (o *outgoing) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writer, o.ssrc, o.events = c.WriteStream(), uint32(c.SSRC()), noEvents
	var codec *webrtc.RTPCodecParameters
	for _, p := range c.CodecParameters() {
		switch p.MimeType {
		case webrtc.MimeTypePCMU:
			codec = &p
		case mimeEvents:
			o.events = int(p.PayloadType)
		}
	}
	if codec == nil {
		return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
	}
	return *codec, nil
}

// Unbind implements webrtc.TrackLocal.
func (o *outgoing) Unbind(webrtc.TrackLocalContext) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writer = nil
	return nil
}

// ID implements webrtc.TrackLocal.
func (o *outgoing) ID() string { return "caller" }

// RID implements webrtc.TrackLocal.
func (o *outgoing) RID() string { return "" }

// StreamID implements webrtc.TrackLocal.
func (o *outgoing) StreamID() string { return "caller" }

// Kind implements webrtc.TrackLocal.
func (o *outgoing) Kind() webrtc.RTPCodecType { return webrtc.RTPCodecTypeAudio }

// bound returns where to write, and the payload type of telephone events or noEvents. writer is nil before and after
// the call.
func (o *outgoing) bound() (writer webrtc.TrackLocalWriter, ssrc uint32, events int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.writer, o.ssrc, o.events
}

var _ webrtc.TrackLocal = (*outgoing)(nil)
