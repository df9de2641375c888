package webhook

import "time"

// Breaker keeps a tenant's receiver that does not answer from being asked again and again:
//
//	closed ──too many failures in a row──► open ──the pause is over──► half open ──success──► closed
//	                                        ▲                              │
//	                                        └──────────failure─────────────┘
//
// While it is open nothing is claimed, so that events lose no attempts; half open, one at a time is. The zero value is
// closed. It is not safe for concurrent use.
type Breaker struct {
	failures int       // in a row, while closed
	openings int       // in a row
	until    time.Time // end of the pause; zero while closed
	probing  bool      // the one attempt of a half-open breaker is under way
}

// BreakerState is what a breaker lets through.
type BreakerState int

// The states, as a metric shows them.
const (
	Closed BreakerState = iota
	HalfOpen
	Open
)

const (
	// breakerFailures is how many failures in a row open it: no fewer than the attempts that are under way at once when
	// a receiver restarts would say much.
	breakerFailures = 8
	firstPause      = time.Second
	maxPause        = time.Minute
)

// State returns the state at a time.
func (b *Breaker) State(now time.Time) BreakerState {
	switch {
	case b.until.IsZero():
		return Closed
	case now.Before(b.until):
		return Open
	default:
		return HalfOpen
	}
}

// Room returns how many of n attempts may begin.
func (b *Breaker) Room(now time.Time, n int) int {
	switch b.State(now) {
	case Closed:
		return n
	case HalfOpen:
		if !b.probing {
			return min(n, 1)
		}
	case Open:
	}
	return 0
}

// Begin notes that an attempt begins, for which there was room.
func (b *Breaker) Begin() { b.probing = !b.until.IsZero() }

// Succeeded notes that the receiver answered, whatever it said of the event.
func (b *Breaker) Succeeded() { *b = Breaker{} }

// Failed notes that it did not, or that it is not able to work. retryAfter is how long it asked to be left alone; zero
// if it did not ask.
func (b *Breaker) Failed(now time.Time, retryAfter time.Duration) {
	b.probing = false
	if b.State(now) == Open {
		return // of an attempt that began before
	}
	b.failures++
	if b.until.IsZero() && b.failures < breakerFailures && retryAfter == 0 {
		return
	}
	pause := maxPause
	if b.openings < 6 {
		pause = firstPause << b.openings
	}
	b.openings++
	b.until = now.Add(min(maxPause, max(pause, retryAfter)))
}
