package esl

import (
	"context"
	"sync"

	"github.com/edgvoip/edgvoip/internal/background"
)

// queue holds the events of one connection between the goroutine that reads them and the one that handles them. The
// reader never waits: FreeSWITCH would keep what is not read, and finally throw it away without a word.
//
// When the queue is full it loses the event and every later one until what it holds has been handled. So what is
// handled has one gap at most before errGap tells of it, and nothing after the gap is handled before the state has been
// read anew.
type queue struct {
	most   int
	onLoss func()
	wake   chan struct{} // has room for one: something changed

	mu     sync.Mutex
	events []Event
	gap    bool
}

func newQueue(most int, onLoss func()) *queue {
	return &queue{most: most, onLoss: onLoss, wake: make(chan struct{}, 1)}
}

// push takes an event, or loses it.
func (q *queue) push(e Event) {
	q.mu.Lock()
	lost := q.gap || len(q.events) >= q.most
	if lost {
		q.gap = true
	} else {
		q.events = append(q.events, e)
	}
	q.mu.Unlock()
	if lost {
		q.onLoss()
	}
	background.Poke(q.wake)
}

// lose makes a gap for an event that could not be read.
func (q *queue) lose() {
	q.mu.Lock()
	q.gap = true
	q.mu.Unlock()
	q.onLoss()
	background.Poke(q.wake)
}

// next waits for the next event. With gap there is none: events were lost, and those from now on are kept again. It
// returns the error of a context that ends.
func (q *queue) next(ctx context.Context) (e Event, gap bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return Event{}, false, err
		}
		if e, gap, found := q.take(); found {
			return e, gap, nil
		}
		select {
		case <-q.wake:
		case <-ctx.Done():
		}
	}
}

func (q *queue) take() (e Event, gap, found bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) > 0 {
		e = q.events[0]
		// The array lives on until the slice has moved past it: it must not keep what was handled.
		q.events[0] = Event{}
		q.events = q.events[1:]
		return e, false, true
	}
	gap, q.gap = q.gap, false
	return Event{}, gap, gap
}
