package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/internal/feed"
)

var (
	_ feed.Source  = (*DB)(nil)
	_ feed.Primary = (*DB)(nil)
)

// changesQuery reads what is new and what has appeared in the gaps, with the snapshot that it was read in: one
// statement, so that all of it belongs together. Transaction numbers are sent as text, as xid8 has no other way out.
// The first transaction not begun is not pg_snapshot_xmax, which is one past the newest that is over: transactions
// above it may be open, and hold lower numbers than what has been committed. age counts from the one that is next.
//
// On a replica the newest sign of the primary is the heartbeat, or what was replayed after it: an idle primary has nothing else
// to replay than heartbeats, and without integration-api there is nothing else than what others write. The age is by the
// replica's clock; of one that is behind the primary's it is not less than zero.
//
// The history is the cluster and its timeline, which begins anew with each promotion. A replica knows that of its last restart point.
// The name of a WAL file has it in capitals, to_hex has not.
const changesQuery = `
	SELECT s.oldest, s.next, s.mark_found, s.head_id, s.head_tx, s.history, s.replica, s.beats, s.behind,
	       c.id, c.tx::text AS tx, c.at, c.subject, c.tenant_id, c.domain_id, c.names
	  FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS oldest, 
	               (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + age(pg_snapshot_xmax(pg_current_snapshot())::xid))::text AS next,
	               EXISTS (SELECT FROM edgvoip.changes WHERE id = $1 AND tx = $2::text::xid8)
	                 AND ($6 = 0 OR EXISTS (SELECT FROM edgvoip.changes WHERE id = $6 AND tx = $7::text::xid8)) AS mark_found,
	               (SELECT id FROM edgvoip.changes ORDER BY id DESC LIMIT 1) AS head_id,
	               (SELECT tx::text FROM edgvoip.changes ORDER BY id DESC LIMIT 1) AS head_tx,
	               ` + changesHistory + ` AS history,
	               pg_is_in_recovery() AS replica,
	               h.at IS NOT NULL AS beats,
	               CASE WHEN pg_is_in_recovery() AND h.at IS NOT NULL
	                    THEN greatest(0, extract(epoch FROM clock_timestamp() - greatest(h.at, pg_last_xact_replay_timestamp())))::float8
	                    ELSE 0 END AS behind
	          FROM (VALUES (1)) AS one LEFT JOIN edgvoip.heartbeat h ON true) s
	  LEFT JOIN (
	        (SELECT * FROM edgvoip.changes WHERE id > $1 ORDER BY id LIMIT $5)
	        UNION ALL
	        SELECT g.* FROM unnest($3::bigint[], $4::bigint[]) AS span (first, last)
	          CROSS JOIN LATERAL (SELECT * FROM edgvoip.changes WHERE id BETWEEN span.first AND span.last) g
	       ) c ON true
	 ORDER BY c.id`

const changesHistory = `(SELECT system_identifier::text FROM pg_control_system()) || '/' ||
	                 CASE WHEN pg_is_in_recovery() THEN (SELECT to_hex(timeline_id) FROM pg_control_checkpoint())
	                      ELSE lower(ltrim(left(pg_walfile_name(pg_current_wal_lsn()), 8), '0')) END`

// The first is for servers that do not tell their history: a provider's may lack such functions, or refuse them. The second is for a
// database that has no heartbeat yet, the primary's or its replica's: programs may be newer.
var (
	changesQueryWithoutHistory = strings.Replace(changesQuery, changesHistory, "''", 1)
	changesQueryBefore0006     = strings.Replace(changesQueryWithoutHistory, "edgvoip.heartbeat h", "(SELECT NULL::timestamptz AS at) h", 1)
)

// undefinedTable is the SQLSTATE of a table that is not there, and lacking are the classes of that of a query that asks for what
// a server does not have or do: 0A feature not supported, 42 undefined function or insufficient privilege, 55 not in the
// prerequisite state.
const undefinedTable = "42P01"

var lacking = []string{"0A", "42", "55"}

// historyPause is how long a server that refused its history is not asked for it: it says so in its log each time. It is asked again,
// as the refusal may pass: a table that was locked, a plan that a migration made unfit, a right that was given since.
const historyPause = time.Minute

type changeRow struct {
	Oldest    string         `db:"oldest"`
	Next      string         `db:"next"`
	MarkFound bool           `db:"mark_found"`
	HeadID    sql.NullInt64  `db:"head_id"`
	HeadTx    sql.NullString `db:"head_tx"`
	History   string         `db:"history"`
	Replica   bool           `db:"replica"`
	Beats     bool           `db:"beats"`
	Behind    float64        `db:"behind"` // in seconds
	ID        sql.NullInt64  `db:"id"`
	Tx        sql.NullString `db:"tx"`
	At        sql.NullTime   `db:"at"`
	Subject   sql.NullString `db:"subject"`
	TenantID  uuid.NullUUID  `db:"tenant_id"`
	DomainID  uuid.NullUUID  `db:"domain_id"`
	Names     pq.StringArray `db:"names"`
}

// Changes implements feed.Source.
func (d *DB) Changes(ctx context.Context, after, late feed.Mark, missing []feed.Span, limit int) (feed.Page, error) {
	first, last := make(pq.Int64Array, len(missing)), make(pq.Int64Array, len(missing))
	for i, s := range missing {
		first[i], last[i] = s.First, s.Last
	}
	args := []any{after.ID, strconv.FormatUint(after.Tx, 10), first, last, limit, late.ID, strconv.FormatUint(late.Tx, 10)}
	rows, err := d.changeRows(ctx, args)
	if err != nil {
		return feed.Page{}, fmt.Errorf("select changes: %w", err)
	}
	var p feed.Page
	for _, r := range rows {
		p.MarkFound, p.Head.ID, p.History = r.MarkFound, r.HeadID.Int64, r.History
		p.Replica, p.Beats, p.Behind = r.Replica, r.Beats, time.Duration(r.Behind*float64(time.Second))
		var errs [3]error
		p.Oldest, errs[0] = strconv.ParseUint(r.Oldest, 10, 64)
		p.Next, errs[1] = strconv.ParseUint(r.Next, 10, 64)
		if r.HeadTx.Valid {
			p.Head.Tx, errs[2] = strconv.ParseUint(r.HeadTx.String, 10, 64)
		}
		if err := errors.Join(errs[:]...); err != nil {
			return feed.Page{}, fmt.Errorf("transaction number: %w", err)
		}
		if !r.ID.Valid {
			continue
		}
		tx, err := strconv.ParseUint(r.Tx.String, 10, 64)
		if err != nil {
			return feed.Page{}, fmt.Errorf("transaction number: %w", err)
		}
		p.Changes = append(p.Changes, feed.Change{
			ID: r.ID.Int64, Tx: tx, At: r.At.Time, Subject: feed.Subject(r.Subject.String), Tenant: r.TenantID.UUID, Domain: r.DomainID.UUID, Names: r.Names,
		})
	}
	return p, nil
}

// changeRows runs the first of the queries that the server has all for.
func (d *DB) changeRows(ctx context.Context, args []any) ([]changeRow, error) {
	query := changesQuery
	if time.Since(time.Unix(0, d.historyRefused.Load())) < historyPause {
		query = changesQueryWithoutHistory
	}
	rows, err := list[changeRow](ctx, d, query, args...)
	if pe, ok := errors.AsType[*pq.Error](err); ok && query == changesQuery && pe.Code != undefinedTable && slices.Contains(lacking, string(pe.Code.Class())) {
		if rows, err = list[changeRow](ctx, d, changesQueryWithoutHistory, args...); err == nil {
			d.historyRefused.Store(time.Now().UnixNano())
		}
	}
	if pe, ok := errors.AsType[*pq.Error](err); ok && pe.Code == undefinedTable {
		return list[changeRow](ctx, d, changesQueryBefore0006, args...)
	}
	return rows, err
}

// Beat implements feed.Primary. The clock is the server's.
func (d *DB) Beat(ctx context.Context) error {
	_, err := bounded(ctx, func() (sql.Result, error) {
		return d.db.ExecContext(ctx, `
			INSERT INTO edgvoip.heartbeat (at) VALUES (clock_timestamp()) ON CONFLICT (one) DO UPDATE SET at = excluded.at`)
	})
	if err != nil {
		return fmt.Errorf("write heartbeat: %w", err)
	}
	return nil
}

// PruneChanges implements feed.Source.
func (d *DB) PruneChanges(ctx context.Context, keep time.Duration) (int, error) {
	var removed int
	if err := d.db.GetContext(ctx, &removed, `SELECT edgvoip.prune_changes(make_interval(secs => $1))`, keep.Seconds()); err != nil {
		return 0, fmt.Errorf("prune changes: %w", err)
	}
	return removed, nil
}

// ListenForChanges implements feed.Source.
func (d *DB) ListenForChanges(ctx context.Context, wake func()) error {
	return d.Listen(ctx, "edgvoip_changes", wake)
}

// How often a listening connection is asked whether it is alive, and how soon it is given up.
const (
	listenPing    = 5 * time.Second
	listenSilence = 8 * time.Second
)

// Listen calls wake for each notification on a channel, and after each reconnection, as notifications were missed then.
// It returns when ctx ends, or with an error if the server cannot notify (a replica).
func (d *DB) Listen(ctx context.Context, channel string, wake func()) error {
	refused := make(chan error, 1)
	l := pq.NewDialListener(deadlineDialer{silence: listenSilence}, d.dsn, 100*time.Millisecond, 2*time.Second, nil)
	defer func() { _ = l.Close() }() // always nil, or closed already
	// It waits until there is a connection: the server may be away now.
	go func() { refused <- l.Listen(channel) }()
	ping := time.NewTicker(listenPing)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-refused:
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			wake()
		case <-l.Notify:
			wake()
		case <-ping.C:
			// A failed ping closes the connection, and the listener makes another one.
			go func() { _ = l.Ping() }()
		}
	}
}
