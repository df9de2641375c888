package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// A switch may keep users only while no more than one tenant is active, whatever the setting says.
func TestSwitchCachesUsersOfOneTenant(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	populateTables(t, dsn)
	x := start(t, "DATABASE_URL="+dsn, "SWITCH_CACHES_USERS=1m", "XMLCURL_CHANGES_INTERVAL=100ms")
	cacheable := func() bool {
		status, doc := x.lookup(registration(t, realmOf("tenant-a"), "1001"))
		if status != http.StatusOK || !strings.Contains(doc, "a1-hash") {
			t.Fatalf("%d: %s", status, doc)
		}
		return strings.Contains(doc, "cacheable=")
	}
	const notice = "SWITCH_CACHES_USERS is not in force"
	x.until("the log says that there are several tenants", func() bool { return strings.Contains(x.log.String(), notice) })
	if cacheable() {
		t.Error("users may be kept, of several tenants")
	}
	if _, metrics, _, err := ask(t.Context(), x.addr, http.MethodGet, "/metrics", "", 0); !strings.Contains(metrics, "xmlcurl_users_not_cacheable_total 1\n") {
		t.Errorf("not counted: %v", err)
	}
	set := func(status string) {
		execute(t, dsn, `UPDATE edgvoip.tenants SET status = $1 WHERE slug <> 'tenant-a'`, status)
	}
	set("suspended")
	x.until("users of the only tenant may be kept", cacheable)
	execute(t, dsn, `UPDATE edgvoip.tenants SET status = 'active' WHERE slug = 'tenant-b'`)
	x.until("users may not be kept any more", func() bool { return !cacheable() })
	x.until("the log says so again", func() bool { return strings.Count(x.log.String(), notice) == 2 })
}

// While changes cannot be read nobody knows how many tenants there are.
func TestSwitchCachesNobodyUnheard(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	populateTables(t, dsn)
	execute(t, dsn, `UPDATE edgvoip.tenants SET status = 'suspended' WHERE slug <> 'tenant-a'`)
	x := start(t, "DATABASE_URL="+dsn, "SWITCH_CACHES_USERS=1m", "XMLCURL_CHANGES_INTERVAL=100ms")
	cacheable := func() bool {
		_, doc := x.lookup(registration(t, realmOf("tenant-a"), "1001"))
		return strings.Contains(doc, "cacheable=")
	}
	x.until("users of the only tenant may be kept", cacheable)
	execute(t, dsn, `REVOKE SELECT ON edgvoip.heartbeat FROM edgvoip_xmlcurl`)
	x.until("users may not be kept any more", func() bool { return !cacheable() })
}

// A database that has no heartbeat yet is followed as before: nobody who is suspended is served from a snapshot.
func TestBeforeHeartbeat(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	populateTables(t, dsn)
	file := filepath.Join(t.TempDir(), "snapshot")
	x := start(t, "DATABASE_URL="+dsn, "XMLCURL_SNAPSHOT_FILE="+file)
	served := func(x *xml) bool {
		_, doc := x.lookup(registration(t, realmOf("tenant-a"), "1001"))
		return strings.Contains(doc, "a1-hash")
	}
	x.until("the extension is known", func() bool { return served(x) })
	x.end()
	execute(t, dsn, `DROP TABLE edgvoip.heartbeat`)
	execute(t, dsn, `UPDATE edgvoip.sip_extensions SET status = 'suspended'`)
	y := start(t, "DATABASE_URL="+dsn, "XMLCURL_SNAPSHOT_FILE="+file, "XMLCURL_CHANGES_INTERVAL=100ms")
	y.until("it is refused", func() bool { return !served(y) })
}

// reader takes whatever it is told.
type reader struct{}

func (reader) Apply([]feed.Change)  {}
func (reader) Forget()              {}
func (reader) Synced(time.Time)     {}
func (reader) Behind(time.Duration) {}

// While it is not known how many tenants are active, no user may be kept.
func TestUserCachingInDoubt(t *testing.T) {
	t.Parallel()
	tenants, broken := 1, errors.New("away")
	var fail error
	var meanwhile func()
	c := newUserCaching(time.Minute, time.Minute, func(context.Context) (int, error) {
		n := tenants
		if meanwhile != nil {
			meanwhile()
		}
		return n, fail
	}, prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	c.Reader = reader{}
	c.Synced(time.Now())
	check := func(when string, want time.Duration) {
		t.Helper()
		if got := c.cacheFor(); got != want {
			t.Errorf("%s: users may be kept for %v, want %v", when, got, want)
		}
	}
	count := func() {
		if _, err := c.recount(t.Context()); !errors.Is(err, fail) {
			t.Error(err)
		}
	}
	tenant := []feed.Change{{Subject: feed.SubjectTenant, Tenant: uuid.New()}}
	check("before the tenants are counted", 0)
	count()
	check("of one tenant", time.Minute)
	c.Apply([]feed.Change{{Subject: feed.SubjectExtension}, {Subject: feed.SubjectDomain}, {Subject: feed.SubjectTrunk}})
	check("after changes of other things", time.Minute)
	c.Apply(tenant)
	check("after a change of a tenant", 0)
	fail = broken
	count()
	check("when they cannot be counted", 0)
	fail = nil
	meanwhile = func() { tenants = 2; c.Apply(tenant) }
	count()
	check("when one came while they were counted", 0)
	meanwhile, tenants = nil, 1
	count()
	check("of one tenant again", time.Minute)
	c.Behind(feed.MaxBehind + 1)
	check("from a replica that is behind", 0)
	c.Behind(0)
	check("from one that is not", time.Minute)
	c.Forget()
	check("after everything is distrusted", 0)
	count()
	c.Apply([]feed.Change{{Subject: feed.SubjectEverything}})
	check("after a table was emptied", 0)
}
