package dialplan

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// EndpointStore tells where W3 is.
type EndpointStore interface {
	// HasEndpoint tells whether a tenant has an endpoint of W3's, paused or not: where ai-bridge asks for agents.
	HasEndpoint(ctx context.Context, tenant uuid.UUID) (bool, error)
}

// addEndpoint puts before the last step, which is the route, that there is nobody to ask for the trunk's agent. It has
// no part in the decision: ai-bridge refuses such a call.
func addEndpoint(ctx context.Context, s EndpointStore, f Facts, steps []Step) ([]Step, error) {
	if f.inbound == nil || f.inbound.AIAgentRef == "" {
		return steps, nil
	}
	has, err := s.HasEndpoint(ctx, f.inbound.TenantID)
	if err != nil {
		return steps, fmt.Errorf("endpoint: %w", err)
	}
	if has {
		return steps, nil
	}
	return slices.Insert(steps, len(steps)-1, Step{"endpoint", "the tenant has no W3 endpoint: agent cannot be reached, and callers go to people"}), nil
}
