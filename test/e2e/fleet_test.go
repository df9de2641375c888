package e2e_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestFleet is a switch that obeys: what is changed in the database, by whatever means, is so on the switch.
func TestFleet(t *testing.T) {
	s := newScene(t, sceneOptions{})
	api := s.startAPI(t)
	api.node(t, "add", "fs1", "-address", s.eslAddress(), "-password-file", api.passwordFile)
	api.expectUp(t)
	revocations(t, s, api)
	commitToRefusal(t, s, "not cached")
	nodesAtRunTime(t, s, api)
	killedSwitch(t, s, api)
}

// TestFleetOfCachingSwitches is the same with a switch that keeps users in its own cache.
func TestFleetOfCachingSwitches(t *testing.T) {
	s := newScene(t, sceneOptions{env: []string{"SWITCH_CACHES_USERS=30m"}})
	api := s.startAPI(t)
	api.node(t, "add", "fs1", "-address", s.eslAddress(), "-password-file", api.passwordFile, "-caches-users")
	api.expectUp(t)
	onlyTenant(t, s)
	cachedUsers(t, s)
	commitToRefusal(t, s, "cached")
	// Users are kept no longer when there are other tenants, but those that are stay: who is kept can claim another's
	// name.
	s.phoneA(t, "1001")
	moreTenants(t, s)
	forgeries(t, s, api)
	revocations(t, s, api)
}

// onlyTenant suspends all other tenants, and waits until the switch keeps users.
func onlyTenant(t *testing.T, s *scene) {
	t.Helper()
	s.exec(t, `UPDATE edgvoip.tenants SET status = 'suspended' WHERE slug <> $1`, tenantA)
	eventually(t, 20*time.Second, func() error {
		p := s.phoneA(t, "1003")
		asked := s.lookups.authLookups("1003")
		if p.register(t); s.lookups.authLookups("1003") != asked {
			return errors.New("the switch keeps nobody")
		}
		return nil
	})
	s.expectIdle(t)
}

// moreTenants has the others back as if they had been made just now, of which a switch is told nothing.
func moreTenants(t *testing.T, s *scene) {
	t.Helper()
	s.exec(t, `ALTER TABLE edgvoip.tenants DISABLE TRIGGER tell_switches`)
	s.exec(t, `UPDATE edgvoip.tenants SET status = 'active'`)
	s.exec(t, `ALTER TABLE edgvoip.tenants ENABLE TRIGGER tell_switches`)
	s.expectHeard(t)
}

// api is a running integration-api serve.
type api struct {
	s            *scene
	bin          string
	metrics      string // address
	passwordFile string // of the event socket
}

func (s *scene) eslAddress() string { return "127.0.0.1:" + strconv.Itoa(s.eslPort) }

func (s *scene) startAPI(t *testing.T) *api {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	a := &api{s: s, bin: bin, metrics: "127.0.0.1:" + strconv.Itoa(freePort(t)), passwordFile: filepath.Join(s.dir, "event-socket")}
	if err := os.WriteFile(a.passwordFile, []byte(eslPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(s.dir, "integration-api.log")
	env := append(slices.Clone(s.env), "API_METRICS_ADDR="+a.metrics, "API_ADDR=127.0.0.1:"+strconv.Itoa(freePort(t)), "API_DEVELOPMENT_HTTP=true", "CDR_ADDR=off")
	process := startServer(t, "integration-api", log, env, filepath.Join(bin, "integration-api"), "serve")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the API's log:\n%s", tail(log))
		}
	})
	eventually(t, 15*time.Second, func() error {
		if err := process.alive(); err != nil {
			t.Fatalf("%v\n%s", err, tail(log))
		}
		_, err := a.get(t, "/readyz")
		return err
	})
	return a
}

func (a *api) get(t *testing.T, path string) (string, error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.metrics+path, http.NoBody)
	if err != nil {
		return "", err
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", path, r.Status)
	}
	return string(b), err
}

// metric returns the value of a metric with its labels, as /metrics writes it; empty if it is not there.
func (a *api) metric(t *testing.T, name string) string {
	t.Helper()
	all, err := a.get(t, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(all, "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return value
		}
	}
	return ""
}

func (a *api) expectMetric(t *testing.T, name, want string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		if got := a.metric(t, name); got != want {
			return fmt.Errorf("%s is %q, want %q", name, got, want)
		}
		return nil
	})
}

func (a *api) expectUp(t *testing.T) {
	t.Helper()
	a.expectMetric(t, `edgvoip_node_up{node="fs1"}`, "1")
}

// node runs a command of integration-api node and returns what it printed.
func (a *api) node(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(a.bin, "integration-api"), append([]string{"node"}, args...)...)
	cmd.Env = a.s.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("node %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// expectIdle waits until the switches have done all that was asked of them.
func (s *scene) expectIdle(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		var open int
		if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.jobs WHERE state <> 'done'`).Scan(&open); err != nil {
			return err
		}
		if open > 0 {
			return fmt.Errorf("%d jobs are not done", open)
		}
		return nil
	})
}

func (s *scene) expectNotRegistered(t *testing.T, user, realm string) {
	t.Helper()
	eventually(t, 5*time.Second, func() error {
		if s.registered(user, realm) {
			return fmt.Errorf("%s@%s is registered", user, realm)
		}
		return nil
	})
}

// suspend suspends an extension of tenant A until the test ends, and returns when that was committed; xmlcurl may not have heard.
func (s *scene) suspend(t *testing.T, extension string) time.Time {
	t.Helper()
	const query = `UPDATE edgvoip.sip_extensions SET status = $1 WHERE extension = $2 AND tenant_id = (SELECT id FROM edgvoip.tenants WHERE slug = $3)`
	s.commit(t, query, []any{"suspended", extension, tenantA}, []any{"active", extension, tenantA})
	return time.Now()
}

// expectRegister registers a phone until the answer is the wanted one.
func (p *phone) expectRegister(t *testing.T, status int) {
	t.Helper()
	p.registerUntil(t, status)
}

// expectRefusal registers a phone until it is refused, and returns when it sent what was refused, and when it was told.
func (p *phone) expectRefusal(t *testing.T) (begun, refused time.Time) {
	t.Helper()
	return p.registerUntil(t, 403), time.Now()
}

func (p *phone) registerUntil(t *testing.T, status int) (begun time.Time) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		begun = time.Now()
		r := p.register(t)
		if r.status() == status {
			return begun
		}
		if time.Now().After(deadline) {
			t.Fatalf("registration answered %q, want %d", r.start, status)
		}
	}
}

// note adds a line to what is printed at the end.
func note(format string, args ...any) {
	results.mu.Lock()
	defer results.mu.Unlock()
	results.lines = append(results.lines, "      "+fmt.Sprintf(format, args...))
}

func revocations(t *testing.T, s *scene, api *api) {
	t.Helper()
	t.Run("a suspended extension loses its registrations and gets no new one", func(t *testing.T) {
		s.begin(t)
		plain := newPhone(t, s.internal, user("1003", realmA))
		plain.expectRegister(t, 200)
		s.phoneA(t, "1004")
		s.expectRegistered(t, "1003", realmA)
		s.expectRegistered(t, "1004", realmA)
		committed := s.suspend(t, "1003")
		s.expectNotRegistered(t, "1003", realmA)
		note("its registration was gone after %v", time.Since(committed).Round(time.Millisecond))
		plain.expectRegister(t, 403)
		s.expectIdle(t)
		s.expectNotRegistered(t, "1003", realmA)
		if !s.registered("1004", realmA) {
			t.Error("another extension lost its registration")
		}
	})
	t.Run("every kind of device loses its registration with a new password", func(t *testing.T) {
		s.begin(t)
		newPhone(t, s.tls, user("1005", realmA), over("TLS")).registered(t)
		s.phoneA(t, "1005")
		s.expectRegistered(t, "1005", realmA)
		before, _ := s.sealed(t, tenantA, realmA, "1005", "pw1005")
		md5, _ := s.sealed(t, tenantA, realmA, "1005", "another-password")
		const where = " WHERE extension = '1005' AND tenant_id = (SELECT id FROM edgvoip.tenants WHERE slug = $2)"
		s.change(t, "UPDATE edgvoip.sip_extensions SET ha1_md5_sealed = $1"+where, []any{md5, tenantA}, []any{before, tenantA})
		for _, stored := range []string{"1005", "1005~tls"} {
			s.expectNotRegistered(t, stored, realmA)
		}
		s.expectIdle(t)
	})
	t.Run("a disabled domain loses its registrations, and no other does", func(t *testing.T) {
		s.begin(t)
		s.phoneA(t, "1001")
		s.phoneA(t, "1002")
		newPhone(t, s.internal, user("1001", realmB)).registered(t)
		s.expectRegistered(t, "1002", realmA)
		s.expectRegistered(t, "1001", realmB)
		const query = `UPDATE edgvoip.sip_domains SET status = $2 WHERE realm = $1`
		s.change(t, query, []any{realmA, "disabled"}, []any{realmA, "active"})
		s.expectNotRegistered(t, "1001", realmA)
		s.expectNotRegistered(t, "1002", realmA)
		s.expectIdle(t)
		if !s.registered("1001", realmB) {
			t.Error("a phone of another domain lost its registration")
		}
	})
	api.expectMetric(t, `edgvoip_node_jobs_dead{node="fs1"}`, "0")
}

// commitToRefusal measures how long after its suspension was committed an extension is still let in, and when it is
// told that it is not. The two differ: over one REGISTER in a thousand the switch's SIP stack sleeps for up to a second
// (sofia.c, su_root_step), whoever sends it, with nothing changed and nobody connected to the event socket.
func commitToRefusal(t *testing.T, s *scene, how string) {
	t.Helper()
	const tries = 200
	t.Run("from commit to refusal, "+how, func(t *testing.T) {
		s.begin(t)
		p := newPhone(t, s.internal, user("1000", realmA))
		s.set(t, "1000", "status", "active") // again when the test ends, however it does
		const query = `UPDATE edgvoip.sip_extensions SET status = $1 WHERE extension = '1000' AND tenant_id = (SELECT id FROM edgvoip.tenants WHERE slug = $2)`
		letIn, took := make([]time.Duration, tries), make([]time.Duration, tries)
		for i := range took {
			p.expectRegister(t, 200)
			s.exec(t, query, "suspended", tenantA)
			committed := time.Now()
			begun, refused := p.expectRefusal(t)
			letIn[i], took[i] = begun.Sub(committed), refused.Sub(committed)
			s.exec(t, query, "active", tenantA)
		}
		for what, list := range map[string][]time.Duration{"let in for": letIn, "refused after": took} {
			slices.Sort(list)
			note("%d tries, %s, %s: p50 %v, p99 %v, worst %v", tries, how, what, list[tries/2].Round(100*time.Microsecond),
				list[tries*99/100].Round(100*time.Microsecond), list[tries-1].Round(100*time.Microsecond))
		}
		s.expectIdle(t)
	})
}

func nodesAtRunTime(t *testing.T, s *scene, api *api) {
	t.Helper()
	t.Run("switches come and go while the API runs", func(t *testing.T) {
		s.begin(t)
		if out := api.node(t, "status"); !strings.Contains(out, "fs1   up ") {
			t.Errorf("status:\n%s", out)
		}
		api.node(t, "disable", "fs1")
		api.expectMetric(t, `edgvoip_node_up{node="fs1"}`, "")
		// What is asked of it while it is disabled waits until it is back.
		phone := newPhone(t, s.internal, user("1003", realmA))
		phone.expectRegister(t, 200)
		s.expectRegistered(t, "1003", realmA)
		s.suspend(t, "1003")
		phone.expectRegister(t, 403)
		if !s.registered("1003", realmA) {
			t.Error("the switch was told while it was disabled")
		}
		api.node(t, "enable", "fs1")
		s.expectNotRegistered(t, "1003", realmA)
		s.expectIdle(t)
		api.node(t, "remove", "fs1")
		api.expectMetric(t, `edgvoip_node_up{node="fs1"}`, "")
		api.node(t, "add", "fs1", "-address", s.eslAddress(), "-password-file", api.passwordFile)
		api.expectUp(t)
	})
}

func killedSwitch(t *testing.T, s *scene, api *api) {
	t.Helper()
	suite := t // the new switch outlives its case
	t.Run("a switch that was killed does what it missed when it is back", func(t *testing.T) {
		s.begin(t)
		for _, number := range []string{"1003", "1004"} {
			newPhone(t, s.internal, user(number, realmA)).expectRegister(t, 200)
			s.expectRegistered(t, number, realmA)
		}
		s.esl.close()
		s.esl = nil
		if err := s.freeswitch.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-s.freeswitch.done
		api.expectMetric(t, `edgvoip_node_up{node="fs1"}`, "0")
		s.suspend(t, "1003")
		api.expectMetric(t, `edgvoip_node_jobs_pending{node="fs1"}`, "1")
		if out := api.node(t, "status"); !strings.Contains(out, "fs1   down ") {
			t.Errorf("status:\n%s", out)
		}
		s.startFreeSWITCH(suite)
		s.expectIdle(t)
		// Registrations of phones on UDP outlive the switch, in its database.
		s.expectRegistered(t, "1004", realmA)
		s.expectNotRegistered(t, "1003", realmA)
		api.expectUp(t)
	})
}

// authLookups counts how often the switch asked about a user of tenant A who presented credentials.
func (r *recorder) authLookups(user string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.all {
		if strings.Contains(l.form, "&action=sip_auth&") && strings.Contains(l.form, "&sip_auth_username="+user+"&") {
			n++
		}
	}
	return n
}

func cachedUsers(t *testing.T, s *scene) {
	t.Helper()
	t.Run("a change flushes the user that it changes, and no other", func(t *testing.T) {
		s.begin(t)
		changed, other := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		asked := func() [2]int { return [2]int{s.lookups.authLookups("1001"), s.lookups.authLookups("1002")} }
		expect := func(want [2]int) {
			t.Helper()
			for _, p := range []*phone{changed, other} {
				if r := p.register(t); r.status() != 200 {
					t.Fatalf("registration answered %q", r.start)
				}
			}
			if got := asked(); got != want {
				t.Errorf("the switch asked %v times, want %v", got, want)
			}
		}
		before := asked()
		expect(before) // from its cache
		s.set(t, "1001", "display_name", "Renamed")
		s.expectIdle(t)
		before[0]++
		expect(before)
		expect(before)
	})
}

// forgeries are registrations that the switch accepts because it does not ask.
func forgeries(t *testing.T, s *scene, api *api) {
	t.Helper()
	t.Run("a registration of another's address is dropped and counted", func(t *testing.T) {
		s.begin(t)
		s.expectIdle(t) // or the attacker's own account would be flushed once more, and the switch ask
		attacker := s.phoneA(t, "1001")
		victim := newPhone(t, s.internal, user("1002", realmB)).registered(t)
		for i, callID := range []string{token(), "1002@" + realmB, "@" + realmB, realmB} {
			forger := newPhone(t, s.internal, attacker.login)
			forger.callID = callID
			claim := forger.login
			claim.claimedRealm = realmA
			r := forger.register(t, func(r *request) {
				r.uri, r.from, r.to, r.login = "sip:"+realmB, "<sip:1001@"+realmB+">", "<sip:1001@"+realmB+">", &claim
			})
			if r.status() != 200 {
				t.Fatalf("the switch refused it by itself (%q): this test shows nothing", r.start)
			}
			api.expectMetric(t, `edgvoip_registrations_dropped_total{node="fs1",reason="foreign_address"}`, strconv.Itoa(i+1))
			s.expectNotRegistered(t, "1001", realmB)
			if !s.registered("1001", realmA) || !s.registered("1002", realmB) {
				t.Fatal("an honest phone lost its registration")
			}
		}
		s.expectIdle(t)
		if r := victim.register(t); r.status() != 200 {
			t.Errorf("the victim's registration answered %q", r.start)
		}
		log, err := os.ReadFile(filepath.Join(s.dir, "integration-api.log"))
		if err == nil && !strings.Contains(string(log), "registration dropped") {
			err = errors.New("the API's log does not tell of it")
		}
		if err != nil {
			t.Error(err)
		}
		var subjects int
		if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.jobs WHERE kind = 'switch.drop_registration' AND state = 'done' AND tenant_id <> $1`,
			uuid.Nil).Scan(&subjects); err != nil || subjects < 4 {
			t.Errorf("%d jobs tell of it, %v", subjects, err)
		}
	})
}
