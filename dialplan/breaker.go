package dialplan

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

// OpenBreaker says that an ai-bridge leaves the gateway of a tenant's W3 alone: it sends callers to people without
// asking.
type OpenBreaker struct {
	// Bridge is the ai-bridge's name.
	Bridge string
	// Until is when a call asks the gateway again.
	Until time.Time
}

// BreakerStore is where ai-bridges say so.
type BreakerStore interface {
	// OpenBreakers returns the breakers that are open for a tenant now, by the name of the bridge. The ones of a bridge
	// that died are there until their time is over.
	OpenBreakers(ctx context.Context, tenant uuid.UUID) ([]OpenBreaker, error)
}

// addBreakers puts before the last step, which is the route, what became of the gateway, for a call to a trunk that has
// an agent. It is as of now, whatever instant was asked for, and has no part in the decision: ai-bridge refuses such a
// call.
func addBreakers(ctx context.Context, s BreakerStore, f Facts, steps []Step) ([]Step, error) {
	if f.inbound == nil || f.inbound.AIAgentRef == "" {
		return steps, nil
	}
	open, err := s.OpenBreakers(ctx, f.inbound.TenantID)
	if err != nil {
		return steps, fmt.Errorf("breakers: %w", err)
	}
	added := []Step{{"breaker", "closed now: every ai-bridge asks W3's gateway"}}
	if len(open) > 0 {
		added = added[:0]
	}
	for _, b := range open {
		added = append(added, Step{"breaker", fmt.Sprintf(
			"open now: ai-bridge %s has seen W3's gateway fail and leaves it alone until %s; meanwhile its callers go to people at once", b.Bridge, b.Until.UTC().Format(time.RFC3339),
		)})
	}
	return slices.Insert(steps, len(steps)-1, added...), nil
}
