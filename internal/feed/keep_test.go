package feed_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgvoip/edgvoip/internal/feed"
)

// primary counts what is asked of it.
type primary struct {
	mu     sync.Mutex
	beats  int
	prunes int
	// left is how many times there is still something to remove.
	left int
	fail error
}

// Beat implements feed.Primary.
func (p *primary) Beat(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats++
	return p.fail
}

// PruneChanges implements feed.Primary.
func (p *primary) PruneChanges(_ context.Context, keep time.Duration) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prunes++; keep != time.Hour {
		return 0, errors.New("kept for another time")
	}
	if p.fail != nil || p.left == 0 {
		return 0, p.fail
	}
	p.left--
	return 20000, nil
}

// A heartbeat comes at once and every two seconds, a prune at once and every hour, until nothing is left. An outage
// ends neither, and is logged when it begins and when it ends.
func TestKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &primary{left: 3}
		var log bytes.Buffer
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			feed.Keep(ctx, p, slog.New(slog.NewTextHandler(&log, nil)))
		}()
		want := func(when string, beats, prunes int) {
			t.Helper()
			synctest.Wait()
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.beats != beats || p.prunes != prunes {
				t.Errorf("%s: %d heartbeats and %d prunes, want %d and %d", when, p.beats, p.prunes, beats, prunes)
			}
		}
		fail := func(err error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.fail = err
		}
		want("at first", 1, 4)
		time.Sleep(10*time.Second + time.Millisecond)
		want("after 10 s", 6, 4)
		fail(errors.New("away"))
		time.Sleep(time.Hour)
		want("after an hour away", 6+1800, 5)
		fail(nil)
		time.Sleep(time.Hour)
		want("after another", 6+3600, 6)
		stop()
		<-done
		if n := strings.Count(log.String(), "out of order"); n != 2 || strings.Count(log.String(), "in order again") != 2 {
			t.Errorf("not one outage of each was logged:\n%s", &log)
		}
	})
}
