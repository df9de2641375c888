package e2e_test

import (
	"strings"
	"testing"
)

// transfersElsewhere checks that a phone cannot have the switch dial for it by a transfer to a call that is not there.
// The switch takes that for a call on another switch, and what the phone writes for a part of a dial string
// (docs/decisions/0020).
func transfersElsewhere(t *testing.T, s *scene) {
	t.Helper()
	for _, tc := range []struct {
		name, to string
		ends     bool // the call of a phone that tries
	}{
		{"a call that is over", "sip:x@ELSE?Replaces=a84b4c76%40host%3Bto-tag%3D1%3Bfrom-tag%3D2", false},
		{"another endpoint as the user", "sip:x,sofia%2Finternal%2Fsip:y@ELSE?Replaces=z", false},
		{"a variable", "sip:x@ELSE;a=b,execute_on_originate=set_global:taken=yes?Replaces=z", true},
		{"a dial string in the headers", "sip:x@ELSE?Replaces=z&b=c}sofia/internal/sip:y@ELSE,{d=e", true},
		{"a dial string before Replaces", "sip:x@ELSE?b=c}sofia/internal/sip:y@ELSE,{d=e&Replaces=z", true},
		{"a dial string in the parameters", "sip:x@ELSE;a=b}sofia/internal/sip:y@ELSE,{d=e?Replaces=z", true},
		{"a second dial string", "sip:x@ELSE?Replaces=z&b=c}[d=e]sofia/internal/sip:y@ELSE|{d=e", true},
		{"an enterprise dial string", "sip:x@ELSE?Replaces=z&b=:_:sofia/internal/sip:y@ELSE:_:{d=e", true},
		{"a command", "sip:x@ELSE?Replaces=z&b=c,api_on_originate=global_setvar:taken=yes}sofia/internal/sip:y@ELSE,{d=e", true},
	} {
		t.Run("a transfer to a call that is not there calls nobody: "+tc.name, func(t *testing.T) {
			s.begin(t)
			a, b, elsewhere := s.phoneA(t, "1001"), s.phoneA(t, "1002"), newPhone(t, s.internal, login{})
			first := a.dial(t, "1002")
			expectStatus(t, first, 200)
			second := b.expectCall(t)
			talking(t, first, second)
			if r := second.refer(t, strings.ReplaceAll(tc.to, "ELSE", elsewhere.local)); r.status() != 202 {
				t.Fatalf("REFER answered %q", r.start)
			}
			// Somebody who was called answers, and his channel would stay.
			if tc.ends {
				s.idle(t)
			} else {
				second.expectNotified(t, "SIP/2.0 403 Forbidden")
				first.media.hears(t, b.mark, 50)
			}
			elsewhere.expectSilence(t)
			if got := s.esl.api("global_getvar taken"); strings.Contains(got, "yes") {
				t.Errorf("the phone set a variable of the switch: %s", got)
			}
		})
	}
}
