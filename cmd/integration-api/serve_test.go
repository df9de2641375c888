package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/settingstest"
)

// The whole process on a real database: it comes up, says where it listens, is ready, shows its switches, and goes when it
// is told to.
func TestServe(t *testing.T) {
	t.Parallel()
	i := install(t)
	away := closedPort(t)
	if _, err := i.try(t, "event-socket", "node", "add", "fs1", "-address", away, "-password-file", "-"); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("postgres", i.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), `INSERT INTO edgvoip.changes (tenant_id, subject, at, oldest)
		SELECT gen_random_uuid(), 'tenant', now() - interval '2 hours', '18446744073709551615' FROM generate_series(1, 1500)`); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"serve"}, append(i.env, "API_METRICS_ADDR=127.0.0.1:0", "API_ADDR=127.0.0.1:0", "API_DEVELOPMENT_HTTP=true", "CDR_ADDR=off"), streams{nil, io.Discard, write})
		_ = write.Close() // never fails
		done <- err
	}()
	addr := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(read); lines.Scan(); { // the log must be drained
			var line struct {
				Addr string `json:"metrics_addr"`
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err == nil && line.Addr != "" {
				addr <- line.Addr
			}
		}
	}()
	base := "http://" + <-addr
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": `edgvoip_node_up{node="fs1"} 0`} {
		eventually(t, func() (bool, string) {
			status, body := get(t, base+path)
			return status == http.StatusOK && strings.Contains(body, want), path + " answers " + body
		})
	}
	// What readers of replicas depend on.
	var beating bool
	eventually(t, func() (bool, string) {
		err := db.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT FROM edgvoip.heartbeat)`).Scan(&beating)
		return err == nil && beating, "no heartbeat is written"
	})
	var left int
	eventually(t, func() (bool, string) {
		err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.changes WHERE at < now() - interval '1 hour'`).Scan(&left)
		return err == nil && left == 1001, "old changes are not removed"
	})
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// eventually waits until something is true; otherwise it fails with what was seen last.
func eventually(t *testing.T, f func() (ok bool, seen string)) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		ok, seen := f()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(seen)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A process that is told to stop before it began to serve stops, and gives its port back.
func TestStopBeforeServe(t *testing.T) {
	t.Parallel()
	i := install(t)
	s, err := readSettings(append(i.env, "API_METRICS_ADDR=127.0.0.1:0", "API_ADDR=127.0.0.1:0", "API_DEVELOPMENT_HTTP=true", "CDR_ADDR=off"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := build(s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.db.Close() }()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", s.MetricsAddr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := p.internal.Run(ctx, l, time.Minute); err != nil {
		t.Error(err)
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("still listening")
	}
}

// docs/settings.md has a row for each setting, with its default.
func TestSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	settingstest.Documented[settings](t, filepath.Join("..", "..", "docs", "settings.md"), "API_", "WEBHOOK_")
	settingstest.Documented[sweepSettings](t, filepath.Join("..", "..", "docs", "settings.md"))
}
