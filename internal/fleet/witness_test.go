package fleet_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// witness takes sightings once it no longer fails.
type witness struct {
	mu    sync.Mutex
	fails int
	seen  chan cdr.Sighting
}

func (w *witness) AddSightings(_ context.Context, list []cdr.Sighting) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails > 0 {
		w.fails--
		return errors.New("away")
	}
	for _, s := range list {
		w.seen <- s
	}
	return nil
}

// The end of a tenant's channel is written down, also when the store was away at first; that of a stranger's is not.
func TestWitness(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := &witness{fails: 1, seen: make(chan cdr.Sighting, 10)}
	s.options.Witness = w
	s.put(t, "fs1", "fs1:8021", false)
	s.run(t)
	var sw *connection
	for deadline := time.Now().Add(30 * time.Second); sw == nil; time.Sleep(time.Millisecond) {
		if sw = s.at("fs1:8021").connected(); sw == nil && time.Now().After(deadline) {
			t.Fatal("not connected")
		}
	}
	stranger, ours := uuid.NewString(), uuid.NewString()
	sw.handlers.HungUp(map[string]string{"Unique-ID": stranger})
	sw.handlers.HungUp(map[string]string{"Unique-ID": ours, "variable_edgvoip_tenant_id": uuid.NewString(), "variable_switch_r_sdp": "key"})
	select {
	case seen := <-w.seen:
		if seen.LegID.String() != ours || seen.Event["variable_switch_r_sdp"] != "" || seen.NodeID == uuid.Nil {
			t.Errorf("%+v", seen)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is written down")
	}
	if len(w.seen) != 0 {
		t.Errorf("%d more are written down", len(w.seen))
	}
}

// slowWitness takes its first sightings only when the test lets it.
type slowWitness struct {
	began, goOn chan struct{}
	once        sync.Once
	mu          sync.Mutex
	taken       int
}

func (w *slowWitness) AddSightings(ctx context.Context, list []cdr.Sighting) error {
	first := false
	w.once.Do(func() { first = true })
	if first {
		close(w.began)
		<-w.goOn
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.taken += len(list)
	return nil
}

// What was seen before the end is written down at the end, what was being written too.
func TestWitnessAtTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := &slowWitness{began: make(chan struct{}), goOn: make(chan struct{})}
	s.options.Witness = w
	s.put(t, "fs1", "fs1:8021", false)
	stop := s.run(t)
	sw := s.expectConnected(t, "fs1:8021")
	sight := func() {
		sw.handlers.HungUp(map[string]string{"Unique-ID": uuid.NewString(), "variable_edgvoip_tenant_id": uuid.NewString()})
	}
	sight()
	<-w.began
	const more = 1000
	for range more {
		sight()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		stop()
	}()
	eventually(t, func() error {
		if sw.Up() {
			return errors.New("the end has not come")
		}
		return nil
	})
	close(w.goOn)
	<-stopped
	if w.taken != 1+more {
		t.Errorf("%d of %d are written down", w.taken, 1+more)
	}
}
