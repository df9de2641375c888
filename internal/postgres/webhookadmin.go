package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/webhook"
)

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

// EventAttempts returns a tenant's event and what came of each attempt to send it, in order. Error:
// webhook.ErrUnknownEvent.
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

// ReplayEvents makes a tenant's dead events due again, those of the given numbers or, with none given, all, with one
// audit row. They keep their keys and their counts of attempts, and have their whole patience before them. It returns
// how many there were, also with an error.
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
