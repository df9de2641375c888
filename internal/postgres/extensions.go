package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

var (
	_ directory.Registry = (*DB)(nil)
	_ directory.Reader   = (*DB)(nil)
	_ directory.Writer   = writer{}
)

// recordColumns are what a recordRow is read from, of tables e, d and t.
const recordColumns = domainColumns + `,` + extensionColumns + `,
	e.password_hash, e.status AS extension_status, e.w3_extension_id, e.created_at, e.updated_at, d.w3_domain_id, d.name AS domain_name`

const recordTables = `
	edgvoip.sip_extensions e
	  JOIN edgvoip.sip_domains d ON d.tenant_id = e.tenant_id AND d.id = e.domain_id
	  JOIN edgvoip.tenants t ON t.id = e.tenant_id`

type recordRow struct {
	domainRow
	extensionRow
	PasswordHash  string         `db:"password_hash"`
	Status        string         `db:"extension_status"`
	W3ExtensionID uuid.NullUUID  `db:"w3_extension_id"`
	CreatedAt     time.Time      `db:"created_at"`
	UpdatedAt     time.Time      `db:"updated_at"`
	W3DomainID    uuid.NullUUID  `db:"w3_domain_id"`
	DomainName    sql.NullString `db:"domain_name"`
}

func (r recordRow) record() (directory.ExtensionRecord, error) {
	d, err := r.domain()
	if err != nil {
		return directory.ExtensionRecord{}, err
	}
	e, err := r.extension(d)
	if err != nil {
		return directory.ExtensionRecord{}, err
	}
	rec := directory.ExtensionRecord{
		Extension: e, W3DomainID: r.W3DomainID.UUID, W3ExtensionID: r.W3ExtensionID.UUID, PasswordHash: r.PasswordHash,
		Status: directory.Status(r.Status), CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if r.DomainName.Valid {
		if rec.DomainName, err = fstext.NewDisplayName(r.DomainName.String); err != nil {
			return directory.ExtensionRecord{}, fmt.Errorf("domain %s: %w", r.DomainID, err)
		}
	}
	return rec, nil
}

// recordBy reads one extension.
func recordBy(ctx context.Context, tx *txn, condition string, args ...any) (directory.ExtensionRecord, error) {
	var row recordRow
	err := tx.GetContext(ctx, &row, recordQuery(condition), args...)
	return row.found(err)
}

// recordBy reads one extension, outside a transaction.
func (d *DB) recordBy(ctx context.Context, condition string, args ...any) (directory.ExtensionRecord, error) {
	row, err := get[recordRow](ctx, d, recordQuery(condition), args...)
	return row.found(err)
}

func recordQuery(condition string) string {
	return `SELECT` + recordColumns + ` FROM ` + recordTables + ` WHERE ` + condition
}

// found returns the record of a row that was looked for, with that error.
func (r recordRow) found(err error) (directory.ExtensionRecord, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return directory.ExtensionRecord{}, directory.ErrUnknownExtension
	} else if err != nil {
		return directory.ExtensionRecord{}, fmt.Errorf("select extension: %w", err)
	}
	return r.record()
}

// StoredExtension implements directory.Registry.
func (d *DB) StoredExtension(ctx context.Context, tenant uuid.UUID, realm fstext.Realm, number fstext.Extension) (directory.ExtensionRecord, error) {
	return d.recordBy(ctx, `e.tenant_id = $1 AND d.realm = $2 AND d.status <> 'deleted' AND e.extension = $3 AND e.status <> 'deleted'`,
		tenant, realm.String(), number.String())
}

// ExtensionByID implements directory.Registry and directory.Reader.
func (d *DB) ExtensionByID(ctx context.Context, tenant, id uuid.UUID) (directory.ExtensionRecord, error) {
	return d.recordBy(ctx, `e.tenant_id = $1 AND e.id = $2`, tenant, id)
}

// ListExtensions implements directory.Reader.
func (d *DB) ListExtensions(ctx context.Context, tenant uuid.UUID, f directory.ExtensionFilter) ([]directory.ExtensionRecord, error) {
	const query = `
		SELECT` + recordColumns + ` FROM ` + recordTables + `
		 WHERE e.tenant_id = $1 AND ($2 = '' OR d.realm = $2)
		   AND CASE $3 WHEN '' THEN e.status <> 'deleted' ELSE e.status = $3 END
		   AND (e.extension, e.id) > ($4, $5)
		 ORDER BY e.extension, e.id LIMIT $6`
	rows, err := list[recordRow](ctx, d, query, tenant, f.Realm, string(f.Status), f.After.Number, f.After.ID, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("select extensions of tenant: %w", err)
	}
	records := make([]directory.ExtensionRecord, len(rows))
	for i, r := range rows {
		// A row that does not fit is an error here: left out, it would end the list before its end.
		if records[i], err = r.record(); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// ListDomains implements directory.Reader.
func (d *DB) ListDomains(ctx context.Context, tenant uuid.UUID, after string, limit int) ([]directory.DomainRecord, error) {
	const query = `
		SELECT d.id, d.realm, coalesce(d.name, '') AS name, d.w3_domain_id, d.status = 'active' AS active, d.created_at,
		       (SELECT count(*) FROM edgvoip.sip_extensions e
		         WHERE e.tenant_id = d.tenant_id AND e.domain_id = d.id AND e.status <> 'deleted') AS extensions
		  FROM edgvoip.sip_domains d
		 WHERE d.tenant_id = $1 AND d.status <> 'deleted' AND d.realm > $2
		 ORDER BY d.realm LIMIT $3`
	type row struct {
		ID         uuid.UUID     `db:"id"`
		Realm      string        `db:"realm"`
		Name       string        `db:"name"`
		W3DomainID uuid.NullUUID `db:"w3_domain_id"`
		Active     bool          `db:"active"`
		CreatedAt  time.Time     `db:"created_at"`
		Extensions int           `db:"extensions"`
	}
	rows, err := list[row](ctx, d, query, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("select domains of tenant: %w", err)
	}
	domains := make([]directory.DomainRecord, len(rows))
	for i, r := range rows {
		realm, err := fstext.NewRealm(r.Realm)
		if err != nil {
			return nil, fmt.Errorf("domain %s: %w", r.ID, err)
		}
		domains[i] = directory.DomainRecord{
			ID: r.ID, Realm: realm, Name: r.Name, W3DomainID: r.W3DomainID.UUID, Active: r.Active, Extensions: r.Extensions, CreatedAt: r.CreatedAt,
		}
	}
	return domains, nil
}

// Stores implements directory.Reader.
func (d *DB) Stores(ctx context.Context, tenant, id uuid.UUID) ([]uuid.UUID, error) {
	if _, err := d.ExtensionByID(ctx, tenant, id); err != nil {
		return nil, err
	}
	return stores(ctx, d.db, tenant, id)
}

func stores(ctx context.Context, q sqlx.QueryerContext, tenant, id uuid.UUID) ([]uuid.UUID, error) {
	const query = `
		SELECT store_id FROM edgvoip.voip_extension_store_access WHERE tenant_id = $1 AND extension_id = $2 ORDER BY store_id`
	found := []uuid.UUID{}
	if err := sqlx.SelectContext(ctx, q, &found, query, tenant, id); err != nil {
		return nil, fmt.Errorf("select stores: %w", err)
	}
	return found, nil
}

// writer makes changes inside a transaction.
type writer struct{ tx *txn }

// write runs f with a writer of a transaction of its own.
func (d *DB) write(ctx context.Context, f func(writer) error) error {
	return d.inTx(ctx, func(tx *txn) error { return f(writer{tx}) })
}

// PutExtension implements directory.Registry.
func (d *DB) PutExtension(ctx context.Context, e directory.ExtensionRecord, actor string) (id uuid.UUID, effect directory.Effect, err error) {
	err = d.write(ctx, func(w writer) error {
		id, effect, err = w.PutExtension(ctx, e, actor)
		return err
	})
	return id, effect, err
}

// ChangeExtension implements directory.Registry.
func (d *DB) ChangeExtension(ctx context.Context, tenant, id uuid.UUID, c directory.ExtensionChange, actor string) (e directory.ExtensionRecord, effect directory.Effect, err error) {
	err = d.write(ctx, func(w writer) error {
		e, effect, err = w.ChangeExtension(ctx, tenant, id, c, actor)
		return err
	})
	return e, effect, err
}

// DeleteExtension implements directory.Registry.
func (d *DB) DeleteExtension(ctx context.Context, tenant, id uuid.UUID, actor string) (effect directory.Effect, err error) {
	err = d.write(ctx, func(w writer) error {
		effect, err = w.DeleteExtension(ctx, tenant, id, actor)
		return err
	})
	return effect, err
}

// PutStores implements directory.Registry.
func (d *DB) PutStores(ctx context.Context, tenant, id uuid.UUID, ids []uuid.UUID, actor string) (now []uuid.UUID, effect directory.Effect, err error) {
	err = d.write(ctx, func(w writer) error {
		now, effect, err = w.PutStores(ctx, tenant, id, ids, actor)
		return err
	})
	return now, effect, err
}

// PutExtension implements directory.Writer.
func (w writer) PutExtension(ctx context.Context, e directory.ExtensionRecord, actor string) (uuid.UUID, directory.Effect, error) {
	domain, err := putDomain(ctx, w.tx, e, actor)
	if err != nil {
		return uuid.Nil, "", err
	}
	e.DomainID = domain
	created, err := insertExtension(ctx, w.tx, e, actor)
	effect := directory.EffectCreated
	if err == nil && !created {
		e.ID, effect, err = w.overwrite(ctx, e, actor)
	}
	if isConstraint(err, "sip_names_pkey") {
		return uuid.Nil, "", directory.ErrNameTaken
	} else if err != nil {
		return uuid.Nil, "", err
	}
	return e.ID, effect, nil
}

// overwrite brings the extension that has the number of e to what e is, and returns its id. Its domain and number are locked.
func (w writer) overwrite(ctx context.Context, e directory.ExtensionRecord, actor string) (uuid.UUID, directory.Effect, error) {
	if err := holdTenant(ctx, w.tx, e.TenantID); err != nil {
		return uuid.Nil, "", err
	}
	stored, err := recordBy(ctx, w.tx, `e.tenant_id = $1 AND e.domain_id = $2 AND e.extension = $3 AND e.status <> 'deleted' FOR UPDATE OF e`,
		e.TenantID, e.DomainID, e.Number.String())
	if errors.Is(err, directory.ErrUnknownExtension) {
		// It was deleted a moment ago.
		_, err = insertExtension(ctx, w.tx, e, actor)
		return e.ID, directory.EffectCreated, err
	} else if err != nil {
		return uuid.Nil, "", err
	}
	e.ID, e.Active, e.Status = stored.ID, stored.Active, stored.Status
	if e.W3ExtensionID == uuid.Nil {
		e.W3ExtensionID = stored.W3ExtensionID
	}
	effect, err := updateExtension(ctx, w.tx, stored, e, actor)
	return e.ID, effect, err
}

// putDomain finds the domain of a realm or creates it for the tenant. It locks the domain against being changed or deleted
// meanwhile, and the number against another who provisions the same one; other numbers of the domain go on beside it.
func putDomain(ctx context.Context, tx *txn, e directory.ExtensionRecord, actor string) (uuid.UUID, error) {
	// The tenant may have been deleted since the request was let in: it must not take a realm any more.
	const insert = `
		INSERT INTO edgvoip.sip_domains (tenant_id, id, realm, w3_domain_id, name)
		SELECT id, $2, $3, $4, $5 FROM edgvoip.tenants WHERE id = $1 AND status <> 'deleted' FOR KEY SHARE
		ON CONFLICT (realm) WHERE status <> 'deleted' DO NOTHING`
	w3, name := nullID(e.W3DomainID), nullable(e.DomainName != (fstext.DisplayName{}), e.DomainName.String())
	row, err := lockDomain(ctx, tx, e)
	if errors.Is(err, directory.ErrUnknownDomain) {
		id := uuid.New()
		res, err := tx.ExecContext(ctx, insert, e.TenantID, id, e.Realm.String(), w3, name)
		if err != nil {
			return uuid.UUID{}, fmt.Errorf("insert domain: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return uuid.UUID{}, fmt.Errorf("insert domain: %w", err)
		} else if n == 1 {
			return id, audit(ctx, tx, e.TenantID, actor, "domain.created", id, nil, domainForAudit(e.Realm, w3, name))
		}
		// Somebody else inserted it between the two statements, or the tenant is gone.
		if row, err = lockDomain(ctx, tx, e); errors.Is(err, directory.ErrUnknownDomain) {
			return uuid.UUID{}, directory.ErrChangedMeanwhile
		} else if err != nil {
			return uuid.UUID{}, err
		}
	} else if err != nil {
		return uuid.UUID{}, err
	}
	if row.TenantID != e.TenantID {
		return uuid.UUID{}, directory.ErrRealmTaken
	}
	if w3.Valid && row.W3ID.Valid && w3 != row.W3ID {
		return uuid.UUID{}, directory.ErrDomainID
	}
	return row.ID, updateDomain(ctx, tx, row, e, actor)
}

type lockedDomain struct {
	TenantID uuid.UUID      `db:"tenant_id"`
	ID       uuid.UUID      `db:"id"`
	W3ID     uuid.NullUUID  `db:"w3_domain_id"`
	Name     sql.NullString `db:"name"`
}

// lockDomain locks the domain of an extension's realm against change, and the extension's number in it. Two who both go on
// to change the domain itself wait for each other: the server ends one of them, and he asks again. Error:
// directory.ErrUnknownDomain.
func lockDomain(ctx context.Context, tx *txn, e directory.ExtensionRecord) (lockedDomain, error) {
	const query = `
		SELECT tenant_id, id, w3_domain_id, name FROM edgvoip.sip_domains
		 WHERE realm = $1 AND status <> 'deleted' AND pg_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 5)) IS NOT NULL FOR SHARE`
	var row lockedDomain
	err := tx.GetContext(ctx, &row, query, e.Realm.String(), e.Number.String())
	if errors.Is(err, sql.ErrNoRows) {
		return row, directory.ErrUnknownDomain
	} else if err != nil {
		return row, fmt.Errorf("lock domain: %w", err)
	}
	return row, nil
}

// updateDomain brings what W3 says of a domain up to date. What it does not say stays.
func updateDomain(ctx context.Context, tx *txn, row lockedDomain, e directory.ExtensionRecord, actor string) error {
	w3, name := row.W3ID, row.Name
	if e.W3DomainID != uuid.Nil {
		w3 = nullID(e.W3DomainID)
	}
	if e.DomainName != (fstext.DisplayName{}) {
		name = nullable(true, e.DomainName.String())
	}
	if w3 == row.W3ID && name == row.Name {
		return nil
	}
	const query = `UPDATE edgvoip.sip_domains SET w3_domain_id = $3, name = $4, updated_at = now() WHERE tenant_id = $1 AND id = $2`
	if _, err := tx.ExecContext(ctx, query, row.TenantID, row.ID, w3, name); err != nil {
		return fmt.Errorf("update domain: %w", err)
	}
	return audit(ctx, tx, row.TenantID, actor, "domain.updated", row.ID,
		domainForAudit(e.Realm, row.W3ID, row.Name), domainForAudit(e.Realm, w3, name))
}

func domainForAudit(realm fstext.Realm, w3 uuid.NullUUID, name sql.NullString) map[string]any {
	return map[string]any{"realm": realm.String(), "domainId": idForAudit(w3.UUID), "domainName": name.String}
}

// insertExtension writes an extension with its audit row, unless there is one of its number, which is locked; see lockDomain.
func insertExtension(ctx context.Context, tx *txn, e directory.ExtensionRecord, actor string) (created bool, err error) {
	const query = `
		WITH created AS (
		  INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, transport, allowed_codecs,
		    max_concurrent_calls, outbound_caller_id, status, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id, w3_extension_id)
		  SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'active', $11, $12, $13, $14, $15
		   WHERE NOT EXISTS (SELECT FROM edgvoip.sip_extensions WHERE tenant_id = $1 AND domain_id = $3 AND extension = $4 AND status <> 'deleted')
		  RETURNING id
		)
		INSERT INTO edgvoip.audit_log (tenant_id, actor, action, subject_id, after, correlation_id)
		SELECT $1, $16, 'extension.created', id, $17, $18 FROM created`
	e.Active, e.Status = true, directory.StatusActive
	after, err := json.Marshal(extensionForAudit(e))
	if err != nil {
		return false, fmt.Errorf("audit: %w", err)
	}
	res, err := tx.ExecContext(ctx, query, e.TenantID, e.ID, e.DomainID, e.Number.String(), e.Username.String(), e.Name.String(),
		string(e.Transport), pq.StringArray(e.Codecs.Names()), e.MaxCalls, nullable(e.CallerID != (fstext.E164{}), e.CallerID.String()),
		e.PasswordHash, e.HA1MD5.Data, e.HA1SHA256.Data, e.HA1MD5.KeyID, nullID(e.W3ExtensionID), actor, string(after), telemetry.Correlation(ctx))
	if err != nil {
		return false, fmt.Errorf("insert extension: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("insert extension: %w", err)
	}
	return n == 1, nil
}

// updateExtension brings a stored and locked extension to what it should be. If that is what it is, nothing is written.
func updateExtension(ctx context.Context, tx *txn, stored, e directory.ExtensionRecord, actor string) (directory.Effect, error) {
	newPassword := !bytes.Equal(stored.HA1MD5.Data, e.HA1MD5.Data)
	before, after := extensionForAudit(stored), extensionForAudit(e)
	changed := changedFields(before, after)
	if !changed && !newPassword && stored.PasswordHash == e.PasswordHash {
		return directory.EffectUnchanged, nil
	}
	const query = `
		UPDATE edgvoip.sip_extensions
		   SET sip_username = $3, display_name = $4, transport = $5, allowed_codecs = $6, max_concurrent_calls = $7, outbound_caller_id = $8,
		       status = $9, password_hash = $10, ha1_md5_sealed = $11, ha1_sha256_sealed = $12, ha1_key_id = $13, w3_extension_id = $14,
		       updated_at = now()
		 WHERE tenant_id = $1 AND id = $2`
	if _, err := tx.ExecContext(ctx, query, e.TenantID, e.ID, e.Username.String(), e.Name.String(), string(e.Transport),
		pq.StringArray(e.Codecs.Names()), e.MaxCalls, nullable(e.CallerID != (fstext.E164{}), e.CallerID.String()), string(e.Status),
		e.PasswordHash, e.HA1MD5.Data, e.HA1SHA256.Data, e.HA1MD5.KeyID, nullID(e.W3ExtensionID)); err != nil {
		return "", fmt.Errorf("update extension: %w", err)
	}
	if newPassword {
		after["passwordChanged"] = true
	} else if !changed {
		after["passwordHash"] = "made again with today's parameters"
	}
	return directory.EffectUpdated, audit(ctx, tx, e.TenantID, actor, "extension.updated", e.ID, before, after)
}

// extensionForAudit is what the audit log says of an extension. All values are comparable.
func extensionForAudit(e directory.ExtensionRecord) map[string]any {
	return map[string]any{
		"realm": e.Realm.String(), "extension": e.Number.String(), "sipUsername": e.Username.String(), "displayName": e.Name.String(),
		"transport": string(e.Transport), "allowedCodecs": strings.Join(e.Codecs.Names(), ","), "maxConcurrentCalls": e.MaxCalls,
		"outboundCallerNumber": e.CallerID.String(), "status": string(e.Status), "w3ExtensionId": idForAudit(e.W3ExtensionID),
	}
}

// changedFields tells whether two maps of the same keys differ.
func changedFields(before, after map[string]any) bool {
	for key, value := range after {
		if before[key] != value {
			return true
		}
	}
	return false
}

// ChangeExtension implements directory.Writer.
func (w writer) ChangeExtension(ctx context.Context, tenant, id uuid.UUID, c directory.ExtensionChange, actor string) (directory.ExtensionRecord, directory.Effect, error) {
	stored, err := lockRecord(ctx, w.tx, tenant, id)
	if err != nil {
		return stored, "", err
	}
	if stored.Status == directory.StatusDeleted {
		return stored, "", directory.ErrDeleted
	}
	e, err := c.Apply(stored)
	if err != nil {
		return stored, "", err
	}
	effect, err := updateExtension(ctx, w.tx, stored, e, actor)
	if err != nil || effect == directory.EffectUnchanged {
		return stored, effect, err
	}
	e, err = recordBy(ctx, w.tx, `e.tenant_id = $1 AND e.id = $2`, tenant, id)
	return e, effect, err
}

// holdTenant keeps a tenant from being suspended, resumed or deleted while one of its extensions is changed, as the trigger
// tell_switches does that writes jobs for it. It comes before the extension is locked, and after its domain: the order of DeleteTenant.
// Who waits to change the tenant has his turn before those who come later; see claimTenant.
func holdTenant(ctx context.Context, tx *txn, tenant uuid.UUID) error {
	const query = `
		SELECT FROM edgvoip.tenants WHERE id = $1 AND pg_advisory_xact_lock_shared(hashtextextended(id::text, 7)) IS NOT NULL FOR SHARE`
	if _, err := tx.ExecContext(ctx, query, tenant); err != nil {
		return fmt.Errorf("hold tenant: %w", err)
	}
	return nil
}

// lockRecord locks an extension, and before it the tenant.
func lockRecord(ctx context.Context, tx *txn, tenant, id uuid.UUID) (directory.ExtensionRecord, error) {
	if err := holdTenant(ctx, tx, tenant); err != nil {
		return directory.ExtensionRecord{}, err
	}
	return recordBy(ctx, tx, `e.tenant_id = $1 AND e.id = $2 FOR UPDATE OF e`, tenant, id)
}

// DeleteExtension implements directory.Writer.
func (w writer) DeleteExtension(ctx context.Context, tenant, id uuid.UUID, actor string) (directory.Effect, error) {
	stored, err := lockRecord(ctx, w.tx, tenant, id)
	if err != nil {
		return "", err
	}
	if stored.Status == directory.StatusDeleted {
		return directory.EffectUnchanged, nil
	}
	access, err := stores(ctx, w.tx, tenant, id)
	if err != nil {
		return "", err
	}
	// What is left in the place of the hashes is no hash and no ciphertext, so that it can never match or open.
	const end = `
		UPDATE edgvoip.sip_extensions
		   SET status = 'deleted', password_hash = '$argon2id$', ha1_md5_sealed = '', ha1_sha256_sealed = '', ha1_key_id = '', updated_at = now()
		 WHERE tenant_id = $1 AND id = $2`
	const forget = `DELETE FROM edgvoip.voip_extension_store_access WHERE tenant_id = $1 AND extension_id = $2`
	for _, query := range []string{end, forget} {
		if _, err := w.tx.ExecContext(ctx, query, tenant, id); err != nil {
			return "", fmt.Errorf("delete extension: %w", err)
		}
	}
	before := extensionForAudit(stored)
	before["storeIds"] = access
	return directory.EffectDeleted, audit(ctx, w.tx, tenant, actor, "extension.deleted", id, before, nil)
}

// PutStores implements directory.Writer.
func (w writer) PutStores(ctx context.Context, tenant, id uuid.UUID, ids []uuid.UUID, actor string) ([]uuid.UUID, directory.Effect, error) {
	stored, err := lockRecord(ctx, w.tx, tenant, id)
	if err != nil {
		return nil, "", err
	}
	if stored.Status == directory.StatusDeleted {
		return nil, "", directory.ErrDeleted
	}
	before, err := stores(ctx, w.tx, tenant, id)
	if err != nil {
		return nil, "", err
	}
	after := append([]uuid.UUID{}, ids...)
	slices.SortFunc(after, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	after = slices.Compact(after)
	if slices.Equal(before, after) {
		return after, directory.EffectUnchanged, nil
	}
	texts := make(pq.StringArray, len(after))
	for i, store := range after {
		texts[i] = store.String()
	}
	const remove = `
		DELETE FROM edgvoip.voip_extension_store_access WHERE tenant_id = $1 AND extension_id = $2 AND store_id <> ALL ($3::uuid[])`
	const add = `
		INSERT INTO edgvoip.voip_extension_store_access (tenant_id, extension_id, store_id)
		SELECT $1, $2, s FROM unnest($3::uuid[]) AS s ON CONFLICT DO NOTHING`
	for _, query := range []string{remove, add} {
		if _, err := w.tx.ExecContext(ctx, query, tenant, id, texts); err != nil {
			return nil, "", fmt.Errorf("put stores: %w", err)
		}
	}
	return after, directory.EffectUpdated, audit(ctx, w.tx, tenant, actor, "extension.stores", id,
		map[string]any{"storeIds": before}, map[string]any{"storeIds": after})
}

func nullID(id uuid.UUID) uuid.NullUUID { return uuid.NullUUID{UUID: id, Valid: id != uuid.Nil} }

// idForAudit writes no id as nothing.
func idForAudit(id uuid.UUID) string {
	if id == uuid.Nil {
		return ""
	}
	return id.String()
}
