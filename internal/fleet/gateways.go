package fleet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/node"
)

// gateways are those of one switch: it makes them what they are to be, and writes down what becomes of them.
type gateways struct {
	m *member
	// changing is held while gateways are compared or changed, by a job or by the patrol.
	changing sync.Mutex
	stale    chan struct{} // holds something when the switch may have missed changes

	mu sync.Mutex
	// states are those of the gateways that the switch has, news what is not written down yet.
	states  map[uuid.UUID]string
	news    map[uuid.UUID]node.GatewayState
	written chan struct{}                 // holds something when there are news
	removed map[uuid.UUID]chan<- struct{} // who waits for a gateway to be gone
}

func newGateways(m *member) *gateways {
	return &gateways{
		m: m, stale: make(chan struct{}, 1), written: make(chan struct{}, 1),
		states: map[uuid.UUID]string{}, news: map[uuid.UUID]node.GatewayState{}, removed: map[uuid.UUID]chan<- struct{}{},
	}
}

// obey does a job. The gateway is made what it is to be now, which may be newer than the job.
func (g *gateways) obey(ctx context.Context, t node.Trunk) error {
	if t.Gateway != node.GatewayKeep {
		if err := g.converge(ctx, t.ID); err != nil {
			return err
		}
	}
	if !t.Addresses {
		return nil
	}
	if err := g.m.sw.ReadAddresses(ctx); err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	return nil
}

// lagPauses are how long after each other a switch is made to ask again which was given an old gateway, or none: the
// xmlcurl that it asked had not yet heard of the change.
var lagPauses = []time.Duration{
	20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
}

// converge makes the switch have the gateway of a trunk as it is wanted, and writes down what came of it.
func (g *gateways) converge(ctx context.Context, id uuid.UUID) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	for i := 0; ; i++ {
		// The switch first: what is wanted by then is no older than what it has, unless the database was set back.
		has, ok, err := g.m.sw.Gateway(ctx, id)
		if err != nil {
			return fmt.Errorf("ask for the gateway: %w", err)
		}
		wanted, err := g.m.fleet.opts.Store.Gateway(ctx, id)
		switch {
		case err != nil:
			return err
		case ok == (wanted.Revision > 0) && has.Revision == wanted.Revision:
			g.note(id, node.GatewayState{Applied: &has.Revision, Registration: has.State, Ping: has.Ping})
			return nil
		case i > len(lagPauses):
			err := fmt.Errorf("the switch was given revision %d of the gateway, and is to have %d", has.Revision, wanted.Revision)
			g.note(id, node.GatewayState{Applied: &has.Revision, Registration: has.State, Ping: has.Ping, Error: err.Error()})
			return err
		case i > 0:
			background.Pause(ctx, lagPauses[i-1])
		}
		if err := g.replace(ctx, has, ok, wanted); err != nil {
			return err
		}
	}
}

// replace removes a gateway, if there is one, and loads it anew, if there is to be one. One that registers must be gone
// first: it takes its registration back, from the same contact that the new one registers, and whichever is heard last
// counts.
func (g *gateways) replace(ctx context.Context, has esl.Gateway, ok bool, wanted node.Gateway) error {
	gone, forget := g.awaitRemoval(wanted.Trunk)
	defer forget()
	if ok {
		if err := g.m.sw.RemoveGateway(ctx, wanted.Trunk); err != nil {
			return fmt.Errorf("remove gateway: %w", err)
		}
	}
	if !ok || has.State != esl.NoRegistration || wanted.Revision == 0 {
		if err := g.untilGone(ctx, wanted.Trunk, gone); err != nil {
			return fmt.Errorf("wait until the gateway is gone: %w", err)
		}
	}
	if wanted.Revision == 0 {
		return nil
	}
	if err := g.m.sw.LoadGateway(ctx, wanted.Trunk); err != nil {
		return fmt.Errorf("load gateway: %w", err)
	}
	return nil
}

// awaitRemoval returns a channel that holds something when the switch has said that a gateway is gone.
func (g *gateways) awaitRemoval(id uuid.UUID) (gone <-chan struct{}, forget func()) {
	c := make(chan struct{}, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.removed[id] = c
	return c, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.removed, id)
	}
}

// removalPoll is how often the switch is asked whether a gateway is gone, should the event be missed.
const removalPoll = time.Second

// untilGone waits until the switch has done with a gateway that it removes, which is up to two seconds after it was
// told to.
func (g *gateways) untilGone(ctx context.Context, id uuid.UUID, gone <-chan struct{}) error {
	for {
		list, err := g.m.sw.ListGateways(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(has esl.Gateway) bool { return has.Trunk == id }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gone:
			return nil
		case <-time.After(removalPoll):
		}
	}
}

// heard takes an event. It does not block.
func (g *gateways) heard(e esl.GatewayEvent) {
	if e.Trunk == uuid.Nil {
		return
	}
	if !e.Removed {
		g.note(e.Trunk, node.GatewayState{Registration: e.State, Ping: e.Ping, Error: printable(e.Failure)})
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.removed[e.Trunk]; c != nil {
		background.Poke(c)
	}
}

// note takes news of a gateway, to be written down.
func (g *gateways) note(id uuid.UUID, s node.GatewayState) {
	s.Trunk = id
	g.mu.Lock()
	defer g.mu.Unlock()
	g.merge(s)
	background.Poke(g.written)
}

// merge puts later news over those that wait. The caller holds mu.
func (g *gateways) merge(s node.GatewayState) {
	before, waits := g.news[s.Trunk]
	if waits && s.Applied == nil {
		s.Applied = before.Applied
	}
	if waits && s.Error == "" && s.Registration != "REGED" && s.Registration != esl.NoRegistration && s.Registration != "" {
		s.Error = before.Error
	}
	g.news[s.Trunk] = s
	switch {
	case s.Applied != nil && *s.Applied == 0:
		delete(g.states, s.Trunk)
	case s.Applied != nil || g.states[s.Trunk] != "":
		g.states[s.Trunk] = s.Registration
	}
}

// keepBooks writes down news until ctx ends.
func (g *gateways) keepBooks(ctx context.Context) {
	outage := background.NewOutage(g.m.log, "states of gateways cannot be written")
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-g.written:
			err := g.write(ctx)
			outage.Note(ctx, err)
			if err != nil {
				background.Pause(ctx, retryPause)
			}
		}
	}
}

// write writes the news down. Those that cannot be written wait, unless there are newer ones by then.
func (g *gateways) write(ctx context.Context) error {
	g.mu.Lock()
	taken := g.news
	g.news = map[uuid.UUID]node.GatewayState{}
	count := map[string]int{}
	for _, state := range g.states {
		count[state]++
	}
	g.mu.Unlock()
	if g.m.sw.Up() {
		g.m.fleet.metrics.showGateways(g.m.node.Name, count)
	}
	states := make([]node.GatewayState, 0, len(taken))
	for _, s := range taken {
		states = append(states, s)
	}
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := g.m.fleet.opts.Store.NoteGateways(asking, g.m.node.ID, states)
	if err == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	later := g.news
	g.news = taken
	for _, s := range later {
		g.merge(s)
	}
	background.Poke(g.written)
	return err
}

// distrust makes the patrol look at once: changes may have been missed.
func (g *gateways) distrust() { background.Poke(g.stale) }

// patrol compares the switch with what it is to have after each connection, and now and then.
func (g *gateways) patrol(ctx context.Context) {
	tick := time.NewTicker(g.m.fleet.opts.GatewayPatrol)
	defer tick.Stop()
	for ctx.Err() == nil {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-g.stale:
			if err = g.m.sw.ReadAddresses(ctx); err == nil {
				err = g.sweep(ctx)
			}
		case <-tick.C:
			if g.m.sw.Up() {
				err = g.sweep(ctx)
			}
		}
		if err != nil && ctx.Err() == nil && !down(err) {
			g.m.log.WarnContext(ctx, "gateways cannot be compared", "error", err)
		}
	}
}

// sweep looks at every gateway that the switch has or is to have, and puts right those that are not as they are to be.
// One that cannot be put right does not keep the others from it.
func (g *gateways) sweep(ctx context.Context) error {
	wanted, err := g.wanted(ctx)
	if err != nil {
		return err
	}
	list, err := g.m.sw.ListGateways(ctx)
	if err != nil {
		return fmt.Errorf("list gateways: %w", err)
	}
	g.keepStates(list)
	for _, has := range list {
		if _, ok := wanted[has.Trunk]; !ok {
			wanted[has.Trunk] = 0
		}
	}
	for id, revision := range wanted {
		if err := g.mend(ctx, id, revision); err != nil {
			if down(err) || ctx.Err() != nil {
				return err
			}
			g.m.log.ErrorContext(ctx, "gateway is not as it is to be", "trunk", id, "error", err)
		}
	}
	return nil
}

// wanted returns the revision of each gateway that the switch is to have, and has it written down that it has no
// others: those that it has all the same are about to be removed.
func (g *gateways) wanted(ctx context.Context) (map[uuid.UUID]int64, error) {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	list, err := g.m.fleet.opts.Store.Gateways(asking)
	if err != nil {
		return nil, err
	}
	wanted := map[uuid.UUID]int64{}
	for _, w := range list {
		wanted[w.Trunk] = w.Revision
	}
	return wanted, g.m.fleet.opts.Store.ForgetGateways(asking, g.m.node.ID)
}

// mend notes a gateway that is as it is to be, and makes it so if it is not.
func (g *gateways) mend(ctx context.Context, id uuid.UUID, revision int64) error {
	has, ok, err := g.m.sw.Gateway(ctx, id)
	if err != nil {
		return err
	}
	if ok && revision > 0 && has.Revision == revision {
		g.note(id, node.GatewayState{Applied: &has.Revision, Registration: has.State, Ping: has.Ping})
		return nil
	}
	mending, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	return g.converge(mending, id)
}

// keepStates forgets the states of gateways that the switch does not have.
func (g *gateways) keepStates(list []esl.Gateway) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.states {
		if !slices.ContainsFunc(list, func(has esl.Gateway) bool { return has.Trunk == id }) {
			delete(g.states, id)
		}
	}
}
