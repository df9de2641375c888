package postgres_test

import (
	"encoding/base64"
	"os/exec"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// An erased number is nowhere either in what is not read yet, in what cannot be read, in channels that were only seen to end, and in
// events about calls that are gone; a document that comes again stays erased. Another tenant's documents keep it.
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
