package postgres_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/webhook"
)

// ledger is a database with the scene, and a store in the API's role.
type ledger struct {
	*testing.T
	db   *postgres.DB
	look *sql.DB
	dsn  string
}

func newLedger(t *testing.T) ledger {
	t.Helper()
	dsn, look := scene(t)
	db, _ := open(t, dsn, "edgvoip_api")
	if err := db.EnsurePartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ledger{t, db, look, dsn}
}

// began is when the calls of these tests do: some minutes ago, to the microsecond.
var began = time.Now().Add(-10 * time.Minute).Truncate(time.Microsecond).UTC()

var tenantA = storetest.TenantID("tenant-a")

// call makes the documents of a call of tenant-a, of its calling leg and of the one that was called, with more
// variables for both: pairs of name and value.
func call(name string, more ...string) (id uuid.UUID, caller, called string) {
	id = uuid.NewSHA1(tenantA, []byte(name))
	other := uuid.NewSHA1(id, []byte("called"))
	vars := map[string]string{"edgvoip_tenant_id": tenantA.String(), "hangup_cause": "NORMAL_CLEARING"}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return id, document(id, "inbound", vars), document(other, "outbound", vars, "originating_leg_uuid", id.String())
}

func document(id uuid.UUID, direction string, vars map[string]string, more ...string) string {
	all := map[string]string{
		"uuid": id.String(), "start_uepoch": fmt.Sprint(began.UnixMicro()), "answer_uepoch": fmt.Sprint(began.Add(time.Second).UnixMicro()),
		"end_uepoch": fmt.Sprint(began.Add(time.Minute).UnixMicro()),
	}
	for name, value := range vars {
		all[name] = strings.ReplaceAll(value, "+", "%2B")
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	from := "1001"
	if vars["from"] != "" {
		from = vars["from"]
	}
	b, err := json.Marshal(map[string]any{
		"channel_data": map[string]string{"direction": direction}, "variables": all,
		"callflow": []any{map[string]any{"caller_profile": map[string]string{"caller_id_number": from, "caller_id_name": "Anna", "destination_number": "1002"}}},
	})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (l ledger) keep(documents ...string) {
	l.Helper()
	for _, d := range documents {
		if _, err := l.db.KeepDocument(l.Context(), cdr.Posted{Source: cdr.SourcePost, Sender: "test", Body: []byte(d)}); err != nil {
			l.Fatal(err)
		}
	}
}

func (l ledger) read() cdr.Tally {
	l.Helper()
	t, err := l.db.ReadDocuments(l.Context(), 100)
	if err != nil {
		l.Fatal(err)
	}
	return t
}

func (l ledger) one(query string, args ...any) string {
	l.Helper()
	var s sql.NullString
	if err := l.look.QueryRowContext(l.Context(), query, args...).Scan(&s); err != nil {
		l.Fatalf("%s: %v", query, err)
	}
	return s.String
}

func (l ledger) want(what, query, want string, args ...any) {
	l.Helper()
	if got := l.one(query, args...); got != want {
		l.Errorf("%s: %s, want %s", what, got, want)
	}
}

// due makes what waits fall due, as if it had waited for its callers long enough.
func (l ledger) due() {
	l.Helper()
	exec1(l, l.look, `UPDATE edgvoip.cdr_documents SET due_at = now() - interval '1 s', received_at = received_at - interval '25 h' WHERE state = 'new'`)
}

const events = `SELECT count(*) || ' ' || coalesce(max(payload::jsonb ->> 'revision'), '0') FROM edgvoip.webhook_events WHERE kind = 'cdr'`

// A call is one record, in whatever order and however often its documents come; W3 hears of it once if they come
// together.
func TestCallIsRecordedOnce(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{"caller first": {0, 1}, "called first": {1, 0}, "twice": {1, 0, 1, 0}} {
		l := newLedger(t)
		id, caller, called := call("a")
		for _, i := range order {
			l.keep([]string{caller, called}[i])
			l.read()
		}
		l.due()
		l.read()
		l.want(name+", calls", `SELECT string_agg(call_id || ' ' || disposition || ' ' || duration || ' ' || billsec || ' ' || answered_by, ',') FROM edgvoip.cdr`,
			id.String()+" answered 60 59 1002")
		l.want(name+", legs", `SELECT count(*) FROM edgvoip.cdr_legs WHERE call_id = $1`, "2", id)
		l.want(name+", documents", `SELECT count(*) FROM edgvoip.cdr_documents`, "0")
		l.want(name+", partition", `SELECT count(*) FROM edgvoip.cdr_default`, "0")
		if got := l.one(events); !strings.HasPrefix(got, "1 ") {
			t.Errorf("%s: events %s, want one", name, got)
		}
	}
}

// When the event has gone out, a leg that changes the call makes another with a higher revision; one that changes
// nothing makes none.
func TestRevision(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	_, caller, called := call("a")
	l.keep(caller)
	l.read()
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)
	l.keep(called)
	l.read()
	l.want("after the called leg", events, "2 2")
	l.keep(caller+"\n", called+" ")
	l.read()
	l.want("after duplicates", events, "2 2")
	var e cdr.Event
	if err := json.Unmarshal([]byte(l.one(`SELECT payload FROM edgvoip.webhook_events ORDER BY id DESC LIMIT 1`)), &e); err != nil || e.AnsweredBy != "1002" ||
		e.TenantID != tenantA || !e.StartTime.Equal(began) {
		t.Errorf("%+v %v", e, err)
	}
}

// A leg waits for its caller, who may still talk, for a day, and is then recorded without him. He who comes late after
// all completes the record.
func TestOrphan(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	id, caller, called := call("a")
	l.keep(called)
	if got := l.read(); got.Postponed != 1 || got.Changed != 0 {
		t.Errorf("%+v", got)
	}
	l.later("23 h")
	if got := l.read(); got.Postponed != 1 || got.Changed != 0 {
		t.Errorf("after most of a day: %+v", got)
	}
	l.want("calls", `SELECT count(*) FROM edgvoip.cdr`, "0")
	l.later("1 h")
	if got := l.read(); got.Recorded != 1 || got.Changed != 1 {
		t.Errorf("%+v", got)
	}
	l.want("call", `SELECT call_id FROM edgvoip.cdr`, id.String())
	l.keep(strings.ReplaceAll(caller, `"1001"`, `"1009"`))
	l.read()
	l.want("revision", `SELECT count(*) || ' ' || max(revision) || ' ' || max("from") FROM edgvoip.cdr`, "1 2 1009")
}

// A leg that a called leg called is of the same call, in whatever order they come.
func TestGrandchild(t *testing.T) {
	t.Parallel()
	id, caller, called := call("a")
	child := uuid.NewSHA1(id, []byte("called"))
	third := document(uuid.NewSHA1(id, []byte("third")), "outbound", map[string]string{"edgvoip_tenant_id": tenantA.String()}, "originating_leg_uuid", child.String())
	for _, order := range [][]string{{caller, called, third}, {third, called, caller}, {called, third, caller}, {third, caller, called}} {
		l := newLedger(t)
		for _, d := range order {
			l.keep(d)
			l.read()
		}
		l.due()
		l.read()
		l.want("calls", `SELECT string_agg(call_id::text, ',') FROM edgvoip.cdr`, id.String())
		l.want("legs", `SELECT count(*) FROM edgvoip.cdr_legs WHERE call_id = $1`, "3", id)
	}
}

// The same in one batch after the patience with callers, and where the switch was only seen to end them.
func TestGrandchildInOneBatch(t *testing.T) {
	t.Parallel()
	id, caller, called := call("a")
	child := uuid.NewSHA1(id, []byte("called"))
	third := document(uuid.NewSHA1(id, []byte("third")), "outbound", map[string]string{"edgvoip_tenant_id": tenantA.String()}, "originating_leg_uuid", child.String())
	l := newLedger(t)
	l.keep(third, called, caller)
	l.due()
	l.read()
	l.want("calls", `SELECT string_agg(call_id::text, ',') FROM edgvoip.cdr`, id.String())
	l.want("legs", `SELECT count(*) FROM edgvoip.cdr_legs WHERE call_id = $1`, "3", id)

	l = newLedger(t)
	l.sight(third)
	l.sight(called)
	l.sight(caller)
	exec1(t, l.look, `UPDATE edgvoip.cdr_sightings SET seen_at = seen_at - interval '3 minutes'`)
	l.reconstruct()
	l.want("reconstructed legs", `SELECT count(*) FROM edgvoip.cdr_legs WHERE reconstructed`, "3")
}

// A call that the database does not take leaves no leg behind, and the other calls of its batch are recorded.
func TestPoisonedCall(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	exec1(t, l.look, `ALTER TABLE edgvoip.cdr ADD CHECK (raw::text NOT LIKE '%poison%')`)
	id, poisoned, _ := call("poisoned", "sip_from_display", "poison")
	good, caller, called := call("good")
	l.keep(poisoned, caller, called)
	for range 10 {
		l.read()
		l.due()
	}
	l.want("legs of the poisoned call", `SELECT count(*) FROM edgvoip.cdr_legs WHERE call_id = $1`, "0", id)
	l.want("calls", `SELECT string_agg(call_id::text, ',') FROM edgvoip.cdr`, good.String())
	l.want("unreadable", `SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'unreadable'`, "1")
}

// Whatever a caller calls himself, his channel is taken down.
func TestHostileSighting(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	for _, name := range []string{`\u0000`, `\\u0000`, "\x00", "\xff", `"`, "\u2028", `{}`} {
		s, ours := cdr.NewSighting(uuid.New(), map[string]string{
			"Unique-ID": uuid.NewString(), "variable_edgvoip_tenant_id": tenantA.String(), "Caller-Caller-ID-Name": name, name: name,
		})
		if !ours {
			t.Fatal("not ours")
		}
		if err := l.db.AddSightings(t.Context(), []cdr.Sighting{s}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	l.want("sightings", `SELECT count(*) FROM edgvoip.cdr_sightings`, "7")
}

// What cannot be read, what is nobody's and what the database does not take stays, with the reason, and holds up
// nothing.
func TestPoison(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	exec1(t, l.look, `ALTER TABLE edgvoip.cdr_legs ADD CHECK (raw::text NOT LIKE '%poison%')`)
	_, poisoned, _ := call("poisoned", "sip_from_display", "poison")
	_, foreign, _ := call("foreign", "edgvoip_tenant_id", uuid.NewString())
	id, caller, called := call("good")
	deep := `{"variables":{"uuid":"` + uuid.NewString() + `","start_uepoch":"` + fmt.Sprint(began.UnixMicro()) + `","edgvoip_tenant_id":"` + tenantA.String() +
		`","x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}`
	l.keep("hello", poisoned, foreign, deep, caller, called)
	for range 10 {
		l.read()
		l.due()
	}
	l.want("the good call", `SELECT string_agg(call_id::text, ',') FROM edgvoip.cdr WHERE answered_by = '1002'`, id.String())
	l.want("unassigned", `SELECT string_agg(error, ',') FROM edgvoip.cdr_documents WHERE state = 'unassigned'`, "the record belongs to no tenant")
	if got := l.one(`SELECT string_agg(error, ',' ORDER BY id) FROM edgvoip.cdr_documents WHERE state = 'unreadable'`); !strings.HasPrefix(got,
		"the document is neither JSON nor an encoding of it that FreeSWITCH has,the database does not take it: SQLSTATE 23514") {
		t.Errorf("unreadable: %s", got)
	}
	l.want("waiting", `SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'new'`, "0")
	n, err := l.db.WaitingDocuments(t.Context())
	if err != nil || n.Unassigned != 1 || n.Unreadable < 2 || n.Documents != 0 {
		t.Errorf("%+v %v", n, err)
	}

	// An operator mends what was wrong, and has one read once more.
	exec1(t, l.look, `ALTER TABLE edgvoip.cdr_legs DROP CONSTRAINT cdr_legs_raw_check`)
	docs, err := l.db.KeptDocuments(t.Context(), cdr.DocumentUnreadable, 0, 10)
	if err != nil || len(docs) < 2 {
		t.Fatalf("%v %v", docs, err)
	}
	if err := l.db.RetryDocument(t.Context(), docs[1].ID, "operator:test"); err != nil {
		t.Fatal(err)
	}
	if got := l.read(); got.Recorded != 1 {
		t.Errorf("%+v", got)
	}
	if err := l.db.DiscardDocument(t.Context(), docs[0].ID, "operator:test"); err != nil {
		t.Error(err)
	}
	if err := l.db.DiscardDocument(t.Context(), docs[0].ID, "operator:test"); err != cdr.ErrUnknownCall { //nolint:errorlint // the error itself
		t.Errorf("a second time: %v", err)
	}
	l.want("audit", `SELECT string_agg(action, ',' ORDER BY id) FROM edgvoip.audit_log WHERE actor = 'operator:test'`, "cdr_document.retried,cdr_document.discarded")
}

// Captured documents, which name no tenant, are found to be a tenant's by realm; of a carrier's call by the number.
func TestTenantOfCaptured(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	files, err := filepath.Glob("../../cdr/testdata/captured/*.json")
	if err != nil || len(files) < 8 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		l.keep(string(b))
	}
	l.read()
	l.due()
	l.read()
	l.want("calls", `SELECT count(*) FROM edgvoip.cdr WHERE tenant_id = $1`, "5", tenantA)
	l.want("legs", `SELECT count(*) FROM edgvoip.cdr_legs`, "8")
}

// Several processes read at the same time: each leg is there once, and each call.
func TestConcurrentReaders(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const calls = 40
	for i := range calls {
		_, caller, called := call(fmt.Sprint(i))
		l.keep(called, caller)
	}
	var readers sync.WaitGroup
	for range 4 {
		db, _ := open(t, l.dsn, "edgvoip_api")
		readers.Go(func() {
			for {
				got, err := db.ReadDocuments(t.Context(), 3)
				if err != nil {
					// A deadlock passes, and nothing of the batch is done.
					if u, ok := errors.AsType[interface {
						error
						Unavailable() bool
					}](err); !ok || !u.Unavailable() {
						t.Error(err)
						return
					}
					continue
				}
				if got.Taken == 0 {
					return
				}
			}
		})
	}
	readers.Wait()
	l.due()
	for l.read().Taken > 0 {
	}
	l.want("calls", `SELECT count(*) || ' ' || count(DISTINCT call_id) FROM edgvoip.cdr WHERE answered_by = '1002'`, fmt.Sprintf("%d %d", calls, calls))
	l.want("legs", `SELECT count(*) || ' ' || count(DISTINCT leg_id) FROM edgvoip.cdr_legs`, fmt.Sprintf("%d %d", 2*calls, 2*calls))
	l.want("events", `SELECT count(DISTINCT subject) FROM edgvoip.webhook_events WHERE kind = 'cdr'`, fmt.Sprint(calls))
}

// sight writes down the end of a channel as a switch would.
func (l ledger) sight(document string) {
	l.Helper()
	var d struct {
		Variables map[string]string `json:"variables"`
		Channel   map[string]string `json:"channel_data"`
	}
	if err := json.Unmarshal([]byte(document), &d); err != nil {
		l.Fatal(err)
	}
	event := map[string]string{
		"Unique-ID": d.Variables["uuid"], "Call-Direction": d.Channel["direction"], "Caller-Caller-ID-Number": "1001", "Caller-Destination-Number": "1002",
	}
	for name, value := range d.Variables {
		event["variable_"+name] = value
	}
	s, ours := cdr.NewSighting(uuid.New(), event)
	if !ours {
		l.Fatal("no channel of ours")
	}
	if err := l.db.AddSightings(l.Context(), []cdr.Sighting{s}); err != nil {
		l.Fatal(err)
	}
}

func (l ledger) reconstruct() cdr.Tally {
	l.Helper()
	t, err := l.db.Reconstruct(l.Context(), 2*time.Minute, 10)
	if err != nil {
		l.Fatal(err)
	}
	return t
}

// A channel that was seen to end and whose document does not come is reconstructed, and replaced by the document after
// all.
func TestReconstructed(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	id, caller, called := call("a")
	l.sight(caller)
	l.sight(called)
	if got := l.reconstruct(); got.Taken != 0 {
		t.Errorf("too early: %+v", got)
	}
	l.keep(called)
	l.read()
	exec1(t, l.look, `UPDATE edgvoip.cdr_sightings SET seen_at = seen_at - interval '3 minutes'`)
	exec1(t, l.look, `UPDATE edgvoip.cdr_documents SET due_at = now() - interval '1 minute'`)
	if got := l.reconstruct(); got.Taken != 0 {
		t.Errorf("while a document waits to be read: %+v", got)
	}
	l.read()
	l.reconstruct()
	l.want("call", `SELECT call_id || ' ' || reconstructed || ' ' || disposition || ' ' || duration FROM edgvoip.cdr`, id.String()+" true answered 60")
	l.want("sightings", `SELECT count(*) FROM edgvoip.cdr_sightings`, "0")
	before := l.one(`SELECT revision FROM edgvoip.cdr`)
	l.keep(caller, called)
	l.due()
	l.read()
	l.want("call", `SELECT reconstructed::text FROM edgvoip.cdr`, "false")
	l.want("legs", `SELECT count(*) || ' ' || bool_or(reconstructed) FROM edgvoip.cdr_legs`, "2 false")
	if l.one(`SELECT revision FROM edgvoip.cdr`) <= before {
		t.Error("the record changed, and its revision did not")
	}
	l.sight(caller)
	l.want("a sighting of what is recorded", `SELECT count(*) FROM edgvoip.cdr_sightings`, "0")
}

// A channel that was seen to end while its document was being read is no channel without a document.
func TestSeenWhileRead(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	_, caller, called := call("a")
	l.sight(caller)
	exec1(t, l.look, `CREATE TABLE late AS SELECT * FROM edgvoip.cdr_sightings`)
	l.keep(caller, called)
	l.read()
	exec1(t, l.look, `INSERT INTO edgvoip.cdr_sightings SELECT leg_id, node_id, seen_at - interval '3 minutes', event FROM late`)
	if got := l.reconstruct(); got != (cdr.Tally{Taken: 1}) {
		t.Errorf("%+v", got)
	}
	l.want("sightings", `SELECT count(*) FROM edgvoip.cdr_sightings`, "0")
	l.want("legs", `SELECT count(*) || ' ' || bool_or(reconstructed) FROM edgvoip.cdr_legs`, "2 false")
}

// erase erases a number of a tenant until that is done.
func (l ledger) erase(number fstext.E164) (calls int, err error) {
	calls, next, err := l.db.EraseNumber(l.Context(), tenantA, cdr.NewPerson(number), cdr.ErasurePlace{}, time.Minute, "test")
	if err == nil && next.Stage != cdr.EraseDone {
		err = fmt.Errorf("stopped at %+v", next)
	}
	return calls, err
}

// What others said to each other stays, whatever digits stand in it.
func TestErasureSparesOthers(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	number, err := fstext.NewE164("+395226319")
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"+15226319", "+393330000000", "13395226319"} {
		_, caller, _ := call(from, "from", from, "edgvoip_recording", tenantA.String()+"/2026/11/20/"+uuid.NewString()+".wav")
		l.keep(caller)
	}
	l.read()
	if n, err := l.erase(number); err != nil || n != 0 {
		t.Errorf("%d %v", n, err)
	}
	l.want("recordings", `SELECT count(*) FROM edgvoip.cdr WHERE recording_state = 'expected' AND NOT erased`, "3")
}

// Nothing in the database holds an erased number, whatever comes later.
func TestErasureLeavesNoTrace(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	number, err := fstext.NewE164("+393337654321")
	if err != nil {
		t.Fatal(err)
	}
	path := tenantA.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
	for i, form := range []string{"+393337654321", "393337654321", "00393337654321", "3337654321"} {
		_, caller, called := call(form, "from", form, "sip_from_uri", form+"@carrier.example", "edgvoip_recording", path)
		l.keep(caller, called)
		if i == 0 {
			l.read()
			exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)
		}
	}
	_, other, _ := call("other", "from", "+393330000000")
	_, late, lateCalled := call("late", "from", "+393337654321")
	l.keep(other, late)
	l.read()
	n, err := l.erase(number)
	if err != nil || n != 5 {
		t.Fatalf("%d %v", n, err)
	}
	l.keep(lateCalled)
	l.read()
	if n, err := l.erase(number); err != nil || n != 0 {
		t.Errorf("once more: %d %v", n, err)
	}
	dump, err := exec.CommandContext(t.Context(), "pg_dump", "--data-only", "--schema=edgvoip", l.dsn).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	if !strings.Contains(string(dump), "393330000000") {
		t.Error("the dump does not hold another's number")
	}
	for line := range strings.SplitSeq(string(dump), "\n") {
		if strings.Contains(line, "3337654321") {
			t.Errorf("the number is in %s", line)
		}
	}
	l.want("calls", `SELECT string_agg(DISTINCT "from" || ' ' || erased || ' ' || recording_state, ',') FROM edgvoip.cdr WHERE erased`, "erased true none,erased true removed")
	l.want("audit", `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'number.erased'`, "2")
}

// A tenant's records go when their time is over, not before, and not before their recordings.
func TestRetention(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	path := tenantA.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
	old, caller, called := call("old", "edgvoip_recording", path)
	_, young, _ := call("young")
	plain, silent, _ := call("plain")
	l.keep(caller, called, young, silent)
	l.read()
	for _, table := range []string{"cdr", "cdr_legs"} {
		exec1(t, l.look, `UPDATE edgvoip.`+table+` SET start_time = start_time - interval '31 days' WHERE call_id IN ($1, $2)`, old, plain)
	}
	days := 30
	if _, _, err := l.db.ChangeTenant(t.Context(), tenantA, directory.TenantChange{}, cdr.PolicyPatch{CDRDays: &days}, "test"); err != nil {
		t.Fatal(err)
	}
	if err := l.db.ExpireRecordings(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'dead', finished_at = now() - interval '31 days' WHERE subject = $1`, plain)
	if n, err := l.db.ExpireCalls(t.Context()); n != 3 || err != nil {
		t.Errorf("%d rows removed before the recording, %v; want the call without one, its leg and its event", n, err)
	}
	gone, err := l.db.Recordings(t.Context(), cdr.RecordingRemoved, cdr.Recording{}, 10)
	if err != nil || len(gone) != 1 || gone[0].Path != path {
		t.Fatalf("%v %v", gone, err)
	}
	if err := l.db.RecordingGone(t.Context(), gone[0]); err != nil {
		t.Fatal(err)
	}
	if n, err := l.db.ExpireCalls(t.Context()); n != 3 || err != nil {
		t.Errorf("%d rows removed, %v; want 3", n, err)
	}
	l.want("calls", `SELECT count(*) FROM edgvoip.cdr`, "1")
	l.want("legs", `SELECT count(*) FROM edgvoip.cdr_legs`, "1")
	for _, bad := range []int{-1, 36501} {
		if _, _, err := l.db.ChangeTenant(t.Context(), tenantA, directory.TenantChange{}, cdr.PolicyPatch{RecordingDays: &bad}, "test"); err == nil {
			t.Errorf("%d days are taken", bad)
		}
	}
}

// The recording of a call is told once it is there.
func TestRecordingReady(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	path := tenantA.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
	_, caller, _ := call("a", "edgvoip_recording", path)
	_, foreign, _ := call("b", "edgvoip_recording", "../../etc/passwd")
	l.keep(caller, foreign)
	l.read()
	list, err := l.db.Recordings(t.Context(), cdr.RecordingExpected, cdr.Recording{}, 10)
	if err != nil || len(list) != 1 || list[0].Path != path {
		t.Fatalf("%v %v", list, err)
	}
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)
	for range 2 {
		if err := l.db.RecordingReady(t.Context(), list[0], "https://api.example/r"); err != nil {
			t.Fatal(err)
		}
	}
	l.want("event", `SELECT count(*) || ' ' || max(payload::jsonb ->> 'recordingUrl') FROM edgvoip.webhook_events WHERE state = 'pending' AND kind = $1`,
		"1 https://api.example/r", string(webhook.CDR))
	l.keep(caller + " ")
	l.read()
	l.want("after the document once more", `SELECT recording_state FROM edgvoip.cdr WHERE recording_path IS NOT NULL`, "ready")
}
