package readmodel

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/schedule"
	"github.com/edgvoip/edgvoip/trunk"
)

// A snapshot file lets a process that starts while the database is away answer what another knew. It holds what the
// model holds, credentials sealed as they are in the database, and how far the feed was read. What is in doubt is in it
// too, with the epoch that it was read in: whoever loads it counts on from there, and doubts it as well. Layout:
// snapshotMagic; a gob stream of a snapshotHead, then of []snapshotExtension until an empty one; the SHA-256 of all
// that.

const snapshotMagic = "edgvoip snapshot 5\n"

// snapshotHead is everything but extensions. Its parts are plain: what is read back passes the constructors again.
type snapshotHead struct {
	Heard time.Time
	// Position is zero if it is not known what has changed since: then everything will be in doubt.
	Position feed.Position
	Epoch    uint32
	// Doubts are those of the model.
	Doubts     map[uint32]int64
	Seed       nameSeed
	NamesAll   bool // whether Names are all there are
	NamesEpoch uint32
	Names      []uint64
	Domains    []snapshotDomain
	Tenants    []snapshotTenant
	// CarriersKnown tells whether Carriers are all there are, but for those of the tenants in CarriersChanged.
	CarriersKnown   bool
	CarriersEpoch   uint32
	CarriersChanged []uuid.UUID
	Carriers        []snapshotCarrier
}

type snapshotDomain struct {
	Epoch                      uint32
	ID, Tenant                 uuid.UUID
	Realm, Slug, Name, Country string
	RecordCalls                string
	Active, TenantActive       bool
}

// snapshotTenant is the domains of a tenant, in order, each without an epoch of its own.
type snapshotTenant struct {
	ID      uuid.UUID
	Epoch   uint32
	Domains []snapshotDomain
}

type snapshotExtension struct {
	Domain uuid.UUID
	Name   string
	Epoch  uint32
	Record record
}

type snapshotCarrier struct {
	ID, Tenant                  uuid.UUID
	Name, Host, Protocol        string
	Port, MaxChannels, Priority int
	Sources                     []netip.Prefix
	Register                    bool
	Username                    string
	Password                    secret.Sealed
	CallerID, CallerIDNumber    string
	Failover, Country           string
	TenantActive                bool
	DIDs                        [][2]string
	AIAgentRef, Proxy           string
	NumberFormat, TechPrefix    string
	Prefixes, Codecs            []string
	PingSeconds                 int
	Revision                    int64
	TimePolicy, Timezone        string
}

// snapshotChunk is the number of extensions that are written at once.
const snapshotChunk = 1000

// Save writes a snapshot file, readable by its owner only, in place of the one before. from is how far the feed was
// read before the call: what changes meanwhile is applied again by whoever loads it. It is zero as long as nobody can
// say: whoever loads the file then has everything in doubt as soon as there is a database.
func (m *Model) Save(path string, from feed.Position) (err error) {
	f, err := createBeside(path)
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // beside the error that is told, a file left over is nothing
			err = fmt.Errorf("save snapshot: %w", err)
		}
		_ = f.Close() // all of it is on the disk already, or it is not used
	}()
	if err := m.write(f, from); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path) // still locked
}

func (m *Model) write(w io.Writer, from feed.Position) error {
	sum := sha256.New()
	buffer := bufio.NewWriterSize(w, 1<<20)
	out := io.MultiWriter(buffer, sum)
	if _, err := io.WriteString(out, snapshotMagic); err != nil {
		return err
	}
	enc := gob.NewEncoder(out)
	if err := enc.Encode(m.head(from)); err != nil {
		return err
	}
	chunk := make([]snapshotExtension, 0, snapshotChunk)
	for k, e := range m.extensions.items.All() {
		if !m.usable(e.epoch) {
			continue
		}
		if chunk = append(chunk, snapshotExtension{k.domain, k.name, e.epoch, e.value}); len(chunk) == snapshotChunk {
			if err := enc.Encode(chunk); err != nil {
				return err
			}
			chunk = chunk[:0]
		}
	}
	if len(chunk) > 0 {
		if err := enc.Encode(chunk); err != nil {
			return err
		}
	}
	if err := enc.Encode([]snapshotExtension{}); err != nil {
		return err
	}
	if _, err := buffer.Write(sum.Sum(nil)); err != nil {
		return err
	}
	return buffer.Flush()
}

func (m *Model) head(from feed.Position) snapshotHead {
	h := snapshotHead{Heard: time.Unix(0, m.heard.Load()), Position: from, Epoch: m.epoch.Load(), Doubts: m.doubts.snapshot(), Seed: m.names.seed}
	m.names.mu.RLock()
	if h.NamesAll = m.names.read && m.usable(m.names.epoch); h.NamesAll {
		h.NamesEpoch, h.Names = m.names.epoch, slices.Clone(m.names.all)
		for n := range m.names.added {
			h.Names = append(h.Names, n)
		}
	}
	m.names.mu.RUnlock()
	for tenant, e := range m.ofTenant.items.All() {
		if !m.usable(e.epoch) {
			continue
		}
		t := snapshotTenant{ID: tenant, Epoch: e.epoch}
		for _, d := range e.value {
			t.Domains = append(t.Domains, snapshotDomainOf(d, 0))
		}
		h.Tenants = append(h.Tenants, t)
	}
	for _, e := range m.domains.items.All() {
		if m.usable(e.epoch) {
			h.Domains = append(h.Domains, snapshotDomainOf(e.value, e.epoch))
		}
	}
	m.carriers.snapshot(m, &h)
	return h
}

func (c *carriers) snapshot(m *Model, h *snapshotHead) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.table == nil || !m.usable(c.epoch) {
		return
	}
	h.CarriersKnown, h.CarriersEpoch, h.CarriersChanged = true, c.epoch, slices.Collect(maps.Keys(c.changed))
	for _, k := range c.table.all {
		h.Carriers = append(h.Carriers, snapshotCarrierOf(k))
	}
}

// Load reads a snapshot file into a model that knows nothing yet, and returns how far the feed was read. A file that is
// not there is no error: the position is then zero. What is left of processes that were killed while they saved is
// removed.
func (m *Model) Load(path string) (feed.Position, error) {
	if err := removeLeftovers(path); err != nil {
		m.opts.Log.Warn("what is left of unfinished snapshots stays", "error", err)
	}
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if errors.Is(err, fs.ErrNotExist) {
		return feed.Position{}, nil
	} else if err != nil {
		return feed.Position{}, fmt.Errorf("load snapshot: %w", err)
	}
	defer f.Close()
	if err := verify(f); err != nil {
		return feed.Position{}, fmt.Errorf("load snapshot: %w", err)
	}
	p, err := m.read(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return feed.Position{}, fmt.Errorf("load snapshot: %w", err)
	}
	return p, nil
}

var errSnapshot = errors.New("file is damaged, or not a snapshot of this version")

// verify checks the sum of a file and goes back to its first record.
func verify(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size() - sha256.Size
	if size < int64(len(snapshotMagic)) {
		return errSnapshot
	}
	sum := sha256.New()
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != snapshotMagic {
		return errors.Join(errSnapshot, err)
	}
	sum.Write(magic)
	if _, err := io.CopyN(sum, f, size-int64(len(magic))); err != nil {
		return err
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(f, want); err != nil {
		return err
	}
	if !slices.Equal(sum.Sum(nil), want) {
		return errSnapshot
	}
	_, err = f.Seek(int64(len(snapshotMagic)), io.SeekStart)
	return err
}

func (m *Model) read(r io.Reader) (feed.Position, error) {
	dec := gob.NewDecoder(r)
	var h snapshotHead
	if err := dec.Decode(&h); err != nil {
		return feed.Position{}, err
	}
	if err := m.restore(h); err != nil {
		return feed.Position{}, err
	}
	for {
		var chunk []snapshotExtension
		if err := dec.Decode(&chunk); err != nil {
			return feed.Position{}, err
		}
		if len(chunk) == 0 {
			m.heard.Store(h.Heard.UnixNano())
			return h.Position, nil
		}
		for _, e := range chunk {
			m.extensions.put(extensionKey{e.Domain, e.Name}, m.names.hash(e.Domain, e.Name), e.Record, m.seq.Load(), min(e.Epoch, h.Epoch))
		}
	}
}

func (m *Model) restore(h snapshotHead) error {
	m.epoch.Store(h.Epoch)
	m.begun = h.Heard.UnixNano()
	m.doubts.restore(h.Doubts)
	m.names.seed = h.Seed
	if h.NamesAll {
		m.names.set(h.Names, min(h.NamesEpoch, h.Epoch), m.seq.Load())
	}
	for _, s := range h.Domains {
		d, err := s.domain()
		if err != nil {
			return err
		}
		m.domains.put(s.Realm, m.names.hash(uuid.Nil, s.Realm), d, m.seq.Load(), min(s.Epoch, h.Epoch))
	}
	for _, t := range h.Tenants {
		domains := make([]directory.Domain, len(t.Domains))
		for i, s := range t.Domains {
			var err error
			if domains[i], err = s.domain(); err != nil {
				return err
			}
		}
		m.ofTenant.put(t.ID, m.names.hash(t.ID, ""), domains, m.seq.Load(), min(t.Epoch, h.Epoch))
	}
	return m.carriers.restore(h, m.seq.Load())
}

// restore takes the carriers of a snapshot. since is the number of the newest change.
func (c *carriers) restore(h snapshotHead, since uint64) error {
	if !h.CarriersKnown {
		return nil
	}
	all := make([]Carrier, 0, len(h.Carriers))
	for _, s := range h.Carriers {
		k, err := s.carrier()
		if err != nil {
			return err
		}
		all = append(all, k)
	}
	for _, tenant := range h.CarriersChanged {
		c.change(tenant, since)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.table, c.epoch = arrange(all), min(h.CarriersEpoch, h.Epoch)
	return nil
}

// firstSave is the time from the start to the first snapshot. The next ones take twice as long each, up to the
// interval: most is learned soon after the start.
const firstSave = 10 * time.Second

// KeepSnapshot saves a snapshot at intervals, the first ones sooner, and once more when ctx ends; also without the
// database, as what was read since the last one may have been much. What may not be answered any more is not saved: the
// file stays as it is.
func (m *Model) KeepSnapshot(ctx context.Context, path string, interval time.Duration, position func() feed.Position) {
	save := func() {
		if !m.fresh() {
			return
		}
		if err := m.Save(path, position()); err != nil {
			m.opts.Log.ErrorContext(ctx, "snapshot", "error", err)
		}
	}
	for pause := min(firstSave, interval); ; pause = min(2*pause, interval) {
		select {
		case <-ctx.Done():
			save()
			return
		case <-time.After(pause):
			save()
		}
	}
}

func snapshotDomainOf(d directory.Domain, epoch uint32) snapshotDomain {
	return snapshotDomain{
		ID: d.ID, Tenant: d.Tenant.ID, Realm: d.Realm.String(), Slug: d.Tenant.Slug.String(), Name: d.Tenant.Name.String(),
		Country: d.Tenant.Country.String(), Active: d.Active, TenantActive: d.Tenant.Active,
		RecordCalls: string(d.Tenant.RecordCalls), Epoch: epoch,
	}
}

func (s snapshotDomain) domain() (directory.Domain, error) {
	realm, err1 := fstext.NewRealm(s.Realm)
	slug, err2 := fstext.NewSlug(s.Slug)
	name, err3 := fstext.NewDisplayName(s.Name)
	country, err4 := numbering.NewCountry(s.Country)
	record, err5 := directory.ParseRecordPolicy(s.RecordCalls)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return directory.Domain{}, fmt.Errorf("domain %s: %w", s.ID, err)
	}
	return directory.Domain{
		ID: s.ID, Realm: realm, Active: s.Active,
		Tenant: directory.Tenant{ID: s.Tenant, Slug: slug, Name: name, Country: country, Active: s.TenantActive, RecordCalls: record},
	}, nil
}

func snapshotCarrierOf(c Carrier) snapshotCarrier {
	t := &c.Trunk
	s := snapshotCarrier{
		ID: t.ID, Tenant: t.TenantID, Name: t.Name.String(), Host: t.Host.String(), Protocol: string(t.Protocol), Port: t.Port,
		MaxChannels: t.MaxChannels, Priority: t.Priority, Sources: t.Sources, Register: t.Register, Username: t.Username.Reveal().String(),
		Password: t.Password, CallerID: string(t.CallerID), CallerIDNumber: t.CallerIDNumber.String(), Failover: t.Failover.String(),
		Country: c.Country.String(), TenantActive: c.TenantActive, AIAgentRef: t.AIAgentRef, Proxy: t.Proxy.String(),
		NumberFormat: string(t.NumberFormat), TechPrefix: t.TechPrefix.String(), Prefixes: t.Prefixes, Codecs: t.Codecs.Names(),
		PingSeconds: t.PingSeconds, Revision: t.Revision,
	}
	s.TimePolicy, s.Timezone = t.Hours.Stored()
	for _, r := range c.DIDs {
		s.DIDs = append(s.DIDs, [2]string{r.First.String(), r.Last.String()})
	}
	return s
}

func (s snapshotCarrier) carrier() (Carrier, error) {
	c := Carrier{TenantActive: s.TenantActive, Trunk: trunk.Trunk{
		ID: s.ID, TenantID: s.Tenant, Port: s.Port, MaxChannels: s.MaxChannels, Priority: s.Priority, Sources: s.Sources, Register: s.Register,
		Password: s.Password, PingSeconds: s.PingSeconds, Revision: s.Revision, Hours: schedule.ReadHours(s.TimePolicy, s.Timezone),
	}}
	t := &c.Trunk
	var errs [14]error
	t.Name, errs[0] = fstext.NewDisplayName(s.Name)
	t.Host, errs[1] = fstext.NewHost(s.Host)
	t.Protocol, errs[2] = trunk.ParseProtocol(s.Protocol)
	t.CallerID, errs[3] = trunk.ParseCallerIDPolicy(s.CallerID)
	if s.Username != "" {
		t.Username, errs[4] = fstext.NewCredential(s.Username)
	}
	if s.CallerIDNumber != "" {
		t.CallerIDNumber, errs[5] = fstext.NewE164(s.CallerIDNumber)
	}
	if s.Failover != "" {
		t.Failover, errs[6] = fstext.NewExtension(s.Failover)
	}
	c.Country, errs[7] = numbering.NewCountry(s.Country)
	t.AIAgentRef, errs[8] = trunk.ParseAIAgentRef(s.AIAgentRef)
	t.Proxy, errs[9] = trunk.ParseProxy(s.Proxy)
	t.NumberFormat, errs[10] = trunk.ParseNumberFormat(s.NumberFormat)
	t.TechPrefix, errs[11] = trunk.ParseTechPrefix(s.TechPrefix)
	t.Prefixes, errs[12] = trunk.ParsePrefixes(s.Prefixes)
	t.Codecs, errs[13] = trunk.ReadCodecs(s.Codecs)
	for _, r := range s.DIDs {
		first, err1 := fstext.NewE164(r[0])
		last, err2 := fstext.NewE164(r[1])
		errs[7] = errors.Join(errs[7], err1, err2)
		c.DIDs = append(c.DIDs, trunk.Range{First: first, Last: last})
	}
	if err := errors.Join(errs[:]...); err != nil {
		return Carrier{}, fmt.Errorf("trunk %s: %w", s.ID, err)
	}
	return c, nil
}
