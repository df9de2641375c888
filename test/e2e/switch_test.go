package e2e_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	tenantA, tenantB = "tenant-a", "tenant-b"
	realmA, realmB   = "tenant-a.example", "tenant-b.example"
)

func user(name, realm string) login { return login{user: name, realm: realm, password: "pw" + name} }

// TestSwitch is one installation with one switch, seen from outside.
func TestSwitch(t *testing.T) {
	s := newScene(t, sceneOptions{})
	if dir := os.Getenv("EDGVOIP_E2E_LOOKUPS"); dir != "" {
		t.Cleanup(func() { s.lookups.save(t, dir) })
	}
	registrations(t, s)
	calls(t, s)
	codecs(t, s)
	encryption(t, s)
	browsers(t, s)
	carriers(t, s)
	transfers(t, s)
	transfersElsewhere(t, s)
	impostors(t, s)
	takeovers(t, s)
	injections(t, s)
	t.Run("the switch's log shows no document that it could not use", func(t *testing.T) {
		s.begin(t)
		s.expectCleanLog(t, 0)
	})
	// Last: it ends xmlcurl.
	withoutXMLCurl(t, s)
}

// phoneA opens and registers a phone of tenant A.
func (s *scene) phoneA(t *testing.T, name string, options ...phoneOption) *phone {
	t.Helper()
	return newPhone(t, s.internal, user(name, realmA), options...).registered(t)
}

func registrations(t *testing.T, s *scene) {
	t.Helper()
	for _, transport := range []struct{ name, flag string }{{"UDP", "u1"}, {"TCP", "t1"}} {
		t.Run("1001@tenant-a registers over "+transport.name, func(t *testing.T) {
			s.begin(t)
			port := freePort(t)
			line := []string{sippUser("1001")}
			s.sipp(t, sipp{
				scenario: "register.xml", remote: s.internal, port: port, lines: line,
				args: []string{"-t", transport.flag, "-key", "expires", "300"},
			})
			s.expectRegistered(t, "1001", realmA)
			s.sipp(t, sipp{
				scenario: "register.xml", remote: s.internal, port: port, lines: line,
				args: []string{"-t", transport.flag, "-key", "expires", "0"},
			})
		})
	}
	t.Run("1001@tenant-a registers over TLS, and is stored apart", func(t *testing.T) {
		s.begin(t)
		newPhone(t, s.tls, user("1001", realmA), over("TLS")).registered(t)
		s.expectRegistered(t, "1001~tls", realmA)
		if s.registered("1001", realmA) {
			t.Error("the phone is also registered as one that needs no encryption")
		}
	})
	t.Run("wrong password is refused", func(t *testing.T) {
		s.begin(t)
		s.sipp(t, sipp{scenario: "register_refused.xml", remote: s.internal, port: freePort(t), lines: []string{sippAccount("1001", "wrong")}})
	})
	for name, l := range map[string]login{
		"unknown user is refused":                             user("1999", realmA),
		"unknown realm is refused":                            {user: "1001", realm: "tenant-z.example", password: "pw1001"},
		"another tenant's password is refused":                {user: "1001", realm: realmB, password: "pw1000"},
		"empty password is refused":                           {user: "1001", realm: realmA},
		"unknown user without a password is refused":          {user: "nobody", realm: realmA},
		"unknown realm of FreeSWITCH's demo users is refused": {user: "1000", realm: "127.0.0.1", password: "1234"},
	} {
		t.Run(name, func(t *testing.T) {
			s.begin(t)
			p := newPhone(t, s.internal, l)
			if r := p.register(t); r.status() != 403 {
				t.Errorf("answered %q", r.start)
			}
			if c := p.dial(t, "1000"); c.status() != 403 {
				t.Errorf("call answered %q", c.response.start)
			}
		})
	}
	t.Run("suspended extension is refused, at registration, as caller and as target", func(t *testing.T) {
		s.begin(t)
		suspended, other := s.phoneA(t, "1003"), s.phoneA(t, "1001")
		s.set(t, "1003", "status", "suspended")
		if r := newPhone(t, s.internal, user("1003", realmA)).register(t); r.status() != 403 {
			t.Errorf("answered %q", r.start)
		}
		if c := suspended.dial(t, "1001"); c.status() != 403 {
			t.Errorf("its call answered %q", c.response.start)
		}
		if c := other.dial(t, "1003"); c.status() != 480 {
			t.Errorf("a call to it answered %q", c.response.start)
		}
		suspended.expectSilence(t)
	})
}

func calls(t *testing.T, s *scene) {
	t.Helper()
	t.Run("1001 calls 1002 and talks (SIPp, audio counted by the switch)", func(t *testing.T) {
		s.begin(t)
		caller, callee := freePort(t), freePort(t)
		s.sippRegisters(t, "1001", caller)
		s.sippRegisters(t, "1002", callee)
		s.startSIPp(t, sipp{scenario: "answer.xml", remote: s.internal, port: callee, forever: true, args: []string{"-rtp_echo"}})
		call := s.startSIPp(t, sipp{
			scenario: "call.xml", remote: s.internal, port: caller, lines: []string{sippUser("1001") + ";1002"},
			args: []string{"-d", "4000"},
		})
		s.expectAudio(t, 2, 50)
		call.wait(t)
		s.idle(t)
	})
	t.Run("1001 calls 1002 and each hears the other", func(t *testing.T) {
		s.begin(t)
		a, b := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		c := a.dial(t, "1002")
		expectStatus(t, c, 200)
		d := b.expectCall(t)
		c.media.hears(t, b.mark, 50)
		d.media.hears(t, a.mark, 50)
		if got := userOf(uriOf(d.invite.get("From"))); got != "1001" {
			t.Errorf("called phone shows %q", got)
		}
		c.hangup(t)
		expectEnd(t, d)
		s.idle(t)
	})
	t.Run("the called phone hangs up", func(t *testing.T) {
		s.begin(t)
		a, b := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		c := a.dial(t, "1002")
		expectStatus(t, c, 200)
		b.expectCall(t).hangup(t)
		expectEnd(t, c)
		s.idle(t)
	})
	t.Run("all phones of an extension ring, whatever their transport", func(t *testing.T) {
		s.begin(t)
		a := s.phoneA(t, "1001")
		tcp := s.phoneA(t, "1002", over("TCP"))
		tls := newPhone(t, s.tls, user("1002", realmA), over("TLS"), withSRTP(), answering(180)).registered(t)
		expectStatus(t, a.dial(t, "1002"), 200)
		tcp.expectCall(t)
		if sdp := tls.expectCall(t).invite.body; !strings.Contains(sdp, "RTP/SAVP") || strings.Contains(sdp, "RTP/AVP") {
			t.Errorf("the phone on TLS is not offered SRTP alone:\n%s", sdp)
		}
	})
	t.Run("a SIP username that differs from the number: call and registration", func(t *testing.T) {
		s.begin(t)
		s.renameAccount(t, "1004", "alice.rossi", "pw1004")
		alice := newPhone(t, s.internal, login{user: "alice.rossi", realm: realmA, password: "pw1004"}).registered(t)
		a := s.phoneA(t, "1001")
		for _, name := range []string{"alice.rossi", "1004"} {
			c := a.dial(t, name)
			expectStatus(t, c, 200)
			alice.expectCall(t)
			c.hangup(t)
		}
		b := s.phoneA(t, "1002")
		expectStatus(t, alice.dial(t, "1002"), 200)
		if got := userOf(uriOf(b.expectCall(t).invite.get("From"))); got != "1004" {
			t.Errorf("called phone shows %q, not the number", got)
		}
	})
	t.Run("the same extension of another tenant is never reached", func(t *testing.T) {
		s.begin(t)
		a, stranger := s.phoneA(t, "1001"), newPhone(t, s.internal, user("1002", realmB)).registered(t)
		expectStatus(t, a.dial(t, "1002"), 480)
		for _, number := range []string{"1002@" + realmB, "1002%40" + realmB, "1002@" + realmB + ";context=" + tenantB} {
			c := a.dial(t, "1002", func(r *request) { r.uri, r.to = "sip:"+number, "<sip:"+number+">" })
			if c.status() < 400 {
				t.Errorf("%s answered %q", number, c.response.start)
			}
		}
		stranger.expectSilence(t)
	})
	t.Run("an unregistered extension answers 480", func(t *testing.T) {
		s.begin(t)
		expectStatus(t, s.phoneA(t, "1001").dial(t, "1005"), 480)
	})
	t.Run("a busy extension answers 486 (SIPp)", func(t *testing.T) {
		s.begin(t)
		port := freePort(t)
		s.sippRegisters(t, "1002", port)
		s.startSIPp(t, sipp{scenario: "busy.xml", remote: s.internal, port: port, forever: true})
		expectStatus(t, s.phoneA(t, "1001").dial(t, "1002"), 486)
	})
	t.Run("an extension cannot call itself", func(t *testing.T) {
		s.begin(t)
		p := s.phoneA(t, "1001")
		expectStatus(t, p.dial(t, "1001"), 486)
		p.expectSilence(t)
	})
	t.Run("an unknown number answers 404", func(t *testing.T) {
		s.begin(t)
		a := s.phoneA(t, "1001")
		for _, number := range []string{"1998", "77", "nobody"} {
			expectStatus(t, a.dial(t, number), 404)
		}
	})
	t.Run("the limit of concurrent calls holds, for the caller and for the called", func(t *testing.T) {
		s.begin(t)
		a, b, c, d := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.phoneA(t, "1003"), s.phoneA(t, "1004")
		first := a.dial(t, "1002")
		expectStatus(t, first, 200)
		expectStatus(t, a.dial(t, "1003"), 200)
		expectStatus(t, a.dial(t, "1004"), 486)
		d.expectSilence(t)
		expectStatus(t, c.dial(t, "1002"), 200)
		expectStatus(t, d.dial(t, "1002"), 486)
		first.hangup(t)
		eventually(t, 5*time.Second, func() error {
			again := a.dial(t, "1004")
			defer again.hangup(t)
			if again.status() != 200 {
				return fmt.Errorf("after one call ended, the next is answered %q", again.response.start)
			}
			return nil
		})
		_ = b
	})
	t.Run("the echo test answers every phone", func(t *testing.T) {
		s.begin(t)
		a := s.phoneA(t, "1001")
		c := a.dial(t, "9196")
		expectStatus(t, c, 200)
		c.media.hears(t, a.mark, 50)
	})
}

func codecs(t *testing.T, s *scene) {
	t.Helper()
	t.Run("the answer has only allowed codecs", func(t *testing.T) {
		s.begin(t)
		s.set(t, "1001", "allowed_codecs", "{PCMA}")
		c := s.phoneA(t, "1001", withCodecs(pcmu, g729, pcma, gsm)).dial(t, "9196")
		expectStatus(t, c, 200)
		if got := payloadsOf(c.response.body); !slices.Equal(got, []int{8}) {
			t.Errorf("answered with payload types %v", got)
		}
	})
	t.Run("an offer of forbidden codecs alone is refused", func(t *testing.T) {
		s.begin(t)
		s.set(t, "1001", "allowed_codecs", "{PCMA}")
		expectStatus(t, s.phoneA(t, "1001", withCodecs(pcmu, g729)).dial(t, "9196"), 488)
	})
	t.Run("the called phone is offered only its allowed codecs", func(t *testing.T) {
		s.begin(t)
		s.set(t, "1002", "allowed_codecs", "{PCMU}")
		a, b := s.phoneA(t, "1001", withCodecs(pcma, pcmu)), s.phoneA(t, "1002", withCodecs(pcmu))
		expectStatus(t, a.dial(t, "1002"), 200)
		if got := payloadsOf(b.expectCall(t).invite.body); !slices.Equal(got, []int{0}) {
			t.Errorf("offered payload types %v", got)
		}
	})
}

func encryption(t *testing.T, s *scene) {
	t.Helper()
	t.Run("on TLS a call without SRTP is refused", func(t *testing.T) {
		s.begin(t)
		p := newPhone(t, s.tls, user("1001", realmA), over("TLS")).registered(t)
		s.phoneA(t, "1002")
		for _, number := range []string{"9196", "1002"} {
			if c := p.dial(t, number); c.status() < 400 {
				t.Errorf("%s answered %q\n%s", number, c.response.start, c.response.body)
			}
		}
	})
	t.Run("on TLS a call with SRTP is heard, encrypted", func(t *testing.T) {
		s.begin(t)
		p := newPhone(t, s.tls, user("1001", realmA), over("TLS"), withSRTP()).registered(t)
		c := p.dial(t, "9196")
		expectStatus(t, c, 200)
		c.media.hears(t, p.mark, 50)
	})
	t.Run("a phone on TLS and a phone on UDP hear each other", func(t *testing.T) {
		s.begin(t)
		a := newPhone(t, s.tls, user("1001", realmA), over("TLS"), withSRTP()).registered(t)
		b := s.phoneA(t, "1002")
		c := a.dial(t, "1002")
		expectStatus(t, c, 200)
		d := b.expectCall(t)
		c.media.hears(t, b.mark, 50)
		d.media.hears(t, a.mark, 50)
		c.hangup(t)
		expectEnd(t, d)

		back := b.dial(t, "1001")
		expectStatus(t, back, 200)
		there := a.expectCall(t)
		back.media.hears(t, a.mark, 50)
		there.media.hears(t, b.mark, 50)
	})
	t.Run("a phone that must use TLS is refused on UDP", func(t *testing.T) {
		s.begin(t)
		s.set(t, "1003", "transport", "tls")
		if r := newPhone(t, s.internal, user("1003", realmA)).register(t); r.status() != 403 {
			t.Errorf("answered %q", r.start)
		}
		newPhone(t, s.tls, user("1003", realmA), over("TLS")).registered(t)
	})
}

// withoutXMLCurl is what is left when xmlcurl is gone: nobody registers or calls, no demo user lives.
func withoutXMLCurl(t *testing.T, s *scene) {
	t.Helper()
	t.Run("without xmlcurl nobody registers, nobody calls, no demo user lives", func(t *testing.T) {
		s.begin(t)
		a, b := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		s.xmlcurl.stop()
		for _, l := range []login{
			user("1003", realmA), user("1001", realmA), {user: "1000", realm: "127.0.0.1", password: "1234"}, {user: "1000", realm: realmA, password: "1234"},
		} {
			p := newPhone(t, s.internal, l)
			if r := p.register(t); r.status() != 403 {
				t.Errorf("%s@%s: registration answered %q", l.user, l.realm, r.start)
			}
			if c := p.dial(t, "9196"); c.status() != 403 {
				t.Errorf("%s@%s: call answered %q", l.user, l.realm, c.response.start)
			}
		}
		if c := a.dial(t, "1002"); c.status() < 400 {
			t.Errorf("call of a registered phone answered %q", c.response.start)
		}
		carrier := newPhone(t, s.external, login{})
		if c := carrier.dial(t, "0612345678", asCarrier); c.status() < 400 {
			t.Errorf("carrier's call answered %q", c.response.start)
		}
		b.expectSilence(t)
	})
}

func expectStatus(t *testing.T, c *call, want int) {
	t.Helper()
	if c.status() != want {
		t.Fatalf("%s answered %q, want %d", c.invite.start, c.response.start, want)
	}
}

func expectEnd(t *testing.T, c *call) {
	t.Helper()
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the other side was not hung up")
	}
}

// talking waits until the two sides of a call hear each other: before that, FreeSWITCH may still be joining them.
func talking(t *testing.T, a, b *call) {
	t.Helper()
	a.media.hears(t, b.p.mark, 5)
	b.media.hears(t, a.p.mark, 5)
}

// expectAudio waits until each of n channels has received and sent a number of audio packets.
func (s *scene) expectAudio(t *testing.T, n, packets int) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		ids := s.channels(t)
		if len(ids) != n {
			return fmt.Errorf("%d channels", len(ids))
		}
		for _, id := range ids {
			s.esl.api("uuid_set_media_stats " + id)
			for _, name := range []string{"rtp_audio_in_media_packet_count", "rtp_audio_out_media_packet_count"} {
				out := strings.TrimSpace(s.esl.api("uuid_getvar " + id + " " + name))
				if count, err := strconv.Atoi(out); err != nil || count < packets {
					return fmt.Errorf("%s of %s is %q", name, id, out)
				}
			}
		}
		return nil
	})
}
