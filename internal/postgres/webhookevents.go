package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/webhook"
)

// eventColumns are what an eventRow is read from, of table e.
const eventColumns = `
	e.tenant_id, e.id, e.key, e.kind, e.subject, e.payload, e.state, e.attempts, e.due_at, e.first_attempt_at,
	coalesce(e.last_error, '') AS last_error, e.correlation_id, e.created_at, e.finished_at`

type eventRow struct {
	TenantID       uuid.UUID    `db:"tenant_id"`
	ID             int64        `db:"id"`
	Key            uuid.UUID    `db:"key"`
	Kind           string       `db:"kind"`
	Subject        uuid.UUID    `db:"subject"`
	Payload        string       `db:"payload"`
	State          string       `db:"state"`
	Attempts       int          `db:"attempts"`
	DueAt          time.Time    `db:"due_at"`
	FirstAttemptAt sql.NullTime `db:"first_attempt_at"`
	LastError      string       `db:"last_error"`
	CorrelationID  string       `db:"correlation_id"`
	CreatedAt      time.Time    `db:"created_at"`
	FinishedAt     sql.NullTime `db:"finished_at"`
}

func (r eventRow) delivery() webhook.Delivery {
	return webhook.Delivery{
		Event: webhook.Event{TenantID: r.TenantID, Key: r.Key, Kind: webhook.Kind(r.Kind), Subject: r.Subject, Payload: []byte(r.Payload)},
		ID:    r.ID, State: webhook.State(r.State), Attempts: r.Attempts, DueAt: r.DueAt, FirstAttemptAt: r.FirstAttemptAt.Time,
		LastError: r.LastError, CorrelationID: r.CorrelationID, CreatedAt: r.CreatedAt, FinishedAt: r.FinishedAt.Time,
	}
}

func deliveries(rows []eventRow) []webhook.Delivery {
	list := make([]webhook.Delivery, len(rows))
	for i, r := range rows {
		list[i] = r.delivery()
	}
	return list
}

// receiversQuery finds the tenants that have something due. It jumps from tenant to tenant in webhook_events_due_idx (a
// loose index scan), so it costs as much for a million events as for one.
const receiversQuery = `
	WITH RECURSIVE open AS (
	  (SELECT tenant_id FROM edgvoip.webhook_events WHERE front AND state IN ('pending', 'leased') ORDER BY tenant_id LIMIT 1)
	  UNION ALL
	  SELECT (SELECT e.tenant_id FROM edgvoip.webhook_events e
	           WHERE e.front AND e.state IN ('pending', 'leased') AND e.tenant_id > o.tenant_id ORDER BY e.tenant_id LIMIT 1)
	    FROM open o WHERE o.tenant_id IS NOT NULL
	)
	SELECT t.id, t.slug, w.base_url
	  FROM open o JOIN edgvoip.tenants t ON t.id = o.tenant_id JOIN edgvoip.webhook_endpoints w ON w.tenant_id = o.tenant_id
	 WHERE w.status = 'active' AND t.status <> 'deleted'
	   AND EXISTS (SELECT FROM edgvoip.webhook_events e
	                WHERE e.tenant_id = o.tenant_id AND e.front AND e.state IN ('pending', 'leased') AND e.due_at <= now())`

// DueReceivers returns the tenants that have an active endpoint and an event that is due. An endpoint that cannot be
// read is left out, and logged.
func (d *DB) DueReceivers(ctx context.Context) ([]webhook.Receiver, error) {
	type row struct {
		ID      uuid.UUID `db:"id"`
		Slug    string    `db:"slug"`
		BaseURL string    `db:"base_url"`
	}
	rows, err := list[row](ctx, d, receiversQuery)
	if err != nil {
		return nil, fmt.Errorf("select receivers: %w", err)
	}
	receivers := make([]webhook.Receiver, 0, len(rows))
	for _, r := range rows {
		base, err := webhook.ParseBaseURL(r.BaseURL)
		if err != nil {
			d.unfit(ctx, fmt.Errorf("webhook endpoint of tenant %s: %w", r.ID, err))
			continue
		}
		receivers = append(receivers, webhook.Receiver{TenantID: r.ID, Slug: r.Slug, BaseURL: base})
	}
	return receivers, nil
}

// claimEventsQuery leases a tenant's first events that are due, of those in front. A lease that ran out makes an event
// due again: whoever held it has died. An endpoint that was paused a moment ago is sent nothing.
//
// The numbers are an array and not a table, as the planner cannot know how few they are, and would read the whole table
// to join it.
const claimEventsQuery = `
	UPDATE edgvoip.webhook_events AS e
	   SET state = 'leased', attempts = e.attempts + 1, due_at = now() + make_interval(secs => $3),
	       first_attempt_at = coalesce(e.first_attempt_at, now())
	 WHERE e.tenant_id = $1 AND e.id = ANY (ARRAY (
	       SELECT c.id FROM edgvoip.webhook_events c
	        WHERE c.tenant_id = $1 AND c.front AND c.state IN ('pending', 'leased') AND c.due_at <= now()
	          AND EXISTS (SELECT FROM edgvoip.webhook_endpoints w WHERE w.tenant_id = $1 AND w.status = 'active')
	        ORDER BY c.due_at, c.id LIMIT $2 FOR UPDATE OF c SKIP LOCKED))
	RETURNING` + eventColumns

// ClaimEvents gives the caller up to limit events of a tenant, each of another subject, for the length of a lease,
// after which somebody else may claim them.
func (d *DB) ClaimEvents(ctx context.Context, tenant uuid.UUID, limit int, lease time.Duration) ([]webhook.Delivery, error) {
	rows, err := list[eventRow](ctx, d, claimEventsQuery, tenant, limit, lease.Seconds())
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	return deliveries(rows), nil
}

// endAttempt is one statement, as most of what an event costs is round trips: it ends the claim, if that still holds,
// and writes down the attempt.
const endAttempt = `
	WITH ended AS (
	  UPDATE edgvoip.webhook_events SET %s WHERE tenant_id = $1 AND id = $2 AND attempts = $3 AND state = 'leased' RETURNING tenant_id, id, attempts
	)
	INSERT INTO edgvoip.webhook_attempts (tenant_id, event_id, attempt, at, duration_ms, status, error)
	SELECT tenant_id, id, attempts, $4, $5, nullif($6, 0), nullif($7, '') FROM ended RETURNING 1`

var (
	deliverQuery = fmt.Sprintf(endAttempt, `state = 'delivered', finished_at = now(), last_error = NULL`)
	retryQuery   = fmt.Sprintf(endAttempt, `state = 'pending', due_at = now() + make_interval(secs => $8), last_error = $7`)
	buryQuery    = fmt.Sprintf(endAttempt, `state = 'dead', finished_at = now(), last_error = $7`)
)

func (d *DB) endAttempt(ctx context.Context, query string, e webhook.Delivery, a webhook.Attempt, more ...any) error {
	args := append([]any{e.TenantID, e.ID, a.Number, a.At, a.Duration.Milliseconds(), a.Status, clipped(a.Error)}, more...)
	_, err := get[int](ctx, d, query, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.ErrLeaseLost
	}
	return err
}

// DeliverEvent says that a claimed event has arrived. Error: webhook.ErrLeaseLost.
func (d *DB) DeliverEvent(ctx context.Context, e webhook.Delivery, a webhook.Attempt) error {
	if err := d.endAttempt(ctx, deliverQuery, e, a); err != nil {
		return fmt.Errorf("deliver event: %w", err)
	}
	return nil
}

// RetryEvent gives a claimed event back, to be claimed again after a while. Error: webhook.ErrLeaseLost.
func (d *DB) RetryEvent(ctx context.Context, e webhook.Delivery, a webhook.Attempt, after time.Duration) error {
	if err := d.endAttempt(ctx, retryQuery, e, a, after.Seconds()); err != nil {
		return fmt.Errorf("retry event: %w", err)
	}
	return nil
}

// BuryEvent gives a claimed event up, so that the next of its subject can be sent. An operator may replay it. Error:
// webhook.ErrLeaseLost.
func (d *DB) BuryEvent(ctx context.Context, e webhook.Delivery, a webhook.Attempt) error {
	if err := d.endAttempt(ctx, buryQuery, e, a); err != nil {
		return fmt.Errorf("bury event: %w", err)
	}
	return nil
}

// ListenForEvents calls wake whenever there may be new events or changed endpoints; see Listen.
func (d *DB) ListenForEvents(ctx context.Context, wake func()) error {
	return d.Listen(ctx, "edgvoip_webhooks", wake)
}

// EventBacklogs returns what waits to be sent to each tenant, of those that have an endpoint or something that waits.
// It reads all that waits: ask now and then.
func (d *DB) EventBacklogs(ctx context.Context) ([]webhook.Backlog, error) {
	const query = `
		SELECT t.id, t.slug, coalesce(o.pending, 0) AS pending, o.oldest, coalesce(g.dead, 0) AS dead
		  FROM edgvoip.tenants t
		  LEFT JOIN (SELECT tenant_id, count(*) AS pending, min(created_at) AS oldest
		               FROM edgvoip.webhook_events WHERE state IN ('pending', 'leased') GROUP BY tenant_id) o ON o.tenant_id = t.id
		  LEFT JOIN (SELECT tenant_id, count(*) AS dead FROM edgvoip.webhook_events WHERE state = 'dead' GROUP BY tenant_id) g ON g.tenant_id = t.id
		  LEFT JOIN edgvoip.webhook_endpoints w ON w.tenant_id = t.id
		 WHERE t.status <> 'deleted' AND (w.tenant_id IS NOT NULL OR o.pending > 0 OR g.dead > 0)`
	type row struct {
		ID      uuid.UUID    `db:"id"`
		Slug    string       `db:"slug"`
		Pending int          `db:"pending"`
		Dead    int          `db:"dead"`
		Oldest  sql.NullTime `db:"oldest"`
	}
	rows, err := list[row](ctx, d, query)
	if err != nil {
		return nil, fmt.Errorf("select event backlogs: %w", err)
	}
	backlogs := make([]webhook.Backlog, len(rows))
	for i, r := range rows {
		backlogs[i] = webhook.Backlog{TenantID: r.ID, Slug: r.Slug, Pending: r.Pending, Dead: r.Dead, Oldest: r.Oldest.Time}
	}
	return backlogs, nil
}

// unwanted is how many days an event waits for its tenant to have an endpoint.
const unwanted = 30

// PruneEvents removes events, with their attempts, that were delivered or discarded longer ago than keep, and returns
// how many. What it has removed stays removed if ctx ends or the server fails in the middle. A dead event waits for an
// operator. Events that have waited 30 days for their tenant to have an endpoint are discarded.
func (d *DB) PruneEvents(ctx context.Context, keep time.Duration) (int, error) {
	if err := d.discardUnwanted(ctx); err != nil {
		return 0, err
	}
	const query = `
		DELETE FROM edgvoip.webhook_events
		 WHERE (tenant_id, id) IN (
		       SELECT tenant_id, id FROM edgvoip.webhook_events
		        WHERE state IN ('delivered', 'discarded') AND finished_at < now() - make_interval(secs => $1)
		        LIMIT $2 FOR UPDATE SKIP LOCKED)`
	removed := 0
	for {
		res, err := d.db.ExecContext(ctx, query, keep.Seconds(), pruneBatch)
		if err != nil {
			return removed, fmt.Errorf("prune events: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return removed, fmt.Errorf("prune events: %w", err)
		}
		if removed += int(n); n < pruneBatch {
			return removed, nil
		}
	}
}

// discardUnwanted discards what nobody takes, the oldest of each subject at a time: the next is in front then.
func (d *DB) discardUnwanted(ctx context.Context) error {
	const query = `
		UPDATE edgvoip.webhook_events SET state = 'discarded', finished_at = now(), last_error = 'the tenant has no endpoint'
		 WHERE (tenant_id, id) IN (
		       SELECT e.tenant_id, e.id FROM edgvoip.webhook_events e
		        WHERE e.front AND e.state = 'pending' AND e.created_at < now() - make_interval(days => $1)
		          AND NOT EXISTS (SELECT FROM edgvoip.webhook_endpoints w WHERE w.tenant_id = e.tenant_id)
		        LIMIT $2 FOR UPDATE SKIP LOCKED)`
	for {
		res, err := d.db.ExecContext(ctx, query, unwanted, pruneBatch)
		if err != nil {
			return fmt.Errorf("discard events that nobody takes: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return err
		}
	}
}
