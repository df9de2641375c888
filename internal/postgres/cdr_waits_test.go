package postgres_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// later lets time pass for documents that are not read.
func (l ledger) later(interval string) {
	l.Helper()
	exec1(l, l.look, `UPDATE edgvoip.cdr_documents SET due_at = due_at - $1::interval, received_at = received_at - $1::interval WHERE state = 'new'`, interval)
}

// readReleased reads as a worker does: on as long as documents are released.
func (l ledger) readReleased() {
	l.Helper()
	for l.read().Released > 0 {
	}
}

// failover is a call over the second trunk: the caller's document, that of the first trunk's leg, that of the one who
// took it. The documents of the legs tell whose they are, or do not.
func failover(t *testing.T, name string, owned bool) family {
	t.Helper()
	f := capturedFamily(t, name, "call-out-over-the-second-trunk-")
	if !owned {
		for i := range f.documents[1:] {
			f.documents[i+1] = strings.NewReplacer(`"edgvoip_tenant_id"`, `"nobody"`, "tenant-a.example", "nobody.example").Replace(f.documents[i+1])
		}
	}
	return f
}

// While a caller talks on, W3 hears nothing of the legs of his call that have ended; when he has ended it hears of the
// call, once.
func TestLegThatEndsBeforeItsCaller(t *testing.T) {
	t.Parallel()
	for name, stored := range map[string]string{"whose it is stands in it": "1", "whose it is only the caller knows": "0"} {
		l := newLedger(t)
		f := failover(t, name, stored == "1")
		root, failed := f.ids[0], f.ids[1]
		l.keepLeg(failed, f.documents[1])
		// Ten minutes of looking for the caller: ever more rarely.
		looks := 0
		for range 10 * 4 {
			l.later("15 s")
			looks += l.read().Taken
		}
		if looks < 2 || looks > 7 {
			t.Errorf("%s: looked at %d times in ten minutes", name, looks)
		}
		l.want(name+": legs while he talks", `SELECT count(*) FROM edgvoip.cdr_legs`, stored)
		l.want(name+": calls", `SELECT count(*) FROM edgvoip.cdr`, "0")
		l.want(name+": events", events, "0 0")
		l.want(name+": for an operator", `SELECT count(*) FROM edgvoip.cdr_documents WHERE state <> 'new'`, "0")
		n, err := l.db.WaitingDocuments(t.Context())
		if err != nil || n != (cdr.Waiting{Called: 1}) {
			t.Errorf("%s: waiting %+v, %v", name, n, err)
		}

		l.keepLeg(f.ids[2], f.documents[2])
		l.keepLeg(root, f.documents[0])
		l.readReleased()
		l.want(name+": documents left", `SELECT count(*) FROM edgvoip.cdr_documents`, "0")
		l.want(name+": events", `SELECT count(*) FROM edgvoip.webhook_events WHERE kind = 'cdr'`, "1")
		l.want(name+": legs", `SELECT count(*) FROM edgvoip.cdr_legs WHERE call_id = $1`, "3", root)
		if e, _ := l.told(root); e.Disposition != string(cdr.Answered) || e.Reconstructed {
			t.Errorf("%s: told %+v", name, e)
		}
		if got := l.visible(); len(got) != 1 || got[root].Disposition != cdr.Answered {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// A leg that was only seen to end waits for its caller as its document would, until he is seen to end too.
func TestSeenLegThatEndsBeforeItsCaller(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	id, caller, called := call("a")
	pass := func() { exec1(t, l.look, `UPDATE edgvoip.cdr_sightings SET seen_at = seen_at - interval '3 minutes'`) }
	l.sight(called)
	pass()
	if got := l.reconstruct(); got != (cdr.Tally{Taken: 1, Postponed: 1}) {
		t.Errorf("the called leg: %+v", got)
	}
	l.later("10 minutes")
	l.read()
	l.want("calls while the caller talks", `SELECT count(*) FROM edgvoip.cdr`, "0")
	l.want("sightings", `SELECT count(*) FROM edgvoip.cdr_sightings`, "0")
	l.want("for an operator", `SELECT count(*) FROM edgvoip.cdr_documents WHERE state <> 'new'`, "0")

	l.sight(caller)
	pass()
	if got := l.reconstruct(); got != (cdr.Tally{Taken: 1, Recorded: 1, Changed: 1, Released: 1}) {
		t.Errorf("the calling leg: %+v", got)
	}
	l.readReleased()
	l.want("call", `SELECT call_id || ' ' || revision || ' ' || reconstructed || ' ' || answered_by FROM edgvoip.cdr`, id.String()+" 1 true 1002")
	l.want("events", events, "1 1")
	l.want("documents", `SELECT count(*) FROM edgvoip.cdr_documents`, "0")

	// The same of a document whose caller's is lost.
	l = newLedger(t)
	l.keep(called)
	l.read()
	l.sight(caller)
	pass()
	l.reconstruct()
	l.readReleased()
	l.want("call", `SELECT call_id || ' ' || revision || ' ' || reconstructed || ' ' || answered_by FROM edgvoip.cdr`, id.String()+" 1 true 1002")
	l.want("events", events, "1 1")
	l.want("documents", `SELECT count(*) FROM edgvoip.cdr_documents`, "0")
}

// A leg of nobody's is put aside when it has waited long enough, and is taken from there when its caller comes after
// all.
func TestUnassignedLegIsReleased(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	f := failover(t, "unassigned", false)
	for i := 1; i < len(f.ids); i++ {
		l.keepLeg(f.ids[i], f.documents[i])
	}
	l.read()
	l.due()
	if got := l.read(); got.Unassigned != 2 {
		t.Errorf("%+v", got)
	}
	l.keepLeg(f.ids[0], f.documents[0])
	l.readReleased()
	l.want("documents", `SELECT count(*) FROM edgvoip.cdr_documents`, "0")
	l.want("legs", `SELECT count(*) || ' ' || count(DISTINCT call_id) FROM edgvoip.cdr_legs`, "3 1")
	// One that names a tenant who is none of ours waits for nobody.
	l.keep(document(uuid.New(), "outbound", map[string]string{"edgvoip_tenant_id": uuid.NewString()}, "originating_leg_uuid", uuid.NewString()))
	if got := l.read(); got.Unassigned != 1 {
		t.Errorf("%+v", got)
	}
}

// Many legs that wait hold up nobody: they are not looked at.
func TestWaitingLegsAreNotLookedAt(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for range 30 {
		_, _, called := call(uuid.NewString())
		l.keep(called)
	}
	l.readAll(100)
	l.later("1 h")
	l.readAll(100)
	_, caller, _ := call("a")
	l.keep(caller)
	if got := l.read(); got.Taken != 1 || got.Recorded != 1 {
		t.Errorf("%+v", got)
	}
}
