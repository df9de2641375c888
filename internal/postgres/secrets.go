package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/secret"
)

var (
	_ integration.Store    = (*DB)(nil)
	_ integration.Registry = (*DB)(nil)
)

//nolint:gosec // names of columns
const secretColumns = `
	s.id, s.tenant_id, s.hmac_secret_sealed, s.hmac_secret_key_id, s.created_at, s.rotated_at, s.expires_at, s.last_used_at`

type secretRow struct {
	ID         uuid.UUID    `db:"id"`
	TenantID   uuid.UUID    `db:"tenant_id"`
	HMAC       []byte       `db:"hmac_secret_sealed"`
	HMACKey    string       `db:"hmac_secret_key_id"`
	CreatedAt  time.Time    `db:"created_at"`
	RotatedAt  sql.NullTime `db:"rotated_at"`
	ExpiresAt  sql.NullTime `db:"expires_at"`
	LastUsedAt sql.NullTime `db:"last_used_at"`
}

func (r secretRow) secret() integration.Secret {
	return integration.Secret{
		ID: r.ID, TenantID: r.TenantID, HMAC: secret.Sealed{KeyID: r.HMACKey, Data: r.HMAC},
		CreatedAt: r.CreatedAt, RotatedAt: r.RotatedAt.Time, ExpiresAt: r.ExpiresAt.Time, LastUsedAt: r.LastUsedAt.Time,
	}
}

// SecretByToken implements integration.Store.
func (d *DB) SecretByToken(ctx context.Context, token integration.TokenHash) (integration.Secret, error) {
	const query = `
		SELECT` + secretColumns + `, t.status = 'active' AS tenant_active, t.country
		  FROM edgvoip.integration_secrets s JOIN edgvoip.tenants t ON t.id = s.tenant_id
		 WHERE s.bearer_token_sha256 = $1 AND t.status <> 'deleted'`
	type activeRow struct {
		secretRow
		TenantActive bool   `db:"tenant_active"`
		Country      string `db:"country"`
	}
	row, err := get[activeRow](ctx, d, query, token[:])
	if errors.Is(err, sql.ErrNoRows) {
		return integration.Secret{}, integration.ErrUnknownToken
	} else if err != nil {
		return integration.Secret{}, fmt.Errorf("select secret: %w", err)
	}
	s := row.secret()
	s.TenantActive, s.Country = row.TenantActive, row.Country
	return s, nil
}

// UseSignature implements integration.Store. It is one statement, and commits without waiting for the disk: see
// seen_signatures in schema.sql.
func (d *DB) UseSignature(ctx context.Context, tenant, secretID uuid.UUID, signature []byte, expires time.Time) (bool, error) {
	const query = `
		WITH seen AS (
		  INSERT INTO edgvoip.seen_signatures (tenant_id, signature, expires_at) VALUES ($1, $3, $4) ON CONFLICT DO NOTHING RETURNING 1
		), used AS (
		  UPDATE edgvoip.integration_secrets SET last_used_at = now()
		   WHERE tenant_id = $1 AND id = $2 AND (last_used_at IS NULL OR last_used_at < now() - interval '10 seconds') AND EXISTS (SELECT FROM seen)
		)
		SELECT EXISTS (SELECT FROM seen) AND set_config('synchronous_commit', 'off', true) = 'off'`
	fresh, err := get[bool](ctx, d, query, tenant, secretID, signature, expires)
	if err != nil {
		return false, fmt.Errorf("use signature: %w", err)
	}
	return fresh, nil
}

// AddSecret implements integration.Registry. Error for an unknown tenant: directory.ErrUnknownTenant.
func (d *DB) AddSecret(ctx context.Context, s integration.Secret, token integration.TokenHash, retire time.Time, actor string) error {
	return d.inTx(ctx, func(tx *txn) error {
		// Of two at once the second sees what the first added.
		if err := lockTenant(ctx, tx, s.TenantID); err != nil {
			return err
		}
		action := "secret.created"
		if !retire.IsZero() {
			action = "secret.rotated"
			const end = `
				UPDATE edgvoip.integration_secrets SET rotated_at = coalesce(rotated_at, now()), expires_at = $2
				 WHERE tenant_id = $1 AND (expires_at IS NULL OR expires_at > $2)`
			if _, err := tx.ExecContext(ctx, end, s.TenantID, retire); err != nil {
				return fmt.Errorf("retire secrets: %w", err)
			}
		}
		const insert = `
			INSERT INTO edgvoip.integration_secrets (tenant_id, id, hmac_secret_sealed, hmac_secret_key_id, bearer_token_sha256)
			VALUES ($1, $2, $3, $4, $5)`
		if _, err := tx.ExecContext(ctx, insert, s.TenantID, s.ID, s.HMAC.Data, s.HMAC.KeyID, token[:]); err != nil {
			return fmt.Errorf("insert secret: %w", err)
		}
		after := map[string]any{}
		if !retire.IsZero() {
			after["othersExpireAt"] = retire.UTC().Format(time.RFC3339)
		}
		return audit(ctx, tx, s.TenantID, actor, action, s.ID, nil, after)
	})
}

// RevokeSecret implements integration.Registry.
func (d *DB) RevokeSecret(ctx context.Context, tenant, id uuid.UUID, actor string) error {
	return d.inTx(ctx, func(tx *txn) error {
		const query = `
			UPDATE edgvoip.integration_secrets SET expires_at = least(expires_at, now()) WHERE tenant_id = $1 AND id = $2`
		res, err := tx.ExecContext(ctx, query, tenant, id)
		if err != nil {
			return fmt.Errorf("revoke secret: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return fmt.Errorf("revoke secret: %w", err)
		} else if n == 0 {
			return integration.ErrUnknownSecret
		}
		return audit(ctx, tx, tenant, actor, "secret.revoked", id, nil, nil)
	})
}

// Secrets implements integration.Registry.
func (d *DB) Secrets(ctx context.Context, tenant uuid.UUID) ([]integration.Secret, error) {
	rows, err := list[secretRow](ctx, d, `SELECT`+secretColumns+` FROM edgvoip.integration_secrets s WHERE s.tenant_id = $1 ORDER BY s.created_at DESC, s.id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("select secrets: %w", err)
	}
	secrets := make([]integration.Secret, len(rows))
	for i, r := range rows {
		secrets[i] = r.secret()
	}
	return secrets, nil
}

const operatorColumns = `
	id, name, created_at, expires_at, revoked_at`

type operatorRow struct {
	ID        uuid.UUID    `db:"id"`
	Name      string       `db:"name"`
	CreatedAt time.Time    `db:"created_at"`
	ExpiresAt sql.NullTime `db:"expires_at"`
	RevokedAt sql.NullTime `db:"revoked_at"`
}

func (r operatorRow) operator() integration.Operator {
	return integration.Operator{ID: r.ID, Name: r.Name, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt.Time, RevokedAt: r.RevokedAt.Time}
}

// OperatorByToken implements integration.Store.
func (d *DB) OperatorByToken(ctx context.Context, token integration.TokenHash) (integration.Operator, error) {
	row, err := get[operatorRow](ctx, d, `SELECT`+operatorColumns+` FROM edgvoip.operator_tokens WHERE token_sha256 = $1`, token[:])
	if errors.Is(err, sql.ErrNoRows) {
		return integration.Operator{}, integration.ErrUnknownToken
	} else if err != nil {
		return integration.Operator{}, fmt.Errorf("select operator: %w", err)
	}
	return row.operator(), nil
}

// AddOperator implements integration.Registry.
func (d *DB) AddOperator(ctx context.Context, o integration.Operator, token integration.TokenHash, actor string) error {
	err := d.inTx(ctx, func(tx *txn) error {
		const query = `INSERT INTO edgvoip.operator_tokens (id, name, token_sha256, expires_at) VALUES ($1, $2, $3, $4)`
		expires := sql.NullTime{Time: o.ExpiresAt, Valid: !o.ExpiresAt.IsZero()}
		if _, err := tx.ExecContext(ctx, query, o.ID, o.Name, token[:], expires); err != nil {
			return fmt.Errorf("insert operator: %w", err)
		}
		return audit(ctx, tx, nobodysTenant, actor, "operator.created", o.ID, nil, map[string]any{"name": o.Name})
	})
	if isConstraint(err, "operator_tokens_name_key") {
		return integration.ErrOperatorTaken
	}
	return err
}

// RevokeOperator implements integration.Registry.
func (d *DB) RevokeOperator(ctx context.Context, name, actor string) error {
	return d.inTx(ctx, func(tx *txn) error {
		var id uuid.UUID
		const query = `UPDATE edgvoip.operator_tokens SET revoked_at = now() WHERE name = $1 AND revoked_at IS NULL RETURNING id`
		if err := tx.GetContext(ctx, &id, query, name); errors.Is(err, sql.ErrNoRows) {
			return integration.ErrUnknownOperator
		} else if err != nil {
			return fmt.Errorf("revoke operator: %w", err)
		}
		return audit(ctx, tx, nobodysTenant, actor, "operator.revoked", id, map[string]any{"name": name}, nil)
	})
}

// Operators implements integration.Registry.
func (d *DB) Operators(ctx context.Context) ([]integration.Operator, error) {
	rows, err := list[operatorRow](ctx, d, `SELECT`+operatorColumns+` FROM edgvoip.operator_tokens ORDER BY created_at DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("select operators: %w", err)
	}
	operators := make([]integration.Operator, len(rows))
	for i, r := range rows {
		operators[i] = r.operator()
	}
	return operators, nil
}

// Figures returns what W3 asks to see whether all is well.
func (d *DB) Figures(ctx context.Context) (integration.Figures, error) {
	const query = `
		SELECT (SELECT count(*) FROM edgvoip.sip_domains d JOIN edgvoip.tenants t ON t.id = d.tenant_id
		         WHERE d.status = 'active' AND t.status = 'active') AS domains,
		       (SELECT max(last_used_at) FROM edgvoip.integration_secrets) AS last_use`
	type row struct {
		Domains int          `db:"domains"`
		LastUse sql.NullTime `db:"last_use"`
	}
	r, err := get[row](ctx, d, query)
	if err != nil {
		return integration.Figures{}, fmt.Errorf("select figures: %w", err)
	}
	return integration.Figures{DomainsActive: r.Domains, LastUse: r.LastUse.Time}, nil
}
