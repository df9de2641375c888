package main

import (
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
	"github.com/edgvoip/edgvoip/internal/testlog"
)

// The whole process on a real database: it comes up, says where it listens, is ready, shows its switches, and goes when
// it is told to.
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
	metrics, _, stop := serving(t, i)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": `edgvoip_node_up{node="fs1"} 0`} {
		eventually(t, func() (bool, string) {
			status, body := get(t, metrics+path)
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
	if err := stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// serving runs serve until stop is called, which returns its error, or the test ends. It returns when the process
// serves, and where.
func serving(t *testing.T, i installation) (metrics, api string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var log testlog.Lines
	var ended error
	announced, done := make(announcement, 1), make(chan struct{})
	go func() {
		defer close(done)
		ended = run(ctx, []string{"serve"}, append(i.env, "API_METRICS_ADDR=127.0.0.1:0", "API_ADDR=127.0.0.1:0", "API_DEVELOPMENT_HTTP=true", "CDR_ADDR=off"),
			streams{nil, io.Discard, io.MultiWriter(&log, announced)})
	}()
	stop = func() error {
		cancel()
		<-done
		return ended
	}
	t.Cleanup(func() { _ = stop() }) // what stops by itself is looked at where it is stopped
	select {
	case at := <-announced:
		return "http://" + at.metrics, "http://" + at.api, stop
	case <-done:
		t.Fatalf("did not start: %v\n%s", ended, log.String())
	case <-time.After(time.Minute):
		t.Fatalf("does not say that it serves\n%s", log.String())
	}
	return "", "", nil
}

// announcement is a writer that finds where a process serves in the log line that tells it.
type announcement chan struct{ metrics, api string }

// Write implements io.Writer.
func (a announcement) Write(b []byte) (int, error) {
	var line struct {
		Msg, Addr string
		Metrics   string `json:"metrics_addr"`
	}
	if json.Unmarshal(b, &line) == nil && line.Msg == "serving" {
		a <- struct{ metrics, api string }{line.Metrics, line.Addr}
	}
	return len(b), nil
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
