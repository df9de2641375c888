package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/node"
)

// jobColumns are what a jobRow is read from, of table j.
const jobColumns = `
	j.tenant_id, j.id, j.node_id, j.kind, j.subject, j.payload, j.state, j.attempts, j.run_at, j.correlation_id,
	coalesce(j.last_error, '') AS last_error, j.created_at, j.finished_at`

type jobRow struct {
	TenantID      uuid.UUID    `db:"tenant_id"`
	ID            int64        `db:"id"`
	NodeID        uuid.UUID    `db:"node_id"`
	Kind          string       `db:"kind"`
	Subject       string       `db:"subject"`
	Payload       string       `db:"payload"`
	State         string       `db:"state"`
	Attempts      int          `db:"attempts"`
	RunAt         time.Time    `db:"run_at"`
	CorrelationID string       `db:"correlation_id"`
	LastError     string       `db:"last_error"`
	CreatedAt     time.Time    `db:"created_at"`
	FinishedAt    sql.NullTime `db:"finished_at"`
}

func (r jobRow) job() node.Job {
	return node.Job{
		TenantID: r.TenantID, ID: r.ID, NodeID: r.NodeID, Kind: node.Kind(r.Kind), Subject: r.Subject, Payload: json.RawMessage(r.Payload),
		State: node.State(r.State), Attempts: r.Attempts, DueAt: r.RunAt, CorrelationID: r.CorrelationID, LastError: r.LastError,
		CreatedAt: r.CreatedAt, FinishedAt: r.FinishedAt.Time,
	}
}

func jobsOf(rows []jobRow) []node.Job {
	jobs := make([]node.Job, len(rows))
	for i, r := range rows {
		jobs[i] = r.job()
	}
	return jobs
}

// claimQuery leases the first job of a switch that is due and before which no other of its subject is open. A lease that
// ran out makes a job due again: whoever held it has died.
//
// Numbers of one subject rise in the order of the changes where a change locks the row that is the subject: a user, or a
// domain. A change of a tenant writes jobs about its domains, whose rows it does not lock: with a change of such a domain
// at the same time, their numbers may come either way round. No harm is done, as what either asks is only to forget, and
// each names its realm as its own change found it.
const claimQuery = `
	UPDATE edgvoip.jobs AS j
	   SET state = 'leased', attempts = j.attempts + 1, run_at = now() + make_interval(secs => $2)
	 WHERE (j.tenant_id, j.id) = (
	       SELECT c.tenant_id, c.id FROM edgvoip.jobs c
	        WHERE c.node_id = $1 AND c.state IN ('pending', 'leased') AND c.run_at <= now()
	          AND NOT EXISTS (
	              SELECT FROM edgvoip.jobs e
	               WHERE e.tenant_id = c.tenant_id AND e.subject = c.subject AND e.id < c.id AND e.node_id = c.node_id
	                 AND e.state IN ('pending', 'leased'))
	        ORDER BY c.id LIMIT 1 FOR UPDATE SKIP LOCKED)
	RETURNING` + jobColumns

// ClaimJob gives the caller the next job of a switch for the length of a lease, after which somebody else may claim it.
// Error: node.ErrNoJob.
func (d *DB) ClaimJob(ctx context.Context, nodeID uuid.UUID, lease time.Duration) (node.Job, error) {
	row, err := get[jobRow](ctx, d, claimQuery, nodeID, lease.Seconds())
	if errors.Is(err, sql.ErrNoRows) {
		return node.Job{}, node.ErrNoJob
	} else if err != nil {
		return node.Job{}, fmt.Errorf("claim job: %w", err)
	}
	return row.job(), nil
}

// UntriedJobs returns the jobs of a switch about users and domains that are due and were never claimed, the first so many with
// higher numbers than last, in order of number.
func (d *DB) UntriedJobs(ctx context.Context, nodeID uuid.UUID, last int64, limit int) ([]node.Job, error) {
	const query = `
		SELECT` + jobColumns + `
		  FROM edgvoip.jobs j
		 WHERE j.node_id = $1 AND j.id > $2 AND j.state IN ('pending', 'leased')
		   AND j.attempts = 0 AND j.kind IN ('switch.user', 'switch.domain') AND j.run_at <= now()
		 ORDER BY j.id LIMIT $3`
	rows, err := list[jobRow](ctx, d, query, nodeID, last, limit)
	if err != nil {
		return nil, fmt.Errorf("select untried jobs: %w", err)
	}
	return jobsOf(rows), nil
}

// AddClaimedJob writes a job that its writer carries out himself, at once: it is leased from the beginning, and falls to
// the others if he dies. It returns the job with its number. Several processes may hear of the same and want the same: the one who
// comes later is told node.ErrSameJob. The same is a job of the same payload that names the same event and was not given up, or
// that is open or was written a moment ago.
func (d *DB) AddClaimedJob(ctx context.Context, j node.Job, lease time.Duration) (node.Job, error) {
	const query = `
		INSERT INTO edgvoip.jobs AS j (tenant_id, node_id, kind, subject, payload, correlation_id, state, attempts, run_at)
		SELECT $1, $2, $3, $4, $5, $6, 'leased', 1, now() + make_interval(secs => $7)
		 WHERE NOT EXISTS (
		       SELECT FROM edgvoip.jobs e
		        WHERE e.tenant_id = $1 AND e.subject = $4 AND e.node_id = $2 AND e.kind = $3 AND e.payload = $5
		          AND (e.payload ? 'event' AND e.state <> 'dead' OR e.state IN ('pending', 'leased') OR e.created_at > now() - interval '2 seconds'))
		RETURNING` + jobColumns
	var row jobRow
	err := d.inTx(ctx, func(tx *txn) error {
		// Those who want the same wait for each other, and each sees what the one before wrote.
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 5))`, j.NodeID.String()+" "+j.Subject); err != nil {
			return err
		}
		return tx.GetContext(ctx, &row, query, j.TenantID, j.NodeID, string(j.Kind), j.Subject, string(j.Payload), j.CorrelationID, lease.Seconds())
	})
	if errors.Is(err, sql.ErrNoRows) {
		return node.Job{}, node.ErrSameJob
	} else if err != nil {
		return node.Job{}, fmt.Errorf("add job: %w", err)
	}
	return row.job(), nil
}

// FinishJob says that a claimed job is done. In the same transaction it adds the second round, unless that is nil, which
// falls due after a while. Error: node.ErrLeaseLost.
func (d *DB) FinishJob(ctx context.Context, j node.Job, second *node.Job, after time.Duration) error {
	const add = `
		INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload, correlation_id, run_at)
		VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7))`
	return d.inTx(ctx, func(tx *txn) error {
		if err := endClaim(ctx, tx, j, `state = 'done', finished_at = now(), last_error = NULL`); err != nil {
			return fmt.Errorf("finish job: %w", err)
		}
		if second == nil {
			return nil
		}
		if _, err := tx.ExecContext(ctx, add, second.TenantID, second.NodeID, string(second.Kind), second.Subject, string(second.Payload),
			second.CorrelationID, after.Seconds()); err != nil {
			return fmt.Errorf("add second round: %w", err)
		}
		return nil
	})
}

// RetryJob gives a claimed job back, to be claimed again after a while. Error: node.ErrLeaseLost.
func (d *DB) RetryJob(ctx context.Context, j node.Job, after time.Duration, reason string) error {
	if err := endClaim(ctx, d.db, j, `state = 'pending', run_at = now() + make_interval(secs => $4), last_error = $5`,
		after.Seconds(), clipped(reason)); err != nil {
		return fmt.Errorf("retry job: %w", err)
	}
	return nil
}

// BuryJob says that a claimed job cannot be done. An operator may replay it. Error: node.ErrLeaseLost.
func (d *DB) BuryJob(ctx context.Context, j node.Job, reason string) error {
	if err := endClaim(ctx, d.db, j, `state = 'dead', finished_at = now(), last_error = $4`, clipped(reason)); err != nil {
		return fmt.Errorf("bury job: %w", err)
	}
	return nil
}

// endClaim sets columns of a claimed job, from $4 on, if the claim still holds.
func endClaim(ctx context.Context, e sqlx.ExecerContext, j node.Job, set string, args ...any) error {
	query := `UPDATE edgvoip.jobs SET ` + set + ` WHERE tenant_id = $1 AND id = $2 AND attempts = $3 AND state = 'leased'`
	res, err := e.ExecContext(ctx, query, append([]any{j.TenantID, j.ID, j.Attempts}, args...)...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return node.ErrLeaseLost
	}
	return nil
}

// errorBytes bounds what is kept of an error.
const errorBytes = 500

func clipped(s string) string {
	if len(s) > errorBytes {
		s = s[:errorBytes]
	}
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "?")
}

// ListenForJobs calls wake whenever there may be new jobs or changed switches; see Listen.
func (d *DB) ListenForJobs(ctx context.Context, wake func()) error {
	return d.Listen(ctx, "edgvoip_jobs", wake)
}

// backlogsQuery is asked every few seconds. Its condition is that of jobs_open_idx, which leaves out what is done.
const backlogsQuery = `
	SELECT node_id, count(*) FILTER (WHERE state <> 'dead') AS pending, count(*) FILTER (WHERE state = 'dead') AS dead,
	       min(created_at) FILTER (WHERE state <> 'dead') AS oldest
	  FROM edgvoip.jobs WHERE node_id IS NOT NULL AND state <> 'done' GROUP BY node_id`

// Backlogs returns what each switch still has to do, of those that have something.
func (d *DB) Backlogs(ctx context.Context) ([]node.Backlog, error) {
	type row struct {
		NodeID  uuid.UUID    `db:"node_id"`
		Pending int          `db:"pending"`
		Dead    int          `db:"dead"`
		Oldest  sql.NullTime `db:"oldest"`
	}
	rows, err := list[row](ctx, d, backlogsQuery)
	if err != nil {
		return nil, fmt.Errorf("select backlogs: %w", err)
	}
	backlogs := make([]node.Backlog, len(rows))
	for i, r := range rows {
		backlogs[i] = node.Backlog{NodeID: r.NodeID, Pending: r.Pending, Dead: r.Dead, Oldest: r.Oldest.Time}
	}
	return backlogs, nil
}

// Convergence tells of each switch how far it is with what was asked of it about a subject: the id of an extension or a
// domain. It is in order of name. A job that was given up counts until a later one has done as much: forgotten the same user, or
// the same domain, and his registrations if they were to be dropped. What stands for changes of single users of a domain counts
// for each of them, as it may have been asked for him.
func (d *DB) Convergence(ctx context.Context, tenant uuid.UUID, subject string) ([]node.Progress, error) {
	const query = `
		WITH asked AS MATERIALIZED (
		     SELECT o.*, true AS counts FROM edgvoip.jobs o WHERE o.tenant_id = $1 AND o.subject = ANY ($2)
		      UNION ALL
		     SELECT o.*, o.payload @> '{"users": true}' FROM edgvoip.sip_extensions e CROSS JOIN unnest($3::text[]) AS suffix
		       JOIN edgvoip.jobs o ON o.tenant_id = e.tenant_id AND o.subject = e.domain_id::text || suffix
		      WHERE e.tenant_id = $1 AND e.id = $4)
		SELECT n.name, n.status = 'active' AS active, coalesce(j.state, 'done') AS state, coalesce(j.last_error, '') AS last_error,
		       CASE j.state WHEN 'done' THEN j.finished_at ELSE j.created_at END AS since
		  FROM edgvoip.switch_nodes n
		  LEFT JOIN LATERAL (
		       SELECT CASE state WHEN 'leased' THEN 'pending' ELSE state END AS state, last_error, created_at, finished_at
		         FROM asked o
		        WHERE node_id = n.id AND counts
		          AND NOT (state = 'dead' AND EXISTS (
		              SELECT FROM asked l
		               WHERE l.node_id = n.id AND l.id > o.id AND l.state = 'done'
		                 AND CASE l.kind
		                     -- Whoever forgets a domain forgets each of its users; the second round leaves their registrations alone.
		                     WHEN 'switch.domain' THEN l.payload->'realm' = o.payload->'realm'
		                          AND (NOT l.payload ? 'settle' OR o.payload ? 'settle' OR o.payload->>'revoked' = 'false')
		                     ELSE l.kind = o.kind
		                          AND l.payload @> CASE o.payload->>'revoked' WHEN 'true' THEN o.payload ELSE o.payload - '{revoked,settle}'::text[] END
		                     END))
		        -- What is not done counts before what is, the oldest first; of what is done, the last.
		        ORDER BY state = 'done', state = 'dead', CASE state WHEN 'done' THEN -id ELSE id END
		        LIMIT 1) j ON true
		 ORDER BY n.name`
	type row struct {
		Name      string       `db:"name"`
		Active    bool         `db:"active"`
		State     string       `db:"state"`
		LastError string       `db:"last_error"`
		Since     sql.NullTime `db:"since"`
	}
	extension, _ := uuid.Parse(subject) // zero, which no extension has, for what is no id
	rows, err := list[row](ctx, d, query, tenant, pq.StringArray(node.Subjects(subject)), pq.StringArray(node.Subjects("")), extension)
	if err != nil {
		return nil, fmt.Errorf("select convergence: %w", err)
	}
	progress := make([]node.Progress, len(rows))
	for i, r := range rows {
		progress[i] = node.Progress{Node: r.Name, Active: r.Active, State: node.State(r.State), LastError: r.LastError, Since: r.Since.Time}
	}
	return progress, nil
}

// Jobs returns the jobs of switches that a filter selects, in order of number.
func (d *DB) Jobs(ctx context.Context, f node.Filter) ([]node.Job, error) {
	states := pq.StringArray{string(node.Pending), string(node.Leased), string(node.Dead)}
	if len(f.States) > 0 {
		states = nil
		for _, s := range f.States {
			states = append(states, string(s))
		}
	}
	limit := f.Limit
	if limit <= 0 {
		limit = 100
	}
	const query = `
		SELECT` + jobColumns + `
		  FROM edgvoip.jobs j JOIN edgvoip.switch_nodes n ON n.id = j.node_id
		 WHERE ($1 = '' OR n.name = $1) AND j.state = ANY ($2) AND j.id > $4
		 ORDER BY j.id LIMIT $3`
	rows, err := list[jobRow](ctx, d, query, f.Node, states, limit, f.After)
	if err != nil {
		return nil, fmt.Errorf("select jobs: %w", err)
	}
	return jobsOf(rows), nil
}

// ReplayJobs makes dead jobs due again, those of the given numbers or, with none given, all of a switch (of every switch
// if its name is empty), with an audit row for each switch. It returns how many there were.
func (d *DB) ReplayJobs(ctx context.Context, name string, ids []int64, actor string) (int, error) {
	const query = `
		UPDATE edgvoip.jobs AS j SET state = 'pending', attempts = 0, run_at = now(), finished_at = NULL
		  FROM edgvoip.switch_nodes n
		 WHERE n.id = j.node_id AND j.state = 'dead' AND ($1 = '' OR n.name = $1) AND (cardinality($2::bigint[]) = 0 OR j.id = ANY ($2))
		RETURNING j.node_id, j.id`
	var rows []struct {
		NodeID uuid.UUID `db:"node_id"`
		ID     int64     `db:"id"`
	}
	err := d.inTx(ctx, func(tx *txn) error {
		if err := tx.SelectContext(ctx, &rows, query, name, pq.Int64Array(append([]int64{}, ids...))); err != nil {
			return fmt.Errorf("replay jobs: %w", err)
		}
		replayed := map[uuid.UUID][]int64{}
		for _, r := range rows {
			replayed[r.NodeID] = append(replayed[r.NodeID], r.ID)
		}
		for id, jobs := range replayed {
			if err := audit(ctx, tx, nobodysTenant, actor, "node.jobs_replayed", id, nil, map[string]any{"jobs": jobs}); err != nil {
				return err
			}
		}
		if len(rows) == 0 {
			return nil
		}
		if _, err := tx.ExecContext(ctx, `SELECT pg_notify('edgvoip_jobs', '')`); err != nil {
			return fmt.Errorf("notify: %w", err)
		}
		return nil
	})
	return len(rows), err
}

// pruneBatch is how many jobs one statement removes, so that it stays well within the statement timeout.
const pruneBatch = 5000

// PruneJobs removes the switches' jobs that were done longer ago than keepDone, or given up longer ago than keepDead, and
// returns how many. What it has removed stays removed if ctx ends or the server fails in the middle.
func (d *DB) PruneJobs(ctx context.Context, keepDone, keepDead time.Duration) (int, error) {
	// What somebody has locked is left for the next time: a dead job may be about to be replayed.
	const query = `
		DELETE FROM edgvoip.jobs
		 WHERE (tenant_id, id) IN (
		       SELECT tenant_id, id FROM edgvoip.jobs
		        WHERE node_id IS NOT NULL
		          AND (state = 'done' AND finished_at < now() - make_interval(secs => $1)
		            OR state = 'dead' AND finished_at < now() - make_interval(secs => $2))
		        LIMIT $3 FOR UPDATE SKIP LOCKED)`
	removed := 0
	for {
		res, err := d.db.ExecContext(ctx, query, keepDone.Seconds(), keepDead.Seconds(), pruneBatch)
		if err != nil {
			return removed, fmt.Errorf("prune jobs: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return removed, fmt.Errorf("prune jobs: %w", err)
		}
		if removed += int(n); n < pruneBatch {
			return removed, nil
		}
	}
}
