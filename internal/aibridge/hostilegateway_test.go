package aibridge_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/pion/turn/v5"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// meddling changes the members of every session that a gateway gives.
func meddling(change func(session map[string]any)) func(http.Handler) http.Handler {
	return func(gateway http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != mockgateway.SessionPath {
				gateway.ServeHTTP(w, r)
				return
			}
			answer := httptest.NewRecorder()
			gateway.ServeHTTP(answer, r)
			var session map[string]any
			if err := json.Unmarshal(answer.Body.Bytes(), &session); err == nil {
				change(session)
			}
			maps.Copy(w.Header(), answer.Header())
			w.WriteHeader(answer.Code)
			_ = json.NewEncoder(w).Encode(session) // whoever is gone needs no answer
		})
	}
}

// iceServers gives every session STUN and TURN servers.
func iceServers(urls ...string) func(http.Handler) http.Handler {
	return meddling(func(session map[string]any) {
		session["iceServers"] = []any{map[string]any{"urls": urls, "username": "u", "credential": "c"}}
	})
}

// listens opens a port of 127.0.0.1 that takes whatever comes and never answers. heard tells whether something came.
func listens(tb testing.TB, network string) (at string, heard func() bool) {
	tb.Helper()
	came := make(chan struct{}, 1)
	note := func() {
		select {
		case came <- struct{}{}:
		default:
		}
	}
	heard = func() bool { return len(came) > 0 }
	if network == "udp" {
		conn, err := (&net.ListenConfig{}).ListenPacket(tb.Context(), network, "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = conn.Close() })
		go func() {
			b := make([]byte, 1500)
			for {
				if _, _, err := conn.ReadFrom(b); err != nil {
					return
				}
				note()
			}
		}()
		return conn.LocalAddr().String(), heard
	}
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), network, "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			note()
			tb.Cleanup(func() { _ = conn.Close() })
		}
	}()
	return l.Addr().String(), heard
}

// Servers that take what is sent and never answer hold up neither a call nor its end.
func TestSilentICEServers(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"stun:%s", "turn:%s?transport=udp", "turn:%s?transport=tcp", "turns:%s?transport=tcp", "turns:%s?transport=udp"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			network := "udp"
			if strings.HasSuffix(form, "tcp") {
				network = "tcp"
			}
			at, heard := listens(t, network)
			s := newSceneBehind(t, iceServers(fmt.Sprintf(form, at)), nil)
			l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
			eventually(t, "the server is asked", heard)
			l.request(soon(t), sip.BYE, "")
			over := time.Now()
			eventually(t, "the call is over", func() bool { return s.active() == 0 })
			// TURN gives a server up after 7.8 s.
			if took := time.Since(over); took > 7*time.Second {
				t.Errorf("a call that has ended was there for %v", took)
			}
		})
	}
}

// Servers that cannot be used are the session's fault: the gateway hears of it, by the outcome and its breaker, and the
// caller goes to a person.
func TestICEServersThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	for name, servers := range map[string]any{
		"no credentials": []any{map[string]any{"urls": "turn:turn.example"}},
		"by SCTP":        []any{map[string]any{"urls": "turn:turn.example?transport=sctp", "username": "u", "credential": "c"}},
		"no port":        []any{map[string]any{"urls": "stun:stun.example:x"}},
		"no name":        []any{map[string]any{"urls": "turn:[::1", "username": "u", "credential": "c"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSceneBehind(t, meddling(func(session map[string]any) { session["iceServers"] = servers }), nil)
			res, _ := s.refused(newPhone(t, s.bridge.Addr()), callOptions{trunk: trunkOf(mockgateway.None)})
			if want := `Q.850;cause=41;text="session_unusable"`; res.StatusCode != 503 || reasonOf(res) != want {
				t.Errorf("%d, %s, want %s\n%s", res.StatusCode, reasonOf(res), want, s.log)
			}
		})
	}
}

// nowhere are sessions whose media may go nowhere.
type nowhere struct{ aibridge.Sessions }

func (*nowhere) AllowsICE(netip.Addr) bool { return false }

// A server that is given by a name is asked only at an address that may be dialled.
func TestNamesOfICEServersAreChecked(t *testing.T) {
	t.Parallel()
	for _, form := range []string{
		"stun:localhost:%s", "turn:localhost:%s?transport=udp", "turn:localhost:%s?transport=tcp", "turns:localhost:%s?transport=tcp", "turns:localhost:%s?transport=udp",
	} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			network := "udp"
			if strings.HasSuffix(form, "tcp") {
				network = "tcp"
			}
			at, heard := listens(t, network)
			_, port, err := net.SplitHostPort(at)
			if err != nil {
				t.Fatal(err)
			}
			s := newSceneBehind(t, iceServers(fmt.Sprintf(form, port)), func(o *aibridge.Options, _ *mockgateway.Options) {
				o.ConnectBudget, o.Sessions = time.Second, &nowhere{}
			})
			if res, _ := s.refused(newPhone(t, s.bridge.Addr()), callOptions{trunk: trunkOf(mockgateway.None)}); !strings.Contains(reasonOf(res), "connect_late") {
				t.Errorf("%s", reasonOf(res))
			}
			if heard() {
				t.Error("a server was asked that may not be dialled")
			}
		})
	}
}

// An offer whose candidates are TCP ports lets nothing be dialled.
func TestNoICEOverTCP(t *testing.T) {
	t.Parallel()
	at, dialled := listens(t, "tcp")
	_, port, _ := net.SplitHostPort(at)
	at, asked := listens(t, "udp")
	_, other, _ := net.SplitHostPort(at)
	s := newSceneBehind(t, meddling(func(session map[string]any) {
		session["sdpOffer"] = session["sdpOffer"].(string) + "a=candidate:9 1 tcp 2130706431 127.0.0.1 " + port + " typ host tcptype passive\r\n" +
			"a=candidate:8 1 udp 2130706431 127.0.0.1 " + other + " typ host\r\n"
	}), nil)
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	eventually(t, "the candidate of UDP is tried", asked)
	l.request(soon(t), sip.BYE, "")
	eventually(t, "the call is over", func() bool { return s.active() == 0 })
	if dialled() {
		t.Error("a TCP port was dialled for media")
	}
}

// An offer in which payload type 0 is not PCMU, or PCMU is not the type 0, is none that can be answered.
func TestPCMUIsPayloadType0(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][2]string{
		"0 is another codec":   {"a=rtpmap:0 PCMU/8000", "a=rtpmap:0 opus/48000/2"},
		"0 is faster":          {"a=rtpmap:0 PCMU/8000", "a=rtpmap:0 PCMU/16000"},
		"events have the type": {"a=rtpmap:0 PCMU/8000", "a=rtpmap:0 telephone-event/8000"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSceneBehind(t, meddling(func(session map[string]any) {
				session["sdpOffer"] = strings.Replace(session["sdpOffer"].(string), change[0], change[1], 1)
			}), nil)
			res, _ := s.refused(newPhone(t, s.bridge.Addr()), callOptions{trunk: trunkOf(mockgateway.None)})
			if want := `Q.850;cause=41;text="session_unusable"`; res.StatusCode != 503 || reasonOf(res) != want {
				t.Errorf("%d, %s, want %s", res.StatusCode, reasonOf(res), want)
			}
		})
	}
}

// A WebSocket that is granted and then holds what it promised back does not hold the caller.
func TestTheChannelIsGrantedAndWithheld(t *testing.T) {
	t.Parallel()
	s := newSceneBehind(t, func(gateway http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == mockgateway.SessionPath {
				gateway.ServeHTTP(w, r)
				return
			}
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n")
			time.AfterFunc(10*time.Second, func() { _ = conn.Close() })
		})
	}, func(o *aibridge.Options, _ *mockgateway.Options) { o.ConnectBudget = time.Second })
	res, took := s.refused(newPhone(t, s.bridge.Addr()), callOptions{trunk: trunkOf(mockgateway.None)})
	// The connection is held for 10 s, and some of the time is the machine's.
	if res.StatusCode != 503 || took > 8*time.Second {
		t.Errorf("%d after %v", res.StatusCode, took)
	}
}

// What a gateway writes where an answer should be is not in the log: it may be what it was told of the caller.
func TestTheGatewaysWordsAreNotLogged(t *testing.T) {
	t.Parallel()
	const secret = "+390612345678"
	for name, answer := range map[string]string{
		"no HTTP":             secret + "\r\n\r\n",
		"no header":           "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n",
		"no status":           "HTTP/1.1 " + secret + "\r\n\r\n",
		"no length":           "HTTP/1.1 200 OK\r\nContent-Length: " + secret + "x\r\n\r\n",
		"no transfer coding":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secret + "\r\n\r\n",
		"elsewhere":           "HTTP/1.1 302 Found\r\nLocation: https://" + secret + ".example/\r\nContent-Length: 0\r\n\r\n",
		"nonsense in a field": "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"sessionId\": \"" + secret + "\", \"expiresAt\": \"" + secret + "\"}" + strings.Repeat(" ", 100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSceneBehind(t, func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					conn, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						return
					}
					_, _ = fmt.Fprint(conn, answer)
					_ = conn.Close()
				})
			}, nil)
			s.refused(newPhone(t, s.bridge.Addr()), callOptions{trunk: trunkOf(mockgateway.None)})
			eventually(t, "the call is logged", func() bool { return strings.Contains(s.log.String(), "outcome=") })
			if strings.Contains(s.log.String(), "612345678") {
				t.Errorf("%s", s.log)
			}
		})
	}
}

// A gateway that sends more packets than any stream of voice has does not have them sent on to the switch, and its
// voice is heard as soon as it has stopped.
func TestAFloodOfPacketsIsNotCarried(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	agent := s.session(l)
	eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
	frame := (&mockgateway.Tone{Hz: 2000}).Next()
	begun, before := time.Now(), len(l.headers())
	for range 5000 {
		agent.Audio(frame)
	}
	eventually(t, "the flood is dropped", func() bool { return s.dropped("flood") > 0 })
	most := before + 200 + int(200*(time.Since(begun).Seconds()+0.1))
	if n := len(l.headers()); n > most {
		t.Errorf("%d packets were sent to the switch, at most %d should have been", n-before, most-before)
	}
	eventually(t, "the caller hears the agent again", func() bool { return l.ear.Share(440) > 0.9 })
	l.request(soon(t), sip.BYE, "")
}

// A gateway that does too much of anything is let go, whatever it is: each stream would be remembered until the end of
// the call, each candidate would be tried, also where nobody asked for it, and each message is read, though it may be
// ignored.
func TestTooMuchOfAnAgent(t *testing.T) {
	t.Parallel()
	frame := (&mockgateway.Tone{Hz: 2000}).Next()
	for name, tc := range map[string]struct {
		many   int
		send   func(agent *mockgateway.Session, n int)
		reason string // part of it
	}{
		"streams": {1000, func(agent *mockgateway.Session, n int) { agent.Stream(uint32(1000+n), frame) }, `Q.850;cause=41;text="agent_failed"`},
		"candidates": {200, func(agent *mockgateway.Session, n int) {
			agent.Send(map[string]any{"type": "candidate", "candidate": map[string]any{
				"candidate": fmt.Sprintf("candidate:9 1 udp 1 127.0.0.1 %d typ host", 20000+n), "sdpMid": "0", "sdpMLineIndex": 0,
			}})
		}, `Q.850;cause=41;text="agent_failed"`},
		"messages": {1000, func(agent *mockgateway.Session, _ int) {
			agent.Send(map[string]any{"type": "mood", "is": strings.Repeat("good", 100)})
		}, "_lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
			agent := s.session(l)
			eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
			for n := range tc.many {
				tc.send(agent, n)
			}
			if bye, err := l.next(soon(t), sip.BYE); err != nil || !strings.Contains(reasonOf(bye), tc.reason) {
				t.Errorf("%v, %v", bye, err)
			}
		})
	}
}

// Packets of any size, and none at all in them, harm nothing.
func TestPacketsOfAnySize(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	agent := s.session(l)
	eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
	before := len(l.headers())
	for _, size := range []int{0, 1, 159, 161, 1000, 1187, 1188, 1200} {
		agent.Audio(make([]byte, size))
	}
	eventually(t, "the caller still hears the agent", func() bool { return len(l.headers()) > before+10 && l.ear.Share(440) > 0.9 })
	// What is larger than any link carries may end the stream, and then the caller goes to a person.
	agent.Audio(make([]byte, 3000))
	before = len(l.headers())
	eventually(t, "the caller hears somebody", func() bool { return len(l.headers()) > before+10 || len(l.requests) > 0 })
	l.request(soon(t), sip.BYE, "")
	eventually(t, "the call is over", func() bool { return s.active() == 0 })
}

// relay starts a TURN server whose relays are at 127.0.0.2, and returns where it is.
func relayServer(tb testing.TB) string {
	tb.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(tb.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	server, err := turn.NewServer(turn.ServerConfig{
		Realm: "test",
		AuthHandler: func(r *turn.RequestAttributes) (string, []byte, bool) {
			return r.Username, turn.GenerateAuthKey(r.Username, r.Realm, "c"), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.IPv4(127, 0, 0, 2), Address: "127.0.0.2"},
			PermissionHandler:     func(net.Addr, net.IP) bool { return true },
		}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	return conn.LocalAddr().String()
}

// Where nothing but a relay gets through, the session's TURN server is used, and given back.
func TestTURN(t *testing.T) {
	t.Parallel()
	s := newSceneBehind(t, iceServers("turn:"+relayServer(t)+"?transport=udp"), func(_ *aibridge.Options, g *mockgateway.Options) {
		g.From = func(ip net.IP) bool { return ip.Equal(net.IPv4(127, 0, 0, 2)) }
	})
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	agent := s.session(l)
	eventually(t, "the agent hears the caller", func() bool { return agent.Share(1000) > 0.9 })
	eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
	l.request(soon(t), sip.BYE, "")
	eventually(t, "the call is over", func() bool { return s.active() == 0 })
}

// clumsy are sessions that panic.
type clumsy struct {
	aibridge.Sessions
	where string
}

func (c *clumsy) Open(ctx context.Context, t aisession.Trunk, r aisession.SessionRequest) (aisession.Session, error) {
	if c.where == "session" {
		panic("session of " + r.CallerNumber)
	}
	return c.Sessions.Open(ctx, t, r)
}

func (c *clumsy) Dial(context.Context, aisession.Session) (*aisession.Channel, error) {
	panic("channel")
}

// A panic is the end of the call in which it happens: it is refused, leaves nothing behind, and the next one is taken.
func TestAPanicEndsOneCall(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"session", "channel"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) {
				o.Sessions, o.Limits = &clumsy{where: where}, aisession.NewLimits(1, 1)
			})
			p := newPhone(t, s.bridge.Addr())
			for range 2 {
				res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None)})
				if want := `Q.850;cause=41;text="internal"`; res.StatusCode != 500 || reasonOf(res) != want {
					t.Errorf("%d, %s", res.StatusCode, reasonOf(res))
				}
				eventually(t, "the call is over", func() bool { return s.active() == 0 })
			}
			if log := s.log.String(); !strings.Contains(log, "msg=panic") || strings.Contains(log, "612345678") {
				t.Errorf("the log says nothing of it, or too much: %s", log)
			}
		})
	}
}
