package e2e_test

import (
	"strings"
	"testing"
)

// takeovers are ways in which the switch itself, without asking anybody, would hand a call or its caller's words to
// somebody else.
func takeovers(t *testing.T, s *scene) {
	t.Helper()
	// tenantBTalks has two phones of tenant B in a call; the far end of the attacker is a phone of tenant A with the
	// same number.
	tenantBTalks := func(t *testing.T) (caller, called *call) {
		t.Helper()
		b1 := newPhone(t, s.internal, user("1002", realmB)).registered(t)
		b2 := newPhone(t, s.internal, user("1003", realmB)).registered(t)
		caller = b1.dial(t, "1003")
		expectStatus(t, caller, 200)
		called = b2.expectCall(t)
		talking(t, caller, called)
		return caller, called
	}
	undisturbed := func(t *testing.T, caller, called *call) {
		t.Helper()
		talking(t, caller, called)
		select {
		case <-caller.ended:
			t.Error("the other tenant's call was ended")
		case <-called.ended:
			t.Error("the other tenant's call was ended")
		default:
		}
	}
	t.Run("Call-Info does not join a phone to a call of another tenant", func(t *testing.T) {
		s.begin(t)
		caller, called := tenantBTalks(t)
		a := s.phoneA(t, "1002")
		c := a.dial(t, "1002", func(r *request) {
			r.to = "<sip:1002@" + realmB + ">"
			r.headers = append(r.headers, "Call-Info: <sip:x>")
		})
		if c.status() < 400 {
			t.Errorf("answered %q", c.response.start)
		}
		undisturbed(t, caller, called)
	})
	t.Run("Replaces does not take a call in progress, of another tenant's or from the carriers' side", func(t *testing.T) {
		s.begin(t)
		caller, called := tenantBTalks(t)
		replaces := func(r *request) {
			r.headers = append(r.headers, "Replaces: "+caller.id+";to-tag=x;from-tag=y")
		}
		// The switch answers before it looks, and then has nothing to give.
		for _, c := range []*call{
			s.phoneA(t, "1002").dial(t, "1000", replaces),
			s.carrierPhone(t).dial(t, "+390612345678", asCarrier, replaces),
		} {
			if c.status() < 300 {
				expectEnd(t, c)
			}
		}
		undisturbed(t, caller, called)
	})
	t.Run("nobody watches, forges or writes to another tenant's phones", func(t *testing.T) {
		s.begin(t)
		victim := newPhone(t, s.internal, user("1002", realmB)).registered(t)
		a := s.phoneA(t, "1002")
		for _, to := range []string{"sip+1002+" + realmB + "@" + realmA, "1002@" + realmB} {
			for _, r := range []request{
				{method: "SUBSCRIBE", headers: []string{"Event: dialog", "Expires: 60"}},
				{method: "SUBSCRIBE", headers: []string{"Event: presence", "Expires: 60"}},
				{method: "MESSAGE", body: "hello"},
			} {
				r.uri, r.from, r.to, r.contact = "sip:"+to, a.aor(), "<sip:"+to+">", a.contact()
				cseq := 0
				if got, _ := a.exchange(t, r, dialog{token(), token(), &cseq}); got.status() < 400 {
					t.Errorf("%s to %s answered %q", r.method, to, got.start)
				}
			}
		}
		cseq := 0
		publish := request{
			method: "PUBLISH", uri: "sip:1002@" + realmB, from: "<sip:1002@" + realmB + ">", to: "<sip:1002@" + realmB + ">", contact: a.contact(),
			headers: []string{"Event: presence", "Expires: 60"}, mute: true,
			body: `<presence xmlns="urn:ietf:params:xml:ns:pidf" entity="sip:1002@` + realmB + `"><tuple id="t"><status><basic>open</basic></status></tuple></presence>`,
		}
		if got, _ := a.exchange(t, publish, dialog{token(), token(), &cseq}); got.status() < 400 {
			t.Errorf("PUBLISH answered %q", got.start)
		}
		victim.expectSilence(t)
	})
	t.Run("headers stay on their side of the switch", func(t *testing.T) {
		s.begin(t)
		headers := []string{
			"Diversion: <sip:+390612345700@x>", "P-Charge-Info: <sip:+390612345700@x>", "User-to-User: 41", "P-Auto-Answer: normal", "X-Note: secret",
		}
		change := func(r *request) { r.headers = append(r.headers, headers...) }
		check := func(where string, invite *message) {
			t.Helper()
			for _, h := range headers {
				name, _, _ := strings.Cut(h, ":")
				if got := invite.get(name); got != "" {
					t.Errorf("%s sees %s: %s", where, name, got)
				}
			}
		}
		carrier, target := s.carrierPhone(t), s.phoneA(t, "1000")
		out := s.phoneA(t, "1001").dial(t, "+390255551234", change)
		expectStatus(t, out, 200)
		check("the carrier", carrier.expectCall(t).invite)
		out.hangup(t)
		s.idle(t)
		in := carrier.dial(t, "+390612345678", asCarrier, change)
		expectStatus(t, in, 200)
		check("the phone", target.expectCall(t).invite)
	})
}
