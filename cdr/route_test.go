package cdr_test

import (
	"testing"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/dialplan"
)

// The route of a call that was let nowhere has the name that the dialplan writes down: whatever cause the switch gives
// it, it was refused.
func TestRefusedRoute(t *testing.T) {
	t.Parallel()
	for route, want := range map[dialplan.Kind]cdr.Disposition{dialplan.KindRefused: cdr.Refused, dialplan.KindPublic: cdr.Failed} {
		l := leg("a", func(l *cdr.Leg) { l.Route, l.Cause = string(route), "SERVICE_UNAVAILABLE" })
		if got := cdr.Join(l.ID, []cdr.Leg{l}).Disposition; got != want {
			t.Errorf("%s: %s, want %s", route, got, want)
		}
	}
}
