package feed

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/edgvoip/edgvoip/internal/background"
)

// Primary is where changes are written.
type Primary interface {
	// Beat writes the heartbeat, by which readers of a replica know how old what it knows is.
	Beat(ctx context.Context) error
	// PruneChanges is that of Source.
	PruneChanges(ctx context.Context, keep time.Duration) (int, error)
}

// beatInterval is the time between two heartbeats.
const beatInterval = 2 * time.Second

// Bounds of what Keep does. It prunes less often than followers do, who may all be reading from replicas and can then
// not.
const (
	beatTimeout       = 5 * time.Second
	keepPruneInterval = time.Hour
	keepPruneTimeout  = time.Minute
)

// Keep writes heartbeats and removes old changes until ctx ends. Several processes may do it.
func Keep(ctx context.Context, p Primary, log *slog.Logger) {
	var parts sync.WaitGroup
	parts.Go(func() {
		every(ctx, beatInterval, background.NewOutage(log, "heartbeats for replicas cannot be written"), func() error {
			asking, cancel := context.WithTimeout(ctx, beatTimeout)
			defer cancel()
			return p.Beat(asking)
		})
	})
	parts.Go(func() {
		every(ctx, keepPruneInterval, background.NewOutage(log, "old changes cannot be removed"), func() error { return pruneChanges(ctx, p) })
	})
	parts.Wait()
}

// every does something now and at intervals, until ctx ends.
func every(ctx context.Context, interval time.Duration, outage *background.Outage, do func() error) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for ctx.Err() == nil {
		outage.Note(ctx, do())
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// pruneChanges removes old changes, so many at a time, until none are left.
func pruneChanges(ctx context.Context, p Primary) error {
	for {
		asking, cancel := context.WithTimeout(ctx, keepPruneTimeout)
		removed, err := p.PruneChanges(asking, pruneKeep)
		cancel()
		if err != nil || removed == 0 {
			return err
		}
	}
}
