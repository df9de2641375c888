// Package memstore keeps tenants, extensions and trunks in memory. It implements the Store interfaces of the domain
// packages for tests and benchmarks, and passes the same contract (package storetest) as package postgres.
package memstore

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/trunk"
)

// Store is a set of domains, extensions and trunks. Fill it first; after that it is safe for concurrent use. The zero
// value is empty.
type Store struct {
	domains    []directory.Domain // in order of creation
	extensions map[uuid.UUID]map[fstext.Username]directory.Extension
	trunks     []trunk.Trunk
	ranges     []didRange
}

type didRange struct {
	first, last int64
	trunk       uuid.UUID
}

var (
	_ directory.Store = (*Store)(nil)
	_ dialplan.Store  = (*Store)(nil)
	_ trunk.Store     = (*Store)(nil)
)

// AddDomain adds a domain with its tenant.
func (s *Store) AddDomain(d directory.Domain) { s.domains = append(s.domains, d) }

// AddExtension adds an extension under its number and its username.
func (s *Store) AddExtension(e directory.Extension) {
	if s.extensions == nil {
		s.extensions = map[uuid.UUID]map[fstext.Username]directory.Extension{}
	}
	if s.extensions[e.DomainID] == nil {
		s.extensions[e.DomainID] = map[fstext.Username]directory.Extension{}
	}
	s.extensions[e.DomainID][e.Number.Username()] = e
	s.extensions[e.DomainID][e.Username.Fold()] = e
}

// AddTrunk adds an active trunk with its DIDs, as pairs of first and last number.
func (s *Store) AddTrunk(t trunk.Trunk, dids ...trunk.Range) {
	s.trunks = append(s.trunks, t)
	slices.SortStableFunc(s.trunks, func(a, b trunk.Trunk) int {
		return cmp.Or(cmp.Compare(a.TenantID.String(), b.TenantID.String()), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	for _, r := range dids {
		s.ranges = append(s.ranges, didRange{r.First.Int(), r.Last.Int(), t.ID})
	}
}

// Domain implements directory.Store.
func (s *Store) Domain(_ context.Context, realm fstext.Realm) (directory.Domain, error) {
	for _, d := range s.domains {
		if d.Realm == realm {
			return d, nil
		}
	}
	return directory.Domain{}, directory.ErrUnknownDomain
}

// Extension implements directory.Store and dialplan.Store.
func (s *Store) Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error) {
	d, err := s.Domain(ctx, realm)
	if err != nil {
		return d, directory.Extension{}, err
	}
	if e, ok := s.extensions[d.ID][name.Fold()]; ok {
		return d, e, nil
	}
	return d, directory.Extension{}, directory.ErrUnknownExtension
}

// Extensions implements directory.Store.
func (s *Store) Extensions(ctx context.Context, realm fstext.Realm, limit int) (directory.Domain, []directory.Extension, error) {
	d, err := s.Domain(ctx, realm)
	if err != nil {
		return d, nil, err
	}
	var list []directory.Extension
	for name, e := range s.extensions[d.ID] {
		if e.Active && name == e.Number.Username() {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b directory.Extension) int { return cmp.Compare(a.Number.String(), b.Number.String()) })
	return d, list[:min(limit, len(list))], nil
}

// TenantExtension implements dialplan.Store.
func (s *Store) TenantExtension(_ context.Context, tenant, near uuid.UUID, name fstext.Username) (directory.Tenant, directory.Extension, error) {
	var found *directory.Extension
	var owner directory.Tenant
	for _, d := range s.domains {
		e, ok := s.extensions[d.ID][name.Fold()]
		if d.Tenant.ID != tenant || !d.Usable() || !ok {
			continue
		}
		if found == nil || d.ID == near {
			found, owner = &e, d.Tenant
		}
	}
	if found == nil {
		return directory.Tenant{}, directory.Extension{}, directory.ErrUnknownExtension
	}
	return owner, *found, nil
}

// tenant returns a tenant by id.
func (s *Store) tenant(id uuid.UUID) directory.Tenant {
	for _, d := range s.domains {
		if d.Tenant.ID == id {
			return d.Tenant
		}
	}
	return directory.Tenant{}
}

// TrunkTenant implements dialplan.Store.
func (s *Store) TrunkTenant(_ context.Context, tenant uuid.UUID) (directory.Tenant, error) {
	if t := s.tenant(tenant); t.ID == tenant {
		return t, nil
	}
	return directory.Tenant{}, directory.ErrUnknownTenant
}

// HasEndpoint implements dialplan.EndpointStore: every tenant has one.
func (s *Store) HasEndpoint(context.Context, uuid.UUID) (bool, error) { return true, nil }

// ActiveTrunks implements trunk.Store.
func (s *Store) ActiveTrunks(context.Context) ([]trunk.Trunk, error) {
	return s.matching(func(t trunk.Trunk) bool { return s.tenant(t.TenantID).Active }), nil
}

// TenantTrunks implements dialplan.Store.
func (s *Store) TenantTrunks(_ context.Context, tenant uuid.UUID) ([]trunk.Trunk, error) {
	return s.matching(func(t trunk.Trunk) bool { return t.TenantID == tenant }), nil
}

func (s *Store) matching(keep func(trunk.Trunk) bool) []trunk.Trunk {
	var list []trunk.Trunk
	for _, t := range s.trunks {
		if keep(t) {
			list = append(list, t)
		}
	}
	return list
}

// OpenBreakers implements dialplan.ExplainStore: no ai-bridge has seen a gateway fail.
func (*Store) OpenBreakers(context.Context, uuid.UUID) ([]dialplan.OpenBreaker, error) {
	return nil, nil
}

// InboundTrunk implements dialplan.Store.
func (s *Store) InboundTrunk(_ context.Context, number fstext.E164) (trunk.Trunk, error) {
	for _, r := range s.ranges {
		if n := number.Int(); n < r.first || n > r.last {
			continue
		}
		for _, t := range s.trunks {
			if t.ID == r.trunk && s.tenant(t.TenantID).Active {
				return t, nil
			}
		}
	}
	return trunk.Trunk{}, trunk.ErrUnknownDID
}

// CarrierCountries implements dialplan.Store.
func (s *Store) CarrierCountries(_ context.Context, a netip.Addr) ([]numbering.Country, error) {
	var list []numbering.Country
	for _, t := range s.trunks {
		if owner := s.tenant(t.TenantID); owner.Active && t.CallsFrom(a) && !slices.Contains(list, owner.Country) {
			list = append(list, owner.Country)
		}
	}
	return list, nil
}
