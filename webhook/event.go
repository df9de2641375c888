// Package webhook tells W3 what happened here: changes of trunks, and calls. An event is written in the transaction of
// what it tells, and sent until W3 has taken it, signed, in order, the same event always under the same key.
package webhook

import (
	"time"

	"github.com/google/uuid"
)

// Kind says what an event tells.
type Kind string

// The kinds.
const (
	TrunkCreated Kind = "trunk.created"
	TrunkUpdated Kind = "trunk.updated"
	TrunkDeleted Kind = "trunk.deleted"
	CDR          Kind = "cdr"
)

// Event is something to tell W3.
type Event struct {
	TenantID uuid.UUID
	// Key is the same for every attempt to send the event, and for no other event.
	Key  uuid.UUID
	Kind Kind
	// Subject is the trunk or the call: events of one subject arrive in the order in which they were written.
	Subject uuid.UUID
	// Payload is the body, exactly as it is signed and sent.
	Payload []byte
	// Delay is how long the event waits before it is first sent, for what may still complete it; zero for most.
	Delay time.Duration
}
