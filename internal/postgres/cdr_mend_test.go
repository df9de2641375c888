package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// stillThere checks that calls are listed and that W3 was told to forget none of them.
func (l ledger) stillThere(what string, calls ...uuid.UUID) {
	l.Helper()
	visible := l.visible()
	for i, id := range calls {
		if _, there := visible[id]; !there {
			l.Errorf("%s: call %d is gone", what, i)
		}
		if e, ever := l.told(id); !ever || e.AbsorbedBy != nil {
			l.Errorf("%s: told of call %d: %+v", what, i, e)
		}
	}
}

// Channels that say that they called each other are calls of their own, and none is a part of another.
func TestChannelsThatCalledEachOther(t *testing.T) {
	t.Parallel()
	for n := 2; n <= 3; n++ {
		l := newLedger(t)
		parents := make([]int, n)
		for i := range parents {
			parents[i] = (i + 1) % n
		}
		f := newFamily(fmt.Sprint("each other ", n), parents)
		for _, space := range []string{"", " "} {
			for i, d := range f.documents {
				l.keepLeg(f.ids[i], d+space)
			}
			l.due()
			l.readAll(100)
			l.stillThere(fmt.Sprint(n, " channels"), f.ids...)
		}
	}
}

// A channel that was taken for a calling one, until a better document says who called it, ends no call: not that of its
// caller, and not one that is a part of another call by now.
func TestCallerThatIsLearntLate(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	caller, called := newFamily("caller", []int{-1, 0}), newFamily("called", []int{-1})
	first := newFamily("first", []int{-1, 0, 1})
	late := newFamily("late", []int{-1})
	for _, f := range []family{caller, called, late} {
		for i, d := range f.documents {
			l.keepLeg(f.ids[i], d)
		}
	}
	l.keepLeg(first.ids[2], first.documents[2])
	l.readAll(100)
	l.due()
	l.readAll(100)
	l.keepLeg(first.ids[0], first.documents[0])
	l.keepLeg(first.ids[1], first.documents[1])
	l.readAll(100)
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)

	end := fmt.Sprint(began.Add(2 * time.Minute).UnixMicro())
	vars := map[string]string{"edgvoip_tenant_id": tenantA.String(), "hangup_cause": "NORMAL_CLEARING"}
	l.keepLeg(called.ids[0], document(called.ids[0], "outbound", vars, "originating_leg_uuid", caller.ids[0].String(), "end_uepoch", end))
	l.keepLeg(late.ids[0], document(late.ids[0], "outbound", vars, "originating_leg_uuid", first.ids[1].String(), "end_uepoch", end))
	l.readAll(100)
	l.stillThere("learnt late", caller.ids[0], called.ids[0], first.ids[0], late.ids[0])
	if diff := cmp.Diff(caller.call(t), l.visible()[caller.ids[0]].Call); diff != "" {
		t.Error(diff)
	}
	if e, _ := l.told(first.ids[1]); e.AbsorbedBy == nil || *e.AbsorbedBy != first.ids[0] {
		t.Errorf("told of the part: %+v", e)
	}
}
