package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/trunk"
)

// isConstraint tells whether an error is the violation of a constraint.
func isConstraint(err error, name string) bool {
	var pe *pq.Error
	return errors.As(err, &pe) && pe.Constraint == name
}

// audit writes one row of the audit log. before and after hold no secrets and may be nil.
func audit(ctx context.Context, tx *sqlx.Tx, tenant uuid.UUID, actor, action string, subject uuid.UUID, before, after map[string]any) error {
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
		INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, before, after)
		VALUES ($1, $2, $3, $4, $5, $6)`
	if _, err := tx.ExecContext(ctx, query, tenant, actor, action, subject, b, a); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// PutTenant implements directory.Registry.
func (d *DB) PutTenant(ctx context.Context, t directory.TenantRecord, actor string) (directory.Tenant, error) {
	var stored directory.Tenant
	err := d.inTx(ctx, func(tx *sqlx.Tx) error {
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
	return stored, err
}

// Tenant implements directory.Registry.
func (d *DB) Tenant(ctx context.Context, id uuid.UUID) (directory.Tenant, error) {
	return tenantBy(ctx, d.db, `id = $1`, id)
}

// tenantBy reads a tenant by a condition on table t, which is a constant of this file.
func tenantBy(ctx context.Context, q sqlx.QueryerContext, condition string, arg any) (directory.Tenant, error) {
	var row struct {
		ID      uuid.UUID `db:"id"`
		Slug    string    `db:"slug"`
		Name    string    `db:"name"`
		Country string    `db:"country"`
		Active  bool      `db:"active"`
	}
	query := `SELECT id, slug, name, country, status = 'active' AS active FROM edgvoip.tenants t WHERE status <> 'deleted' AND ` + condition
	if err := sqlx.GetContext(ctx, q, &row, query, arg); errors.Is(err, sql.ErrNoRows) {
		return directory.Tenant{}, directory.ErrUnknownTenant
	} else if err != nil {
		return directory.Tenant{}, fmt.Errorf("select tenant: %w", err)
	}
	slug, err1 := fstext.NewSlug(row.Slug)
	name, err2 := fstext.NewDisplayName(row.Name)
	country, err3 := numbering.NewCountry(row.Country)
	if err := errors.Join(err1, err2, err3); err != nil {
		return directory.Tenant{}, fmt.Errorf("tenant %s: %w", row.ID, err)
	}
	return directory.Tenant{ID: row.ID, Slug: slug, Name: name, Country: country, Active: row.Active}, nil
}

// StoredExtension implements directory.Registry.
func (d *DB) StoredExtension(ctx context.Context, tenant uuid.UUID, realm fstext.Realm, number fstext.Extension) (directory.ExtensionRecord, error) {
	const query = `
		SELECT` + domainColumns + `,` + extensionColumns + `, e.password_hash, d.w3_domain_id
		  FROM edgvoip.sip_domains d
		  JOIN edgvoip.tenants t ON t.id = d.tenant_id
		  JOIN edgvoip.sip_extensions e ON e.tenant_id = d.tenant_id AND e.domain_id = d.id
		 WHERE d.tenant_id = $1 AND d.realm = $2 AND e.extension = $3 AND e.status <> 'deleted'`
	var row struct {
		domainRow
		extensionRow
		PasswordHash string        `db:"password_hash"`
		W3DomainID   uuid.NullUUID `db:"w3_domain_id"`
	}
	if err := d.db.GetContext(ctx, &row, query, tenant, realm.String(), number.String()); errors.Is(err, sql.ErrNoRows) {
		return directory.ExtensionRecord{}, directory.ErrUnknownExtension
	} else if err != nil {
		return directory.ExtensionRecord{}, fmt.Errorf("select extension: %w", err)
	}
	dom, err := row.domain()
	if err != nil {
		return directory.ExtensionRecord{}, err
	}
	ext, err := row.extension(dom)
	if err != nil {
		return directory.ExtensionRecord{}, err
	}
	return directory.ExtensionRecord{Extension: ext, W3DomainID: row.W3DomainID.UUID, PasswordHash: row.PasswordHash}, nil
}

// PutExtension implements directory.Registry.
func (d *DB) PutExtension(ctx context.Context, e directory.ExtensionRecord, actor string) (uuid.UUID, error) {
	err := d.inTx(ctx, func(tx *sqlx.Tx) error {
		domain, err := putDomain(ctx, tx, e, actor)
		if err != nil {
			return err
		}
		e.DomainID = domain
		return putExtension(ctx, tx, &e, actor)
	})
	if isConstraint(err, "sip_names_pkey") {
		return uuid.UUID{}, directory.ErrNameTaken
	}
	return e.ID, err
}

// putDomain finds the domain of a realm or creates it for the tenant, and locks it against being deleted meanwhile.
func putDomain(ctx context.Context, tx *sqlx.Tx, e directory.ExtensionRecord, actor string) (uuid.UUID, error) {
	const insert = `
		INSERT INTO edgvoip.sip_domains (tenant_id, id, realm, w3_domain_id)
		VALUES ($1, $2, $3, $4)
		ON CONFLICT (realm) WHERE status <> 'deleted' DO NOTHING`
	const find = `
		SELECT tenant_id, id, w3_domain_id FROM edgvoip.sip_domains
		 WHERE realm = $1 AND status <> 'deleted' FOR NO KEY UPDATE`
	var row struct {
		TenantID uuid.UUID     `db:"tenant_id"`
		ID       uuid.UUID     `db:"id"`
		W3ID     uuid.NullUUID `db:"w3_domain_id"`
	}
	w3 := uuid.NullUUID{UUID: e.W3DomainID, Valid: e.W3DomainID != uuid.Nil}
	err := tx.GetContext(ctx, &row, find, e.Realm.String())
	if errors.Is(err, sql.ErrNoRows) {
		id := uuid.New()
		res, err := tx.ExecContext(ctx, insert, e.TenantID, id, e.Realm.String(), w3)
		if err != nil {
			return uuid.UUID{}, fmt.Errorf("insert domain: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return uuid.UUID{}, fmt.Errorf("insert domain: %w", err)
		} else if n == 1 {
			return id, audit(ctx, tx, e.TenantID, actor, "domain.created", id, nil, map[string]any{"realm": e.Realm.String()})
		}
		// Somebody else inserted it between the two statements.
		err = tx.GetContext(ctx, &row, find, e.Realm.String())
		if err != nil {
			return uuid.UUID{}, fmt.Errorf("select domain: %w", err)
		}
	} else if err != nil {
		return uuid.UUID{}, fmt.Errorf("select domain: %w", err)
	}
	if row.TenantID != e.TenantID {
		return uuid.UUID{}, directory.ErrRealmTaken
	}
	if w3.Valid && row.W3ID.Valid && w3 != row.W3ID {
		return uuid.UUID{}, directory.ErrDomainID
	}
	return row.ID, nil
}

// putExtension writes an extension and, if that changed anything, an audit row. e.ID becomes that of the row.
func putExtension(ctx context.Context, tx *sqlx.Tx, e *directory.ExtensionRecord, actor string) error {
	before, id, err := extensionForAudit(ctx, tx, e)
	if err != nil {
		return err
	}
	action := "extension.updated"
	if id == uuid.Nil {
		action, id = "extension.created", e.ID
	}
	e.ID = id
	const query = `
		INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, transport, allowed_codecs,
			max_concurrent_calls, outbound_caller_id, status, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'active', $11, $12, $13, $14)
		ON CONFLICT (tenant_id, id) DO UPDATE SET
			sip_username = excluded.sip_username, display_name = excluded.display_name, transport = excluded.transport,
			allowed_codecs = excluded.allowed_codecs, max_concurrent_calls = excluded.max_concurrent_calls,
			outbound_caller_id = excluded.outbound_caller_id, password_hash = excluded.password_hash,
			ha1_md5_sealed = excluded.ha1_md5_sealed, ha1_sha256_sealed = excluded.ha1_sha256_sealed, ha1_key_id = excluded.ha1_key_id,
			updated_at = now()
		WHERE (sip_extensions.sip_username, sip_extensions.display_name, sip_extensions.transport, sip_extensions.allowed_codecs,
		       sip_extensions.max_concurrent_calls, sip_extensions.outbound_caller_id, sip_extensions.password_hash, sip_extensions.ha1_key_id)
		      IS DISTINCT FROM
		      (excluded.sip_username, excluded.display_name, excluded.transport, excluded.allowed_codecs,
		       excluded.max_concurrent_calls, excluded.outbound_caller_id, excluded.password_hash, excluded.ha1_key_id)`
	callerID := sql.NullString{String: e.CallerID.String(), Valid: e.CallerID != (fstext.E164{})}
	res, err := tx.ExecContext(ctx, query, e.TenantID, id, e.DomainID, e.Number.String(), e.Username.String(), e.Name.String(),
		string(e.Transport), pq.StringArray(e.Codecs.Names()), e.MaxCalls, callerID, e.PasswordHash,
		e.HA1MD5.Data, e.HA1SHA256.Data, e.HA1MD5.KeyID)
	if err != nil {
		return fmt.Errorf("put extension: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	after := map[string]any{
		"realm": e.Realm.String(), "extension": e.Number.String(), "sipUsername": e.Username.String(), "displayName": e.Name.String(),
		"transport": e.Transport, "allowedCodecs": e.Codecs.Names(), "maxConcurrentCalls": e.MaxCalls, "outboundCallerNumber": e.CallerID.String(),
		"passwordChanged": before == nil || before["passwordHash"] != e.PasswordHash,
	}
	delete(before, "passwordHash")
	return audit(ctx, tx, e.TenantID, actor, action, id, before, after)
}

// extensionForAudit locks the stored extension of the same domain and number and returns it for the audit log, with its
// password hash, which must not stay there. With none stored, the map is nil and the id zero.
func extensionForAudit(ctx context.Context, tx *sqlx.Tx, e *directory.ExtensionRecord) (map[string]any, uuid.UUID, error) {
	const query = `
		SELECT id, sip_username, display_name, transport, allowed_codecs, max_concurrent_calls,
		       coalesce(outbound_caller_id, '') AS outbound_caller_id, password_hash
		  FROM edgvoip.sip_extensions
		 WHERE tenant_id = $1 AND domain_id = $2 AND extension = $3 AND status <> 'deleted'
		   FOR UPDATE`
	var row struct {
		ID           uuid.UUID      `db:"id"`
		SIPUsername  string         `db:"sip_username"`
		DisplayName  string         `db:"display_name"`
		Transport    string         `db:"transport"`
		Codecs       pq.StringArray `db:"allowed_codecs"`
		MaxCalls     int            `db:"max_concurrent_calls"`
		CallerID     string         `db:"outbound_caller_id"`
		PasswordHash string         `db:"password_hash"`
	}
	if err := tx.GetContext(ctx, &row, query, e.TenantID, e.DomainID, e.Number.String()); errors.Is(err, sql.ErrNoRows) {
		return nil, uuid.Nil, nil
	} else if err != nil {
		return nil, uuid.Nil, fmt.Errorf("lock extension: %w", err)
	}
	return map[string]any{
		"realm": e.Realm.String(), "extension": e.Number.String(), "sipUsername": row.SIPUsername, "displayName": row.DisplayName,
		"transport": row.Transport, "allowedCodecs": []string(row.Codecs), "maxConcurrentCalls": row.MaxCalls, "outboundCallerNumber": row.CallerID,
		"passwordHash": row.PasswordHash,
	}, row.ID, nil
}

// PutTrunk implements trunk.Registry.
func (d *DB) PutTrunk(ctx context.Context, t trunk.Record, actor string) error {
	err := d.inTx(ctx, func(tx *sqlx.Tx) error {
		const query = `
			INSERT INTO edgvoip.sip_trunks (tenant_id, id, store_id, name, provider, host, port, protocol, max_channels, priority,
				source_addresses, register, username, password_sealed, password_key_id, caller_id_policy, caller_id_number, ai_failover_extension)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text[]::cidr[], $12, $13, $14, $15, $16, $17, $18)
			ON CONFLICT (tenant_id, id) DO UPDATE SET
				store_id = excluded.store_id, name = excluded.name, provider = excluded.provider, host = excluded.host, port = excluded.port,
				protocol = excluded.protocol, max_channels = excluded.max_channels, priority = excluded.priority,
				source_addresses = excluded.source_addresses, register = excluded.register, username = excluded.username,
				password_sealed = excluded.password_sealed, password_key_id = excluded.password_key_id,
				caller_id_policy = excluded.caller_id_policy, caller_id_number = excluded.caller_id_number,
				ai_failover_extension = excluded.ai_failover_extension, updated_at = now()`
		if _, err := tx.ExecContext(ctx, query, t.TenantID, t.ID, uuid.NullUUID{UUID: t.StoreID, Valid: t.StoreID != uuid.Nil},
			t.Name.String(), t.Provider.String(), t.Host.String(), t.Port, string(t.Protocol), t.MaxChannels, t.Priority,
			pq.StringArray(prefixes(t.Sources)), t.Register, nullable(t.Register, t.Username.Reveal().String()),
			t.Password.Data, nullable(t.Register, t.Password.KeyID), string(t.CallerID),
			nullable(t.CallerIDNumber != (fstext.E164{}), t.CallerIDNumber.String()),
			nullable(t.Failover != (fstext.Extension{}), t.Failover.String())); err != nil {
			return fmt.Errorf("put trunk: %w", err)
		}
		if err := putRanges(ctx, tx, t); err != nil {
			return err
		}
		after := map[string]any{
			"name": t.Name.String(), "host": t.Host.String(), "port": t.Port, "protocol": t.Protocol, "maxChannels": t.MaxChannels,
			"priority": t.Priority, "register": t.Register, "sourceAddresses": prefixes(t.Sources), "callerIdPolicy": t.CallerID,
			"callerIdNumber": t.CallerIDNumber.String(), "aiFailoverExtension": t.Failover.String(), "didRanges": len(t.Ranges),
		}
		return audit(ctx, tx, t.TenantID, actor, "trunk.put", t.ID, nil, after)
	})
	switch {
	case isConstraint(err, "sip_trunk_did_ranges_no_overlap"):
		return trunk.ErrDIDTaken
	case isConstraint(err, "sip_trunks_id_key"):
		return trunk.ErrIDTaken
	case isConstraint(err, "sip_trunks_tenant_id_fkey"):
		return trunk.ErrUnknownTenant
	}
	return err
}

func putRanges(ctx context.Context, tx *sqlx.Tx, t trunk.Record) error {
	const remove = `DELETE FROM edgvoip.sip_trunk_did_ranges WHERE tenant_id = $1 AND trunk_id = $2`
	if _, err := tx.ExecContext(ctx, remove, t.TenantID, t.ID); err != nil {
		return fmt.Errorf("remove did ranges: %w", err)
	}
	const insert = `
		INSERT INTO edgvoip.sip_trunk_did_ranges (tenant_id, trunk_id, first_number, last_number)
		VALUES ($1, $2, $3, $4)`
	for _, r := range t.Ranges {
		if _, err := tx.ExecContext(ctx, insert, t.TenantID, t.ID, r.First.Int(), r.Last.Int()); err != nil {
			return fmt.Errorf("insert did range: %w", err)
		}
	}
	return nil
}

func nullable(valid bool, s string) sql.NullString { return sql.NullString{String: s, Valid: valid} }

func prefixes(list []netip.Prefix) []string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = p.String()
	}
	return s
}
