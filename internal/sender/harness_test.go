package sender_test

import (
	"context"
	"crypto/x509"
	"database/sql"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/sender"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/internal/testlog"
	"github.com/edgvoip/edgvoip/test/w3receiver"
	"github.com/edgvoip/edgvoip/webhook"
)

// scene is a database with tenants that have receivers.
type scene struct {
	dsn string
	db  *postgres.DB
	raw *sql.DB
	log *testlog.Lines
}

func newScene(t testing.TB) *scene {
	t.Helper()
	s := &scene{dsn: testdb.New(t), log: &testlog.Lines{}}
	var err error
	if s.raw, err = sql.Open("postgres", s.dsn); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.raw.Close() })
	s.db = s.store(t)
	return s
}

// store opens the database once more, as another process would.
func (s *scene) store(t testing.TB) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(postgres.Options{URL: s.dsn, Role: "edgvoip_api", Application: "test", StatementTimeout: 10 * time.Second}, slog.New(slog.NewTextHandler(s.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func (s *scene) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := s.raw.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// number asks for a number.
func (s *scene) number(t testing.TB, query string, args ...any) (n int) {
	t.Helper()
	if err := s.raw.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// tenant is a tenant with a receiver.
type tenant struct {
	s        *scene
	id       uuid.UUID
	secret   integration.Issued
	receiver *w3receiver.Receiver
	server   *httptest.Server
	taken    chan string // subjects, see watch
}

// tenant makes a tenant with a secret, a receiver over TLS, and an endpoint that leads there.
func (s *scene) tenant(t testing.TB, slug string) *tenant {
	t.Helper()
	w := &tenant{s: s, id: storetest.TenantID(slug)}
	s.exec(t, `INSERT INTO edgvoip.tenants (id, slug, name, country) VALUES ($1, $2, $2, 'IT')`, w.id, slug)
	var err error
	if w.secret, err = s.issuer().Add(t.Context(), w.id, "test"); err != nil {
		t.Fatal(err)
	}
	if w.receiver, err = w3receiver.New(w3receiver.Options{Secrets: []string{w.secret.HMAC}}); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewTLSServer(w.receiver)
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(w.server.Close)
	w.endpoint(t, w.server.URL+"/"+slug)
	return w
}

func (s *scene) issuer() *integration.Issuer {
	return integration.NewIssuer(s.db, storetest.Keys(), time.Now)
}

func (w *tenant) endpoint(t testing.TB, url string) {
	t.Helper()
	if _, err := webhook.NewProvisioner(w.s.db, true).Put(t.Context(), w.id, webhook.Change{BaseURL: &url}, "test"); err != nil {
		t.Fatal(err)
	}
}

// add writes events of a subject, one after the other. No two bodies are alike: those of one second would have one
// signature, which a receiver takes for a replay.
func (w *tenant) add(t testing.TB, subject uuid.UUID, n int) {
	t.Helper()
	w.s.exec(t, `INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload)
		SELECT $1, gen_random_uuid(), 'cdr', $2, jsonb_build_object('callId', $2::uuid, 'revision', gen_random_uuid())::text FROM generate_series(1, $3::int) n`, w.id, subject, n)
}

// state counts the tenant's events of a state.
func (w *tenant) state(t testing.TB, state webhook.State) int {
	t.Helper()
	return w.s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE tenant_id = $1 AND state = $2`, w.id, string(state))
}

// options are those of a sender that trusts the receivers of the tests and may dial them.
func (s *scene) options(trust ...*tenant) sender.Options {
	roots := x509.NewCertPool()
	for _, w := range trust {
		roots.AddCert(w.server.Certificate())
	}
	return sender.Options{
		Store: s.db, Keys: storetest.Keys(), Allow: webhook.Networks{netip.MustParsePrefix("127.0.0.0/8")}, Roots: roots, Timeout: 5 * time.Second,
		Grace: 100 * time.Millisecond, Registry: prometheus.NewRegistry(), Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
}

// send runs a sender until stop is called, or the test ends.
func send(t testing.TB, o sender.Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sender.New(o).Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !so() {
		if time.Now().After(deadline) {
			t.Fatalf("not in a minute: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// subject is a fixed one.
func subject(n int) uuid.UUID { return uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "subject %d", n)) }
