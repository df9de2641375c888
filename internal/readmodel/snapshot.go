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
	"net/netip"
	"os"
	"path/filepath"
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

// A snapshot file lets a process that starts while the database is away answer what another knew. It holds what the model
// holds, credentials sealed as they are in the database, and how far the feed was read. Layout: snapshotMagic; a gob stream of
// a snapshotHead, then of []snapshotExtension until an empty one; the SHA-256 of all that.

const snapshotMagic = "edgvoip snapshot 4\n"

// snapshotHead is everything but extensions. Its parts are plain: what is read back passes the constructors again.
type snapshotHead struct {
	Heard    time.Time
	Position feed.Position
	Seed     nameSeed
	NamesAll bool
	Names    []uint64
	Domains  []snapshotDomain
	// CarriersKnown tells whether Carriers are all there are.
	CarriersKnown bool
	Carriers      []snapshotCarrier
}

type snapshotDomain struct {
	ID, Tenant                 uuid.UUID
	Realm, Slug, Name, Country string
	RecordCalls                string
	Active, TenantActive       bool
	// Listed is true if the tenant's domains are known to be the ones here, in this order.
	Listed bool
}

type snapshotExtension struct {
	Domain uuid.UUID
	Name   string
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

// Save writes a snapshot file, readable by its owner only, in place of the one before. from is how far the feed was read before
// the call: what changes meanwhile is applied again by whoever loads it.
func (m *Model) Save(path string, from feed.Position) (err error) {
	if from.Mark == (feed.Mark{}) {
		return errors.New("nothing to save: the feed was not read yet")
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // beside the error that is told, a file left over is nothing
			err = fmt.Errorf("save snapshot: %w", err)
		}
	}()
	err = m.write(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
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
	epoch := m.epoch.Load()
	for k, e := range m.extensions.items.All() {
		if e.epoch != epoch {
			continue
		}
		if chunk = append(chunk, snapshotExtension{k.domain, k.name, e.value}); len(chunk) == snapshotChunk {
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
	h := snapshotHead{Heard: time.Unix(0, m.heard.Load()), Position: from, Seed: m.names.seed}
	epoch := m.epoch.Load()
	m.names.mu.RLock()
	if h.NamesAll = m.names.read && m.names.epoch == epoch; h.NamesAll {
		h.Names = slices.Clone(m.names.all)
		for n := range m.names.added {
			h.Names = append(h.Names, n)
		}
	}
	m.names.mu.RUnlock()
	listed := map[uuid.UUID]bool{}
	for tenant, e := range m.ofTenant.items.All() {
		if e.epoch != epoch {
			continue
		}
		listed[tenant] = true
		for _, d := range e.value {
			h.Domains = append(h.Domains, snapshotDomainOf(d, true))
		}
	}
	for _, e := range m.domains.items.All() {
		if e.epoch == epoch && !listed[e.value.Tenant.ID] {
			h.Domains = append(h.Domains, snapshotDomainOf(e.value, false))
		}
	}
	m.carriers.mu.RLock()
	defer m.carriers.mu.RUnlock()
	if m.carriers.table != nil && m.carriers.epoch == epoch && len(m.carriers.changed) == 0 {
		h.CarriersKnown = true
		for _, c := range m.carriers.table.all {
			h.Carriers = append(h.Carriers, snapshotCarrierOf(c))
		}
	}
	return h
}

// Load reads a snapshot file into a model that knows nothing yet, and returns how far the feed was read. A file that is not
// there is no error: the position is then zero.
func (m *Model) Load(path string) (feed.Position, error) {
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
			m.extensions.put(extensionKey{e.Domain, e.Name}, m.names.hash(e.Domain, e.Name), e.Record, m.seq.Load(), m.epoch.Load())
		}
	}
}

func (m *Model) restore(h snapshotHead) error {
	m.names.seed = h.Seed
	epoch := m.epoch.Load()
	if h.NamesAll {
		m.names.set(h.Names, epoch, m.seq.Load())
	}
	listed := map[uuid.UUID][]directory.Domain{}
	for _, s := range h.Domains {
		d, err := s.domain()
		if err != nil {
			return err
		}
		m.domains.put(s.Realm, m.names.hash(uuid.Nil, s.Realm), d, m.seq.Load(), epoch)
		if s.Listed {
			listed[s.Tenant] = append(listed[s.Tenant], d)
		}
	}
	for tenant, domains := range listed {
		m.ofTenant.put(tenant, m.names.hash(tenant, ""), domains, m.seq.Load(), epoch)
	}
	if !h.CarriersKnown {
		return nil
	}
	all := make([]Carrier, 0, len(h.Carriers))
	for _, s := range h.Carriers {
		c, err := s.carrier()
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	m.carriers.table, m.carriers.epoch = arrange(all), epoch
	return nil
}

// KeepSnapshot saves a snapshot at intervals, and once more when ctx ends.
func (m *Model) KeepSnapshot(ctx context.Context, path string, interval time.Duration, position func() feed.Position) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	save := func() {
		if !m.live() {
			return // it would not be newer than the one before
		}
		if err := m.Save(path, position()); err != nil {
			m.opts.Log.ErrorContext(ctx, "snapshot", "error", err)
		}
	}
	for {
		select {
		case <-ctx.Done():
			save()
			return
		case <-tick.C:
			save()
		}
	}
}

func snapshotDomainOf(d directory.Domain, listed bool) snapshotDomain {
	return snapshotDomain{
		ID: d.ID, Tenant: d.Tenant.ID, Realm: d.Realm.String(), Slug: d.Tenant.Slug.String(), Name: d.Tenant.Name.String(),
		Country: d.Tenant.Country.String(), Active: d.Active, TenantActive: d.Tenant.Active,
		RecordCalls: string(d.Tenant.RecordCalls), Listed: listed,
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
