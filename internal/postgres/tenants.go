package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/webhook"
)

// SetTenantStatus implements directory.Registry.
func (d *DB) SetTenantStatus(ctx context.Context, id uuid.UUID, active bool, actor string) (directory.Tenant, error) {
	t, _, err := d.ChangeTenant(ctx, id, directory.TenantChange{Active: &active}, cdr.PolicyPatch{}, actor)
	return t.Tenant, err
}

// ChangeTenant changes a tenant and what it wants of its call records: both or nothing. Errors:
// directory.ErrUnknownTenant, *invalid.FieldError.
func (d *DB) ChangeTenant(ctx context.Context, id uuid.UUID, c directory.TenantChange, patch cdr.PolicyPatch, actor string,
) (t directory.TenantRecord, p cdr.Policy, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		// It locks the tenant.
		if p, err = changePolicy(ctx, tx, id, patch, actor); err != nil {
			return err
		}
		stored, err := tenantBy(ctx, tx, `id = $1`, id)
		if err != nil {
			return err
		}
		if t = c.Apply(stored); t == stored {
			return nil
		}
		return updateTenant(ctx, tx, stored, t, actor)
	})
	return t, p, err
}

// updateTenant brings a stored and locked tenant to what it should be. Error: *invalid.FieldError.
func updateTenant(ctx context.Context, tx *txn, stored, t directory.TenantRecord, actor string) error {
	if t.Country != stored.Country {
		if err := checkCountry(ctx, tx, t); err != nil {
			return err
		}
	}
	const query = `
		UPDATE edgvoip.tenants SET name = $2, country = $3, timezone = $4, status = $5, updated_at = now() WHERE id = $1`
	if _, err := tx.ExecContext(ctx, query, t.ID, t.Name.String(), t.Country.String(), t.Timezone, tenantStatus(t)); err != nil {
		return fmt.Errorf("update tenant: %w", err)
	}
	if t.Timezone != stored.Timezone {
		if err := tellOfTimezone(ctx, tx, t.ID); err != nil {
			return err
		}
	}
	before, after := tenantForAudit(stored), tenantForAudit(t)
	for name, value := range after {
		if before[name] == value {
			delete(before, name)
			delete(after, name)
		}
	}
	return audit(ctx, tx, t.ID, actor, "tenant.updated", t.ID, before, after)
}

// checkCountry refuses a country where an extension of the tenant would call for help: it could not be called any more.
// Error: *invalid.FieldError.
func checkCountry(ctx context.Context, tx *txn, t directory.TenantRecord) error {
	var numbers []string
	const query = `
		SELECT extension FROM edgvoip.sip_extensions WHERE tenant_id = $1 AND status <> 'deleted' AND length(extension) <= 6`
	if err := tx.SelectContext(ctx, &numbers, query, t.ID); err != nil {
		return fmt.Errorf("select extensions: %w", err)
	}
	for _, n := range numbers {
		if numbering.Emergency(t.Country, n) {
			return &invalid.FieldError{Name: "country", Reason: "has an emergency number that an extension of the tenant has too"}
		}
	}
	return nil
}

// tellOfTimezone tells W3 of the tenant's trunks anew: the zone is part of what it is told of them.
func tellOfTimezone(ctx context.Context, tx *txn, tenant uuid.UUID) error {
	const touch = `
		UPDATE edgvoip.sip_trunks SET updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
		 WHERE tenant_id = $1 AND status <> 'deleted' RETURNING id`
	var ids []uuid.UUID
	if err := tx.SelectContext(ctx, &ids, touch, tenant); err != nil {
		return fmt.Errorf("touch trunks: %w", err)
	}
	events := make([]webhook.Event, len(ids))
	for i, id := range ids {
		r, err := trunkBy(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		if events[i], err = webhook.NewTrunkEvent(webhook.TrunkUpdated, r); err != nil {
			return err
		}
	}
	return addEvents(ctx, tx, events)
}

func tenantStatus(t directory.TenantRecord) string {
	if t.Active {
		return "active"
	}
	return "suspended"
}

// tenantForAudit is what of a tenant can change. All values are comparable.
func tenantForAudit(t directory.TenantRecord) map[string]any {
	return map[string]any{"name": t.Name.String(), "country": t.Country.String(), "timezone": t.Timezone, "status": tenantStatus(t)}
}

// DeleteDomain implements directory.Registry.
func (d *DB) DeleteDomain(ctx context.Context, tenant uuid.UUID, realm fstext.Realm, actor string) error {
	return d.inTx(ctx, func(tx *txn) error {
		// Whoever provisions in the domain holds it; see lockDomain.
		const lock = `
			SELECT id FROM edgvoip.sip_domains WHERE tenant_id = $1 AND realm = $2 AND status <> 'deleted' FOR UPDATE`
		var id uuid.UUID
		if err := tx.GetContext(ctx, &id, lock, tenant, realm.String()); errors.Is(err, sql.ErrNoRows) {
			return directory.ErrUnknownDomain
		} else if err != nil {
			return fmt.Errorf("lock domain: %w", err)
		}
		const count = `
			SELECT EXISTS (SELECT FROM edgvoip.sip_extensions WHERE tenant_id = $1 AND domain_id = $2 AND status <> 'deleted')`
		var used bool
		if err := tx.GetContext(ctx, &used, count, tenant, id); err != nil {
			return fmt.Errorf("count extensions: %w", err)
		}
		if used {
			return directory.ErrDomainInUse
		}
		const end = `UPDATE edgvoip.sip_domains SET status = 'deleted', updated_at = now() WHERE tenant_id = $1 AND id = $2`
		if _, err := tx.ExecContext(ctx, end, tenant, id); err != nil {
			return fmt.Errorf("delete domain: %w", err)
		}
		return audit(ctx, tx, tenant, actor, "domain.deleted", id, map[string]any{"realm": realm.String()}, nil)
	})
}

// endings end what answers for a tenant and tell others of it, with a row of the audit log for each thing that has a
// history of its own. $1 is the tenant, $2 the actor and $3 the correlation id.
var endings = []string{
	// As DeleteExtension does.
	`WITH ended AS (
	   UPDATE edgvoip.sip_extensions
	      SET status = 'deleted', password_hash = '$argon2id$', ha1_md5_sealed = '', ha1_sha256_sealed = '', ha1_key_id = '', updated_at = now()
	    WHERE tenant_id = $1 AND status <> 'deleted' RETURNING id, extension)
	 INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, correlation_id, before)
	 SELECT $1, $2, 'extension.deleted', id, $3, jsonb_build_object('extension', extension) FROM ended`,
	`WITH ended AS (
	   UPDATE edgvoip.sip_domains SET status = 'deleted', updated_at = now() WHERE tenant_id = $1 AND status <> 'deleted' RETURNING id, realm)
	 INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, correlation_id, before)
	 SELECT $1, $2, 'domain.deleted', id, $3, jsonb_build_object('realm', realm) FROM ended`,
	`WITH ended AS (
	   UPDATE edgvoip.sip_trunks
	      SET status = 'deleted', register = false, username = NULL, password_sealed = NULL, password_key_id = NULL,
	          updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
	    WHERE tenant_id = $1 AND status <> 'deleted' RETURNING id, name)
	 INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, correlation_id, before)
	 SELECT $1, $2, 'trunk.deleted', id, $3, jsonb_build_object('name', name) FROM ended`,
	`WITH ended AS (
	   UPDATE edgvoip.integration_secrets SET expires_at = now()
	    WHERE tenant_id = $1 AND (expires_at IS NULL OR expires_at > now()) RETURNING id)
	 INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, correlation_id)
	 SELECT $1, $2, 'secret.revoked', id, $3 FROM ended`,
	`WITH ended AS (
	   UPDATE edgvoip.tenants SET status = 'deleted', updated_at = now() WHERE id = $1 RETURNING id, slug, name)
	 INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, correlation_id, before)
	 SELECT $1, $2, 'tenant.deleted', id, $3, jsonb_build_object('slug', slug, 'name', name) FROM ended`,
}

// leftovers remove what is of no use to a tenant that is deleted: $1.
var leftovers = []string{
	`DELETE FROM edgvoip.voip_extension_store_access WHERE tenant_id = $1`,
	`DELETE FROM edgvoip.sip_trunk_did_ranges WHERE tenant_id = $1`,
	`DELETE FROM edgvoip.webhook_endpoints WHERE tenant_id = $1`,
	// Nobody is there to take them. None moves up behind another, which takes a lock for each subject: there are as
	// many as calls.
	`UPDATE edgvoip.webhook_events SET front = false WHERE tenant_id = $1 AND front AND state IN ('pending', 'leased')`,
	`UPDATE edgvoip.webhook_events SET state = 'discarded', finished_at = now() WHERE tenant_id = $1 AND state IN ('pending', 'leased', 'dead')`,
}

// mayForget returns nil if the call records of a tenant do not stay for ever: nobody can erase a number from them
// afterwards.
func mayForget(ctx context.Context, tx *txn, tenant uuid.UUID) error {
	const query = `
		SELECT cdr_days IS NULL AND EXISTS (SELECT FROM edgvoip.cdr WHERE tenant_id = $1) FROM edgvoip.tenants WHERE id = $1`
	var forEver bool
	if err := tx.GetContext(ctx, &forEver, query, tenant); err != nil {
		return fmt.Errorf("records of a tenant: %w", err)
	}
	if forEver {
		return &invalid.FieldError{Name: "cdrDays", Reason: "is without end: say first for how many days the records of the deleted tenant stay"}
	}
	return nil
}

// DeleteTenant implements directory.Registry.
func (d *DB) DeleteTenant(ctx context.Context, id uuid.UUID, actor string) error {
	// Who provisions in a realm that another is about to take has the tenant before the domain: the other way round than here.
	return d.repeated(ctx, func(tx *txn) error {
		if err := lockWhole(ctx, tx, id); err != nil {
			return err
		}
		t, err := tenantBy(ctx, tx, `id = $1`, id)
		if err != nil {
			return err
		}
		if t.Active {
			return directory.ErrTenantActive
		}
		if err := mayForget(ctx, tx, id); err != nil {
			return err
		}
		for _, query := range endings {
			if _, err := tx.ExecContext(ctx, query, id, actor, telemetry.Correlation(ctx)); err != nil {
				return fmt.Errorf("delete tenant: %w", err)
			}
		}
		for _, query := range leftovers {
			if _, err := tx.ExecContext(ctx, query, id); err != nil {
				return fmt.Errorf("delete tenant: %w", err)
			}
		}
		return nil
	})
}

// lockWhole locks a tenant against everything that could be added to it: extensions by way of their domains, which come
// first as they do where an extension is written, and domains and trunks by way of the tenant.
func lockWhole(ctx context.Context, tx *txn, tenant uuid.UUID) error {
	for _, query := range []string{
		`SELECT FROM edgvoip.sip_domains WHERE tenant_id = $1 AND status <> 'deleted' ORDER BY id FOR UPDATE`,
		tenantTurn,
		`SELECT FROM edgvoip.tenants WHERE id = $1 FOR UPDATE`,
	} {
		if _, err := tx.ExecContext(ctx, query, tenant); err != nil {
			return fmt.Errorf("lock tenant: %w", err)
		}
	}
	return nil
}

// tenantTurn waits until tenant $1 can be changed.
const tenantTurn = `SELECT pg_advisory_xact_lock(hashtextextended($1, 7))`

// claimTenant comes before whoever changes a tenant locks its row. Those who share a row go past one who waits to have it for himself, and
// a tenant whose extensions are changed all the time could never be suspended; here they queue behind him. See holdTenant.
func claimTenant(ctx context.Context, tx *txn, tenant uuid.UUID) error {
	if _, err := tx.ExecContext(ctx, tenantTurn, tenant); err != nil {
		return fmt.Errorf("claim tenant: %w", err)
	}
	return nil
}
