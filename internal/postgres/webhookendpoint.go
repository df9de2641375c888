package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

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
	if err := claimTenant(ctx, tx, tenant); err != nil {
		return err
	}
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

// beginAnew gives what was tried before an endpoint was changed or resumed its whole patience again, and tries it at
// once: what the endpoint before did, or nobody tried while it was paused, is not held against it.
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
