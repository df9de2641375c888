package postgres_test

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// An erased number is nowhere either in what is not read yet, in what cannot be read, in channels that were only seen
// to end, and in events about calls that are gone; a document that comes again stays erased. Another tenant's documents
// keep it.
func TestErasureOfWhatIsNotRead(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	number, err := fstext.NewE164("+393337654321")
	if err != nil {
		t.Fatal(err)
	}
	gone, goneCaller, goneCalled := call("gone", "from", "+393337654321")
	spaced, spacedCaller, spacedCalled := call("spaced", "sip_from_display", "Anna (333) 765-43/21")
	l.keep(goneCaller, goneCalled, spacedCaller, spacedCalled)
	l.read()
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'dead', finished_at = now() WHERE subject = $1`, gone)
	exec1(t, l.look, `DELETE FROM edgvoip.cdr WHERE call_id = $1`, gone)
	exec1(t, l.look, `DELETE FROM edgvoip.cdr_legs WHERE call_id = $1`, gone)

	_, seen, _ := call("seen", "from", "+393337654321")
	l.sight(seen)
	unread, unreadCaller, unreadCalled := call("unread", "from", "333 7654321")
	_, strange, _ := call("strange", "from", "+393337654321", "edgvoip_tenant_id", "11111111-1111-4111-8111-111111111111")
	_, others, _ := call("others", "from", "+393337654321", "edgvoip_tenant_id", storetest.TenantID("tenant-b").String())
	l.keep(strange, "cdr=no record of +39 333 7654321")
	l.read()
	l.keep(unreadCaller, base64.StdEncoding.EncodeToString([]byte(unreadCalled)), others)

	if n, err := l.erase(number); err != nil || n != 1 {
		t.Fatalf("%d %v", n, err)
	}
	l.want("documents with the number", `SELECT count(*) FROM edgvoip.cdr_documents WHERE encode(body, 'escape') ~ '3337654321'`, "1")
	l.keep(strange, unreadCaller)
	l.want("documents that came again", `SELECT count(*) FROM edgvoip.cdr_documents WHERE encode(body, 'escape') ~ '333 ?7654321'`, "1")
	l.read()
	l.due()
	l.read()
	l.want("what was not read", `SELECT "from" || ' ' || erased FROM edgvoip.cdr WHERE call_id = $1`, "erased true", unread)
	l.want("what was written with spaces", `SELECT erased::text FROM edgvoip.cdr WHERE call_id = $1`, "true", spaced)
	l.want("what was only seen", `SELECT string_agg("from" || ' ' || erased, ',') FROM edgvoip.cdr WHERE reconstructed`, "1001 true")
	l.want("an event about what is gone", `SELECT payload::jsonb ->> 'from' FROM edgvoip.webhook_events WHERE subject = $1`, "erased", gone)
	dump, err := exec.CommandContext(t.Context(), "pg_dump", "--data-only", "--inserts", "--schema=edgvoip", l.dsn).Output()
	if err != nil {
		t.Skipf("pg_dump: %v", err)
	}
	for line := range strings.SplitSeq(string(dump), "\n") {
		if strings.Contains(line, "3337654321") && !strings.Contains(line, storetest.TenantID("tenant-b").String()) {
			t.Errorf("the number is in %s", line)
		}
	}
}

// An erasure goes on where it stopped, through more documents, legs and events than it looks at in one go, and keeps
// nobody from reading documents without the number.
func TestErasureByPages(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	number, err := fstext.NewE164("+393337654321")
	if err != nil {
		t.Fatal(err)
	}
	const documents, events, every = 450, 10_100, 90
	var hits int
	for i := range documents {
		from := "+390612345600"
		if i%every == 0 {
			from = "+393337654321"
			hits++
		}
		_, caller, _ := call(fmt.Sprint("page ", i), "from", from)
		l.keepLeg(uuid.NewSHA1(tenantA, fmt.Append(nil, i)), caller)
	}
	exec1(t, l.look, fmt.Sprintf(`INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, state, finished_at)
		SELECT '%s', gen_random_uuid(), 'cdr', gen_random_uuid(), '{"from":"' || CASE WHEN n %% 1000 = 0 THEN '+39 333 765-4321' ELSE '+390612345600' END || '"}', 'delivered', now()
		  FROM generate_series(1, %d) AS n`, tenantA, events))
	// Somebody else is in the middle of reading a document without the number.
	tx, err := l.look.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SELECT FROM edgvoip.cdr_documents WHERE id = (SELECT min(id) + 1 FROM edgvoip.cdr_documents) FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	seen := map[cdr.ErasureStage]int{}
	for at := (cdr.ErasurePlace{}); at.Stage != cdr.EraseDone; {
		_, next, err := l.db.EraseNumber(t.Context(), tenantA, cdr.NewPerson(number), at, 0, "test")
		if err != nil || next == at {
			t.Fatalf("%+v: %+v, %v", at, next, err)
		}
		seen[at.Stage]++
		at = next
	}
	if seen[cdr.EraseDocuments] != 3 || seen[cdr.EraseLegs] != 1 || seen[cdr.EraseEvents] != 3 {
		t.Errorf("pages by stage: %v", seen)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	l.want("documents with the number", `SELECT count(*) FROM edgvoip.cdr_documents WHERE encode(body, 'escape') ~ '3337654321'`, "0")
	l.want("events with the number", `SELECT count(*) FROM edgvoip.webhook_events WHERE payload ~ '765'`, "0")
	l.want("events erased", `SELECT count(*) FROM edgvoip.webhook_events WHERE payload::jsonb ->> 'from' = 'erased'`, fmt.Sprint(events/1000))
	l.readAll(100)
	l.want("calls erased", `SELECT count(*) FROM edgvoip.cdr WHERE erased`, fmt.Sprint(hits))
}
