package postgres

import (
	"context"
	"database/sql"
	"time"

	"github.com/jmoiron/sqlx"
)

// txn is a transaction whose statements are prepared once a connection rather than read and planned each time, which is
// most of what a small write costs the server. A statement is prepared beside the transactions that want it, not by
// them: preparing takes a connection of the pool, which transactions may hold to the last one. Until that is done it
// runs unprepared.
type txn struct {
	*sqlx.Tx
	d *DB
}

// ExecContext runs a statement that returns no rows.
func (t *txn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := t.d.ready(ctx, query); s != nil {
		return t.StmtxContext(ctx, s).ExecContext(ctx, args...)
	}
	return t.Tx.ExecContext(ctx, query, args...)
}

// QueryContext implements sqlx.QueryerContext.
func (t *txn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := t.d.ready(ctx, query); s != nil {
		return t.StmtxContext(ctx, s).QueryContext(ctx, args...)
	}
	return t.Tx.QueryContext(ctx, query, args...)
}

// QueryxContext implements sqlx.QueryerContext.
func (t *txn) QueryxContext(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	if s := t.d.ready(ctx, query); s != nil {
		return t.StmtxContext(ctx, s).QueryxContext(ctx, args...) //nolint:sqlclosecheck // the transaction closes it at its end
	}
	return t.Tx.QueryxContext(ctx, query, args...)
}

// QueryRowxContext implements sqlx.QueryerContext.
func (t *txn) QueryRowxContext(ctx context.Context, query string, args ...any) *sqlx.Row {
	if s := t.d.ready(ctx, query); s != nil {
		return t.StmtxContext(ctx, s).QueryRowxContext(ctx, args...) //nolint:sqlclosecheck // the transaction closes it at its end
	}
	return t.Tx.QueryRowxContext(ctx, query, args...)
}

// GetContext reads one row.
func (t *txn) GetContext(ctx context.Context, dest any, query string, args ...any) error {
	return sqlx.GetContext(ctx, t, dest, query, args...)
}

// SelectContext reads all rows.
func (t *txn) SelectContext(ctx context.Context, dest any, query string, args ...any) error {
	return sqlx.SelectContext(ctx, t, dest, query, args...)
}

// preparePatience bounds how long a statement may take to be prepared. Without it a server that has gone silent would
// keep the attempt, and every later one, for ever.
const preparePatience = 5 * time.Second

// ready returns the prepared statement of a query, or nil and sees to it that there is one later.
func (d *DB) ready(ctx context.Context, query string) *sqlx.Stmt {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.stmts[query]; ok {
		return s
	}
	if !d.preparing[query] {
		d.preparing[query] = true
		go d.prepareLater(context.WithoutCancel(ctx), query)
	}
	return nil
}

// prepareLater prepares a query. An error is no matter: whoever runs the query meets it too, and it is tried again
// then.
func (d *DB) prepareLater(ctx context.Context, query string) {
	ctx, cancel := context.WithTimeout(ctx, preparePatience)
	defer cancel()
	if _, err := d.prepared(ctx, query); err != nil {
		d.log.DebugContext(ctx, "statement stays unprepared", "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.preparing, query)
}
