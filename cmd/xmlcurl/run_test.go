package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
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
		"XMLCURL_ADDR=127.0.0.1:0", "XMLCURL_CREDENTIALS=freeswitch:a long password", "DATABASE_URL=host=/nowhere dbname=x sslmode=disable",
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
		{"XMLCURL_ADDR", "XMLCURL_ADDR=nonsense"},
		{"XMLCURL_ADDR", "XMLCURL_ADDR=0.0.0.0:0"},
		{"XMLCURL_ADDR", "XMLCURL_ADDR=:8080"},
		{"XMLCURL_ADDR", "XMLCURL_ADDR=127.0.0.1:99999"},
		{"XMLCURL_CREDENTIALS", "XMLCURL_CREDENTIALS="},
		{"XMLCURL_CREDENTIALS", "XMLCURL_CREDENTIALS=s3cret-without-user"},
		{"XMLCURL_CREDENTIALS", "XMLCURL_CREDENTIALS=u:s3cret"},
		{"XMLCURL_CREDENTIALS_FILE", "XMLCURL_CREDENTIALS_FILE=/nowhere"},
		{"XMLCURL_CREDENTIALS_FILE", "XMLCURL_CREDENTIALS=", "XMLCURL_CREDENTIALS_FILE=/nowhere"},
		{"XMLCURL_TLS_KEY_FILE", "XMLCURL_TLS_CERT_FILE=/nowhere"},
		{"XMLCURL_TLS_CERT_FILE", "XMLCURL_TLS_CERT_FILE=/nowhere", "XMLCURL_TLS_KEY_FILE=/nowhere"},
		{"XMLCURL_TLS_CLIENT_CA_FILE", "XMLCURL_TLS_CLIENT_CA_FILE=/nowhere"},
		{"XMLCURL_ALLOW_PLAIN", "XMLCURL_ALLOW_PLAIN=perhaps"},
		{"XMLCURL_REQUEST_TIMEOUT", "XMLCURL_REQUEST_TIMEOUT=5s"},
		{"XMLCURL_REQUEST_TIMEOUT", "XMLCURL_REQUEST_TIMEOUT=1500"},
		{"XMLCURL_SHUTDOWN_TIMEOUT", "XMLCURL_SHUTDOWN_TIMEOUT=0s"},
		{"XMLCURL_MAX_CONNECTIONS", "XMLCURL_MAX_CONNECTIONS=0"},
		{"XMLCURL_MODEL_EXTENSIONS", "XMLCURL_MODEL_EXTENSIONS=10"},
		{"XMLCURL_PRELOAD", "XMLCURL_PRELOAD=perhaps"},
		{"XMLCURL_MAX_DATA_AGE", "XMLCURL_MAX_DATA_AGE=0s"},
		{"XMLCURL_CHANGES_INTERVAL", "XMLCURL_CHANGES_INTERVAL=0s"},
		{"XMLCURL_SNAPSHOT_FILE", "XMLCURL_SNAPSHOT_FILE=relative"},
		{"XMLCURL_SNAPSHOT_INTERVAL", "XMLCURL_SNAPSHOT_INTERVAL=0s"},
		{"SWITCH_CACHES_USERS", "SWITCH_CACHES_USERS=1h"},
		{"SWITCH_CACHES_USERS", "SWITCH_CACHES_USERS=60s", "SIP_AUTH_ALGORITHMS=SHA-256"},
		{"DATABASE_URL", "DATABASE_URL="},
		{"DATABASE_URL", "DATABASE_URL=postgres://u:s3cret@h:port/d"},
		{"DATABASE_MAX_CONNS", "DATABASE_MAX_CONNS=0"},
		{"DATABASE_MAX_CONNS", "DATABASE_MAX_CONNS=many"},
		{"SECRET_KEYS_FILE", "SECRET_KEYS_FILE="},
		{"SECRET_KEYS_FILE", "SECRET_KEYS_FILE=/nowhere"},
		{"LOG_LEVEL", "LOG_LEVEL=loud"},
		{"LOG_FORMAT", "LOG_FORMAT=xml"},
		{"SIP_IP", "SIP_IP=$${local_ip_v4}"},
		{"RTP_IP", "RTP_IP=localhost"},
		{"EXT_SIP_IP", "EXT_SIP_IP=auto"},
		{"EXT_RTP_IP", "EXT_RTP_IP=x"},
		{"SIP_PORT", "SIP_PORT=0"},
		{"SIP_TLS_PORT", "SIP_TLS_PORT=70000"},
		{"SIP_WSS_PORT", "SIP_WSS_PORT=x"},
		{"SIP_EXTERNAL_PORT", "SIP_EXTERNAL_PORT=-1"},
		{"SIP_EXTERNAL_TLS_PORT", "SIP_EXTERNAL_TLS_PORT=-1"},
		{"SIP_TLS", "SIP_TLS=maybe"},
		{"SIP_TLS_PORT", "SIP_PORT=5061"},
		{"SIP_TLS_CERT_DIR", "SIP_TLS_CERT_DIR=relative"},
		{"SIP_TLS_CERT_DIR", "SIP_TLS_CERT_DIR=/etc/$${x}"},
		{"SIP_AUTH_ALGORITHMS", "SIP_AUTH_ALGORITHMS=SHA-1"},
	})
}

// docs/settings.md has a row for each setting, with its default, and none for what is not there.
func TestSettingsAreDocumented(t *testing.T) {
	t.Parallel()
	settingstest.Documented[settings](t, filepath.Join("..", "..", "docs", "settings.md"), "XMLCURL_", "SIP_", "RTP_", "EXT_", "SWITCH_", "DATABASE_", "LOG_", "SECRET_")
}

// The whole process on a real database: it comes up, says where it listens, is ready, answers, and goes when it is told
// to.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	read, write := io.Pipe()
	done := make(chan error, 1)
	env := environment(t, "DATABASE_URL="+testdb.New(t))
	go func() {
		err := run(ctx, nil, env, io.Discard, write)
		_ = write.Close()
		done <- err
	}()
	lines := bufio.NewScanner(read)
	var addr string
	for addr == "" && lines.Scan() {
		var line struct{ Msg, Addr string }
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
	get := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("freeswitch:a long password")))
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
	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{http.MethodGet, "/healthz", "", 200, "ok"},
		{http.MethodGet, "/readyz", "", 200, "ready"},
		{http.MethodPost, "/xml", "hostname=h&section=configuration&tag_name=configuration&key_name=name&key_value=acl.conf", 200, `<list name="trunks"`},
		{http.MethodPost, "/xml", "hostname=h&section=directory&tag_name=domain&key_name=name&key_value=nobody.example", 200, "not found"},
		{http.MethodPost, "/xml", "hostname=h", 400, "not a lookup"},
		{http.MethodGet, "/metrics", "", 200, `xmlcurl_lookups_total{outcome="found",section="configuration"} 1`},
	} {
		if status, body := get(tc.method, tc.path, tc.body); status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s: %d %s, want %d with %s", tc.method, tc.path, status, body, tc.status, tc.want)
		}
	}
	// The client of the standard library would go on writing a body that nobody reads; here it is announced and not
	// sent.
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, "POST /xml HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 300000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if status, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(status, "413") {
		t.Errorf("a body over the limit: %q, %v", status, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("stopped with %v", err)
	}
}

// With the database away the process comes up, says that it is not ready, and answers 503 rather than a guess.
func TestRunWithoutDatabase(t *testing.T) {
	t.Parallel()
	s, err := readSettings(environment(t))
	if err != nil {
		t.Fatal(err)
	}
	var lines bytes.Buffer
	p, err := build(t.Context(), s, logTo(&lines))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(t.Context())
	for path, method := range map[string]string{"/readyz": http.MethodGet, "/xml": http.MethodPost} {
		req, err := http.NewRequestWithContext(t.Context(), method, path, strings.NewReader("hostname=h&section=directory&tag_name=domain&key_name=name&key_value=a.example"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("freeswitch", "a long password")
		resp, err := p.server.App().Test(req, -1)
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, want 503", path, resp.StatusCode)
		}
	}
	if strings.Count(lines.String(), `"level":"ERROR"`) != 2 {
		t.Errorf("log:\n%s", lines.String())
	}
}

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

// A process that is told to stop before it began to serve stops.
func TestStopBeforeServe(t *testing.T) {
	t.Parallel()
	s, err := readSettings(environment(t))
	if err != nil {
		t.Fatal(err)
	}
	log := logTo(io.Discard)
	p, err := build(t.Context(), s, log)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close(t.Context())
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := p.server.Run(ctx, l, time.Minute); err != nil {
		t.Error(err)
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("still listening")
	}
}
