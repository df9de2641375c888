// Package postgres keeps everything in PostgreSQL. It is the only package that knows SQL, sqlx and lib/pq, and it
// implements the Store and Registry interfaces of the domain packages. Rows become domain types through the domain's
// own constructors, so text that came into the database some other way is refused here as it would be anywhere.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// Options say how to connect.
type Options struct {
	// URL is a postgres:// URL or a key=value connection string. It may hold a password and is never logged.
	URL string
	// Role is assumed on every connection; empty means the login's own.
	Role string
	// Application names the process in pg_stat_activity.
	Application string
	// MaxConns bounds the pool; zero means 10.
	MaxConns int
	// StatementTimeout bounds each statement on the server; zero means no bound, which only migrations need. A server
	// that stays silent longer is given up.
	StatementTimeout time.Duration
}

// The silence after which a connection counts as dead, beyond the statement timeout: lib/pq ignores a context while it
// waits for a server that has gone silent (github.com/lib/pq issues 450, 620).
const silence = 500 * time.Millisecond

// DB is a pool of connections. It is safe for concurrent use.
type DB struct {
	db  *sqlx.DB
	dsn string // for connections beside the pool
	log *slog.Logger
	// documents writes call records on connections of its own.
	documents *documentWriter
	// historyRefused is when a server last refused to tell its cluster and timeline, in Unix nanoseconds; zero for never.
	historyRefused atomic.Int64

	mu        sync.Mutex
	stmts     map[string]*sqlx.Stmt
	preparing map[string]bool
}

// errSettings is for a connection string that cannot be read. It is not repeated: a password may be in it.
var errSettings = errors.New("DATABASE_URL is not a PostgreSQL URL or connection string")

// Open returns a pool. It does not connect: the server may be away now and come back.
func Open(o Options, log *slog.Logger) (*DB, error) {
	dsn := o.URL
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		// Parameters are added below in the other form.
		var err error
		if dsn, err = pq.ParseURL(dsn); err != nil { //nolint:staticcheck // deprecated as not needed to connect, which is not what it is for here
			return nil, errSettings
		}
	}
	add := func(key, value string) {
		if value != "" {
			dsn += " " + key + "='" + value + "'"
		}
	}
	add("application_name", o.Application)
	add("role", o.Role)
	add("connect_timeout", "2")
	dialer := deadlineDialer{}
	if o.StatementTimeout > 0 {
		add("statement_timeout", fmt.Sprint(o.StatementTimeout.Milliseconds()))
		dialer.silence = o.StatementTimeout + silence
	}
	n := o.MaxConns
	if n <= 0 {
		n = 10
	}
	log = log.With("component", "postgres")
	d, err := pool(dsn, dialer, n, log)
	if err != nil {
		return nil, err
	}
	documents, err := pool(dsn+" binary_parameters='yes'", dialer, documentWriters, log)
	if err != nil {
		return nil, errors.Join(err, d.db.Close())
	}
	d.documents = &documentWriter{db: documents}
	return d, nil
}

// pool returns a pool of so many connections. It does not connect.
func pool(dsn string, dialer deadlineDialer, conns int, log *slog.Logger) (*DB, error) {
	connector, err := pq.NewConnector(dsn)
	if err != nil {
		return nil, errSettings
	}
	connector.Dialer(dialer)
	db := sqlx.NewDb(sql.OpenDB(connector), "postgres")
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(30 * time.Minute)
	return &DB{db: db, dsn: dsn, log: log, stmts: map[string]*sqlx.Stmt{}, preparing: map[string]bool{}}, nil
}

// Close closes the pool, and the connections beside it that documents are written on.
func (d *DB) Close() error { return errors.Join(d.db.Close(), d.documents.db.db.Close()) }

// Ping tells whether the server answers and the schema is there and readable.
func (d *DB) Ping(ctx context.Context) error {
	if _, err := get[int](ctx, d, `SELECT count(*) FROM (SELECT FROM edgvoip.tenants LIMIT 1) AS t`); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// Pool returns the pool, for its statistics.
func (d *DB) Pool() *sql.DB { return d.db.DB }

// prepared returns the prepared statement of a query: one round trip a lookup instead of two. The lock is not held
// while the server is asked, which may be away.
func (d *DB) prepared(ctx context.Context, query string) (*sqlx.Stmt, error) {
	d.mu.Lock()
	s, ok := d.stmts[query]
	d.mu.Unlock()
	if ok {
		return s, nil
	}
	s, err := d.db.PreparexContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if first, ok := d.stmts[query]; ok {
		_ = s.Close() //nolint:sqlclosecheck // the other one stays open: somebody was faster; a failed close leaves one unused statement on one connection
		return first, nil
	}
	d.stmts[query] = s
	return s, nil
}

// get returns the one row of a query. Errors: sql.ErrNoRows, ctx's, the server's.
func get[T any](ctx context.Context, d *DB, query string, args ...any) (T, error) {
	return bounded(ctx, func() (row T, err error) {
		stmt, err := d.prepared(ctx, query)
		if err != nil {
			return row, err
		}
		err = stmt.GetContext(ctx, &row, args...)
		return row, err
	})
}

// list returns all rows of a query. Errors: ctx's, the server's.
func list[T any](ctx context.Context, d *DB, query string, args ...any) ([]T, error) {
	return bounded(ctx, func() (rows []T, err error) {
		stmt, err := d.prepared(ctx, query)
		if err != nil {
			return nil, err
		}
		err = stmt.SelectContext(ctx, &rows, args...)
		return rows, err
	})
}

// bounded runs f no longer than ctx allows: what asked must have its answer, and lib/pq does not watch ctx while a
// server is silent. An f left behind ends with its connection's deadline. A fault of the server that passes is marked,
// see unavailable.
func bounded[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, faulty(err)}
	}()
	select {
	case r := <-done:
		if r.err != nil && ctx.Err() != nil {
			// Both happened at once: whoever's time is up is told so, whatever the driver made of it.
			return r.value, errors.Join(ctx.Err(), r.err)
		}
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// inTx runs f in a transaction: committed if f returns nil, rolled back otherwise. The correlation id of ctx is there
// for the triggers, which write it into the jobs that f's changes cause. A fault of the server that passes is marked,
// see unavailable.
func (d *DB) inTx(ctx context.Context, f func(*txn) error) (err error) {
	defer func() { err = faulty(err) }()
	begun, err := d.db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	tx := &txn{begun, d}
	// Also when f panics: the connection must come back.
	defer func() {
		if rb := tx.Rollback(); rb != nil && !errors.Is(rb, sql.ErrTxDone) {
			d.log.ErrorContext(ctx, "rollback", "error", rb)
		}
	}()
	if id := telemetry.Correlation(ctx); id != "" {
		if _, err := tx.ExecContext(ctx, `SELECT set_config('edgvoip.correlation_id', $1, true)`, id); err != nil {
			return fmt.Errorf("set correlation id: %w", err)
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// deadlineDialer makes connections on which every read and write has a deadline.
type deadlineDialer struct {
	// silence is the longest a server may take to send or accept something; zero means for ever.
	silence time.Duration
}

func (d deadlineDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, 0)
}

func (d deadlineDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx := context.Background()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return d.DialContext(ctx, network, address)
}

func (d deadlineDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &deadlineConn{Conn: c, silence: d.silence}, nil
}

type deadlineConn struct {
	net.Conn
	silence time.Duration
}

func (c *deadlineConn) Read(b []byte) (int, error) {
	if c.silence > 0 {
		if err := c.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *deadlineConn) Write(b []byte) (int, error) {
	if c.silence > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.silence)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}
