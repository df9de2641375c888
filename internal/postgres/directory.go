package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
)

// callTenantColumns are what a callTenantRow is read from, of table t.
const callTenantColumns = `
	t.id AS tenant_id, t.slug, t.name AS tenant_name, t.country, t.status = 'active' AS tenant_active, t.record_calls`

// callTenantRow is what of a tenant a call needs.
type callTenantRow struct {
	TenantID     uuid.UUID `db:"tenant_id"`
	Slug         string    `db:"slug"`
	TenantName   string    `db:"tenant_name"`
	Country      string    `db:"country"`
	TenantActive bool      `db:"tenant_active"`
	RecordCalls  string    `db:"record_calls"`
}

func (r callTenantRow) tenant() (directory.Tenant, error) {
	slug, err1 := fstext.NewSlug(r.Slug)
	name, err2 := fstext.NewDisplayName(r.TenantName)
	country, err3 := numbering.NewCountry(r.Country)
	record, err4 := directory.ParseRecordPolicy(r.RecordCalls)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return directory.Tenant{}, fmt.Errorf("tenant %s: %w", r.TenantID, err)
	}
	return directory.Tenant{ID: r.TenantID, Slug: slug, Name: name, Country: country, Active: r.TenantActive, RecordCalls: record}, nil
}

// domainColumns are what a domainRow is read from, of tables d and t.
const domainColumns = `
	d.id AS domain_id, d.realm, d.status = 'active' AS domain_active,` + callTenantColumns

type domainRow struct {
	DomainID     uuid.UUID `db:"domain_id"`
	Realm        string    `db:"realm"`
	DomainActive bool      `db:"domain_active"`
	callTenantRow
}

func (r domainRow) domain() (directory.Domain, error) {
	realm, err1 := fstext.NewRealm(r.Realm)
	tenant, err2 := r.tenant()
	if err := errors.Join(err1, err2); err != nil {
		return directory.Domain{}, fmt.Errorf("domain %s: %w", r.DomainID, err)
	}
	return directory.Domain{ID: r.DomainID, Realm: realm, Active: r.DomainActive, Tenant: tenant}, nil
}

// extensionColumns are what an extensionRow is read from, of tables e and d. They are what the role edgvoip_xmlcurl may
// read.
const extensionColumns = `
	e.id AS extension_id, e.extension, e.sip_username, e.display_name, e.transport, e.allowed_codecs, e.max_concurrent_calls,
	e.outbound_caller_id, e.status = 'active' AS extension_active, e.ha1_md5_sealed, e.ha1_sha256_sealed, e.ha1_key_id`

type extensionRow struct {
	ExtensionID        uuid.NullUUID  `db:"extension_id"`
	Extension          sql.NullString `db:"extension"`
	SIPUsername        sql.NullString `db:"sip_username"`
	DisplayName        sql.NullString `db:"display_name"`
	Transport          sql.NullString `db:"transport"`
	AllowedCodecs      pq.StringArray `db:"allowed_codecs"`
	MaxConcurrentCalls sql.NullInt64  `db:"max_concurrent_calls"`
	OutboundCallerID   sql.NullString `db:"outbound_caller_id"`
	ExtensionActive    sql.NullBool   `db:"extension_active"`
	HA1MD5Sealed       []byte         `db:"ha1_md5_sealed"`
	HA1SHA256Sealed    []byte         `db:"ha1_sha256_sealed"`
	HA1KeyID           sql.NullString `db:"ha1_key_id"`
}

// domainExtensionRow is a domain with an extension of it, or with none: the extension's id is then null.
type domainExtensionRow struct {
	domainRow
	extensionRow
}

func (r extensionRow) extension(d directory.Domain) (directory.Extension, error) {
	e := directory.Extension{
		ID: r.ExtensionID.UUID, TenantID: d.Tenant.ID, DomainID: d.ID, Realm: d.Realm,
		MaxCalls: int(r.MaxConcurrentCalls.Int64), Active: r.ExtensionActive.Bool,
		HA1MD5:    secret.Sealed{KeyID: r.HA1KeyID.String, Data: r.HA1MD5Sealed},
		HA1SHA256: secret.Sealed{KeyID: r.HA1KeyID.String, Data: r.HA1SHA256Sealed},
	}
	var errs [6]error
	e.Number, errs[0] = fstext.NewExtension(r.Extension.String)
	e.Username, errs[1] = fstext.NewUsername(r.SIPUsername.String)
	e.Name, errs[2] = fstext.NewDisplayName(r.DisplayName.String)
	e.Transport, errs[3] = directory.ParseTransport(r.Transport.String)
	e.Codecs, errs[4] = fstext.NewCodecs(r.AllowedCodecs)
	if r.OutboundCallerID.Valid {
		e.CallerID, errs[5] = fstext.NewE164(r.OutboundCallerID.String)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return directory.Extension{}, fmt.Errorf("extension %s: %w", e.ID, err)
	}
	return e, nil
}

// unfit reports a row that holds what its constructor refuses. The row is then treated as if it were not there.
func (d *DB) unfit(ctx context.Context, err error) {
	d.log.ErrorContext(ctx, "row left out: it holds what may not be rendered", "error", err)
}

// Domain implements directory.Store.
func (d *DB) Domain(ctx context.Context, realm fstext.Realm) (directory.Domain, error) {
	const query = `
		SELECT` + domainColumns + `
		  FROM edgvoip.sip_domains d
		  JOIN edgvoip.tenants t ON t.id = d.tenant_id
		 WHERE d.realm = $1 AND d.status <> 'deleted' AND t.status <> 'deleted'`
	row, err := get[domainRow](ctx, d, query, realm.String())
	if errors.Is(err, sql.ErrNoRows) {
		return directory.Domain{}, directory.ErrUnknownDomain
	} else if err != nil {
		return directory.Domain{}, fmt.Errorf("select domain: %w", err)
	}
	dom, err := row.domain()
	if err != nil {
		d.unfit(ctx, err)
		return directory.Domain{}, directory.ErrUnknownDomain
	}
	return dom, nil
}

// Extension implements directory.Store and dialplan.Store.
func (d *DB) Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error) {
	const query = `
		SELECT` + domainColumns + `,` + extensionColumns + `
		  FROM edgvoip.sip_domains d
		  JOIN edgvoip.tenants t ON t.id = d.tenant_id
		  LEFT JOIN edgvoip.sip_names n ON n.tenant_id = d.tenant_id AND n.domain_id = d.id AND n.name = $2
		  LEFT JOIN edgvoip.sip_extensions e ON e.tenant_id = n.tenant_id AND e.id = n.extension_id
		 WHERE d.realm = $1 AND d.status <> 'deleted' AND t.status <> 'deleted'`
	row, err := get[domainExtensionRow](ctx, d, query, realm.String(), name.Fold().String())
	if errors.Is(err, sql.ErrNoRows) {
		return directory.Domain{}, directory.Extension{}, directory.ErrUnknownDomain
	} else if err != nil {
		return directory.Domain{}, directory.Extension{}, fmt.Errorf("select extension: %w", err)
	}
	dom, err := row.domain()
	if err != nil {
		d.unfit(ctx, err)
		return directory.Domain{}, directory.Extension{}, directory.ErrUnknownDomain
	}
	if !row.ExtensionID.Valid {
		return dom, directory.Extension{}, directory.ErrUnknownExtension
	}
	ext, err := row.extension(dom)
	if err != nil {
		d.unfit(ctx, err)
		return dom, directory.Extension{}, directory.ErrUnknownExtension
	}
	return dom, ext, nil
}

// Extensions implements directory.Store.
func (d *DB) Extensions(ctx context.Context, realm fstext.Realm, limit int) (directory.Domain, []directory.Extension, error) {
	dom, err := d.Domain(ctx, realm)
	if err != nil {
		return directory.Domain{}, nil, err
	}
	const query = `
		SELECT` + extensionColumns + `
		  FROM edgvoip.sip_extensions e
		 WHERE e.tenant_id = $1 AND e.domain_id = $2 AND e.status = 'active'
		 ORDER BY e.extension LIMIT $3`
	rows, err := list[extensionRow](ctx, d, query, dom.Tenant.ID, dom.ID, limit)
	if err != nil {
		return directory.Domain{}, nil, fmt.Errorf("select extensions: %w", err)
	}
	exts := make([]directory.Extension, 0, len(rows))
	for _, r := range rows {
		e, err := r.extension(dom)
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		exts = append(exts, e)
	}
	return dom, exts, nil
}

// tenantExtensionQuery finds the extension of a tenant ($1) by a name in lower case ($3), of the domain $2 if that has
// it.
const tenantExtensionQuery = `
	SELECT` + domainColumns + `,` + extensionColumns + `
	  FROM edgvoip.tenants t
	  JOIN edgvoip.sip_domains d ON d.tenant_id = t.id
	  JOIN edgvoip.sip_names n ON n.tenant_id = d.tenant_id AND n.domain_id = d.id AND n.name = $3
	  JOIN edgvoip.sip_extensions e ON e.tenant_id = n.tenant_id AND e.id = n.extension_id
	 WHERE t.id = $1 AND t.status = 'active' AND d.status = 'active'
	 ORDER BY d.id = $2 DESC, d.created_at, d.id LIMIT 1`

// TenantExtension implements dialplan.Store.
func (d *DB) TenantExtension(ctx context.Context, tenant, near uuid.UUID, name fstext.Username) (directory.Tenant, directory.Extension, error) {
	row, err := get[domainExtensionRow](ctx, d, tenantExtensionQuery, tenant, near, name.Fold().String())
	if errors.Is(err, sql.ErrNoRows) {
		return directory.Tenant{}, directory.Extension{}, directory.ErrUnknownExtension
	} else if err != nil {
		return directory.Tenant{}, directory.Extension{}, fmt.Errorf("select extension of tenant: %w", err)
	}
	dom, err := row.domain()
	if err == nil {
		var ext directory.Extension
		if ext, err = row.extension(dom); err == nil {
			return dom.Tenant, ext, nil
		}
	}
	d.unfit(ctx, err)
	return directory.Tenant{}, directory.Extension{}, directory.ErrUnknownExtension
}

// TrunkTenant implements dialplan.Store.
func (d *DB) TrunkTenant(ctx context.Context, tenant uuid.UUID) (directory.Tenant, error) {
	row, err := get[callTenantRow](ctx, d, `SELECT`+callTenantColumns+` FROM edgvoip.tenants t WHERE t.id = $1 AND t.status <> 'deleted'`, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return directory.Tenant{}, directory.ErrUnknownTenant
	} else if err != nil {
		return directory.Tenant{}, fmt.Errorf("select tenant of a trunk: %w", err)
	}
	t, err := row.tenant()
	if err != nil {
		d.unfit(ctx, err)
		return directory.Tenant{}, directory.ErrUnknownTenant
	}
	return t, nil
}
