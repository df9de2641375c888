package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/feed"
)

// userCaching tells how long a switch may keep users: not at all while more than one tenant may be active. A kept user
// is authenticated without asking, so that nobody keeps him from another tenant's addresses
// (docs/decisions/0013-users-cached-by-a-switch.md). It listens to the feed in front of another Reader.
type userCaching struct {
	feed.Reader

	allowed time.Duration
	count   func(context.Context) (int, error)
	log     *slog.Logger
	refused prometheus.Counter
	wake    chan struct{}

	mu sync.Mutex // guards what follows
	// sole is true while one tenant at most is known to be active; changes counts what may have made that false.
	sole    bool
	changes int
	// late is true while a replica is behind, on which another tenant would not show.
	late bool
	// heard is when changes were last read: what is older than liveFor is not known any more.
	heard   time.Time
	liveFor time.Duration
}

// newUserCaching returns one that lets switches keep users for so long. count returns the number of active tenants.
func newUserCaching(allowed, liveFor time.Duration, count func(context.Context) (int, error), registry prometheus.Registerer, log *slog.Logger) *userCaching {
	c := &userCaching{
		allowed: allowed, liveFor: liveFor, count: count, log: log, wake: make(chan struct{}, 1),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "xmlcurl_users_not_cacheable_total",
			Help: "Users that a switch was not allowed to keep although SWITCH_CACHES_USERS is set, as more than one tenant is active, or may be.",
		}),
	}
	registry.MustRegister(c.refused)
	background.Poke(c.wake)
	return c
}

// cacheFor is asked for each user.
func (c *userCaching) cacheFor() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sole || c.late || time.Since(c.heard) > c.liveFor {
		c.refused.Inc()
		return 0
	}
	return c.allowed
}

// Apply implements feed.Reader.
func (c *userCaching) Apply(changes []feed.Change) {
	for _, ch := range changes {
		switch ch.Subject {
		case feed.SubjectDomain, feed.SubjectExtension, feed.SubjectTrunk:
		default:
			c.doubt()
		}
	}
	c.Reader.Apply(changes)
}

// Forget implements feed.Reader.
func (c *userCaching) Forget() {
	c.doubt()
	c.Reader.Forget()
}

// Behind implements feed.Reader.
func (c *userCaching) Behind(age time.Duration) {
	c.mu.Lock()
	c.late = age > feed.MaxBehind
	c.mu.Unlock()
	c.Reader.Behind(age)
}

// Synced implements feed.Reader.
func (c *userCaching) Synced(at time.Time) {
	c.mu.Lock()
	c.heard = at
	c.mu.Unlock()
	c.Reader.Synced(at)
}

// doubt has the tenants counted anew, and no user kept before that.
func (c *userCaching) doubt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sole = false
	c.changes++
	background.Poke(c.wake)
}

// run counts tenants whenever that is necessary, until ctx ends.
func (c *userCaching) run(ctx context.Context) {
	const retry = time.Second
	several := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		n, err := c.recount(ctx)
		switch {
		case err != nil:
			c.log.DebugContext(ctx, "tenants not counted", "error", err)
			background.Pause(ctx, retry)
			background.Poke(c.wake)
		case n > 1 && !several:
			several = true
			c.log.ErrorContext(ctx, "SWITCH_CACHES_USERS is not in force: more than one tenant is active")
		case n <= 1 && several:
			several = false
			c.log.InfoContext(ctx, "SWITCH_CACHES_USERS is in force again: no more than one tenant is active")
		}
	}
}

// recount counts tenants. If one was changed meanwhile it will be called again.
func (c *userCaching) recount(ctx context.Context) (int, error) {
	c.mu.Lock()
	before := c.changes
	c.mu.Unlock()
	n, err := c.count(ctx)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == before {
		c.sole = n <= 1
	}
	return n, nil
}
