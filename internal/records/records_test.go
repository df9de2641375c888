package records_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/records"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/internal/testlog"
)

// ledger is a database with a tenant.
type ledger struct {
	*testing.T
	dsn  string
	db   *postgres.DB
	look *sql.DB
}

func newLedger(t *testing.T, dsn string) *ledger {
	t.Helper()
	look, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = look.Close() })
	l := &ledger{t, dsn, openStore(t, dsn), look}
	addTenant(t, dsn, tenant)
	return l
}

// keep takes documents of calls of two legs each, and others between them.
func (l *ledger) keep(calls int, others ...string) {
	l.Helper()
	for n := range calls {
		caller := uuid.NewSHA1(tenant, fmt.Append(nil, "call ", n))
		l.post(leg(uuid.NewSHA1(caller, nil), "outbound", `"originating_leg_uuid":"`+caller.String()+`",`))
		l.post(leg(caller, "inbound", ""))
		if n < len(others) {
			l.post(others[n])
		}
	}
}

func (l *ledger) post(body string) {
	l.Helper()
	if _, err := l.db.KeepDocument(l.Context(), cdr.Posted{Source: cdr.SourcePost, Sender: "test", Body: []byte(body)}); err != nil {
		l.Fatal(err)
	}
}

// leg makes the document of a channel, with more variables.
func leg(id uuid.UUID, direction, more string) string {
	return fmt.Sprintf(`{"channel_data":{"direction":%q},"variables":{%s"uuid":%q,"edgvoip_tenant_id":%q,"start_uepoch":"%d"}}`,
		direction, more, id, tenant, time.Now().Add(-time.Minute).UnixMicro())
}

// work runs a worker until stop is called, which returns when it has ended.
func (l *ledger) work(s records.Store, log *slog.Logger) (w *records.Worker, stop func()) {
	ctx, cancel := context.WithCancel(l.Context())
	w = records.New(records.Options{Store: s, Poll: 10 * time.Millisecond, Registry: prometheus.NewRegistry(), Log: log})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	l.Cleanup(stop)
	return w, stop
}

func (l *ledger) one(query string) (s string, err error) {
	err = l.look.QueryRowContext(l.Context(), query).Scan(&s)
	return s, err
}

// await waits until a query says what it should; whoever cannot be asked is asked again.
func (l *ledger) await(query, want string) {
	l.Helper()
	var got string
	var err error
	for until := time.Now().Add(time.Minute); time.Now().Before(until); <-time.After(10 * time.Millisecond) {
		if got, err = l.one(query); err == nil && got == want {
			return
		}
	}
	l.Fatalf("%s: %q, %v; want %q", query, got, err, want)
}

// awaitLog waits until a log says what it should.
func (l *ledger) awaitLog(log *testlog.Lines, want string) {
	l.Helper()
	for until := time.Now().Add(time.Minute); !strings.Contains(log.String(), want); <-time.After(10 * time.Millisecond) {
		if time.Now().After(until) {
			l.Fatalf("the log does not say %s:\n%s", want, log)
		}
	}
}

// expect says that there are so many calls of two legs each, all of which are told once.
func (l *ledger) expect(calls int) {
	l.Helper()
	for query, want := range map[string]string{
		`SELECT count(*) || ' ' || count(DISTINCT call_id) FROM edgvoip.cdr`:                               fmt.Sprintf("%d %d", calls, calls),
		`SELECT count(*) || ' ' || count(DISTINCT leg_id) FROM edgvoip.cdr_legs`:                           fmt.Sprintf("%d %d", 2*calls, 2*calls),
		`SELECT count(*) || ' ' || count(DISTINCT subject) FROM edgvoip.webhook_events WHERE kind = 'cdr'`: fmt.Sprintf("%d %d", calls, calls),
	} {
		if got, err := l.one(query); err != nil || got != want {
			l.Errorf("%s: %s, %v; want %s", query, got, err, want)
		}
	}
}

const unread = `SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'new' AND attempts = 0`

// hurry has documents that wait for their callers, which came in another batch, looked at again.
func (l *ledger) hurry() {
	l.Helper()
	if _, err := l.look.ExecContext(l.Context(), `UPDATE edgvoip.cdr_documents SET due_at = now() WHERE state = 'new' AND attempts = 0`); err != nil {
		l.Fatal(err)
	}
}

var quietly = slog.New(slog.DiscardHandler)

// What cannot be read, what is nobody's and what the database does not take stay, with the reason; all others are
// recorded.
func TestPoisonBlocksNobody(t *testing.T) {
	t.Parallel()
	l := newLedger(t, testdb.New(t))
	if _, err := l.look.ExecContext(t.Context(), `ALTER TABLE edgvoip.cdr_legs ADD CHECK (raw::text NOT LIKE '%poison%')`); err != nil {
		t.Fatal(err)
	}
	const calls = 150 // more than a batch
	others := []string{
		"hello", "{}", strings.Repeat("[", 1<<20), leg(uuid.New(), "inbound", `"poison":"1",`),
		strings.ReplaceAll(leg(uuid.New(), "inbound", ""), tenant.String(), uuid.NewString()),
	}
	l.keep(calls, others...)
	l.work(l.db, quietly)
	l.await(`SELECT count(*) FROM edgvoip.cdr_legs`, fmt.Sprint(2*calls))
	l.hurry()
	l.await(unread, "0")
	l.expect(calls)
	l.await(`SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM edgvoip.cdr_documents GROUP BY state) AS s`,
		"new 1, unassigned 1, unreadable 3")
	l.await(`SELECT error FROM edgvoip.cdr_documents WHERE state = 'new'`, "the database does not take it: SQLSTATE 23514")
}

// A worker that is stopped in the middle of a batch leaves nothing half done, and the next one goes on.
func TestRestartInTheMiddle(t *testing.T) {
	t.Parallel()
	l := newLedger(t, testdb.New(t))
	const calls = 120
	l.keep(calls)
	// The batch has written its legs, and waits to write its calls.
	tx, err := l.look.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `LOCK TABLE edgvoip.cdr IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	_, stop := l.work(l.db, quietly)
	l.await(`SELECT (count(*) > 0)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%edgvoip.cdr c%'`, "true")
	stop()
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	l.await(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%in transaction%'`, "0")
	if got, err := l.one(`SELECT count(*) FROM edgvoip.cdr_legs`); got != "0" || err != nil {
		t.Errorf("%s legs are left of the batch, %v", got, err)
	}
	l.work(openStore(t, l.dsn), quietly)
	l.await(`SELECT count(*) FROM edgvoip.cdr_legs`, fmt.Sprint(2*calls))
	l.hurry()
	l.await(unread, "0")
	l.expect(calls)
}

// A database that goes away and comes back costs nothing but time; the log says so once.
func TestLostDatabase(t *testing.T) {
	t.Parallel()
	c := testdb.NewCluster(t)
	owner, err := postgres.Open(postgres.Options{URL: c.DSN}, quietly)
	if err != nil {
		t.Fatal(err)
	}
	_, err = owner.Migrate(t.Context())
	if err := errors.Join(err, owner.Close()); err != nil {
		t.Fatal(err)
	}
	l := newLedger(t, c.DSN)
	const calls = 300
	l.keep(calls)
	var lines testlog.Lines
	s := &pausing{Store: l.db, after: 2, paused: make(chan struct{}), resume: make(chan struct{})}
	l.work(s, slog.New(slog.NewTextHandler(&lines, nil)))
	select {
	case <-s.paused: // some are read and some are not
	case <-time.After(time.Minute):
		t.Fatal("no third batch is read")
	}
	c.Kill()
	close(s.resume)
	l.awaitLog(&lines, `msg="out of order" component=records what="documents are read"`)
	c.Resume()
	l.await(`SELECT count(*) FROM edgvoip.cdr_legs`, fmt.Sprint(2*calls))
	l.hurry()
	l.await(unread, "0")
	l.expect(calls)
	l.awaitLog(&lines, `msg="in order again" component=records what="documents are read"`)
}

// pausing is a store that waits after so many batches.
type pausing struct {
	records.Store
	after          int
	paused, resume chan struct{}

	mu   sync.Mutex
	read int
}

func (s *pausing) ReadDocuments(ctx context.Context, most int) (cdr.Tally, error) {
	s.mu.Lock()
	if s.read++; s.read == s.after+1 {
		close(s.paused)
	}
	wait := s.read > s.after
	s.mu.Unlock()
	if wait {
		select {
		case <-s.resume:
		case <-ctx.Done():
		}
	}
	return s.Store.ReadDocuments(ctx, most)
}

// Several processes read at the same time, while documents come: each leg is there once, and each call.
func TestTwoReaders(t *testing.T) {
	t.Parallel()
	l := newLedger(t, testdb.New(t))
	const calls = 250
	first, _ := l.work(l.db, quietly)
	second, _ := l.work(openStore(t, l.dsn), quietly)
	l.keep(calls)
	first.Wake()
	second.Wake()
	l.await(`SELECT count(*) FROM edgvoip.cdr_legs`, fmt.Sprint(2*calls))
	l.hurry()
	l.await(unread, "0")
	l.expect(calls)
}

// still is a store in which there is nothing to do, and that says how many documents it was asked for.
type still struct {
	mu     sync.Mutex
	asked  []int
	answer func(most int) (cdr.Tally, error)

	recordings map[cdr.RecordingState][]cdr.Recording
	became     []string
}

func (s *still) ReadDocuments(_ context.Context, most int) (cdr.Tally, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, most)
	if s.answer == nil {
		return cdr.Tally{}, nil
	}
	return s.answer(most)
}

func (*still) Reconstruct(context.Context, time.Duration, int) (cdr.Tally, error) {
	return cdr.Tally{}, nil
}

func (*still) WaitingDocuments(context.Context) (cdr.Waiting, error) { return cdr.Waiting{}, nil }
func (*still) EnsurePartitions(context.Context) error                { return nil }
func (*still) ExpireRecordings(context.Context) error                { return nil }
func (*still) ExpireCalls(context.Context) (int64, error)            { return 0, nil }

func (s *still) Recordings(_ context.Context, state cdr.RecordingState, after cdr.Recording, _ int) ([]cdr.Recording, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after.Path != "" {
		return nil, nil
	}
	return slices.Clone(s.recordings[state]), nil
}

func (s *still) settle(r cdr.Recording, what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.became = append(s.became, what)
	for state, list := range s.recordings {
		s.recordings[state] = slices.DeleteFunc(list, func(other cdr.Recording) bool { return other == r })
	}
	return nil
}

func (s *still) RecordingReady(_ context.Context, r cdr.Recording, url string) error {
	return s.settle(r, "ready "+r.Path+" "+url)
}

func (s *still) RecordingLost(_ context.Context, r cdr.Recording) error {
	return s.settle(r, "lost "+r.Path)
}

func (s *still) RecordingGone(_ context.Context, r cdr.Recording) error {
	return s.settle(r, "gone "+r.Path)
}

// After a batch that failed, one document is read at a time, then twice as many each time: what was too much for the
// time that there is gets through in the end. Full batches follow each other at once.
func TestAfterFailure(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &still{}
		s.answer = func(most int) (cdr.Tally, error) {
			if len(s.asked) <= 2 { // of each reader the first
				return cdr.Tally{}, errors.New("too much")
			}
			return cdr.Tally{Taken: most, Recorded: most}, nil
		}
		registry := prometheus.NewRegistry()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second-time.Nanosecond)
		defer cancel()
		left := 18 // full batches
		whole := s.answer
		s.answer = func(most int) (cdr.Tally, error) {
			if left--; left < 0 {
				return cdr.Tally{}, nil
			}
			return whole(most)
		}
		records.New(records.Options{Store: s, Registry: registry, Log: quietly}).Run(ctx)
		failed, sizes := s.asked[:2], s.asked[2:]
		slices.Sort(sizes)
		// Whichever of the readers went on while the other waited.
		want := []int{1, 2, 4, 8, 16, 32, 64, 100}
		if !slices.Equal(failed, []int{100, 100}) || !slices.Equal(slices.Compact(slices.Clone(sizes)), want) || slices.Index(sizes, 2) > 2 {
			t.Errorf("asked for %v and then, in order of size, for %v; want %v", failed, sizes, want)
		}
		if n := testutil.CollectAndCount(registry, "edgvoip_cdr_documents_total"); n == 0 {
			t.Error("nothing is counted")
		}
	})
}

// Documents that come one after the other are read together: whoever is woken lets the others come first.
func TestGathering(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &still{}
		w := records.New(records.Options{Store: s, Poll: time.Hour, Registry: prometheus.NewRegistry(), Log: quietly})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.Run(ctx)
		synctest.Wait()
		s.asked = nil
		for range 1000 {
			w.Wake()
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if n := len(s.asked); n < 5 || n > 25 {
			t.Errorf("a second of documents is read in %d batches, want some ten or twenty", n)
		}
		cancel()
		synctest.Wait()
	})
}
