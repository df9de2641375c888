package aibridge_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/aibridge"
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

// Each hears the other's tone, digits cross both ways with their payload types mapped, and a BYE of the switch ends the
// session.
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
		within  time.Duration // the budget; zero where the outcome alone tells
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
			if tc.within > 0 && took > tc.within+2*time.Second {
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
			// A gateway that drops the channel ends its media too, and either may be noticed first.
			lost := strings.Replace(tc.reason, "channel_lost", "peer_lost", 1)
			if got := reasonOf(bye); got != tc.reason && got != lost {
				t.Errorf("BYE with Reason %s, want %s", got, tc.reason)
			}
			eventually(t, "the call is over", func() bool { return s.active() == 0 })
		})
	}
}

// Over TCP the end of a call takes the connection that the call came over.
func TestTheAgentHangsUpOverTCP(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := s.call(newPhoneOver(t, s.bridge.Addr(), "tcp"), mockgateway.HangUp)
	if c := l.answer.Contact().Address.String(); !strings.HasSuffix(c, ";transport=tcp") {
		t.Errorf("Contact: %s", c)
	}
	bye, err := l.next(soon(t), sip.BYE)
	if err != nil || reasonOf(bye) != `Q.850;cause=16;text="agent_hung_up"` || bye.Transport() != "TCP" {
		t.Errorf("%v, %v", bye, err)
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

// A transfer is asked of the switch, which then ends the leg; one that it refuses, or says has failed, sends the caller
// to a person by cause 41.
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

// answered returns the direction and the payload types of an SDP answer.
func answered(res *sip.Response) (direction, formats string) {
	for line := range strings.SplitSeq(string(res.Body()), "\r\n") {
		switch line {
		case "a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive":
			direction = line[2:]
		}
		if rest, ok := strings.CutPrefix(line, "m=audio "); ok {
			formats = rest
		}
	}
	return direction, formats
}

// Hold is answered as RFC 3264 says, told to the agent, and stops the watchdogs; afterwards both hear each other again.
func TestHold(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) {
		o.CallerSilence, o.AgentSilence = time.Second, time.Second
	})
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	agent := s.session(l)
	eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
	for _, tc := range []struct{ offered, want string }{{"sendonly", "recvonly"}, {"inactive", "inactive"}, {"recvonly", "sendonly"}, {"sendonly", "recvonly"}} {
		res := l.request(soon(t), sip.INVITE, l.offer(tc.offered))
		if direction, _ := answered(res); res.StatusCode != 200 || direction != tc.want {
			t.Errorf("%s was answered %d, %s", tc.offered, res.StatusCode, direction)
		}
	}
	l.tone(0)
	agent.Do(mockgateway.StopMedia)
	// Longer than the watchdogs would wait.
	select {
	case req := <-l.requests:
		t.Fatalf("%s during hold", req.Method)
	case <-time.After(1500 * time.Millisecond):
	}
	l.tone(1000)
	agent.Resume()
	res := l.request(soon(t), sip.INVITE, l.offer("sendrecv"))
	if direction, _ := answered(res); direction != "sendrecv" {
		t.Errorf("the end of hold was answered %s", direction)
	}
	before := len(l.headers())
	eventually(t, "the caller hears the agent again", func() bool { return len(l.headers()) > before+20 && l.ear.Share(440) > 0.9 })
	eventually(t, "the agent hears the caller again", func() bool { return agent.Share(1000) > 0.9 })
	if _, err := agent.Wait(soon(t), func(r mockgateway.Report) bool { return len(r.Holds) == 2 && r.Holds[0] && !r.Holds[1] }); err != nil {
		t.Errorf("the agent was told %v", agent.Report().Holds)
	}
	l.request(soon(t), sip.BYE, "")
}

// A re-INVITE without an offer is answered with ours, whose answer comes in the ACK; an UPDATE without one only
// refreshes; what cannot be carried is refused and changes nothing.
func TestChanges(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := s.call(newPhone(t, s.bridge.Addr()), mockgateway.None)
	agent := s.session(l)
	res := l.request(soon(t), sip.INVITE, "")
	if _, formats := answered(res); res.StatusCode != 200 || !strings.Contains(formats, "RTP/AVP 0 101") {
		t.Errorf("answered %d, %s", res.StatusCode, formats)
	}
	l.ack(res, []byte(l.offer("sendonly")))
	if _, err := agent.Wait(soon(t), func(r mockgateway.Report) bool { return len(r.Holds) == 1 }); err != nil {
		t.Error("the answer in the ACK was not taken")
	}
	if res := l.request(soon(t), sip.UPDATE, ""); res.StatusCode != 200 || len(res.Body()) > 0 {
		t.Errorf("UPDATE was answered %d with %q", res.StatusCode, res.Body())
	}
	if res := l.request(soon(t), sip.INVITE, strings.Replace(l.offer("sendrecv"), "AVP 0 ", "AVP 8 ", 1)); res.StatusCode != 488 {
		t.Errorf("an offer without PCMU was answered %d", res.StatusCode)
	}
	l.cseq -= 2
	if res := l.request(soon(t), sip.UPDATE, ""); res.StatusCode != 500 {
		t.Errorf("a request out of order was answered %d", res.StatusCode)
	}
	l.cseq += 2
	if res := l.request(soon(t), sip.BYE, ""); res.StatusCode != 200 {
		t.Errorf("BYE was answered %d", res.StatusCode)
	}
	if res := l.request(soon(t), sip.INVITE, l.offer("sendrecv")); res.StatusCode != 481 {
		t.Errorf("a request after the end was answered %d", res.StatusCode)
	}
}

// A caller who goes before the agent is there leaves nothing behind, and the gateway is told.
func TestCancel(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	l := newPhone(t, s.bridge.Addr()).newLeg()
	t.Cleanup(l.close)
	l.send(callOptions{trunk: trunkOf(mockgateway.NoConnect)})
	agent := s.session(l)
	eventually(t, "the offer is answered", agent.Answered)
	l.cancel()
	if res, err := l.final(soon(t)); err != nil || res.StatusCode != 487 {
		t.Errorf("%v, %v", res, err)
	}
	if r, err := agent.Wait(soon(t), func(r mockgateway.Report) bool { return r.Over }); err != nil || r.Hangup != "cancelled" {
		t.Errorf("the gateway was told %q, %v", r.Hangup, err)
	}
	eventually(t, "the call is counted", func() bool { return s.counted("cancelled") == 1 && s.active() == 0 })
}

// Session timers (RFC 4028): too short is refused, whoever shall refresh does, and a dialog that nobody refreshes ends.
func TestSessionTimers(t *testing.T) {
	t.Parallel()
	short := func(o *aibridge.Options, _ *mockgateway.Options) { o.MinSessionExpires = time.Second }
	expires := func(value string) callOptions {
		return callOptions{trunk: trunkOf(mockgateway.None), headers: []sip.Header{sip.NewHeader("Session-Expires", value)}}
	}
	answer := func(t *testing.T, s *scene, value string) *leg {
		t.Helper()
		l := newPhone(t, s.bridge.Addr()).newLeg()
		t.Cleanup(l.close)
		l.send(expires(value))
		if res, err := l.final(soon(t)); err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		l.media()
		return l
	}
	t.Run("too short", func(t *testing.T) {
		t.Parallel()
		s := newScene(t, nil)
		res, _ := s.refused(newPhone(t, s.bridge.Addr()), expires("89"))
		if h := res.GetHeader("Min-SE"); res.StatusCode != 422 || h == nil || h.Value() != "90" {
			t.Errorf("%d, Min-SE %v", res.StatusCode, h)
		}
	})
	t.Run("expires", func(t *testing.T) {
		t.Parallel()
		l := answer(t, newScene(t, short), "3;refresher=uac")
		if h := l.answer.GetHeader("Session-Expires"); h == nil || h.Value() != "3;refresher=uac" || l.answer.GetHeader("Require") == nil {
			t.Errorf("Session-Expires: %v", h)
		}
		if bye, err := l.next(soon(t), sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=41;text="session_timer_expired"` {
			t.Errorf("%v, %v", bye, err)
		}
	})
	t.Run("refreshed by us", func(t *testing.T) {
		t.Parallel()
		l := answer(t, newScene(t, short), "2;refresher=uas")
		for range 3 {
			if _, err := l.next(soon(t), sip.UPDATE); err != nil {
				t.Fatal(err)
			}
		}
		if res := l.request(soon(t), sip.BYE, ""); res.StatusCode != 200 {
			t.Errorf("BYE was answered %d", res.StatusCode)
		}
	})
	t.Run("refreshed by the switch", func(t *testing.T) {
		t.Parallel()
		l := answer(t, newScene(t, short), "2;refresher=uac")
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for range 6 {
			<-tick.C
			res := l.request(soon(t), sip.UPDATE, "", sip.NewHeader("Session-Expires", "2;refresher=uac"), sip.NewHeader("Supported", "timer"))
			if res.StatusCode != 200 {
				t.Fatalf("UPDATE was answered %d", res.StatusCode)
			}
		}
		if res := l.request(soon(t), sip.BYE, ""); res.StatusCode != 200 {
			t.Errorf("BYE was answered %d", res.StatusCode)
		}
	})
}

// Sessions are bounded, all together and of one tenant; a call that ends makes room.
func TestLimits(t *testing.T) {
	t.Parallel()
	for outcome, limits := range map[string]*aisession.Limits{"limit": aisession.NewLimits(1, 10), "tenant_limit": aisession.NewLimits(10, 1)} {
		t.Run(outcome, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) { o.Limits = limits })
			p := newPhone(t, s.bridge.Addr())
			l := s.call(p, mockgateway.None)
			res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None)})
			if res.StatusCode != 503 || reasonOf(res) != `Q.850;cause=41;text="`+outcome+`"` {
				t.Errorf("%d, %s", res.StatusCode, reasonOf(res))
			}
			l.request(soon(t), sip.BYE, "")
			eventually(t, "the call is over", func() bool { return s.active() == 0 })
			s.call(p, mockgateway.None).request(soon(t), sip.BYE, "")
		})
	}
}

// A gateway that fails again and again is left alone; callers that it refuses by itself count for nothing.
func TestBreaker(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	for range 8 {
		s.refused(p, callOptions{trunk: trunkOf(mockgateway.Refuse)})
	}
	for i := range 5 {
		if res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.Fail)}); !strings.Contains(reasonOf(res), "session_refused") {
			t.Fatalf("call %d: %s", i, reasonOf(res))
		}
	}
	if res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None)}); reasonOf(res) != `Q.850;cause=41;text="breaker_open"` {
		t.Errorf("%s", reasonOf(res))
	}
	// After its first pause one call tries.
	eventually(t, "calls are connected again", func() bool {
		l := p.newLeg()
		defer l.close()
		l.send(callOptions{trunk: trunkOf(mockgateway.None)})
		res, err := l.final(soon(t))
		if err != nil || !res.IsSuccess() {
			return false
		}
		l.request(soon(t), sip.BYE, "")
		return true
	})
}

// While the bridge drains it refuses calls and says so, and those that run go on; what is left at the end goes to a
// person.
func TestDrain(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) { o.DrainTimeout = 2 * time.Second })
	p := newPhone(t, s.bridge.Addr())
	finishes, stays := s.call(p, mockgateway.None), s.call(p, mockgateway.None)
	s.stop()
	eventually(t, "the bridge drains", func() bool { return s.bridge.Ready() != nil })
	if res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None)}); res.StatusCode != 503 || reasonOf(res) != `Q.850;cause=41;text="draining"` {
		t.Errorf("%d, %s", res.StatusCode, reasonOf(res))
	}
	if res := p.options(soon(t)); res.StatusCode != 503 {
		t.Errorf("OPTIONS was answered %d", res.StatusCode)
	}
	finishes.request(soon(t), sip.BYE, "")
	if bye, err := stays.next(soon(t), sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=41;text="draining"` {
		t.Errorf("%v, %v", bye, err)
	}
	<-s.done
	if s.counted("caller_hung_up") != 1 || s.counted("draining") != 2 {
		t.Error("the calls were counted otherwise")
	}
}

// What is no call of ours is refused before anybody is asked.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	good := trunkOf(mockgateway.None)
	for name, tc := range map[string]struct {
		o      callOptions
		status int
	}{
		"no trunk":           {callOptions{trunk: good, without: "X-edgvoip-Trunk"}, 400},
		"no call":            {callOptions{trunk: good, without: "X-edgvoip-Call"}, 400},
		"two trunks":         {callOptions{trunk: good, headers: []sip.Header{sip.NewHeader("X-edgvoip-Trunk", good.String())}}, 400},
		"unknown trunk":      {callOptions{trunk: uuid.New()}, 503},
		"extension required": {callOptions{trunk: good, headers: []sip.Header{sip.NewHeader("Require", "100rel")}}, 420},
		"no PCMU":            {callOptions{trunk: good, sdp: "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"}, 488},
		"encrypted":          {callOptions{trunk: good, sdp: "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 0\r\n"}, 488},
		"no SDP to speak of": {callOptions{trunk: good, sdp: "nonsense"}, 488},
		"no address in it":   {callOptions{trunk: good, sdp: "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"}, 488},
		"a name instead":     {callOptions{trunk: good, sdp: "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nc=IN IP4 internal.example\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"}, 488},
		"no port":            {callOptions{trunk: good, sdp: "v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\n"}, 488},
	} {
		res, _ := s.refused(p, tc.o)
		if res.StatusCode != tc.status || !strings.HasPrefix(reasonOf(res), "Q.850;cause=41;") {
			t.Errorf("%s: %d, %s, want %d", name, res.StatusCode, reasonOf(res), tc.status)
		}
	}
	if res := p.options(soon(t)); res.StatusCode != 200 || !strings.Contains(res.GetHeader("Allow").Value(), "UPDATE") {
		t.Errorf("OPTIONS was answered %d", res.StatusCode)
	}
}

// A withheld number is no number, and what is said of callers is not in the log.
func TestCallersStayPrivate(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	for from, want := range map[string]string{"anonymous": "", "+393331234567": "+393331234567", "0612345678": "0612345678", "39' OR 1=1": ""} {
		l := p.newLeg()
		l.send(callOptions{trunk: trunkOf(mockgateway.None), from: from})
		if res, err := l.final(soon(t)); err != nil || res.StatusCode != 200 {
			t.Fatalf("%q: %v, %v", from, res, err)
		}
		if got := s.session(l).Report().CallerNumber; got != want {
			t.Errorf("the gateway was told %q of %q", got, from)
		}
		l.request(soon(t), sip.BYE, "")
		l.close()
	}
	eventually(t, "the calls are over", func() bool { return s.active() == 0 && s.counted("caller_hung_up") == 4 })
	for _, secret := range []string{"3331234567", "0612345678", hmacSecret} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	if !strings.Contains(s.log.String(), "caller_hung_up") {
		t.Error("the log says nothing of the calls")
	}
}

// Media is taken from where the SDP says, and from nowhere else.
func TestStrangersAreNotHeard(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	l, stranger := s.call(p, mockgateway.None), p.newLeg()
	agent := s.session(l)
	stranger.far, stranger.header.SSRC = l.far, 99
	tone := mockgateway.Tone{Hz: 2000}
	for range 100 {
		stranger.mu.Lock()
		stranger.write(0, tone.Next())
		stranger.mu.Unlock()
	}
	_ = stranger.rtp.Close()
	eventually(t, "the agent hears the caller", func() bool { return agent.Share(1000) > 0.9 })
	eventually(t, "strangers are counted", func() bool { return s.dropped("stranger") == 100 })
	l.request(soon(t), sip.BYE, "")
}
