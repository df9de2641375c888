package ingest_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/ingest"
)

const credentials = "switch:long enough"

// store keeps documents in memory, or fails.
type store struct {
	mu   sync.Mutex
	fail error
	kept []cdr.Posted
}

func (s *store) KeepDocument(_ context.Context, p cdr.Posted) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return false, s.fail
	}
	p.Body = append([]byte{}, p.Body...)
	for _, k := range s.kept {
		if string(k.Body) == string(p.Body) {
			return false, nil
		}
	}
	s.kept = append(s.kept, p)
	return true, nil
}

func (s *store) last(t *testing.T) cdr.Posted {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) == 0 {
		t.Fatal("nothing is kept")
	}
	return s.kept[len(s.kept)-1]
}

// serve starts a server with a handler and returns its address.
func serve(t testing.TB, s ingest.Store) string {
	t.Helper()
	registry, log := prometheus.NewRegistry(), slog.New(slog.DiscardHandler)
	server := httpd.New(httpd.Options{Name: "cdr", BodyLimit: ingest.BodyLimit, RequestTimeout: time.Minute, Public: true, Registry: registry, Log: log})
	ingest.New(ingest.Options{Store: s, Credentials: credentials, Registry: registry, Log: log}).Register(server)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func post(t *testing.T, addr, query string, body io.Reader, header ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/cdr"+query, body)
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := strings.Cut(credentials, ":")
	req.SetBasicAuth(user, password)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// Bodies are kept as they came, whatever they say they are; the channel is read from however the address names it.
func TestKept(t *testing.T) {
	t.Parallel()
	s := &store{}
	addr := serve(t, s)
	leg := uuid.New()
	for name, tc := range map[string]struct {
		query, contentType string
		body               string
		named              bool
	}{
		"plain":         {"?uuid=" + leg.String(), "application/json", "{}", true},
		"wrong type":    {"?uuid=" + leg.String(), "application/x-www-form-urlencoded", `{"a":"b%26&c=d"}`, true},
		"form":          {"?uuid=" + leg.String(), "application/x-www-form-urlencoded", "cdr=%7B%7D", true},
		"base64":        {"?uuid=a_" + leg.String(), "application/x-www-form-base64-encoded", "cdr=e30=", true},
		"two marks":     {"?x=1?uuid=" + leg.String(), "", "{ }", true},
		"no name":       {"", "", "{  }", false},
		"a wrong name":  {"?uuid=1234", "", "{   }", false},
		"no UTF-8":      {"?uuid=" + leg.String(), "text/\xff", "\xff\x00{nan}", true},
		"the largest":   {"?uuid=" + leg.String(), "", strings.Repeat("x", ingest.BodyLimit), true},
		"a line at end": {"?uuid=" + leg.String() + "&y", "", "{}\n", true},
	} {
		if status := post(t, addr, tc.query, strings.NewReader(tc.body), "Content-Type", tc.contentType); status != http.StatusOK {
			t.Errorf("%s: %d", name, status)
			continue
		}
		p := s.last(t)
		if string(p.Body) != tc.body || (p.LegID == leg) != tc.named || p.Source != cdr.SourcePost || p.Sender != "127.0.0.1" {
			t.Errorf("%s: %d bytes, leg %v, %s from %s", name, len(p.Body), p.LegID, p.Source, p.Sender)
		}
	}
	// A body whose length is not said beforehand.
	if status := post(t, addr, "", io.MultiReader(strings.NewReader("chun"), strings.NewReader("ked"))); status != http.StatusOK || string(s.last(t).Body) != "chunked" {
		t.Errorf("chunked: %d %q", status, s.last(t).Body)
	}
	if status := post(t, addr, "", strings.NewReader("swept"), ingest.HeaderFile, "a.cdr.json"); status != http.StatusOK || s.last(t).Source != cdr.SourceSweep || s.last(t).Sender != "a.cdr.json" {
		t.Errorf("swept: %d %+v", status, s.last(t))
	}
	if status := post(t, addr, "", strings.NewReader("swept")); status != http.StatusOK {
		t.Errorf("once more: %d", status)
	}
}

// curl, which FreeSWITCH sends with, asks before it sends a large body.
func TestExpectContinue(t *testing.T) {
	t.Parallel()
	s := &store{}
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", serve(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	// "switch:long enough" in base64.
	if _, err := io.WriteString(c, "POST /cdr?uuid=x HTTP/1.1\r\nHost: h\r\nAuthorization: Basic c3dpdGNoOmxvbmcgZW5vdWdo\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || string(s.last(t).Body) != "hello" {
		t.Errorf("%d %q", resp.StatusCode, s.last(t).Body)
	}
}

// Nobody else is let in, nothing empty or too large is taken, and what is not stored is not said to be.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := &store{}
	addr := serve(t, s)
	for name, authorization := range map[string]string{
		"none": "", "another password": "Basic c3dpdGNoOmxvbmcgZW5vdWdI", "another user": "Basic c3dpdGNJOmxvbmcgZW5vdWdo", "a bearer": "Bearer c3dpdGNoOmxvbmcgZW5vdWdo", "no base64": "Basic %%%",
	} {
		if status := post(t, addr, "", strings.NewReader("{}"), "Authorization", authorization); status != http.StatusUnauthorized {
			t.Errorf("%s: %d", name, status)
		}
	}
	if status := post(t, addr, "", http.NoBody); status != http.StatusBadRequest {
		t.Errorf("no body: %d", status)
	}
	if len(s.kept) != 0 {
		t.Errorf("kept: %v", s.kept)
	}
	s.mu.Lock()
	s.fail = errors.New("away")
	s.mu.Unlock()
	if status := post(t, addr, "", strings.NewReader("{}")); status != http.StatusServiceUnavailable {
		t.Errorf("not stored: %d", status)
	}
}
