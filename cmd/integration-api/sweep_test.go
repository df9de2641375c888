package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const sweepCredentials = "switch:long enough"

// spool is a directory of a switch, and a server that takes call records as long as it has a mind to.
type spool struct {
	*testing.T
	dir, credentials string
	server           *httptest.Server

	mu     sync.Mutex
	taken  map[string]int // by body
	answer func(taken int) int
}

func newSpool(t *testing.T) *spool {
	t.Helper()
	s := &spool{T: t, dir: t.TempDir(), taken: map[string]int{}, answer: func(int) int { return http.StatusOK }}
	s.credentials = filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(s.credentials, []byte(sweepCredentials+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(sweepCredentials))
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		body, err := io.ReadAll(r.Body)
		status := s.answer(len(s.taken))
		if err != nil || r.Header.Get("Authorization") != want || r.Header.Get("X-Cdr-File") == "" || r.URL.Path != "/cdr" {
			status = http.StatusUnauthorized
		}
		if status == http.StatusOK {
			s.taken[string(body)]++
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.server.Close)
	return s
}

func (s *spool) write(name, body string) {
	s.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		s.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		s.Fatal(err)
	}
}

func (s *spool) sweep(ctx context.Context) (out string, err error) {
	s.Helper()
	var stdout, stderr bytes.Buffer
	err = run(ctx, []string{"cdr", "sweep", s.dir, "-url", s.server.URL + "/cdr"}, []string{"CDR_CREDENTIALS_FILE=" + s.credentials}, streams{nil, &stdout, &stderr})
	return stdout.String() + stderr.String(), err
}

func (s *spool) left() []string {
	s.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Files are sent and removed; what is no record, cannot be read or is still written stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	s := newSpool(t)
	s.write("a_99e8fd00-0948-4ff0-8ad3-7150443e7ee9.cdr.json", "{1}\n")
	s.write("99e8fd00-0948-4ff0-8ad3-7150443e7ee9.cdr.json", "{2}\n")
	s.write("odd name?.cdr.json", "{3}")
	s.write("empty.cdr.json", "\n")
	s.write("other.txt", "other")
	if err := os.WriteFile(filepath.Join(s.dir, "young.cdr.json"), []byte("{4"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(s.dir, "link.cdr.json")); err != nil {
		t.Fatal(err)
	}
	out, err := s.sweep(t.Context())
	if err == nil || !strings.Contains(out, "3 sent, 2 kept") || !strings.Contains(out, "empty.cdr.json: empty") || !strings.Contains(out, "link.cdr.json: no regular file") {
		t.Errorf("%v\n%s", err, out)
	}
	if got := fmt.Sprint(s.left()); got != "[empty.cdr.json link.cdr.json other.txt young.cdr.json]" {
		t.Errorf("left: %s", got)
	}
	if fmt.Sprint(s.taken) != "map[{1}:1 {2}:1 {3}:1]" {
		t.Errorf("taken: %v", s.taken)
	}
}

// While records are not taken, nothing is removed and no more is tried.
func TestSweepWhileAway(t *testing.T) {
	t.Parallel()
	s := newSpool(t)
	for i := range 5 {
		s.write(fmt.Sprint(i)+".cdr.json", fmt.Sprint(i))
	}
	asked := 0
	s.answer = func(taken int) int {
		if asked++; taken == 2 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	}
	if out, err := s.sweep(t.Context()); err == nil || len(s.left()) != 3 || asked != 3 || strings.Contains(out, "long enough") {
		t.Errorf("%v, %d files left after %d questions\n%s", err, len(s.left()), asked, out)
	}
	s.server.Close()
	if _, err := s.sweep(t.Context()); err == nil || len(s.left()) != 3 {
		t.Errorf("with nobody there: %v, %d files left", err, len(s.left()))
	}
}

// A sweep that ends in the middle, and others at the same time, lose nothing: each file was taken before it went.
func TestSweepInterrupted(t *testing.T) {
	t.Parallel()
	s := newSpool(t)
	const files = 60
	for i := range files {
		s.write(fmt.Sprintf("%03d.cdr.json", i), fmt.Sprint(i))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s.answer = func(taken int) int {
		if taken == 20 {
			stop()
		}
		return http.StatusOK
	}
	if _, err := s.sweep(ctx); err == nil {
		t.Error("an interrupted sweep says that all is well")
	}
	s.mu.Lock()
	if n := len(s.left()); n+len(s.taken) < files || n == 0 {
		t.Errorf("%d files left, %d taken", n, len(s.taken))
	}
	s.mu.Unlock()
	var sweeps sync.WaitGroup
	for range 3 {
		sweeps.Go(func() {
			if out, err := s.sweep(t.Context()); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	sweeps.Wait()
	if len(s.left()) != 0 || len(s.taken) != files {
		t.Errorf("%d files left, %d taken", len(s.left()), len(s.taken))
	}
}
