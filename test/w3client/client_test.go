package w3client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/test/w3client"
)

// seen is a request as it arrived.
type seen struct{ signature, key, body string }

// serve answers each request with the next of some answers, and then with the last for ever. It wants every request
// signed as the contract says.
func serve(t *testing.T, answers ...http.HandlerFunc) (c *w3client.Client, requests chan seen) {
	t.Helper()
	requests = make(chan seen, 32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		signature := r.Header.Get("X-Signature")
		if signature != integration.Sign("evs_x", r.Header.Get("X-Timestamp"), r.Method, r.RequestURI, body) || r.Header.Get("Authorization") != "Bearer evb_x" {
			t.Errorf("%s %s is not signed", r.Method, r.RequestURI)
		}
		n := min(len(requests), len(answers)-1)
		requests <- seen{signature, r.Header.Get("Idempotency-Key"), string(body)}
		answers[n](w, r)
	}))
	t.Cleanup(s.Close)
	return &w3client.Client{URL: s.URL, Bearer: "evb_x", HMAC: "evs_x", Pause: time.Microsecond}, requests
}

func status(n int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(n)
	}
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// half is an answer of which the end is missing.
func half(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "100")
	w.WriteHeader(http.StatusCreated)
	if err := http.NewResponseController(w).Flush(); err == nil {
		panic(http.ErrAbortHandler)
	}
}

// A request is sent again while its end is not known, under the same key, with another signature each time.
func TestAgain(t *testing.T) {
	t.Parallel()
	later := []string{"Retry-After", "0"}
	c, requests := serve(t, hangUp, half, status(503), status(500), status(408), status(429, later...), status(409, later...), status(201))
	a, err := c.Do(t.Context(), w3client.Request{Method: http.MethodPost, Path: "/extensions?x=%20y", Body: []byte(`{"a":1}`), Key: "k"})
	want := []string{w3client.NoAnswer, w3client.NoAnswer, "503", "500", "408", "429", "409", "201"}
	if err != nil || a.Status != http.StatusCreated || !slices.Equal(a.Outcomes, want) {
		t.Fatalf("%d %v %v, want %v", a.Status, a.Outcomes, err, want)
	}
	signatures := map[string]bool{}
	for range want {
		r := <-requests
		signatures[r.signature] = true
		if r.key != "k" || r.body != `{"a":1}` {
			t.Errorf("sent %+v", r)
		}
	}
	if len(signatures) != len(want) {
		t.Errorf("%d signatures of %d requests", len(signatures), len(want))
	}
}

// A connection that was kept and breaks is no reason to send the same signature again.
func TestKeptConnection(t *testing.T) {
	t.Parallel()
	for _, r := range []w3client.Request{
		{Method: http.MethodGet, Path: "/domains"},
		{Method: http.MethodDelete, Path: "/extensions/x", Key: "k"},
		{Method: http.MethodPost, Path: "/extensions", Body: []byte(`{}`), Key: "k"},
	} {
		c, requests := serve(t, status(200), hangUp, status(200))
		for _, want := range [][]string{{"200"}, {w3client.NoAnswer, "200"}} {
			if a, err := c.Do(t.Context(), r); err != nil || !slices.Equal(a.Outcomes, want) {
				t.Errorf("%s: %v %v, want %v", r.Method, a.Outcomes, err, want)
			}
		}
		if first, second, third := <-requests, <-requests, <-requests; first.signature == second.signature || second.signature == third.signature {
			t.Errorf("%s: one signature was sent twice", r.Method)
		}
	}
}

// What would be answered the same again is not sent again.
func TestOnce(t *testing.T) {
	t.Parallel()
	for _, n := range []int{200, 201, 400, 401, 403, 404, 409, 413, 415, 422} {
		c, _ := serve(t, status(n))
		if a, err := c.Do(t.Context(), w3client.Request{Method: http.MethodGet, Path: "/domains"}); err != nil || a.Status != n || len(a.Outcomes) != 1 {
			t.Errorf("%d: %v %v", n, a, err)
		}
	}
}

// It ends: after so many times, or with its context.
func TestEnd(t *testing.T) {
	t.Parallel()
	c, _ := serve(t, hangUp)
	c.Attempts = 3
	if a, err := c.Do(t.Context(), w3client.Request{Method: http.MethodGet, Path: "/domains"}); err == nil || len(a.Outcomes) != 3 {
		t.Errorf("%v %v", a, err)
	}
	c, _ = serve(t, status(503, "Retry-After", "3600"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	a, err := c.Do(ctx, w3client.Request{Method: http.MethodGet, Path: "/domains"})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "503") || len(a.Outcomes) != 1 {
		t.Errorf("Retry-After is not obeyed: %v %v", a, err)
	}
}
