package e2e_test

import (
	"strconv"
	"strings"
	"testing"
)

// outsider is who calls from the public network.
const outsider = "+393331234567"

// asCarrier presents the number of somebody outside.
func asCarrier(r *request) { r.from = `"` + outsider + `" <sip:` + outsider + `@127.0.0.1>` }

// carrierPhone plays the carrier of the second trunk.
func (s *scene) carrierPhone(t *testing.T, options ...phoneOption) *phone {
	t.Helper()
	return newPhone(t, s.external, login{}, append(options, onPort(s.carrier))...)
}

// firstCarrier plays the carrier of the first trunk, which otherwise is down, and answers calls as it is told.
func (s *scene) firstCarrier(t *testing.T, answer phoneOption) *phone {
	t.Helper()
	var port int
	if err := s.db.QueryRowContext(t.Context(), `SELECT port FROM edgvoip.sip_trunks WHERE id = $1`, s.trunk(t, tenantA, 1)).Scan(&port); err != nil {
		t.Fatal(err)
	}
	return newPhone(t, s.external, login{}, answer, onPort(port))
}

func carriers(t *testing.T, s *scene) {
	t.Helper()
	t.Run("a carrier calls a DID and reaches the target (SIPp)", func(t *testing.T) {
		s.begin(t)
		target := s.phoneA(t, "1000")
		carrier := s.startSIPp(t, sipp{
			scenario: "carrier_call.xml", remote: s.external, port: freePort(t),
			lines: []string{outsider + ";0612345678"}, args: []string{"-d", "4000"},
		})
		c := target.expectCall(t)
		if got := userOf(uriOf(c.invite.get("From"))); got != outsider {
			t.Errorf("called phone shows %q", got)
		}
		s.expectAudio(t, 2, 50)
		carrier.wait(t)
		expectEnd(t, c)
		s.idle(t)
	})
	t.Run("a DID is recognised however the carrier writes it", func(t *testing.T) {
		s.begin(t)
		target, carrier := s.phoneA(t, "1000"), newPhone(t, s.external, login{})
		for _, did := range []string{"0612345678", "+390612345678", "390612345678", "00390612345678"} {
			c := carrier.dial(t, did, asCarrier)
			expectStatus(t, c, 200)
			target.expectCall(t)
			c.hangup(t)
			s.idle(t)
		}
	})
	t.Run("each tenant's DIDs reach that tenant", func(t *testing.T) {
		s.begin(t)
		a, b := s.phoneA(t, "1000"), newPhone(t, s.internal, user("1000", realmB)).registered(t)
		c := newPhone(t, s.external, login{}).dial(t, "0612345778", asCarrier)
		expectStatus(t, c, 200)
		b.expectCall(t)
		a.expectSilence(t)
	})
	t.Run("a number that is no DID is refused", func(t *testing.T) {
		s.begin(t)
		carrier := newPhone(t, s.external, login{})
		for _, number := range []string{"0699999999", "1000", "9196", "112", "+393337654321"} {
			expectStatus(t, carrier.dial(t, number, asCarrier), 404)
		}
	})
	t.Run("a carrier at an address that is no trunk's is refused", func(t *testing.T) {
		s.begin(t)
		target := s.phoneA(t, "1000")
		expectStatus(t, newPhone(t, s.external, login{}, from("127.0.0.2")).dial(t, "0612345678", asCarrier), 403)
		target.expectSilence(t)
	})
	t.Run("a carrier on the phones' port is refused", func(t *testing.T) {
		s.begin(t)
		target := s.phoneA(t, "1000")
		if c := newPhone(t, s.internal, login{}).dial(t, "0612345678", asCarrier); c.status() < 400 {
			t.Errorf("answered %q", c.response.start)
		}
		target.expectSilence(t)
	})
	t.Run("1001 calls out: the first trunk is down, the second carries the call with its caller id", func(t *testing.T) {
		s.begin(t)
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t)
		c := a.dial(t, "+390255551234")
		expectStatus(t, c, 200)
		out := carrier.expectCall(t)
		if got := userOf(out.invite.requestURI()); got != "+390255551234" {
			t.Errorf("carrier is asked for %q", got)
		}
		if got := userOf(uriOf(out.invite.get("From"))); got != "+390612345600" {
			t.Errorf("carrier is shown %q", got)
		}
		c.media.hears(t, carrier.mark, 50)
		out.media.hears(t, a.mark, 50)
		c.hangup(t)
		expectEnd(t, out)
		s.idle(t)
	})
	t.Run("national and international numbers leave in one form", func(t *testing.T) {
		s.begin(t)
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t)
		for dialled, want := range map[string]string{
			"0255551234": "+390255551234", "00442079460123": "+442079460123", "3331234567": "+393331234567",
		} {
			c := a.dial(t, dialled)
			expectStatus(t, c, 200)
			if got := userOf(carrier.expectCall(t).invite.requestURI()); got != want {
				t.Errorf("%s left as %s, want %s", dialled, got, want)
			}
			c.hangup(t)
			s.idle(t)
		}
	})
	t.Run("a busy number stays busy and is not tried elsewhere", func(t *testing.T) {
		s.begin(t)
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t, answering(486))
		expectStatus(t, a.dial(t, "+390255551234"), 486)
		carrier.expectCall(t)
		carrier.expectSilence(t)
	})
	for _, status := range []int{401, 402, 403, 407} {
		t.Run("a trunk whose carrier answers "+strconv.Itoa(status)+" is not the last that is tried", func(t *testing.T) {
			s.begin(t)
			a, first, second := s.phoneA(t, "1001"), s.firstCarrier(t, answering(status)), s.carrierPhone(t)
			c := a.dial(t, "+390255551234")
			expectStatus(t, c, 200)
			first.expectCall(t)
			out := second.expectCall(t)
			c.hangup(t)
			expectEnd(t, out)
			s.idle(t)
		})
		t.Run("the caller hears 503 when every carrier answers "+strconv.Itoa(status), func(t *testing.T) {
			s.begin(t)
			a, first, second := s.phoneA(t, "1001"), s.firstCarrier(t, answering(status)), s.carrierPhone(t, answering(status))
			expectStatus(t, a.dial(t, "+390255551234"), 503)
			first.expectCall(t)
			second.expectCall(t)
			s.idle(t)
		})
	}
	t.Run("a trunk whose carrier does not take its credentials is not the last that is tried", func(t *testing.T) {
		s.begin(t)
		for _, status := range []int{401, 407} {
			a, first, second := s.phoneA(t, "1001"), s.firstCarrier(t, challenging(status)), s.carrierPhone(t)
			c := a.dial(t, "+390255551234")
			expectStatus(t, c, 200)
			first.expectCall(t)
			second.expectCall(t)
			c.hangup(t)
			s.idle(t)
			first.close()
			second.close()
		}
	})
	t.Run("a called party who rejects a call is not called over another trunk", func(t *testing.T) {
		s.begin(t)
		for _, status := range []int{603, 608} {
			a, first, second := s.phoneA(t, "1001"), s.firstCarrier(t, answering(status)), s.carrierPhone(t)
			expectStatus(t, a.dial(t, "+390255551234"), status)
			first.expectCall(t)
			s.idle(t)
			second.expectSilence(t)
			first.close()
			second.close()
		}
	})
	t.Run("a call that one trunk refuses and the called party rejects on the next ends", func(t *testing.T) {
		s.begin(t)
		a, first, second := s.phoneA(t, "1001"), s.firstCarrier(t, answering(403)), s.carrierPhone(t, answering(603))
		expectStatus(t, a.dial(t, "+390255551234"), 603)
		first.expectCall(t)
		second.expectCall(t)
		s.idle(t)
	})
	t.Run("when no trunk works the caller hears 503", func(t *testing.T) {
		s.begin(t)
		expectStatus(t, s.phoneA(t, "1001").dial(t, "+390255551234"), 503)
	})
	t.Run("a withheld number is withheld", func(t *testing.T) {
		s.begin(t)
		s.setTrunk(t, 2, "caller_id_policy", "withheld")
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t)
		expectStatus(t, a.dial(t, "+390255551234"), 200)
		invite := carrier.expectCall(t).invite
		if from := invite.get("From"); strings.Contains(from, "390612345600") || strings.Contains(from, "1001") {
			t.Errorf("shown: %s", from)
		}
		if privacy := invite.get("Privacy"); !strings.Contains(privacy, "id") {
			t.Errorf("Privacy: %q", privacy)
		}
		if pai := invite.get("P-Asserted-Identity"); !strings.Contains(pai, "390612345600") {
			t.Errorf("P-Asserted-Identity: %q", pai)
		}
	})
	t.Run("the trunk's channel limit holds, out and in", func(t *testing.T) {
		s.begin(t)
		s.setTrunk(t, 2, "max_channels", 1)
		s.setTrunk(t, 1, "max_channels", 1)
		a, b, target, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.phoneA(t, "1000"), s.carrierPhone(t)
		expectStatus(t, a.dial(t, "+390255551234"), 200)
		carrier.expectCall(t)
		expectStatus(t, b.dial(t, "+390255551234"), 503)
		carrier.expectSilence(t)

		expectStatus(t, carrier.dial(t, "0612345678", asCarrier), 200)
		target.expectCall(t)
		if c := carrier.dial(t, "0612345678", asCarrier); c.status() < 400 {
			t.Errorf("a second call in is answered %q", c.response.start)
		}
		target.expectSilence(t)
	})
	t.Run("an emergency call goes out when every limit is used up", func(t *testing.T) {
		s.begin(t)
		s.setTrunk(t, 2, "max_channels", 1)
		s.set(t, "1001", "max_concurrent_calls", 1)
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t)
		expectStatus(t, a.dial(t, "+390255551234"), 200)
		carrier.expectCall(t)
		expectStatus(t, a.dial(t, "+390255551234"), 486)
		expectStatus(t, a.dial(t, "112"), 200)
		if got := userOf(carrier.expectCall(t).invite.requestURI()); got != "112" {
			t.Errorf("carrier is asked for %q", got)
		}
	})
}

func transfers(t *testing.T, s *scene) {
	t.Helper()
	// delivered is a call from a carrier that 1000 has answered.
	delivered := func(t *testing.T) (carrier, target *phone, in, there *call) {
		t.Helper()
		target, carrier = s.phoneA(t, "1000"), newPhone(t, s.external, login{})
		in = carrier.dial(t, "0612345678", asCarrier)
		expectStatus(t, in, 200)
		there = target.expectCall(t)
		talking(t, in, there)
		return carrier, target, in, there
	}
	t.Run("the target of a carrier's call transfers it to a colleague", func(t *testing.T) {
		s.begin(t)
		carrier, _, in, there := delivered(t)
		b := s.phoneA(t, "1002")
		if r := there.refer(t, "sip:1002@"+realmA); r.status() != 202 {
			t.Fatalf("REFER answered %q", r.start)
		}
		second := b.expectCall(t)
		in.media.hears(t, b.mark, 50)
		second.media.hears(t, carrier.mark, 50)
		in.hangup(t)
		expectEnd(t, second)
		s.idle(t)
	})
	t.Run("the target of a carrier's call cannot send the carrier out again", func(t *testing.T) {
		s.begin(t)
		_, _, in, there := delivered(t)
		out := s.carrierPhone(t)
		there.refer(t, "sip:+390255551234@"+realmA)
		expectEnd(t, in)
		s.idle(t)
		out.expectSilence(t)
	})
	t.Run("a carrier cannot transfer the phone it talks to, neither out nor to another extension", func(t *testing.T) {
		s.begin(t)
		for _, to := range []string{"sip:+390255551234@" + realmA, "sip:1002@" + realmA, "sip:9196@" + realmA, "sip:1002@" + realmB} {
			_, _, in, _ := delivered(t)
			out, b := s.carrierPhone(t), s.phoneA(t, "1002")
			r := in.refer(t, to)
			t.Logf("REFER to %s answered %q", to, r.start)
			if r.status() < 300 {
				t.Errorf("REFER to %s answered %q", to, r.start)
			}
			in.hangup(t)
			s.idle(t)
			out.expectSilence(t)
			b.expectSilence(t)
			out.conn.Close()
		}
	})
	t.Run("a phone transfers the colleague who called it", func(t *testing.T) {
		s.begin(t)
		a, b, c := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.phoneA(t, "1003")
		first := a.dial(t, "1002")
		expectStatus(t, first, 200)
		second := b.expectCall(t)
		talking(t, first, second)
		if r := second.refer(t, "sip:1003@"+realmA); r.status() != 202 {
			t.Fatalf("REFER answered %q", r.start)
		}
		third := c.expectCall(t)
		first.media.hears(t, c.mark, 50)
		third.media.hears(t, a.mark, 50)
	})
	t.Run("a phone transfers the colleague it called", func(t *testing.T) {
		s.begin(t)
		a, b, c := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.phoneA(t, "1003")
		first := a.dial(t, "1002")
		expectStatus(t, first, 200)
		second := b.expectCall(t)
		talking(t, first, second)
		if r := first.refer(t, "sip:1003@"+realmA); r.status() != 202 {
			t.Fatalf("REFER answered %q", r.start)
		}
		third := c.expectCall(t)
		second.media.hears(t, c.mark, 50)
		third.media.hears(t, b.mark, 50)
	})
	t.Run("a phone transfers the outside party it called to a colleague", func(t *testing.T) {
		s.begin(t)
		a, b, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.carrierPhone(t)
		first := a.dial(t, "+390255551234")
		expectStatus(t, first, 200)
		out := carrier.expectCall(t)
		talking(t, first, out)
		if r := first.refer(t, "sip:1002@"+realmA); r.status() != 202 {
			t.Fatalf("REFER answered %q", r.start)
		}
		second := b.expectCall(t)
		second.media.hears(t, carrier.mark, 50)
		out.media.hears(t, b.mark, 50)
	})
	t.Run("a transfer never leaves the tenant", func(t *testing.T) {
		s.begin(t)
		a, b := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		stranger := newPhone(t, s.internal, user("1003", realmB)).registered(t)
		for _, to := range []string{
			"sip:1003@" + realmB, "sip:1003@" + realmB + ";context=" + tenantB, "sip:1003%2FXML%2F" + tenantB + "@" + realmA,
			"sip:1003%20XML%20" + tenantB + "@" + realmA, "sip:gw+" + s.trunk(t, tenantB, 2).String() + "@" + realmA,
		} {
			first := a.dial(t, "1002")
			expectStatus(t, first, 200)
			second := b.expectCall(t)
			talking(t, first, second)
			second.refer(t, to)
			first.hangup(t)
			s.idle(t)
			stranger.expectSilence(t)
		}
	})
	t.Run("a carrier that redirects a call does not choose who pays", func(t *testing.T) {
		s.begin(t)
		carrier := s.carrierPhone(t, answering(302))
		stranger := newPhone(t, s.internal, user("1002", realmB)).registered(t)
		elsewhere := newPhone(t, s.external, login{})
		for _, to := range []string{"sip:1002@" + realmB, "sip:+390255559999@" + elsewhere.local, "sip:+442079460123@" + realmA, "sip:+442079460123@127.0.0.1:" + strconv.Itoa(s.carrier)} {
			carrier.redirectTo(to)
			if c := s.phoneA(t, "1001").dial(t, "+390255551234"); c.status() < 400 {
				t.Errorf("redirected to %s: answered %q", to, c.response.start)
			}
			carrier.expectCall(t)
			s.idle(t)
		}
		stranger.expectSilence(t)
		elsewhere.expectSilence(t)
		carrier.expectSilence(t)
	})
}
