// Package aisession is about calls that an AI voice agent of W3 answers: which trunk has which agent, the session that
// W3's voice gateway gives for a call, the messages that are exchanged about it, and how many sessions there may be.
// docs/ai-gateway.md is the contract with the gateway.
//
// It knows nothing of SIP, of media or of SQL: internal/aibridge carries the calls.
package aisession

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/webhook"
)

// Trunk is a trunk that has an agent.
type Trunk struct {
	ID       uuid.UUID
	TenantID uuid.UUID
	// StoreID is W3's; zero if the trunk belongs to none.
	StoreID uuid.UUID
	// AgentRef is W3's name of the agent.
	AgentRef string
	// Gateway is where the tenant's W3 is.
	Gateway webhook.BaseURL
	// Secrets are what the tenant's requests are signed with: those that have not ended, the newest first.
	Secrets []integration.Secret
}

// ErrUnknownTrunk means that a trunk does not exist, does not work, has no agent, or that its tenant has no W3 to ask.
var ErrUnknownTrunk = errors.New("no such trunk with an agent")

// ErrNotReady means that the trunks were never read yet.
var ErrNotReady = errors.New("the trunks are not known yet")

// Store is where trunks are kept. Implementations are safe for concurrent use.
type Store interface {
	// AITrunks returns every active trunk that has an agent, of active tenants whose endpoint is active.
	AITrunks(ctx context.Context) ([]Trunk, error)
	// ListenForChanges calls wake when something may have changed, and whenever that may have been missed, until ctx
	// ends or the store cannot tell.
	ListenForChanges(ctx context.Context, wake func()) error
}
