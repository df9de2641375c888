package fleet_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fleet"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/internal/testlog"
	"github.com/edgvoip/edgvoip/node"
)

// site is a database with the scene of package storetest and a fleet of switches that only write down what they are told.
type site struct {
	db       *postgres.DB
	look     *sql.DB
	nodes    *node.Provisioner
	registry *prometheus.Registry
	log      *testlog.Lines
	options  fleet.Options

	mu       sync.Mutex
	switches map[string]*fakeSwitch // by address
}

func newSite(t *testing.T) *site {
	t.Helper()
	dsn := testdb.New(t)
	look, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{look: look, registry: prometheus.NewRegistry(), log: &testlog.Lines{}, switches: map[string]*fakeSwitch{}}
	log := slog.New(slog.NewJSONHandler(io.MultiWriter(s.log, t.Output()), nil))
	if s.db, err = postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_api", StatementTimeout: 5 * time.Second}, log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.db.Close(), look.Close()); err != nil {
			t.Error(err)
		}
	})
	s.nodes = node.NewProvisioner(s.db, storetest.Keys())
	s.options = fleet.Options{
		Store: s.db, Directory: s.db, Keys: storetest.Keys(), Connect: s.connect, Settle: 10 * time.Millisecond, Registry: s.registry, Log: log,
	}
	s.exec(t, `INSERT INTO edgvoip.tenants (id, slug, name, country) VALUES ($1, 'tenant-a', 'A', 'IT'), ($2, 'tenant-b', 'B', 'IT')`,
		storetest.TenantID("tenant-a"), storetest.TenantID("tenant-b"))
	for tenant, numbers := range map[string][]string{"tenant-a": {"1001", "1002", "1003"}, "tenant-b": {"1001"}} {
		realm := tenant + ".example"
		s.exec(t, `INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) VALUES ($1, $2, $3)`, storetest.TenantID(tenant), storetest.DomainID(realm), realm)
		for _, number := range numbers {
			username := number
			if number == "1003" {
				username = "Anna.Rossi"
			}
			s.addExtension(t, storetest.Extension(tenant, realm, number, username))
		}
	}
	return s
}

func (s *site) addExtension(t *testing.T, e directory.Extension) {
	t.Helper()
	s.exec(t, `INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
		VALUES ($1, $2, $3, $4, $5, $6, '$argon2id$none', $7, $8, $9)`,
		e.TenantID, e.ID, e.DomainID, e.Number.String(), e.Username.String(), e.Name.String(), e.HA1MD5.Data, e.HA1SHA256.Data, e.HA1MD5.KeyID)
}

func (s *site) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := s.look.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// run starts the fleet, which ends with the test or when stop is called.
func (s *site) run(t *testing.T) (stop func()) {
	t.Helper()
	f := fleet.New(s.options)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return stop
}

// put adds a switch or changes it.
func (s *site) put(t *testing.T, name, address string, caches bool) {
	t.Helper()
	if _, err := s.nodes.Put(t.Context(), node.Spec{Name: name, Address: address, Password: "event-socket", CachesUsers: caches}, "test"); err != nil {
		t.Fatal(err)
	}
}

// at returns the switch at an address, which is there from the first time that anybody asks for it.
func (s *site) at(address string) *fakeSwitch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.switches[address] == nil {
		s.switches[address] = &fakeSwitch{reach: make(chan struct{})}
		close(s.switches[address].reach)
	}
	return s.switches[address]
}

func (s *site) connect(n node.Node, password string, h fleet.Handlers) (fleet.Switch, error) {
	if password != "event-socket" {
		return nil, errors.New("wrong password")
	}
	return &connection{to: s.at(n.Address), handlers: h}, nil
}

// fakeSwitch writes down what it is told to do.
type fakeSwitch struct {
	mu      sync.Mutex
	reach   chan struct{} // closed while the switch is there
	told    []string
	kept    atomic.Int64 // entries in its cache
	answer  func(command string) error
	phones  []esl.Registration
	current *connection
	lines   carriers
}

func (f *fakeSwitch) away() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reach = make(chan struct{})
}

func (f *fakeSwitch) back() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.reach)
}

// answers sets how the switch answers commands.
func (f *fakeSwitch) answers(answer func(command string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func (f *fakeSwitch) registers(phones ...esl.Registration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phones = append(f.phones, phones...)
}

// takes returns what the switch was told since the last time.
func (f *fakeSwitch) takes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	told := f.told
	f.told = nil
	return told
}

func (f *fakeSwitch) connected() *connection {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current
}

// connection is a fleet.Switch.
type connection struct {
	to       *fakeSwitch
	handlers fleet.Handlers
	mu       sync.Mutex
	up       bool
}

func (c *connection) Run(ctx context.Context) error {
	c.to.mu.Lock()
	reach := c.to.reach
	c.to.mu.Unlock()
	select {
	case <-ctx.Done():
		return nil
	case <-reach:
	}
	c.set(true)
	defer c.set(false)
	if err := c.handlers.Connected(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (c *connection) set(up bool) {
	c.mu.Lock()
	c.up = up
	c.mu.Unlock()
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	if up {
		c.to.current = c
	} else if c.to.current == c {
		c.to.current = nil
	}
}

func (c *connection) Up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

func (c *connection) tell(format string, args ...any) error {
	if !c.Up() {
		return esl.ErrDown
	}
	command := fmt.Sprintf(format, args...)
	c.to.mu.Lock()
	c.to.told = append(c.to.told, command)
	answer := c.to.answer
	c.to.mu.Unlock()
	if answer != nil {
		return answer(command)
	}
	return nil
}

func (c *connection) FlushUser(_ context.Context, realm, user string) error {
	return c.tell("forget %s@%s", user, realm)
}

func (c *connection) FlushUsers(context.Context) error { return c.tell("forget everybody") }

func (c *connection) EmptyCache(context.Context) (int, error) {
	if !c.Up() {
		return 0, esl.ErrDown
	}
	return int(c.to.kept.Swap(0)), nil
}

func (c *connection) FlushRegistration(_ context.Context, profile, user, realm string) error {
	return c.tell("drop %s@%s on %s", user, realm, profile)
}

func (c *connection) FlushRegistrations(_ context.Context, profile, realm string) error {
	return c.tell("drop @%s on %s", realm, profile)
}

func (c *connection) Registrations(context.Context) (int, error) { return 7, nil }

func (c *connection) ListRegistrations(context.Context, string) ([]esl.Registration, error) {
	c.to.mu.Lock()
	defer c.to.mu.Unlock()
	return slices.Clone(c.to.phones), nil
}

// eventually waits until something is true.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// expectState waits until a switch is so far with a subject.
func (s *site) expectState(t *testing.T, subject string, want ...string) {
	t.Helper()
	eventually(t, func() error {
		progress, err := s.db.Convergence(t.Context(), storetest.TenantID("tenant-a"), subject)
		if err != nil {
			return err
		}
		var got []string
		for _, p := range progress {
			got = append(got, p.Node+" "+string(p.State))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func (s *site) expectConnected(t *testing.T, address string) *connection {
	t.Helper()
	eventually(t, func() error {
		if s.at(address).connected() == nil {
			return errors.New("not connected to " + address)
		}
		return nil
	})
	return s.at(address).connected()
}

func (s *site) suspend(t *testing.T, number string) (subject string) {
	t.Helper()
	id := storetest.ExtensionID("tenant-a.example", number)
	s.exec(t, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE id = $1`, id)
	return id.String()
}

// What a change asks of a switch, in this order.
func TestObey(t *testing.T) {
	t.Parallel()
	const anna = "UPDATE edgvoip.sip_extensions SET %s WHERE extension = '1003'"
	forgetAnna := []string{"forget 1003@tenant-a.example", "forget Anna.Rossi@tenant-a.example", "forget anna.rossi@tenant-a.example"}
	dropAnna := []string{
		"drop 1003@tenant-a.example on internal", "drop 1003~tls@tenant-a.example on internal", "drop 1003~wss@tenant-a.example on internal",
	}
	domain := []string{"forget everybody", "drop @tenant-a.example on internal"}
	for name, tc := range map[string]struct {
		change string
		caches bool
		want   []string
		again  []string // a little later
	}{
		"suspended":            {change: fmt.Sprintf(anna, "status = 'suspended'"), want: slices.Concat(forgetAnna, dropAnna)},
		"suspended, cached":    {change: fmt.Sprintf(anna, "status = 'suspended'"), caches: true, want: slices.Concat(forgetAnna, dropAnna), again: forgetAnna},
		"renamed":              {change: fmt.Sprintf(anna, "display_name = 'x'")},
		"renamed, cached":      {change: fmt.Sprintf(anna, "display_name = 'x'"), caches: true, want: forgetAnna, again: forgetAnna},
		"deleted":              {change: fmt.Sprintf(anna, "status = 'deleted'"), want: slices.Concat(forgetAnna, dropAnna)},
		"new username":         {change: fmt.Sprintf(anna, "sip_username = 'rossi'"), want: slices.Concat(forgetAnna, dropAnna)},
		"domain off":           {change: "UPDATE edgvoip.sip_domains SET status = 'disabled' WHERE realm = 'tenant-a.example'", want: domain},
		"tenant off, cached":   {change: "UPDATE edgvoip.tenants SET status = 'suspended' WHERE slug = 'tenant-a'", caches: true, want: domain, again: domain[:1]},
		"tenant's name, cache": {change: "UPDATE edgvoip.tenants SET name = 'x' WHERE slug = 'tenant-a'", caches: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.put(t, "fs1", "fs1:8021", tc.caches)
			s.run(t)
			s.expectConnected(t, "fs1:8021")
			eventually(t, func() error { // by then it has said what it says to each connection
				if tc.caches && len(s.at("fs1:8021").takes()) == 0 {
					return errors.New("a switch that caches was not told to forget everybody at first")
				}
				return nil
			})
			s.exec(t, tc.change)
			var told []string
			eventually(t, func() error {
				told = append(told, s.at("fs1:8021").takes()...)
				if len(told) < len(tc.want)+2*len(tc.again) {
					return fmt.Errorf("told only %q", told)
				}
				return s.idle(t)
			})
			// How often a switch that caches is told to forget is a matter of time; nothing else may come.
			want := tc.want
			for _, command := range told {
				if len(want) > 0 && command == want[0] {
					want = want[1:]
				} else if !slices.Contains(tc.again, command) {
					t.Errorf("told %q besides", command)
				}
			}
			if len(want) > 0 || len(tc.want) > 0 && told[0] != tc.want[0] {
				t.Errorf("told %q, want %q in this order", told, tc.want)
			}
		})
	}
}

// idle tells whether all jobs are done.
func (s *site) idle(t *testing.T) error {
	t.Helper()
	jobs, err := s.db.Jobs(t.Context(), node.Filter{})
	if err == nil && len(jobs) > 0 {
		err = fmt.Errorf("not done: %+v", jobs)
	}
	return err
}

// A switch that is away, and one that does not answer, delay nobody else. What they have to do waits for them.
func TestDeadSwitchDelaysNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, name := range []string{"away", "live", "stuck"} {
		s.put(t, name, name+":8021", false)
	}
	s.at("away:8021").away()
	release := make(chan struct{})
	s.at("stuck:8021").answers(func(string) error {
		<-release
		return esl.ErrLost
	})
	s.run(t)
	s.expectConnected(t, "live:8021")
	s.expectConnected(t, "stuck:8021")
	var subjects []string
	for _, number := range []string{"1001", "1002", "1003"} {
		subjects = append(subjects, s.suspend(t, number))
	}
	for _, subject := range subjects {
		s.expectState(t, subject, "away pending", "live done", "stuck pending")
	}
	s.at("stuck:8021").answers(nil)
	close(release)
	s.at("away:8021").back()
	for _, subject := range subjects {
		s.expectState(t, subject, "away done", "live done", "stuck done")
	}
	eventually(t, func() error {
		return testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP edgvoip_node_up Whether there is a connection to the event socket of the switch.
# TYPE edgvoip_node_up gauge
edgvoip_node_up{node="away"} 1
edgvoip_node_up{node="live"} 1
edgvoip_node_up{node="stuck"} 1
# HELP edgvoip_node_jobs_pending Jobs that the switch has not done yet.
# TYPE edgvoip_node_jobs_pending gauge
edgvoip_node_jobs_pending{node="away"} 0
edgvoip_node_jobs_pending{node="live"} 0
edgvoip_node_jobs_pending{node="stuck"} 0
`), "edgvoip_node_up", "edgvoip_node_jobs_pending")
	})
}

// A job that fails is tried again; one that cannot be read is given up and harms no other.
func TestFailingJobs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	failures := 2
	s.at("fs1:8021").answers(func(command string) error {
		if strings.HasPrefix(command, "drop") && failures > 0 {
			failures--
			return &esl.CommandError{Command: "sofia", Reply: "Invalid Profile [internal]"}
		}
		return nil
	})
	s.run(t)
	s.expectConnected(t, "fs1:8021")
	s.exec(t, `INSERT INTO edgvoip.jobs (tenant_id, node_id, kind, subject, payload) SELECT $1, id, 'switch.dance', 'x', '{}' FROM edgvoip.switch_nodes`, storetest.TenantID("tenant-a"))
	subject := s.suspend(t, "1001")
	s.expectState(t, subject, "fs1 done")
	s.expectState(t, "x", "fs1 dead")
	dead, err := s.db.Jobs(t.Context(), node.Filter{States: []node.State{node.Dead}})
	if err != nil || len(dead) != 1 || !strings.Contains(dead[0].LastError, "cannot be read") {
		t.Errorf("%+v, %v", dead, err)
	}
	done, err := s.db.Jobs(t.Context(), node.Filter{States: []node.State{node.Done}})
	if err != nil || len(done) != 1 || done[0].Attempts != 3 {
		t.Errorf("%+v, %v", done, err)
	}
	if err := testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP edgvoip_node_jobs_total Jobs that were tried, by outcome: done, retried (it failed, and is tried again later), dead (given up).
# TYPE edgvoip_node_jobs_total counter
edgvoip_node_jobs_total{kind="switch.user",node="fs1",outcome="done"} 1
edgvoip_node_jobs_total{kind="switch.user",node="fs1",outcome="retried"} 2
edgvoip_node_jobs_total{kind="unknown",node="fs1",outcome="dead"} 1
`), "edgvoip_node_jobs_total"); err != nil {
		t.Error(err)
	}
}

func TestGivenUpInTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	s.at("fs1:8021").answers(func(string) error { return &esl.CommandError{Command: "sofia", Reply: "no"} })
	subject := s.suspend(t, "1001")
	s.exec(t, `UPDATE edgvoip.jobs SET attempts = $1`, fleet.MaxAttempts-1)
	s.run(t)
	s.expectState(t, subject, "fs1 dead")
	s.at("fs1:8021").answers(nil)
	if n, err := s.db.ReplayJobs(t.Context(), "fs1", nil, "test"); n != 1 || err != nil {
		t.Error(n, err)
	}
	s.expectState(t, subject, "fs1 done")
}

// A command that a switch never answers is a failure of its job, which makes way for the others and is given up in the end.
// One that was not even sent is not.
func TestNoReply(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	sent := false
	s.at("fs1:8021").answers(func(command string) error {
		switch {
		case strings.HasPrefix(command, "drop 1001@"):
			return esl.ErrLost
		case strings.HasPrefix(command, "drop 1002@") && !sent:
			sent = true
			return esl.ErrDown
		default:
			return nil
		}
	})
	lost, unsent, behind := s.suspend(t, "1001"), s.suspend(t, "1002"), s.suspend(t, "1003")
	s.exec(t, `UPDATE edgvoip.jobs SET attempts = $1`, fleet.MaxAttempts-2)
	s.exec(t, `UPDATE edgvoip.jobs SET attempts = $1 WHERE subject = $2`, fleet.MaxAttempts-1, unsent)
	s.run(t)
	s.expectState(t, behind, "fs1 done")
	s.expectState(t, unsent, "fs1 done")
	s.exec(t, `UPDATE edgvoip.jobs SET run_at = now() WHERE subject = $1`, lost)
	s.expectState(t, lost, "fs1 dead")
}

// interrupted is a store that is sometimes away when a job is claimed.
type interrupted struct {
	fleet.Store
	away atomic.Bool
}

func (i *interrupted) ClaimJob(ctx context.Context, nodeID uuid.UUID, lease time.Duration) (node.Job, error) {
	if i.away.Load() {
		return node.Job{}, errors.New("the store is away")
	}
	return i.Store.ClaimJob(ctx, nodeID, lease)
}

// Each outage of the store is told of, also when there is no job between them.
func TestOutages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	store := &interrupted{Store: s.db}
	s.options.Store = store
	s.put(t, "fs1", "fs1:8021", false)
	s.run(t)
	s.expectConnected(t, "fs1:8021")
	for i := range 2 {
		store.away.Store(true)
		s.expectLogged(t, "out of order", "jobs cannot be claimed", i+1)
		store.away.Store(false)
		s.expectLogged(t, "in order again", "jobs cannot be claimed", i+1)
	}
}

// expectLogged waits until the log says so many times that something is so.
func (s *site) expectLogged(t *testing.T, message, what string, times int) {
	t.Helper()
	eventually(t, func() error {
		n := strings.Count(s.log.String(), fmt.Sprintf(`"msg":%q,"component":"fleet","node":"fs1","what":%q`, message, what))
		if n != times {
			return fmt.Errorf("%s: %d times %q", what, n, message)
		}
		return nil
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for attempts := range 100 {
		if d := fleet.Backoff(attempts); d <= 0 || d > 5*time.Minute+time.Millisecond || attempts < 2 && d > 501*time.Millisecond {
			t.Errorf("after %d attempts: %v", attempts, d)
		}
	}
}

// Switches come, change and go while the fleet runs.
func TestNodesAtRunTime(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.run(t)
	s.put(t, "fs1", "fs1:8021", false)
	s.expectConnected(t, "fs1:8021")
	gone := func(address string) {
		t.Helper()
		eventually(t, func() error {
			if s.at(address).connected() != nil {
				return errors.New("still connected to " + address)
			}
			return nil
		})
	}
	s.put(t, "fs1", "fs2:8021", false)
	s.expectConnected(t, "fs2:8021")
	gone("fs1:8021")
	on, off := true, false
	if _, err := s.nodes.Change(t.Context(), "fs1", node.Change{Active: &off}, "test"); err != nil {
		t.Fatal(err)
	}
	gone("fs2:8021")
	subject := s.suspend(t, "1001")
	if _, err := s.nodes.Change(t.Context(), "fs1", node.Change{Active: &on}, "test"); err != nil {
		t.Fatal(err)
	}
	s.expectConnected(t, "fs2:8021")
	s.expectState(t, subject, "fs1 done")
	if err := s.nodes.Remove(t.Context(), "fs1", false, "test"); err != nil {
		t.Fatal(err)
	}
	gone("fs2:8021")
	eventually(t, func() error {
		n, err := testutil.GatherAndCount(s.registry, "edgvoip_node_up", "edgvoip_node_jobs_pending", "edgvoip_node_registrations")
		if err == nil && n > 0 {
			err = fmt.Errorf("%d metrics of a switch that is gone", n)
		}
		return err
	})
}

// A row that cannot be used is reported, and used when it is mended.
func TestSealedWithAnotherKey(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	s.exec(t, `UPDATE edgvoip.switch_nodes SET password_key_id = 'lost'`)
	s.run(t)
	eventually(t, func() error {
		if !strings.Contains(s.log.String(), "not on the ring") {
			return errors.New("nothing in the log")
		}
		return nil
	})
	s.put(t, "fs1", "fs1:8021", false)
	s.expectConnected(t, "fs1:8021")
	if strings.Contains(s.log.String(), "event-socket") {
		t.Error("the log shows the password")
	}
}

// What is under way when the process ends is given back, not left to its lease.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	begun, release := make(chan struct{}), make(chan struct{})
	s.at("fs1:8021").answers(func(string) error {
		close(begun)
		<-release
		return esl.ErrLost
	})
	stop := s.run(t)
	s.expectConnected(t, "fs1:8021")
	subject := s.suspend(t, "1001")
	<-begun
	close(release)
	stop()
	jobs, err := s.db.Jobs(t.Context(), node.Filter{})
	if err != nil || len(jobs) != 1 || jobs[0].State != node.Pending || time.Until(jobs[0].DueAt) > time.Second {
		t.Errorf("%+v, %v", jobs, err)
	}
	s.at("fs1:8021").answers(nil)
	s.run2(t)
	s.expectState(t, subject, "fs1 done")
}

// run2 starts another process on the same site.
func (s *site) run2(t *testing.T) {
	t.Helper()
	s.options.Registry = prometheus.NewRegistry()
	s.run(t)
}

// flaky is a directory that fails for a while.
type flaky struct {
	fleet.Directory

	mu       sync.Mutex
	failures int
}

func (f *flaky) Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failures > 0 {
		f.failures--
		return directory.Domain{}, directory.Extension{}, errors.New("the store is away")
	}
	return f.Directory.Extension(ctx, realm, name)
}
