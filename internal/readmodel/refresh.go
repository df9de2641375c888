package readmodel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/trunk"
)

func never(error) bool { return false }

func isUnknownDID(err error) bool { return errors.Is(err, trunk.ErrUnknownDID) }

// Apply implements feed.Reader.
func (m *Model) Apply(changes []feed.Change) {
	for _, c := range changes {
		seq := m.seq.Add(1)
		switch c.Subject {
		case feed.SubjectExtension:
			m.lists.forget(c.Domain, m.names.hash(c.Domain, ""), seq)
			for _, n := range c.Names {
				hash := m.names.hash(c.Domain, n)
				m.names.add(hash, seq)
				m.extensions.forget(extensionKey{c.Domain, n}, hash, seq)
			}
		case feed.SubjectDomain:
			m.ofTenant.forget(c.Tenant, m.names.hash(c.Tenant, ""), seq)
			for _, realm := range c.Names {
				hash := m.names.hash(uuid.Nil, realm)
				m.names.add(hash, seq)
				m.domains.forget(realm, hash, seq)
			}
		case feed.SubjectTenant:
			m.ofTenant.forget(c.Tenant, m.names.hash(c.Tenant, ""), seq)
			m.domains.forgetWhere(seq, func(d directory.Domain) bool { return d.Tenant.ID == c.Tenant })
			// The domains of a tenant that was deleted were unknown, and may not be any more.
			m.unknown.InvalidateAll()
			m.carriers.change(c.Tenant, seq)
		case feed.SubjectTrunk:
			m.carriers.change(c.Tenant, seq)
		default:
			// A table emptied at once, or a subject of a later version of the schema.
			m.Forget()
		}
	}
	m.refreshSoon()
}

// Forget implements feed.Reader. What is known stays, to be answered if the database should be away.
func (m *Model) Forget() {
	m.seq.Add(1)
	heard := m.heard.Load()
	if heard == 0 {
		heard = m.begun
	}
	m.doubts.begin(m.epoch.Load(), heard, m.now().Add(-m.opts.MaxAge).UnixNano())
	m.epoch.Add(1)
	m.unknown.InvalidateAll()
	m.refreshSoon()
}

// Synced implements feed.Reader.
func (m *Model) Synced(at time.Time) {
	m.answered.Store(at.UnixNano())
	m.heard.Store(at.Add(-time.Duration(m.behind.Load())).UnixNano())
	m.synced.Store(true)
	m.gate.open()
}

// Behind implements feed.Reader.
func (m *Model) Behind(age time.Duration) { m.behind.Store(int64(age)) }

func (m *Model) refreshSoon() { background.Poke(m.wake) }

func (c *carriers) change(tenant uuid.UUID, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = changed{}
	}
	c.changed[tenant] = seq
}

// Run reads in the background what is kept complete, the carriers and the names, whenever the feed makes that
// necessary, and if told so preloads all extensions, at first and whenever everything was distrusted. It returns when
// ctx ends.
func (m *Model) Run(ctx context.Context) {
	const retry = time.Second
	var last preload
	for {
		err := m.Refresh(ctx)
		var wait time.Duration
		if err == nil && m.opts.Preload {
			wait, err = last.anew(ctx, m)
		}
		var again <-chan time.Time
		if err != nil && ctx.Err() == nil {
			m.opts.Log.DebugContext(ctx, "not refreshed", "error", err)
			wait = retry
		}
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-again:
		}
	}
}

// preload is one that is over; the zero value is none.
type preload struct {
	done  bool
	epoch uint32 // in which it began
	rest  time.Time
}

// anew preloads, unless all was read since it was last distrusted. It takes a rest of the same length after each, so
// that whatever makes the feed distrust everything again and again does not keep the database reading; wait is what is
// left of it.
func (p *preload) anew(ctx context.Context, m *Model) (wait time.Duration, err error) {
	start, epoch := time.Now(), m.epoch.Load()
	if p.done && p.epoch == epoch {
		return 0, nil
	}
	if wait = p.rest.Sub(start); wait > 0 {
		return wait, nil
	}
	if err := m.Preload(ctx); err != nil {
		return 0, err
	}
	took := time.Since(start)
	*p = preload{done: true, epoch: epoch, rest: time.Now().Add(took)}
	m.opts.Log.InfoContext(ctx, "preloaded", "names", m.extensions.items.EstimatedSize(), "took_ms", took.Milliseconds())
	return 0, nil
}

// Refresh reads what has to be read now. It is for Run, and for those who want it done before they begin.
func (m *Model) Refresh(ctx context.Context) error {
	return errors.Join(m.refreshCarriers(ctx), m.refreshNames(ctx))
}

func (m *Model) refreshCarriers(ctx context.Context) error {
	c := &m.carriers
	epoch := m.epoch.Load()
	c.mu.RLock()
	table, all := c.table, c.table == nil || c.epoch != epoch
	changed := maps.Clone(c.changed)
	c.mu.RUnlock()
	if !all && len(changed) == 0 {
		return nil
	}
	var tenants []uuid.UUID
	if !all {
		tenants = slices.Collect(maps.Keys(changed))
	}
	read, err := m.opts.Bulk.Carriers(ctx, tenants)
	if err != nil {
		return fmt.Errorf("read carriers: %w", err)
	}
	if all {
		table = arrange(read)
	} else {
		table = table.replace(changed, read)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table, c.epoch = table, epoch
	for tenant, seq := range changed {
		if c.changed[tenant] == seq { // not changed again since
			delete(c.changed, tenant)
		}
	}
	return nil
}

// pageSize is the number of rows that are read at once in the background.
const pageSize = 10_000

func (m *Model) refreshNames(ctx context.Context) error {
	epoch, seq := m.epoch.Load(), m.seq.Load()
	if !m.names.due(epoch) {
		return nil
	}
	hashes, err := m.readRealms(ctx)
	if err != nil {
		return err
	}
	var last Name
	for {
		page, err := m.opts.Bulk.Names(ctx, last, pageSize)
		if err != nil {
			return fmt.Errorf("read names: %w", err)
		}
		for _, n := range page {
			hashes = append(hashes, m.names.hash(n.Domain, n.Name))
			last = n
		}
		if len(page) < pageSize {
			m.names.set(hashes, epoch, seq)
			return nil
		}
	}
}

func (m *Model) readRealms(ctx context.Context) ([]uint64, error) {
	var hashes []uint64
	last := ""
	for {
		page, err := m.opts.Bulk.Realms(ctx, last, pageSize)
		if err != nil {
			return nil, fmt.Errorf("read realms: %w", err)
		}
		for _, r := range page {
			hashes = append(hashes, m.names.hash(uuid.Nil, r))
			last = r
		}
		if len(page) < pageSize {
			return hashes, nil
		}
	}
}

// Preload reads all extensions and their domains, as many as there is room for. It is for Run, and for benchmarks.
func (m *Model) Preload(ctx context.Context) error {
	var after Key
	tenants := map[uuid.UUID]bool{}
	for kept := 0; kept < m.opts.MaxExtensions; {
		if err := m.Refresh(ctx); err != nil { // Run does not while this lasts
			return err
		}
		seq, epoch := m.seq.Load(), m.epoch.Load()
		page, last, err := m.opts.Bulk.AllExtensions(ctx, after, pageSize)
		if err != nil {
			return fmt.Errorf("preload: %w", err)
		}
		for _, p := range page {
			kept += m.remember(p, seq, epoch)
			tenants[p.Domain.Tenant.ID] = true
		}
		if after = last; after == (Key{}) {
			break
		}
	}
	// Without them nobody in the tenant can be called.
	for tenant := range tenants {
		if _, err := m.domainsOf(ctx, tenant); err != nil {
			return fmt.Errorf("preload: %w", err)
		}
	}
	return nil
}

// remember keeps an extension under its names, of which it returns the number, and its domain.
func (m *Model) remember(p DomainExtension, seq uint64, epoch uint32) int {
	realm := p.Domain.Realm.String()
	m.domains.put(realm, m.names.hash(uuid.Nil, realm), p.Domain, seq, epoch)
	r := pack(p.Extension)
	names := r.names()
	for _, name := range names {
		m.extensions.put(extensionKey{p.Domain.ID, name}, m.names.hash(p.Domain.ID, name), r, seq, epoch)
	}
	return len(names)
}
