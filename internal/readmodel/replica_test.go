package readmodel_test

import (
	"errors"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

// behind has the model hear from a replica that is so far behind.
func behind(m *readmodel.Model, age time.Duration) {
	m.Behind(age)
	m.Synced(time.Now())
}

// A replica that is behind may be asked for what is there, but what is not there may exist.
func TestReplicaIsBehind(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	if _, err := extension(t, m, realmA, "1002"); err != nil {
		t.Fatal(err)
	}
	did, noDID := storetest.E164("+390612345600"), storetest.E164("+390699999999")
	check := func(age time.Duration, want, wantDID error) {
		t.Helper()
		behind(m, age)
		if _, err := extension(t, m, realmA, "1001"); err != nil {
			t.Errorf("%v behind, an extension that is there: %v", age, err)
		}
		if _, err := m.InboundTrunk(t.Context(), did); err != nil {
			t.Errorf("%v behind, a DID that is there: %v", age, err)
		}
		if _, err := extension(t, m, realmA, "1999"); !errors.Is(err, want) {
			t.Errorf("%v behind, an extension that is not there: %v, want %v", age, err, want)
		}
		if _, err := m.InboundTrunk(t.Context(), noDID); !errors.Is(err, wantDID) {
			t.Errorf("%v behind, a DID that is not there: %v, want %v", age, err, wantDID)
		}
		if err := m.Ready(t.Context()); err != nil {
			t.Error(err)
		}
	}
	check(feed.MaxBehind, directory.ErrUnknownExtension, trunk.ErrUnknownDID)
	check(feed.MaxBehind+time.Second, readmodel.ErrBehind, readmodel.ErrBehind)
	check(time.Second, directory.ErrUnknownExtension, trunk.ErrUnknownDID)
	if age, _ := m.Age(); age < time.Second || age > time.Minute {
		t.Errorf("the age is %v, want that of what the replica told", age)
	}
}

// What is in doubt is read anew from a replica that is behind, as it may know better, and is not answered if the
// replica denies it.
func TestDoubtAndReplicaIsBehind(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	for _, name := range []string{"1001", "1002"} {
		if _, err := extension(t, m, realmA, name); err != nil {
			t.Fatal(err)
		}
	}
	m.Forget()
	behind(m, time.Minute)
	before := s.asked.Load()
	if _, err := extension(t, m, realmA, "1001"); err != nil || s.asked.Load() == before {
		t.Errorf("answered without being read anew, or %v", err)
	}
	s.Store = &memstore.Store{}
	if _, err := extension(t, m, realmA, "1002"); !errors.Is(err, readmodel.ErrBehind) {
		t.Errorf("what the replica denies: %v", err)
	}
}

// Nothing that a replica says is answered when it is too old, known or not.
func TestReplicaIsTooOld(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Fatal(err)
	}
	behind(m, time.Hour+time.Second)
	before := s.asked.Load()
	for _, name := range []string{"1001", "1002", "1999"} {
		if _, err := extension(t, m, realmA, name); !errors.Is(err, readmodel.ErrBehind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := m.InboundTrunk(t.Context(), storetest.E164("+390612345600")); !errors.Is(err, readmodel.ErrBehind) {
		t.Errorf("DID: %v", err)
	}
	if err := m.Ready(t.Context()); err == nil {
		t.Error("ready")
	}
	if asked := s.asked.Load(); asked != before {
		t.Error("the replica was asked")
	}
	behind(m, 0) // promoted, or another server
	if _, err := extension(t, m, realmA, "1002"); err != nil {
		t.Error(err)
	}
}
