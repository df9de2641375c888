package memstore

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/trunk"
)

var (
	_ readmodel.Store = (*Store)(nil)
	_ readmodel.Bulk  = (*Store)(nil)
)

// TenantDomains implements readmodel.Store.
func (s *Store) TenantDomains(_ context.Context, tenant uuid.UUID) ([]directory.Domain, error) {
	var list []directory.Domain
	for _, d := range s.domains {
		if d.Tenant.ID == tenant {
			list = append(list, d)
		}
	}
	return list, nil
}

// Realms implements readmodel.Bulk.
func (s *Store) Realms(_ context.Context, after string, limit int) ([]string, error) {
	var list []string
	for _, d := range s.domains {
		if d.Realm.String() > after {
			list = append(list, d.Realm.String())
		}
	}
	slices.Sort(list)
	return list[:min(limit, len(list))], nil
}

// Names implements readmodel.Bulk.
func (s *Store) Names(_ context.Context, after readmodel.Name, limit int) ([]readmodel.Name, error) {
	var list []readmodel.Name
	for _, d := range s.domains {
		for name := range s.extensions[d.ID] {
			if n := (readmodel.Name{Tenant: d.Tenant.ID, Domain: d.ID, Name: name.String()}); compareNames(n, after) > 0 {
				list = append(list, n)
			}
		}
	}
	slices.SortFunc(list, compareNames)
	return list[:min(limit, len(list))], nil
}

func compareNames(a, b readmodel.Name) int {
	return cmp.Or(cmp.Compare(a.Tenant.String(), b.Tenant.String()), cmp.Compare(a.Domain.String(), b.Domain.String()), cmp.Compare(a.Name, b.Name))
}

// AllExtensions implements readmodel.Bulk. It has one page.
func (s *Store) AllExtensions(context.Context, readmodel.Key, int) (page []readmodel.DomainExtension, last readmodel.Key, err error) {
	for _, d := range s.domains {
		for name, e := range s.extensions[d.ID] {
			if name == e.Number.Username() {
				page = append(page, readmodel.DomainExtension{Domain: d, Extension: e})
			}
		}
	}
	return page, readmodel.Key{}, nil
}

// Carriers implements readmodel.Bulk.
func (s *Store) Carriers(_ context.Context, tenants []uuid.UUID) ([]readmodel.Carrier, error) {
	var list []readmodel.Carrier
	for _, t := range s.trunks {
		if tenants != nil && !slices.Contains(tenants, t.TenantID) {
			continue
		}
		owner := s.tenant(t.TenantID)
		c := readmodel.Carrier{Trunk: t, Country: owner.Country, TenantActive: owner.Active}
		for _, r := range s.ranges {
			if r.trunk == t.ID {
				c.DIDs = append(c.DIDs, trunk.Range{First: number(r.first), Last: number(r.last)})
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// number turns the digits of a DID back into one; it was one before.
func number(digits int64) fstext.E164 {
	n, err := fstext.NewE164("+" + fstext.Int(int(digits)).String())
	if err != nil {
		panic(err)
	}
	return n
}
