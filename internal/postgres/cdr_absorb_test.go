package postgres_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// family is a call of several legs: each leg's number, and that of the leg which called it; the first called itself.
type family struct {
	ids       []uuid.UUID
	documents []string
}

// newFamily makes the documents of a call. parents holds the place of each leg's caller, -1 for the calling leg. more
// are variables of all legs.
func newFamily(name string, parents []int, more ...string) family {
	f := family{}
	for i := range parents {
		f.ids = append(f.ids, uuid.NewSHA1(tenantA, fmt.Append(nil, name, " ", i)))
	}
	for i, parent := range parents {
		at := began.Add(time.Duration(i) * 10 * time.Second)
		vars := map[string]string{
			"edgvoip_tenant_id": tenantA.String(), "hangup_cause": "NORMAL_CLEARING", "dialed_user": fmt.Sprint(1000 + i),
			"from": fmt.Sprint(1100 + i),
		}
		for j := 0; j < len(more); j += 2 {
			vars[more[j]] = more[j+1]
		}
		times := []string{
			"start_uepoch", fmt.Sprint(at.UnixMicro()), "answer_uepoch", fmt.Sprint(at.Add(time.Second).UnixMicro()),
			"end_uepoch", fmt.Sprint(at.Add(time.Minute).UnixMicro()),
		}
		if parent < 0 {
			f.documents = append(f.documents, document(f.ids[i], "inbound", vars, times...))
		} else {
			f.documents = append(f.documents, document(f.ids[i], "outbound", vars, append(times, "originating_leg_uuid", f.ids[parent].String())...))
		}
	}
	return f
}

// call is the record that all legs make.
func (f family) call(t *testing.T) cdr.Call {
	t.Helper()
	var legs []cdr.Leg
	for _, d := range f.documents {
		doc, err := cdr.Parse([]byte(d))
		if err != nil {
			t.Fatal(err)
		}
		legs = append(legs, doc.Leg())
	}
	c := cdr.Join(f.ids[0], legs)
	c.TenantID = tenantA
	return c
}

// dueLegs makes the documents of legs fall due, as if they had waited for their callers long enough.
func (l ledger) dueLegs(legs ...uuid.UUID) {
	l.Helper()
	ids := make([]string, len(legs))
	for i, id := range legs {
		ids[i] = id.String()
	}
	exec1(l, l.look, `UPDATE edgvoip.cdr_documents SET due_at = now() - interval '1 s', received_at = received_at - interval '25 h'
		WHERE state = 'new' AND leg_id = ANY ($1::uuid[])`, pq.StringArray(ids))
}

// keepLeg keeps a document under the name of its channel, as a switch posts it.
func (l ledger) keepLeg(leg uuid.UUID, document string) {
	l.Helper()
	if _, err := l.db.KeepDocument(l.Context(), cdr.Posted{LegID: leg, Source: cdr.SourcePost, Sender: "test", Body: []byte(document)}); err != nil {
		l.Fatal(err)
	}
}

// readAll reads, so many documents at a time, until nothing is due.
func (l ledger) readAll(most int) {
	l.Helper()
	for {
		t, err := l.db.ReadDocuments(l.Context(), most)
		if err != nil {
			l.Fatal(err)
		}
		if t.Taken == 0 {
			return
		}
	}
}

// visible are the records of tenant-a that are listed, by call.
func (l ledger) visible() map[uuid.UUID]cdr.Record {
	l.Helper()
	list, err := l.db.Calls(l.Context(), tenantA, cdr.Filter{Limit: 100000})
	if err != nil {
		l.Fatal(err)
	}
	m := map[uuid.UUID]cdr.Record{}
	for _, r := range list {
		m[r.ID] = r
	}
	if len(m) != len(list) {
		l.Errorf("%d records of %d calls", len(list), len(m))
	}
	return m
}

// told is the last event about a call, or false if W3 never heard of it.
func (l ledger) told(call uuid.UUID) (e cdr.Event, ever bool) {
	l.Helper()
	payload := l.one(`SELECT (SELECT payload FROM edgvoip.webhook_events WHERE subject = $1 AND kind = 'cdr' ORDER BY id DESC LIMIT 1)`, call)
	if payload == "" {
		return e, false
	}
	if err := json.Unmarshal([]byte(payload), &e); err != nil {
		l.Fatal(err)
	}
	return e, true
}

// A leg of which only another leg knows whose it is was recorded as a call of its own, as the other did not come. When
// it comes after all, the two are one call, and W3 is told which of them goes on.
func TestAbsorbed(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	f := newFamily("a", []int{-1, 0, 1})
	root, middle := f.ids[0], f.ids[1]
	l.keepLeg(root, f.documents[0])
	l.keepLeg(f.ids[2], f.documents[2])
	l.readAll(100)
	l.dueLegs(f.ids[2])
	l.readAll(100)
	if got := l.visible(); len(got) != 2 || got[middle].AnsweredBy != "1002" {
		t.Fatalf("before its caller came: %v", got)
	}
	exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)
	l.keepLeg(middle, f.documents[1])
	l.readAll(100)
	got := l.visible()
	if len(got) != 1 || got[root].AnsweredBy != "1002" || got[root].Revision != 2 {
		t.Errorf("%v", got)
	}
	if e, _ := l.told(root); e.Revision != 2 || e.AbsorbedBy != nil || e.AnsweredBy != "1002" {
		t.Errorf("told of the call that goes on: %+v", e)
	}
	e, _ := l.told(middle)
	if e.AbsorbedBy == nil || *e.AbsorbedBy != root || e.Revision != 2 || e.Duration != 0 || e.BillSec != 0 || e.From+e.To+e.AnsweredBy != "" {
		t.Errorf("told of the call that is none: %+v", e)
	}
	r, err := l.db.Call(t.Context(), tenantA, middle)
	if err != nil || r.AbsorbedBy != root {
		t.Errorf("asked for by its name: %+v %v", r, err)
	}
	l.want("legs", `SELECT count(*) || ' ' || count(DISTINCT call_id) FROM edgvoip.cdr_legs`, "3 1")
	l.want("what it held", `SELECT count(*) FROM edgvoip.cdr WHERE absorbed_by IS NOT NULL AND (raw <> '{}' OR "from" || "to" || answered_by <> '')`, "0")

	// Nothing more to tell, whatever comes twice.
	before := l.one(`SELECT count(*) FROM edgvoip.webhook_events`)
	for i, d := range f.documents {
		l.keepLeg(f.ids[i], d+" ")
	}
	l.readAll(100)
	l.want("events after duplicates", `SELECT count(*) FROM edgvoip.webhook_events`, before)
}

// However the legs of a call come, in whatever order and however much later than the others, they make the same one
// record; every other call that W3 heard of meanwhile is said to be that one.
func TestLegsInAnyOrder(t *testing.T) {
	t.Parallel()
	for name, parents := range map[string][]int{
		"three in a row": {-1, 0, 1}, "four in a row": {-1, 0, 1, 2}, "two who were called by one": {-1, 0, 1, 1}, "two branches": {-1, 0, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			anyOrder(t, len(parents), func(n string) family { return newFamily(name+n, parents) })
		})
	}
	// A switch's own: a caller who transferred the carrier's leg, which was called over the second trunk, to a
	// colleague.
	t.Run("captured", func(t *testing.T) {
		t.Parallel()
		anyOrder(t, 4, func(n string) family {
			return capturedFamily(t, n, "a-call-that-its-caller-transfers-is-one-recording-")
		})
	})
}

// capturedFamily makes of the documents of a captured call those of another, of tenant-a.
func capturedFamily(t *testing.T, name, prefix string) (f family) {
	t.Helper()
	files, err := filepath.Glob("../../cdr/testdata/captured/" + prefix + "*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v %v", files, err)
	}
	var ids []string
	for i, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := cdr.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, doc.Leg().ID.String(), uuid.NewSHA1(tenantA, fmt.Append(nil, name, i)).String(), doc.Leg().TenantID.String(), tenantA.String())
		f.ids, f.documents = append(f.ids, uuid.MustParse(ids[len(ids)-3])), append(f.documents, string(body))
	}
	for i := range f.documents {
		f.documents[i] = strings.NewReplacer(ids...).Replace(f.documents[i])
	}
	return f
}

// arrival is an order in which the legs of a call come, and after which of them so long a time passes that nobody waits
// any more.
type arrival struct {
	family
	order []int
	late  int // bits
}

func anyOrder(t *testing.T, legs int, call func(name string) family) {
	t.Helper()
	l := newLedger(t)
	var arrivals []arrival
	for _, order := range permutations(legs) {
		for late := range 1 << (legs - 1) {
			arrivals = append(arrivals, arrival{call(fmt.Sprint(order, late)), order, late})
		}
	}
	for step := range legs {
		var late []uuid.UUID
		for _, a := range arrivals {
			i := a.order[step]
			l.keepLeg(a.ids[i], a.documents[i])
			if a.late&(1<<step) != 0 || step == legs-1 {
				late = append(late, a.ids...)
			}
		}
		l.readAll(37)
		l.dueLegs(late...)
		l.readAll(23)
	}
	l.want("documents left", `SELECT count(*) FROM edgvoip.cdr_documents`, "0")
	visible := l.visible()
	if len(visible) != len(arrivals) {
		t.Errorf("%d records of %d calls", len(visible), len(arrivals))
	}
	for _, a := range arrivals {
		root := a.ids[0]
		if diff := cmp.Diff(a.call(t), visible[root].Call); diff != "" {
			t.Errorf("order %v, late %b: %s", a.order, a.late, diff)
		}
		for _, id := range a.ids[1:] {
			if e, ever := l.told(id); ever && (e.AbsorbedBy == nil || *e.AbsorbedBy != root) {
				t.Errorf("order %v, late %b: of another call W3 heard last %+v", a.order, a.late, e)
			}
		}
		if e, ever := l.told(root); !ever || e.AbsorbedBy != nil || e.Revision != visible[root].Revision {
			t.Errorf("order %v, late %b: of the call W3 heard last %+v", a.order, a.late, e)
		}
	}
}

func permutations(n int) (all [][]int) {
	if n == 0 {
		return [][]int{nil}
	}
	for _, p := range permutations(n - 1) {
		for i := range n {
			all = append(all, slices.Insert(slices.Clone(p), i, n-1))
		}
	}
	return all
}

// Several processes read the legs of the same calls at the same time.
func TestAbsorbedByConcurrentReaders(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	var families []family
	for i := range 30 {
		families = append(families, newFamily(fmt.Sprint("concurrent ", i), []int{-1, 0, 1, 2}))
	}
	readers := func() {
		var wg sync.WaitGroup
		for range 4 {
			db, _ := open(t, l.dsn, "edgvoip_api")
			wg.Go(func() {
				for {
					// A deadlock passes, and nothing of the batch is done.
					if got, err := db.ReadDocuments(t.Context(), 2); err == nil && got.Taken == 0 {
						return
					} else if err != nil && !passes(err) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	// First those whom nobody known called: each becomes a call. Then the others, in the two orders.
	for _, f := range families {
		l.keepLeg(f.ids[3], f.documents[3])
	}
	l.due()
	readers()
	for i, f := range families {
		for _, leg := range [][]int{{0, 1, 2}, {2, 1, 0}}[i%2] {
			l.keepLeg(f.ids[leg], f.documents[leg])
		}
	}
	readers()
	l.due()
	readers()
	visible := l.visible()
	for _, f := range families {
		if diff := cmp.Diff(f.call(t), visible[f.ids[0]].Call); diff != "" {
			t.Error(diff)
		}
	}
	if len(visible) != len(families) {
		t.Errorf("%d records of %d calls", len(visible), len(families))
	}
}

// A leg that is read while another process reads the one between its call and the caller goes with the others of its
// call.
func TestLegBesideAbsorption(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	f := newFamily("beside", []int{-1, 0, 1, 2})
	for _, i := range []int{0, 2} {
		l.keepLeg(f.ids[i], f.documents[i])
	}
	l.readAll(100)
	l.due()
	l.readAll(100)
	// Somebody holds the call, and the two come in this order.
	tx, err := l.look.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SELECT pg_advisory_xact_lock(hashtextextended($1, 5))`, f.ids[1].String()); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	for n, i := range []int{1, 3} {
		l.keepLeg(f.ids[i], f.documents[i])
		db, _ := open(t, l.dsn, "edgvoip_api")
		readers.Go(func() {
			if _, err := db.ReadDocuments(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
		waiting := fmt.Sprint(n + 1)
		const wait = `
			SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
		for deadline := time.Now().Add(time.Minute); l.one(wait) != waiting; time.Sleep(time.Millisecond) {
			if t.Failed() || time.Now().After(deadline) {
				t.Fatal("nobody waits")
			}
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	readers.Wait()
	l.due()
	l.readAll(100)
	if diff := cmp.Diff(f.call(t), l.visible()[f.ids[0]].Call); diff != "" {
		t.Error(diff)
	}
	l.want("calls", `SELECT count(DISTINCT call_id) FROM edgvoip.cdr_legs`, "1")
}

// An erased number does not come back with a call that becomes part of another, from whichever side.
func TestErasureOfAbsorbed(t *testing.T) {
	t.Parallel()
	number, err := fstext.NewE164("+393337654321")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"before", "after"} {
		l := newLedger(t)
		path := tenantA.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
		f := newFamily("erased "+name, []int{-1, 0, 1}, "edgvoip_recording", path)
		// The number is on the last leg only.
		f.documents[2] = strings.ReplaceAll(f.documents[2], `"1102"`, `"+393337654321"`)
		l.keepLeg(f.ids[0], f.documents[0])
		l.keepLeg(f.ids[2], f.documents[2])
		l.readAll(100)
		l.dueLegs(f.ids[2])
		l.readAll(100)
		exec1(t, l.look, `UPDATE edgvoip.webhook_events SET state = 'delivered', finished_at = now()`)
		erase := func() {
			if n, err := l.erase(number); err != nil || n != 1 {
				t.Errorf("%s: %d %v", name, n, err)
			}
		}
		if name == "before" {
			erase()
		}
		l.keepLeg(f.ids[1], f.documents[1])
		l.readAll(100)
		if name == "after" {
			erase()
		}
		dump, err := exec.CommandContext(t.Context(), "pg_dump", "--data-only", "--schema=edgvoip", l.dsn).Output()
		if err != nil {
			t.Fatalf("pg_dump: %v", err)
		}
		for line := range strings.SplitSeq(string(dump), "\n") {
			if strings.Contains(line, "3337654321") {
				t.Errorf("%s: the number is in %s", name, line)
			}
		}
		got := l.visible()
		if r := got[f.ids[0]]; len(got) != 1 || !r.Erased || r.RecordingState == cdr.RecordingReady || r.RecordingState == cdr.RecordingExpected {
			t.Errorf("%s: %+v", name, got)
		}
		l.want(name+": recordings that are kept", `SELECT count(*) FROM edgvoip.cdr WHERE recording_path IS NOT NULL AND recording_state <> 'removed'`, "0")
		l.want(name+": recordings whose file is removed", `SELECT count(DISTINCT recording_path) FROM edgvoip.cdr WHERE recording_state = 'removed'`, "1")
	}
}

// The recording of a call that became part of another is that one's; one of its own stays until its time is over.
func TestRecordingOfAbsorbed(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	paths := []string{"", ""}
	for i := range paths {
		paths[i] = tenantA.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
	}
	same := newFamily("same", []int{-1, 0, 1}, "edgvoip_recording", paths[0])
	own := newFamily("own", []int{-1, 0, 1}, "edgvoip_recording", paths[1])
	other := tenantA.String() + "/2026/11/20/" + uuid.NewString() + ".wav"
	own.documents[2] = strings.ReplaceAll(own.documents[2], paths[1], other)
	for _, f := range []family{same, own} {
		l.keepLeg(f.ids[0], f.documents[0])
		l.keepLeg(f.ids[2], f.documents[2])
	}
	l.readAll(100)
	l.due()
	l.readAll(100)
	for _, f := range []family{same, own} {
		l.keepLeg(f.ids[1], f.documents[1])
	}
	l.readAll(100)
	list, err := l.db.Recordings(t.Context(), cdr.RecordingExpected, cdr.Recording{}, 10)
	got := map[string]uuid.UUID{}
	for _, r := range list {
		got[r.Path] = r.CallID
	}
	if want := map[string]uuid.UUID{paths[0]: same.ids[0], paths[1]: own.ids[0], other: own.ids[1]}; err != nil || len(list) != 3 || !cmp.Equal(got, want) {
		t.Fatalf("%v %v", list, err)
	}
	for _, r := range list {
		if err := l.db.RecordingReady(t.Context(), r, "https://api.example/"+r.CallID.String()); err != nil {
			t.Fatal(err)
		}
	}
	if e, _ := l.told(own.ids[1]); e.AbsorbedBy == nil || *e.AbsorbedBy != own.ids[0] || !strings.HasSuffix(e.RecordingURL, own.ids[1].String()) {
		t.Errorf("told of the recording that is its own: %+v", e)
	}
	// A call that goes on keeps what became of its recording.
	if r := l.visible()[same.ids[0]]; r.RecordingState != cdr.RecordingReady {
		t.Errorf("%+v", r)
	}
}

// Retention removes a call that became part of another with its time, and nothing of it is left.
func TestRetentionOfAbsorbed(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	f := newFamily("old", []int{-1, 0, 1})
	l.keepLeg(f.ids[2], f.documents[2])
	l.readAll(100)
	l.due()
	l.readAll(100)
	l.keepLeg(f.ids[1], f.documents[1])
	l.keepLeg(f.ids[0], f.documents[0])
	l.readAll(100)
	if got := l.visible(); len(got) != 1 {
		t.Fatalf("%v", got)
	}
	for _, table := range []string{"cdr", "cdr_legs"} {
		exec1(t, l.look, `UPDATE edgvoip.`+table+` SET start_time = start_time - interval '31 days'`)
	}
	days := 30
	if _, _, err := l.db.ChangeTenant(t.Context(), tenantA, directory.TenantChange{}, cdr.PolicyPatch{CDRDays: &days}, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.db.ExpireCalls(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.want("rows", `SELECT (SELECT count(*) FROM edgvoip.cdr) + (SELECT count(*) FROM edgvoip.cdr_legs)`, "0")
}

// The other call of an attended transfer names the call that goes on.
func TestRelatedToAbsorbed(t *testing.T) {
	t.Parallel()
	source := fmt.Sprintf("%d:%s:uuid_br:", began.Unix()+20, uuid.New())
	f := newFamily("handed on", []int{-1, 0, 1})
	asked := newFamily("asked", []int{-1, 0})
	// The last leg of the one talks to the called leg of the other.
	f.documents[2] = strings.ReplaceAll(f.documents[2], `"variables":{`, `"variables":{"transfer_source":"`+source+asked.ids[1].String()+`",`)
	asked.documents[1] = strings.ReplaceAll(asked.documents[1], `"variables":{`, `"variables":{"transfer_source":"`+source+f.ids[2].String()+`",`)
	all := family{append(slices.Clone(f.ids), asked.ids...), append(slices.Clone(f.documents), asked.documents...)}
	l := newLedger(t)
	for _, order := range [][]int{{0, 2, 3, 4, 1}, {4, 2, 0, 1, 3}, {2, 3, 4, 1, 0}, {4, 3, 0, 1, 2}, {3, 4, 2, 1, 0}} {
		exec1(t, l.look, `TRUNCATE edgvoip.cdr, edgvoip.cdr_legs, edgvoip.webhook_events CASCADE`)
		for _, i := range order {
			l.keepLeg(all.ids[i], all.documents[i])
			l.readAll(100)
			l.due()
			l.readAll(100)
		}
		got := l.visible()
		if len(got) != 2 || got[f.ids[0]].RelatedID != asked.ids[0] || got[asked.ids[0]].RelatedID != f.ids[0] {
			t.Errorf("order %v: %v and %v, want %v and %v", order, got[f.ids[0]].RelatedID, got[asked.ids[0]].RelatedID, asked.ids[0], f.ids[0])
		}
		for _, id := range []uuid.UUID{f.ids[0], asked.ids[0]} {
			if e, _ := l.told(id); e.RelatedCallID == nil || *e.RelatedCallID != got[id].RelatedID || e.Revision != got[id].Revision {
				t.Errorf("order %v: told %+v", order, e)
			}
		}
	}
}

// passes tells whether an error is one that passes.
func passes(err error) bool {
	u, ok := errors.AsType[interface {
		error
		Unavailable() bool
	}](err)
	return ok && u.Unavailable()
}
