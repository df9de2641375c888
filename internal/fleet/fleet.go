// Package fleet makes the switches obey. It holds a connection to the event socket of each active switch, carries out
// what a change asks of it (node.Job), and watches over registrations: one whose address is not its credentials' own is
// dropped at once.
//
// Each switch has workers of its own, so that one that is away delays no other. Switches come, change and go while the
// fleet runs, as their rows do.
package fleet

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/node"
)

// Store holds switches and their jobs. Implementations are safe for concurrent use.
type Store interface {
	// Nodes returns every switch.
	Nodes(ctx context.Context) ([]node.Node, error)
	// ListenForJobs calls wake whenever there may be new jobs or changed switches, until ctx ends. It is a courtesy:
	// the fleet also looks by itself every second.
	ListenForJobs(ctx context.Context, wake func()) error
	// ClaimJob gives the next job of a switch for the length of a lease. Error: node.ErrNoJob.
	ClaimJob(ctx context.Context, nodeID uuid.UUID, lease time.Duration) (node.Job, error)
	// UntriedJobs returns the jobs of a switch about users and domains that are due and were never claimed, the first
	// so many with higher numbers than last, in order of number.
	UntriedJobs(ctx context.Context, nodeID uuid.UUID, last int64, limit int) ([]node.Job, error)
	// AddClaimedJob writes a job that the caller carries out himself. Error: node.ErrSameJob.
	AddClaimedJob(ctx context.Context, j node.Job, lease time.Duration) (node.Job, error)
	// FinishJob, RetryJob and BuryJob end a claim: the job is done (and a second round may follow), tried again after a
	// while, or given up. Error: node.ErrLeaseLost.
	FinishJob(ctx context.Context, j node.Job, second *node.Job, after time.Duration) error
	RetryJob(ctx context.Context, j node.Job, after time.Duration, reason string) error
	BuryJob(ctx context.Context, j node.Job, reason string) error
	// Backlogs returns what each switch still has to do.
	Backlogs(ctx context.Context) ([]node.Backlog, error)
	// PruneJobs removes jobs that were done longer ago than keepDone, or given up longer ago than keepDead. It returns
	// how many, also with an error.
	PruneJobs(ctx context.Context, keepDone, keepDead time.Duration) (int, error)
	// Gateways returns the gateways that every switch is to have, Gateway that of one trunk, with revision 0 if there
	// is to be none.
	Gateways(ctx context.Context) ([]node.Gateway, error)
	Gateway(ctx context.Context, trunk uuid.UUID) (node.Gateway, error)
	// NoteGateways writes down what is known of gateways on a switch, ForgetGateways that it has none but
	// those that every switch is to have now.
	NoteGateways(ctx context.Context, nodeID uuid.UUID, states []node.GatewayState) error
	ForgetGateways(ctx context.Context, nodeID uuid.UUID) error
}

// Directory tells whose credentials are whose. It must read what is committed, not a copy that may lag behind.
type Directory interface {
	// Extension is that of directory.Store.
	Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error)
}

// Options are what a fleet is made of.
type Options struct {
	Store     Store
	Directory Directory
	Keys      *secret.KeyRing
	// Connect makes the connection to a switch; see Switches.
	Connect Connect
	// Witness takes down channels that ended; nil means nobody does.
	Witness Witness
	// Settle is how long after a change the users that a switch caches are forgotten once more (node.SecondRound). It
	// must be longer than any xmlcurl takes to hear of a change. Zero means 3 s.
	Settle time.Duration
	// Patrol is how often all registrations of each switch are checked, besides each when it is made. Zero means 5 min.
	Patrol time.Duration
	// GatewayPatrol is how often the gateways of each switch are compared with what they are to be, besides after each
	// connection. Zero means 1 min.
	GatewayPatrol time.Duration
	Registry      prometheus.Registerer
	Log           *slog.Logger
}

// The fleet's times.
const (
	defaultSettle = 3 * time.Second
	defaultPatrol = 5 * time.Minute

	defaultGatewayPatrol = time.Minute
	// How often the fleet looks for work and for switches without being told.
	pollInterval = time.Second
	// A job takes milliseconds. The lease is what its subject waits when the process dies in the middle, and longer
	// than a job may take.
	lease      = 30 * time.Second
	jobTimeout = 20 * time.Second
	// storeTimeout bounds one question to the store.
	storeTimeout = 5 * time.Second
	// How often what the fleet shows at /metrics is counted.
	countInterval = 5 * time.Second
	pruneInterval = time.Hour
	// keepDone is how long a job that is done can be looked up, keepDead how long one that was given up can be
	// replayed.
	keepDone = 7 * 24 * time.Hour
	keepDead = 30 * 24 * time.Hour
)

// Fleet is all switches. See Run.
type Fleet struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics

	running sync.WaitGroup
	mu      sync.Mutex
	members map[uuid.UUID]*entry
}

// entry is a switch as it was when its member was started.
type entry struct {
	node   node.Node
	member *member // nil for a switch that cannot be connected to as its row is
	stop   context.CancelFunc
}

// New returns a fleet that does nothing until Run.
func New(o Options) *Fleet {
	o.Settle, o.Patrol = cmp.Or(o.Settle, defaultSettle), cmp.Or(o.Patrol, defaultPatrol)
	o.GatewayPatrol = cmp.Or(o.GatewayPatrol, defaultGatewayPatrol)
	return &Fleet{opts: o, log: o.Log.With("component", "fleet"), metrics: newMetrics(o.Registry), members: map[uuid.UUID]*entry{}}
}

// Run works until ctx ends and everything it started has ended.
func (f *Fleet) Run(ctx context.Context) {
	changed := make(chan struct{}, 1)
	f.running.Go(func() { f.listen(ctx, changed) })
	f.running.Go(func() { f.keepBooks(ctx) })
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	outage := background.NewOutage(f.log, "switches cannot be read")
	for ctx.Err() == nil {
		outage.Note(ctx, f.reconcile(ctx))
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
		}
	}
	f.running.Wait()
}

// Census is how the switches are, without asking them.
type Census struct {
	// Active is the number of active switches, Connected of those that are connected to.
	Active, Connected int
	// Registrations is the number of phones at the connected ones, a few seconds old at most.
	Registrations int
}

// Census counts. It is safe for concurrent use.
func (f *Fleet) Census() Census {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := Census{Active: len(f.members)}
	for _, e := range f.members {
		if e.member != nil && e.member.sw.Up() {
			c.Connected++
			c.Registrations += int(e.member.registered.Load())
		}
	}
	return c
}

// Switch tells of one switch whether it is connected to, and how many phones are registered there. It is safe for
// concurrent use.
func (f *Fleet) Switch(id uuid.UUID) (registrations int, connected bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.members[id]
	if e == nil || e.member == nil || !e.member.sw.Up() {
		return 0, false
	}
	return int(e.member.registered.Load()), true
}

// listen passes on what the store tells. Without it the fleet works a little slower, so it is tried for ever.
func (f *Fleet) listen(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		err := f.opts.Store.ListenForJobs(ctx, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, e := range f.members {
				if e.member != nil {
					background.Poke(e.member.due)
					background.Poke(e.member.news)
				}
			}
			background.Poke(changed)
		})
		if ctx.Err() == nil {
			f.log.ErrorContext(ctx, "listening for jobs", "error", err)
			background.Pause(ctx, pollInterval)
		}
	}
}

// reconcile starts and stops members until they are the active switches as they are now.
func (f *Fleet) reconcile(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	nodes, err := f.opts.Store.Nodes(asking)
	if err != nil {
		return err
	}
	wanted := map[uuid.UUID]node.Node{}
	for _, n := range nodes {
		if n.Active {
			wanted[n.ID] = n
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, e := range f.members {
		if n, ok := wanted[id]; !ok || !n.Equal(e.node) {
			e.stop()
			delete(f.members, id)
			f.log.InfoContext(ctx, "node left", "node", e.node.Name)
			if !ok && e.member == nil {
				f.metrics.forget(e.node.Name)
			}
		}
	}
	for id, n := range wanted {
		if f.members[id] == nil {
			f.members[id] = f.start(ctx, n)
		}
	}
	return nil
}

// start starts the member of a switch. One whose row cannot be used stays without until the row changes.
func (f *Fleet) start(ctx context.Context, n node.Node) *entry {
	ctx, stop := context.WithCancel(ctx)
	e := &entry{node: n, stop: stop}
	f.metrics.up.WithLabelValues(n.Name).Set(0)
	m, err := newMember(f, n)
	if err != nil {
		f.log.ErrorContext(ctx, "node cannot be used", "node", n.Name, "error", err)
		return e
	}
	e.member = m
	f.log.InfoContext(ctx, "node joined", "node", n.Name, "address", n.Address, "caches_users", n.CachesUsers)
	f.running.Go(func() {
		m.run(ctx)
		f.left(n)
	})
	return e
}

// left forgets what is shown of a switch, unless it has come back meanwhile.
func (f *Fleet) left(n node.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.members[n.ID] == nil {
		f.metrics.forget(n.Name)
	}
}

// keepBooks counts what is shown, and removes what is long done.
func (f *Fleet) keepBooks(ctx context.Context) {
	count, prune := time.NewTicker(countInterval), time.NewTicker(pruneInterval)
	defer count.Stop()
	defer prune.Stop()
	outage := background.NewOutage(f.log, "jobs cannot be counted")
	for {
		outage.Note(ctx, f.count(ctx))
		select {
		case <-ctx.Done():
			return
		case <-count.C:
		case <-prune.C:
			f.prune(ctx)
		}
	}
}

func (f *Fleet) prune(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	n, err := f.opts.Store.PruneJobs(asking, keepDone, keepDead)
	if err != nil {
		f.log.ErrorContext(ctx, "removing old jobs", "removed", n, "error", err)
	} else if n > 0 {
		f.log.InfoContext(ctx, "removed old jobs", "jobs", n)
	}
}

// count shows what each switch has to do and whether it is there.
func (f *Fleet) count(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	backlogs, err := f.opts.Store.Backlogs(asking)
	if err != nil {
		return err
	}
	of := map[uuid.UUID]node.Backlog{}
	for _, b := range backlogs {
		of[b.NodeID] = b
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, e := range f.members {
		f.metrics.backlog(e.node.Name, of[id])
		if e.member != nil {
			f.metrics.present(e.node.Name, e.member.sw.Up())
		}
	}
	return nil
}
