package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/settingstest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

const keyFile = "test MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"

// environment returns settings that work, changed by "KEY=value".
func environment(tb testing.TB, changes ...string) []string {
	tb.Helper()
	keys := filepath.Join(tb.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte(keyFile), 0o600); err != nil {
		tb.Fatal(err)
	}
	return append([]string{
		"AI_BRIDGE_SIP_ADDR=127.0.0.1:0", "AI_BRIDGE_METRICS_ADDR=127.0.0.1:0", "DATABASE_URL=host=/nowhere dbname=x sslmode=disable",
		"SECRET_KEYS_FILE=" + keys, "LOG_FORMAT=json",
	}, changes...)
}

// A wrong setting stops the start with a sentence that names it and keeps secrets to itself.
func TestWrongSettings(t *testing.T) {
	t.Parallel()
	start := func(changes ...string) error {
		return run(t.Context(), nil, environment(t, changes...), io.Discard, io.Discard)
	}
	settingstest.Refused(t, start, [][]string{
		{"AI_BRIDGE_SIP_ADDR", "AI_BRIDGE_SIP_ADDR=nonsense"},
		{"AI_BRIDGE_SIP_ADDR", "AI_BRIDGE_SIP_ADDR=0.0.0.0:5090"},
		{"AI_BRIDGE_PEERS", "AI_BRIDGE_PEERS=127.0.0.1"},
		{"AI_BRIDGE_METRICS_ADDR", "AI_BRIDGE_METRICS_ADDR=127.0.0.1:99999"},
		{"AI_SESSION_BUDGET", "AI_SESSION_BUDGET=5s"},
		{"AI_SESSION_BUDGET", "AI_SESSION_BUDGET=1500"},
		{"AI_CONNECT_BUDGET", "AI_CONNECT_BUDGET=2s"},
		{"AI_MEDIA_TIMEOUT", "AI_MEDIA_TIMEOUT=0s"},
		{"AI_MEDIA_TIMEOUT", "AI_MEDIA_TIMEOUT=1900ms"},
		{"AI_CALLER_TIMEOUT", "AI_CALLER_TIMEOUT=0s"},
		{"AI_DRAIN_TIMEOUT", "AI_DRAIN_TIMEOUT=-1s"},
		{"AI_MAX_SESSIONS", "AI_MAX_SESSIONS=0"},
		{"AI_MAX_SESSIONS_PER_TENANT", "AI_MAX_SESSIONS_PER_TENANT=101"},
		{"AI_TRUNKS_INTERVAL", "AI_TRUNKS_INTERVAL=0s"},
		{"AI_ALLOW_NETWORKS", "AI_ALLOW_NETWORKS=10.1.2.3/8"},
		{"AI_ALLOW_PLAIN", "AI_ALLOW_PLAIN=perhaps"},
		{"AI_CA_FILE", "AI_CA_FILE=/nowhere"},
		{"DATABASE_URL", "DATABASE_URL="},
		{"DATABASE_URL", "DATABASE_URL=postgres://u:s3cret@h:port/d"},
		{"SECRET_KEYS_FILE", "SECRET_KEYS_FILE=/nowhere"},
		{"LOG_LEVEL", "LOG_LEVEL=loud"},
	})
}

// docs/settings.md has a row for each setting, with its default, and none for what is not there.
func TestSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	settingstest.Documented[settings](t, filepath.Join("..", "..", "docs", "settings.md"),
		// AI_BRIDGE_ADDR is the others': where they reach this one.
		"AI_BRIDGE_SIP_", "AI_BRIDGE_PEERS", "AI_BRIDGE_METRICS_", "AI_SESSION_", "AI_CONNECT_", "AI_MEDIA_", "AI_CALLER_", "AI_DRAIN_", "AI_MAX_",
		"AI_TRUNKS_", "AI_ALLOW_", "AI_CA_", "DATABASE_", "LOG_", "SECRET_")
}

// The whole process on a real database: it comes up, takes back which gateways it left alone, is ready as soon as it
// knows the trunks, shows its metrics, and goes when it is told to.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	read, write := io.Pipe()
	done := make(chan error, 1)
	url := testdb.New(t)
	env := environment(t, "DATABASE_URL="+url)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	// What the process said of a gateway before it died.
	if _, err := db.ExecContext(t.Context(), `INSERT INTO edgvoip.ai_breakers VALUES ($1, 'https://w3.example', '2099-01-01')`, host+" 127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := run(ctx, nil, env, io.Discard, write)
		_ = write.Close()
		done <- err
	}()
	lines := bufio.NewScanner(read)
	var addr string
	for addr == "" && lines.Scan() {
		var line struct {
			Addr string `json:"metrics_addr"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("log line %s: %v", lines.Bytes(), err)
		}
		addr = line.Addr
	}
	go func() {
		for lines.Scan() { // the log must be drained
			continue
		}
	}()
	get := func(path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var left int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.ai_breakers`).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if status, _ := get("/readyz"); status == http.StatusOK && left == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("not ready within 10 s, or what it said before it died is still there")
		}
	}
	if status, body := get("/metrics"); status != http.StatusOK || !strings.Contains(body, "aibridge_calls 0") || !strings.Contains(body, "aibridge_trunks_age_seconds") {
		t.Errorf("metrics: %d\n%s", status, body)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
