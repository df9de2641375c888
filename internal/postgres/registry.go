package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/numbering"
)

// isConstraint tells whether an error is the violation of a constraint.
func isConstraint(err error, name string) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && pe.Constraint == name
}

// audit writes one row of the audit log, with the correlation id of ctx. before and after hold no secrets and may be nil.
func audit(ctx context.Context, tx *txn, tenant uuid.UUID, actor, action string, subject uuid.UUID, before, after map[string]any) error {
	encode := func(m map[string]any) (sql.NullString, error) {
		if m == nil {
			return sql.NullString{}, nil
		}
		b, err := json.Marshal(m)
		return sql.NullString{String: string(b), Valid: true}, err
	}
	b, err1 := encode(before)
	a, err2 := encode(after)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	const query = `
		INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, before, after, correlation_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	if _, err := tx.ExecContext(ctx, query, tenant, actor, action, subject, b, a, telemetry.Correlation(ctx)); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// PutTenant implements directory.Registry.
func (d *DB) PutTenant(ctx context.Context, t directory.TenantRecord, actor string) (directory.TenantRecord, error) {
	var stored directory.TenantRecord
	err := d.inTx(ctx, func(tx *txn) error {
		const insert = `
			INSERT INTO edgvoip.tenants (id, slug, name, country, timezone)
			VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (slug) WHERE status <> 'deleted' DO NOTHING`
		res, err := tx.ExecContext(ctx, insert, t.ID, t.Slug.String(), t.Name.String(), t.Country.String(), t.Timezone)
		if err != nil {
			return fmt.Errorf("insert tenant: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return fmt.Errorf("insert tenant: %w", err)
		} else if n == 1 {
			after := map[string]any{"slug": t.Slug.String(), "name": t.Name.String(), "country": t.Country.String(), "timezone": t.Timezone}
			if err := audit(ctx, tx, t.ID, actor, "tenant.created", t.ID, nil, after); err != nil {
				return err
			}
		}
		stored, err = tenantBy(ctx, tx, `slug = $1`, t.Slug.String())
		return err
	})
	if isConstraint(err, "tenants_pkey") {
		return stored, directory.ErrTenantID
	}
	return stored, err
}

// Tenants implements directory.Registry.
func (d *DB) Tenants(ctx context.Context) ([]directory.TenantRecord, error) {
	rows, err := list[tenantRow](ctx, d, `SELECT`+tenantColumns+` FROM edgvoip.tenants t WHERE status <> 'deleted' ORDER BY slug`)
	if err != nil {
		return nil, fmt.Errorf("select tenants: %w", err)
	}
	tenants := make([]directory.TenantRecord, 0, len(rows))
	for _, r := range rows {
		t, err := r.tenant()
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		tenants = append(tenants, t)
	}
	return tenants, nil
}

// Tenant implements directory.Registry.
func (d *DB) Tenant(ctx context.Context, id uuid.UUID) (directory.Tenant, error) {
	row, err := get[tenantRow](ctx, d, tenantQuery(`id = $1`), id)
	t, err := row.found(err)
	return t.Tenant, err
}

// tenantColumns are what a tenantRow is read from, of table t.
const tenantColumns = `
	id, slug, name, country, status = 'active' AS active, timezone, created_at`

type tenantRow struct {
	ID        uuid.UUID `db:"id"`
	Slug      string    `db:"slug"`
	Name      string    `db:"name"`
	Country   string    `db:"country"`
	Active    bool      `db:"active"`
	Timezone  string    `db:"timezone"`
	CreatedAt time.Time `db:"created_at"`
}

func (r tenantRow) tenant() (directory.TenantRecord, error) {
	slug, err1 := fstext.NewSlug(r.Slug)
	name, err2 := fstext.NewDisplayName(r.Name)
	country, err3 := numbering.NewCountry(r.Country)
	if err := errors.Join(err1, err2, err3); err != nil {
		return directory.TenantRecord{}, fmt.Errorf("tenant %s: %w", r.ID, err)
	}
	return directory.TenantRecord{
		Tenant: directory.Tenant{ID: r.ID, Slug: slug, Name: name, Country: country, Active: r.Active}, Timezone: r.Timezone, CreatedAt: r.CreatedAt,
	}, nil
}

// tenantBy reads a tenant by a condition on table t, which is a constant of this file.
func tenantBy(ctx context.Context, tx *txn, condition string, arg any) (directory.TenantRecord, error) {
	var row tenantRow
	err := tx.GetContext(ctx, &row, tenantQuery(condition), arg)
	return row.found(err)
}

func tenantQuery(condition string) string {
	return `SELECT` + tenantColumns + ` FROM edgvoip.tenants t WHERE status <> 'deleted' AND ` + condition
}

// found returns the tenant of a row that was looked for, with that error.
func (r tenantRow) found(err error) (directory.TenantRecord, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return directory.TenantRecord{}, directory.ErrUnknownTenant
	} else if err != nil {
		return directory.TenantRecord{}, fmt.Errorf("select tenant: %w", err)
	}
	return r.tenant()
}

func nullable(valid bool, s string) sql.NullString { return sql.NullString{String: s, Valid: valid} }
