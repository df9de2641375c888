package api

import (
	"context"
	"net/http"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// registerEndings registers how tenants and their domains end.
func (a *API) registerEndings() {
	const domains = "/tenants/{tenantId}/domains"
	end := adminOperation("delete-tenant", http.MethodDelete, "/tenants/{tenantId}", "Delete a suspended tenant, for good", 404, 409, 422)
	end.Description = "Its extensions, domains and trunks are deleted, its credentials end, its realms, numbers and slug are free, and nothing more is told to its W3. " +
		"Its call records stay as long as it keeps them. Its tenantId is not free."
	handle(a, end, a.deleteTenant)
	handle(a, adminOperation("list-tenant-domains", http.MethodGet, domains, "List a tenant's domains, in order of realm", 404, 422), a.listTenantDomains)
	release := adminOperation("delete-domain", http.MethodDelete, domains+"/{realm}", "Delete a domain without extensions", 404, 409, 422)
	release.Description = "Its realm is free, also for another tenant."
	handle(a, release, a.deleteDomain)
}

func (a *API) deleteTenant(ctx context.Context, in *ByTenant) (*struct{}, error) {
	return nil, a.store.DeleteTenant(ctx, in.TenantID, infoOf(ctx).operator.Actor())
}

func (a *API) listTenantDomains(ctx context.Context, in *struct {
	ByTenant
	Paged
},
) (*body[page[Domain]], error) {
	if _, err := a.store.Tenant(ctx, in.TenantID); err != nil {
		return nil, err
	}
	return a.pageOfDomains(ctx, in.TenantID, in.Paged)
}

func (a *API) deleteDomain(ctx context.Context, in *struct {
	ByTenant
	Realm string `path:"realm" maxLength:"253"`
},
) (*struct{}, error) {
	realm, err := fstext.NewRealm(in.Realm)
	if err != nil {
		return nil, invalid.Because("path.realm", err)
	}
	return nil, a.store.DeleteDomain(ctx, in.TenantID, realm, infoOf(ctx).operator.Actor())
}
