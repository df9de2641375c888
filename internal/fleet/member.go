package fleet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/node"
)

// member is one switch: its connection, the worker that carries out its jobs, and the watch over its registrations.
type member struct {
	fleet    *Fleet
	node     node.Node
	sw       Switch
	watch    *watch
	gateways *gateways
	due      chan struct{} // holds something when there may be work
	news     chan struct{} // holds something when jobs may have been added
	// sightings are channels that ended and are not written down yet.
	sightings chan cdr.Sighting
	log       *slog.Logger
	// registered is the number of phones, as counted last.
	registered atomic.Int64

	echoing sync.WaitGroup
	mu      sync.Mutex
	echoes  map[any]*echo // by the task that is repeated
}

func newMember(f *Fleet, n node.Node) (*member, error) {
	password, err := node.Password(n, f.opts.Keys)
	if err != nil {
		return nil, err
	}
	m := &member{fleet: f, node: n, due: make(chan struct{}, 1), news: make(chan struct{}, 1), sightings: make(chan cdr.Sighting, sightingQueue), echoes: map[any]*echo{}, log: f.log.With("node", n.Name)}
	m.watch = newWatch(m)
	m.gateways = newGateways(m)
	m.sw, err = f.opts.Connect(n, password, Handlers{Connected: m.connected, Registered: m.watch.add, Gateway: m.gateways.heard, HungUp: m.sight})
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return m, nil
}

// run works until ctx ends.
func (m *member) run(ctx context.Context) {
	var parts sync.WaitGroup
	ended := make(chan struct{})
	parts.Go(func() {
		defer close(ended)
		if err := m.sw.Run(ctx); err != nil && ctx.Err() == nil {
			m.log.ErrorContext(ctx, "connection ended for good", "error", err)
		}
	})
	parts.Go(func() { m.work(ctx) })
	parts.Go(func() { m.herald(ctx) })
	parts.Go(func() { m.witness(ctx, ended) })
	parts.Go(func() { m.watch.run(ctx) })
	parts.Go(func() { m.watch.patrol(ctx) })
	parts.Go(func() { m.patrolCache(ctx) })
	parts.Go(func() { m.countRegistrations(ctx) })
	parts.Go(func() { m.gateways.patrol(ctx) })
	parts.Go(func() { m.gateways.keepBooks(ctx) })
	parts.Wait()
	m.echoing.Wait()
}

// connected is called after each connection, when events may have been missed and jobs may have been waiting.
func (m *member) connected(ctx context.Context) error {
	m.fleet.metrics.present(m.node.Name, true)
	if m.node.CachesUsers {
		// It may have kept anybody while it was away; jobs tell of one after the other, and so later.
		if err := m.sw.FlushUsers(ctx); err != nil {
			return fmt.Errorf("flush users: %w", err)
		}
	}
	m.checkCache(ctx)
	if err := m.watch.sweep(ctx); err != nil {
		return err
	}
	m.gateways.distrust()
	background.Poke(m.due)
	return nil
}

// work carries out the jobs of the switch, one after the other.
func (m *member) work(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	outage := background.NewOutage(m.log, "jobs cannot be claimed")
	for ctx.Err() == nil {
		if m.sw.Up() {
			worked, err := m.workOnce(ctx)
			outage.Note(ctx, err)
			if worked {
				continue
			}
		}
		select {
		case <-ctx.Done():
		case <-m.due:
		case <-tick.C:
		}
	}
}

// workOnce claims a job and carries it out, if there is one. Error: the store's.
func (m *member) workOnce(ctx context.Context) (worked bool, err error) {
	// A claim that was cancelled half way may have been made: nobody would carry it out until its lease ends.
	claiming, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	job, err := m.fleet.opts.Store.ClaimJob(claiming, m.node.ID, lease)
	if errors.Is(err, node.ErrNoJob) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	m.carryOut(ctx, job)
	return true, nil
}

// carryOut does a claimed job and writes down what became of it. done tells whether the switch did it.
func (m *member) carryOut(ctx context.Context, job node.Job) (done bool) {
	ctx = telemetry.WithCorrelation(ctx, job.CorrelationID)
	doing, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	start := time.Now()
	task, err := job.Task()
	if err == nil {
		err = m.obey(doing, task)
	}
	log := m.log.With("job", job.ID, "kind", string(job.Kind), "subject", job.Subject, "attempt", job.Attempts)
	outcome, noted := m.conclude(ctx, job, task, err)
	if err == nil {
		m.startEcho(ctx, task)
		if r, ok := task.(node.Registration); ok {
			m.fleet.metrics.dropped.WithLabelValues(m.node.Name, reasonLabel(r.Reason)).Inc()
		}
	}
	m.fleet.metrics.jobs.WithLabelValues(m.node.Name, kindLabel(job.Kind), outcome).Inc()
	switch {
	case noted != nil:
		// Its lease runs out and it is done once more, which does no harm.
		log.ErrorContext(ctx, "outcome of a job cannot be written", "outcome", outcome, "error", errors.Join(noted, err))
	case outcome == outcomeDead:
		log.ErrorContext(ctx, "job given up", "error", err)
	case err != nil:
		log.WarnContext(ctx, "job failed, to be tried again", "error", err)
	default:
		log.InfoContext(ctx, "job done", "waited_ms", time.Since(job.CreatedAt).Milliseconds(), "took_ms", time.Since(start).Milliseconds())
	}
	return err == nil
}

// Outcomes of a job.
const (
	outcomeDone    = "done"
	outcomeRetried = "retried" // it failed, and will be tried again
	outcomeDead    = "dead"
)

// conclude ends the claim of a job that succeeded or failed, also while the process shuts down.
func (m *member) conclude(ctx context.Context, job node.Job, task any, failure error) (outcome string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	store := m.fleet.opts.Store
	switch {
	case failure == nil:
		return outcomeDone, m.finish(ctx, job, task)
	case unsent(failure):
		// It falls due at once, and is claimed when the switch is back. Being away is no failure of the job, however
		// often.
		return outcomeRetried, store.RetryJob(ctx, job, 0, failure.Error())
	case errors.Is(failure, node.ErrPayload), errors.Is(failure, errUnnameable), job.Attempts >= maxAttempts:
		return outcomeDead, store.BuryJob(ctx, job, failure.Error())
	default:
		return outcomeRetried, store.RetryJob(ctx, job, backoff(job.Attempts), failure.Error())
	}
}

func (m *member) finish(ctx context.Context, job node.Job, task any) error {
	store, settle := m.fleet.opts.Store, m.fleet.opts.Settle
	again, ok := node.SecondRound(task)
	if _, isTrunk := task.(node.Trunk); !ok || !isTrunk && !m.node.CachesUsers {
		return store.FinishJob(ctx, job, nil, 0)
	}
	second, err := job.Settled(again)
	if err != nil {
		return err
	}
	if err := store.FinishJob(ctx, job, &second, settle); err != nil {
		return err
	}
	time.AfterFunc(settle, func() { background.Poke(m.due) })
	return nil
}

// A job is given up after maxAttempts, which with these pauses takes about half an hour: a profile that restarts, or a
// module that is reloaded, is back by then.
const (
	maxAttempts  = 16
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 5 * time.Minute
)

// backoff is how long to wait after so many attempts: anything up to a bound that doubles, so that jobs which failed
// together are not tried together.
func backoff(attempts int) time.Duration {
	bound := maxBackoff
	if shift := max(attempts-1, 0); shift < 10 {
		bound = min(bound, firstBackoff<<shift)
	}
	return rand.N(bound) + time.Millisecond //nolint:gosec // it spreads load, and guards nothing
}

// registrationsInterval is how often a switch is asked how many phones it has.
const registrationsInterval = 5 * time.Second

func (m *member) countRegistrations(ctx context.Context) {
	tick := time.NewTicker(registrationsInterval)
	defer tick.Stop()
	for {
		if m.sw.Up() {
			if n, err := m.sw.Registrations(ctx); err == nil {
				m.registered.Store(int64(n))
				m.fleet.metrics.registrations.WithLabelValues(m.node.Name).Set(float64(n))
			} else if ctx.Err() == nil && !down(err) {
				m.log.WarnContext(ctx, "registrations cannot be counted", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
