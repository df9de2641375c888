package readmodel_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

// million is a store of as many extensions as are asked for, a thousand a domain, and of as many DIDs, a hundred a
// trunk. It is made up while it is read.
type million struct {
	memstore.Store
	extensions, dids int
}

const perDomain, perTrunk = 1000, 100

func millionDomain(n int) directory.Domain {
	slug := fmt.Sprintf("tenant-%d", n)
	return directory.Domain{
		ID: storetest.DomainID(slug), Realm: storetest.Realm(slug + ".example"), Active: true,
		Tenant: storetest.Tenant(slug, "IT", true),
	}
}

func millionName(n int) string { return strconv.Itoa(10000 + n%perDomain) }

func (m million) AllExtensions(_ context.Context, after readmodel.Key, limit int) (page []readmodel.DomainExtension, last readmodel.Key, err error) {
	// The place is kept in the key: the number of the next extension.
	from := 0
	if after != (readmodel.Key{}) {
		from, _ = strconv.Atoi(string(after.ID[:8]))
	}
	to := min(from+limit, m.extensions)
	var dom directory.Domain
	for n := from; n < to; n++ {
		if n%perDomain == 0 || n == from {
			dom = millionDomain(n / perDomain)
		}
		e := storetest.Extension(dom.Tenant.Slug.String(), dom.Realm.String(), millionName(n), millionName(n))
		e.DomainID = dom.ID
		page = append(page, readmodel.DomainExtension{Domain: dom, Extension: e})
	}
	if to < m.extensions {
		copy(last.ID[:], fmt.Sprintf("%08d", to))
	}
	return page, last, nil
}

func (m million) Realms(context.Context, string, int) ([]string, error) { return nil, nil }

func (m million) Names(_ context.Context, after readmodel.Name, limit int) ([]readmodel.Name, error) {
	from, _ := strconv.Atoi(after.Name)
	var page []readmodel.Name
	for n := from; n < min(from+limit, m.extensions); n++ {
		page = append(page, readmodel.Name{Domain: uuid.UUID{}, Name: strconv.Itoa(n + 1)})
	}
	return page, nil
}

func (m million) Carriers(context.Context, []uuid.UUID) ([]readmodel.Carrier, error) {
	var list []readmodel.Carrier
	for n := range m.dids / perTrunk {
		t := storetest.Trunk(fmt.Sprintf("tenant-%d", n), "first", 10, 5060, "+390612345678")
		c := readmodel.Carrier{Trunk: t, TenantActive: true}
		for i := range perTrunk {
			did := storetest.E164("+39" + strconv.Itoa(100_000_000+n*perTrunk+i))
			c.DIDs = append(c.DIDs, trunk.Range{First: did, Last: did})
		}
		list = append(list, c)
	}
	return list, nil
}

// preloaded returns a model that holds all of a store.
func preloaded(b *testing.B, s million) *readmodel.Model {
	b.Helper()
	m := readmodel.New(readmodel.Options{
		Store: &s, Bulk: s, MaxExtensions: s.extensions + 1000, MaxAge: time.Hour, Preload: true, LoadTimeout: time.Second, MaxLoads: 1, LiveFor: time.Hour,
		Log: slog.New(slog.DiscardHandler),
	})
	m.Synced(time.Now())
	if err := m.Refresh(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := m.Preload(b.Context()); err != nil {
		b.Fatal(err)
	}
	return m
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// The memory that a model of a million extensions and a hundred thousand DIDs takes, to the bound in
// docs/performance.md.
func BenchmarkMemory(b *testing.B) {
	s := million{extensions: 1_000_000, dids: 100_000}
	for b.Loop() {
		before := heap()
		m := preloaded(b, s)
		used := heap() - before
		b.ReportMetric(float64(used)/float64(s.extensions), "B/extension")
		b.ReportMetric(float64(used)/(1<<20), "MiB")
		runtime.KeepAlive(m)
	}
}

func BenchmarkExtension(b *testing.B) {
	for _, n := range []int{1000, 100_000, 1_000_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := preloaded(b, million{extensions: n})
			realms := make([]fstext.Realm, n/perDomain)
			for i := range realms {
				realms[i] = millionDomain(i).Realm
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				// A step that visits all of them, far apart.
				i = (i + 7919*perDomain + 1) % n
				if _, _, err := m.Extension(b.Context(), realms[i/perDomain], storetest.Username(millionName(i))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
