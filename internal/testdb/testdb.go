// Package testdb gives each test a PostgreSQL database of its own, so that tests of storage run in parallel on the real
// engine and cannot see each other's rows. Only tests may import it, and it imports nothing else of this module.
//
// The server is the one that TEST_DATABASE_URL names; dev/with-postgres starts a private one. Its user must be allowed
// to create databases and roles. New copies a template database, which is built from schema.sql once per server and
// carries the hash of that file in its name: a changed schema makes a new template, and the old one stays until
// somebody drops it or, as usual, the whole private server.
package testdb

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/lib/pq" // Registers the database/sql driver "postgres".
)

// Environment variables.
const (
	// urlVariable holds the URL or key=value connection string of a server for tests.
	urlVariable = "TEST_DATABASE_URL"
	// requireVariable, set to 1, turns the skip without a server into a failure, so that CI cannot pass by skipping.
	requireVariable = "EDGVOIP_TEST_REQUIRE_DATABASE"
)

// templateLock is the key of the advisory lock under which templates are built. Besides the template itself it guards
// the roles that schema.sql makes: they belong to the whole server, and two sessions that create them at once would
// collide.
const templateLock = 0x65646776 // "edgv"

// cleanupTimeout bounds the drop of a database: the test's own context is already done by then.
const cleanupTimeout = 30 * time.Second

// New makes a database with the project's schema and no rows, and returns its connection string for lib/pq. The
// database is dropped, with any connection still open to it, when the test ends. Without a server the test is skipped.
func New(t testing.TB) (dsn string) {
	t.Helper()
	server := serverFor(t)
	return create(t, server, server.template)
}

// Empty is New without the schema, for tests that build it. The roles of schema.sql do exist already: they are
// not part of a database.
func Empty(t testing.TB) (dsn string) {
	t.Helper()
	return create(t, serverFor(t), "template0")
}

// server is the PostgreSQL server that a test binary uses.
type server struct {
	dsn      string
	template string
}

// prepare builds the template at the first use in this process; later uses get the same answer.
var prepare = sync.OnceValues(func() (server, error) {
	// Not a test's context: the work is for every test of the process.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dsn := os.Getenv(urlVariable)
	template, err := ensureTemplate(ctx, dsn)
	return server{dsn: dsn, template: template}, err
})

func serverFor(t testing.TB) server {
	t.Helper()
	if os.Getenv(urlVariable) == "" {
		const reason = urlVariable + " is not set: run with make test, or dev/with-postgres go test ./..."
		if os.Getenv(requireVariable) == "1" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	s, err := prepare()
	if err != nil {
		t.Fatalf("prepare the test database server: %v", err)
	}
	return s
}

func create(t testing.TB, s server, template string) string {
	t.Helper()
	name := "edgvoip_test_" + strings.ToLower(rand.Text()[:16])
	if err := execute(t.Context(), s.dsn, fmt.Sprintf(`CREATE DATABASE %s TEMPLATE %s`, name, template)); err != nil {
		t.Fatalf("create test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), cleanupTimeout)
		defer cancel()
		if err := execute(ctx, s.dsn, fmt.Sprintf(`DROP DATABASE IF EXISTS %s WITH (FORCE)`, name)); err != nil {
			t.Errorf("drop test database: %v", err)
		}
	})
	dsn, err := withDatabase(s.dsn, name)
	if err != nil {
		t.Fatal(err)
	}
	return dsn
}

// ensureTemplate returns the name of the template for the present schema.sql and builds it where the server lacks it.
func ensureTemplate(ctx context.Context, dsn string) (name string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	schema, err := os.ReadFile(filepath.Join(root, "schema.sql")) //nolint:gosec // A fixed name below the module's root.
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(schema)
	name = "edgvoip_template_" + hex.EncodeToString(sum[:8])

	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", urlVariable, err)
	}
	defer db.Close()
	// Advisory locks belong to a session, so all steps share one; the lock ends with it.
	conn, err := db.Conn(ctx)
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", urlVariable, err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, templateLock); err != nil {
		return "", fmt.Errorf("lock templates: %w", err)
	}
	defer func() {
		_, unlockErr := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, templateLock)
		err = errors.Join(err, unlockErr)
	}()

	var exists bool
	if err := conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil {
		return "", fmt.Errorf("look for template %s: %w", name, err)
	}
	if exists {
		return name, nil
	}
	return name, build(ctx, conn, dsn, name, string(schema))
}

// build makes a template under another name and renames it at the end, so that one is complete or does not exist. It
// then refuses connections, because a database that somebody is connected to cannot be copied.
func build(ctx context.Context, conn *sql.Conn, dsn, name, schema string) error {
	building := name + "_building"
	run := func(statements ...string) error {
		for _, statement := range statements {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("build template %s: %w", name, err)
			}
		}
		return nil
	}
	if err := run(`DROP DATABASE IF EXISTS `+building+` WITH (FORCE)`, `CREATE DATABASE `+building+` TEMPLATE template0`); err != nil {
		return err
	}
	buildingDSN, err := withDatabase(dsn, building)
	if err != nil {
		return err
	}
	if err := execute(ctx, buildingDSN, schema); err != nil {
		return fmt.Errorf("apply schema.sql: %w", err)
	}
	return run(`ALTER DATABASE `+building+` ALLOW_CONNECTIONS false`, `ALTER DATABASE `+building+` RENAME TO `+name)
}

// execute runs statements on a connection of their own: CREATE and DROP DATABASE want no session around them.
func execute(ctx context.Context, dsn, statements string) error {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, statements)
	return errors.Join(err, db.Close())
}

// withDatabase returns the connection string dsn with another database, in the form that it came in.
func withDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		// Of settings given twice the last one counts.
		return dsn + " dbname=" + name, nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		// The error of url.Parse repeats its input, which may hold a password.
		return "", errors.New(urlVariable + " is not a valid URL")
	}
	u.Path = "/" + name
	query := u.Query()
	query.Del("dbname")
	u.RawQuery = query.Encode()
	return u.String(), nil
}

// moduleRoot finds the module from the working directory, which go test sets to the directory of the tested package.
// Unlike the source paths in the binary this also holds with -trimpath.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(filepath.Join(dir, "go.mod"))
		if err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == dir {
			return "", fmt.Errorf("find go.mod above the working directory: %w", err)
		}
		dir = parent
	}
}
