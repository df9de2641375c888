package api

import (
	"context"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// Domain is a SIP domain of the tenant.
type Domain struct {
	ID         uuid.UUID  `json:"edgvoipDomainId" format:"uuid"`
	DomainID   *uuid.UUID `json:"domainId,omitempty" format:"uuid" doc:"W3's id, if W3 gave it."`
	DomainName string     `json:"domainName,omitempty"`
	SIPRealm   string     `json:"sipRealm"`
	Status     string     `json:"status" enum:"active,disabled"`
	Extensions int        `json:"extensions" doc:"Those that are not deleted."`
	WSEndpoint string     `json:"wsEndpoint"`
	CreatedAt  time.Time  `json:"createdAt"`
}

func (a *API) registerDomains() {
	handle(a, operation("list-domains", http.MethodGet, "/domains", "List SIP domains", "In order of realm.", 422), a.listDomains)
}

func (a *API) listDomains(ctx context.Context, in *struct{ Paged }) (*body[page[Domain]], error) {
	return a.pageOfDomains(ctx, infoOf(ctx).caller.TenantID, in.Paged)
}

// pageOfDomains reads a page of a tenant's domains.
func (a *API) pageOfDomains(ctx context.Context, tenant uuid.UUID, in Paged) (*body[page[Domain]], error) {
	after, err := parseCursor(in.Cursor, 1)
	if err != nil {
		return nil, err
	}
	records, err := a.store.ListDomains(ctx, tenant, after[0], in.Limit+1)
	if err != nil {
		return nil, err
	}
	list := make([]Domain, len(records))
	for i, d := range records {
		list[i] = Domain{
			ID: d.ID, DomainID: optional(d.W3DomainID), DomainName: d.Name, SIPRealm: d.Realm.String(), Status: "disabled",
			Extensions: d.Extensions, WSEndpoint: a.endpoint(d.Realm.String()), CreatedAt: d.CreatedAt.UTC(),
		}
		if d.Active {
			list[i].Status = "active"
		}
	}
	return &body[page[Domain]]{cut(list, in.Limit, func(d Domain) string { return newCursor(d.SIPRealm) })}, nil
}
