package readmodel

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
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
	// changed has the number of the last change of each tenant in it.
	changed changed
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

// changed are tenants whose trunks changed and nobody has read yet how. What is known of them is answered only if the
// database cannot be asked.
type changed map[uuid.UUID]uint64

func (c changed) has(tenant uuid.UUID) bool {
	_, ok := c[tenant]
	return ok
}

// consult looks into the table, unless there is none that may be used. trusted tells that what it says of a tenant that
// has not changed is true, or cannot be known better, as the database is away; complete that what is not in it does not
// exist.
func (m *Model) consult(look func(*carrierTable, changed)) (trusted, complete bool) {
	c := &m.carriers
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.table == nil || !m.usable(c.epoch) {
		return false, false
	}
	look(c.table, c.changed)
	current := m.undoubted(c.epoch)
	return current || !m.answers(), current && m.answers() && len(c.changed) == 0
}

// ask asks the store what the table does not tell, once for all who ask the same at the same time, and no more often
// than the store can bear. What it answers is shared: nobody may change it. flight is the same for the same question
// only.
func ask[V any](ctx context.Context, m *Model, flight string, answer func(error) bool, load func(context.Context) (V, error)) (V, error) {
	// Whoever asks after a change must not be told what was read before it: he is another flight.
	return fly(ctx, m, flight+" "+strconv.FormatUint(m.seq.Load(), 10), func(ctx context.Context) (V, error) {
		return through(ctx, m, answer, load)
	})
}

// InboundTrunk implements dialplan.Store.
func (m *Model) InboundTrunk(ctx context.Context, number fstext.E164) (trunk.Trunk, error) {
	var found trunk.Trunk
	var known, unchanged bool
	trusted, complete := m.consult(func(t *carrierTable, c changed) {
		found, known = t.byNumber(number.Int())
		unchanged = !c.has(found.TenantID)
	})
	switch {
	case known && unchanged && trusted:
		return found, nil
	case complete && m.late():
		return trunk.Trunk{}, ErrBehind
	case complete:
		return trunk.Trunk{}, trunk.ErrUnknownDID
	}
	asked, err := ask(ctx, m, "did "+number.String(), isUnknownDID, func(ctx context.Context) (trunk.Trunk, error) { return m.opts.Store.InboundTrunk(ctx, number) })
	if known && err != nil && !isUnknownDID(err) {
		return found, nil
	}
	return asked, err
}

// CarrierCountries implements dialplan.Store.
func (m *Model) CarrierCountries(ctx context.Context, a netip.Addr) ([]numbering.Country, error) {
	var known []numbering.Country
	_, complete := m.consult(func(t *carrierTable, _ changed) { known = t.countries(a.Unmap().WithZone("")) })
	if complete && len(known) == 0 && m.late() {
		return nil, ErrBehind
	}
	if complete || len(known) > 0 && !m.answers() {
		return known, nil
	}
	asked, err := ask(ctx, m, "countries "+a.String(), never, func(ctx context.Context) ([]numbering.Country, error) { return m.opts.Store.CarrierCountries(ctx, a) })
	if err == nil && len(asked) == 0 && m.late() {
		err = ErrBehind
	}
	if len(known) > 0 && err != nil {
		return known, nil
	}
	return asked, err
}

// TenantTrunks implements dialplan.Store.
func (m *Model) TenantTrunks(ctx context.Context, tenant uuid.UUID) ([]trunk.Trunk, error) {
	return m.trunks(ctx, "trunks "+tenant.String(), func(t *carrierTable, c changed) ([]trunk.Trunk, bool) { return t.ofTenant[tenant], !c.has(tenant) },
		func(ctx context.Context) ([]trunk.Trunk, error) { return m.opts.Store.TenantTrunks(ctx, tenant) })
}

// ActiveTrunks implements trunk.Store.
func (m *Model) ActiveTrunks(ctx context.Context) ([]trunk.Trunk, error) {
	return m.trunks(ctx, "trunks", func(t *carrierTable, c changed) ([]trunk.Trunk, bool) { return t.active, len(c) == 0 }, m.opts.Store.ActiveTrunks)
}

// trunks returns a list of the table, unless it may have changed: then the store's, or if that cannot be asked what the
// table has.
func (m *Model) trunks(ctx context.Context, flight string, look func(*carrierTable, changed) (list []trunk.Trunk, unchanged bool),
	load func(context.Context) ([]trunk.Trunk, error),
) ([]trunk.Trunk, error) {
	var list []trunk.Trunk
	var known, unchanged bool
	trusted, _ := m.consult(func(t *carrierTable, c changed) {
		list, unchanged = look(t, c)
		known = unchanged || len(list) > 0 // none, and there may be one now, is no answer
	})
	if unchanged && trusted {
		return list, nil
	}
	asked, err := ask(ctx, m, flight, never, load)
	if known && err != nil {
		return list, nil
	}
	return asked, err
}
