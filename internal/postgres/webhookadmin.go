package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/webhook"
)

var _ webhook.Registry = (*DB)(nil)

type endpointRow struct {
	TenantID  uuid.UUID `db:"tenant_id"`
	BaseURL   string    `db:"base_url"`
	Active    bool      `db:"active"`
	CreatedAt time.Time `db:"created_at"`
	UpdatedAt time.Time `db:"updated_at"`
}

func (r endpointRow) endpoint() (webhook.Endpoint, error) {
	base, err := webhook.ParseBaseURL(r.BaseURL)
	if err != nil {
		// Not the field of a request: %v keeps it from being taken for one.
		return webhook.Endpoint{}, fmt.Errorf("webhook endpoint of tenant %s: %v", r.TenantID, err) //nolint:errorlint // see above
	}
	return webhook.Endpoint{TenantID: r.TenantID, BaseURL: base, Active: r.Active, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt}, nil
}

const endpointQuery = `
	SELECT tenant_id, base_url, status = 'active' AS active, created_at, updated_at FROM edgvoip.webhook_endpoints WHERE tenant_id = $1`

func endpointBy(ctx context.Context, q sqlx.QueryerContext, query string, tenant uuid.UUID) (webhook.Endpoint, error) {
	var row endpointRow
	err := sqlx.GetContext(ctx, q, &row, query, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.Endpoint{}, webhook.ErrNoEndpoint
	} else if err != nil {
		return webhook.Endpoint{}, fmt.Errorf("select webhook endpoint: %w", err)
	}
	return row.endpoint()
}

// Endpoint implements webhook.Registry.
func (d *DB) Endpoint(ctx context.Context, tenant uuid.UUID) (webhook.Endpoint, error) {
	return bounded(ctx, func() (webhook.Endpoint, error) { return endpointBy(ctx, d.db, endpointQuery, tenant) })
}

// ChangeEndpoint implements webhook.Registry. Error for an unknown tenant: directory.ErrUnknownTenant.
func (d *DB) ChangeEndpoint(ctx context.Context, tenant uuid.UUID, change func(*webhook.Endpoint) (webhook.Endpoint, error), actor string,
) (changed webhook.Endpoint, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		// The tenant is what is locked, as there may be no endpoint yet.
		if err := lockTenant(ctx, tx, tenant); err != nil {
			return err
		}
		var stored *webhook.Endpoint
		if e, err := endpointBy(ctx, tx, endpointQuery, tenant); err == nil {
			stored = &e
		} else if !errors.Is(err, webhook.ErrNoEndpoint) {
			return err
		}
		wanted, err := change(stored)
		if err != nil {
			return err
		}
		if stored != nil && stored.BaseURL == wanted.BaseURL && stored.Active == wanted.Active {
			changed = *stored
			return nil
		}
		if err := putEndpoint(ctx, tx, wanted); err != nil {
			return err
		}
		if err := beginAnew(ctx, tx, wanted); err != nil {
			return err
		}
		if err := auditEndpoint(ctx, tx, actor, stored, &wanted); err != nil {
			return err
		}
		changed, err = endpointBy(ctx, tx, endpointQuery, tenant)
		return err
	})
	return changed, err
}

func lockTenant(ctx context.Context, tx *txn, tenant uuid.UUID) error {
	var id uuid.UUID
	err := tx.GetContext(ctx, &id, `SELECT id FROM edgvoip.tenants WHERE id = $1 AND status <> 'deleted' FOR NO KEY UPDATE`, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return directory.ErrUnknownTenant
	} else if err != nil {
		return fmt.Errorf("lock tenant: %w", err)
	}
	return nil
}

func putEndpoint(ctx context.Context, tx *txn, e webhook.Endpoint) error {
	const query = `
		INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url, status) VALUES ($1, $2, $3)
		ON CONFLICT (tenant_id) DO UPDATE SET base_url = $2, status = $3, updated_at = now()`
	if _, err := tx.ExecContext(ctx, query, e.TenantID, e.BaseURL.String(), endpointStatus(e)); err != nil {
		return fmt.Errorf("put webhook endpoint: %w", err)
	}
	return nil
}

// beginAnew gives what was tried before an endpoint was changed or resumed its whole patience again, and tries it at once:
// what the endpoint before did, or nobody tried while it was paused, is not held against it.
func beginAnew(ctx context.Context, tx *txn, e webhook.Endpoint) error {
	if !e.Active {
		return nil
	}
	const query = `
		UPDATE edgvoip.webhook_events SET first_attempt_at = NULL, due_at = least(due_at, now())
		 WHERE tenant_id = $1 AND state = 'pending' AND front AND first_attempt_at IS NOT NULL`
	if _, err := tx.ExecContext(ctx, query, e.TenantID); err != nil {
		return fmt.Errorf("begin anew: %w", err)
	}
	return nil
}

func endpointStatus(e webhook.Endpoint) string {
	if e.Active {
		return "active"
	}
	return "paused"
}

// auditEndpoint writes down a change of an endpoint; either of before and after may be nil.
func auditEndpoint(ctx context.Context, tx *txn, actor string, before, after *webhook.Endpoint) error {
	action, of := "webhook_endpoint.updated", after
	shown := func(e *webhook.Endpoint) map[string]any {
		if e == nil {
			return nil
		}
		return map[string]any{"baseUrl": e.BaseURL.String(), "status": endpointStatus(*e)}
	}
	switch {
	case before == nil:
		action = "webhook_endpoint.created"
	case after == nil:
		action, of = "webhook_endpoint.removed", before
	}
	return audit(ctx, tx, of.TenantID, actor, action, of.TenantID, shown(before), shown(after))
}

// RemoveEndpoint implements webhook.Registry.
func (d *DB) RemoveEndpoint(ctx context.Context, tenant uuid.UUID, actor string) error {
	return d.inTx(ctx, func(tx *txn) error {
		stored, err := endpointBy(ctx, tx, endpointQuery+` FOR UPDATE`, tenant)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM edgvoip.webhook_endpoints WHERE tenant_id = $1`, tenant); err != nil {
			return fmt.Errorf("delete webhook endpoint: %w", err)
		}
		return auditEndpoint(ctx, tx, actor, &stored, nil)
	})
}

// Events returns a tenant's events that a filter selects, the newest first.
func (d *DB) Events(ctx context.Context, tenant uuid.UUID, f webhook.Filter) ([]webhook.Delivery, error) {
	const query = `
		SELECT` + eventColumns + `
		  FROM edgvoip.webhook_events e
		 WHERE e.tenant_id = $1 AND ($2 = '' OR e.state = $2) AND ($3 = 0 OR e.id < $3)
		 ORDER BY e.id DESC LIMIT $4`
	// Not prepared: with all filters in one statement, each call wants a plan of its own.
	rows, err := bounded(ctx, func() (rows []eventRow, err error) {
		err = d.db.SelectContext(ctx, &rows, query, tenant, string(f.State), f.BeforeID, f.Limit)
		return rows, err
	})
	if err != nil {
		return nil, fmt.Errorf("select events: %w", err)
	}
	return deliveries(rows), nil
}

// EventAttempts returns a tenant's event and what came of each attempt to send it, in order. Error: webhook.ErrUnknownEvent.
func (d *DB) EventAttempts(ctx context.Context, tenant uuid.UUID, id int64) (webhook.Delivery, []webhook.Attempt, error) {
	event, err := get[eventRow](ctx, d, `SELECT`+eventColumns+` FROM edgvoip.webhook_events e WHERE e.tenant_id = $1 AND e.id = $2`, tenant, id)
	if errors.Is(err, sql.ErrNoRows) {
		return webhook.Delivery{}, nil, webhook.ErrUnknownEvent
	} else if err != nil {
		return webhook.Delivery{}, nil, fmt.Errorf("select event: %w", err)
	}
	const query = `
		SELECT attempt, at, duration_ms, coalesce(status, 0) AS status, coalesce(error, '') AS error
		  FROM edgvoip.webhook_attempts WHERE tenant_id = $1 AND event_id = $2 ORDER BY attempt`
	type row struct {
		Attempt  int       `db:"attempt"`
		At       time.Time `db:"at"`
		Duration int64     `db:"duration_ms"`
		Status   int       `db:"status"`
		Error    string    `db:"error"`
	}
	rows, err := list[row](ctx, d, query, tenant, id)
	if err != nil {
		return webhook.Delivery{}, nil, fmt.Errorf("select attempts: %w", err)
	}
	attempts := make([]webhook.Attempt, len(rows))
	for i, r := range rows {
		attempts[i] = webhook.Attempt{Number: r.Attempt, At: r.At, Duration: time.Duration(r.Duration) * time.Millisecond, Status: r.Status, Error: r.Error}
	}
	return event.delivery(), attempts, nil
}

// replayBatch is how many dead events one transaction makes due again: each subject costs it a lock in shared memory.
const replayBatch = 500

// ReplayEvents makes a tenant's dead events due again, those of the given numbers or, with none given, all, with one audit
// row. They keep their keys and their counts of attempts, and have their whole patience before them. It returns how many
// there were, also with an error.
func (d *DB) ReplayEvents(ctx context.Context, tenant uuid.UUID, ids []int64, actor string) (int, error) {
	replayed := 0
	for {
		n, err := d.replayEvents(ctx, tenant, ids, actor)
		if replayed += n; err != nil || n < replayBatch {
			return replayed, err
		}
	}
}

func (d *DB) replayEvents(ctx context.Context, tenant uuid.UUID, ids []int64, actor string) (int, error) {
	// In order of number: whichever of a subject's is made due first is in front.
	const query = `
		SELECT id FROM edgvoip.webhook_events
		 WHERE tenant_id = $1 AND state = 'dead' AND (cardinality($2::bigint[]) = 0 OR id = ANY ($2)) ORDER BY id LIMIT $3 FOR UPDATE`
	const replay = `
		UPDATE edgvoip.webhook_events SET state = 'pending', due_at = now(), first_attempt_at = NULL, finished_at = NULL
		 WHERE tenant_id = $1 AND id = $2`
	var dead []int64
	err := d.inTx(ctx, func(tx *txn) error {
		dead = nil
		if err := tx.SelectContext(ctx, &dead, query, tenant, pq.Int64Array(append([]int64{}, ids...)), replayBatch); err != nil {
			return fmt.Errorf("select dead events: %w", err)
		}
		if len(dead) == 0 {
			return nil
		}
		for _, id := range dead {
			if _, err := tx.ExecContext(ctx, replay, tenant, id); err != nil {
				return fmt.Errorf("replay event: %w", err)
			}
		}
		if err := audit(ctx, tx, tenant, actor, "webhook_events.replayed", tenant, nil, map[string]any{"events": dead}); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `SELECT pg_notify('edgvoip_webhooks', '')`); err != nil {
			return fmt.Errorf("notify: %w", err)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return len(dead), nil
}

// ReplayEvent makes one dead event due again. Errors: webhook.ErrUnknownEvent, webhook.ErrNotDead.
func (d *DB) ReplayEvent(ctx context.Context, tenant uuid.UUID, id int64, actor string) error {
	n, err := d.replayEvents(ctx, tenant, []int64{id}, actor)
	if err != nil || n > 0 {
		return err
	}
	return d.notDead(ctx, tenant, id)
}

// DiscardEvent gives a dead event up for good, with an audit row. Errors: webhook.ErrUnknownEvent, webhook.ErrNotDead.
func (d *DB) DiscardEvent(ctx context.Context, tenant uuid.UUID, id int64, actor string) error {
	const query = `
		UPDATE edgvoip.webhook_events SET state = 'discarded', finished_at = now() WHERE tenant_id = $1 AND id = $2 AND state = 'dead'
		RETURNING key, kind, subject`
	var row struct {
		Key     uuid.UUID `db:"key"`
		Kind    string    `db:"kind"`
		Subject uuid.UUID `db:"subject"`
	}
	err := d.inTx(ctx, func(tx *txn) error {
		if err := tx.GetContext(ctx, &row, query, tenant, id); err != nil {
			return err
		}
		return audit(ctx, tx, tenant, actor, "webhook_event.discarded", row.Subject, nil,
			map[string]any{"event": id, "key": row.Key, "kind": row.Kind})
	})
	if errors.Is(err, sql.ErrNoRows) {
		return d.notDead(ctx, tenant, id)
	} else if err != nil {
		return fmt.Errorf("discard event: %w", err)
	}
	return nil
}

// notDead says why an event cannot be treated as a dead one.
func (d *DB) notDead(ctx context.Context, tenant uuid.UUID, id int64) error {
	there, err := get[bool](ctx, d, `SELECT EXISTS (SELECT FROM edgvoip.webhook_events WHERE tenant_id = $1 AND id = $2)`, tenant, id)
	switch {
	case err != nil:
		return fmt.Errorf("select event: %w", err)
	case !there:
		return webhook.ErrUnknownEvent
	default:
		return webhook.ErrNotDead
	}
}
