package postgres_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// Two who read the two calls of an attended transfer at the same time wait for each other, and each call names the
// other.
func TestAttendedTransferByTwoReaders(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	source := fmt.Sprintf("%d:%s:uuid_br:", began.Unix()+20, uuid.New())
	handed, asked := newFamily("handed on", []int{-1, 0}), newFamily("asked", []int{-1, 0})
	joined := func(document string, with uuid.UUID) string {
		return strings.ReplaceAll(document, `"variables":{`, `"variables":{"transfer_source":"`+source+with.String()+`",`)
	}
	l.keepLeg(handed.ids[0], handed.documents[0])
	l.keepLeg(asked.ids[0], asked.documents[0])
	l.readAll(100)
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)
	// Somebody keeps events from being written, so that both are in the middle of their transactions.
	tx, err := l.look.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE edgvoip.webhook_events IN SHARE ROW EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	// Both are there before anybody reads: what is due later than a transaction begins, this transaction does not take.
	l.keepLeg(handed.ids[1], joined(handed.documents[1], asked.ids[1]))
	l.keepLeg(asked.ids[1], joined(asked.documents[1], handed.ids[1]))
	var readers sync.WaitGroup
	for range 2 {
		db, _ := open(t, l.dsn, "edgvoip_api")
		readers.Go(func() {
			if got, err := db.ReadDocuments(t.Context(), 1); err != nil || got.Taken != 1 {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	// The first waits for the table, the second for the first.
	const wait = `
		SELECT count(DISTINCT wait_event) FROM pg_stat_activity
		 WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event IN ('relation', 'advisory')`
	for deadline := time.Now().Add(time.Minute); l.one(wait) != "2"; time.Sleep(time.Millisecond) {
		if t.Failed() || time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	got := l.visible()
	if got[handed.ids[0]].RelatedID != asked.ids[0] || got[asked.ids[0]].RelatedID != handed.ids[0] {
		t.Errorf("%v and %v, want %v and %v", got[handed.ids[0]].RelatedID, got[asked.ids[0]].RelatedID, asked.ids[0], handed.ids[0])
	}
}

// A channel of which only the caller's caller knows whose it is belongs to his tenant, in whatever order they are in a
// batch.
func TestTenantOverSeveralSteps(t *testing.T) {
	t.Parallel()
	f := newFamily("steps", []int{-1, 0, 1, 2})
	for i := 1; i < len(f.documents); i++ {
		f.documents[i] = strings.ReplaceAll(f.documents[i], `"edgvoip_tenant_id"`, `"nobody"`)
	}
	for _, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {2, 0, 3, 1}} {
		for _, old := range []bool{false, true} {
			l := newLedger(t)
			for _, i := range order {
				l.keepLeg(f.ids[i], f.documents[i])
			}
			if old {
				l.due()
			}
			if got := l.read(); got.Recorded != 4 {
				t.Errorf("order %v, old %v: %+v", order, old, got)
			}
			l.want("tenants", `SELECT count(*) || ' ' || count(DISTINCT call_id) FROM edgvoip.cdr_legs WHERE tenant_id = $1`, "4 1", tenantA)
		}
	}
}

// A transaction that the server ended because of another is repeated, and the documents are read; not without end.
func TestConflictIsRepeated(t *testing.T) {
	t.Parallel()
	for code, failures := range map[string]int{"40P01": 2, "40001": 3} {
		l := newLedger(t)
		l.conflicts("cdr_legs", code, failures)
		id, caller, called := call("conflict")
		l.keep(caller, called)
		if got := l.read(); got != (cdr.Tally{Taken: 2, Recorded: 2, Changed: 1}) {
			t.Errorf("%s: %+v", code, got)
		}
		l.want(code, `SELECT string_agg(call_id::text, ',') FROM edgvoip.cdr`, id.String())
	}
	l := newLedger(t)
	l.conflicts("cdr_legs", "40P01", 1000)
	_, caller, _ := call("conflict")
	l.keep(caller)
	if _, err := l.db.ReadDocuments(t.Context(), 100); !passes(err) {
		t.Errorf("for ever: %v", err)
	}
	if n := l.one(`SELECT last_value FROM edgvoip.conflicts`); n == "1" || len(n) > 1 {
		t.Errorf("tried %s times", n)
	}
	l.want("documents", `SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'new' AND attempts = 0`, "1")
}

// conflicts makes the first so many transactions that write into a table end as if they were in the way of others.
func (l ledger) conflicts(table, code string, failures int) {
	l.Helper()
	exec1(l, l.look, `CREATE SEQUENCE edgvoip.conflicts`)
	exec1(l, l.look, fmt.Sprintf(`CREATE FUNCTION edgvoip.conflict() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
			IF nextval('edgvoip.conflicts') <= %d THEN RAISE EXCEPTION USING ERRCODE = '%s'; END IF;
			RETURN NULL;
		END $$`, failures, code))
	exec1(l, l.look, `CREATE TRIGGER conflict AFTER INSERT OR UPDATE ON edgvoip.`+table+` FOR EACH STATEMENT EXECUTE FUNCTION edgvoip.conflict()`)
}
