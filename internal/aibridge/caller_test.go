package aibridge_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
	"github.com/google/uuid"
	"github.com/pion/rtp"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// phone plays the switch: it calls the bridge over SIP, and sends and hears RTP. It has a socket of its own for SIP.
type phone struct {
	t       testing.TB
	bridge  netip.AddrPort
	network string
	ua      *sipgo.UserAgent
	client  *sipgo.Client
	addr    netip.AddrPort

	server   *sipgo.Server
	listener net.Listener // of the same port as addr, for listenTCP

	mu   sync.Mutex
	legs map[string]*leg // by Call-ID
}

func newPhone(tb testing.TB, bridge netip.AddrPort) *phone {
	tb.Helper()
	return newPhoneOver(tb, bridge, "udp")
}

func newPhoneOver(tb testing.TB, bridge netip.AddrPort, network string) *phone {
	tb.Helper()
	quiet := slog.New(slog.DiscardHandler)
	conn, listener := sockets(tb)
	p := &phone{t: tb, bridge: bridge, network: network, addr: conn.LocalAddr().(*net.UDPAddr).AddrPort(), listener: listener, legs: map[string]*leg{}}
	var err error
	p.ua, err = sipgo.NewUA(sipgo.WithUserAgentTransportLayerOptions(sip.WithTransportLayerLogger(quiet)),
		sipgo.WithUserAgentTransactionLayerOptions(sip.WithTransactionLayerLogger(quiet)))
	if err != nil {
		tb.Fatal(err)
	}
	p.server, err = sipgo.NewServer(p.ua, sipgo.WithServerLogger(quiet))
	if err != nil {
		tb.Fatal(err)
	}
	options := []sipgo.ClientOption{
		sipgo.WithClientLogger(quiet), sipgo.WithClientHostname("127.0.0.1"), sipgo.WithClientPort(int(p.addr.Port())),
	}
	if network == "udp" {
		// The same socket for what is sent and what is heard. The port may be taken for TCP.
		options = append(options, sipgo.WithClientConnectionAddr(p.addr.String()))
	}
	p.client, err = sipgo.NewClient(p.ua, options...)
	if err != nil {
		tb.Fatal(err)
	}
	for _, m := range []sip.RequestMethod{sip.BYE, sip.UPDATE, sip.REFER} {
		p.server.OnRequest(m, p.heard)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = p.server.ServeUDP(conn) })
	// Until then requests would be sent from another socket.
	eventually(tb, "the phone listens", func() bool {
		_, err := p.ua.TransportLayer().GetConnection("udp", p.addr.String())
		return err == nil
	})
	tb.Cleanup(func() {
		_ = p.ua.Close()
		_ = conn.Close()
		serving.Wait()
	})
	return p
}

// listenTCP takes connections where Contact is.
func (p *phone) listenTCP() {
	p.t.Helper()
	var serving sync.WaitGroup
	serving.Go(func() { _ = p.server.ServeTCP(p.listener) })
	p.t.Cleanup(func() {
		_ = p.listener.Close()
		serving.Wait()
	})
}

// sockets returns sockets of one port for UDP and TCP. Many a port of one is taken for the other.
func sockets(tb testing.TB) (net.PacketConn, net.Listener) {
	tb.Helper()
	for range 100 {
		conn, err := (&net.ListenConfig{}).ListenPacket(tb.Context(), "udp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", conn.LocalAddr().String())
		if err == nil {
			tb.Cleanup(func() { _ = l.Close() })
			return conn, l
		}
		_ = conn.Close()
	}
	tb.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// heard takes a request of the bridge.
func (p *phone) heard(req *sip.Request, tx sip.ServerTransaction) {
	p.mu.Lock()
	l := p.legs[req.CallID().Value()]
	p.mu.Unlock()
	status := 200
	if l == nil {
		status = 481
	} else if req.Method == sip.REFER {
		l.mu.Lock()
		status = l.referStatus
		l.mu.Unlock()
	}
	_ = tx.Respond(sip.NewResponseFromRequest(req, status, "Whatever", nil))
	if l != nil {
		l.requests <- req
	}
}

// leg is one call.
type leg struct {
	phone    *phone
	id       uuid.UUID
	invite   *sip.Request
	tx       sip.ClientTransaction
	answer   *sip.Response
	requests chan *sip.Request
	cseq     uint32

	referStatus int

	rtp      *net.UDPConn
	far      netip.AddrPort
	ear      mockgateway.Ear
	playing  sync.WaitGroup
	stop     context.CancelFunc
	mu       sync.Mutex
	hz       float64 // zero: silence, that is no packets
	timed    bool    // packets hold when they were sent, in the place of their last samples
	received []rtp.Header
	digits   string
	lastTS   uint32
	header   rtp.Header
}

// callOptions say what a call is like; the zero value is an ordinary one.
type callOptions struct {
	trunk   uuid.UUID
	from    string
	sdp     string
	headers []sip.Header
	without string // a header to leave out
}

const eventsPT = 101

func (l *leg) offer(direction string) string {
	return fmt.Sprintf("v=0\r\no=FreeSWITCH 1 1 IN IP4 127.0.0.1\r\ns=FreeSWITCH\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"+
		"m=audio %d RTP/AVP 0 %d\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\na=%s\r\na=ptime:20\r\n",
		l.rtp.LocalAddr().(*net.UDPAddr).Port, eventsPT, eventsPT, eventsPT, direction)
}

// newLeg prepares a call.
func (p *phone) newLeg() *leg {
	p.t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		p.t.Fatal(err)
	}
	return &leg{phone: p, id: uuid.New(), requests: make(chan *sip.Request, 16), rtp: conn, hz: 1000, referStatus: 202, header: rtp.Header{Version: 2, SSRC: 77, SequenceNumber: 65530, Timestamp: 4294967000}}
}

// send sends the INVITE.
func (l *leg) send(o callOptions) {
	p := l.phone
	p.t.Helper()
	req := sip.NewRequest(sip.INVITE, sip.Uri{Scheme: "sip", User: "ai", Host: p.bridge.Addr().String(), Port: int(p.bridge.Port())})
	from := sip.FromHeader{Address: sip.Uri{Scheme: "sip", User: "+390612345678", Host: "tenant-a.example"}}
	if o.from != "" {
		from.Address.User = o.from
	}
	from.Params.Add("tag", sip.GenerateTagN(12))
	req.AppendHeader(&from)
	req.AppendHeader(&sip.ContactHeader{Address: sip.Uri{Scheme: "sip", User: "switch", Host: "127.0.0.1", Port: int(p.addr.Port())}})
	callID := sip.CallIDHeader(uuid.NewString())
	req.AppendHeader(&callID)
	for _, h := range append([]sip.Header{
		sip.NewHeader("X-edgvoip-Trunk", o.trunk.String()), sip.NewHeader("X-edgvoip-Call", l.id.String()),
		sip.NewHeader("Supported", "timer, path, replaces"), sip.NewHeader("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, REFER, NOTIFY"),
	}, o.headers...) {
		if h.Name() != o.without {
			req.AppendHeader(h)
		}
	}
	if o.sdp == "" {
		o.sdp = l.offer("sendrecv")
	}
	req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
	req.SetBody([]byte(o.sdp))
	req.SetTransport(strings.ToUpper(p.network))
	p.mu.Lock()
	p.legs[string(callID)] = l
	p.mu.Unlock()
	var err error
	if l.tx, err = p.client.TransactionRequest(p.t.Context(), req); err != nil {
		p.t.Fatal(err)
	}
	l.invite, l.cseq = req, req.CSeq().SeqNo
}

// final waits for the final answer to the INVITE, and acknowledges it.
func (l *leg) final(ctx context.Context) (*sip.Response, error) {
	for {
		select {
		case res := <-l.tx.Responses():
			if res.IsProvisional() {
				continue
			}
			l.answer = res
			if res.IsSuccess() {
				l.ack(res, nil)
			}
			return res, nil
		case <-l.tx.Done():
			return nil, l.tx.Err()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ack acknowledges a 2xx.
func (l *leg) ack(res *sip.Response, body []byte) {
	req := l.build(sip.ACK, res.CSeq().SeqNo)
	if body != nil {
		req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
		req.SetBody(body)
	}
	if err := l.phone.client.WriteRequest(req, sipgo.ClientRequestAddVia); err != nil {
		l.phone.t.Error(err)
	}
}

func (l *leg) build(method sip.RequestMethod, cseq uint32) *sip.Request {
	req := sip.NewRequest(method, l.invite.Recipient)
	req.AppendHeader(sip.HeaderClone(l.invite.From()))
	to := l.invite.To()
	if l.answer != nil {
		to = l.answer.To()
	}
	req.AppendHeader(sip.HeaderClone(to))
	req.AppendHeader(sip.HeaderClone(l.invite.CallID()))
	req.AppendHeader(&sip.CSeqHeader{SeqNo: cseq, MethodName: method})
	req.AppendHeader(sip.HeaderClone(l.invite.Contact()))
	req.AppendHeader(sip.NewHeader("Max-Forwards", "70"))
	req.SetTransport(l.invite.Transport())
	req.SetBody(nil)
	req.Laddr = l.invite.Laddr
	return req
}

// request sends a request in the dialog and returns the answer.
func (l *leg) request(ctx context.Context, method sip.RequestMethod, body string, headers ...sip.Header) *sip.Response {
	l.phone.t.Helper()
	l.cseq++
	req := l.build(method, l.cseq)
	for _, h := range headers {
		req.AppendHeader(h)
	}
	if body != "" {
		req.AppendHeader(sip.NewHeader("Content-Type", "application/sdp"))
		req.SetBody([]byte(body))
	}
	res, err := l.phone.client.Do(ctx, req, sipgo.ClientRequestAddVia)
	if err != nil {
		l.phone.t.Fatalf("%s: %v", method, err)
	}
	if method == sip.INVITE && res.IsSuccess() && body != "" {
		l.ack(res, nil)
	}
	return res
}

// cancel cancels the INVITE.
func (l *leg) cancel() {
	req := sip.NewRequest(sip.CANCEL, l.invite.Recipient)
	for _, h := range []sip.Header{l.invite.Via(), l.invite.From(), l.invite.To(), l.invite.CallID()} {
		req.AppendHeader(sip.HeaderClone(h))
	}
	req.AppendHeader(&sip.CSeqHeader{SeqNo: l.invite.CSeq().SeqNo, MethodName: sip.CANCEL})
	req.AppendHeader(sip.NewHeader("Max-Forwards", "70"))
	req.SetTransport(l.invite.Transport())
	req.SetBody(nil)
	req.Laddr = l.invite.Laddr
	if err := l.phone.client.WriteRequest(req, func(*sipgo.Client, *sip.Request) error { return nil }); err != nil {
		l.phone.t.Error(err)
	}
}

// options asks the bridge whether it is there.
func (p *phone) options(ctx context.Context) *sip.Response {
	p.t.Helper()
	req := sip.NewRequest(sip.OPTIONS, sip.Uri{Scheme: "sip", Host: p.bridge.Addr().String(), Port: int(p.bridge.Port())})
	res, err := p.client.Do(ctx, req)
	if err != nil {
		p.t.Fatal(err)
	}
	return res
}

// media begins to send and hear RTP, to where the answer says.
func (l *leg) media() {
	l.phone.t.Helper()
	for line := range strings.SplitSeq(string(l.answer.Body()), "\r\n") {
		var port uint16
		if n, _ := fmt.Sscanf(line, "m=audio %d ", &port); n == 1 {
			l.far = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		}
	}
	if !l.far.IsValid() {
		l.phone.t.Fatalf("no port in %s", l.answer.Body())
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.playing.Go(func() { l.play(ctx) })
	l.playing.Go(l.hear)
}

func (l *leg) play(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var tone mockgateway.Tone
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		l.header.Timestamp += mockgateway.FrameSamples
		if tone.Hz = l.hz; tone.Hz != 0 {
			frame := tone.Next()
			if l.timed {
				mockgateway.Stamp(frame, time.Now())
			}
			l.write(0, frame)
		}
		l.mu.Unlock()
	}
}

// play sets the tone; zero sends nothing.
func (l *leg) tone(hz float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hz = hz
}

// write sends a packet. The caller has the lock.
func (l *leg) write(pt uint8, payload []byte) {
	l.header.SequenceNumber++
	l.header.PayloadType = pt
	b, err := (&rtp.Packet{Header: l.header, Payload: payload}).Marshal()
	if err == nil {
		_, _ = l.rtp.WriteToUDPAddrPort(b, l.far)
	}
}

// press plays a digit (RFC 4733).
func (l *leg) press(digit byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range 6 {
		end := byte(0)
		if i >= 3 {
			end = 0x80
		}
		l.write(eventsPT, []byte{byte(strings.IndexByte("0123456789*#", digit)), end | 10, 0, byte(min(i+1, 4) * 40)})
	}
	l.header.Timestamp += mockgateway.FrameSamples
}

func (l *leg) hear() {
	buf := make([]byte, 1500)
	for {
		n, from, err := l.rtp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		l.mu.Lock()
		stray := from != l.far
		l.mu.Unlock()
		if stray {
			continue // somebody has not noticed yet that the port is another call's by now
		}
		var p rtp.Packet
		if err := p.Unmarshal(buf[:n]); err != nil {
			l.phone.t.Errorf("RTP: %v", err)
			continue
		}
		l.mu.Lock()
		l.received = append(l.received, p.Header)
		if p.PayloadType == eventsPT && p.Payload[1]&0x80 != 0 && p.Timestamp != l.lastTS {
			l.digits += string("0123456789*#"[p.Payload[0]])
			l.lastTS = p.Timestamp
		}
		l.mu.Unlock()
		if p.PayloadType == 0 {
			l.ear.Hear(p.Payload)
		}
	}
}

// pressed returns the digits that were heard.
func (l *leg) pressed() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.digits
}

// headers returns what was received.
func (l *leg) headers() []rtp.Header {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]rtp.Header(nil), l.received...)
}

// close ends media.
func (l *leg) close() {
	if l.stop != nil {
		l.stop()
	}
	_ = l.rtp.Close()
	l.playing.Wait()
	l.phone.mu.Lock()
	defer l.phone.mu.Unlock()
	delete(l.phone.legs, l.invite.CallID().Value())
}

// next waits for a request of the bridge.
func (l *leg) next(ctx context.Context, method sip.RequestMethod) (*sip.Request, error) {
	for {
		select {
		case req := <-l.requests:
			if req.Method == method {
				return req, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("no %s: %w", method, ctx.Err())
		}
	}
}

// eventually waits until something is so. It looks again and again, as media tells nobody.
func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			tb.Fatalf("%s: not within 10 s", what)
		}
	}
}
