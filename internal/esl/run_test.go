package esl

import (
	"testing"
	"time"
)

// The wait doubles up to its bound, and at most a half of it is taken off.
func TestBackoff(t *testing.T) {
	t.Parallel()
	b := newBackoff(&Options{MinBackoff: 100 * time.Millisecond, MaxBackoff: time.Second})
	different := map[time.Duration]bool{}
	for range 50 {
		b.reset()
		for _, most := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			most *= time.Millisecond
			wait := b.next()
			if wait < most/2 || wait > most {
				t.Fatalf("%v is not between %v and %v", wait, most/2, most)
			}
			different[wait] = true
		}
	}
	if len(different) < 50 {
		t.Errorf("only %d different waits of 300", len(different))
	}
}
