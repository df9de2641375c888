package testdb_test

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/testdb"
)

func TestNewHasTheSchemaAndNobodyElsesRows(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprintf("test %d", i), func(t *testing.T) {
			t.Parallel()
			db := open(t, testdb.New(t))
			const insert = `INSERT INTO edgvoip.tenants (id, slug, name, country)
				VALUES ('00000000-0000-0000-0000-000000000001', 'tenant-a', 'Tenant A', 'IT')`
			if _, err := db.ExecContext(t.Context(), insert); err != nil {
				t.Fatalf("insert the same tenant in every database: %v", err)
			}
		})
	}
}

func TestEmptyHasNoSchema(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Empty(t))
	if count(t, db, `SELECT count(*) FROM pg_namespace WHERE nspname = 'edgvoip'`) != 0 {
		t.Error("the empty database has a schema edgvoip")
	}
}

//nolint:tparallel // The rest of the test begins when its subtest has ended, and only then.
func TestDatabaseIsDroppedAlthoughSomebodyIsConnected(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("uses a database", func(t *testing.T) {
		db, err := sql.Open("postgres", testdb.Empty(t))
		if err != nil {
			t.Fatal(err)
		}
		// Closed after the database is gone.
		t.Cleanup(func() { _ = db.Close() })
		if err := db.QueryRowContext(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	if name == "" {
		t.Skip("no database: the test above says why")
	}
	server := open(t, testdb.Empty(t))
	if count(t, server, `SELECT count(*) FROM pg_database WHERE datname = $1`, name) != 0 {
		t.Errorf("database %s outlived its test", name)
	}
}

func TestWithoutServer(t *testing.T) {
	for _, test := range []struct{ name, require, want string }{
		{"skips", "", "skip"},
		{"fails where a server is required", "1", "fatal"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("TEST_DATABASE_URL", "")
			t.Setenv("EDGVOIP_TEST_REQUIRE_DATABASE", test.require)
			stopped := &stopper{TB: t}
			stopped.run(func() { testdb.New(stopped) })
			if stopped.how != test.want {
				t.Errorf("stopped by %q, want %q", stopped.how, test.want)
			}
			if !strings.Contains(stopped.reason, "make test") {
				t.Errorf("the reason does not say how to run: %q", stopped.reason)
			}
		})
	}
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, dsn, want string }{
		{"URL", "postgres://user@host:5433/other?sslmode=disable", "postgres://user@host:5433/name?sslmode=disable"},
		{"URL of a socket", "postgres://u@/postgres?host=/tmp/x", "postgres://u@/name?host=%2Ftmp%2Fx"},
		{"URL with the database as a parameter", "postgresql://host?dbname=other", "postgresql://host/name"},
		{"key=value", "host=/tmp/x dbname=other", "host=/tmp/x dbname=other dbname=name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := testdb.WithDatabase(test.dsn, "name")
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestWithDatabaseKeepsPasswordsOutOfErrors(t *testing.T) {
	t.Parallel()
	_, err := testdb.WithDatabase("postgres://user:se%zzcret@host/", "name")
	if err == nil || strings.Contains(err.Error(), "cret") {
		t.Errorf("got error %v, want one without the password", err)
	}
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func count(t *testing.T, db *sql.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// stopper records how a helper stopped the test that it was given.
type stopper struct {
	testing.TB
	how, reason string
}

func (s *stopper) Skip(args ...any)  { s.stop("skip", args) }
func (s *stopper) Fatal(args ...any) { s.stop("fatal", args) }

func (s *stopper) stop(how string, args []any) {
	s.how, s.reason = how, fmt.Sprint(args...)
	panic(s)
}

func (s *stopper) run(f func()) {
	defer func() {
		if r := recover(); r != nil && r != s {
			panic(r)
		}
	}()
	f()
}
