package feed_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// turn is a name that leads to one server and then to another.
type turn struct{ *postgres.DB }

// A lookup may have read what was committed after the newest change that the follower heard of, and a failover lose it: the mark is
// there as before on the server that takes over, and everything is distrusted all the same.
func TestFailoverLosesWhatOnlyLookupsRead(t *testing.T) {
	t.Parallel()
	first := testdb.NewCluster(t)
	owner, err := postgres.Open(postgres.Options{URL: first.DSN}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, err = owner.Migrate(t.Context())
	if err := errors.Join(err, owner.Close()); err != nil {
		t.Fatal(err)
	}
	open := func(c *testdb.Cluster) (*sql.DB, *postgres.DB) {
		t.Helper()
		db, err := sql.Open("postgres", c.DSN)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		source, err := postgres.Open(postgres.Options{URL: c.DSN, Role: "edgvoip_xmlcurl", Application: "follower", StatementTimeout: 20 * time.Second},
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = source.Close() })
		return db, source
	}
	db, source := open(first)
	storetest.Build(storetest.SQL{TB: t, DB: db})
	second := first.Standby()
	replica, replicaSource := open(second)
	now := &turn{source}
	n := newNotes()
	p := place{t, db, source}
	follow := func(from feed.Position) *feed.Follower {
		return feed.New(feed.Options{Source: now, Reader: n, Interval: time.Hour, Timeout: 20 * time.Second, From: from, Log: slog.New(slog.DiscardHandler)})
	}
	f := follow(feed.Position{})
	p.until("the follower is sure of its place", func() bool {
		p.read(f)
		return f.Position().Mark != (feed.Mark{})
	})
	p.until("the replica has everything", func() bool {
		page, err := replicaSource.Changes(context.WithoutCancel(t.Context()), f.Position().Mark, feed.Mark{}, nil, 1)
		return err == nil && page.MarkFound
	})
	before := n.forgotten()
	now.DB = replicaSource
	p.read(f)
	now.DB = source
	p.read(f)
	if got := n.forgotten(); got != before {
		t.Errorf("forgot %d times where nothing happened", got-before)
	}
	from := f.Position()
	second.Promote()
	p.change(db, "1001") // which somebody reads, and nobody else hears of
	first.Kill()
	now.DB = replicaSource
	p.read(f)
	if got := n.forgotten(); got == before {
		t.Error("what the failover lost is believed")
	}
	if n.told("1001") {
		t.Fatal("the change was not lost")
	}
	// So it is by who begins with the position that was kept before.
	before = n.forgotten()
	p.read(follow(from))
	if got := n.forgotten(); got == before {
		t.Error("a snapshot of before the failover is believed")
	}
	// A position of which it is not known where it was read is as good as before.
	before = n.forgotten()
	from.History = ""
	p.read(follow(from))
	if got := n.forgotten(); got != before {
		t.Error("a position without a history is distrusted")
	}
	p = place{t, replica, replicaSource}
	p.change(replica, "1002")
	p.read(f)
	if !n.told("1002") {
		t.Error("the follower does not go on")
	}
}
