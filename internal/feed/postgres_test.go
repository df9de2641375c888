package feed_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// notes is a reader that writes down what it is told.
type notes struct {
	mu      sync.Mutex
	names   []string
	forgets int
	news    chan struct{} // something was told
}

func newNotes() *notes { return &notes{news: make(chan struct{}, 1)} }

func (n *notes) note(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// Apply implements feed.Reader.
func (n *notes) Apply(changes []feed.Change) {
	n.note(func() {
		for _, c := range changes {
			n.names = append(n.names, c.Names...)
		}
	})
}

// Forget implements feed.Reader.
func (n *notes) Forget() { n.note(func() { n.forgets++ }) }

// Synced implements feed.Reader.
func (*notes) Synced(time.Time) {}

// Behind implements feed.Reader.
func (*notes) Behind(time.Duration) {}

func (n *notes) told(name string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Contains(n.names, name)
}

func (n *notes) forgotten() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.forgets
}

// place is a database with the scene, as its owner writes it and as xmlcurl reads it.
type place struct {
	*testing.T
	db     *sql.DB
	source *postgres.DB
}

func newPlace(t *testing.T) place {
	t.Helper()
	dsn := testdb.New(t)
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	storetest.Build(storetest.SQL{TB: t, DB: db})
	source, err := postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_xmlcurl", Application: "follower", StatementTimeout: 20 * time.Second},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = source.Close() })
	return place{t, db, source}
}

func (p place) exec(statement string, args ...any) {
	p.Helper()
	storetest.SQL{TB: p.T, DB: p.db}.Exec(statement, args...)
}

func (p place) follower(r feed.Reader, from feed.Position) *feed.Follower {
	return feed.New(feed.Options{Source: p.source, Reader: r, Interval: time.Hour, Timeout: 20 * time.Second, From: from, Log: slog.New(slog.DiscardHandler)})
}

func (p place) read(f *feed.Follower) {
	p.Helper()
	if err := f.Read(p.Context()); err != nil {
		p.Fatal(err)
	}
}

// settled returns a follower that is sure of where it is: all transactions are over that were open when it began, those
// of other tests' databases too.
func (p place) settled() (*feed.Follower, *notes) {
	p.Helper()
	n := newNotes()
	f := p.follower(n, feed.Position{})
	p.until("the follower is sure of its place", func() bool {
		p.read(f)
		return f.Position().Mark != (feed.Mark{})
	})
	return f, n
}

// until waits for something that comes soon, in a database that other tests use too.
func (p place) until(what string, done func() bool) {
	p.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.Fatalf("waited in vain until %s", what)
		}
	}
}

// change renames an extension, in a transaction or without one.
const change = `UPDATE edgvoip.sip_extensions SET display_name = 'Changed' WHERE extension = $1 AND domain_id = $2`

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func (p place) change(in execer, number string) {
	p.Helper()
	if _, err := in.ExecContext(p.Context(), change, number, storetest.DomainID("tenant-a.example")); err != nil {
		p.Fatal(err)
	}
}

func (p place) begin() *sql.Tx {
	p.Helper()
	tx, err := p.db.BeginTx(p.Context(), nil)
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { _ = tx.Rollback() }) // after its end it does nothing
	return tx
}

func (p place) commit(tx *sql.Tx) {
	p.Helper()
	if err := tx.Commit(); err != nil {
		p.Fatal(err)
	}
}

// Two transactions commit in the other order than they took their numbers, while a third is open, and a fourth is
// rolled back.
func TestTransactionsOutOfOrder(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	f, n := p.settled()
	before := n.forgotten()
	first, second, third, fourth := p.begin(), p.begin(), p.begin(), p.begin()
	p.change(first, "1001")
	p.change(third, "1003")
	p.change(fourth, "1005")
	p.change(second, "1002")
	p.commit(second)
	p.read(f)
	if n.told("1001") || !n.told("1002") || n.told("1003") {
		t.Errorf("told of %v, want 1002", n.names)
	}
	p.commit(first)
	p.read(f)
	if !n.told("1001") || n.told("1003") {
		t.Errorf("told of %v, want 1001 and 1002", n.names)
	}
	if err := fourth.Rollback(); err != nil {
		t.Fatal(err)
	}
	p.read(f)
	p.commit(third)
	p.read(f)
	if !n.told("1003") || n.told("1005") {
		t.Errorf("told of %v, want 1003 and not 1005", n.names)
	}
	p.until("the number of what was rolled back is given up", func() bool {
		p.read(f)
		return len(f.Position().Gaps) == 0
	})
	if n.forgotten() != before {
		t.Error("everything was forgotten though nothing was lost")
	}
}

// A transaction that began later can take its number earlier, and is then above what PostgreSQL calls the end of a
// snapshot (pg_snapshot_xmax): one past the newest that is over.
func TestLaterTransactionWithEarlierNumber(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	f, n := p.settled()
	early, late := p.begin(), p.begin()
	p.begins(early)
	p.change(late, "1001")
	p.change(early, "1002")
	p.commit(early)
	p.read(f)
	p.commit(late)
	p.read(f)
	if !n.told("1001") || !n.told("1002") {
		t.Errorf("told of %v, want 1001 and 1002", n.names)
	}
}

// The same when following begins while the later one is open.
func TestStartWithLaterTransactionOpen(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	early, late := p.begin(), p.begin()
	p.begins(early)
	p.change(late, "1001")
	p.change(early, "1002")
	p.commit(early)
	n := newNotes()
	f := p.follower(n, feed.Position{})
	p.read(f)
	before := n.forgotten()
	p.commit(late)
	p.until("it is told of 1001, or to forget", func() bool {
		p.read(f)
		return n.told("1001") || n.forgotten() > before || f.Position().Mark != (feed.Mark{})
	})
	if !n.told("1001") && n.forgotten() == before {
		t.Error("what was committed after the start was never told")
	}
}

// begins makes a transaction take its own number, as its first write would.
func (p place) begins(tx *sql.Tx) {
	p.Helper()
	if _, err := tx.ExecContext(p.Context(), `SELECT pg_current_xact_id()`); err != nil {
		p.Fatal(err)
	}
}

// Who begins while a transaction is open forgets everything once more when that is over.
func TestStartWhileTransactionIsOpen(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	open := p.begin()
	p.change(open, "1001")
	p.change(p.db, "1002")
	n := newNotes()
	f := p.follower(n, feed.Position{})
	p.read(f)
	if n.forgotten() != 1 || f.Position().Mark != (feed.Mark{}) {
		t.Errorf("forgotten %d times, at %+v; want once, and nowhere yet", n.forgotten(), f.Position())
	}
	p.commit(open)
	p.until("everything is forgotten again", func() bool {
		p.read(f)
		return n.forgotten() == 2
	})
	if f.Position().Mark == (feed.Mark{}) {
		t.Error("still nowhere")
	}
	p.change(p.db, "1003")
	p.read(f)
	if !n.told("1003") || n.forgotten() != 2 {
		t.Errorf("then told of %v, forgotten %d times; want 1003, and no more than twice", n.names, n.forgotten())
	}
}

// Old changes are removed: who has read them goes on, who was away for longer is told to forget, and the newest stay.
func TestPrune(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	away, _ := p.settled()
	// Which transactions are over depends on other tests; of these all are.
	p.exec(`INSERT INTO edgvoip.changes (tenant_id, subject, at, oldest) SELECT gen_random_uuid(), 'tenant', now() - interval '2 hours', '18446744073709551615'
		FROM generate_series(1, 1500)`)
	p.exec(`INSERT INTO edgvoip.changes (tenant_id, subject, at) SELECT gen_random_uuid(), 'tenant', now() - interval '30 minutes' FROM generate_series(1, 100)`)
	p.exec(`UPDATE edgvoip.changes SET at = now() - interval '3 hours' WHERE id <= $1`, away.Position().Mark.ID)
	present, n := p.settled()
	before := n.forgotten()
	if _, err := p.source.PruneChanges(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	var left, young int
	if err := p.db.QueryRowContext(t.Context(), `SELECT count(*), count(*) FILTER (WHERE at > now() - interval '1 hour') FROM edgvoip.changes`).Scan(&left, &young); err != nil {
		t.Fatal(err)
	}
	if left != 1001 || young != 100 {
		t.Errorf("%d changes are left, of which %d are young; want 1001 and 100", left, young)
	}
	p.change(p.db, "1001")
	p.read(present)
	if !n.told("1001") || n.forgotten() != before {
		t.Errorf("who had read all was told of %v, and to forget: %v", n.names, n.forgotten() > before)
	}
	m := newNotes()
	p.read(p.follower(m, away.Position()))
	if m.forgotten() == 0 {
		t.Error("who was away for too long was not told to forget")
	}
	if _, err := p.source.PruneChanges(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.changes WHERE at > now() - interval '1 hour'`).Scan(&young); err != nil || young != 101 {
		t.Errorf("%d young changes are left, %v; want 101, whatever is asked for", young, err)
	}
}

// A mark is a row by number and transaction. Transactions are compared in all their 64 bits.
func TestMark(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, tx := range []uint64{703, 1<<32 + 703, 1<<63 - 1, 1<<63 + 703} {
		var id int64
		const insert = `INSERT INTO edgvoip.changes (tenant_id, tx, subject) VALUES (gen_random_uuid(), $1::text::xid8, 'tenant') RETURNING id`
		if err := p.db.QueryRowContext(t.Context(), insert, fmt.Sprint(tx)).Scan(&id); err != nil {
			t.Fatal(err)
		}
		for other, want := range map[uint64]bool{tx: true, tx ^ 1<<32: false, tx ^ 1<<63: false, tx + 1: false} {
			page, err := p.source.Changes(t.Context(), feed.Mark{ID: id, Tx: other}, feed.Mark{}, nil, 10)
			if err != nil || page.MarkFound != want || page.Head != (feed.Mark{ID: id, Tx: tx}) {
				t.Errorf("row %d of transaction %d, looked for by %d: found %v, head %+v, %v", id, tx, other, page.MarkFound, page.Head, err)
			}
		}
	}
	f, n := p.settled()
	before := n.forgotten()
	p.exec(`DELETE FROM edgvoip.changes WHERE id = $1`, f.Position().Mark.ID)
	p.read(f)
	if n.forgotten() == before {
		t.Error("the row of the mark is gone, and nothing was forgotten")
	}
}

// running makes a follower run as in a process, with so long between reads that only notifications can tell it.
func (p place) running() *notes {
	p.Helper()
	f, n := p.settled()
	ctx, stop := context.WithCancel(p.Context())
	done := make(chan struct{})
	go func() {
		f.Run(ctx)
		close(done)
	}()
	p.Cleanup(func() {
		stop()
		<-done
	})
	return n
}

// arrives waits until the reader is told of a name, long before the next read without a notification.
func (p place) arrives(n *notes, name string) {
	p.Helper()
	deadline := time.After(time.Minute)
	for !n.told(name) {
		select {
		case <-n.news:
		case <-deadline:
			p.Fatalf("never told of %s", name)
		}
	}
}

// listener returns the process of the server that notifies the follower, and waits until there is another one than
// before.
func (p place) listener(before int) (pid int) {
	p.Helper()
	p.until("the follower listens", func() bool {
		err := p.db.QueryRowContext(p.Context(), `SELECT coalesce(max(pid), 0) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'follower' AND query ILIKE 'LISTEN%' AND state = 'idle'`).Scan(&pid)
		if err != nil {
			p.Fatal(err)
		}
		return pid != 0 && pid != before
	})
	return pid
}

func TestNotification(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	n := p.running()
	p.listener(0)
	for _, number := range []string{"1001", "1002", "1003"} {
		p.change(p.db, number)
		p.arrives(n, number)
	}
}

// What happens while nobody listens is read when somebody does again, and what happens after it too.
func TestListenerIsKilled(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	n := p.running()
	pid := p.listener(0)
	p.exec(`SELECT pg_terminate_backend($1)`, pid)
	p.change(p.db, "1001")
	p.arrives(n, "1001")
	p.listener(pid)
	p.change(p.db, "1002")
	p.arrives(n, "1002")
}
