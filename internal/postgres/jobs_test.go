package postgres_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// addNode adds a switch and returns it.
func addNode(t *testing.T, db *postgres.DB, name string) node.Node {
	t.Helper()
	n, err := node.NewProvisioner(db, storetest.Keys()).Put(t.Context(), node.Spec{Name: name, Address: "127.0.0.1:8021", Password: "event-socket"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fleet returns a scene with switches, in the role of the API.
func fleet(t *testing.T, names ...string) (db *postgres.DB, look *sql.DB, nodes []node.Node) {
	t.Helper()
	dsn, look := scene(t)
	db, _ = open(t, dsn, "edgvoip_api")
	for _, name := range names {
		nodes = append(nodes, addNode(t, db, name))
	}
	return db, look, nodes
}

func suspend(t *testing.T, look *sql.DB, number string) {
	t.Helper()
	exec1(t, look, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE id = $1`, storetest.ExtensionID("tenant-a.example", number))
}

func claim(t *testing.T, db *postgres.DB, n node.Node, lease time.Duration) node.Job {
	t.Helper()
	j, err := db.ClaimJob(t.Context(), n.ID, lease)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func noJob(t *testing.T, db *postgres.DB, n node.Node) {
	t.Helper()
	if j, err := db.ClaimJob(t.Context(), n.ID, time.Minute); !errors.Is(err, node.ErrNoJob) {
		t.Errorf("claimed %+v, %v, want none", j, err)
	}
}

// A change is a job for each switch, which ends where the switch obeys; for one that is disabled it waits.
func TestJobOfAChange(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1", "fs2", "fs3")
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET status = 'disabled' WHERE name = 'fs3'`)
	tx, err := look.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	anna := storetest.ExtensionID("tenant-a.example", "1003")
	for _, query := range []string{
		`SELECT set_config('edgvoip.correlation_id', 'request-1', true)`,
		`UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE id = '` + anna.String() + `'`,
	} {
		if _, err := tx.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	noJob(t, db, nodes[0])
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	j := claim(t, db, nodes[0], time.Minute)
	task, err := j.Task()
	want := node.User{
		Realm: storetest.Realm("tenant-a.example"), Number: storetest.Number("1003"), Username: storetest.Username("Anna.Rossi"), Revoked: true,
	}
	if err != nil || task != want || j.Subject != anna.String() || j.TenantID != storetest.TenantID("tenant-a") || j.CorrelationID != "request-1" || j.Attempts != 1 {
		t.Errorf("%+v with %+v, %v", j, task, err)
	}
	noJob(t, db, nodes[0]) // it is leased
	states := func(want ...node.Progress) {
		t.Helper()
		got, err := db.Convergence(t.Context(), j.TenantID, j.Subject)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if got[i].Since.IsZero() {
				t.Errorf("%s: since %v", got[i].Node, got[i].Since)
			}
			got[i].Since = time.Time{}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	waits := node.Progress{Node: "fs3", State: node.Pending}
	states(node.Progress{Node: "fs1", Active: true, State: node.Pending}, node.Progress{Node: "fs2", Active: true, State: node.Pending}, waits)
	other := claim(t, db, nodes[1], time.Minute)
	if err := db.RetryJob(t.Context(), other, time.Hour, "no such profile.\x00"+strings.Repeat("é", 300)); err != nil {
		t.Fatal(err)
	}
	noJob(t, db, nodes[1])
	again, _ := node.SecondRound(task)
	second, err := j.Settled(again)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.FinishJob(t.Context(), j, &second, 0); err != nil {
		t.Fatal(err)
	}
	failed := "no such profile." + strings.Repeat("é", 241) + "?"
	states(node.Progress{Node: "fs1", Active: true, State: node.Pending}, node.Progress{Node: "fs2", Active: true, State: node.Pending, LastError: failed}, waits)
	settle := claim(t, db, nodes[0], time.Minute)
	if task, err := settle.Task(); err != nil || !task.(node.User).Settle || settle.CorrelationID != "request-1" {
		t.Errorf("second round: %+v, %v", task, err)
	}
	if err := db.FinishJob(t.Context(), settle, nil, 0); err != nil {
		t.Fatal(err)
	}
	states(node.Progress{Node: "fs1", Active: true, State: node.Done}, node.Progress{Node: "fs2", Active: true, State: node.Pending, LastError: failed}, waits)
	noJob(t, db, nodes[0])
}

// Whoever lost his lease can do no more about the job, and who has it is not disturbed.
func TestLease(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1")
	suspend(t, look, "1001")
	lost := claim(t, db, nodes[0], 0)
	// The worker has died; to the database its lease is over at once.
	held := claim(t, db, nodes[0], time.Minute)
	if held.ID != lost.ID || held.Attempts != 2 {
		t.Errorf("claimed %+v after %+v", held, lost)
	}
	for name, end := range map[string]func() error{
		"finish": func() error { return db.FinishJob(t.Context(), lost, &lost, 0) },
		"retry":  func() error { return db.RetryJob(t.Context(), lost, 0, "x") },
		"bury":   func() error { return db.BuryJob(t.Context(), lost, "x") },
	} {
		if err := end(); !errors.Is(err, node.ErrLeaseLost) {
			t.Errorf("%s with a lost lease: %v", name, err)
		}
	}
	if err := db.FinishJob(t.Context(), held, nil, 0); err != nil {
		t.Error(err)
	}
	if err := db.FinishJob(t.Context(), held, nil, 0); !errors.Is(err, node.ErrLeaseLost) {
		t.Errorf("finished twice: %v", err)
	}
	noJob(t, db, nodes[0])
}

// A job that was given up stays until an operator replays it.
func TestDeadJobs(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1", "fs2")
	suspend(t, look, "1001")
	suspend(t, look, "1002")
	var dead []int64
	for range 2 {
		j := claim(t, db, nodes[0], time.Minute)
		if err := db.BuryJob(t.Context(), j, "hopeless"); err != nil {
			t.Fatal(err)
		}
		dead = append(dead, j.ID)
	}
	noJob(t, db, nodes[0])
	progress, err := db.Convergence(t.Context(), storetest.TenantID("tenant-a"), storetest.ExtensionID("tenant-a.example", "1001").String())
	if err != nil || progress[0].State != node.Dead || progress[0].LastError != "hopeless" {
		t.Errorf("%+v, %v", progress, err)
	}
	ids := func(f node.Filter) (found []int64) {
		t.Helper()
		jobs, err := db.Jobs(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for _, j := range jobs {
			found = append(found, j.ID)
		}
		return found
	}
	if diff := cmp.Diff(dead, ids(node.Filter{Node: "fs1"})); diff != "" {
		t.Error(diff)
	}
	if got := ids(node.Filter{}); len(got) != 4 {
		t.Errorf("jobs that are not done: %v", got)
	}
	if got := ids(node.Filter{States: []node.State{node.Dead}, Limit: 1}); len(got) != 1 || got[0] != dead[0] {
		t.Errorf("dead jobs, one: %v", got)
	}
	backlogs, err := db.Backlogs(t.Context())
	if err != nil || len(backlogs) != 2 {
		t.Fatal(backlogs, err)
	}
	for _, b := range backlogs {
		if first := b.NodeID == nodes[0].ID; first != (b.Dead == 2) || first != (b.Pending == 0) || first != b.Oldest.IsZero() {
			t.Errorf("%+v", b)
		}
	}
	for _, tc := range []struct {
		node string
		ids  []int64
		want int
	}{{"fs2", nil, 0}, {"fs2", dead, 0}, {"", dead[1:], 1}, {"fs1", nil, 1}, {"", nil, 0}} {
		if n, err := db.ReplayJobs(t.Context(), tc.node, tc.ids, "test"); err != nil || n != tc.want {
			t.Errorf("replay of %q %v: %d, %v", tc.node, tc.ids, n, err)
		}
	}
	for _, id := range dead {
		if j := claim(t, db, nodes[0], time.Minute); j.ID != id || j.Attempts != 1 || j.LastError != "hopeless" {
			t.Errorf("claimed %+v, want %d", j, id)
		}
	}
	var audits int
	if err := look.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'node.jobs_replayed' AND subject_id = $1`, nodes[0].ID).Scan(&audits); err != nil || audits != 2 {
		t.Errorf("%d audit rows, %v", audits, err)
	}
}

func TestPruneJobs(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1")
	for _, number := range []string{"1000", "1001", "1002"} {
		suspend(t, look, number)
	}
	for range 2 {
		if err := db.FinishJob(t.Context(), claim(t, db, nodes[0], time.Minute), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	exec1(t, look, `UPDATE edgvoip.jobs SET finished_at = now() - interval '8 days' WHERE id = (SELECT min(id) FROM edgvoip.jobs)`)
	// More than go at a time, and some that were given up, of which not all are old enough.
	const add = `
		INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, state, finished_at)
		SELECT $1, $2, 'switch.user', 'x', '{}', $3, now() - make_interval(days => $4) FROM generate_series(1, $5)`
	tenant := storetest.TenantID("tenant-a")
	exec1(t, look, add, tenant, nodes[0].ID, "done", 8, postgres.PruneBatch)
	exec1(t, look, add, tenant, nodes[0].ID, "dead", 31, 3)
	exec1(t, look, add, tenant, nodes[0].ID, "dead", 29, 2)
	if n, err := db.PruneJobs(t.Context(), 7*24*time.Hour, 30*24*time.Hour); n != postgres.PruneBatch+4 || err != nil {
		t.Errorf("pruned %d, %v", n, err)
	}
	if dead, err := db.Jobs(t.Context(), node.Filter{States: []node.State{node.Dead}}); err != nil || len(dead) != 2 {
		t.Errorf("left of the dead %+v, %v", dead, err)
	}
	if all, err := db.Jobs(t.Context(), node.Filter{States: []node.State{node.Pending, node.Done}}); err != nil || len(all) != 2 {
		t.Errorf("left %+v, %v", all, err)
	}
}

// What is done does not make it slower to count what is not.
func TestBacklogsPlan(t *testing.T) {
	t.Parallel()
	_, look, nodes := fleet(t, "fs1")
	exec1(t, look, `
		INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, state)
		SELECT $1, $2, 'switch.user', 'x', '{}', CASE WHEN n > 20 THEN 'done' ELSE 'dead' END FROM generate_series(1, 20000) AS n`,
		storetest.TenantID("tenant-a"), nodes[0].ID)
	exec1(t, look, `ANALYZE edgvoip.jobs`)
	if plan := explain(t, look, postgres.BacklogsQuery); !strings.Contains(plan, "jobs_open_idx") {
		t.Errorf("not by the index:\n%s", plan)
	}
}

// A switch that was not told everything stays, unless it is removed by force: then it takes its jobs with it.
func TestRemoveNode(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1", "fs2")
	remove := func(force bool, want *node.JobsLeftError) {
		t.Helper()
		err := db.RemoveNode(t.Context(), "fs1", force, "test")
		left, _ := errors.AsType[*node.JobsLeftError](err)
		if diff := cmp.Diff(want, left); diff != "" || want == nil && err != nil {
			t.Fatalf("removed with force=%v: %v\n%s", force, err, diff)
		}
	}
	suspend(t, look, "1001")
	suspend(t, look, "1002")
	remove(false, &node.JobsLeftError{Pending: 2})
	if err := db.BuryJob(t.Context(), claim(t, db, nodes[0], time.Minute), "hopeless"); err != nil {
		t.Fatal(err)
	}
	j := claim(t, db, nodes[0], time.Minute)
	remove(false, &node.JobsLeftError{Pending: 1, Dead: 1}) // what is being done is not done yet
	if err := db.FinishJob(t.Context(), j, nil, 0); err != nil {
		t.Fatal(err)
	}
	remove(false, &node.JobsLeftError{Dead: 1})
	remove(true, nil)
	if err := db.RemoveNode(t.Context(), "fs1", true, "test"); !errors.Is(err, node.ErrUnknownNode) {
		t.Errorf("removed twice: %v", err)
	}
	noJob(t, db, nodes[0])
	var forgotten string
	if err := look.QueryRowContext(t.Context(), `SELECT after::text FROM edgvoip.audit_log WHERE action = 'node.removed'`).Scan(&forgotten); err != nil ||
		forgotten != `{"deadJobsForgotten": 1, "pendingJobsForgotten": 0}` {
		t.Errorf("audit log: %s, %v", forgotten, err)
	}
	for range 2 {
		if err := db.FinishJob(t.Context(), claim(t, db, nodes[1], time.Minute), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.RemoveNode(t.Context(), "fs2", false, "test"); err != nil {
		t.Errorf("a switch that has done everything: %v", err)
	}
}

// What concerns switches is in the audit log, without their passwords.
func TestNodeAudit(t *testing.T) {
	t.Parallel()
	db, look, _ := fleet(t, "fs1")
	p := node.NewProvisioner(db, storetest.Keys())
	addNode(t, db, "fs1") // the same again
	no, password := false, "another-password"
	if _, err := p.Change(t.Context(), "fs1", node.Change{Active: &no, Password: &password}, "test"); err != nil {
		t.Fatal(err)
	}
	if err := p.Remove(t.Context(), "fs1", false, "test"); err != nil {
		t.Fatal(err)
	}
	rows, err := look.QueryContext(t.Context(), `SELECT action || coalesce(' ' || before::text, '') || coalesce(' ' || after::text, '') FROM edgvoip.audit_log WHERE action LIKE 'node.%' ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		got = append(got, line)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	active := `{"name": "fs1", "status": "active", "address": "127.0.0.1:8021", "cachesUsers": false}`
	disabled := strings.Replace(active, "active", "disabled", 1)
	want := []string{
		"node.created " + active,
		"node.updated " + active + ` {"name": "fs1", "status": "disabled", "address": "127.0.0.1:8021", "cachesUsers": false, "passwordChanged": true}`,
		"node.removed " + disabled,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Two who add the same switch at once have one switch.
func TestAddNodeAtOnce(t *testing.T) {
	t.Parallel()
	db, _, _ := fleet(t)
	p := node.NewProvisioner(db, storetest.Keys())
	var adding sync.WaitGroup
	for i := range 8 {
		adding.Go(func() {
			if _, err := p.Put(context.WithoutCancel(t.Context()), node.Spec{Name: "fs1", Address: "127.0.0.1:" + strconv.Itoa(8021+i), Password: "x"}, "test"); err != nil {
				t.Error(err)
			}
		})
	}
	adding.Wait()
	if nodes, err := db.Nodes(t.Context()); err != nil || len(nodes) != 1 {
		t.Errorf("%+v, %v", nodes, err)
	}
}

// Whatever becomes of the workers, each job is done once, and those of one subject in order.
func TestJobOrder(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1", "fs2")
	const subjects, each = 5, 12
	for i := range subjects * each {
		exec1(t, look, `INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload) VALUES ($1, $2, 'switch.domain', $3, '{"realm": "a.example"}')`,
			storetest.TenantID("tenant-a"), nodes[i%2].ID, fmt.Sprint(i/2%subjects))
	}
	exec1(t, look, `CREATE TABLE public.deeds (job bigint, node uuid, subject text, step bigserial)`)
	var working sync.WaitGroup
	for w := range 6 {
		working.Go(func() {
			for {
				done, err := workAtRandom(t.Context(), db, look, nodes[w%2])
				if err != nil {
					t.Error(err)
				}
				if done || err != nil {
					return
				}
			}
		})
	}
	working.Wait()
	for what, query := range map[string]string{
		"jobs not done":          `SELECT count(*) FROM edgvoip.jobs WHERE state <> 'done'`,
		"jobs never carried out": `SELECT count(*) FROM edgvoip.jobs j WHERE NOT EXISTS (SELECT FROM public.deeds d WHERE d.job = j.id)`,
		// A job may be carried out twice, when its worker died over it, but not after a later one of its subject was begun.
		"jobs out of order": `SELECT count(*) FROM public.deeds a JOIN public.deeds b USING (node, subject) WHERE a.job < b.job AND a.step > b.step`,
	} {
		var n int
		if err := look.QueryRowContext(t.Context(), query).Scan(&n); err != nil || n > 0 {
			t.Errorf("%d %s, %v", n, what, err)
		}
	}
}

// workAtRandom claims a job and carries it out, fails, or dies over it. It returns true when nothing is left.
func workAtRandom(ctx context.Context, db *postgres.DB, look *sql.DB, n node.Node) (done bool, err error) {
	j, err := db.ClaimJob(ctx, n.ID, time.Minute)
	if errors.Is(err, node.ErrNoJob) {
		var open int
		err := look.QueryRowContext(ctx, `SELECT count(*) FROM edgvoip.jobs WHERE node_id = $1 AND state <> 'done'`, n.ID).Scan(&open)
		return open == 0, err
	} else if err != nil {
		return false, err
	}
	if _, err := look.ExecContext(ctx, `INSERT INTO public.deeds (job, node, subject) VALUES ($1, $2, $3)`, j.ID, j.NodeID, j.Subject); err != nil {
		return false, err
	}
	switch rand.IntN(4) {
	case 0:
		return false, db.RetryJob(ctx, j, time.Duration(rand.IntN(3))*time.Millisecond, "failed")
	case 1:
		// It dies, and its lease runs out.
		_, err := look.ExecContext(ctx, `UPDATE edgvoip.jobs SET run_at = now() WHERE tenant_id = $1 AND id = $2`, j.TenantID, j.ID)
		return false, err
	default:
		return false, db.FinishJob(ctx, j, nil, 0)
	}
}

// A job that its writer carries out is nobody else's until he dies, and nobody else writes the same.
func TestAddClaimedJob(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1", "fs2")
	add := func(n node.Node, event string, lease time.Duration) (node.Job, error) {
		return db.AddClaimedJob(t.Context(), node.Job{
			TenantID: uuid.Nil, NodeID: n.ID, Kind: node.KindDropRegistration, Subject: "registration/1001@x", CorrelationID: "c",
			Payload: json.RawMessage(`{"profile": "internal", "user": "1001", "realm": "x", "callId": "", "reason": "r"` + event + `}`),
		}, lease)
	}
	same := func(event string) {
		t.Helper()
		if j, err := add(nodes[0], event, time.Minute); !errors.Is(err, node.ErrSameJob) {
			t.Errorf("%+v, %v", j, err)
		}
	}
	for _, event := range []string{`, "event": "core/1"`, ""} {
		held, err := add(nodes[0], event, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		noJob(t, db, nodes[0])
		same(event)
		if err := db.FinishJob(t.Context(), held, nil, 0); err != nil {
			t.Fatal(err)
		}
		same(event)
	}
	if _, err := add(nodes[1], "", time.Minute); err != nil {
		t.Errorf("another switch: %v", err)
	}
	// One that is seen again later, in a list, is another.
	exec1(t, look, `UPDATE edgvoip.jobs SET created_at = created_at - interval '1 minute'`)
	same(`, "event": "core/1"`)
	// What was given up is nobody's any more.
	exec1(t, look, `UPDATE edgvoip.jobs SET state = 'dead' WHERE payload ? 'event'`)
	if j, err := add(nodes[0], `, "event": "core/1"`, time.Minute); err != nil {
		t.Error(err)
	} else if err := db.FinishJob(t.Context(), j, nil, 0); err != nil {
		t.Error(err)
	}
	lost, err := add(nodes[0], "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if j := claim(t, db, nodes[0], time.Minute); j.ID != lost.ID || j.Attempts != 2 || j.CorrelationID != "c" {
		t.Errorf("claimed %+v", j)
	}
}

// Whoever listens is told of jobs and of switches.
func TestListenForJobs(t *testing.T) {
	t.Parallel()
	db, look, _ := fleet(t)
	told := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- db.ListenForJobs(ctx, func() { told <- struct{}{} }) }()
	<-told // connected
	addNode(t, db, "fs1")
	<-told
	suspend(t, look, "1001")
	<-told
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
