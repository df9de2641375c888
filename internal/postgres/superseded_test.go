package postgres_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// finishAll does all that a switch has to do.
func finishAll(t *testing.T, db *postgres.DB, n node.Node) {
	t.Helper()
	for {
		j, err := db.ClaimJob(t.Context(), n.ID, time.Minute)
		if errors.Is(err, node.ErrNoJob) {
			return
		}
		if err = errors.Join(err, db.FinishJob(t.Context(), j, nil, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

// An extension's job that was given up counts until a later one has done as much.
func TestDeadJobOfUserIsMadeUpFor(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1")
	exec1(t, look, `UPDATE edgvoip.switch_nodes SET caches_users = true`)
	extension := storetest.ExtensionID("tenant-a.example", "1001")
	expect := func(after string, want node.State) {
		t.Helper()
		progress, err := db.Convergence(t.Context(), storetest.TenantID("tenant-a"), extension.String())
		if err != nil || len(progress) != 1 || progress[0].State != want {
			t.Errorf("after %s: %+v, %v, want %s", after, progress, err, want)
		}
	}
	change := func(set string) { exec1(t, look, `UPDATE edgvoip.sip_extensions SET `+set+` WHERE id = $1`, extension) }
	change(`status = 'suspended'`)
	if err := db.BuryJob(t.Context(), claim(t, db, nodes[0], time.Minute), "hopeless"); err != nil {
		t.Fatal(err)
	}
	expect("the suspension", node.Dead)
	change(`display_name = 'Renamed'`)
	finishAll(t, db, nodes[0])
	expect("a change that drops no registrations", node.Dead)
	change(`status = 'active'`)
	change(`status = 'suspended'`)
	expect("another suspension, to be told", node.Pending)
	finishAll(t, db, nodes[0])
	expect("another suspension", node.Done)

	change(`display_name = 'Renamed again'`)
	if err := db.BuryJob(t.Context(), claim(t, db, nodes[0], time.Minute), "hopeless"); err != nil {
		t.Fatal(err)
	}
	expect("a change that was not told", node.Dead)
	change(`status = 'active'`)
	finishAll(t, db, nodes[0])
	expect("one that forgets the user too", node.Done)
}

// What stands for changes of single users and was given up counts for each until his whole domain is forgotten, registrations and all; that
// makes up for what was given up of a single user, too.
func TestDeadJobOfEverybodyIsMadeUpFor(t *testing.T) {
	t.Parallel()
	db, look, nodes := fleet(t, "fs1")
	tenant, extension := storetest.TenantID("tenant-a"), storetest.ExtensionID("tenant-a.example", "1001").String()
	var domain string
	if err := look.QueryRowContext(t.Context(), `SELECT domain_id FROM edgvoip.sip_extensions WHERE id = $1`, extension).Scan(&domain); err != nil {
		t.Fatal(err)
	}
	const (
		user      = `{"realm": "tenant-a.example", "number": "1001", "username": "1001", "revoked": true}`
		rename    = `{"realm": "tenant-a.example", "number": "1001", "username": "1001", "revoked": false}`
		everybody = `{"realm": "tenant-a.example", "users": true}`
		whole     = `{"realm": "tenant-a.example"}`
		second    = `{"realm": "tenant-a.example", "users": true, "settle": true}`
		other     = `{"realm": "old.tenant-a.example"}`
	)
	for _, tc := range []struct {
		dead, done string
		want       node.State
	}{
		{everybody, everybody, node.Done},
		{everybody, whole, node.Done},
		{everybody, second, node.Dead},
		{everybody, user, node.Dead},
		{everybody, other, node.Dead},
		{second, everybody, node.Done},
		{second, second, node.Done},
		{user, everybody, node.Done},
		{user, whole, node.Done},
		{user, second, node.Dead},
		{user, other, node.Dead},
		{rename, second, node.Done},
	} {
		exec1(t, look, `DELETE FROM edgvoip.jobs`)
		for _, j := range []struct{ payload, state string }{{tc.dead, "dead"}, {tc.done, "done"}} {
			exec1(t, look, `
				INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, state, finished_at)
				SELECT $1, $2, CASE WHEN p ? 'number' THEN 'switch.user' ELSE 'switch.domain' END,
				       CASE WHEN p ? 'number' THEN $3 ELSE $4 END || CASE WHEN p ? 'settle' THEN '/settle' ELSE '' END, p, $6, now()
				  FROM CAST($5 AS jsonb) AS p`, tenant, nodes[0].ID, extension, domain, j.payload, j.state)
		}
		progress, err := db.Convergence(t.Context(), tenant, extension)
		if err != nil || len(progress) != 1 || progress[0].State != tc.want {
			t.Errorf("%s given up, %s done: %+v, %v, want %s", tc.dead, tc.done, progress, err, tc.want)
		}
	}
}

// A trunk's job that was given up counts until its part is done: by a later one, or the gateway by the patrol.
func TestDeadJobOfTrunkIsMadeUpFor(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	n := addNode(t, c.db, "fs1")
	spec := trunkSpec(c.one)
	created, _, err := c.p.Create(t.Context(), uuid.New(), spec, "test")
	if err != nil {
		t.Fatal(err)
	}
	finishAll(t, c.db, n)
	note := func(revision int64) {
		t.Helper()
		if err := c.db.NoteGateways(t.Context(), n.ID, []node.GatewayState{{Trunk: created.ID, Applied: &revision, Registration: "NOREG"}}); err != nil {
			t.Fatal(err)
		}
	}
	note(1)
	expect := func(after string, want bool) {
		t.Helper()
		states, err := c.db.TrunkNodes(t.Context(), c.one, created.ID)
		if err != nil || len(states) != 1 || states[0].Converged != want {
			t.Errorf("after %s: %+v, %v, want %v", after, states, err, want)
		}
	}
	expect("the beginning", true)
	set := func(what string) {
		exec1(t, c.rows, `UPDATE edgvoip.sip_trunks SET `+what+` WHERE id = $1`, created.ID)
	}
	bury := func() {
		t.Helper()
		if err := c.db.BuryJob(t.Context(), claim(t, c.db, n, time.Minute), "hopeless"); err != nil {
			t.Fatal(err)
		}
	}
	set(`port = 5070`)
	bury()
	expect("a gateway that was given up", false)
	note(2)
	expect("the patrol", true)
	set(`host = '192.0.2.2'`)
	bury()
	note(3)
	expect("addresses that were given up, and the patrol", false)
	set(`port = 5071`)
	finishAll(t, c.db, n)
	note(4)
	expect("a later change of the gateway only", false)
	set(`host = '192.0.2.3'`)
	note(5)
	expect("a later change of both, to be told", false)
	finishAll(t, c.db, n)
	expect("a later change of both", true)
}

// Of what a switch is said to have, only what none is to have now is forgotten.
func TestForgetGateways(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	n := addNode(t, c.db, "fs1")
	var ids []uuid.UUID
	revision := int64(1)
	for i := range 3 {
		spec := trunkSpec(c.one)
		spec.Name = fmt.Sprintf("Carrier %d", i)
		k, _, err := c.p.Create(t.Context(), uuid.New(), spec, "test")
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, k.ID)
		if err := c.db.NoteGateways(t.Context(), n.ID, []node.GatewayState{{Trunk: k.ID, Applied: &revision, Registration: "REGED"}}); err != nil {
			t.Fatal(err)
		}
	}
	exec1(t, c.rows, `UPDATE edgvoip.sip_trunks SET status = 'disabled' WHERE id = $1`, ids[1])
	if err := c.db.ForgetGateways(t.Context(), n.ID); err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		states, err := c.db.TrunkNodes(t.Context(), c.one, id)
		if err != nil || len(states) != 1 || (states[0].Applied == 1) != slices.Contains([]int{0, 2}, i) {
			t.Errorf("trunk %d: %+v, %v", i, states, err)
		}
	}
}
