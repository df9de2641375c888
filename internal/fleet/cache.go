package fleet

import (
	"context"
	"time"
)

// checkCache looks whether a switch that is not said to keep users does. Such a switch is told of hardly any change,
// and the only way to see what it keeps is to have it forget that, which does no harm.
func (m *member) checkCache(ctx context.Context) {
	if m.node.CachesUsers {
		return
	}
	n, err := m.sw.EmptyCache(ctx)
	switch {
	case err != nil && ctx.Err() == nil && !down(err):
		m.log.WarnContext(ctx, "the cache of users cannot be checked", "error", err)
	case n > 0:
		m.fleet.metrics.kept.WithLabelValues(m.node.Name).Add(float64(n))
		m.log.ErrorContext(ctx, "the switch keeps users and is not said to: turn off SWITCH_CACHES_USERS, or node set -caches-users", "entries", n)
	}
}

// patrolCache does so as often as registrations are checked.
func (m *member) patrolCache(ctx context.Context) {
	tick := time.NewTicker(m.fleet.opts.Patrol)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.checkCache(ctx)
		}
	}
}
