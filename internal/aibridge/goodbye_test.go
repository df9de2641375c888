package aibridge_test

import (
	"strings"
	"testing"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// A gateway that ends its media a moment before it says why is taken at its word.
func TestTheLastWordMayComeAfterTheMedia(t *testing.T) {
	t.Parallel()
	t.Run("hangup", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, nil)
		l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.LeaveFirst)
		if bye, err := l.next(soon(t), sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=16;text="agent_hung_up"` {
			t.Errorf("%v, %v", bye, err)
		}
	})
	t.Run("transfer", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, nil)
		l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
		agent := s.session(l)
		eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
		agent.Leave(map[string]any{"type": "transfer", "to": "1002"})
		if _, err := l.next(soon(t), sip.REFER); err != nil {
			t.Fatal(err)
		}
		l.request(soon(t), sip.BYE, "")
		eventually(t, "the call is counted", func() bool { return s.counted("transferred") == 1 })
	})
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, nil)
		l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
		agent := s.session(l)
		eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
		agent.Leave(map[string]any{"type": "mood"})
		if bye, err := l.next(soon(t), sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=41;text="peer_lost"` {
			t.Errorf("%v, %v", bye, err)
		}
	})
}

// What the switch says of the end of a call is believed: only a normal one, or none, is the caller's own.
func TestWhyTheSwitchEndsTheCall(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]struct{ outcome, told string }{
		"":                                      {"caller_hung_up", "normal"},
		`Q.850;cause=16;text="NORMAL_CLEARING"`: {"caller_hung_up", "normal"},
		`q.850 ;text="a;cause=41, b" ; Cause = 16`:                                    {"caller_hung_up", "normal"},
		`SIP;cause=604;text="MEDIA_TIMEOUT"`:                                          {"switch_failed", "failure"},
		`Q.850;cause=41;text="NORMAL_TEMPORARY_FAILURE"`:                              {"switch_failed", "failure"},
		`SIP;cause=200;text="Call completed elsewhere"`:                               {"transferred", "transferred"},
		`SIP;cause=800;text="BLIND_TRANSFER"`:                                         {"transferred", "transferred"},
		`SIP;cause=503;text="MANAGER_REQUEST", Q.850;cause=16;text="NORMAL_CLEARING"`: {"caller_hung_up", "normal"},
		`nonsense`:       {"caller_hung_up", "normal"}, // no cause: what the caller gave, which the switch passes on
		`Q.850;cause=31`: {"caller_hung_up", "normal"},
	} {
		t.Run(reason, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
			agent := s.session(l)
			var headers []sip.Header
			if reason != "" {
				headers = append(headers, sip.NewHeader("Reason", reason))
			}
			l.request(soon(t), sip.BYE, "", headers...)
			if r, err := agent.Wait(soon(t), func(r mockgateway.Report) bool { return r.Over }); err != nil || r.Hangup != want.told {
				t.Errorf("the gateway was told %q, %v, want %s", r.Hangup, err, want.told)
			}
			eventually(t, "the call is counted", func() bool { return s.active() == 0 })
			if s.counted(want.outcome) != 1 {
				t.Errorf("it was not counted as %s: %s", want.outcome, s.log)
			}
			if strings.Contains(s.log.String(), "nonsense") {
				t.Error("what was sent is in the log")
			}
		})
	}
}

// An agent who begins a new stream in mid-call is heard on it, and so he is when he goes back to the first; the switch
// hears one.
func TestTheAgentBeginsANewStream(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(string) string{
		"announced": func(offer string) string { return offer },
		"not announced": func(offer string) string {
			var kept []string
			for line := range strings.SplitAfterSeq(offer, "\r\n") {
				if !strings.HasPrefix(line, "a=ssrc") {
					kept = append(kept, line)
				}
			}
			return strings.Join(kept, "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSceneBehind(t, meddling(func(session map[string]any) { session["sdpOffer"] = change(session["sdpOffer"].(string)) }),
				func(o *aibridge.Options, _ *mockgateway.Options) { o.CallerSilence = o.CallerSilence * 5 })
			l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
			agent := s.session(l)
			eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
			agent.Begin(4242, 700)
			eventually(t, "the caller hears the second stream", func() bool { return l.ear.Share(700) > 0.9 })
			agent.Begin(4243, 900)
			eventually(t, "the caller hears the third stream", func() bool { return l.ear.Share(900) > 0.9 })
			if bye := len(l.requests); bye > 0 {
				t.Error("the call was ended")
			}
			for i, h := range l.headers()[1:] {
				if before := l.headers()[i]; h.SequenceNumber != before.SequenceNumber+1 || h.SSRC != before.SSRC {
					t.Fatalf("packet %d: %d after %d", i+1, h.SequenceNumber, before.SequenceNumber)
				}
			}
			l.request(soon(t), sip.BYE, "")
		})
	}
}
