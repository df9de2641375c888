package readmodel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

// source is a store in memory that counts what it is asked, can be away, and can keep a load waiting.
type source struct {
	*memstore.Store
	asked atomic.Int64
	away  atomic.Bool
	// hold, if set, is called in each load of an extension after it was read, before it is returned.
	hold atomic.Pointer[func()]
}

var errAway = errors.New("connection refused")

func newSource(tb testing.TB) *source {
	tb.Helper()
	return &source{Store: storetest.Scene(tb)}
}

func (s *source) ask() error {
	s.asked.Add(1)
	if s.away.Load() {
		return errAway
	}
	return nil
}

func (s *source) Domain(ctx context.Context, realm fstext.Realm) (directory.Domain, error) {
	if err := s.ask(); err != nil {
		return directory.Domain{}, err
	}
	return s.Store.Domain(ctx, realm)
}

func (s *source) Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error) {
	if err := s.ask(); err != nil {
		return directory.Domain{}, directory.Extension{}, err
	}
	d, e, err := s.Store.Extension(ctx, realm, name)
	if hold := s.hold.Load(); hold != nil {
		(*hold)()
	}
	return d, e, err
}

func (s *source) InboundTrunk(ctx context.Context, number fstext.E164) (trunk.Trunk, error) {
	if err := s.ask(); err != nil {
		return trunk.Trunk{}, err
	}
	return s.Store.InboundTrunk(ctx, number)
}

func (s *source) Carriers(ctx context.Context, tenants []uuid.UUID) ([]readmodel.Carrier, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Store.Carriers(ctx, tenants)
}

func (s *source) Names(ctx context.Context, after readmodel.Name, limit int) ([]readmodel.Name, error) {
	if s.away.Load() {
		return nil, errAway
	}
	return s.Store.Names(ctx, after, limit)
}

// model returns a model of a source that is live: the feed has been read and the background has caught up.
func model(tb testing.TB, s *source, change ...func(*readmodel.Options)) *readmodel.Model {
	tb.Helper()
	o := readmodel.Options{
		Store: s, Bulk: s, MaxExtensions: 1000, MaxAge: time.Hour, LoadTimeout: 10 * time.Second, MaxLoads: 4, LiveFor: time.Hour,
		Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	m := readmodel.New(o)
	m.Synced(time.Now())
	if err := m.Refresh(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return m
}

// outage makes the source go away, and the model notice.
func outage(s *source, m *readmodel.Model) {
	s.away.Store(true)
	m.Synced(time.Now().Add(-5 * time.Minute)) // longer ago than shortLived
}

func shortLived(o *readmodel.Options) { o.LiveFor = time.Minute }

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Contract(t, model(t, newSource(t)))
}

// Before the feed was read nothing is believed, and everything is right.
func TestContractWithoutFeed(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	storetest.Contract(t, readmodel.New(readmodel.Options{
		Store: s, Bulk: s, MaxExtensions: 1000, MaxAge: time.Hour, LoadTimeout: 10 * time.Second, MaxLoads: 4, LiveFor: time.Hour,
		Log: slog.New(slog.DiscardHandler),
	}))
}

func extension(tb testing.TB, m *readmodel.Model, realm, name string) (directory.Extension, error) {
	tb.Helper()
	_, e, err := m.Extension(tb.Context(), storetest.Realm(realm), storetest.Username(name))
	return e, err
}

const realmA = "tenant-a.example"

func TestSecondLookupAsksNobody(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	first, err := extension(t, m, realmA, "Anna.Rossi")
	if err != nil {
		t.Fatal(err)
	}
	asked := s.asked.Load()
	second, err := extension(t, m, realmA, "anna.ROSSI")
	if err != nil || second.ID != first.ID || string(second.HA1MD5.Data) != string(first.HA1MD5.Data) || second.Username.String() != "Anna.Rossi" {
		t.Errorf("%+v, %v; want %+v", second, err, first)
	}
	if got := s.asked.Load(); got != asked {
		t.Errorf("the store was asked %d times more", got-asked)
	}
}

// A hundred who miss the same name at once make one question.
func TestSingleFlight(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	if _, err := m.Domain(t.Context(), storetest.Realm(realmA)); err != nil {
		t.Fatal(err)
	}
	s.asked.Store(0)
	release := make(chan struct{})
	hold := func() { <-release }
	s.hold.Store(&hold)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, err := extension(t, m, realmA, "1001"); err != nil {
				t.Error(err)
			}
		})
	}
	// Until the one is under way.
	for deadline := time.Now().Add(time.Minute); s.asked.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			close(release)
			all.Wait()
			t.Fatal("nobody asks the store")
		}
	}
	close(release)
	all.Wait()
	// Whoever came after the answer found it kept; nobody asked beside the first.
	if got := s.asked.Load(); got != 1 {
		t.Errorf("the store was asked %d times", got)
	}
}

// A load that began before a change must not bring back, after the change was applied, what it read before.
func TestChangeDuringLoad(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*readmodel.Model){
		"of the extension": func(m *readmodel.Model) {
			m.Apply([]feed.Change{{Subject: feed.SubjectExtension, Tenant: storetest.TenantID("tenant-a"), Domain: storetest.DomainID(realmA), Names: []string{"1001"}}})
		},
		"of everything": func(m *readmodel.Model) { m.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			m := model(t, s)
			var once sync.Once
			hold := func() { once.Do(func() { change(m) }) }
			s.hold.Store(&hold)
			if _, err := extension(t, m, realmA, "1001"); err != nil {
				t.Fatal(err)
			}
			s.asked.Store(0)
			if _, err := extension(t, m, realmA, "1001"); err != nil {
				t.Fatal(err)
			}
			if s.asked.Load() == 0 {
				t.Error("what was loaded before the change is believed after it")
			}
		})
	}
}

func TestChangesAreForgotten(t *testing.T) {
	t.Parallel()
	tenant, domain := storetest.TenantID("tenant-a"), storetest.DomainID(realmA)
	for name, c := range map[string]feed.Change{
		"extension by number":   {Subject: feed.SubjectExtension, Tenant: tenant, Domain: domain, Names: []string{"1001"}},
		"domain":                {Subject: feed.SubjectDomain, Tenant: tenant, Names: []string{realmA}},
		"tenant":                {Subject: feed.SubjectTenant, Tenant: tenant},
		"a table emptied":       {Subject: feed.SubjectEverything},
		"a subject yet unknown": {Subject: "queue", Tenant: tenant},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			m := model(t, s)
			ask := func() int64 {
				before := s.asked.Load()
				if _, err := extension(t, m, realmA, "1001"); err != nil {
					t.Error(err)
				}
				return s.asked.Load() - before
			}
			ask()
			if n := ask(); n != 0 {
				t.Fatalf("not kept: asked %d times", n)
			}
			m.Apply([]feed.Change{c})
			if ask() == 0 {
				t.Error("still answered from memory")
			}
		})
	}
}

// While the database is away known names are answered and unknown ones are not: that a name does not exist cannot be
// known.
func TestAway(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Fatal(err)
	}
	outage(s, m)
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Errorf("known name: %v", err)
	}
	for _, n := range []struct{ realm, name string }{{realmA, "1002"}, {realmA, "nobody"}, {"nowhere.example", "1001"}} {
		if _, err := extension(t, m, n.realm, n.name); err == nil || errors.Is(err, directory.ErrUnknownExtension) || errors.Is(err, directory.ErrUnknownDomain) {
			t.Errorf("%s@%s: %v, want an error that says nothing of its existence", n.name, n.realm, err)
		}
	}
	if _, err := m.InboundTrunk(t.Context(), storetest.E164("+390612345600")); err != nil {
		t.Errorf("known DID: %v", err)
	}
	if _, err := m.InboundTrunk(t.Context(), storetest.E164("+390699999999")); err == nil || errors.Is(err, trunk.ErrUnknownDID) {
		t.Errorf("unknown DID: %v", err)
	}
	if trunks, err := m.TenantTrunks(t.Context(), storetest.TenantID("tenant-a")); err != nil || len(trunks) != 2 {
		t.Errorf("trunks: %v, %v", trunks, err)
	}
}

// A public number that somebody dials is no extension; he must get through while the database is away.
func TestDialledNumberWhileAway(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	tenant := storetest.TenantID("tenant-a")
	if _, _, err := m.TenantExtension(t.Context(), tenant, uuid.Nil, storetest.Username("1001")); err != nil {
		t.Fatal(err)
	}
	outage(s, m)
	if _, _, err := m.TenantExtension(t.Context(), tenant, uuid.Nil, storetest.Username("0612345678")); !errors.Is(err, directory.ErrUnknownExtension) {
		t.Errorf("a number that was nobody's: %v", err)
	}
	// 1002 exists, but nobody asked for it before: sending the call out would be wrong.
	if _, _, err := m.TenantExtension(t.Context(), tenant, uuid.Nil, storetest.Username("1002")); err == nil || errors.Is(err, directory.ErrUnknownExtension) {
		t.Errorf("an extension that is not in memory: %v", err)
	}
}

// Beyond the bound nothing is answered from memory.
func TestTooOld(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Fatal(err)
	}
	s.away.Store(true)
	m.Synced(time.Now().Add(-time.Hour - time.Second))
	if _, err := extension(t, m, realmA, "1001"); err == nil {
		t.Error("answered from memory that is older than the bound")
	}
	if _, err := m.InboundTrunk(t.Context(), storetest.E164("+390612345600")); err == nil {
		t.Error("a DID was answered from memory that is older than the bound")
	}
	if err := m.Ready(t.Context()); err == nil {
		t.Error("ready")
	}
}

// Trunks that changed while nobody can read how are answered as they were: the tenant's calls, calls for help too, must
// not stop for as long as the database is away.
func TestTrunkChangedAndDatabaseGone(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	s.away.Store(true)
	m.Apply([]feed.Change{{Subject: feed.SubjectTrunk, Tenant: storetest.TenantID("tenant-a")}})
	m.Synced(time.Now().Add(-5 * time.Minute))
	for _, number := range []string{"+390612345600", "+390612345700"} {
		if _, err := m.InboundTrunk(t.Context(), storetest.E164(number)); err != nil {
			t.Errorf("DID %s: %v", number, err)
		}
	}
	if list, err := m.TenantTrunks(t.Context(), storetest.TenantID("tenant-a")); err != nil || len(list) != 2 {
		t.Errorf("trunks: %v, %v", list, err)
	}
	m.Apply([]feed.Change{{Subject: feed.SubjectTrunk, Tenant: storetest.TenantID("tenant-c")}})
	if _, err := m.TenantTrunks(t.Context(), storetest.TenantID("tenant-c")); err == nil {
		t.Error("a tenant that had no trunk and may have one now is said to have none")
	}
}

// A scan for names that do not exist asks the database no more often than doubt allows, and leaves nothing in memory.
func TestScan(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Fatal(err)
	}
	s.asked.Store(0)
	const names = 20_000
	start := time.Now()
	for i := range names {
		if _, err := extension(t, m, realmA, fmt.Sprintf("scan%d", i)); !errors.Is(err, directory.ErrUnknownExtension) {
			t.Fatal(err)
		}
		if _, err := m.Domain(t.Context(), storetest.Realm(fmt.Sprintf("scan%d.example", i))); !errors.Is(err, directory.ErrUnknownDomain) {
			t.Fatal(err)
		}
	}
	// 50 a second, and 50 at once.
	if most := 100 + int64(50*time.Since(start).Seconds()); s.asked.Load() > most {
		t.Errorf("%d questions for %d names that do not exist, want at most %d", s.asked.Load(), 2*names, most)
	}
}

// Nor does one while everything is in doubt and the names have not been read anew. What is beyond the bound then may
// have been created, so it is not said not to exist.
func TestScanWhileInDoubt(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	m.Forget()
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Fatal(err)
	}
	s.asked.Store(0)
	const names = 5000
	start := time.Now()
	refused := 0
	for i := range names {
		switch _, err := extension(t, m, realmA, fmt.Sprintf("scan%d", i)); {
		case errors.Is(err, readmodel.ErrBusy):
			refused++
		case !errors.Is(err, directory.ErrUnknownExtension):
			t.Fatal(err)
		}
	}
	if most := 100 + int64(50*time.Since(start).Seconds()); s.asked.Load() > most {
		t.Errorf("%d questions for %d names that do not exist, want at most %d", s.asked.Load(), names, most)
	}
	if asked := s.asked.Load(); int64(refused) != names-asked {
		t.Errorf("%d refused, and %d asked for, of %d", refused, asked, names)
	}
	// Whoever was there before is not hindered, and once the names were read, nobody is.
	if _, err := extension(t, m, realmA, "1002"); err != nil {
		t.Error(err)
	}
	if err := m.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := extension(t, m, realmA, "scan"); !errors.Is(err, directory.ErrUnknownExtension) {
		t.Error(err)
	}
}

// A name that is created is there with the change that tells of it, though it was asked for before in vain.
func TestCreatedAfterAskedFor(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	for range 200 { // past all doubt
		if _, err := extension(t, m, realmA, "1077"); !errors.Is(err, directory.ErrUnknownExtension) {
			t.Fatal(err)
		}
	}
	s.AddExtension(storetest.Extension("tenant-a", realmA, "1077", "1077"))
	m.Apply([]feed.Change{{Subject: feed.SubjectExtension, Tenant: storetest.TenantID("tenant-a"), Domain: storetest.DomainID(realmA), Names: []string{"1077"}}})
	if _, err := extension(t, m, realmA, "1077"); err != nil {
		t.Error(err)
	}
}

// A model that loads a snapshot answers what the other knew, without a database.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	storetest.Contract(t, m) // knows the scene now
	file := filepath.Join(t.TempDir(), "snapshot")
	position := feed.Position{Mark: feed.Mark{ID: 7, Tx: 9}, Gaps: []feed.Gap{{Span: feed.Span{First: 3, Last: 4}, Until: 11}}}
	if err := m.Save(file, position); err != nil {
		t.Fatal(err)
	}
	away := newSource(t)
	away.away.Store(true)
	heir := readmodel.New(readmodel.Options{
		Store: away, Bulk: away, MaxExtensions: 1000, MaxAge: time.Hour, LoadTimeout: time.Second, MaxLoads: 4, LiveFor: 0, Log: slog.New(slog.DiscardHandler),
	})
	got, err := heir.Load(file)
	if err != nil || got.Mark != position.Mark || len(got.Gaps) != 1 || got.Gaps[0] != position.Gaps[0] {
		t.Fatalf("position %+v, %v", got, err)
	}
	for _, name := range []string{"1001", "1004", "1006", "anna.rossi", "1003"} {
		want, _ := extension(t, m, realmA, name)
		if e, err := extension(t, heir, realmA, name); err != nil || e.ID != want.ID || e.Active != want.Active || e.CallerID != want.CallerID {
			t.Errorf("%s: %+v, %v; want %+v", name, e, err, want)
		}
	}
	if tr, err := heir.InboundTrunk(t.Context(), storetest.E164("+390612345650")); err != nil || tr.ID != storetest.TrunkID("tenant-a", "first") {
		t.Errorf("did: %v, %v", tr.ID, err)
	}
	if _, err := extension(t, heir, realmA, "nobody"); err == nil || errors.Is(err, directory.ErrUnknownExtension) {
		t.Errorf("unknown name: %v", err)
	}
}
