package aibridge_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// hostile are messages that nobody should send, or that ask for more than anybody should get. %s is the way, UDP or
// TCP; %d a number that is another one each time.
var hostile = map[string]string{
	"nothing":            "\r\n\r\n\r\n",
	"no SIP":             "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	"binary":             "\x00\xff\xfe\x01INVITE\x00\r\n\r\n",
	"no headers":         "INVITE sip:a@b SIP/2.0\r\n\r\n",
	"no Via":             "INVITE sip:a@b SIP/2.0\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"no From":            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"no To":              "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"no CSeq":            "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"no Call-ID":         "BYE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
	"Contact is a star":  "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: *\r\nContent-Length: 0\r\n\r\n",
	"methods disagree":   "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 ACK\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"CSeq is no number":  "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 99999999999999 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"no branch":          "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n",
	"Via is elsewhere":   "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 198.51.100.7:5060;branch=z9hG4bK%[2]d;maddr=198.51.100.8;received=198.51.100.9\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
	"unknown method":     "DESTROY sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 DESTROY\r\nContent-Length: 0\r\n\r\n",
	"answer to nothing":  "SIP/2.0 200 OK\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
	"negative length":    "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: -1\r\n\r\n",
	"endless length":     "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 OPTIONS\r\nContent-Length: 4294967295\r\n\r\nx",
	"too short a length": "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 1\r\n\r\nv=0\r\n",
	"long header":        "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nX: " + strings.Repeat("x", 60000) + "\r\n\r\n",
	"many headers":       "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\n" + strings.Repeat("Via: SIP/2.0/UDP x\r\n", 2500) + "\r\n",
	"open quotes":        "INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: \"a <sip:a@b>;tag=1\r\nTo: <sip:\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <\r\nContent-Length: 0\r\n\r\n",
	"IPv6 in pieces":     "INVITE sip:[::1 SIP/2.0\r\nVia: SIP/2.0/%[1]s [::1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@[>;tag=1\r\nTo: <sip:a@]>\r\nCall-ID: %[2]d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@[::1>\r\nContent-Length: 0\r\n\r\n",
	"CANCEL of nothing":  "CANCEL sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: %[2]d\r\nCSeq: 1 CANCEL\r\nContent-Length: 0\r\n\r\n",
	"ACK of nothing":     "ACK sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: %[2]d\r\nCSeq: 1 ACK\r\nContent-Length: 0\r\n\r\n",
	"NOTIFY of nothing":  "NOTIFY sip:a@b SIP/2.0\r\nVia: SIP/2.0/%[1]s 127.0.0.1;branch=z9hG4bK%[2]d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\nCall-ID: %[2]d\r\nCSeq: 1 NOTIFY\r\nContent-Length: 0\r\n\r\n",
}

// Whatever is sent to the port, by either way, calls that are there go on and others are taken.
func TestHostileSIP(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	l := s.call(p, mockgateway.None)
	number := 0
	for name, text := range hostile {
		for _, network := range []string{"udp", "tcp"} {
			number++
			conn, err := (&net.Dialer{}).DialContext(t.Context(), network, s.bridge.Addr().String())
			if err != nil {
				t.Fatalf("%s over %s: %v", name, network, err)
			}
			if strings.Contains(text, "%[") {
				text = fmt.Sprintf(text, strings.ToUpper(network), number)
			}
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Errorf("%s over %s: %v", name, network, err)
			}
			if res := p.options(soon(t)); res.StatusCode != 200 {
				t.Errorf("after %s over %s OPTIONS was answered %d", name, network, res.StatusCode)
			}
			_ = conn.Close()
		}
	}
	agent := s.session(l)
	eventually(t, "the agent hears the caller", func() bool { return agent.Share(1000) > 0.9 })
	l.request(soon(t), sip.BYE, "")
	s.call(p, mockgateway.None).request(soon(t), sip.BYE, "")
}

// Whoever is no peer gets no answer over UDP, and no connection to hold over TCP.
func TestStrangersGetNoConnection(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) { o.Peers = prefixes("127.0.0.1/32") })
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := stranger.DialContext(t.Context(), "tcp", s.bridge.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the connection of a stranger stays: %v", err)
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error) //nolint:errorlint // as net returns it
	return ok && n.Timeout()
}

// Somebody who knows all that is said in a dialog cannot speak in it from another address.
func TestAnotherPeerCannotEndACall(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := from.DialContext(t.Context(), "tcp", s.bridge.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, method := range []sip.RequestMethod{sip.BYE, sip.INVITE, sip.UPDATE, sip.NOTIFY} {
		req := l.build(method, 100)
		req.PrependHeader(sip.NewHeader("Via", "SIP/2.0/TCP 127.0.0.2:9;branch=z9hG4bK"+string(method)))
		req.AppendHeader(sip.NewHeader("Content-Length", "0"))
		if _, err := conn.Write([]byte(req.String())); err != nil {
			t.Fatal(err)
		}
		if status := readStatus(t, conn); !strings.Contains(status, " 481 ") {
			t.Errorf("%s of another peer was answered %q", method, status)
		}
	}
	if res := l.request(soon(t), sip.BYE, ""); res.StatusCode != 200 {
		t.Errorf("BYE was answered %d", res.StatusCode)
	}
}

// readStatus reads an answer without a body and returns its first line.
func readStatus(tb testing.TB, conn net.Conn) string {
	tb.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	first := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			tb.Fatalf("after %q: %v", first, err)
		}
		if first == "" {
			first = strings.TrimSpace(line)
		}
		if line == "\r\n" {
			return first
		}
	}
}

// A switch whose connection broke is told the end of a call where its Contact is.
func TestTheEndOfACallFindsASwitchThatReconnects(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhoneOver(t, s.bridge.Addr(), "tcp")
	l := s.call(p, mockgateway.None)
	p.listenTCP()
	p.ua.TransportLayer().Pool("tcp").Clear()
	s.session(l).Do(mockgateway.HangUp)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if bye, err := l.next(ctx, sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=16;text="agent_hung_up"` {
		t.Errorf("%v, %v\n%s", bye, err, s.log)
	}
}

// Media is sent to no address but where SIP came from, and peers': whoever calls cannot let the agent's voice be sent
// to others.
func TestMediaGoesToPeersOnly(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	for _, at := range []string{"198.51.100.7", "10.0.0.1", "224.0.0.1", "255.255.255.255"} {
		l := p.newLeg()
		offer := strings.Replace(l.offer("sendrecv"), "c=IN IP4 127.0.0.1", "c=IN IP4 "+at, 1)
		_ = l.rtp.Close()
		if res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None), sdp: offer}); res.StatusCode != 488 {
			t.Errorf("media at %s: %d", at, res.StatusCode)
		}
	}
	l := s.call(p, mockgateway.None)
	if res := l.request(soon(t), sip.INVITE, strings.Replace(l.offer("sendrecv"), "c=IN IP4 127.0.0.1", "c=IN IP4 198.51.100.7", 1)); res.StatusCode != 488 {
		t.Errorf("a re-INVITE elsewhere was answered %d", res.StatusCode)
	}
	l.request(soon(t), sip.BYE, "")
}

// prefixes reads networks.
func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// poorListener has no file to spare for a while.
type poorListener struct {
	net.Listener
	failures int
}

func (p *poorListener) Accept() (net.Conn, error) {
	if p.failures--; p.failures >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE}
	}
	return p.Listener.Accept()
}

// A connection that cannot be taken now ends neither the listener nor the calls; only closing does.
func TestTheListenerOutlivesFailures(t *testing.T) {
	t.Parallel()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := aibridge.NewListener(&poorListener{inner, 3}, prefixes("127.0.0.0/8"))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	taken, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = taken.Close()
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after closing: %v", err)
	}
}

// A flood of INVITEs is dropped, except for as many as may be remembered, and calls are taken all the same.
func TestAFloodOfInvites(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "udp", s.bridge.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	begun := time.Now()
	for i := range 3000 {
		invite := fmt.Sprintf("INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK%d;rport\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n"+
			"Call-ID: %d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@b>\r\nContent-Length: 0\r\n\r\n", i, i)
		if _, err := conn.Write([]byte(invite)); err != nil {
			t.Fatal(err)
		}
	}
	s.call(newPhone(t, s.bridge.Addr()), mockgateway.None).request(soon(t), sip.BYE, "")
	most := 100 + 100*(time.Since(begun).Seconds()+1)
	if n := s.counted("bad_request"); n == 0 || n > most {
		t.Errorf("%v were refused, at most %v should have been, and some", n, most)
	}
}
