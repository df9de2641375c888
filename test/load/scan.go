package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// How often a scan is looked at, and how long PostgreSQL is watched before it: the server counts a transaction up to a
// second late.
const (
	scanInterval = 5 * time.Second
	idleTime     = 5 * time.Second
)

// The aims of a scan: queries a second beyond those that an idle xmlcurl makes, whatever the rate of the scan; and
// memory from a tenth of the scan on, as a part and in bytes. xmlcurl asks PostgreSQL for some dozens of unknown names
// a second (docs/decisions/0012-read-model.md); to remember a million would take 50 MiB and more.
const (
	scanQueriesAim = 100
	scanGrowthPart = 0.1
	scanGrowth     = 16 << 20
)

// scan asks each server for names that do not exist, users, realms and DIDs in turn, and none of them twice: what a
// stranger on the Internet does. Neither memory nor PostgreSQL may feel it.
func (s *stage) scan(ctx context.Context, stdout io.Writer) error {
	missed := false
	for _, c := range s.contestants {
		met, err := s.scanServer(ctx, c, stdout)
		if err != nil {
			return err
		}
		missed = missed || !met
	}
	if missed && s.strict {
		return errors.New("an aim is missed (-strict)")
	}
	return nil
}

// scanServer scans one server and tells whether the aims are met.
func (s *stage) scanServer(ctx context.Context, c *contestant, stdout io.Writer) (met bool, err error) {
	var asked atomic.Int64
	w := watch{contestant: c, out: stdout}
	if err := w.look(ctx); err != nil {
		return false, err
	}
	if err := w.idle(ctx); err != nil {
		return false, err
	}
	if _, err := fmt.Fprintf(stdout, "\n%s: %d names that do not exist, beside %d extensions; %d clients; idle: %.1f queries/s, %.1f MiB\n\n"+
		"        s     asked  lookups/s  queries/s  RSS MiB\n", c.name, s.unknown, c.people.extensions, s.clients, w.idleQueries, w.rss()); err != nil {
		return false, err
	}
	done := make(chan outcome, 1)
	start := time.Now()
	go func() {
		done <- drive(ctx, c.target, plan{
			clients: s.clients, count: s.unknown, asked: &asked,
			write: func(q *question, r *rand.Rand, n int) { s.questions.askUnknown(q, c.people, n, r.Uint64()) },
		})
	}()
	ticker := time.NewTicker(scanInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := w.report(ctx, start, min(int(asked.Load()), s.unknown), s.unknown); err != nil {
				return false, err
			}
		case o := <-done:
			met, err := w.verdict(ctx, o)
			return met, errors.Join(c.failure(o), err)
		}
	}
}

// watch follows one server and its database.
type watch struct {
	*contestant
	out io.Writer

	at       time.Time
	queries  int64
	answered int
	used     usage

	idleQueries  float64 // a second
	firstQueries int64   // when the scan began
	early        int64   // memory at a tenth of the scan, in bytes
}

// look reads the counters.
func (w *watch) look(ctx context.Context) (err error) {
	if w.queries, err = w.db.transactions(ctx); err != nil {
		return err
	}
	w.at = time.Now()
	w.used, err = w.process.usage()
	return err
}

// idle counts what xmlcurl asks by itself.
func (w *watch) idle(ctx context.Context) error {
	before, since := w.queries, w.at
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := w.look(ctx); err != nil {
		return err
	}
	w.idleQueries = float64(w.queries-before) / w.at.Sub(since).Seconds()
	w.firstQueries = w.queries
	return nil
}

func (w *watch) rss() float64 { return mebibytes(w.used.rss) }

// report prints what happened since the last look.
func (w *watch) report(ctx context.Context, start time.Time, asked, all int) error {
	queries, at, answered := w.queries, w.at, w.answered
	if err := w.look(ctx); err != nil {
		return err
	}
	w.answered = asked
	if w.early == 0 && asked >= all/10 {
		w.early = w.used.rss
	}
	took := w.at.Sub(at).Seconds()
	_, err := fmt.Fprintf(w.out, "%9.0f %9d %10.0f %10.0f %8.1f\n", w.at.Sub(start).Seconds(), asked,
		float64(asked-answered)/took, float64(w.queries-queries)/took, w.rss())
	return err
}

// verdict prints how the scan ended and tells whether the aims are met.
func (w *watch) verdict(ctx context.Context, o outcome) (met bool, err error) {
	// The last transactions are counted up to a second late.
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if err := w.look(ctx); err != nil {
		return false, err
	}
	if w.early == 0 {
		w.early = w.used.rss // over before the first look
	}
	queries := float64(w.queries-w.firstQueries)/o.took.Seconds() - w.idleQueries
	queriesMet := queries <= scanQueriesAim
	memoryMet := float64(w.used.rss-w.early) <= scanGrowthPart*float64(w.early)+scanGrowth
	_, err = fmt.Fprintf(w.out, "\n  %d right answers in %.1f s: %.0f/s, p50 %.2f ms, p99 %.2f ms; %d errors\n"+
		"  queries beyond the idle ones: %.1f/s%s\n"+
		"  memory from a tenth of the scan to its end: %.1f to %.1f MiB%s\n",
		len(o.latencies), o.took.Seconds(), o.rate(), milliseconds(percentile(o.latencies, 0.5)), milliseconds(percentile(o.latencies, 0.99)), o.failed,
		queries, verdict(fmt.Sprintf("%d or less", scanQueriesAim), &queriesMet),
		mebibytes(w.early), w.rss(), verdict("at most a tenth and 16 MiB more", &memoryMet))
	return queriesMet && memoryMet, err
}
