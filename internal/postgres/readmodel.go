package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/numbering"
)

var (
	_ readmodel.Store = (*DB)(nil)
	_ readmodel.Bulk  = (*DB)(nil)
)

// TenantDomains implements readmodel.Store.
func (d *DB) TenantDomains(ctx context.Context, tenant uuid.UUID) ([]directory.Domain, error) {
	rows, err := list[domainRow](ctx, d, `
		SELECT`+domainColumns+`
		  FROM edgvoip.tenants t
		  JOIN edgvoip.sip_domains d ON d.tenant_id = t.id
		 WHERE t.id = $1 AND t.status <> 'deleted' AND d.status <> 'deleted'
		 ORDER BY d.created_at, d.id`, tenant)
	if err != nil {
		return nil, fmt.Errorf("select domains: %w", err)
	}
	domains := make([]directory.Domain, 0, len(rows))
	for _, r := range rows {
		dom, err := r.domain()
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		domains = append(domains, dom)
	}
	return domains, nil
}

// ActiveTenants returns the number of active tenants, up to two: one or more than one is all that anybody asks.
func (d *DB) ActiveTenants(ctx context.Context) (int, error) {
	n, err := get[int](ctx, d, `SELECT count(*) FROM (SELECT FROM edgvoip.tenants WHERE status = 'active' LIMIT 2) AS t`)
	if err != nil {
		return 0, fmt.Errorf("count tenants: %w", err)
	}
	return n, nil
}

// Realms implements readmodel.Bulk.
func (d *DB) Realms(ctx context.Context, after string, limit int) ([]string, error) {
	realms, err := list[string](ctx, d, `
		SELECT realm FROM edgvoip.sip_domains WHERE realm > $1 AND status <> 'deleted' ORDER BY realm LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("select realms: %w", err)
	}
	return realms, nil
}

// Names implements readmodel.Bulk.
func (d *DB) Names(ctx context.Context, after readmodel.Name, limit int) ([]readmodel.Name, error) {
	type row struct {
		Tenant uuid.UUID `db:"tenant_id"`
		Domain uuid.UUID `db:"domain_id"`
		Name   string    `db:"name"`
	}
	rows, err := list[row](ctx, d, `
		SELECT tenant_id, domain_id, name
		  FROM edgvoip.sip_names
		 WHERE (tenant_id, domain_id, name) > ($1, $2, $3)
		 ORDER BY tenant_id, domain_id, name LIMIT $4`, after.Tenant, after.Domain, after.Name, limit)
	if err != nil {
		return nil, fmt.Errorf("select names: %w", err)
	}
	names := make([]readmodel.Name, len(rows))
	for i, r := range rows {
		names[i] = readmodel.Name(r)
	}
	return names, nil
}

// AllExtensions implements readmodel.Bulk.
func (d *DB) AllExtensions(ctx context.Context, after readmodel.Key, limit int) (page []readmodel.DomainExtension, last readmodel.Key, err error) {
	// Where the page ends is asked first: rows that may not be rendered are left out below.
	type key struct {
		Tenant uuid.UUID `db:"tenant_id"`
		ID     uuid.UUID `db:"id"`
	}
	end, err := get[key](ctx, d, `
		SELECT tenant_id, id FROM edgvoip.sip_extensions
		 WHERE (tenant_id, id) > ($1, $2)
		 ORDER BY tenant_id, id OFFSET $3 LIMIT 1`, after.Tenant, after.ID, limit-1)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		end = key{uuid.Max, uuid.Max}
	case err != nil:
		return nil, last, fmt.Errorf("select extensions: %w", err)
	default:
		last = readmodel.Key(end)
	}
	rows, err := list[domainExtensionRow](ctx, d, `
		SELECT`+domainColumns+`,`+extensionColumns+`
		  FROM edgvoip.sip_extensions e
		  JOIN edgvoip.sip_domains d ON d.tenant_id = e.tenant_id AND d.id = e.domain_id AND d.status <> 'deleted'
		  JOIN edgvoip.tenants t ON t.id = e.tenant_id AND t.status <> 'deleted'
		 WHERE (e.tenant_id, e.id) > ($1, $2) AND (e.tenant_id, e.id) <= ($3, $4) AND e.status <> 'deleted'
		 ORDER BY e.tenant_id, e.id`, after.Tenant, after.ID, end.Tenant, end.ID)
	if err != nil {
		return nil, last, fmt.Errorf("select extensions: %w", err)
	}
	page = make([]readmodel.DomainExtension, 0, len(rows))
	for _, r := range rows {
		dom, err := r.domain()
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		ext, err := r.extension(dom)
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		page = append(page, readmodel.DomainExtension{Domain: dom, Extension: ext})
	}
	return page, last, nil
}

// carrierRow is a trunk with what of its tenant a call needs, and its DIDs as two lists.
type carrierRow struct {
	trunkRow
	Country      string        `db:"country"`
	TenantActive bool          `db:"tenant_active"`
	First        pq.Int64Array `db:"first_numbers"`
	Last         pq.Int64Array `db:"last_numbers"`
}

// Carriers implements readmodel.Bulk.
func (d *DB) Carriers(ctx context.Context, tenants []uuid.UUID) ([]readmodel.Carrier, error) {
	rows, err := list[carrierRow](ctx, d, `
		SELECT`+trunkColumns+`, t.country, t.status = 'active' AS tenant_active, r.first_numbers, r.last_numbers
		  FROM edgvoip.sip_trunks k
		  JOIN edgvoip.tenants t ON t.id = k.tenant_id
		  LEFT JOIN (SELECT tenant_id, trunk_id, array_agg(first_number ORDER BY first_number) AS first_numbers,
		                    array_agg(last_number ORDER BY first_number) AS last_numbers
		               FROM edgvoip.sip_trunk_did_ranges
		              WHERE $1 OR tenant_id = ANY ($2)
		              GROUP BY tenant_id, trunk_id) r ON r.tenant_id = k.tenant_id AND r.trunk_id = k.id
		 WHERE k.status = 'active' AND t.status <> 'deleted' AND ($1 OR k.tenant_id = ANY ($2))
		 ORDER BY k.tenant_id, k.priority, k.id`, tenants == nil, pq.Array(tenants))
	if err != nil {
		return nil, fmt.Errorf("select carriers: %w", err)
	}
	carriers := make([]readmodel.Carrier, 0, len(rows))
	for _, r := range rows {
		c, err := r.carrier()
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		carriers = append(carriers, c)
	}
	return carriers, nil
}

func (r carrierRow) carrier() (c readmodel.Carrier, err error) {
	c.TenantActive = r.TenantActive
	if c.Trunk, err = r.trunk(); err != nil {
		return c, err
	}
	if c.Country, err = numbering.NewCountry(r.Country); err != nil {
		return c, fmt.Errorf("trunk %s: %w", c.Trunk.ID, err)
	}
	if c.DIDs, err = didRanges(r.First, r.Last); err != nil {
		return c, fmt.Errorf("trunk %s: %w", c.Trunk.ID, err)
	}
	return c, nil
}
