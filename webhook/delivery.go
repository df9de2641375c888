package webhook

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
)

// Delivery is an event on its way to W3.
//
//	pending ──claimed──► leased ──► delivered
//	   ▲                   │ │
//	   └──failed, or the ◄─┘ └──failed too long──► dead ──replayed──► pending
//	      lease ran out                              └──► discarded
type Delivery struct {
	Event

	// ID is the event's number among those of the tenant. Numbers of one subject rise in the order of what they tell.
	ID    int64
	State State
	// Attempts counts how often the event was claimed. It is also the fence: who holds a claim of an earlier count has
	// lost it.
	Attempts int
	// DueAt is when the event may be claimed next.
	DueAt time.Time
	// FirstAttemptAt is when it was first tried to send it, or first since it was replayed; zero before that.
	FirstAttemptAt time.Time
	// LastError is why the last attempt failed; empty if none did.
	LastError     string
	CorrelationID string
	CreatedAt     time.Time
	// FinishedAt is when the event was delivered, given up or discarded; zero while it is open.
	FinishedAt time.Time
}

// State says how far an event is.
type State string

// The states.
const (
	Pending   State = "pending"
	Leased    State = "leased"
	Delivered State = "delivered"
	Dead      State = "dead"      // given up, until an operator replays or discards it
	Discarded State = "discarded" // given up for good, by an operator
)

// States are all of them.
var States = []State{Pending, Leased, Delivered, Dead, Discarded}

// Attempt is what came of sending an event once.
type Attempt struct {
	// Number is the event's count of attempts when it was claimed. A number is missing where a process died in the
	// middle.
	Number   int
	At       time.Time
	Duration time.Duration
	// Status is the HTTP status of the answer; zero if there was none.
	Status int
	// Error is why it failed; empty if it did not.
	Error string
}

// What a store of events answers.
var (
	ErrLeaseLost    = errors.New("the event was given to somebody else meanwhile")
	ErrUnknownEvent = errors.New("unknown event")
	ErrNotDead      = errors.New("the event is not dead")
)

// Receiver is a tenant that is to be sent events.
type Receiver struct {
	TenantID uuid.UUID
	Slug     string // names it in logs and metrics
	BaseURL  BaseURL
}

// Backlog is what waits to be sent to one tenant.
type Backlog struct {
	TenantID      uuid.UUID
	Slug          string
	Pending, Dead int
	// Oldest is when the oldest of the pending was written; zero if there is none.
	Oldest time.Time
}

// Filter selects a tenant's events, the newest first.
type Filter struct {
	// State is the wanted one; empty means all.
	State State
	// BeforeID leaves out the event of this number and newer ones; zero leaves out none.
	BeforeID int64
	Limit    int
}

// The law of repetition.
const (
	firstBackoff = time.Second
	maxBackoff   = time.Hour
	// Patience is how long after its first attempt an event is given up.
	Patience = 72 * time.Hour
)

// Verdict is what follows from an attempt that failed.
type Verdict struct {
	// Dead gives the event up.
	Dead bool
	// After is how long to wait before the next attempt otherwise.
	After time.Duration
}

// Judge tells what follows from a failed attempt. retryAfter is what the receiver asked for; zero if it did not ask.
// The last attempt is made when the patience ends.
func (d Delivery) Judge(now time.Time, retryAfter time.Duration) Verdict {
	left := d.FirstAttemptAt.Add(Patience).Sub(now)
	if left <= 0 {
		return Verdict{Dead: true}
	}
	wait := max(backoff(d.Attempts), min(retryAfter, maxBackoff))
	return Verdict{After: min(wait, left)}
}

// backoff is how long to wait after so many attempts: anything up to a bound that doubles (full jitter), so that events
// which failed together are not sent together again.
func backoff(attempts int) time.Duration {
	return rand.N(backoffBound(attempts)) + 1 //nolint:gosec // it spreads load, and guards nothing
}

func backoffBound(attempts int) time.Duration {
	// A shift beyond this one is over the maximum, and further on beyond what an integer holds.
	if shift := max(attempts-1, 0); shift < 12 {
		return min(maxBackoff, firstBackoff<<shift)
	}
	return maxBackoff
}
