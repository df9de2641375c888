package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// legs returns the switch's channels of a direction, inbound or outbound, as their UUIDs.
func (a *agents) legs(direction string) (list []string) {
	for line := range strings.SplitSeq(a.esl.api("show channels"), "\n") {
		if f := strings.Split(line, ","); len(f) > 1 && f[1] == direction {
			list = append(list, f[0])
		}
	}
	return list
}

// agentLeg returns the switch's leg to ai-bridge, while there is one call. The list of channels lags behind.
func (a *agents) agentLeg(t *testing.T) (leg string) {
	t.Helper()
	eventually(t, answerTime, func() error {
		list := slices.DeleteFunc(a.legs("outbound"), func(id string) bool { return a.esl.api("uuid_exists "+id) != "true" })
		if len(list) != 1 {
			return fmt.Errorf("the switch has the outbound legs %v, want one", list)
		}
		leg = list[0]
		return nil
	})
	return leg
}

// command asks something of the switch that it must do.
func (a *agents) command(t *testing.T, format string, args ...any) {
	t.Helper()
	command := fmt.Sprintf(format, args...)
	if out := a.esl.api(command); !strings.HasPrefix(out, "+OK") {
		t.Fatalf("%s: %s", command, out)
	}
}

// changedBySwitch is what the switch does to a call with an agent by itself.
func changedBySwitch(t *testing.T, a *agents) {
	t.Helper()
	t.Run("the switch holds the agent and takes him back", func(t *testing.T) {
		a.begin(t)
		from := a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		leg := a.agentLeg(t)
		a.command(t, "uuid_hold %s", leg)
		a.expectHolds(t, s, true)
		// For longer than anybody may be silent who is not held.
		s.Do(mockgateway.StopMedia)
		time.Sleep(alone)
		a.command(t, "uuid_hold off %s", leg)
		s.Resume()
		a.expectHolds(t, s, true, false)
		a.expectAgent(t, from, c)
		c.hangup(t)
		a.idle(t)
	})
	t.Run("the switch negotiates anew in mid-call", func(t *testing.T) {
		a.begin(t)
		from := a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		for range 3 {
			a.command(t, "uuid_media_reneg %s =PCMU", a.agentLeg(t))
			time.Sleep(500 * time.Millisecond) // what is heard before does not count
			a.expectAgent(t, from, c)
		}
		if r := s.Report(); len(r.Holds) != 0 {
			t.Errorf("the agent is told %v", r.Holds)
		}
		c.hangup(t)
		a.idle(t)
	})
	t.Run("a session timer is kept for longer than it runs", func(t *testing.T) {
		a.begin(t)
		const seconds = 90 // the least that ai-bridge takes; a third before the end it gives up
		from, id := a.caller(t, 0), uuid.NewString()
		a.command(t, "originate {sofia_session_timeout=%d,absolute_codec_string=PCMU,origination_caller_id_number=%s,sip_h_X-edgvoip-Trunk=%s,"+
			"sip_h_X-edgvoip-Call=%s}sofia/internal/sip:agent@%s;transport=tcp &echo()", seconds, from.number, a.trunk(t, tenantA, 1), id, a.addr)
		ctx, cancel := context.WithTimeout(t.Context(), alone)
		defer cancel()
		s, err := a.gateway.Session(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep((seconds*2/3 + 3) * time.Second)
		if r := s.Report(); r.Over {
			t.Fatalf("the gateway was told %q", r.Hangup)
		}
		if !until(time.Now().Add(alone), func() bool { return loud(s.Share(agentHz)) }) {
			t.Error("the agent does not hear the echo of his voice any more")
		}
		a.command(t, "hupall")
		a.idle(t)
	})
	t.Run("the extension that the agent wants is not answered: it rings, and then the stand-in takes over", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		wanted := newPhone(t, a.internal, user("1002", realmA), withCodecs(pcmu))
		wanted.answer = 180
		wanted.registered(t)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		s.Do(mockgateway.Transfer)
		wanted.expectCall(t)
		if !until(time.Now().Add(2*alone), func() bool { return loud(c.media.ear.Share(ringHz)) }) {
			t.Error("the caller does not hear that it rings")
		}
		const rings = 25 * time.Second
		expectOperator(t, c, standIn, time.Now().Add(rings))
		c.hangup(t)
		a.idle(t)
	})
}

// ringHz is the tone that says that it rings.
const ringHz = 425

// expectHolds waits until the agent was told of holds, and of no more.
func (a *agents) expectHolds(t *testing.T, s *mockgateway.Session, want ...bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), alone)
	defer cancel()
	r, err := s.Wait(ctx, func(r mockgateway.Report) bool { return len(r.Holds) >= len(want) })
	if err != nil || fmt.Sprint(r.Holds) != fmt.Sprint(want) {
		t.Fatalf("the agent is told %v, want %v", r.Holds, want)
	}
}

// lostWhileRinging is calls whose ai-bridge goes before it has answered them.
func lostWhileRinging(t *testing.T, a *agents) {
	t.Helper()
	all := t // for what outlives a case
	for name, lose := range map[string]func(){
		"killed": func() { a.bridge.kill() },
		"frozen": func() { _ = syscall.Kill(-a.bridge.cmd.Process.Pid, syscall.SIGSTOP) }, // it is there, or the case fails
	} {
		t.Run("ai-bridge is "+name+" before it answers: the stand-in takes the call", func(t *testing.T) {
			a.begin(t)
			standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
			lost := make(chan time.Time, 1)
			go func() {
				if until(time.Now().Add(alone), func() bool { _, asked := a.session(t.Context(), from); return asked }) {
					time.Sleep(200 * time.Millisecond) // it rings by now
					lost <- time.Now()
					lose()
				}
				close(lost)
			}()
			c := a.call(t, from, didA, mockgateway.NoConnect)
			since, ok := <-lost
			if !ok {
				t.Fatal(errors.New("the gateway was not asked for a session"))
			}
			expectStatus(t, c, 200)
			expectOperator(t, c, standIn, since)
			c.hangup(t)
			a.bridge.kill()
			a.startBridge(all)
		})
	}
}
