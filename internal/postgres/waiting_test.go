package postgres_test

import (
	"database/sql"
	"slices"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// waiting is what waits for a switch about users and domains, in order of number.
func waiting(t *testing.T, db *postgres.DB, name string) []any {
	t.Helper()
	jobs, err := db.Jobs(t.Context(), node.Filter{Node: name, States: []node.State{node.Pending}, Limit: 2000})
	if err != nil {
		t.Fatal(err)
	}
	var tasks []any
	for _, j := range jobs {
		task, err := j.Task()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := task.(node.Trunk); !ok {
			tasks = append(tasks, task)
		}
	}
	return tasks
}

// A switch that is disabled while much changes has one job for each thing that it must forget, not one for each change, and is told of
// the credentials that changed. One that is away has no more than came in the first minute.
func TestJobsOfLongAbsence(t *testing.T) {
	t.Parallel()
	db, look, _ := fleet(t, "away", "disabled")
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET status = 'disabled' WHERE name = 'disabled'`)
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET caches_users = true WHERE name = 'away'`)
	anna := storetest.ExtensionID("tenant-a.example", "1003")
	change := func(set string) {
		exec1(t, look, `UPDATE edgvoip.sip_extensions SET `+set+` WHERE id = $1`, anna)
	}
	gathered := 0
	for range 20 {
		change(`display_name = display_name || 'x'`)
		change(`ha1_md5_sealed = ha1_md5_sealed || '\x00', ha1_sha256_sealed = ha1_sha256_sealed || '\x00'`)
		change(`transport = 'tls'`)
		change(`transport = 'any'`)
		change(`status = 'suspended'`)
		change(`status = 'active'`)
		change(`extension = '1013'`)
		change(`extension = '1003'`)
		exec1(t, look, `UPDATE edgvoip.sip_domains SET status = 'disabled' WHERE realm = 'tenant-a.example'`)
		exec1(t, look, `UPDATE edgvoip.sip_domains SET status = 'active' WHERE realm = 'tenant-a.example'`)
		exec1(t, look, `UPDATE edgvoip.tenants SET status = 'suspended' WHERE id = $1`, storetest.TenantID("tenant-a"))
		exec1(t, look, `UPDATE edgvoip.tenants SET status = 'active' WHERE id = $1`, storetest.TenantID("tenant-a"))
		exec1(t, look, `UPDATE edgvoip.jobs SET created_at = created_at - interval '61 seconds'`)
		if gathered == 0 {
			gathered = len(waiting(t, db, "away"))
		}
	}
	user := func(number string, revoked bool) node.User {
		return node.User{
			Realm: storetest.Realm("tenant-a.example"), Number: storetest.Number(number), Username: storetest.Username("Anna.Rossi"), Revoked: revoked,
		}
	}
	want := []any{
		user("1003", true), user("1013", true), node.Domain{Realm: storetest.Realm("tenant-a.example")}, node.Domain{Realm: storetest.Realm("branch.tenant-a.example")},
	}
	if got := waiting(t, db, "disabled"); !slices.Equal(got, want) {
		t.Errorf("%d jobs wait, %+v, want %+v", len(got), got[:min(len(got), 8)], want)
	}
	got := waiting(t, db, "away")
	for _, task := range append(want, user("1003", false)) {
		if !slices.Contains(got, task) {
			t.Errorf("%+v does not wait", task)
		}
	}
	if len(got) != gathered {
		t.Errorf("%d jobs wait, want the %d of the first minute", len(got), gathered)
	}
}

// An extension that is deleted and created again and again leaves no more than a thousand jobs and one for all the others, and W3 is
// told of each extension whether the switch still has to hear of it.
func TestJobsOfUsersThatComeAndGo(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "up", "away", "disabled")
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET status = 'disabled' WHERE name = 'disabled'`)
	again := func(times int) (last string) {
		t.Helper()
		const loop = `
			WITH born AS (
			  INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, status, password_hash,
			                                      ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
			  SELECT tenant_id, gen_random_uuid(), domain_id, '1999', 'shuttle', 'Shuttle', 'active', password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id
			    FROM edgvoip.sip_extensions WHERE id = $1 RETURNING id)
			SELECT id FROM born`
		for range times {
			if err := look.QueryRowContext(t.Context(), loop, storetest.ExtensionID("tenant-a.example", "1003")).Scan(&last); err != nil {
				t.Fatal(err)
			}
			exec1(t, look, `UPDATE edgvoip.sip_extensions SET status = 'deleted' WHERE id = $1`, last)
		}
		return last
	}
	expect := func(subject string, want ...node.State) {
		t.Helper()
		progress, err := db.Convergence(t.Context(), storetest.TenantID("tenant-a"), subject)
		if err != nil {
			t.Fatal(err)
		}
		var got []node.State
		for _, p := range progress {
			got = append(got, p.State)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", subject, got, want)
		}
	}
	again(1)
	exec1(t, look, `
		INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload)
		SELECT tenant_id, node_id, kind, gen_random_uuid(), payload FROM edgvoip.jobs, generate_series(1, 999) WHERE node_id <> $1`, nodes[0].ID)
	exec1(t, look, `UPDATE edgvoip.jobs SET created_at = created_at - interval '61 seconds' WHERE node_id <> $1`, nodes[0].ID)
	other := storetest.ExtensionID("tenant-b.example", "1001").String()
	again(1)
	exec1(t, look, `UPDATE edgvoip.jobs SET created_at = created_at - interval '61 seconds' WHERE node_id <> $1`, nodes[0].ID)
	last := again(20)
	everybody := node.Domain{Realm: storetest.Realm("tenant-a.example"), Users: true}
	for _, name := range []string{"away", "disabled"} {
		if got := waiting(t, db, name); len(got) != 1001 || got[1000] != everybody {
			t.Errorf("%s: %d jobs wait, the last %+v, want 1000 and %+v", name, len(got), got[len(got)-1], everybody)
		}
	}
	if got := waiting(t, db, "up"); len(got) != 22 || slices.Contains(got, any(everybody)) {
		t.Errorf("up: %+v wait, want 22 users", got)
	}
	expect(last, node.Pending, node.Pending, node.Pending)
	expect(other, node.Done, node.Done, node.Done)
	// A change of another tenant is one of its own.
	exec1(t, look, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE id = $1`, other)
	if got := waiting(t, db, "disabled"); len(got) != 1002 || got[1001] == everybody {
		t.Errorf("another tenant's: %+v", got[1001:])
	}
	// The switch has heard when it has forgotten everybody, and once more where it caches.
	exec1(t, look, `UPDATE edgvoip.jobs SET state = 'done', finished_at = now() WHERE kind = 'switch.user'`)
	expect(last, node.Pending, node.Pending, node.Done)
	j := claim(t, db, nodes[1], time.Minute)
	task, err := j.Task()
	if err != nil || task != everybody {
		t.Fatalf("%+v, %v", task, err)
	}
	round, _ := node.SecondRound(task)
	second, err := j.Settled(round)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.FinishJob(t.Context(), j, &second, 0); err != nil {
		t.Fatal(err)
	}
	expect(last, node.Pending, node.Pending, node.Done)
	settle := claim(t, db, nodes[1], time.Minute)
	if err := db.FinishJob(t.Context(), settle, nil, 0); err != nil {
		t.Fatal(err)
	}
	expect(last, node.Done, node.Pending, node.Done)
}

// Where too many users wait, everybody of the domain is to be forgotten once, also if changes go on within the minute.
func TestEverybodyIsForgottenOnce(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "away")
	exec1(t, look, `
		INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, created_at)
		SELECT $1, $2, 'switch.user', gen_random_uuid(), '{"realm": "tenant-a.example", "number": "1999", "username": "1999"}', now() - interval '61 seconds'
		  FROM generate_series(1, 1000)`, storetest.TenantID("tenant-a"), nodes[0].ID)
	for _, number := range []string{"1001", "1002", "1003"} {
		suspend(t, look, number)
	}
	n := 0
	for _, task := range waiting(t, db, "away") {
		if task == (node.Domain{Realm: storetest.Realm("tenant-a.example"), Users: true}) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("everybody is to be forgotten %d times", n)
	}
}

// A job that stands for a change as well is not done before that is committed; one that is being done stands for no other.
func TestWaitingJobStandsForAnother(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1")
	begin := func() *sql.Tx {
		tx, err := look.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	const change = `UPDATE edgvoip.sip_extensions SET ha1_md5_sealed = ha1_md5_sealed || '\x00' WHERE id = $1`
	extension := storetest.ExtensionID("tenant-a.example", "1001")
	exec1(t, look, change, extension)
	exec1(t, look, `UPDATE edgvoip.jobs SET created_at = created_at - interval '61 seconds'`)
	tx := begin()
	if _, err := tx.ExecContext(t.Context(), change, extension); err != nil {
		t.Fatal(err)
	}
	noJob(t, db, nodes[0])
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := waiting(t, db, "fs1"); len(got) != 1 {
		t.Errorf("%+v wait, want one", got)
	}
	first := claim(t, db, nodes[0], time.Minute)
	exec1(t, look, change, extension)
	if err := db.FinishJob(t.Context(), first, nil, 0); err != nil {
		t.Fatal(err)
	}
	second := claim(t, db, nodes[0], time.Minute)
	if second.ID == first.ID {
		t.Errorf("claimed %+v again", second)
	}
	if err := db.FinishJob(t.Context(), second, nil, 0); err != nil {
		t.Fatal(err)
	}
	noJob(t, db, nodes[0])
}
