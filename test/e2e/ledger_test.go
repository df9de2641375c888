package e2e_test

import (
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
)

// TestLedger is call records whole: what phones, carriers and SIPp say of their calls is in the ledger and at W3, once
// each, whatever was away.
func TestLedger(t *testing.T) {
	bridge := freePort(t)
	var l lines
	s := newScene(t, sceneOptions{
		env: []string{"AI_BRIDGE_ADDR=127.0.0.1:" + strconv.Itoa(bridge)}, prepare: l.addTrunks,
	})
	o := s.newOffice(t)
	newShift := func() *shift {
		return &shift{s: s, begun: time.Now(), bridge: bridge, lines: l, counted: map[string]map[cdr.Disposition]int{}}
	}
	o.start(t)
	installedCredentials(t, s)
	first := newShift()
	whole(t, o, first)
	recordingLinks(t, o, first)
	away(t, o, newShift())
	lost(t, o, newShift())
	witnessed(t, o, newShift())
	t.Run("W3 had each event once, in order", func(t *testing.T) {
		s.begin(t)
		o.w3.expectHonest(t)
	})
}

// installedCredentials shows that the switch posts with what freeswitch-conf/install writes.
func installedCredentials(t *testing.T, s *scene) {
	t.Helper()
	t.Run("install writes what the switch posts records with", func(t *testing.T) {
		s.begin(t)
		conf := filepath.Join(s.dir, "installed")
		s.install(t, conf, "CDR_CREDENTIALS=switch:"+cdrPassword, "CDR_URL="+s.records)
		const file = "secrets/json_cdr.xml"
		want, err := os.ReadFile(filepath.Join(s.dir, "switch", "conf", file))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(conf, file)); err != nil || string(got) != string(want) {
			t.Errorf("install writes %q, %v, and the switch has %q", got, err, want)
		}
	})
}

// calls makes all the calls of a shift.
func (r *shift) calls(t *testing.T) {
	t.Helper()
	t.Run("by SIPp", func(t *testing.T) {
		port := freePort(t)
		r.s.sippRegisters(t, "1002", port)
		r.s.startSIPp(t, sipp{scenario: "answer.xml", remote: r.s.internal, port: port, forever: true})
		r.sipp(t, "load_call.xml", 30, []string{sippUser("1001") + ";1002"}, r.s.internal)
	})
	t.Run("by carriers, SIPp", func(t *testing.T) {
		port := freePort(t)
		r.s.sippRegisters(t, "1000", port)
		r.s.startSIPp(t, sipp{scenario: "answer.xml", remote: r.s.internal, port: port, forever: true})
		r.sipp(t, "load_carrier_call.xml", 12, []string{outsider + ";0612345678"}, r.s.external)
	})
	t.Run("by phones", r.placeCalls)
	if total := r.total(); total < 100 {
		t.Errorf("%d calls", total)
	}
}

func (r *shift) total() int {
	n := len(r.accounts) + r.strangers
	for _, counts := range r.counted {
		for _, count := range counts {
			n += count
		}
	}
	return n
}

// entry is a record as it is in the database.
type entry struct {
	call, sipCallID, tenant string
	from, to                string
	direction               cdr.Direction
	disposition             cdr.Disposition
	answeredBy, handedTo    string
	route, reason           string
	start                   time.Time
	answer, end             sql.NullTime
	duration, billsec       int
	recording               cdr.RecordingState
	revision                int
	reconstructed           bool
}

// entries returns the records of calls that began since a time.
func (s *scene) entries(t *testing.T, since time.Time) []entry {
	t.Helper()
	rows, err := s.db.QueryContext(t.Context(), `SELECT c.call_id, coalesce(c.raw -> 'variables' ->> 'sip_call_id', ''), n.slug, c."from", c."to", c.direction,
			c.disposition, c.answered_by, c.transferred_to, c.route, c.reason, c.start_time, c.answer_time, c.end_time, c.duration, c.billsec,
			c.recording_state, c.revision, c.reconstructed
		FROM edgvoip.cdr c JOIN edgvoip.tenants n ON n.id = c.tenant_id WHERE c.start_time >= $1 ORDER BY c.start_time`, since)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []entry
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.call, &e.sipCallID, &e.tenant, &e.from, &e.to, &e.direction, &e.disposition, &e.answeredBy, &e.handedTo, &e.route, &e.reason,
			&e.start, &e.answer, &e.end, &e.duration, &e.billsec, &e.recording, &e.revision, &e.reconstructed); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// expectRead waits until every document that was posted is read, but for those of strangers, and no channel waits for
// its document: of one that was seen to end while its document was read, that is found out two minutes later, or here
// at once.
func (o *office) expectRead(t *testing.T, strangers int) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		var open, unassigned, unreadable int
		if err := o.s.db.QueryRowContext(t.Context(), `SELECT count(*) FILTER (WHERE state = 'new'), count(*) FILTER (WHERE state = 'unassigned'),
			count(*) FILTER (WHERE state = 'unreadable') FROM edgvoip.cdr_documents`).Scan(&open, &unassigned, &unreadable); err != nil {
			return err
		}
		if open > 0 || unassigned != strangers || unreadable > 0 {
			return fmt.Errorf("%d documents are not read, %d of strangers (want %d), %d unreadable", open, unassigned, strangers, unreadable)
		}
		return nil
	})
	o.s.exec(t, `UPDATE edgvoip.cdr_sightings SET seen_at = seen_at - interval '2 min'`)
	eventually(t, answerTime, func() error {
		var waiting int
		err := o.s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.cdr_sightings`).Scan(&waiting)
		if err == nil && waiting > 0 {
			err = fmt.Errorf("%d channels wait for their documents", waiting)
		}
		return err
	})
}

// expectRecorded fails unless the ledger holds exactly what the shift's accounts say.
func (r *shift) expectRecorded(t *testing.T, reconstructed bool) {
	t.Helper()
	byCall := map[string]entry{}
	counted := map[string]map[cdr.Disposition]int{}
	for prefix := range r.counted {
		counted[prefix] = map[cdr.Disposition]int{}
	}
entries:
	for _, e := range r.s.entries(t, r.begun) {
		if _, twice := byCall[e.sipCallID]; twice || e.reconstructed != reconstructed || e.end.Time.IsZero() || e.duration != int(e.end.Time.Sub(e.start)/time.Second) {
			t.Errorf("twice %t: %+v", twice, e)
		}
		for prefix := range r.counted {
			if strings.HasPrefix(e.sipCallID, prefix) {
				counted[prefix][e.disposition]++
				byCall[e.sipCallID] = e
				continue entries
			}
		}
		byCall[e.sipCallID] = e
	}
	for prefix, want := range r.counted {
		if !maps.Equal(counted[prefix], want) {
			t.Errorf("SIPp counted %v, the ledger %v", want, counted[prefix])
		}
	}
	kinds := map[string]int{}
	for _, a := range r.accounts {
		kinds[a.kind]++
		e, there := byCall[a.callID]
		if !there {
			t.Errorf("%s: no record of %s", a.kind, a.callID)
			continue
		}
		a.compare(t, e)
	}
	if len(byCall) != r.total()-r.strangers {
		t.Errorf("%d records, want %d", len(byCall), r.total()-r.strangers)
	}
	note("%d calls, %d records: %v, by SIPp %v, of strangers %d", r.total(), len(byCall), kinds, slices.Collect(maps.Values(r.counted)), r.strangers)
}

// talkTolerance is how far the switch's count of a call may be from the phone's, on a busy machine.
const talkTolerance = time.Second

// compare fails unless a record says what an account says.
func (a account) compare(t *testing.T, e entry) {
	t.Helper()
	got := account{
		kind: a.kind, callID: e.sipCallID, tenant: e.tenant, from: e.from, to: e.to, direction: e.direction, disposition: e.disposition,
		answeredBy: e.answeredBy, transferredTo: e.handedTo, route: e.route, reason: e.reason, talked: a.talked, recorded: e.recording != cdr.RecordingNone, handed: a.handed,
	}
	if got != a {
		t.Errorf("%s: the record is\n%+v, the account\n%+v", a.kind, got, a)
	}
	if e.answer.Valid != (a.disposition == cdr.Answered) {
		t.Errorf("%s: answered at %v", a.kind, e.answer)
		return
	}
	billed := e.end.Time.Sub(e.answer.Time)
	if !e.answer.Valid {
		billed = 0
	}
	if (billed-a.talked).Abs() > talkTolerance || e.billsec != int(billed/time.Second) {
		t.Errorf("%s: billed %v (%d s), and the phone had the call for %v", a.kind, billed, e.billsec, a.talked)
	}
}

// expectTold waits until W3 knows every record of the shift as it is, and fails if it was told more than there was to
// tell. Records that came in pieces may have been told in pieces.
func (r *shift) expectTold(t *testing.T, o *office, pieces bool) {
	t.Helper()
	var told map[string][]cdr.Event
	all := r.s.entries(t, r.begun)
	eventually(t, 30*time.Second, func() error {
		told, all = o.w3.calls(t), r.s.entries(t, r.begun)
		for _, e := range all {
			events := told[e.call]
			if len(events) == 0 || events[len(events)-1].Revision != e.revision {
				return fmt.Errorf("W3 had %d events of call %s, revision %d", len(events), e.call, e.revision)
			}
			if e.recording == cdr.RecordingExpected {
				return fmt.Errorf("the recording of call %s is not there", e.call)
			}
		}
		return nil
	})
	handed := map[string]bool{}
	for _, a := range r.accounts {
		handed[a.callID] = a.handed
	}
	events := 0
	for _, e := range all {
		list := told[e.call]
		events += len(list)
		e.expectEvent(t, list[len(list)-1])
		most := 1
		if e.recording == cdr.RecordingReady {
			most++
		}
		if handed[e.sipCallID] || pieces {
			most++
		}
		if len(list) > most || !slices.IsSortedFunc(list, func(a, b cdr.Event) int { return a.Revision - b.Revision }) {
			t.Errorf("W3 was told of %s %d times: %+v", e.call, len(list), list)
		}
	}
	note("W3 had %d events of %d calls", events, len(all))
}

// expectEvent fails unless W3 was told what the record says.
func (e entry) expectEvent(t *testing.T, told cdr.Event) {
	t.Helper()
	got := entry{
		call: told.CallID.String(), sipCallID: e.sipCallID, tenant: e.tenant, from: told.From, to: told.To, direction: cdr.Direction(told.Direction),
		disposition: cdr.Disposition(told.Disposition), answeredBy: told.AnsweredBy, handedTo: told.TransferredTo, route: told.Route, reason: told.Reason,
		start: told.StartTime, duration: told.Duration, billsec: told.BillSec, recording: e.recording, revision: told.Revision, reconstructed: told.Reconstructed,
		answer: e.answer, end: e.end,
	}
	if !got.start.Equal(e.start) {
		t.Errorf("W3 was told that %s began at %v, not %v", e.call, got.start, e.start)
	}
	got.start = e.start
	if got != e || (told.RecordingURL != "") != (e.recording == cdr.RecordingReady) {
		t.Errorf("W3 was told\n%+v of\n%+v", told, e)
	}
}

const reconstructedLegs = "edgvoip_cdr_reconstructed_total"

func whole(t *testing.T, o *office, r *shift) {
	t.Helper()
	t.Run("100 calls of many kinds are 100 records, here and at W3", func(t *testing.T) {
		o.s.begin(t)
		r.calls(t)
		o.expectRead(t, r.strangers)
		r.expectRecorded(t, false)
		o.expectMetric(t, reconstructedLegs, "0")
		r.expectTold(t, o, false)
	})
}

// away is the same with nobody there to take records, and a switch that dies before they can be sent.
func away(t *testing.T, o *office, r *shift) {
	t.Helper()
	suite := t // what is started here outlives its case
	t.Run("100 calls while integration-api is away and the switch is killed: after the sweep 100 records", func(t *testing.T) {
		o.s.begin(t)
		o.discardStrangers(t)
		o.process.stop()
		r.calls(t)
		o.s.killFreeSWITCH(t)
		o.s.startFreeSWITCH(suite)
		spooled := len(o.s.spooled(t))
		o.start(suite)
		if got, want := o.sweep(t), fmt.Sprintf("%d sent, 0 kept", spooled); got != want || spooled < r.total() {
			t.Errorf("the sweep says %q, want %q", got, want)
		}
		if got := o.sweep(t); got != "0 sent, 0 kept" {
			t.Errorf("the next sweep says %q", got)
		}
		o.expectRead(t, r.strangers)
		r.expectRecorded(t, false)
		r.expectTold(t, o, true)
	})
}

// discardStrangers removes the documents that wait for an operator.
func (o *office) discardStrangers(t *testing.T) {
	t.Helper()
	for line := range strings.Lines(o.command(t, "cdr", "documents", "-state", "unassigned")) {
		if id, _, _ := strings.Cut(line, " "); id != "ID" {
			o.command(t, "cdr", "discard", id)
		}
	}
}

func (o *office) sweep(t *testing.T) string {
	t.Helper()
	return o.command(t, "cdr", "sweep", o.s.spoolDir(), "-age", "0s")
}

func (s *scene) spoolDir() string { return filepath.Join(s.dir, "switch", "storage", "cdr-spool") }

// spooled returns the files of records that the switch has kept.
func (s *scene) spooled(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.spoolDir(), "*.cdr.json"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func (s *scene) killFreeSWITCH(t *testing.T) {
	t.Helper()
	s.esl.close()
	s.esl = nil
	if err := s.freeswitch.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.freeswitch.done
}
