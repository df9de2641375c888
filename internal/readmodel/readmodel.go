// Package readmodel answers lookups from memory. It reads through to the database on a miss, forgets what the change
// feed says has changed, and when the database is away goes on with what it knew.
//
// What it keeps, and how it is bounded:
//
//   - Extensions and domains that were asked for, or all of them if it is told to preload; the least used leave first.
//   - All trunks and DIDs, as a call from a carrier must be told apart from a stranger's without a query.
//   - A hash of every name there is, so that names that do not exist cost no query; and briefly, names that were asked for
//     in vain.
//
// docs/decisions/0012-read-model.md gives the reasons.
package readmodel

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/trunk"
)

// Store is what is read on a miss. An answer may take as long as Options.LoadTimeout.
type Store interface {
	directory.Store
	dialplan.Store
	trunk.Store
	// TenantDomains returns the domains of a tenant in order of creation, deleted ones left out.
	TenantDomains(ctx context.Context, tenant uuid.UUID) ([]directory.Domain, error)
}

// Bulk is what is read in large parts, in the background.
type Bulk interface {
	// Realms returns up to limit realms after one, in order.
	Realms(ctx context.Context, after string, limit int) ([]string, error)
	// Names returns up to limit names after one, in order of tenant, domain and name.
	Names(ctx context.Context, after Name, limit int) ([]Name, error)
	// AllExtensions returns the extensions among the next so many rows after one, in order of tenant and id, and where
	// the page ends; the zero key if that was the last.
	AllExtensions(ctx context.Context, after Key, limit int) (page []DomainExtension, last Key, err error)
	// Carriers returns the active trunks of some tenants, or of all if the list is nil, in order of tenant, priority
	// and id.
	Carriers(ctx context.Context, tenants []uuid.UUID) ([]Carrier, error)
}

// Name is a name that an extension answers to, in lower case.
type Name struct {
	Tenant, Domain uuid.UUID
	Name           string
}

// Key is the place of an extension in the order of a Bulk. The zero value is before all.
type Key struct{ Tenant, ID uuid.UUID }

// DomainExtension is an extension with its domain.
type DomainExtension struct {
	Domain    directory.Domain
	Extension directory.Extension
}

// Carrier is an active trunk with its DIDs and what of its tenant a call needs.
type Carrier struct {
	Trunk        trunk.Trunk
	Country      numbering.Country
	TenantActive bool
	DIDs         []trunk.Range
}

// Options describe a model.
type Options struct {
	Store Store
	Bulk  Bulk
	// MaxExtensions bounds the names of extensions that are kept: an extension whose username is not its number has
	// two.
	MaxExtensions int
	// MaxAge is how long answers are given from memory after the database was last heard of.
	MaxAge time.Duration
	// Preload fills the model with all extensions in the background.
	Preload bool
	// LoadTimeout bounds a read of the store, MaxLoads how many there are at once.
	LoadTimeout time.Duration
	MaxLoads    int
	// LiveFor is how long the database counts as there after it was last heard of.
	LiveFor time.Duration
	Metrics *Metrics
	Log     *slog.Logger
}

// Bounds that no operator needs to set.
const (
	// maxDomains bounds the domains kept, and the tenants whose domains are known.
	maxDomains = 200_000
	// maxListed bounds the extensions in lists of whole domains, together.
	maxListed = 200_000
	// Names asked for in vain are remembered so many, so long.
	maxUnknown  = 65_536
	unknownLife = 10 * time.Second
	// doubtRate is how many names a second are asked for in the database though no such name is known: one that was
	// created this very moment must not wait for the feed. A scan gets no more.
	doubtRate = 50
	// doubtPatience is how long such a question waits for its answer. If that is not enough nobody else asks for
	// doubtPause: a database that has just gone silent must not hold up everybody who dials a public number.
	doubtPatience = 200 * time.Millisecond
	doubtPause    = time.Second
)

// ErrAway is the error of a lookup that needs the database while it is away; ErrBusy of one that would have to wait too
// long; ErrBehind of one that needs to know better than a replica that is behind its primary.
var (
	ErrAway = errors.New("not known from memory, and the database is away")
	ErrBusy = errors.New("not known from memory, and too many ask the database already")

	ErrBehind = errors.New("not known from memory, and the database is a replica that is behind its primary")
)

// Model answers lookups. It is safe for concurrent use. Run keeps it true.
type Model struct {
	opts Options
	now  func() time.Time

	extensions *cache[extensionKey, record]
	domains    *cache[string, directory.Domain]
	ofTenant   *cache[uuid.UUID, []directory.Domain]
	lists      *cache[uuid.UUID, []record]
	unknown    *otter.Cache[uint64, uint32] // the epoch in which the store was asked
	names      names
	carriers   carriers

	flight singleflight.Group
	gate   gate
	doubt  *rate.Limiter
	// noDoubt is until when nobody is in doubt, in Unix nanoseconds.
	noDoubt atomic.Int64

	// epoch counts how often everything was distrusted. seq orders invalidations and loads.
	epoch  atomic.Uint32
	seq    atomic.Uint64
	doubts doubts
	// begun is the time, in Unix nanoseconds, that nothing is older than, but what doubts tell of: when the model was
	// made, or when the database was last heard of before its snapshot.
	begun int64
	// synced is true once the feed has been read by this process.
	synced atomic.Bool
	// heard is when the database was last heard of, in Unix nanoseconds; zero for never. What a replica says is as old
	// as its primary's newest sign.
	heard atomic.Int64
	// answered is when the database, a replica however old too, last told its changes; in Unix nanoseconds. behind is
	// how old what it told was.
	answered, behind atomic.Int64

	wake chan struct{} // there is something to refresh
}

type extensionKey struct {
	domain uuid.UUID
	name   string
}

// New returns an empty model.
func New(o Options) *Model {
	m := &Model{
		opts: o, now: time.Now, wake: make(chan struct{}, 1), doubt: rate.NewLimiter(doubtRate, doubtRate),
		gate: newGate(o.MaxLoads),
	}
	m.extensions = newCache[extensionKey, record](m, o.MaxExtensions, nil)
	m.domains = newCache[string, directory.Domain](m, maxDomains, nil)
	m.ofTenant = newCache[uuid.UUID, []directory.Domain](m, maxDomains, weight[directory.Domain])
	m.lists = newCache[uuid.UUID, []record](m, maxListed, weight[record])
	m.unknown = otter.Must(&otter.Options[uint64, uint32]{
		MaximumSize: maxUnknown, ExpiryCalculator: otter.ExpiryWriting[uint64, uint32](unknownLife),
	})
	m.names.init()
	m.begun = m.now().UnixNano()
	o.Metrics.observe(m)
	return m
}

// weight is that of a list.
func weight[V any](list []V) uint32 { return uint32(1 + len(list)) } //nolint:gosec // no list is as long

var (
	_ directory.Store = (*Model)(nil)
	_ dialplan.Store  = (*Model)(nil)
	_ trunk.Store     = (*Model)(nil)
	_ feed.Reader     = (*Model)(nil)
)

// Age is the time since the database was last heard of. known is false if it never was, and no snapshot tells.
func (m *Model) Age() (age time.Duration, known bool) {
	at := m.heard.Load()
	return m.now().Sub(time.Unix(0, at)), at != 0
}

// live tells whether the database was heard of a moment ago, so that what is not there does not exist.
func (m *Model) live() bool {
	return m.answers() && !m.late()
}

// answers tells whether the database answered a moment ago, so that it can be asked. A replica may have old answers.
func (m *Model) answers() bool { return m.now().Sub(time.Unix(0, m.answered.Load())) < m.opts.LiveFor }

// late tells whether the database is a replica so far behind that what is not there may exist, tooLate so far that
// nothing it says may be answered.
func (m *Model) late() bool    { return time.Duration(m.behind.Load()) > feed.MaxBehind }
func (m *Model) tooLate() bool { return m.late() && !m.fresh() }

// fresh tells whether the database was heard of within the bound, so that what is known may be answered.
func (m *Model) fresh() bool {
	age, known := m.Age()
	return known && age <= m.opts.MaxAge
}

// Ready tells why the model cannot answer: nothing is known, or what is known is too old. It answers nil otherwise,
// also without the database.
func (m *Model) Ready(context.Context) error {
	if !m.fresh() {
		return errors.New("nothing is known from memory, or it is too old, and the database is away")
	}
	return nil
}

// Domain implements directory.Store.
func (m *Model) Domain(ctx context.Context, realm fstext.Realm) (directory.Domain, error) {
	return m.domains.get(ctx, realm.String(), func() request[string, directory.Domain] {
		return request[string, directory.Domain]{
			key: strings.Clone(realm.String()), hash: m.names.hash(uuid.Nil, realm.String()), flight: "domain " + realm.String(), unknown: directory.ErrUnknownDomain,
			load: func(ctx context.Context) (directory.Domain, error) { return m.opts.Store.Domain(ctx, realm) },
		}
	})
}

// Extension implements directory.Store and dialplan.Store.
func (m *Model) Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error) {
	for retried := false; ; retried = true {
		dom, err := m.Domain(ctx, realm)
		if err != nil {
			return directory.Domain{}, directory.Extension{}, err
		}
		ext, err := m.extension(ctx, dom, name.Fold())
		if !errors.Is(err, errMoved) || retried {
			return dom, ext, err
		}
		m.domains.forget(realm.String(), m.names.hash(uuid.Nil, realm.String()), m.seq.Add(1))
	}
}

// errMoved is the error of a load that found another domain under the realm than the one that is known.
var errMoved = errors.New("realm belongs to another domain now")

// extension returns the extension of a domain that answers to a name in lower case.
func (m *Model) extension(ctx context.Context, dom directory.Domain, name fstext.Username) (directory.Extension, error) {
	key := extensionKey{dom.ID, name.String()}
	r, err := m.extensions.get(ctx, key, func() request[extensionKey, record] {
		return request[extensionKey, record]{
			key: extensionKey{dom.ID, strings.Clone(key.name)}, hash: m.names.hash(dom.ID, key.name), flight: "extension " + dom.ID.String() + " " + key.name, unknown: directory.ErrUnknownExtension,
			load: func(ctx context.Context) (record, error) { return m.loadExtension(ctx, dom, name) },
		}
	})
	if err != nil {
		return directory.Extension{}, err
	}
	return r.extension(dom)
}

func (m *Model) loadExtension(ctx context.Context, dom directory.Domain, name fstext.Username) (record, error) {
	loaded, ext, err := m.opts.Store.Extension(ctx, dom.Realm, name)
	if errors.Is(err, directory.ErrUnknownDomain) || err == nil && loaded.ID != dom.ID {
		// Deleted, and perhaps made again, a moment ago: the feed is about to say so.
		return "", errMoved
	}
	if err != nil {
		return "", err
	}
	return pack(ext), nil
}

// Extensions implements directory.Store.
func (m *Model) Extensions(ctx context.Context, realm fstext.Realm, limit int) (directory.Domain, []directory.Extension, error) {
	dom, err := m.Domain(ctx, realm)
	if err != nil {
		return directory.Domain{}, nil, err
	}
	// One list a domain: the callers ask for as many as there can be.
	list, err := m.lists.get(ctx, dom.ID, func() request[uuid.UUID, []record] {
		return request[uuid.UUID, []record]{
			key: dom.ID, hash: m.names.hash(dom.ID, ""), flight: "extensions " + dom.ID.String(),
			load: func(ctx context.Context) ([]record, error) { return m.loadExtensions(ctx, dom) },
		}
	})
	if err != nil {
		return directory.Domain{}, nil, err
	}
	exts := make([]directory.Extension, 0, min(limit, len(list)))
	for _, r := range list[:min(limit, len(list))] {
		e, err := r.extension(dom)
		if err != nil {
			return directory.Domain{}, nil, err
		}
		exts = append(exts, e)
	}
	return dom, exts, nil
}

func (m *Model) loadExtensions(ctx context.Context, dom directory.Domain) ([]record, error) {
	loaded, exts, err := m.opts.Store.Extensions(ctx, dom.Realm, maxListed)
	if err == nil && loaded.ID != dom.ID {
		return nil, errMoved
	}
	list := make([]record, len(exts))
	for i, e := range exts {
		list[i] = pack(e)
	}
	return list, err
}

// domainsOf returns the domains of a tenant, in order of creation.
func (m *Model) domainsOf(ctx context.Context, tenant uuid.UUID) ([]directory.Domain, error) {
	return m.ofTenant.get(ctx, tenant, func() request[uuid.UUID, []directory.Domain] {
		return request[uuid.UUID, []directory.Domain]{
			key: tenant, hash: m.names.hash(tenant, ""), flight: "tenant " + tenant.String(),
			load: func(ctx context.Context) ([]directory.Domain, error) { return m.opts.Store.TenantDomains(ctx, tenant) },
		}
	})
}

// TenantExtension implements dialplan.Store.
func (m *Model) TenantExtension(ctx context.Context, tenant, near uuid.UUID, name fstext.Username) (directory.Tenant, directory.Extension, error) {
	domains, err := m.domainsOf(ctx, tenant)
	if err != nil {
		return directory.Tenant{}, directory.Extension{}, err
	}
	name = name.Fold()
	for _, wantNear := range []bool{true, false} {
		for _, d := range domains {
			if (d.ID == near) != wantNear || !d.Usable() {
				continue
			}
			if !m.answers() && m.absentForNow(d.ID, name.String()) {
				continue // without waiting for a database that is silent
			}
			ext, err := m.extension(ctx, d, name)
			if err == nil {
				return d.Tenant, ext, nil
			} else if !errors.Is(err, directory.ErrUnknownExtension) && !m.absentForNow(d.ID, name.String()) {
				return directory.Tenant{}, directory.Extension{}, err
			}
		}
	}
	return directory.Tenant{}, directory.Extension{}, directory.ErrUnknownExtension
}
