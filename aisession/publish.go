package aisession

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// OpenBreaker is a gateway that is left alone.
type OpenBreaker struct {
	// Gateway is its base URL.
	Gateway string
	// Pause is how much longer nobody asks it.
	Pause time.Duration
}

// BreakerStore is where an ai-bridge says which gateways it leaves alone. Implementations are safe for concurrent use.
type BreakerStore interface {
	// NoteBreakers replaces what a bridge, by its name, has said.
	NoteBreakers(ctx context.Context, bridge string, open []OpenBreaker) error
}

// Between tries to publish, and how long one may take.
const (
	publishRetry   = 5 * time.Second
	publishPause   = time.Second
	publishTimeout = 5 * time.Second
)

// paused returns the gateways that nobody may ask now, in order.
func (b *Breakers) paused() (open []OpenBreaker) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for gateway, one := range b.all {
		if pause := one.until.Sub(b.now()); pause > 0 {
			open = append(open, OpenBreaker{gateway, pause})
		}
	}
	slices.SortFunc(open, func(a, b OpenBreaker) int { return strings.Compare(a.Gateway, b.Gateway) })
	return open
}

// changed wakes Publish. The caller has the lock.
func (b *Breakers) changed() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Publish writes which gateways are left alone, at once, which takes back what an earlier process has said, and
// whenever a breaker opens or closes, until ctx ends; then none is. No call waits for it. It is called once.
func (b *Breakers) Publish(ctx context.Context, s BreakerStore, bridge string, log *slog.Logger) {
	for healthy := true; ; {
		err := publish(ctx, s, bridge, b.paused())
		if ctx.Err() != nil {
			break
		}
		var again <-chan time.Time
		switch {
		case err != nil:
			if healthy {
				log.WarnContext(ctx, "breakers cannot be published; explanations of calls do not know them", "error", err)
			}
			again = time.After(publishRetry)
		case !healthy:
			log.InfoContext(ctx, "breakers are published again")
		}
		healthy = err == nil
		// What changes within a moment goes together.
		select {
		case <-ctx.Done():
		case <-time.After(publishPause):
		}
		select {
		case <-ctx.Done():
		case <-b.wake:
		case <-again:
		}
		if ctx.Err() != nil {
			break
		}
	}
	// Should that fail, nobody believes it for long.
	_ = publish(context.WithoutCancel(ctx), s, bridge, nil)
}

func publish(ctx context.Context, s BreakerStore, bridge string, open []OpenBreaker) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := s.NoteBreakers(ctx, bridge, open); err != nil {
		return fmt.Errorf("note breakers: %w", err)
	}
	return nil
}
