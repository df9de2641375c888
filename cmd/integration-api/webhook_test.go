package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/test/w3receiver"
)

// An operator says where events go, looks at what was given up, and has it sent again or not.
func TestWebhookCommands(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.command(t, "tenant", "add", "shop", "-country", "IT")
	i.command(t, "webhook", "set", "shop", "https://w3.example/base/")
	i.command(t, "webhook", "pause", "shop")
	i.command(t, "webhook", "set", "shop", "https://w3.example/base")
	if out := i.command(t, "webhook", "show", "shop"); !regexp.MustCompile(`(?s)^URL .*\nhttps://w3.example/base +paused +\S+\n$`).MatchString(out) {
		t.Errorf("show printed\n%s", out)
	}
	i.command(t, "webhook", "resume", "shop")
	if out := i.command(t, "webhook", "show", "shop"); !strings.Contains(out, " active ") {
		t.Errorf("show printed\n%s", out)
	}
	for n := range 3 {
		i.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, state, attempts, last_error, finished_at)
			SELECT id, gen_random_uuid(), 'cdr', gen_random_uuid(), '{"n":%d}', 'dead', 1, 'answered 400', now() FROM edgvoip.tenants`, n))
	}
	i.exec(t, `INSERT INTO edgvoip.webhook_attempts (tenant_id, event_id, attempt, duration_ms, status, error) SELECT tenant_id, id, 1, 20, 400, 'answered 400' FROM edgvoip.webhook_events`)
	if out := i.command(t, "webhook", "list", "shop", "-state", "dead", "-limit", "2"); !regexp.MustCompile(`(?s)^EVENT .*\n3 +cdr +dead +1 .*answered 400\n2 .*answered 400\n$`).MatchString(out) {
		t.Errorf("list printed\n%s", out)
	}
	if out := i.command(t, "webhook", "inspect", "shop", "2"); !strings.Contains(out, `body     {"n":1}`) || !regexp.MustCompile(`1 +\S+Z +20ms +400 +answered 400\n`).MatchString(out) {
		t.Errorf("inspect printed\n%s", out)
	}
	i.command(t, "webhook", "discard", "shop", "1")
	if out := i.command(t, "webhook", "replay", "shop", "3"); out != "1\n" {
		t.Errorf("replay printed %q", out)
	}
	if out := i.command(t, "webhook", "replay", "shop", "-all"); out != "1\n" {
		t.Errorf("replay printed %q", out)
	}
	var states []struct{ State string }
	if err := json.Unmarshal([]byte(i.command(t, "webhook", "list", "shop", "-json")), &states); err != nil || fmt.Sprint(states) != "[{pending} {pending} {discarded}]" {
		t.Errorf("%v, %v", states, err)
	}
	i.command(t, "webhook", "remove", "shop")
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"no webhook endpoint", []string{"webhook", "show", "shop"}},
		{"no webhook endpoint", []string{"webhook", "pause", "shop"}},
		{"no webhook endpoint", []string{"webhook", "remove", "shop"}},
		{"unknown tenant", []string{"webhook", "set", "nobody", "https://w3.example"}},
		{"https://", []string{"webhook", "set", "shop", "http://w3.example"}},
		{"baseUrl", []string{"webhook", "set", "shop", "https://user:s3cret@w3.example"}},
		{"URL is missing", []string{"webhook", "set", "shop"}},
		{"-state", []string{"webhook", "list", "shop", "-state", "gone"}},
		{"-limit", []string{"webhook", "list", "shop", "-limit", "0"}},
		{"TENANT is missing", []string{"webhook", "replay"}},
		{"-all", []string{"webhook", "replay", "shop"}},
		{"-all", []string{"webhook", "replay", "shop", "1", "-all"}},
		{"number", []string{"webhook", "discard", "shop", "x"}},
		{"EVENT is missing", []string{"webhook", "discard", "shop"}},
		{"not dead", []string{"webhook", "discard", "shop", "1"}},
		{"unknown event", []string{"webhook", "inspect", "shop", "99"}},
		{"event 99: unknown event", []string{"webhook", "replay", "shop", "99"}},
		{"event 1: the event is not dead", []string{"webhook", "replay", "shop", "1"}},
		{"one EVENT", []string{"webhook", "inspect", "shop"}},
	} {
		if _, err := i.try(t, "", tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
}

// Settings of the sender that make no sense are refused by name.
func TestWebhookSettings(t *testing.T) {
	t.Parallel()
	i := install(t)
	for setting, want := range map[string]string{
		"WEBHOOK_TIMEOUT=0s": "WEBHOOK_TIMEOUT", "WEBHOOK_TIMEOUT=2m": "WEBHOOK_TIMEOUT", "WEBHOOK_CONCURRENCY=0": "WEBHOOK_CONCURRENCY",
		"WEBHOOK_ALLOW_NETWORKS=10.0.0.1/8": "WEBHOOK_ALLOW_NETWORKS", "WEBHOOK_CA_FILE=/nowhere": "WEBHOOK_CA_FILE",
	} {
		j := installation{i.dsn, append(slices.Clip(i.env), "API_DEVELOPMENT_HTTP=true", "API_ADDR=127.0.0.1:0", "CDR_ADDR=off", setting)}
		if _, err := j.try(t, "", "serve"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", setting, err)
		}
	}
}

// mockProgram is mockw3 as a program.
var mockProgram = programOf("../../test/mockw3", "mockw3")

// mock is mockw3 receive as a process, which may be killed and started again.
type mock struct {
	args []string
	addr string
	cmd  *exec.Cmd
}

// start starts the process and returns when it listens.
func (m *mock) start(t *testing.T) {
	t.Helper()
	program, err := mockProgram()
	if err != nil {
		t.Fatal(err)
	}
	m.cmd = exec.CommandContext(t.Context(), program, m.args...)
	m.cmd.Stderr = t.Output()
	stdout, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening on "+m.addr) {
		t.Fatalf("mockw3 printed %q, %v", line, err)
	}
}

func (m *mock) kill(t *testing.T) {
	t.Helper()
	if err := m.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = m.cmd.Wait() // it was killed
}

// recall kills the process and starts it again, and returns what it tells then, which is what its file tells.
func (m *mock) recall(t *testing.T, roots *x509.CertPool) (r w3receiver.Report) {
	t.Helper()
	m.kill(t)
	m.start(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+m.addr+"/mock/report", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

// Our process and W3's are killed at random moments while events are sent, and started again. In the end each event has
// had its effect once, those of a subject in order, and W3 knows everything that it said it had taken.
func TestWebhooksKilledAtRandom(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.command(t, "tenant", "add", "shop", "-country", "IT")
	secret := credentials(t, i.command(t, "secret", "add", "shop"))
	certFile, keyFile, roots := certificate(t)
	addr := closedPort(t)
	i.command(t, "webhook", "set", "shop", "https://"+addr+"/w3")
	secrets := filepath.Join(t.TempDir(), "secrets")
	if err := os.WriteFile(secrets, []byte(secret["HMAC_SECRET"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w3 := &mock{addr: addr, args: []string{
		"receive", "-addr", addr, "-cert", certFile, "-key", keyFile, "-secrets", secrets, "-state", filepath.Join(t.TempDir(), "state"), "-fail", "5", "-drop", "5", "-lie", "5",
	}}
	w3.start(t)
	i.env = append(i.env, "WEBHOOK_ALLOW_NETWORKS=127.0.0.0/8", "WEBHOOK_CA_FILE="+certFile, "WEBHOOK_TIMEOUT=2s")
	d := openDoor(t, i)
	db, err := sql.Open("postgres", i.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	const subjects, each = 100, 8
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	seed := rand.Uint64()
	t.Logf("random seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	delivered := 0
	for kills := 0; kills < each || delivered < subjects*each; kills++ {
		if kills < each {
			i.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload)
				SELECT t.id, gen_random_uuid(), 'cdr', md5(s::text)::uuid, jsonb_build_object('call', s, 'n', %d)::text FROM edgvoip.tenants t, generate_series(1, %d) s`, kills, subjects))
		}
		// The waits for a lease to run out and for the next attempt are left out.
		if _, err := db.ExecContext(ctx, `UPDATE edgvoip.webhook_events SET due_at = now() WHERE state = 'pending' AND attempts > 0`); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(50+random.IntN(150)) * time.Millisecond) // how far it comes is the chance that the test is about
		switch {
		case kills >= each: // now it may end
		case kills%2 == 0:
			w3.kill(t)
			w3.start(t)
		default:
			d.kill(t)
			if _, err := db.ExecContext(ctx, `UPDATE edgvoip.webhook_events SET due_at = now() WHERE state = 'leased'`); err != nil {
				t.Fatal(err)
			}
			d.start(t)
		}
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM edgvoip.webhook_events WHERE state = 'delivered'`).Scan(&delivered); err != nil {
			t.Fatalf("%d delivered: %v", delivered, err)
		}
	}
	r := w3.recall(t, roots)
	if r.Effects != subjects*each || len(r.Keys) != subjects*each || len(r.OutOfOrder)+len(r.Conflicts) != 0 {
		t.Errorf("%d effects, %d keys, out of order %v, conflicts %v", r.Effects, len(r.Keys), r.OutOfOrder, r.Conflicts)
	}
	for subject, n := range r.Subjects {
		if n != each {
			t.Errorf("%s: %d effects", uuid.MustParse(subject), n)
		}
	}
	t.Logf("%d effects of %d receptions", r.Effects, r.Received)
	w3.kill(t)
}
