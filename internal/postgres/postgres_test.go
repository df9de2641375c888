package postgres_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// open returns a pool on a database, in a role, and what it logs.
func open(tb testing.TB, dsn, role string) (*postgres.DB, *bytes.Buffer) {
	tb.Helper()
	var lines bytes.Buffer
	db, err := postgres.Open(postgres.Options{URL: dsn, Role: role, Application: "test", StatementTimeout: 5 * time.Second},
		slog.New(slog.NewJSONHandler(&lines, nil)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db, &lines
}

// raw returns a plain connection, to look at rows and to write what no constructor would let through.
func raw(tb testing.TB, dsn string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Error(err)
		}
	})
	return db
}

func exec1(tb testing.TB, db *sql.DB, query string, args ...any) {
	tb.Helper()
	if _, err := db.ExecContext(tb.Context(), query, args...); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

// scene returns a database that holds the scene.
func scene(tb testing.TB) (dsn string, db *sql.DB) {
	tb.Helper()
	dsn = testdb.New(tb)
	db = raw(tb, dsn)
	storetest.Build(storetest.SQL{TB: tb, DB: db})
	return dsn, db
}

// The store keeps the contract in the role that xmlcurl has, which may read nothing else.
func TestContract(t *testing.T) {
	t.Parallel()
	dsn, _ := scene(t)
	db, lines := open(t, dsn, "edgvoip_xmlcurl")
	storetest.Contract(t, db)
	if err := db.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if lines.Len() > 0 {
		t.Errorf("logged: %s", lines)
	}
}

// Rows that hold what no constructor lets through are as if they were not there, and are reported; the others are not
// harmed.
func TestUnfitRows(t *testing.T) {
	t.Parallel()
	dsn, rawDB := scene(t)
	for _, check := range []string{
		"sip_extensions DROP CONSTRAINT sip_extensions_sip_username_check", "sip_extensions DROP CONSTRAINT sip_extensions_extension_check",
		"sip_domains DROP CONSTRAINT sip_domains_realm_check", "tenants DROP CONSTRAINT tenants_slug_check",
	} {
		exec1(t, rawDB, `ALTER TABLE edgvoip.`+check)
	}
	for i, hostile := range []string{"${system(touch /tmp/x)}", "$${default_password}", `<!"/><param name="password" value="x`, "x-pre-process", "a\x01b", "a\"b", "a,loopback/9196"} {
		exec1(t, rawDB, `UPDATE edgvoip.sip_extensions SET display_name = $1 WHERE id = $2`, hostile, storetest.ExtensionID("tenant-a.example", "1001"))
		exec1(t, rawDB, `UPDATE edgvoip.sip_trunks SET name = $1 WHERE id = $2`, hostile, storetest.TrunkID("tenant-a", "first"))
		db, lines := open(t, dsn, "edgvoip_xmlcurl")
		if _, _, err := db.Extension(t.Context(), storetest.Realm("tenant-a.example"), storetest.Username("1001")); i < 6 && err != directory.ErrUnknownExtension { //nolint:errorlint // exactly this
			t.Errorf("extension called %q: %v", hostile, err)
		}
		_, exts, err := db.Extensions(t.Context(), storetest.Realm("tenant-a.example"), 100)
		if err != nil || len(exts) != 5 && i < 6 {
			t.Errorf("beside an extension called %q: %d extensions, %v; want 5", hostile, len(exts), err)
		}
		trunks, err := db.ActiveTrunks(t.Context())
		if err != nil || len(trunks) != 2 && i < 6 {
			t.Errorf("beside a trunk called %q: %d trunks, %v; want 2", hostile, len(trunks), err)
		}
		if i < 6 && strings.Count(lines.String(), "row left out") != 3 {
			t.Errorf("reported: %s", lines)
		}
		if strings.Contains(lines.String(), "touch") {
			t.Errorf("the report repeats the text: %s", lines)
		}
	}
	exec1(t, rawDB, `UPDATE edgvoip.tenants SET slug = 'x y' WHERE id = $1`, storetest.TenantID("tenant-b"))
	db, _ := open(t, dsn, "edgvoip_xmlcurl")
	if _, err := db.Domain(t.Context(), storetest.Realm("tenant-b.example")); err != directory.ErrUnknownDomain { //nolint:errorlint // exactly this
		t.Errorf("domain of an unfit tenant: %v", err)
	}
}

// xmlcurl's role reads what it renders and nothing else; the audit log only grows.
func TestRoles(t *testing.T) {
	t.Parallel()
	_, db := scene(t)
	for _, tc := range []struct {
		role, query string
		allowed     bool
	}{
		{"edgvoip_xmlcurl", `SELECT ha1_md5_sealed FROM edgvoip.sip_extensions`, true},
		{"edgvoip_xmlcurl", `SELECT password_hash FROM edgvoip.sip_extensions`, false},
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.integration_secrets`, false},
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.audit_log`, false},
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.jobs`, false},
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.cdr`, false},
		{"edgvoip_xmlcurl", `UPDATE edgvoip.tenants SET name = name`, false},
		{"edgvoip_xmlcurl", `DELETE FROM edgvoip.sip_extensions`, false},
		{"edgvoip_xmlcurl", `INSERT INTO edgvoip.changes (tenant_id, subject) SELECT id, 'tenant' FROM edgvoip.tenants`, false},
		{"edgvoip_api", `UPDATE edgvoip.sip_extensions SET display_name = 'x'`, true},
		{"edgvoip_api", `INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id) SELECT id, 'a', 'a.b', id FROM edgvoip.tenants`, true},
		{"edgvoip_api", `UPDATE edgvoip.audit_log SET actor = 'x'`, false},
		{"edgvoip_api", `DELETE FROM edgvoip.audit_log`, false},
		{"edgvoip_api", `TRUNCATE edgvoip.audit_log`, false},
		{"edgvoip_api", `INSERT INTO edgvoip.sip_names VALUES (gen_random_uuid(), gen_random_uuid(), 'x', gen_random_uuid())`, false},
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.ExecContext(t.Context(), `SET LOCAL ROLE `+tc.role)
		if err == nil {
			_, err = tx.ExecContext(t.Context(), tc.query)
		}
		if (err == nil) != tc.allowed || err != nil && !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %s: %v, want allowed: %v", tc.role, tc.query, err, tc.allowed)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// schema.sql is what the migrations build, to the letter of pg_dump.
func TestSchemaMatchesMigrations(t *testing.T) {
	t.Parallel()
	written, migrated := testdb.New(t), testdb.Empty(t)
	db, _ := open(t, migrated, "")
	// Two at once: one works, the other waits and finds nothing to do.
	done := make(chan error, 2)
	for range 2 {
		go func() { _, err := db.Migrate(context.WithoutCancel(t.Context())); done <- err }()
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if n, err := db.Migrate(t.Context()); err != nil || n != 0 {
		t.Errorf("again: %d steps, %v; want none", n, err)
	}
	exec1(t, raw(t, written), `SELECT edgvoip.ensure_cdr_partitions(now()::date, 12)`)
	if diff := cmp.Diff(dump(t, written), dump(t, migrated)); diff != "" {
		t.Errorf("schema.sql (-) and migrations (+) differ\n%s", diff)
	}
}

// dump returns a database's schema as pg_dump writes it, without what says nothing about it.
func dump(tb testing.TB, dsn string) []string {
	tb.Helper()
	path, err := pgDump()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := exec.CommandContext(tb.Context(), path, "--schema-only", "--schema=edgvoip", "--dbname="+dsn).Output()
	if err != nil {
		tb.Fatalf("pg_dump: %v", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if line != "" && !regexp.MustCompile(`^(--|SET |SELECT pg_catalog|\\(un)?restrict)`).MatchString(line) {
			lines = append(lines, line)
		}
	}
	return lines
}

func pgDump() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/pg_dump")
	if err != nil || len(found) == 0 {
		return exec.LookPath("pg_dump")
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// Among a million numbers a DID is found by one descent of an index, whether it is there or not.
func TestDIDAmongAMillion(t *testing.T) {
	t.Parallel()
	dsn, db := scene(t)
	const ranges = 100_000 // of ten numbers each
	exec1(t, db, `INSERT INTO edgvoip.sip_trunk_did_ranges (tenant_id, trunk_id, first_number, last_number)
		SELECT $1, $2, 44700000000 + n * 20, 44700000009 + n * 20 FROM generate_series(0, $3 - 1) AS n`,
		storetest.TenantID("tenant-a"), storetest.TrunkID("tenant-a", "second"), ranges)
	exec1(t, db, `ANALYZE edgvoip.sip_trunk_did_ranges`)
	store, _ := open(t, dsn, "edgvoip_xmlcurl")
	for number, want := range map[int64]bool{44700000000: true, 44700000009: true, 44700000010: false, 44701999989: true, 44701999990: false, 44699999999: false} {
		e, err := fstext.NewE164(fmt.Sprintf("+%d", number))
		if err != nil {
			t.Fatal(err)
		}
		found, err := store.InboundTrunk(t.Context(), e)
		if (err == nil && found.ID == storetest.TrunkID("tenant-a", "second")) != want {
			t.Errorf("%d found: %v, %v; want %v", number, found.ID, err, want)
		}
	}
	plan := explain(t, db, strings.ReplaceAll(postgres.InboundQuery, "$1", "44701000005"))
	if !strings.Contains(plan, "Index Only Scan using sip_trunk_did_ranges_last_idx") && !strings.Contains(plan, "Index Scan using sip_trunk_did_ranges_last_idx") || !strings.Contains(plan, "rows=1 ") {
		t.Errorf("not one descent of the index:\n%s", plan)
	}
}

// explain returns how a query without parameters was carried out.
func explain(tb testing.TB, db *sql.DB, query string) string {
	tb.Helper()
	rows, err := db.QueryContext(tb.Context(), `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS) `+query)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var plan string
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			tb.Fatal(err)
		}
		plan += line + "\n"
	}
	if err := rows.Err(); err != nil {
		tb.Fatal(err)
	}
	return plan
}

// Changes are removed so many at a time, so that no call runs into a statement timeout.
func TestPruneChanges(t *testing.T) {
	t.Parallel()
	_, db := scene(t)
	exec1(t, db, `INSERT INTO edgvoip.changes (tenant_id, at, subject, tx, oldest) SELECT $1, now() - interval '2 hours', 'tenant', '5', '6'
		FROM generate_series(1, 45000)`, storetest.TenantID("tenant-a"))
	for _, want := range []int{20000, 20000, 45000 - 40000 - 1001, 0} {
		var removed int
		if err := db.QueryRowContext(t.Context(), `SELECT edgvoip.prune_changes('1 hour')`).Scan(&removed); err != nil || removed != want {
			t.Errorf("removed %d, %v, want %d", removed, err, want)
		}
	}
}

// A change that was written long ago, and committed a moment ago, may not have been seen by anybody.
func TestLateChangeIsNotPruned(t *testing.T) {
	t.Parallel()
	_, db := scene(t)
	tenant := storetest.TenantID("tenant-a")
	const add = `INSERT INTO edgvoip.changes (tenant_id, at, subject) SELECT $1, now() - interval '2 hours', 'tenant' FROM generate_series(1, $2::int)`
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // it may be over
	if _, err := tx.ExecContext(t.Context(), add, tenant, 1); err != nil {
		t.Fatal(err)
	}
	var late int64
	if err := tx.QueryRowContext(t.Context(), `SELECT max(id) FROM edgvoip.changes`).Scan(&late); err != nil {
		t.Fatal(err)
	}
	exec1(t, db, add, tenant, 2000)
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), `SELECT edgvoip.prune_changes('1 hour')`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.changes WHERE id = $1`, late).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if left() != 1 {
		t.Error("it was removed before anybody could see it for long enough")
	}
	// Other tests' transactions count too, until they are over.
	for deadline := time.Now().Add(time.Minute); left() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is never removed")
		}
		exec1(t, db, add, tenant, 1)
	}
}

// Ranges of two tenants cannot share a number.
func TestDIDRangesDoNotOverlap(t *testing.T) {
	t.Parallel()
	_, db := scene(t)
	for first, last := range map[int64]int64{390612345600: 390612345600, 390612345650: 390612345750, 390612345500: 390612345900, 390612345699: 390612345699} {
		_, err := db.ExecContext(t.Context(), `INSERT INTO edgvoip.sip_trunk_did_ranges VALUES ($1, $2, $3, $4)`,
			storetest.TenantID("tenant-b"), storetest.TrunkID("tenant-b", "first"), first, last)
		if err == nil || !strings.Contains(err.Error(), "sip_trunk_did_ranges") {
			t.Errorf("%d to %d: %v", first, last, err)
		}
	}
}

// CDR partitions are made ahead, once, by month of UTC whatever the session's zone.
func TestPartitions(t *testing.T) {
	t.Parallel()
	_, db := scene(t)
	db.SetMaxOpenConns(1)
	exec1(t, db, `SET timezone = 'Pacific/Auckland'`)
	var made, again int
	if err := db.QueryRowContext(t.Context(), `SELECT edgvoip.ensure_cdr_partitions('2026-11-20', 2), edgvoip.ensure_cdr_partitions('2026-12-31', 1)`).Scan(&made, &again); err != nil {
		t.Fatal(err)
	}
	if made != 6 || again != 0 {
		t.Errorf("made %d and then %d partitions, want 6 and 0", made, again)
	}
	// A row in the default partition keeps its own month from being made, and no other.
	exec1(t, db, `INSERT INTO edgvoip.cdr_legs (tenant_id, leg_id, call_id, start_time, raw) VALUES (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), '2027-03-05', '{}')`)
	if err := db.QueryRowContext(t.Context(), `SELECT edgvoip.ensure_cdr_partitions('2027-02-01', 2)`).Scan(&made); err != nil || made != 5 {
		t.Errorf("beside a stray row: %d partitions, %v; want 5", made, err)
	}
	const insert = `INSERT INTO edgvoip.cdr (tenant_id, call_id, "from", "to", direction, start_time, disposition, raw)
		VALUES (gen_random_uuid(), gen_random_uuid(), '1', '2', 'internal', $1, 'answered', '{}') RETURNING tableoid::regclass::text`
	for at, want := range map[string]string{
		"2026-11-01T00:00:00Z": "edgvoip.cdr_2026_11", "2026-11-30T23:59:59Z": "edgvoip.cdr_2026_11", "2026-12-01T00:00:00Z": "edgvoip.cdr_2026_12", "2027-06-01T00:00:00Z": "edgvoip.cdr_default",
	} {
		var table string
		if err := db.QueryRowContext(t.Context(), insert, at).Scan(&table); err != nil || table != want {
			t.Errorf("a call at %s is in %s, %v; want %s", at, table, err, want)
		}
	}
}

// Whoever asks has his answer when his time is up, though the server accepts and then says nothing and lib/pq ignores
// contexts there.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	db, err := postgres.Open(postgres.Options{URL: fmt.Sprintf("postgres://u@%s/d?sslmode=disable", l.Addr()), StatementTimeout: time.Hour},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := db.Extension(ctx, storetest.Realm("a.example"), storetest.Username("1001")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server gave %v", err)
	}
}

func TestBadURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"postgres://%zz", "host='unterminated", "postgres://u:s3cret@h:notaport/d"} {
		if _, err := postgres.Open(postgres.Options{URL: url}, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// A server that refuses its history is followed without, and asked for it again later: the refusal may have passed.
func TestHistoryRefusedForAWhile(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	owner := raw(t, dsn)
	follower, _ := open(t, dsn, "edgvoip_xmlcurl")
	history := func() string {
		t.Helper()
		page, err := follower.Changes(t.Context(), feed.Mark{}, feed.Mark{}, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		return page.History
	}
	first := history()
	if first == "" {
		t.Fatal("the server does not tell its history")
	}
	exec1(t, owner, `REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC`)
	if got := history(); got != "" {
		t.Errorf("history %q of a server that refuses it", got)
	}
	exec1(t, owner, `GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC`)
	if got := history(); got != "" {
		t.Error("the server is asked at each reading")
	}
	follower.RefusedHistory(2 * time.Minute)
	if got := history(); got != first {
		t.Errorf("history %q, want %q", got, first)
	}
}
