// Package sender sends webhooks: it claims events (webhook.Delivery), signs them, posts them to the tenant's W3, and
// writes down what came of it. Each tenant has a lane of its own, so that a receiver that is dead, slow or hangs delays
// no other tenant. Any number of processes may send at once. One that is killed loses nothing: its leases run out, and
// its events are sent again under the same keys.
package sender

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/webhook"
)

// Store holds events. Implementations are safe for concurrent use.
type Store interface {
	// DueReceivers returns the tenants that have an active endpoint and an event that is due.
	DueReceivers(ctx context.Context) ([]webhook.Receiver, error)
	// ListenForEvents calls wake whenever there may be new events or changed endpoints, until ctx ends. It is a
	// courtesy: the sender also looks by itself every second.
	ListenForEvents(ctx context.Context, wake func()) error
	// ClaimEvents gives up to limit events of a tenant, each of another subject, for the length of a lease.
	ClaimEvents(ctx context.Context, tenant uuid.UUID, limit int, lease time.Duration) ([]webhook.Delivery, error)
	// DeliverEvent, RetryEvent and BuryEvent end a claim and write down the attempt: the event has arrived, is tried
	// again after a while, or is given up. Error: webhook.ErrLeaseLost.
	DeliverEvent(ctx context.Context, d webhook.Delivery, a webhook.Attempt) error
	RetryEvent(ctx context.Context, d webhook.Delivery, a webhook.Attempt, after time.Duration) error
	BuryEvent(ctx context.Context, d webhook.Delivery, a webhook.Attempt) error
	// Secrets returns a tenant's secrets, the newest first, ended ones too.
	Secrets(ctx context.Context, tenant uuid.UUID) ([]integration.Secret, error)
	// EventBacklogs returns what waits to be sent to each tenant.
	EventBacklogs(ctx context.Context) ([]webhook.Backlog, error)
	// PruneEvents removes events that were delivered or discarded longer ago than keep. It returns how many, also with
	// an error.
	PruneEvents(ctx context.Context, keep time.Duration) (int, error)
}

// Options are what a sender is made of.
type Options struct {
	Store Store
	Keys  *secret.KeyRing
	// Allow are the networks that may be dialled besides the public Internet.
	Allow webhook.Networks
	// AllowHTTP lets events go over plain HTTP, for development.
	AllowHTTP bool
	// Timeout bounds one attempt, from dialling to the end of the answer. Zero means 15 s.
	Timeout time.Duration
	// Shared is how many attempts may be under way beyond one of each tenant, which nobody else can take. Zero means
	// 64.
	Shared int
	// Grace is how long what is under way may take at shutdown. Zero means 10 s.
	Grace time.Duration
	// Roots are the authorities that receivers' certificates are verified against; nil means the machine's own.
	Roots *x509.CertPool
	// Resolver finds the addresses of receivers; nil means the machine's own.
	Resolver *net.Resolver
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// The sender's bounds and times.
const (
	defaultTimeout = 15 * time.Second
	defaultShared  = 64
	defaultGrace   = 10 * time.Second
	// perTenant is how many attempts of one tenant may be under way.
	perTenant = 8
	// leaseMargin is how much longer than an attempt a claim lasts: to begin, and to write down what came of it.
	leaseMargin = 15 * time.Second
	// pollInterval is how often the sender looks for events without being told.
	pollInterval = time.Second
	// storeTimeout bounds one question to the store.
	storeTimeout = 5 * time.Second
	// What is shown at /metrics is counted so often, but no more than a twentieth of the time.
	countInterval = 15 * time.Second
	countShare    = 20
	countTimeout  = time.Minute
	pruneInterval = 10 * time.Minute
	pruneTimeout  = time.Minute
	// keep is how long an event that was delivered or discarded can be looked up.
	keep = 7 * 24 * time.Hour
)

// errStopping ends attempts that are under way when the grace is over.
var errStopping = errors.New("interrupted: the sender stops")

// Sender sends the events of all tenants. See Run.
type Sender struct {
	opts    Options
	client  *http.Client
	shared  *semaphore.Weighted
	log     *slog.Logger
	metrics *metrics

	running sync.WaitGroup
	mu      sync.Mutex // guards lanes, and of each lane what it says
	lanes   map[uuid.UUID]*lane
}

// New returns a sender that does nothing until Run.
func New(o Options) *Sender {
	o.Timeout, o.Shared, o.Grace = cmp.Or(o.Timeout, defaultTimeout), cmp.Or(o.Shared, defaultShared), cmp.Or(o.Grace, defaultGrace)
	return &Sender{
		opts: o, client: newClient(o), shared: semaphore.NewWeighted(int64(o.Shared)), log: o.Log.With("component", "sender"),
		metrics: newMetrics(o.Registry), lanes: map[uuid.UUID]*lane{},
	}
}

// Run sends until ctx ends; then it claims nothing more, gives what is under way its grace, and returns.
func (s *Sender) Run(ctx context.Context) {
	// Attempts outlive ctx, by the grace.
	sending, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	woken := make(chan struct{}, 1)
	s.running.Go(func() { s.listen(ctx, woken) })
	s.running.Go(func() { s.count(ctx) })
	s.running.Go(func() { s.prune(ctx) })
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	outage := background.NewOutage(s.log, "events cannot be read")
	for ctx.Err() == nil {
		start := time.Now()
		outage.Note(ctx, s.look(ctx, sending))
		// Notifications may come faster than they can be looked after: half of the time is for others.
		background.Pause(ctx, min(time.Since(start), pollInterval))
		select {
		case <-ctx.Done():
		case <-woken:
		case <-tick.C:
		}
	}
	grace := time.AfterFunc(s.opts.Grace, func() { stop(errStopping) })
	defer grace.Stop()
	s.running.Wait()
	s.client.CloseIdleConnections()
}

// look sets the lanes of all tenants to work that have something due.
func (s *Sender) look(ctx, sending context.Context) error {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	receivers, err := s.opts.Store.DueReceivers(asking)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range receivers {
		l := s.lanes[r.TenantID]
		if l == nil {
			l = newLane(s, r)
			s.lanes[r.TenantID] = l
		}
		l.found = r
		if l.running {
			background.Poke(l.more)
			continue
		}
		l.running = true
		s.running.Go(func() { l.run(ctx, sending) })
	}
	return nil
}

// rest says that a lane has nothing to do; false means that somebody has found something meanwhile. A lane whose
// breaker is closed is forgotten, unless it has an outage to tell the end of.
func (s *Sender) rest(l *lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-l.more:
		return false
	default:
	}
	l.running = false
	if l.breaker.State(time.Now()) == webhook.Closed && !l.outage.Failing() {
		delete(s.lanes, l.found.TenantID)
	}
	return true
}

// listen passes on what the store tells. Without it events are sent a little later, so it is tried for ever.
func (s *Sender) listen(ctx context.Context, woken chan<- struct{}) {
	for ctx.Err() == nil {
		err := s.opts.Store.ListenForEvents(ctx, func() { background.Poke(woken) })
		if ctx.Err() == nil {
			s.log.ErrorContext(ctx, "listening for events", "error", err)
			background.Pause(ctx, pollInterval)
		}
	}
}

// count shows what waits.
func (s *Sender) count(ctx context.Context) {
	outage := background.NewOutage(s.log, "events cannot be counted")
	for ctx.Err() == nil {
		start := time.Now()
		asking, cancel := context.WithTimeout(ctx, countTimeout)
		backlogs, err := s.opts.Store.EventBacklogs(asking)
		cancel()
		outage.Note(ctx, err)
		if err == nil {
			s.metrics.backlogs(backlogs, time.Now())
		}
		background.Pause(ctx, max(countInterval, countShare*time.Since(start)))
	}
}

// prune removes what was delivered long ago. Several processes may do it.
func (s *Sender) prune(ctx context.Context) {
	for {
		background.Pause(ctx, pruneInterval)
		if ctx.Err() != nil {
			return
		}
		asking, cancel := context.WithTimeout(ctx, pruneTimeout)
		n, err := s.opts.Store.PruneEvents(asking, keep)
		cancel()
		if err != nil {
			s.log.ErrorContext(ctx, "removing old events", "removed", n, "error", err)
		} else if n > 0 {
			s.log.InfoContext(ctx, "removed old events", "events", n)
		}
	}
}

// signingKeys opens a tenant's valid secrets, the newest first.
func (s *Sender) signingKeys(ctx context.Context, tenant uuid.UUID) ([]string, error) {
	secrets, err := s.opts.Store.Secrets(ctx, tenant)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, held := range secrets {
		if !held.Valid(time.Now()) {
			continue
		}
		key, err := integration.SigningKey(held, s.opts.Keys)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("the tenant has no valid secret to sign with")
	}
	return keys, nil
}
