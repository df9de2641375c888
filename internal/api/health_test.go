package api_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/api"
)

// silent is a store that is not answered when it asks for figures, until it is let go.
type silent struct {
	api.Store

	asked atomic.Int64
	deaf  bool // it does not even hear that nobody waits any more
	let   chan struct{}
}

func (s *silent) Figures(ctx context.Context) (integration.Figures, error) {
	s.asked.Add(1)
	ended := ctx.Done()
	if s.deaf {
		ended = nil
	}
	select {
	case <-ended:
		return integration.Figures{}, ctx.Err()
	case <-s.let:
		return integration.Figures{DomainsActive: 3}, nil
	}
}

func healthOf(t *testing.T, s *scene) answer {
	t.Helper()
	return s.send(t, request{method: http.MethodGet, target: api.BasePath + "/health", header: http.Header{}})
}

// However many ask while the database is silent, it is asked once, everybody has his answer in time, and it is
// remembered from when it was known.
func TestHealthOfSilentDatabase(t *testing.T) {
	t.Parallel()
	for name, deaf := range map[string]bool{"gives up": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := &silent{deaf: deaf, let: make(chan struct{})}
			s := start(t, func(o *api.Options) {
				store.Store, o.Store = o.Store, store
				o.FiguresAge = time.Hour
			})
			t.Cleanup(func() { close(store.let) })
			const many = 30
			answers, failures := make([]answer, many), make([]error, many)
			var asking sync.WaitGroup
			for i := range many {
				asking.Go(func() {
					// Less than the server gives a request.
					ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
					defer cancel()
					answers[i], failures[i] = s.try(ctx, request{method: http.MethodGet, target: api.BasePath + "/health", header: http.Header{}})
				})
			}
			asking.Wait()
			if err := errors.Join(failures...); err != nil {
				t.Fatal(err)
			}
			for _, a := range append(answers, healthOf(t, s)) {
				if a.status != http.StatusServiceUnavailable || a.json(t)["status"] != "down" {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			if n := store.asked.Load(); n != 1 {
				t.Errorf("the database was asked %d times", n)
			}
		})
	}
}

// Whoever goes away while the database is asked takes the answer from nobody.
func TestHealthOutlivesWhoAskedFirst(t *testing.T) {
	t.Parallel()
	store := &silent{let: make(chan struct{})}
	s := start(t, func(o *api.Options) { store.Store, o.Store = o.Store, store })
	close(store.let)
	if a := healthOf(t, s); a.status != http.StatusOK || a.json(t)["domainsActive"] != 3.0 {
		t.Errorf("%d %s", a.status, a.body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	figures := api.NewFigures(store, 0, time.Now)
	if _, err := figures.Get(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if f, err := figures.Get(t.Context()); err != nil || f.DomainsActive != 3 {
		t.Errorf("%+v, %v", f, err)
	}
}

// A failure is remembered from when it is known, however long it took.
func TestHealthRemembersSlowFailure(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	now := func() time.Time { return time.Unix(1_800_000_000, clock.Load()) }
	store := &slow{took: func() { clock.Add(int64(2 * time.Second)) }}
	figures := api.NewFigures(store, time.Second, now)
	for _, tc := range []struct {
		later time.Duration
		want  int
	}{{0, 1}, {999 * time.Millisecond, 1}, {time.Millisecond, 2}} {
		clock.Add(int64(tc.later))
		if _, err := figures.Get(t.Context()); !errors.Is(err, errSlow) || store.asked != tc.want {
			t.Errorf("%v later: %v, asked %d times, want %d", tc.later, err, store.asked, tc.want)
		}
	}
}

// slow is a store that takes its time to fail.
type slow struct {
	api.Store

	took  func()
	asked int
}

var errSlow = errors.New("too slow")

func (s *slow) Figures(context.Context) (integration.Figures, error) {
	s.asked++
	s.took()
	return integration.Figures{}, errSlow
}
