package postgres_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/webhook"
)

// eventsScene returns a scene whose tenant-a has an endpoint, in the role of the API.
func eventsScene(t testing.TB) (db *postgres.DB, look *sql.DB, tenant uuid.UUID) {
	t.Helper()
	dsn, look := scene(t)
	db, _ = open(t, dsn, "edgvoip_api")
	tenant = storetest.TenantID("tenant-a")
	url := "https://w3.example"
	if _, err := webhook.NewProvisioner(db, false).Put(t.Context(), tenant, webhook.Change{BaseURL: &url}, "test"); err != nil {
		t.Fatal(err)
	}
	return db, look, tenant
}

// event is an event of a subject.
func event(tenant uuid.UUID, subject, payload string) webhook.Event {
	return webhook.Event{TenantID: tenant, Key: uuid.New(), Kind: webhook.CDR, Subject: uuid.NewSHA1(uuid.Nil, []byte(subject)), Payload: []byte(payload)}
}

func addEvent(t testing.TB, db *postgres.DB, e webhook.Event) {
	t.Helper()
	if err := db.AddEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func claimEvents(t testing.TB, db *postgres.DB, tenant uuid.UUID, limit int) []webhook.Delivery {
	t.Helper()
	claimed, err := db.ClaimEvents(t.Context(), tenant, limit, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return claimed
}

// payloads are the bodies of claimed events, in any order of subjects.
func payloads(events []webhook.Delivery) map[string]bool {
	all := map[string]bool{}
	for _, e := range events {
		all[string(e.Payload)] = true
	}
	return all
}

func attempt(d webhook.Delivery, status int, reason string) webhook.Attempt {
	return webhook.Attempt{Number: d.Attempts, At: time.Now(), Duration: 12 * time.Millisecond, Status: status, Error: reason}
}

// Of a subject only the oldest open event can be claimed; when it ends, in whatever way, the next can.
func TestEventsInOrder(t *testing.T) {
	t.Parallel()
	db, _, tenant := eventsScene(t)
	for _, n := range []string{"1", "2", "3"} {
		addEvent(t, db, event(tenant, "x", "x"+n))
		addEvent(t, db, event(tenant, "y", "y"+n))
	}
	first := claimEvents(t, db, tenant, 10)
	if got := payloads(first); len(got) != 2 || !got["x1"] || !got["y1"] {
		t.Fatalf("claimed %v", got)
	}
	if again := claimEvents(t, db, tenant, 10); len(again) != 0 {
		t.Errorf("claimed once more: %v", payloads(again))
	}
	x, y := first[0], first[1]
	if string(x.Payload) != "x1" {
		x, y = y, x
	}
	if err := db.DeliverEvent(t.Context(), x, attempt(x, 200, "")); err != nil {
		t.Fatal(err)
	}
	if err := db.RetryEvent(t.Context(), y, attempt(y, 500, "answered 500"), 0); err != nil {
		t.Fatal(err)
	}
	second := claimEvents(t, db, tenant, 10)
	if got := payloads(second); len(got) != 2 || !got["x2"] || !got["y1"] {
		t.Fatalf("claimed %v", got)
	}
	for _, d := range second {
		if err := db.BuryEvent(t.Context(), d, attempt(d, 0, "no answer in time")); err != nil {
			t.Fatal(err)
		}
	}
	if got := payloads(claimEvents(t, db, tenant, 1)); len(got) != 1 {
		t.Errorf("claimed %v, want one", got)
	}
	got, attempts, err := db.EventAttempts(t.Context(), tenant, y.ID)
	if err != nil || got.State != webhook.Dead || got.Attempts != 2 || got.LastError != "no answer in time" || got.FirstAttemptAt.IsZero() || got.FinishedAt.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if len(attempts) != 2 || attempts[0].Number != 1 || attempts[0].Status != 500 || attempts[0].Duration != 12*time.Millisecond || attempts[1].Status != 0 ||
		attempts[1].Error != "no answer in time" {
		t.Errorf("%+v", attempts)
	}
}

// Whoever's lease has run out cannot end the claim that somebody else holds.
func TestEventLease(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	addEvent(t, db, event(tenant, "x", "x"))
	old := claimEvents(t, db, tenant, 1)[0]
	exec1(t, look, `UPDATE edgvoip.webhook_events SET due_at = now()`)
	current := claimEvents(t, db, tenant, 1)[0]
	if current.ID != old.ID || current.Key != old.Key || current.Attempts != 2 || !current.FirstAttemptAt.Equal(old.FirstAttemptAt) {
		t.Errorf("%+v, then %+v", old, current)
	}
	for what, err := range map[string]error{
		"deliver": db.DeliverEvent(t.Context(), old, attempt(old, 200, "")), "bury": db.BuryEvent(t.Context(), old, attempt(old, 0, "x")),
		"retry": db.RetryEvent(t.Context(), old, attempt(old, 0, "x"), 0),
	} {
		if !errors.Is(err, webhook.ErrLeaseLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := db.DeliverEvent(t.Context(), current, attempt(current, 204, "")); err != nil {
		t.Error(err)
	}
	if err := db.DeliverEvent(t.Context(), current, attempt(current, 204, "")); !errors.Is(err, webhook.ErrLeaseLost) {
		t.Errorf("delivered twice: %v", err)
	}
}

// An event that waits for what may complete it is not due, and takes its last payload; one that was tried does not.
func TestReplacePendingEvent(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	e := event(tenant, "x", "first")
	e.Delay = time.Hour
	addEvent(t, db, e)
	if claimed := claimEvents(t, db, tenant, 1); len(claimed) != 0 {
		t.Fatalf("claimed before its time: %v", payloads(claimed))
	}
	replace := func(subject uuid.UUID, kind webhook.Kind, payload string, want bool) {
		t.Helper()
		got, err := db.ReplacePendingEvent(t.Context(), tenant, subject, kind, []byte(payload))
		if err != nil || got != want {
			t.Errorf("replaced by %s: %v, %v, want %v", payload, got, err, want)
		}
	}
	replace(e.Subject, webhook.CDR, "second", true)
	replace(e.Subject, webhook.TrunkCreated, "of another kind", false)
	replace(uuid.New(), webhook.CDR, "of another subject", false)
	exec1(t, look, `UPDATE edgvoip.webhook_events SET due_at = now()`)
	claimed := claimEvents(t, db, tenant, 1)
	if len(claimed) != 1 || string(claimed[0].Payload) != "second" || claimed[0].Key != e.Key {
		t.Fatalf("%+v", claimed)
	}
	replace(e.Subject, webhook.CDR, "while it is sent", false)
	if err := db.RetryEvent(t.Context(), claimed[0], attempt(claimed[0], 500, "x"), 0); err != nil {
		t.Fatal(err)
	}
	replace(e.Subject, webhook.CDR, "after it was tried", false)
	addEvent(t, db, event(tenant, "x", "third"))
	replace(e.Subject, webhook.CDR, "fourth", true)
	var first, last string
	if err := look.QueryRowContext(t.Context(), `SELECT min(payload), max(payload) FROM edgvoip.webhook_events`).Scan(&first, &last); err != nil || first != "fourth" || last != "second" {
		t.Errorf("%s, %s, %v", first, last, err)
	}
}

// What was given up is listed, made due again under its key, behind what is open of its subject, or given up for good;
// and all that is audited.
func TestDeadEvents(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	for n := range 3 {
		addEvent(t, db, event(tenant, "x", fmt.Sprint("x", n)))
	}
	addEvent(t, db, event(storetest.TenantID("tenant-b"), "x", "of another tenant"))
	var dead []webhook.Delivery
	for range 3 {
		d := claimEvents(t, db, tenant, 1)[0]
		if err := db.BuryEvent(t.Context(), d, attempt(d, 410, "answered 410")); err != nil {
			t.Fatal(err)
		}
		dead = append(dead, d)
	}
	list := func(f webhook.Filter) (found string) {
		t.Helper()
		f.Limit = 10
		events, err := db.Events(t.Context(), tenant, f)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			found += string(e.Payload) + " "
		}
		return found
	}
	if got := list(webhook.Filter{State: webhook.Dead}); got != "x2 x1 x0 " {
		t.Errorf("dead: %s", got)
	}
	if got := list(webhook.Filter{BeforeID: dead[1].ID}); got != "x0 " {
		t.Errorf("before the second: %s", got)
	}
	if err := db.DiscardEvent(t.Context(), tenant, dead[1].ID, "anna"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"discard again": db.DiscardEvent(t.Context(), tenant, dead[1].ID, "anna"), "replay of the discarded": db.ReplayEvent(t.Context(), tenant, dead[1].ID, "anna"),
	} {
		if !errors.Is(err, webhook.ErrNotDead) {
			t.Errorf("%s: %v", what, err)
		}
	}
	other := storetest.TenantID("tenant-b")
	for what, err := range map[string]error{
		"discard by another tenant": db.DiscardEvent(t.Context(), other, dead[0].ID, "anna"), "replay by another": db.ReplayEvent(t.Context(), other, dead[0].ID, "anna"),
		"replay of none": db.ReplayEvent(t.Context(), tenant, 1<<60, "anna"),
	} {
		if !errors.Is(err, webhook.ErrUnknownEvent) {
			t.Errorf("%s: %v", what, err)
		}
	}
	addEvent(t, db, event(tenant, "x", "x3"))
	if err := db.ReplayEvent(t.Context(), tenant, dead[2].ID, "anna"); err != nil {
		t.Fatal(err)
	}
	if n, err := db.ReplayEvents(t.Context(), tenant, nil, "anna"); err != nil || n != 1 {
		t.Errorf("replayed %d, %v", n, err)
	}
	// What was open is first; then those that were replayed, in order of number.
	for _, want := range []string{"x3", "x0", "x2"} {
		d := claimEvents(t, db, tenant, 10)
		if len(d) != 1 || string(d[0].Payload) != want {
			t.Fatalf("claimed %v, want %s", payloads(d), want)
		}
		if want != "x3" && (d[0].Attempts != 2 || time.Since(d[0].FirstAttemptAt) > time.Minute) {
			t.Errorf("%s: %d attempts since %v", want, d[0].Attempts, d[0].FirstAttemptAt)
		}
		if err := db.DeliverEvent(t.Context(), d[0], attempt(d[0], 200, "")); err != nil {
			t.Fatal(err)
		}
	}
	var actions string
	if err := look.QueryRowContext(t.Context(), `SELECT string_agg(action, ' ' ORDER BY id) FROM edgvoip.audit_log WHERE actor = 'anna'`).Scan(&actions); err != nil ||
		actions != "webhook_event.discarded webhook_events.replayed webhook_events.replayed" {
		t.Errorf("audited %s, %v", actions, err)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	p := webhook.NewProvisioner(db, false)
	url, no := "https://w3.example", false
	before, err := db.Endpoint(t.Context(), tenant)
	if err != nil || before.BaseURL.String() != url || !before.Active || before.CreatedAt.IsZero() {
		t.Fatalf("%+v, %v", before, err)
	}
	if same, err := p.Put(t.Context(), tenant, webhook.Change{BaseURL: &url}, "anna"); err != nil || same != before {
		t.Errorf("the same again: %+v, %v", same, err)
	}
	addEvent(t, db, event(tenant, "x", "x"))
	receivers := func(want int) {
		t.Helper()
		if found, err := db.DueReceivers(t.Context()); err != nil || len(found) != want {
			t.Errorf("%+v, %v, want %d", found, err, want)
		}
	}
	receivers(1)
	if paused, err := p.Put(t.Context(), tenant, webhook.Change{Active: &no}, "anna"); err != nil || paused.Active {
		t.Errorf("%+v, %v", paused, err)
	}
	receivers(0)
	if claimed := claimEvents(t, db, tenant, 1); len(claimed) != 0 {
		t.Errorf("claimed from a paused endpoint: %v", payloads(claimed))
	}
	// What was tried before the pause has its whole patience again, and is due.
	exec1(t, look, `UPDATE edgvoip.webhook_events SET attempts = 1, first_attempt_at = now() - interval '73 hours', due_at = now() + interval '1 hour'`)
	yes := true
	if _, err := p.Put(t.Context(), tenant, webhook.Change{Active: &yes}, "bert"); err != nil {
		t.Error(err)
	}
	if claimed := claimEvents(t, db, tenant, 1); len(claimed) != 1 || time.Since(claimed[0].FirstAttemptAt) > time.Hour {
		t.Errorf("after the pause: %+v", claimed)
	}
	if _, err := p.Put(t.Context(), tenant, webhook.Change{Active: &no}, "bert"); err != nil {
		t.Error(err)
	}
	if _, err := p.Put(t.Context(), uuid.New(), webhook.Change{BaseURL: &url}, "anna"); !errors.Is(err, directory.ErrUnknownTenant) {
		t.Errorf("unknown tenant: %v", err)
	}
	if err := db.RemoveEndpoint(t.Context(), tenant, "anna"); err != nil {
		t.Error(err)
	}
	if err := db.RemoveEndpoint(t.Context(), tenant, "anna"); !errors.Is(err, webhook.ErrNoEndpoint) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := db.Endpoint(t.Context(), tenant); !errors.Is(err, webhook.ErrNoEndpoint) {
		t.Errorf("read after it was removed: %v", err)
	}
	receivers(0)
	var audited string
	if err := look.QueryRowContext(t.Context(), `SELECT string_agg(action || coalesce(before ->> 'status', '') || coalesce(after ->> 'status', ''), ' ' ORDER BY id)
		FROM edgvoip.audit_log WHERE tenant_id = $1 AND actor = 'anna'`, tenant).Scan(&audited); err != nil ||
		audited != "webhook_endpoint.updatedactivepaused webhook_endpoint.removedpaused" {
		t.Errorf("audited %s, %v", audited, err)
	}
	// A row that was written around the API is left out, and read by nobody.
	exec1(t, look, `INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url) VALUES ($1, 'gopher://w3.example')`, tenant)
	receivers(0)
	if _, err := db.Endpoint(t.Context(), tenant); err == nil || strings.Contains(err.Error(), "gopher") {
		t.Errorf("%v", err)
	}
}

// What was delivered or discarded a week ago is removed with its attempts; what is open or dead stays.
func TestPruneEvents(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	n := 2*postgres.PruneBatch + 7
	exec1(t, look, `INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, state, finished_at)
		SELECT $1, gen_random_uuid(), 'cdr', gen_random_uuid(), '{}', 'delivered', now() - interval '8 days' FROM generate_series(1, $2::int)`, tenant, n)
	exec1(t, look, `INSERT INTO edgvoip.webhook_attempts (tenant_id, event_id, attempt, duration_ms) SELECT tenant_id, id, 1, 5 FROM edgvoip.webhook_events LIMIT 10`)
	for state, days := range map[string]int{"discarded": 8, "delivered": 6, "dead": 400} {
		exec1(t, look, `INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, state, finished_at)
			VALUES ($1, gen_random_uuid(), 'cdr', gen_random_uuid(), '{}', $2, now() - make_interval(days => $3))`, tenant, state, days)
	}
	addEvent(t, db, event(tenant, "x", "x"))
	exec1(t, look, `UPDATE edgvoip.webhook_events SET created_at = now() - interval '1 year'`)
	if removed, err := db.PruneEvents(t.Context(), 7*24*time.Hour); err != nil || removed != n+1 {
		t.Errorf("removed %d, %v, want %d", removed, err, n+1)
	}
	var left string
	if err := look.QueryRowContext(t.Context(), `SELECT string_agg(state, ' ' ORDER BY state) || (SELECT count(*) FROM edgvoip.webhook_attempts) FROM edgvoip.webhook_events`).Scan(&left); err != nil ||
		left != "dead delivered pending0" {
		t.Errorf("left %s, %v", left, err)
	}
}

// What has waited a month for an endpoint is discarded, however many events a subject has; what is younger waits on.
func TestEventsWithoutEndpoint(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	for range 3 {
		addEvent(t, db, event(tenant, "old", "x"))
	}
	exec1(t, look, `UPDATE edgvoip.webhook_events SET created_at = now() - interval '31 days'`)
	addEvent(t, db, event(tenant, "old", "x"))
	addEvent(t, db, event(tenant, "young", "x"))
	states := func() (text string) {
		if err := look.QueryRowContext(t.Context(), `SELECT string_agg(state || CASE WHEN front THEN '!' ELSE '' END, ' ' ORDER BY id)
			FROM edgvoip.webhook_events`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	if _, err := db.PruneEvents(t.Context(), 7*24*time.Hour); err != nil || states() != "pending! pending pending pending pending!" {
		t.Errorf("with an endpoint: %s, %v", states(), err)
	}
	exec1(t, look, `DELETE FROM edgvoip.webhook_endpoints`)
	if _, err := db.PruneEvents(t.Context(), 7*24*time.Hour); err != nil || !strings.HasSuffix(states(), " pending! pending!") || strings.Count(states(), "discarded") != 3 {
		t.Errorf("without: %s, %v", states(), err)
	}
}

func TestEventBacklogs(t *testing.T) {
	t.Parallel()
	db, look, tenant := eventsScene(t)
	for n := range 3 {
		addEvent(t, db, event(tenant, fmt.Sprint(n), "x"))
	}
	d := claimEvents(t, db, tenant, 1)[0]
	if err := db.BuryEvent(t.Context(), d, attempt(d, 0, "x")); err != nil {
		t.Fatal(err)
	}
	exec1(t, look, `UPDATE edgvoip.webhook_events SET created_at = now() - interval '1 hour'`)
	got, err := db.EventBacklogs(t.Context())
	if err != nil || len(got) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if b := got[0]; b.Slug != "tenant-a" || b.Pending != 2 || b.Dead != 1 || time.Since(b.Oldest).Round(time.Minute) != time.Hour {
		t.Errorf("%+v", b)
	}
}

// fillEvents writes pending events, in one go and without the triggers that work row by row, of many subjects with two
// each.
func fillEvents(t testing.TB, look *sql.DB, tenant uuid.UUID, n int) {
	t.Helper()
	exec1(t, look, `ALTER TABLE edgvoip.webhook_events DISABLE TRIGGER line_up`)
	exec1(t, look, `INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, front, due_at)
		SELECT $1, gen_random_uuid(), 'cdr', md5((n / 2)::text)::uuid, '{}', n % 2 = 0, now() - interval '1 hour' + n * interval '1 ms' FROM generate_series(0, $2::int - 1) n`, tenant, n)
	exec1(t, look, `ALTER TABLE edgvoip.webhook_events ENABLE TRIGGER line_up`)
	exec1(t, look, `VACUUM ANALYZE edgvoip.webhook_events`)
}

// plan is the part of an explained plan that says what was read.
type plan struct {
	Type    string  `json:"Node Type"`
	Actual  float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []plan  `json:"Plans"`
}

// read is the largest number of rows that a node of a plan has looked at.
func (p plan) read() float64 {
	most := (p.Actual + p.Removed) * p.Loops
	for _, child := range p.Plans {
		most = max(most, child.read())
	}
	return most
}

// What a claim and the search for tenants read does not grow with what waits, also with the plan that a prepared
// statement ends up with.
func TestClaimReadsLittle(t *testing.T) {
	t.Parallel()
	_, look, tenant := eventsScene(t)
	fillEvents(t, look, tenant, 50_000)
	for name, query := range map[string]string{
		"claim":     strings.NewReplacer("$1", "'"+tenant.String()+"'", "$2", "8", "$3", "30").Replace(postgres.ClaimEventsQuery),
		"receivers": postgres.ReceiversQuery,
	} {
		var text string
		if err := look.QueryRowContext(t.Context(), `EXPLAIN (ANALYZE, FORMAT JSON) `+query).Scan(&text); err != nil {
			t.Fatal(err)
		}
		var plans []struct{ Plan plan }
		if err := json.Unmarshal([]byte(text), &plans); err != nil {
			t.Fatal(err)
		}
		if n := plans[0].Plan.read(); n > 100 {
			t.Errorf("%s: a node of the plan reads %v rows:\n%s", name, n, text)
		}
	}
	// The generic plan.
	conn, err := look.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, statement := range []string{`SET plan_cache_mode = force_generic_plan`, `PREPARE claim (uuid, bigint, double precision) AS ` + postgres.ClaimEventsQuery} {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	var text string
	if err := conn.QueryRowContext(context.WithoutCancel(t.Context()), `EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE claim ('`+tenant.String()+`', 8, 30)`).Scan(&text); err != nil {
		t.Fatal(err)
	}
	var plans []struct{ Plan plan }
	if err := json.Unmarshal([]byte(text), &plans); err != nil {
		t.Fatal(err)
	}
	if n := plans[0].Plan.read(); n > 100 {
		t.Errorf("a node of the generic plan reads %v rows:\n%s", n, text)
	}
}

// What it takes to claim an event and to deliver it, with nothing else that waits and with a million: the second may
// take no more than one and a half times the first.
func BenchmarkClaim(b *testing.B) {
	for _, waiting := range []int{0, 1_000_000} {
		b.Run(fmt.Sprintf("waiting=%d", waiting), func(b *testing.B) {
			db, look, tenant := eventsScene(b)
			fillEvents(b, look, tenant, waiting)
			for b.Loop() {
				b.StopTimer()
				addEvent(b, db, event(tenant, uuid.NewString(), "{}"))
				b.StartTimer()
				claimed, err := db.ClaimEvents(b.Context(), tenant, 1, time.Minute)
				if err != nil || len(claimed) != 1 {
					b.Fatalf("claimed %d, %v", len(claimed), err)
				}
				if err := db.DeliverEvent(b.Context(), claimed[0], attempt(claimed[0], 200, "")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
