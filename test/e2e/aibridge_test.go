package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// alone is how long a caller may hear nobody, after whatever has gone wrong.
const alone = 3 * time.Second

// toRecognise is how long a tone must last before it is recognised, so that it began that long ago.
const toRecognise = 200 * time.Millisecond

// agentHz is the tone of agents. Everybody else plays another one, so that it can be told who hears whom.
const agentHz = 440

// TestAIBridge is calls to AI agents through a real ai-bridge, with a voice gateway that can go wrong in every way.
func TestAIBridge(t *testing.T) {
	ledger := newLedger(t)
	a := startAgents(t, ledger)
	conversation(t, a)
	changedBySwitch(t, a)
	gatewayFaults(t, a)
	agentRecords(t, a, ledger)
	randomFaults(t, a)
	t.Run("the switch's log shows no document that it could not use", func(t *testing.T) {
		a.begin(t)
		a.expectCleanLog(t, 0)
	})
	lostWhileRinging(t, a)
	killed(t, a)
}

// agents is a scene with an ai-bridge. Tenant A's gateway is in this process and does as it is told; tenant B's is a
// process of its own, which can be killed.
type agents struct {
	*scene
	addr     string // of ai-bridge, for SIP
	metrics  string
	gateway  *mockgateway.Gateway
	env      []string // of ai-bridge
	bridge   *process
	gatewayB *process

	mu     sync.Mutex
	faults map[string]mockgateway.Fault // by the caller's number
	calls  map[string]string            // ids, by the caller's number
}

// didA and didB are numbers of the tenants' first trunks.
const didA, didB = "0612345678", "0612345778"

func startAgents(t *testing.T, l *ledger) *agents {
	t.Helper()
	port := freePort(t)
	a := &agents{metrics: "127.0.0.1:" + strconv.Itoa(freePort(t)), faults: map[string]mockgateway.Fault{}, calls: map[string]string{}}
	addr := "127.0.0.1:" + strconv.Itoa(port)
	a.addr = addr
	a.scene = newScene(t, sceneOptions{
		env:     []string{"AI_BRIDGE_ADDR=" + addr},
		prepare: func(_ *testing.T, s *scene) { s.records = l.url },
	})
	// So that callers find no limit but the one that is looked at.
	a.exec(t, "UPDATE edgvoip.sip_trunks SET ai_agent_ref = 'reception'")
	a.exec(t, "UPDATE edgvoip.sip_extensions SET max_concurrent_calls = 50")
	a.expectHeard(t)
	a.startGatewayA(t)
	a.startGatewayB(t)
	a.env = append(slices.Clone(a.scene.env), "DATABASE_URL="+a.login(t, "edgvoip_ai_bridge"), "AI_BRIDGE_SIP_ADDR="+addr, "AI_BRIDGE_METRICS_ADDR="+a.metrics,
		"AI_ALLOW_NETWORKS=127.0.0.0/8", "AI_CA_FILE="+filepath.Join(a.dir, "tls", "cafile.pem"), "AI_DRAIN_TIMEOUT=1s")
	a.startBridge(t)
	return a
}

// secretOf gives a tenant credentials and returns what W3 and we sign with.
func (a *agents) secretOf(t *testing.T, tenant string) string {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "integration-api"), "secret", "add", tenant)
	cmd.Env = a.scene.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("secret add: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name == "HMAC_SECRET" {
			return value
		}
	}
	t.Fatal("secret add shows no HMAC_SECRET")
	return ""
}

func (a *agents) endpoint(t *testing.T, tenant, url string) {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	a.run(t, bin, "webhook", "set", tenant, url)
}

// certificate is the scene's, and its key.
func (a *agents) certificate() string { return filepath.Join(a.dir, "tls", "agent.pem") }

func (a *agents) startGatewayA(t *testing.T) {
	t.Helper()
	var err error
	a.gateway, err = mockgateway.New(mockgateway.Options{
		Secret: a.secretOf(t, tenantA), Hz: agentHz, Loopback: true, Choose: a.choose, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.LoadX509KeyPair(a.certificate(), a.certificate())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(a.gateway)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(func() {
		a.gateway.Close()
		server.CloseClientConnections()
		server.Close()
	})
	a.endpoint(t, tenantA, server.URL)
}

func (a *agents) startGatewayB(t *testing.T) {
	t.Helper()
	program, secret := filepath.Join(a.dir, "mockgateway"), filepath.Join(a.dir, "secret-b")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../mockgateway/cmd/mockgateway").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := os.WriteFile(secret, []byte(a.secretOf(t, tenantB)), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + strconv.Itoa(freePort(t))
	a.gatewayB = startServer(t, "mockgateway", filepath.Join(a.dir, "mockgateway.log"), os.Environ(), program,
		"-addr", addr, "-secret", secret, "-cert", a.certificate(), "-key", a.certificate(), "-hz", strconv.Itoa(agentHz), "-loopback")
	a.endpoint(t, tenantB, "https://"+addr)
}

// startBridge starts ai-bridge, the first time or after it was killed.
func (a *agents) startBridge(t *testing.T) {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(a.dir, "ai-bridge.log")
	a.bridge = startServer(t, "ai-bridge", log, a.env, filepath.Join(bin, "ai-bridge"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of ai-bridge's log:\n%s", tail(log))
		}
	})
	eventually(t, 15*time.Second, func() error {
		if err := a.bridge.alive(); err != nil {
			t.Fatalf("%v\n%s", err, tail(log))
		}
		_, err := a.operators(t, "/readyz")
		return err
	})
}

// operators asks ai-bridge what operators ask.
func (a *agents) operators(t *testing.T, path string) (string, error) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.metrics+path, nil)
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

// choose is how a caller's next call goes wrong.
func (a *agents) choose(r mockgateway.Request) mockgateway.Fault {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls[r.CallerNumber] = r.CallID
	return a.faults[r.CallerNumber]
}

// caller is a carrier's phone, with the number of somebody.
type caller struct {
	*phone
	number string
}

// caller opens the phone of the n-th caller. His tone is his own.
func (a *agents) caller(t *testing.T, n int) caller {
	t.Helper()
	p := newPhone(t, a.external, login{}, withCodecs(pcmu, events), playing(float64(1000+50*n)))
	return caller{p, "+39333" + strconv.Itoa(1000000+n)}
}

// call calls a DID; the gateway of tenant A goes wrong as it is told.
func (a *agents) call(t *testing.T, from caller, did string, f mockgateway.Fault) *call {
	t.Helper()
	a.mu.Lock()
	a.faults[from.number] = f
	delete(a.calls, from.number)
	a.mu.Unlock()
	return from.dial(t, did, func(r *request) { r.from = "<sip:" + from.number + "@127.0.0.1>" })
}

// session returns the agent's side of a caller's call to tenant A; false if the gateway was not asked.
func (a *agents) session(ctx context.Context, from caller) (*mockgateway.Session, bool) {
	a.mu.Lock()
	id, asked := a.calls[from.number]
	a.mu.Unlock()
	if !asked {
		return nil, false
	}
	ctx, cancel := context.WithTimeout(ctx, alone)
	defer cancel()
	s, err := a.gateway.Session(ctx, id)
	return s, err == nil
}

// operator is a phone of a tenant that takes many calls.
type operator struct {
	*phone
	mu    sync.Mutex
	taken []*call
}

func (a *agents) operator(t *testing.T, name, realm string, hz float64) *operator {
	t.Helper()
	o := &operator{phone: newPhone(t, a.internal, user(name, realm), withCodecs(pcmu), playing(hz)).registered(t)}
	go func() {
		for {
			select {
			case c := <-o.rings:
				o.mu.Lock()
				o.taken = append(o.taken, c)
				o.mu.Unlock()
			case <-t.Context().Done():
				return
			}
		}
	}()
	return o
}

// hearing returns the call in which the operator hears somebody's tone; nil if there is none.
func (o *operator) hearing(hz float64) *call {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range o.taken {
		select {
		case <-c.ended:
		default:
			if loud(c.media.ear.Share(hz)) {
				return c
			}
		}
	}
	return nil
}

// count is how many calls the operator was given.
func (o *operator) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.taken)
}

// loud tells whether a tone is what is heard, for the last 200 ms.
func loud(share float64) bool { return share > 0.8 }

// until polls, because what is waited for is on its way through the switch.
func until(limit time.Time, condition func() bool) bool {
	for !condition() {
		if time.Now().After(limit) {
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
	return true
}

// answered waits until the caller and the operator hear each other.
func (o *operator) answered(c *call, limit time.Time) error {
	if !until(limit.Add(toRecognise), func() bool { return loud(c.media.ear.Share(o.hz)) && o.hearing(c.p.hz) != nil }) {
		return fmt.Errorf("%s and the caller do not talk: he hears the operator %.2f, the agent %.2f; the operator hears him: %v",
			o.login.user, c.media.ear.Share(o.hz), c.media.ear.Share(agentHz), o.hearing(c.p.hz) != nil)
	}
	return nil
}

// expectOperator fails the test unless the caller and an operator hear each other in time, counted from an instant.
func expectOperator(t *testing.T, c *call, o *operator, since time.Time) {
	t.Helper()
	if err := o.answered(c, since.Add(alone)); err != nil {
		t.Fatal(err)
	}
	t.Logf("a person after %v", time.Since(since).Round(10*time.Millisecond))
}

// expectAgent waits until the caller and his agent hear each other.
func (a *agents) expectAgent(t *testing.T, from caller, c *call) *mockgateway.Session {
	t.Helper()
	expectStatus(t, c, 200)
	s, err := a.talking(t.Context(), from, c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (a *agents) talking(ctx context.Context, from caller, c *call) (*mockgateway.Session, error) {
	s, ok := a.session(ctx, from)
	if !ok {
		return nil, errors.New("the gateway was not asked for a session")
	}
	if !until(time.Now().Add(alone), func() bool { return loud(c.media.ear.Share(agentHz)) && loud(s.Share(from.hz)) }) {
		return nil, fmt.Errorf("the caller hears the agent %.2f, the agent the caller %.2f", c.media.ear.Share(agentHz), s.Share(from.hz))
	}
	return s, nil
}

func conversation(t *testing.T, a *agents) {
	t.Helper()
	t.Run("caller and agent hear each other, and their digits", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		c.media.press <- 7
		ctx, cancel := context.WithTimeout(t.Context(), alone)
		defer cancel()
		if r, err := s.Wait(ctx, func(r mockgateway.Report) bool { return r.Digits == "7" }); err != nil {
			t.Errorf("the agent hears the digits %q", r.Digits)
		}
		s.Press('4')
		if !until(time.Now().Add(alone), func() bool { return c.media.heardDigits() == "4" }) {
			t.Errorf("the caller hears the digits %q", c.media.heardDigits())
		}
		a.expectAgent(t, from, c)
		c.hangup(t)
		a.idle(t)
		if r, err := s.Wait(ctx, func(r mockgateway.Report) bool { return r.Over }); err != nil || r.Hangup != "normal" {
			t.Errorf("the gateway is told %q, over: %v", r.Hangup, r.Over)
		}
		if n := standIn.count(); n != 0 {
			t.Errorf("the stand-in was called %d times", n)
		}
	})
	t.Run("the agent ends the call", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		a.expectAgent(t, from, c).Do(mockgateway.HangUp)
		expectEnd(t, c)
		a.idle(t)
		if n := standIn.count(); n != 0 {
			t.Errorf("the stand-in was called %d times", n)
		}
	})
	t.Run("the agent ends the call, and its media a moment before it says so", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		a.expectAgent(t, from, c).Do(mockgateway.LeaveFirst)
		expectEnd(t, c)
		a.idle(t)
		if n := standIn.count(); n != 0 {
			t.Errorf("the stand-in was called %d times", n)
		}
	})
	t.Run("the switch ends a leg that has failed: the stand-in takes over, and the gateway hears that it broke", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		failed := time.Now()
		a.command(t, "uuid_kill %s MEDIA_TIMEOUT", a.agentLeg(t))
		expectOperator(t, c, standIn, failed)
		ctx, cancel := context.WithTimeout(t.Context(), alone)
		defer cancel()
		if r, err := s.Wait(ctx, func(r mockgateway.Report) bool { return r.Over }); err != nil || r.Hangup != "failure" {
			t.Errorf("the gateway is told %q, over: %v", r.Hangup, r.Over)
		}
		c.hangup(t)
		a.idle(t)
	})
	t.Run("the agent hands the caller to an extension", func(t *testing.T) {
		a.begin(t)
		standIn, wanted, from := a.operator(t, "1000", realmA, 300), a.operator(t, "1002", realmA, 350), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		asked := time.Now()
		s.Do(mockgateway.Transfer)
		expectOperator(t, c, wanted, asked)
		if n := standIn.count(); n != 0 {
			t.Errorf("the stand-in was called %d times", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), alone)
		defer cancel()
		if r, err := s.Wait(ctx, func(r mockgateway.Report) bool { return r.Over }); err != nil || r.Hangup != "transferred" {
			t.Errorf("the gateway is told %q, over: %v", r.Hangup, r.Over)
		}
	})
	t.Run("the extension that the agent wants is not there: the stand-in takes over", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		asked := time.Now()
		s.Do(mockgateway.Transfer)
		expectOperator(t, c, standIn, asked)
	})
	t.Run("out of hours: the extension at once", func(t *testing.T) {
		a.begin(t)
		a.change(t, "UPDATE edgvoip.sip_trunks SET ai_time_policy = $1", []any{`{"mode":"never"}`}, []any{nil})
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		called := time.Now()
		c := a.call(t, from, didA, mockgateway.None)
		expectStatus(t, c, 200)
		expectOperator(t, c, standIn, called)
		if _, asked := a.session(t.Context(), from); asked {
			t.Error("the gateway was asked for a session")
		}
	})
}

// early are the faults before there is a conversation. Whoever refuses in good order is among them in the middle, so
// that not so many fail in a row that the gateway is left alone.
var early = []mockgateway.Fault{
	mockgateway.SlowSession, mockgateway.Fail, mockgateway.BadAnswer, mockgateway.BadSDP, mockgateway.Refuse,
	mockgateway.NoPCMU, mockgateway.NoChannel, mockgateway.DropEarly, mockgateway.NoConnect, mockgateway.Refuse, mockgateway.LateMedia,
}

// late are the faults in a conversation.
var late = []mockgateway.Fault{mockgateway.DropChannel, mockgateway.StopMedia, mockgateway.GiveUp, mockgateway.Error, mockgateway.Nonsense}

func gatewayFaults(t *testing.T, a *agents) {
	t.Helper()
	for _, f := range early {
		t.Run("before the call, "+string(f)+": the stand-in takes it", func(t *testing.T) {
			a.begin(t)
			standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
			since := time.Now()
			c := a.call(t, from, didA, f)
			expectStatus(t, c, 200)
			if f == mockgateway.LateMedia { // that shows once the call is answered
				since = time.Now()
			}
			expectOperator(t, c, standIn, since)
			c.hangup(t)
			a.idle(t)
		})
	}
	for _, f := range late {
		t.Run("during the call, "+string(f)+": the stand-in takes over", func(t *testing.T) {
			a.begin(t)
			standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
			c := a.call(t, from, didA, mockgateway.None)
			s := a.expectAgent(t, from, c)
			since := time.Now()
			s.Do(f)
			expectOperator(t, c, standIn, since)
			c.hangup(t)
			a.idle(t)
		})
	}
}

// agentRecords is what the records of such calls say.
func agentRecords(t *testing.T, a *agents, l *ledger) {
	t.Helper()
	trunk := a.trunk(t, tenantA, 1).String()
	l.take()
	t.Run("the record of a call with an agent", func(t *testing.T) {
		a.begin(t)
		from := a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		a.expectAgent(t, from, c)
		c.hangup(t)
		a.expectRecords(t, l, 2)[0].want(t, map[string]string{
			"edgvoip_route": "agent", "edgvoip_reason": "agent on: no time policy", "edgvoip_direction": "inbound", "edgvoip_trunk_id": trunk,
			"edgvoip_did": "+390612345678", "edgvoip_callee_id": "", "hangup_cause": "NORMAL_CLEARING",
		})
	})
	t.Run("the record of a call that the stand-in took over", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		s := a.expectAgent(t, from, c)
		since := time.Now()
		s.Do(mockgateway.GiveUp)
		expectOperator(t, c, standIn, since)
		c.hangup(t)
		a.expectRecords(t, l, 3)[0].want(t, map[string]string{
			"edgvoip_route": "agent", "edgvoip_reason": "agent on: no time policy; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text=\"agent_failed\"", "edgvoip_direction": "inbound",
			"edgvoip_trunk_id": trunk, "edgvoip_callee_id": a.extensionID(t, "1000"), "hangup_cause": "NORMAL_CLEARING", "sip_reason": "",
		})
	})
	t.Run("the record of a call that the gateway refused", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		since := time.Now()
		c := a.call(t, from, didA, mockgateway.Refuse)
		expectStatus(t, c, 200)
		expectOperator(t, c, standIn, since)
		c.hangup(t)
		a.expectRecords(t, l, 3)[0].want(t, map[string]string{
			"edgvoip_route": "agent", "edgvoip_reason": "agent on: no time policy; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text=\"session_refused\"",
		})
	})
}

// randomFaults is many calls at once that go wrong in every way. Nobody is left alone.
func randomFaults(t *testing.T, a *agents) {
	t.Helper()
	const calls, callers = 200, 8
	t.Run(fmt.Sprintf("%d calls with random faults: nobody is stranded", calls), func(t *testing.T) {
		a.begin(t)
		m := &mix{agents: a, standIn: a.operator(t, "1000", realmA, 300), wanted: a.operator(t, "1002", realmA, 350), ways: map[string]int{}}
		seed := mathrand.Uint64()
		t.Logf("seed %d", seed)
		began := time.Now()
		var running sync.WaitGroup
		for n := range callers {
			from, random := a.caller(t, n), mathrand.New(mathrand.NewPCG(seed, uint64(n)))
			running.Go(func() {
				for i := range calls / callers {
					m.one(t, from, i, random)
				}
			})
		}
		running.Wait()
		t.Logf("%d calls in %v: %v", calls, time.Since(began).Round(time.Second), m.ways)
		if m.ways["agent"] < calls/20 || m.ways["transfer"] < calls/50 {
			t.Errorf("too few calls reached the agent to tell anything: %v", m.ways)
		}
		a.idle(t)
		eventually(t, alone, func() error {
			metrics, err := a.operators(t, "/metrics")
			if err == nil && !strings.Contains(metrics, "\naibridge_calls 0\n") {
				err = errors.New("ai-bridge still has calls")
			}
			return err
		})
	})
}

// mix is calls with random faults.
type mix struct {
	*agents
	standIn, wanted *operator

	mu   sync.Mutex
	ways map[string]int // how calls went
}

// pick chooses how a call goes. Most go wrong in a conversation: of those that go wrong before it, not so many may come
// in a row that the gateway is left alone, and all is tried there is.
func pick(random *mathrand.Rand) mockgateway.Fault {
	list := late
	switch n := random.IntN(10); {
	case n < 3:
		list = []mockgateway.Fault{mockgateway.None, mockgateway.HangUp, mockgateway.Transfer}
	case n < 5:
		list = early
	}
	return list[random.IntN(len(list))]
}

// one makes a call.
func (m *mix) one(t *testing.T, from caller, i int, random *mathrand.Rand) {
	t.Helper()
	f, pause := pick(random), time.Duration(random.IntN(500))*time.Millisecond
	asked := mockgateway.None
	if slices.Contains(early, f) {
		asked = f
	}
	began := time.Now()
	c := m.call(t, from, didA, asked)
	if c.status() != http.StatusOK {
		t.Errorf("caller %s, call %d, fault %q: answered %q", from.number, i, f, c.response.start)
		return
	}
	way, err := m.converse(t, from, c, f, pause, began)
	if err != nil {
		way = "stranded"
	}
	if err = errors.Join(err, m.part(t, c)); err != nil {
		t.Errorf("caller %s, call %d, fault %q: %v", from.number, i, f, err)
	}
	c.media.close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ways[way]++
}

// converse lets a call go wrong and returns with whom it ended.
func (m *mix) converse(t *testing.T, from caller, c *call, f mockgateway.Fault, pause time.Duration, began time.Time) (string, error) {
	t.Helper()
	_, asked := m.session(t.Context(), from)
	switch {
	case f == mockgateway.LateMedia:
		return "stand-in", m.standIn.answered(c, time.Now().Add(alone))
	case !asked || slices.Contains(early, f):
		return "stand-in", m.standIn.answered(c, began.Add(alone))
	}
	s, err := m.talking(t.Context(), from, c)
	if err != nil { // a machine with much to do may be too slow for the agent, and not for a person
		return "stand-in", m.standIn.answered(c, began.Add(alone))
	}
	time.Sleep(pause)
	since := time.Now()
	s.Do(f)
	switch f {
	case mockgateway.None:
		return "agent", nil
	case mockgateway.HangUp:
		select {
		case <-c.ended:
			return "agent", nil
		case <-time.After(alone):
			return "stranded", errors.New("the agent's end is not the call's")
		}
	case mockgateway.Transfer:
		return "transfer", m.wanted.answered(c, since.Add(alone))
	default:
		return "stand-in", m.standIn.answered(c, since.Add(alone))
	}
}

// part hangs the caller up and waits until his other side is gone.
func (m *mix) part(t *testing.T, c *call) error {
	t.Helper()
	c.hangup(t)
	for _, o := range []*operator{m.standIn, m.wanted} {
		if other := o.hearing(c.p.hz); other != nil {
			select {
			case <-other.ended:
				other.media.close()
			case <-time.After(alone):
				return errors.New("the caller is gone, and the other side is not told")
			}
		}
	}
	return nil
}

// kill kills a program at once.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // what is gone is gone
	<-p.done
}

// killed is calls whose helpers die. Last, and in this order, as they are not all started again.
func killed(t *testing.T, a *agents) {
	t.Helper()
	all := t // for what outlives a case
	t.Run("after all that the agent takes calls again", func(t *testing.T) {
		a.begin(t)
		from := a.caller(t, 0)
		eventually(t, time.Minute, func() error {
			c := a.call(t, from, didA, mockgateway.None)
			defer c.hangup(t)
			_, err := a.talking(t.Context(), from, c)
			return err
		})
	})
	t.Run("ai-bridge is killed in mid-call: the stand-in takes over, and later calls reach the agent again", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		c := a.call(t, from, didA, mockgateway.None)
		a.expectAgent(t, from, c)
		since := time.Now()
		a.bridge.kill()
		expectOperator(t, c, standIn, since)
		c.hangup(t)

		since = time.Now()
		c = a.call(t, from, didA, mockgateway.None)
		expectStatus(t, c, 200)
		expectOperator(t, c, standIn, since)
		c.hangup(t)

		a.startBridge(all)
		c = a.call(t, from, didA, mockgateway.None)
		a.expectAgent(t, from, c)
	})
	t.Run("the gateway is killed in mid-call: the stand-in takes over", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmB, 300), a.caller(t, 0)
		c := a.call(t, from, didB, mockgateway.None)
		expectStatus(t, c, 200)
		if !until(time.Now().Add(alone), func() bool { return loud(c.media.ear.Share(agentHz)) }) {
			t.Fatal("the caller does not hear the agent")
		}
		since := time.Now()
		a.gatewayB.kill()
		expectOperator(t, c, standIn, since)
		c.hangup(t)

		since = time.Now()
		c = a.call(t, from, didB, mockgateway.None)
		expectStatus(t, c, 200)
		expectOperator(t, c, standIn, since)
	})
	t.Run("xmlcurl is killed after its answer, and ai-bridge in mid-call: the stand-in takes over", func(t *testing.T) {
		a.begin(t)
		standIn, from := a.operator(t, "1000", realmA, 300), a.caller(t, 0)
		a.lookups.after(func(l lookup) bool { return strings.Contains(l.answer, `application="bridge"`) }, a.xmlcurl.kill)
		c := a.call(t, from, didA, mockgateway.None)
		a.expectAgent(t, from, c)
		if a.xmlcurl.alive() == nil {
			t.Fatal("xmlcurl is still there")
		}
		since := time.Now()
		a.bridge.kill()
		expectOperator(t, c, standIn, since)
	})
}
