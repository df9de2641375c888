package api

import (
	"math"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limiter bounds how often each of many may ask, in bounded memory: of those who have not asked for long, and beyond a
// number of others, it forgets. Whoever is forgotten begins anew with a full burst, which is what he would have by then
// unless very many ask at once. It is safe for concurrent use.
type limiter struct {
	perSecond rate.Limit
	burst     int
	now       func() time.Time

	mu sync.Mutex
	// Two generations: once the young one is full it becomes the old one, and the old one goes.
	young, old map[string]*rate.Limiter
}

// generation is how many each generation of a limiter holds; an entry is about 150 bytes.
const generation = 10_000

func newLimiter(perSecond float64, burst int, now func() time.Time) *limiter {
	return &limiter{perSecond: rate.Limit(perSecond), burst: burst, now: now, young: map[string]*rate.Limiter{}}
}

// take takes a number of requests from what somebody may send. If he may not, it takes nothing and returns after how
// many seconds he may.
func (l *limiter) take(who string, n int) (retryAfter int, ok bool) {
	now := l.now()
	r := l.of(who).ReserveN(now, min(n, l.burst))
	wait := r.DelayFrom(now)
	if wait <= 0 {
		return 0, true
	}
	r.CancelAt(now)
	return int(math.Ceil(wait.Seconds())), false
}

// left tells whether somebody may send a request, and takes nothing. Nobody is remembered for it.
func (l *limiter) left(who string) (retryAfter int, ok bool) {
	l.mu.Lock()
	r := l.young[who]
	if r == nil {
		r = l.old[who]
	}
	l.mu.Unlock()
	if r == nil {
		return 0, true
	}
	missing := 1 - r.TokensAt(l.now())
	return int(math.Ceil(missing / float64(l.perSecond))), missing <= 0
}

// charge takes a number of requests, whether he has them or not: he has the less afterwards, but never less than
// nothing.
func (l *limiter) charge(who string, n int) {
	now := l.now()
	of := l.of(who)
	of.ReserveN(now, max(0, min(n, int(of.TokensAt(now)))))
}

func (l *limiter) of(who string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r, ok := l.young[who]; ok {
		return r
	}
	r, ok := l.old[who]
	if !ok {
		r = rate.NewLimiter(l.perSecond, l.burst)
	}
	if len(l.young) >= generation {
		l.old, l.young = l.young, map[string]*rate.Limiter{}
	}
	l.young[who] = r
	return r
}

// addressOf names an address for the limiter: an IPv6 client has a /64 to itself.
func addressOf(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
