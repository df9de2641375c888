package esl

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// What is handled before a gap is told of came before it, and nothing is kept after it until then.
func TestQueueHasOneGap(t *testing.T) {
	t.Parallel()
	lost := 0
	q := newQueue(2, func() { lost++ })
	push := func(numbers ...uint64) {
		for _, n := range numbers {
			q.push(Event{Sequence: n})
		}
	}
	var got []uint64 // 0 is a gap
	next := func() {
		e, gap, err := q.next(t.Context())
		if err != nil || gap == (e.Sequence != 0) {
			t.Fatalf("next is %v, %v, %v", e, gap, err)
		}
		got = append(got, e.Sequence)
	}
	push(1, 2, 3)
	next()
	push(4) // there is room, but 3 is missing before it
	next()
	next()
	push(5)
	q.lose()
	push(6)
	next()
	next()
	push(7)
	next()
	if want := []uint64{1, 2, 0, 5, 0, 7}; !slices.Equal(got, want) {
		t.Errorf("handled %v, want %v", got, want)
	}
	if lost != 4 {
		t.Errorf("%d events are counted as lost, want 4", lost)
	}
}

func TestQueueEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	q := newQueue(1, func() {})
	ended := make(chan error)
	go func() {
		_, _, err := q.next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	q.push(Event{})
	if _, _, err := q.next(ctx); err == nil {
		t.Error("a context that has ended gets an event")
	}
}
