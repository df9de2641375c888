package aibridge_test

import (
	"context"
	"slices"
	"testing"

	"github.com/emiago/sipgo/sip"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/test/mockgateway"
	"github.com/edgvoip/edgvoip/webhook"
)

// neighbour adds a trunk to others: one of theirs, changed.
type neighbour struct {
	aibridge.Trunks
	change func(*aisession.Trunk)
}

var neighbourID = uuid.MustParse("33333333-3333-4333-8333-333333333333")

func (n *neighbour) Trunk(id uuid.UUID) (aisession.Trunk, error) {
	if id != neighbourID {
		return n.Trunks.Trunk(id)
	}
	k, err := n.Trunks.Trunk(trunkOf(mockgateway.None))
	if err == nil {
		k.ID, k.Secrets = id, slices.Clone(k.Secrets)
		n.change(&k)
	}
	return k, err
}

// A tenant whose secret is missing or does not open keeps no other tenant from the gateway that both have; nor does one
// whose gateway may not be dialled.
func TestOurOwnFaultsSayNothingOfTheGateway(t *testing.T) {
	t.Parallel()
	plain, err := webhook.ParseBaseURL("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change  func(*aisession.Trunk)
		outcome string
	}{
		"no secret":                   {func(k *aisession.Trunk) { k.Secrets = nil }, "no_secret"},
		"a secret that does not open": {func(k *aisession.Trunk) { k.Secrets[0].TenantID = uuid.New() }, "no_secret"},
		"not encrypted":               {func(k *aisession.Trunk) { k.Gateway = plain }, "gateway_forbidden"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) { o.Trunks = &neighbour{o.Trunks, tc.change} })
			p := newPhone(t, s.bridge.Addr())
			for i := range 6 {
				if res, _ := s.refused(p, callOptions{trunk: neighbourID}); reasonOf(res) != `Q.850;cause=41;text="`+tc.outcome+`"` {
					t.Fatalf("call %d: %s", i, reasonOf(res))
				}
			}
			s.call(p, mockgateway.None).request(soon(t), sip.BYE, "")
		})
	}
}

// forbidden are sessions of a gateway that may not be dialled.
type forbidden struct{ aibridge.Sessions }

func (*forbidden) Check(aisession.Trunk) error { return nil }

func (*forbidden) Open(context.Context, aisession.Trunk, aisession.SessionRequest) (aisession.Session, error) {
	return aisession.Session{}, aisession.ErrForbidden
}

// That an address may not be dialled is found out when it is; that, too, says nothing of the gateway.
func TestAForbiddenGatewayOpensNoBreaker(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) { o.Sessions = &forbidden{} })
	p := newPhone(t, s.bridge.Addr())
	for i := range 7 {
		if res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None)}); reasonOf(res) != `Q.850;cause=41;text="gateway_forbidden"` {
			t.Fatalf("call %d: %s", i, reasonOf(res))
		}
	}
}

// A gateway that connects and says nothing does not work.
func TestSilenceOpensTheBreaker(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	var legs []*leg
	for range 5 {
		legs = append(legs, s.call(p, mockgateway.LateMedia))
	}
	for _, l := range legs {
		if bye, err := l.next(soon(t), sip.BYE); err != nil || reasonOf(bye) != `Q.850;cause=41;text="agent_silent"` {
			t.Fatalf("%v, %v", bye, err)
		}
	}
	if res, _ := s.refused(p, callOptions{trunk: trunkOf(mockgateway.None)}); reasonOf(res) != `Q.850;cause=41;text="breaker_open"` {
		t.Errorf("%s", reasonOf(res))
	}
}

// A gateway whose agent has spoken works, whatever comes after; one that is lost before does not.
func TestWhatIsLostBeforeTheFirstWord(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault  mockgateway.Fault
		opened float64
	}{
		"the channel after words":   {mockgateway.None, 0},
		"the channel without words": {mockgateway.LateMedia, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, nil)
			p := newPhone(t, s.bridge.Addr())
			for range 5 {
				l := s.call(p, tc.fault)
				agent := s.session(l)
				if tc.fault == mockgateway.None {
					eventually(t, "the caller hears the agent", func() bool { return l.ear.Share(440) > 0.9 })
				}
				agent.Do(mockgateway.DropChannel)
				if _, err := l.next(soon(t), sip.BYE); err != nil {
					t.Fatal(err)
				}
			}
			if open := s.value("aibridge_breakers_open", ""); open != tc.opened {
				t.Errorf("%v breakers are open, want %v", open, tc.opened)
			}
		})
	}
}

// While a gateway is tried by one call at a time, a long call does not keep the next one waiting.
func TestALongCallSettlesTheBreaker(t *testing.T) {
	t.Parallel()
	s := newScene(t, nil)
	p := newPhone(t, s.bridge.Addr())
	for range 5 {
		s.refused(p, callOptions{trunk: trunkOf(mockgateway.Fail)})
	}
	if open := s.value("aibridge_breakers_open", ""); open != 1 {
		t.Fatalf("%v breakers are open", open)
	}
	var l *leg
	eventually(t, "a call is connected again", func() bool {
		l = p.newLeg()
		l.send(callOptions{trunk: trunkOf(mockgateway.None)})
		res, err := l.final(soon(t))
		if err != nil || !res.IsSuccess() {
			l.close()
			return false
		}
		return true
	})
	t.Cleanup(l.close)
	l.media()
	eventually(t, "the breaker is closed", func() bool { return s.value("aibridge_breakers_open", "") == 0 })
	s.call(p, mockgateway.None).request(soon(t), sip.BYE, "")
	l.request(soon(t), sip.BYE, "")
}
