package aibridge_test

import (
	"context"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// call calls a trunk and expects an answer.
func (s *scene) call(p *phone, f mockgateway.Fault) *leg {
	s.t.Helper()
	l := p.newLeg()
	l.send(callOptions{trunk: trunkOf(f)})
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	res, err := l.final(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	if res.StatusCode != 200 {
		s.t.Fatalf("answered %d, %v\n%s", res.StatusCode, res.GetHeader("Reason"), s.log)
	}
	s.t.Cleanup(l.close)
	l.media()
	return l
}

// session returns the agent's side of a call.
func (s *scene) session(l *leg) *mockgateway.Session {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	session, err := s.gateway.Session(ctx, l.id.String())
	if err != nil {
		s.t.Fatal(err)
	}
	return session
}

// Each hears the other's tone, digits cross both ways with their payload types mapped, and a BYE of the switch ends the session.
func TestEachHearsTheOther(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			p := newPhoneOver(t, s.bridge.Addr(), network)
			l := s.call(p, mockgateway.None)
			agent := s.session(l)
			eventually(t, "the agent hears the caller", func() bool { return agent.Share(1000) > 0.9 })
			eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
			if agent.Share(440) > 0.1 || l.ear.Share(1000) > 0.1 {
				t.Error("somebody hears himself")
			}
			for _, digit := range []byte("19#") {
				l.press(digit)
				agent.Press(digit)
			}
			eventually(t, "the agent hears digits", func() bool { return agent.Report().Digits == "19#" })
			eventually(t, "the caller hears digits", func() bool { return l.pressed() == "19#" })
			if r := agent.Report(); r.CallerNumber != "+390612345678" || r.AgentRef != "demo" || r.TenantID != tenant.String() || r.StoreID == "" || r.Gaps > 0 {
				t.Errorf("the gateway was told %+v", r)
			}
			if res := l.request(t.Context(), sip.BYE, ""); res.StatusCode != 200 {
				t.Errorf("BYE was answered %d", res.StatusCode)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if r, err := agent.Wait(ctx, func(r mockgateway.Report) bool { return r.Over }); err != nil || r.Hangup != "normal" {
				t.Errorf("the gateway was told %q, %v", r.Hangup, err)
			}
			for i, h := range l.headers()[1:] {
				if before := l.headers()[i]; h.SequenceNumber != before.SequenceNumber+1 || h.SSRC != before.SSRC {
					t.Fatalf("packet %d: %d after %d", i+1, h.SequenceNumber, before.SequenceNumber)
				}
			}
		})
	}
}

// soon returns a context that bounds one step of a test.
func soon(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 15*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// refused calls a trunk and returns the refusal, and how long it took.
func (s *scene) refused(p *phone, o callOptions) (*sip.Response, time.Duration) {
	s.t.Helper()
	l := p.newLeg()
	s.t.Cleanup(l.close)
	begun := time.Now()
	l.send(o)
	res, err := l.final(soon(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	if res.IsSuccess() {
		s.t.Fatalf("%v was answered", o.trunk)
	}
	return res, time.Since(begun)
}

// reasonOf returns the Reason of a message.
func reasonOf(m sip.Message) string {
	type headers interface{ GetHeader(string) sip.Header }
	if h := m.(headers).GetHeader("Reason"); h != nil {
		return h.Value()
	}
	return ""
}

// Whatever goes wrong before the call is there is a refusal with cause 41, within the budget.
func TestFaultsBeforeTheCall(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		fault   mockgateway.Fault
		outcome string
		within  time.Duration
	}{
		{mockgateway.SlowSession, "session_late", 1500 * time.Millisecond},
		{mockgateway.Refuse, "session_refused", 0},
		{mockgateway.Fail, "session_refused", 0},
		{mockgateway.BadAnswer, "session_unusable", 0},
		{mockgateway.BadSDP, "session_unusable", 0},
		{mockgateway.NoPCMU, "session_unusable", 0},
		{mockgateway.NoChannel, "channel_failed", 0},
		{mockgateway.DropEarly, "channel_lost", 0},
		{mockgateway.NoConnect, "connect_late", 4 * time.Second},
	} {
		t.Run(string(tc.fault), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			res, took := s.refused(newPhone(t, s.bridge.Addr()), callOptions{trunk: trunkOf(tc.fault)})
			if want := `Q.850;cause=41;text="` + tc.outcome + `"`; res.StatusCode != 503 || reasonOf(res) != want {
				t.Errorf("%d with Reason %s, want 503 with %s\n%s", res.StatusCode, reasonOf(res), want, s.log)
			}
			// Some of it is the machine's; the budget itself is what is measured.
			if took > tc.within+2*time.Second {
				t.Errorf("it took %v", took)
			}
			eventually(t, "the call is counted", func() bool { return s.counted(tc.outcome) == 1 && s.active() == 0 })
		})
	}
}

// Whatever goes wrong in mid-call is a BYE with cause 41; only an agent that has finished ends the call with cause 16.
func TestFaultsInMidCall(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		fault  mockgateway.Fault
		reason string
	}{
		{mockgateway.DropChannel, `Q.850;cause=41;text="channel_lost"`},
		{mockgateway.StopMedia, `Q.850;cause=41;text="agent_silent"`},
		{mockgateway.LateMedia, `Q.850;cause=41;text="agent_silent"`},
		{mockgateway.GiveUp, `Q.850;cause=41;text="agent_failed"`},
		{mockgateway.Error, `Q.850;cause=41;text="agent_failed"`},
		{mockgateway.Nonsense, `Q.850;cause=41;text="channel_lost"`},
		{mockgateway.HangUp, `Q.850;cause=16;text="agent_hung_up"`},
	} {
		t.Run(string(tc.fault), func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			l := s.call(newPhone(t, s.bridge.Addr()), tc.fault)
			bye, err := l.next(soon(t), sip.BYE)
			if err != nil {
				t.Fatalf("%v\n%s", err, s.log)
			}
			if reasonOf(bye) != tc.reason {
				t.Errorf("BYE with Reason %s, want %s", reasonOf(bye), tc.reason)
			}
			eventually(t, "the call is over", func() bool { return s.active() == 0 })
		})
	}
}

// A switch that sends no media for too long has lost the call.
func TestTheSwitchFallsSilent(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	l.tone(0)
	bye, err := l.next(soon(t), sip.BYE)
	if err != nil || reasonOf(bye) != `Q.850;cause=41;text="caller_silent"` {
		t.Errorf("%v, %v", bye, err)
	}
}

// A transfer is asked of the switch, which then ends the leg; one that it refuses, or says has failed, sends the caller to a
// person by cause 41.
func TestTransfer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status  int
		news    string
		outcome string
	}{
		"taken":   {202, "SIP/2.0 200 OK", "transferred"},
		"refused": {403, "", "transfer_failed"},
		"failed":  {202, "SIP/2.0 486 Busy Here", "transfer_failed"},
		"ignored": {202, "", "transfer_failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
			l.mu.Lock()
			l.referStatus = tc.status
			l.mu.Unlock()
			s.session(l).Do(mockgateway.Transfer)
			refer, err := l.next(soon(t), sip.REFER)
			if err != nil {
				t.Fatal(err)
			}
			if to := refer.GetHeader("Refer-To").Value(); to != "<sip:1002@tenant-a.example>" {
				t.Errorf("Refer-To: %s", to)
			}
			if tc.news != "" {
				if res := l.request(soon(t), sip.NOTIFY, tc.news, sip.NewHeader("Event", "refer")); res.StatusCode != 200 {
					t.Errorf("NOTIFY was answered %d", res.StatusCode)
				}
			}
			if tc.outcome == "transferred" {
				l.request(soon(t), sip.BYE, "")
			} else if bye, err := l.next(soon(t), sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=41;text="transfer_failed"` {
				t.Errorf("%v, %v", bye, err)
			}
			eventually(t, "the call is counted", func() bool { return s.counted(tc.outcome) == 1 })
		})
	}
}
