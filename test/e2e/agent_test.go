package e2e_test

import (
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// A call to a trunk with an AI agent reaches the agent in its hours, and the extension that stands in within three
// seconds of whatever goes wrong. SIPp plays ai-bridge here, as it can be killed, silent and rude.
func TestAgents(t *testing.T) {
	bridge := freePort(t)
	s := newScene(t, sceneOptions{env: []string{"AI_BRIDGE_ADDR=127.0.0.1:" + strconv.Itoa(bridge)}})
	s.exec(t, "UPDATE edgvoip.sip_trunks SET ai_agent_ref = 'reception'")
	s.expectHeard(t)
	agent := func(t *testing.T, reason string, after time.Duration) *sipp {
		t.Helper()
		run := s.startSIPp(t, sipp{
			scenario: "agent.xml", remote: s.internal, port: bridge,
			args: []string{"-t", "t1", "-rtp_echo", "-d", strconv.Itoa(int(after.Milliseconds())), "-key", "reason", reason},
		})
		eventually(t, answerTime, func() error {
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(bridge))
			if err != nil {
				return err
			}
			return c.Close()
		})
		return run
	}
	// called waits for the extension that stands in, for as long as a caller may be left alone, and hears it.
	called := func(t *testing.T, target *phone, c *call) {
		t.Helper()
		select {
		case in := <-target.rings:
			in.media.hears(t, c.p.mark, 25)
			c.media.hears(t, target.mark, 25)
		case <-time.After(3 * time.Second):
			t.Fatal("nobody stands in for the agent")
		}
	}
	carrier := func(t *testing.T) *phone {
		t.Helper()
		return newPhone(t, s.external, login{}, withCodecs(pcmu))
	}
	target := func(t *testing.T) *phone {
		t.Helper()
		return newPhone(t, s.internal, user("1000", realmA), withCodecs(pcmu)).registered(t)
	}

	t.Run("the agent answers, talks, and ends the call", func(t *testing.T) {
		s.begin(t)
		standIn, sip := target(t), agent(t, "Q.850;cause=16", 2*time.Second)
		p := carrier(t)
		c := p.dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		c.media.hears(t, p.mark, 50) // the echo of his own voice
		sip.wait(t)
		expectEnd(t, c)
		standIn.expectSilence(t)
		s.idle(t)
	})
	t.Run("the caller ends the call with the agent", func(t *testing.T) {
		s.begin(t)
		standIn := target(t)
		agent(t, "Q.850;cause=16", time.Minute)
		p := carrier(t)
		c := p.dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		c.media.hears(t, p.mark, 25)
		c.hangup(t)
		s.idle(t)
		standIn.expectSilence(t)
	})
	t.Run("the agent fails in mid-call: the stand-in takes over", func(t *testing.T) {
		s.begin(t)
		standIn, sip := target(t), agent(t, "Q.850;cause=41", time.Second)
		c := carrier(t).dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		sip.wait(t)
		called(t, standIn, c)
	})
	t.Run("ai-bridge is killed in mid-call: the stand-in takes over", func(t *testing.T) {
		s.begin(t)
		standIn, sip := target(t), agent(t, "Q.850;cause=16", time.Minute)
		p := carrier(t)
		c := p.dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		c.media.hears(t, p.mark, 25)
		if err := syscall.Kill(-sip.process.cmd.Process.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		called(t, standIn, c)
	})
	t.Run("ai-bridge is not there: the stand-in takes the call", func(t *testing.T) {
		s.begin(t)
		standIn := target(t)
		c := carrier(t).dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		called(t, standIn, c)
	})
	t.Run("ai-bridge refuses: the stand-in takes the call", func(t *testing.T) {
		s.begin(t)
		standIn := target(t)
		s.startSIPp(t, sipp{scenario: "unavailable.xml", remote: s.internal, port: bridge, args: []string{"-t", "t1"}})
		c := carrier(t).dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		called(t, standIn, c)
	})
	t.Run("out of hours: the extension at once", func(t *testing.T) {
		s.begin(t)
		const policy = "UPDATE edgvoip.sip_trunks SET ai_time_policy = $1"
		s.change(t, policy, []any{`{"mode":"never"}`}, []any{nil})
		standIn := target(t)
		agent(t, "Q.850;cause=16", time.Minute)
		c := carrier(t).dial(t, "0612345678", asCarrier)
		expectStatus(t, c, 200)
		called(t, standIn, c)
	})
	t.Run("neither the agent nor the stand-in: the caller is told and let go", func(t *testing.T) {
		s.begin(t)
		c := carrier(t).dial(t, "0612345678", asCarrier)
		if c.status() < 400 {
			t.Errorf("answered %q", c.response.start)
		}
		s.idle(t)
	})
	t.Run("the switch's log shows no document that it could not use", func(t *testing.T) {
		s.begin(t)
		s.expectCleanLog(t, 0)
	})
}
