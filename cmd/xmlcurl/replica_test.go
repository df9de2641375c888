package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// replica is an xmlcurl that reads from a standby, and what can be done to the two servers.
type replica struct {
	*testing.T
	primary, standby *testdb.Cluster
	x                *xml
	conninfo         string // how the standby reaches its primary
}

// newReplica starts a primary with the population, a standby, what keeps the primary's side of the feed, and xmlcurl on
// the standby. When beats is false nobody has ever written a heartbeat.
func newReplica(t *testing.T, beats bool, changes ...string) *replica {
	t.Helper()
	r := &replica{T: t, primary: newCluster(t)}
	if beats {
		r.keep(r.primary)
	}
	r.standby = r.primary.Standby()
	r.conninfo = r.ask(r.standby, `SHOW primary_conninfo`)
	r.x = start(t, append([]string{"DATABASE_URL=" + r.standby.DSN}, changes...)...)
	return r
}

// keep does for a server what integration-api does, until the test ends.
func (r *replica) keep(c *testdb.Cluster) {
	r.Helper()
	db, err := postgres.Open(postgres.Options{URL: c.DSN, Role: "edgvoip_api", StatementTimeout: 5 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		r.Fatal(err)
	}
	if err := db.Beat(r.Context()); err != nil {
		r.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed.Keep(ctx, db, slog.New(slog.DiscardHandler))
	}()
	r.Cleanup(func() {
		stop()
		<-done
		_ = db.Close()
	})
}

// ask returns the one value of a query.
func (r *replica) ask(c *testdb.Cluster, query string) (value string) {
	r.Helper()
	db, err := sql.Open("postgres", c.DSN)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(r.Context(), query).Scan(&value); err != nil {
		r.Fatal(err)
	}
	return value
}

// cut has the standby hear nothing of its primary any more; join undoes that.
func (r *replica) cut()  { r.Helper(); r.connect("") }
func (r *replica) join() { r.Helper(); r.connect(r.conninfo) }

func (r *replica) connect(conninfo string) {
	r.Helper()
	execute(r.T, r.standby.DSN, `ALTER SYSTEM SET primary_conninfo = '`+strings.ReplaceAll(conninfo, "'", "''")+`'`)
	execute(r.T, r.standby.DSN, `SELECT pg_reload_conf()`)
	wanted := "0"
	if conninfo != "" {
		wanted = "1"
	}
	r.x.until("the standby has noticed", func() bool { return r.ask(r.standby, `SELECT count(*) FROM pg_stat_wal_receiver`) == wanted })
}

// suspend suspends an extension of the first tenant that nobody has changed before.
func (r *replica) suspend(c *testdb.Cluster, number int) {
	r.Helper()
	execute(r.T, c.DSN, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE domain_id = $1 AND sip_username = $2`,
		storetest.DomainID(realmOf(tenants[0].slug)), loginOf(number))
}

// serves tells whether an extension of the first tenant is let in. A fault is the test's end.
func (r *replica) serves(number int) bool {
	r.Helper()
	status, doc := r.x.lookup(registration(r, realmOf(tenants[0].slug), loginOf(number)))
	if status != http.StatusOK {
		r.Fatalf("%d to extension %d", status, number)
	}
	return strings.Contains(doc, "a1-hash")
}

// A standby is no older than the newest sign of its primary, and what is read from it no truer.
func TestReplica(t *testing.T) {
	t.Parallel()
	r := newReplica(t, true, "XMLCURL_MAX_DATA_AGE=1m", "XMLCURL_CHANGES_INTERVAL=100ms")
	if !r.serves(1001) || !r.serves(1002) || !r.serves(1003) {
		t.Fatal("a known extension is not served")
	}
	status, doc := r.x.lookup(registration(t, realmOf("tenant-a"), "1999"))
	if status != http.StatusOK || strings.Contains(doc, "a1-hash") {
		t.Errorf("%d to an unknown user: %s", status, doc)
	}
	r.suspend(r.primary, 1001)
	r.x.until("a change comes through the standby", func() bool { return !r.serves(1001) })
	if age := r.x.age(); age > 10 {
		t.Errorf("the data of a standby that follows are %v s old", age)
	}

	r.cut()
	r.suspend(r.primary, 1002)
	execute(t, r.primary.DSN, `UPDATE edgvoip.sip_extensions SET sip_username = 'new-name' WHERE domain_id = $1 AND extension = '1004'`,
		storetest.DomainID(realmOf("tenant-a")))
	r.x.until("the data grow old", func() bool { return r.x.age() > 12 })
	r.x.refusesUnknown()
	if status, _ := r.x.lookup(registration(t, realmOf("tenant-a"), "new-name")); status != http.StatusServiceUnavailable {
		t.Errorf("%d to a name that was given while nothing was heard, want 503", status)
	}
	if !r.serves(1002) || !r.serves(1005) {
		t.Error("an extension that was there when the primary was last heard of is not served")
	}
	for deadline := time.Now().Add(2 * time.Minute); r.x.age() < 60; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the data are %v s old", r.x.age())
		}
	}
	for _, number := range []int{1002, 1003, 1006} { // suspended, known, never asked for
		if status, doc := r.x.lookup(registration(t, realmOf("tenant-a"), loginOf(number))); status != http.StatusServiceUnavailable {
			t.Errorf("%d to extension %d from data that are too old\n%s", status, number, doc)
		}
	}
	if status, doc := r.x.lookup(callFromCarrier(t, fmt.Sprintf("+%d", tenants[0].did))); status != http.StatusServiceUnavailable {
		t.Errorf("%d to a DID from data that are too old\n%s", status, doc)
	}
	if status, _, _, err := ask(t.Context(), r.x.addr, http.MethodGet, "/readyz", "", 0); status != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d, %v", status, err)
	}
	if strings.Count(r.x.log.String(), "the replica is behind") != 1 {
		t.Errorf("not logged once that the replica is behind:\n%s", r.x.log)
	}

	r.join()
	r.x.until("the data are new", func() bool { return r.x.age() < 10 })
	if r.serves(1002) || !r.serves(1003) {
		t.Error("what changed meanwhile does not show")
	}

	r.primary.Halt()
	r.standby.Promote()
	r.suspend(r.standby, 1003)
	r.x.until("a change shows after the promotion", func() bool { return !r.serves(1003) })
	if age := r.x.age(); age > 3 {
		t.Errorf("the data of the new primary are %v s old", age)
	}
	// Nobody writes heartbeats there: it needs none.
	r.x.until("a name that does not exist is answered", func() bool {
		status, _ := r.x.lookup(registration(t, realmOf("tenant-a"), "1998"))
		return status == http.StatusOK
	})
}

// Without a heartbeat nothing is known of a standby's age. It is taken for new, as ever, and the log says so.
func TestReplicaWithoutHeartbeat(t *testing.T) {
	t.Parallel()
	r := newReplica(t, false, "XMLCURL_CHANGES_INTERVAL=100ms")
	if !r.serves(1001) {
		t.Error("a known extension is not served")
	}
	r.suspend(r.primary, 1001)
	r.x.until("a change comes through the standby", func() bool { return !r.serves(1001) })
	if age := r.x.age(); age > 3 {
		t.Errorf("the data are %v s old", age)
	}
	const notice = "how old what a replica knows is cannot be told"
	r.x.until("the log says so", func() bool { return strings.Contains(r.x.log.String(), notice) })
	if n := strings.Count(r.x.log.String(), notice); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
}
