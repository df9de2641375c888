package aisession

import (
	"sync"
	"time"
)

// Breakers keep callers from waiting for a gateway that does not work:
//
//	closed ──breakerFailures in a row──► open ──the pause is over──► half open ──it works──► closed
//	                                      ▲                              │
//	                                      └────────it does not───────────┘
//
// While one is open, calls are refused at once and go to a person; half open, one call at a time tries. There is one
// for each base URL. They are safe for concurrent use.
type Breakers struct {
	now  func() time.Time
	wake chan struct{} // when one opened or closed
	mu   sync.Mutex
	all  map[string]*breaker // those that are not closed and untouched
}

type breaker struct {
	failures int // in a row, while closed
	openings int // in a row
	until    time.Time
	probing  bool
}

const (
	breakerFailures = 5
	firstPause      = time.Second
	maxPause        = 30 * time.Second
)

// Verdict is what a call says of a gateway.
type Verdict int

// The verdicts. Undecided is of a call that ended before the gateway could show whether it works.
const (
	Undecided Verdict = iota
	Works
	Broken
)

// NewBreakers returns breakers, all closed. now is the clock.
func NewBreakers(now func() time.Time) *Breakers {
	return &Breakers{now: now, wake: make(chan struct{}, 1), all: map[string]*breaker{}}
}

// Enter tells whether a call may ask a gateway, by its base URL. If so, done must be called once.
func (b *Breakers) Enter(gateway string) (done func(Verdict), ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.all[gateway]
	probe := false
	if one != nil && !one.until.IsZero() {
		if b.now().Before(one.until) || one.probing {
			return nil, false
		}
		one.probing, probe = true, true
	}
	return func(v Verdict) { b.leave(gateway, v, probe) }, true
}

func (b *Breakers) leave(gateway string, v Verdict, probe bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.all[gateway]
	if one != nil && probe {
		one.probing = false
	}
	switch v {
	case Works:
		if one != nil && !one.until.IsZero() {
			b.changed()
		}
		delete(b.all, gateway)
	case Broken:
		if one == nil {
			one = &breaker{}
			b.all[gateway] = one
		}
		if before := one.until; one.failed(b.now()).After(before) {
			b.changed()
		}
	case Undecided:
	}
}

// failed takes in a failure and returns until when the gateway is left alone.
func (one *breaker) failed(now time.Time) (until time.Time) {
	if now.Before(one.until) {
		return one.until // of a call that began before it opened
	}
	one.failures++
	if one.until.IsZero() && one.failures < breakerFailures {
		return one.until
	}
	pause := maxPause
	if one.openings < 5 {
		pause = min(maxPause, firstPause<<one.openings)
	}
	one.openings++
	one.until = now.Add(pause)
	return one.until
}

// Open returns how many gateways are left alone or tried by one call at a time.
func (b *Breakers) Open() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, one := range b.all {
		if !one.until.IsZero() {
			n++
		}
	}
	return n
}
