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
	jobs, err := db.Jobs(t.Context(), node.Filter{Node: name, States: []node.State{node.Pending}, Limit: 1000})
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

// A switch that is away or disabled while much changes has one job for each thing that it must forget, not one for each change,
// and is told of the credentials that changed.
func TestJobsOfLongAbsence(t *testing.T) {
	t.Parallel()
	db, look, _ := fleet(t, "away", "disabled")
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET status = 'disabled' WHERE name = 'disabled'`)
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET caches_users = true WHERE name = 'away'`)
	anna := storetest.ExtensionID("tenant-a.example", "1003")
	change := func(set string) {
		exec1(t, look, `UPDATE edgvoip.sip_extensions SET `+set+` WHERE id = $1`, anna)
	}
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
	}
	user := func(number string, revoked bool) node.User {
		return node.User{
			Realm: storetest.Realm("tenant-a.example"), Number: storetest.Number(number), Username: storetest.Username("Anna.Rossi"), Revoked: revoked,
		}
	}
	domain := node.Domain{Realm: storetest.Realm("tenant-a.example")}
	want := map[string][]any{
		// The first change is nothing to a switch that keeps nobody.
		"away": {user("1003", false), user("1003", true), user("1013", true), domain}, "disabled": {user("1003", true), user("1013", true), domain},
	}
	branch := node.Domain{Realm: storetest.Realm("branch.tenant-a.example")}
	for name, tasks := range want {
		got := waiting(t, db, name)
		if tasks = append(tasks, branch); !slices.Equal(got, tasks) {
			t.Errorf("%d jobs wait for %s, %+v, want %+v", len(got), name, got[:min(len(got), 8)], tasks)
		}
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
	tx := begin()
	if _, err := tx.ExecContext(t.Context(), change, extension); err != nil {
		t.Fatal(err)
	}
	noJob(t, db, nodes[0])
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
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
