package readmodel

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/trunk"
)

// carriers holds all active trunks and their DIDs, complete, so that what is not in it does not exist.
type carriers struct {
	mu    sync.RWMutex
	table *carrierTable // never changed, only replaced; nil until it was read
	epoch uint32        // in which all of it was read
	// changed are tenants whose trunks have changed since they were read, with the number of the change.
	changed map[uuid.UUID]uint64
}

// carrierTable is arranged for what calls ask. Its values are shared: nobody may change them.
type carrierTable struct {
	active   []trunk.Trunk // of active tenants, in order of tenant, priority and id
	ofTenant map[uuid.UUID][]trunk.Trunk
	dids     []did // of active tenants, in order; they do not overlap
	blocks   map[netip.Prefix][]numbering.Country
	lengths  []blockLength // of the blocks, each once
	all      []Carrier     // what it was made of
}

type did struct {
	first, last int64
	trunk       *trunk.Trunk
}

type blockLength struct {
	v6   bool
	bits int
}

// arrange makes a table of carriers, in order of tenant, priority and id.
func arrange(all []Carrier) *carrierTable {
	t := &carrierTable{all: all, ofTenant: map[uuid.UUID][]trunk.Trunk{}, blocks: map[netip.Prefix][]numbering.Country{}}
	for i := range all {
		c := &all[i]
		t.ofTenant[c.Trunk.TenantID] = append(t.ofTenant[c.Trunk.TenantID], c.Trunk)
		if !c.TenantActive {
			continue
		}
		t.active = append(t.active, c.Trunk)
		for _, r := range c.DIDs {
			t.dids = append(t.dids, did{r.First.Int(), r.Last.Int(), &c.Trunk})
		}
		for _, p := range c.Trunk.SourceAddresses() {
			t.addBlock(p, c.Country)
		}
	}
	slices.SortFunc(t.dids, func(a, b did) int { return cmp.Compare(a.first, b.first) })
	return t
}

func (t *carrierTable) addBlock(p netip.Prefix, c numbering.Country) {
	p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits())
	if !slices.Contains(t.blocks[p], c) {
		t.blocks[p] = append(t.blocks[p], c)
	}
	if l := (blockLength{p.Addr().Is6(), p.Bits()}); !slices.Contains(t.lengths, l) {
		t.lengths = append(t.lengths, l)
	}
}

func (t *carrierTable) byNumber(n int64) (trunk.Trunk, bool) {
	i, found := slices.BinarySearchFunc(t.dids, n, func(d did, n int64) int { return cmp.Compare(d.first, n) })
	if !found {
		i--
	}
	if i < 0 || n > t.dids[i].last {
		return trunk.Trunk{}, false
	}
	return *t.dids[i].trunk, true
}

func (t *carrierTable) countries(a netip.Addr) []numbering.Country {
	var list []numbering.Country
	for _, l := range t.lengths {
		if l.v6 != a.Is6() {
			continue
		}
		p, err := a.Prefix(l.bits)
		if err != nil {
			continue // cannot be: a block of that length has an address of that kind
		}
		for _, c := range t.blocks[p] {
			if !slices.Contains(list, c) {
				list = append(list, c)
			}
		}
	}
	slices.SortFunc(list, func(a, b numbering.Country) int { return cmp.Compare(a.String(), b.String()) })
	return list
}

// replace returns a table in which some tenants have other carriers.
func (t *carrierTable) replace(tenants map[uuid.UUID]uint64, by []Carrier) *carrierTable {
	all := make([]Carrier, 0, len(t.all)+len(by))
	for _, c := range t.all {
		if _, replaced := tenants[c.Trunk.TenantID]; !replaced {
			all = append(all, c)
		}
	}
	all = append(all, by...)
	slices.SortStableFunc(all, func(a, b Carrier) int { return cmp.Compare(a.Trunk.TenantID.String(), b.Trunk.TenantID.String()) })
	return arrange(all)
}

// trusted returns the table if it may be answered from. complete tells whether what is not in it does not exist. While the
// database is there, a table that is behind is not used at all: the store is asked until it has caught up.
func (m *Model) trusted() (t *carrierTable, complete bool) {
	live := m.live()
	c := &m.carriers
	c.mu.RLock()
	defer c.mu.RUnlock()
	behind := !m.synced.Load() || c.epoch != m.epoch.Load() || len(c.changed) > 0
	if c.table == nil || !m.usable() || live && behind {
		return nil, false
	}
	return c.table, live
}

// outdated tells whether a tenant's trunks changed and nobody could read how.
func (c *carriers) outdated(tenant uuid.UUID) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	_, changed := c.changed[tenant]
	return changed
}

// ask asks the store what the table does not tell, no more often than the store can bear.
func ask[V any](ctx context.Context, m *Model, answer func(error) bool, load func(context.Context) (V, error)) (V, error) {
	if err := m.gate.enter(m.opts.LoadTimeout); err != nil {
		var none V
		return none, err
	}
	v, err := load(ctx)
	m.gate.leave(err == nil || answer(err))
	return v, err
}

// InboundTrunk implements dialplan.Store.
func (m *Model) InboundTrunk(ctx context.Context, number fstext.E164) (trunk.Trunk, error) {
	if t, complete := m.trusted(); t != nil {
		found, ok := t.byNumber(number.Int())
		switch {
		case ok && (complete || !m.carriers.outdated(found.TenantID)):
			return found, nil
		case !ok && complete:
			return trunk.Trunk{}, trunk.ErrUnknownDID
		}
	}
	return ask(ctx, m, isUnknownDID, func(ctx context.Context) (trunk.Trunk, error) { return m.opts.Store.InboundTrunk(ctx, number) })
}

// CarrierCountries implements dialplan.Store.
func (m *Model) CarrierCountries(ctx context.Context, a netip.Addr) ([]numbering.Country, error) {
	if t, complete := m.trusted(); t != nil {
		if list := t.countries(a.Unmap().WithZone("")); complete || len(list) > 0 {
			return list, nil
		}
	}
	return ask(ctx, m, never, func(ctx context.Context) ([]numbering.Country, error) { return m.opts.Store.CarrierCountries(ctx, a) })
}

// TenantTrunks implements dialplan.Store.
func (m *Model) TenantTrunks(ctx context.Context, tenant uuid.UUID) ([]trunk.Trunk, error) {
	if t, _ := m.trusted(); t != nil && !m.carriers.outdated(tenant) {
		return t.ofTenant[tenant], nil
	}
	return ask(ctx, m, never, func(ctx context.Context) ([]trunk.Trunk, error) { return m.opts.Store.TenantTrunks(ctx, tenant) })
}

// ActiveTrunks implements trunk.Store.
func (m *Model) ActiveTrunks(ctx context.Context) ([]trunk.Trunk, error) {
	if t, complete := m.trusted(); t != nil && (complete || !m.carriers.behind()) {
		return t.active, nil
	}
	return ask(ctx, m, never, m.opts.Store.ActiveTrunks)
}

// behind tells whether any tenant's trunks are outdated.
func (c *carriers) behind() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.changed) > 0
}
