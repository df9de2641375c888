package readmodel

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// gate lets so many loads at the store at once and makes so many more wait. Once a load has failed, the store counts as
// away: for a moment nobody is let in, then one, until one comes back with an answer.
type gate struct {
	places      chan struct{}
	waiting     atomic.Int64
	mostWaiting int64

	mu      sync.Mutex
	away    bool
	probing bool
	retry   time.Time
}

// awayPause is the time between two attempts to reach a store that is away, and tryFor how long one may take: who makes
// it is a lookup, and may have an answer without the store. A store that takes longer lets everybody in when the feed
// hears of it.
const (
	awayPause = 200 * time.Millisecond
	tryFor    = 200 * time.Millisecond
)

// waitersPerPlace bounds who waits for the store: a load takes a millisecond or so, and a lookup has more than one
// second.
const waitersPerPlace = 50

func newGate(places int) gate {
	return gate{places: make(chan struct{}, places), mostWaiting: int64(places) * waitersPerPlace}
}

// through asks the store as soon as the gate lets it. An error that is an answer tells that the store is there. Of a
// replica that is behind it is none.
func through[V any](ctx context.Context, m *Model, answer func(error) bool, load func(context.Context) (V, error)) (v V, err error) {
	if m.tooLate() {
		return v, ErrBehind
	}
	g := &m.gate
	trying, err := g.enter(ctx)
	if err != nil {
		return v, err
	}
	if trying = trying || !m.answers(); trying {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tryFor)
		defer cancel()
	}
	answered := false
	defer func() { g.leave(answered) }()
	start := time.Now()
	v, err = load(ctx)
	// Whoever waited for most of his time to get in learned nothing about the store when the rest of it was too short.
	late := !trying && ctx.Err() != nil && time.Since(start) < longEnough
	answered = err == nil || answer(err) || late
	if err != nil && answer(err) && m.late() {
		err = ErrBehind
	}
	return v, err
}

// longEnough is the time in which a store that is there answers.
const longEnough = 500 * time.Millisecond

// enter returns ErrAway or ErrBusy at once, or waits for a place. Whoever entered must leave. trying tells that he is
// the one who finds out whether a store that was away is back.
func (g *gate) enter(ctx context.Context) (trying bool, err error) {
	admitted, trying := g.admit()
	if !admitted {
		return false, ErrAway
	}
	select {
	case g.places <- struct{}{}:
		return trying, nil
	default:
	}
	if g.waiting.Add(1) > g.mostWaiting {
		g.waiting.Add(-1)
		g.dismiss()
		return false, ErrBusy
	}
	defer g.waiting.Add(-1)
	select {
	case g.places <- struct{}{}:
	case <-ctx.Done():
		g.dismiss()
		return false, ErrBusy
	}
	if !trying && g.isAway() { // the one before found that out
		<-g.places
		return false, ErrAway
	}
	return trying, nil
}

func (g *gate) isAway() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.away
}

// admit lets everybody in while the store is there, and one at a time while it is not.
func (g *gate) admit() (admitted, trying bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.away {
		return true, false
	}
	if g.probing || time.Now().Before(g.retry) {
		return false, false
	}
	g.probing = true
	return true, true
}

// open lets everybody in: the store has answered somebody else.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.away = false
}

func (g *gate) dismiss() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
}

// leave gives the place back. answered tells whether the store gave an answer, be it that there is none.
func (g *gate) leave(answered bool) {
	<-g.places
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
	g.away = !answered
	if g.away {
		g.retry = time.Now().Add(awayPause)
	}
}
