package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// plan says which requests are sent, and when.
type plan struct {
	clients int
	// write writes the nth question.
	write func(q *question, r *rand.Rand, n int)
	// seed makes the random choices of a plan the same for every server.
	seed uint64
	// due are the times, from the start on, at which requests are due; nil lets each client ask again as soon as it has
	// its answer.
	due []time.Duration
	// The plan ends after a time or a number of requests; zero means that this does not end it. With due it ends with
	// the last of them.
	length time.Duration
	count  int
	// asked counts the requests as they begin. It may be nil.
	asked *atomic.Int64
}

// outcome is what became of a plan.
type outcome struct {
	// latencies of right answers, in order of length; from when a request was due.
	latencies []time.Duration
	took      time.Duration
	// failed counts answers that were wrong or did not come; failure is one of them.
	failed  int
	failure error
}

// rate is right answers a second.
func (o outcome) rate() float64 { return float64(len(o.latencies)) / o.took.Seconds() }

// tooMany failures end a plan: more would tell nothing new.
const tooMany = 100

// drive sends the requests of a plan to a server, until it is done or ctx ends.
func drive(ctx context.Context, t *target, p plan) outcome {
	d := driver{plan: p, target: t, start: time.Now()}
	if d.asked == nil {
		d.asked = &atomic.Int64{}
	}
	workers := make([]worker, p.clients)
	var wait sync.WaitGroup
	for i := range workers {
		wait.Go(func() { workers[i].work(ctx, &d, i) })
	}
	wait.Wait()
	o := outcome{took: time.Since(d.start)}
	for _, w := range workers {
		o.latencies = append(o.latencies, w.latencies...)
		o.failed += w.failed
		if o.failure == nil {
			o.failure = w.failure
		}
	}
	slices.Sort(o.latencies)
	return o
}

// driver is a plan under way.
type driver struct {
	plan
	target *target
	start  time.Time
	failed atomic.Int64 // of all workers
}

// next waits until the nth request is due and returns when that was; more is false if there is no such request.
func (d *driver) next(n int) (due time.Time, more bool) {
	if d.due != nil {
		if n >= len(d.due) {
			return time.Time{}, false
		}
		due = d.start.Add(d.due[n])
		sleepUntil(due)
		return due, true
	}
	due = time.Now()
	return due, (d.count == 0 || n < d.count) && (d.length == 0 || due.Sub(d.start) < d.length)
}

// worker is one client of a plan.
type worker struct {
	latencies []time.Duration
	failed    int
	failure   error
}

func (w *worker) work(ctx context.Context, d *driver, id int) {
	runtime.LockOSThread() // it blocks in the kernel anyway
	defer runtime.UnlockOSThread()
	if d.due != nil {
		punctual()
	}
	c := newClient(id)
	r := rand.New(rand.NewPCG(d.seed, uint64(id))) //nolint:gosec // choices of a load, the same every time; id is positive
	var q question
	for ctx.Err() == nil && d.failed.Load() < tooMany {
		n := int(d.asked.Add(1)) - 1
		due, more := d.next(n)
		if !more {
			return
		}
		q.reset()
		d.write(&q, r, n)
		a, err := c.ask(d.target, q.body)
		took := time.Since(due)
		if err != nil {
			err = fmt.Errorf("no answer to %s: %w", asked(q.body), err)
		} else {
			err = q.check(a)
		}
		if err != nil {
			d.failed.Add(1)
			w.failed++
			w.failure = err
			continue
		}
		w.latencies = append(w.latencies, took)
	}
}

// prSetTimerSlack is PR_SET_TIMERSLACK of prctl(2), which package syscall does not have.
const prSetTimerSlack = 29

// punctual makes the sleeps of a thread end in time rather than up to 50 µs later, which the latencies would hold. If
// the kernel refuses, they hold it.
func punctual() { _, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0) }

// sleepUntil blocks the thread: the timers of the Go runtime are late by up to a millisecond.
func sleepUntil(t time.Time) {
	for left := time.Until(t); left > 0; left = time.Until(t) {
		rest := syscall.NsecToTimespec(left.Nanoseconds())
		_ = syscall.Nanosleep(&rest, nil) // interrupted by a signal it goes on
	}
}

// arrivals returns when requests are due within a length of time, at a mean rate a second.
func arrivals(kind string, rate float64, length time.Duration, r *rand.Rand) []time.Duration {
	due := []time.Duration{}
	gap := float64(time.Second) / rate
	for at := 0.0; at < float64(length); {
		due = append(due, time.Duration(at))
		if kind == "poisson" {
			at += gap * r.ExpFloat64()
		} else {
			at += gap
		}
	}
	return due
}

// chooser returns a function that chooses an extension.
func chooser(p population, kind string, spread int) func(r *rand.Rand) int {
	if kind == "uniform" {
		return func(r *rand.Rand) int { return p.nth(r.IntN(spread)) }
	}
	return func(r *rand.Rand) int {
		// A generator is four numbers; the source of random numbers differs by client.
		z := rand.NewZipf(r, zipfExponent, 1, uint64(spread-1)) //nolint:gosec // spread is positive
		return p.nth(int(z.Uint64()))                           //nolint:gosec // below spread
	}
}

// zipfExponent makes few names very frequent: of 1 000, the most frequent is asked for by one request in six.
const zipfExponent = 1.1

// percentile returns the smallest of sorted values that at least a part p of all do not exceed; zero of none.
func percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(p*float64(len(sorted))+0.999999999) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
