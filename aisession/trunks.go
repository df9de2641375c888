package aisession

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// TrunksOptions describe Trunks.
type TrunksOptions struct {
	Store Store
	// Interval is the time between reads that nothing asked for. A secret that is rotated is used no longer than that.
	Interval time.Duration
	// Timeout bounds one read.
	Timeout time.Duration
	Log     *slog.Logger
}

// Trunks are all trunks with an agent, in memory: no call waits for the store, and calls go on while it is away.
// Lookups are safe for concurrent use.
type Trunks struct {
	opts TrunksOptions
	wake chan struct{}
	last atomic.Pointer[reading]
}

type reading struct {
	at     time.Time
	trunks map[uuid.UUID]Trunk
}

// NewTrunks returns trunks that know nothing until Read or Run.
func NewTrunks(o TrunksOptions) *Trunks { return &Trunks{opts: o, wake: make(chan struct{}, 1)} }

// Trunk returns a trunk as it was read last. Errors: ErrUnknownTrunk, ErrNotReady.
func (t *Trunks) Trunk(id uuid.UUID) (Trunk, error) {
	last := t.last.Load()
	if last == nil {
		return Trunk{}, ErrNotReady
	}
	trunk, ok := last.trunks[id]
	if !ok {
		return Trunk{}, ErrUnknownTrunk
	}
	return trunk, nil
}

// Ready tells whether the trunks are known. Error: ErrNotReady.
func (t *Trunks) Ready() error {
	if t.last.Load() == nil {
		return ErrNotReady
	}
	return nil
}

// Age returns how old what is known is; zero if nothing is.
func (t *Trunks) Age() time.Duration {
	last := t.last.Load()
	if last == nil {
		return 0
	}
	return time.Since(last.at)
}

// Read reads all trunks. If that fails, those that were read before stay.
func (t *Trunks) Read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.opts.Timeout)
	defer cancel()
	at := time.Now()
	list, err := t.opts.Store.AITrunks(ctx)
	if err != nil {
		return fmt.Errorf("read trunks: %w", err)
	}
	r := &reading{at: at, trunks: make(map[uuid.UUID]Trunk, len(list))}
	for _, trunk := range list {
		r.trunks[trunk.ID] = trunk
	}
	t.last.Store(r)
	return nil
}

// Run reads the trunks again and again until ctx ends.
func (t *Trunks) Run(ctx context.Context) {
	var helpers sync.WaitGroup
	helpers.Go(func() { t.listen(ctx) })
	defer helpers.Wait()
	tick := time.NewTicker(t.opts.Interval)
	defer tick.Stop()
	for healthy := true; ; {
		err := t.Read(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && healthy:
			t.opts.Log.WarnContext(ctx, "trunks cannot be read; calls go on with what is known", "error", err)
		case err == nil && !healthy:
			t.opts.Log.InfoContext(ctx, "trunks are read again")
		}
		healthy = err == nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-t.wake:
		}
	}
}

func (t *Trunks) listen(ctx context.Context) {
	err := t.opts.Store.ListenForChanges(ctx, func() {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	})
	if ctx.Err() == nil {
		t.opts.Log.InfoContext(ctx, "no notifications of changes; trunks are read at intervals", "interval", t.opts.Interval.String(), "error", err)
	}
}
