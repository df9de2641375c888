package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// carriers are the gateways of a fakeSwitch. It loads them from the database, as a switch does through xmlcurl, or from
// what is put before it instead.
type carriers struct {
	mu      sync.Mutex
	has     map[uuid.UUID]esl.Gateway
	dying   map[uuid.UUID]bool // told to go, and not gone yet
	told    []string
	offered func(id uuid.UUID) int64 // the revision that xmlcurl gives; 0 for none
	state   string                   // of what is loaded
}

func (f *carriers) tells(format string, args ...any) {
	f.told = append(f.told, fmt.Sprintf(format, args...))
}

// takes returns what was asked of the gateways since the last time.
func (f *carriers) takes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	told := f.told
	f.told = nil
	return told
}

func (f *carriers) set(offered func(uuid.UUID) int64, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offered, f.state = offered, state
}

func (f *carriers) load(g esl.Gateway) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.has == nil {
		f.has, f.dying = map[uuid.UUID]esl.Gateway{}, map[uuid.UUID]bool{}
	}
	f.has[g.Trunk] = g
}

// bury ends what is dying, as the thread of the profile does.
func (f *carriers) bury(id uuid.UUID) (was bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was = f.dying[id]
	delete(f.dying, id)
	return was
}

func (c *connection) ListGateways(context.Context) ([]esl.Gateway, error) {
	f := &c.to.lines
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.Collect(maps.Values(f.has))
	for id := range f.dying {
		list = append(list, esl.Gateway{Trunk: id, State: "UNREGISTER"})
	}
	return list, nil
}

func (c *connection) Gateway(_ context.Context, id uuid.UUID) (esl.Gateway, bool, error) {
	f := &c.to.lines
	f.mu.Lock()
	defer f.mu.Unlock()
	g, ok := f.has[id]
	return g, ok, nil
}

func (c *connection) RemoveGateway(_ context.Context, id uuid.UUID) error {
	if !c.Up() {
		return esl.ErrDown
	}
	f := &c.to.lines
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tells("remove %s", id)
	if g, ok := f.has[id]; ok {
		delete(f.has, id)
		if g.State != "NOREG" {
			f.dying[id] = true
			// The profile's thread comes by later.
			go func() {
				if f.bury(id) {
					c.handlers.Gateway(esl.GatewayEvent{Gateway: esl.Gateway{Trunk: id}, Removed: true})
				}
			}()
		}
	}
	return nil
}

func (c *connection) LoadGateway(_ context.Context, id uuid.UUID) error {
	f := &c.to.lines
	f.mu.Lock()
	revision, state := f.offered(id), f.state
	f.tells("load %s", id)
	dying := f.dying[id]
	f.mu.Unlock()
	if dying {
		return errors.New("loaded while the old one takes its registration back")
	}
	if revision > 0 {
		f.load(esl.Gateway{Trunk: id, Revision: revision, State: state, Ping: "UP"})
	}
	return nil
}

func (c *connection) ReadAddresses(context.Context) error {
	f := &c.to.lines
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tells("read addresses")
	return nil
}

// revision is that of a trunk which is to be on the switches, as xmlcurl gives it once it has heard of every change.
func (s *site) revision(t *testing.T) func(uuid.UUID) int64 {
	t.Helper()
	return func(id uuid.UUID) int64 {
		g, err := s.db.Gateway(context.WithoutCancel(t.Context()), id)
		if err != nil {
			t.Error(err)
		}
		return g.Revision
	}
}

// withTrunk is a site with a switch that has heard of everything, and a trunk.
func withTrunk(t *testing.T, state string) (s *site, sw *carriers, id uuid.UUID) {
	t.Helper()
	s = newSite(t)
	sw = &s.at("10.0.0.1:8021").lines
	sw.set(s.revision(t), state)
	s.put(t, "fs1", "10.0.0.1:8021", false)
	s.run(t)
	s.expectConnected(t, "10.0.0.1:8021")
	k := storetest.Trunk("tenant-a", "first", 10, 5090, "+390612345600")
	storetest.SQL{TB: t, DB: s.look}.AddTrunk(k)
	s.expectGateway(t, k.ID, "1 "+state+" ")
	s.expectDone(t)
	sw.takes()
	return s, sw, k.ID
}

// expectGateway waits until this is written down of a trunk's gateway: revision, registration and error.
func (s *site) expectGateway(t *testing.T, id uuid.UUID, want string) {
	t.Helper()
	eventually(t, func() error {
		var got string
		if err := s.look.QueryRowContext(t.Context(), `SELECT coalesce(string_agg(applied_revision || ' ' || registration || ' ' || error, ';'), '')
			FROM edgvoip.trunk_gateways WHERE trunk_id = $1`, id).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("gateway %q, want %q", got, want)
		}
		return nil
	})
}

// expectDone waits until every job is done.
func (s *site) expectDone(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		var open int
		err := s.look.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.jobs WHERE state <> 'done'`).Scan(&open)
		if err == nil && open > 0 {
			err = fmt.Errorf("%d jobs are open", open)
		}
		return err
	})
}

func expectTold(t *testing.T, sw *carriers, want ...string) {
	t.Helper()
	if got := sw.takes(); !slices.Equal(got, want) {
		t.Errorf("the switch was told %q, want %q", got, want)
	}
}

func TestTrunkIsReplaced(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"NOREG", "REGED"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			s, sw, id := withTrunk(t, state)
			s.exec(t, `UPDATE edgvoip.sip_trunks SET port = 5099 WHERE id = $1`, id)
			s.expectGateway(t, id, "2 "+state+" ")
			s.expectDone(t)
			expectTold(t, sw, "remove "+id.String(), "load "+id.String())
		})
	}
}

func TestTrunkIsRemovedWithItsAddresses(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "REGED")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET status = 'disabled' WHERE id = $1`, id)
	s.expectGateway(t, id, "0  ")
	s.expectDone(t)
	expectTold(t, sw, "remove "+id.String(), "read addresses", "read addresses")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET status = 'active' WHERE id = $1`, id)
	s.expectGateway(t, id, "3 REGED ")
}

func TestAddressesAreReadAndTheGatewayStays(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "REGED")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET source_addresses = '{192.0.2.0/24}' WHERE id = $1`, id)
	s.expectDone(t)
	expectTold(t, sw, "read addresses", "read addresses")
}

func TestDescriptionAsksNothing(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "REGED")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET description = 'the carrier', name = 'Other', max_channels = 3 WHERE id = $1`, id)
	var jobs int
	if err := s.look.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.jobs WHERE kind = 'switch.trunk' AND payload ->> 'revision' <> '1'`).Scan(&jobs); err != nil || jobs != 0 {
		t.Errorf("%d jobs, %v", jobs, err)
	}
	s.exec(t, `UPDATE edgvoip.sip_trunks SET port = 5098 WHERE id = $1`, id) // what comes after it has come
	s.expectGateway(t, id, "2 REGED ")
	s.expectDone(t)
	expectTold(t, sw, "remove "+id.String(), "load "+id.String())
}

// An xmlcurl that has not heard of a change yet gives the old gateway, or none.
func TestLaggingXMLCurl(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "NOREG")
	answers := []int64{1, 0}
	truth := s.revision(t)
	sw.set(func(id uuid.UUID) int64 {
		if len(answers) == 0 {
			return truth(id)
		}
		old := answers[0]
		answers = answers[1:]
		return old
	}, "NOREG")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET port = 5099 WHERE id = $1`, id)
	s.expectGateway(t, id, "2 NOREG ")
	s.expectDone(t)
	remove, load := "remove "+id.String(), "load "+id.String()
	expectTold(t, sw, remove, load, remove, load, load)
}

func TestStatesAreWrittenDown(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "REGED")
	c := s.expectConnected(t, "10.0.0.1:8021")
	tell := func(state, failure string) {
		sw.load(esl.Gateway{Trunk: id, Revision: 1, State: state, Ping: "DOWN"}) // who asks meanwhile is told the same
		c.handlers.Gateway(esl.GatewayEvent{Gateway: esl.Gateway{Trunk: id, State: state, Ping: "DOWN"}, Failure: failure})
	}
	tell("FAILED", "the carrier answered 403 Forbidden")
	tell("FAIL_WAIT", "")
	s.expectGateway(t, id, "1 FAIL_WAIT the carrier answered 403 Forbidden")
	tell("TRYING", "")
	s.expectGateway(t, id, "1 TRYING the carrier answered 403 Forbidden")
	tell("REGED", "")
	s.expectGateway(t, id, "1 REGED ")
	// A trunk that nobody knows, and one that is no trunk's, are passed over.
	c.handlers.Gateway(esl.GatewayEvent{Gateway: esl.Gateway{Trunk: uuid.New(), State: "REGED"}})
	c.handlers.Gateway(esl.GatewayEvent{Gateway: esl.Gateway{State: "REGED"}})
	tell("NOREG", "")
	s.expectGateway(t, id, "1 NOREG ")
}

// What a switch missed while it was disabled is put right when it is back: an old gateway, one too many, one too few.
func TestSwitchThatMissedJobs(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "NOREG")
	s.activate(t, false)
	second := storetest.Trunk("tenant-a", "second", 20, 5091, "+390612345600")
	storetest.SQL{TB: t, DB: s.look}.AddTrunk(second)
	s.exec(t, `UPDATE edgvoip.sip_trunks SET port = 5099 WHERE id = $1`, id)
	eventually(t, func() error {
		if s.at("10.0.0.1:8021").connected() != nil {
			return errors.New("still connected")
		}
		return nil
	})
	stranger := uuid.New()
	sw.load(esl.Gateway{Trunk: stranger, Revision: 4, State: "REGED"})
	sw.takes()
	s.activate(t, true)
	s.expectGateway(t, id, "2 NOREG ")
	s.expectGateway(t, second.ID, "1 NOREG ")
	eventually(t, func() error {
		list, err := s.expectConnected(t, "10.0.0.1:8021").ListGateways(t.Context())
		if err == nil && len(list) != 2 {
			err = fmt.Errorf("the switch has %v", list)
		}
		return err
	})
	told := sw.takes()
	if len(told) == 0 || told[0] != "read addresses" || !slices.Contains(told, "remove "+stranger.String()) || slices.Contains(told, "load "+stranger.String()) {
		t.Errorf("the switch was told %q", told)
	}
	eventually(t, func() error {
		if n := s.gauge(t, "edgvoip_node_gateways", "NOREG"); n != 2 {
			return fmt.Errorf("%v gateways shown", n)
		}
		return nil
	})
}

// A database that was set back counts anew: what a switch has from before is no newer than what is wanted now.
func TestRevisionsSetBack(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "NOREG")
	sw.load(esl.Gateway{Trunk: id, Revision: 9, State: "NOREG"})
	s.exec(t, `UPDATE edgvoip.sip_trunks SET port = 5099 WHERE id = $1`, id)
	s.expectGateway(t, id, "2 NOREG ")
	s.expectDone(t)
	expectTold(t, sw, "remove "+id.String(), "load "+id.String())
}

// activate makes the switch active or not.
func (s *site) activate(t *testing.T, active bool) {
	t.Helper()
	if _, err := s.nodes.Change(t.Context(), "fs1", node.Change{Active: &active}, "test"); err != nil {
		t.Fatal(err)
	}
}

// gauge returns the value of a metric with a label of this value.
func (s *site) gauge(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetGauge().GetValue()
				}
			}
		}
	}
	return -1
}

// A gateway that the switch is never given fails its job, which says so, and is given up only after a while.
func TestGatewayThatIsNotGiven(t *testing.T) {
	t.Parallel()
	s, sw, id := withTrunk(t, "NOREG")
	sw.set(func(uuid.UUID) int64 { return 1 }, "NOREG")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET port = 5099 WHERE id = $1`, id)
	s.expectGateway(t, id, "1 NOREG the switch was given revision 1 of the gateway, and is to have 2")
	eventually(t, func() error {
		if text := s.log.String(); !strings.Contains(text, "job failed, to be tried again") {
			return errors.New("the log does not tell of it")
		}
		return nil
	})
}
