package records_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/records"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// mixture are the captured calls of the benchmark, each with as many documents as it has legs.
var mixture = []string{"internal-call", "call-from-a-carrier", "call-out-over-the-second-trunk", "busy", "unanswered", "blind-transfer"}

// tenant is whose they are.
var tenant = uuid.MustParse("890d6828-8750-4a75-96f0-506b1976e35d")

// BenchmarkRead has a worker read documents that wait, those of a call one after the other as switches post them:
// metric documents/s is how many of them become records, with the events that tell W3.
func BenchmarkRead(b *testing.B) {
	dsn := testdb.New(b)
	db := openStore(b, dsn)
	documents := captured(b, b.N)
	addTenant(b, dsn, tenant)
	var posters sync.WaitGroup
	for range 8 {
		posters.Go(func() {
			for body := range documents {
				if _, err := db.KeepDocument(b.Context(), cdr.Posted{Source: cdr.SourcePost, Sender: "benchmark", Body: []byte(body)}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	posters.Wait()
	ctx, cancel := context.WithCancel(b.Context())
	s := &counting{DB: db, done: cancel}
	s.left.Store(int64(b.N))
	w := records.New(records.Options{Store: s, Registry: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	b.ResetTimer()
	start := time.Now()
	w.Run(ctx)
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "documents/s")
}

// counting is a store that says when so many documents were read.
type counting struct {
	*postgres.DB
	left atomic.Int64
	done func()
}

func (s *counting) ReadDocuments(ctx context.Context, most int) (cdr.Tally, error) {
	t, err := s.DB.ReadDocuments(ctx, most)
	if s.left.Add(-int64(t.Recorded)) <= 0 {
		s.done()
	}
	return t, err
}

func openStore(tb testing.TB, dsn string) *postgres.DB {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	db, err := postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_api", StatementTimeout: 10 * time.Second}, log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	if err := db.EnsurePartitions(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return db
}

func addTenant(tb testing.TB, dsn string, id uuid.UUID) {
	tb.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(tb.Context(), `INSERT INTO edgvoip.tenants (id, slug, name, country) VALUES ($1, 'tenant-a', 'Tenant A', 'IT')`, id); err != nil {
		tb.Fatal(err)
	}
}

// captured sends so many documents of the mixture's calls, each call with channels of its own.
func captured(b *testing.B, many int) <-chan string {
	b.Helper()
	var bodies []string
	var channels []string
	for _, name := range mixture {
		files, err := filepath.Glob("../../cdr/testdata/captured/" + name + "-[0-9]?.json")
		if err != nil || len(files) < 2 {
			b.Fatalf("%s: %v %v", name, files, err)
		}
		for _, f := range files {
			body, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			doc, err := cdr.Parse(body)
			if err != nil {
				b.Fatal(err)
			}
			bodies, channels = append(bodies, string(body)), append(channels, doc.Leg().ID.String())
		}
	}
	out := make(chan string)
	go func() {
		defer close(out)
		for n := range many {
			round := n / len(bodies)
			var pairs []string
			for _, c := range channels {
				pairs = append(pairs, c, fmt.Sprintf("%08x", round)+c[8:])
			}
			out <- strings.NewReplacer(pairs...).Replace(bodies[n%len(bodies)])
		}
	}()
	return out
}
