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
