package w3receiver_test

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/test/w3receiver"
	"github.com/edgvoip/edgvoip/webhook"
)

const key = "evs_example"

// sent is a webhook as our sender makes it.
func sent(at time.Time, keys ...string) *http.Request {
	body := []byte(`{"callId":"1"}`)
	const target = "/shop" + webhook.CDRPath
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPost, target, bytes.NewReader(body))
	stamp := webhook.Timestamp(at)
	for name, value := range map[string]string{
		"Content-Type": "application/json", webhook.HeaderKey: uuid.NewString(), webhook.HeaderTimestamp: stamp, webhook.HeaderSequence: "7",
		webhook.HeaderSubject: uuid.NewString(), webhook.HeaderEvent: string(webhook.CDR), webhook.HeaderSignature: webhook.Sign(keys, stamp, target, body),
	} {
		r.Header.Set(name, value)
	}
	return r
}

func receiver(t *testing.T, state string) *w3receiver.Receiver {
	t.Helper()
	r, err := w3receiver.New(w3receiver.Options{Secrets: []string{key}, State: state})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func status(r *w3receiver.Receiver, q *http.Request) int {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	return w.Code
}

// A call that turned out to be a part of another is known as such, also after the receiver was killed.
func TestAbsorbed(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state")
	part, whole := uuid.NewString(), uuid.NewString()
	event := func(sequence, body string) *http.Request {
		q := sent(time.Now(), key)
		fresh := httptest.NewRequestWithContext(t.Context(), q.Method, q.RequestURI, strings.NewReader(body))
		stamp := q.Header.Get(webhook.HeaderTimestamp)
		q.Body = fresh.Body
		q.Header.Set(webhook.HeaderSubject, part)
		q.Header.Set(webhook.HeaderSequence, sequence)
		q.Header.Set(webhook.HeaderSignature, webhook.Sign([]string{key}, stamp, q.RequestURI, []byte(body)))
		return q
	}
	r := receiver(t, state)
	for _, q := range []*http.Request{
		event("2", `{"callId":"`+part+`","absorbedBy":"`+whole+`","revision":2}`),
		// Given up and sent again later: it was so before.
		event("1", `{"callId":"`+part+`","revision":1}`),
	} {
		if got := status(r, q); got != http.StatusOK {
			t.Fatal(got)
		}
	}
	want := map[string]string{part: whole}
	if got := r.Report().Absorbed; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if got := receiver(t, state).Report().Absorbed; !maps.Equal(got, want) {
		t.Errorf("from its file: %v, want %v", got, want)
	}
}

// Whoever changes a webhook on its way, or makes one up, is not believed.
func TestTampering(t *testing.T) {
	t.Parallel()
	now := time.Now()
	body := func(q *http.Request, s string) {
		q.Body = http.NoBody
		if s != "" {
			fresh := httptest.NewRequestWithContext(context.Background(), q.Method, q.RequestURI, strings.NewReader(s))
			q.Body = fresh.Body
		}
	}
	for name, change := range map[string]func(q *http.Request){
		"body":                   func(q *http.Request) { body(q, `{"callId":"2"}`) },
		"longer body":            func(q *http.Request) { body(q, `{"callId":"1"} `) },
		"no body":                func(q *http.Request) { body(q, "") },
		"another path":           func(q *http.Request) { q.RequestURI = "/shop" + webhook.TrunkPath },
		"a query":                func(q *http.Request) { q.RequestURI += "?x" },
		"path moved to the body": func(q *http.Request) { q.RequestURI = "/shop"; body(q, webhook.CDRPath+`{"callId":"1"}`) },
		"another method":         func(q *http.Request) { q.Method = http.MethodPut },
		"a later timestamp":      func(q *http.Request) { q.Header.Set(webhook.HeaderTimestamp, webhook.Timestamp(now.Add(time.Second))) },
		"no timestamp":           func(q *http.Request) { q.Header.Del(webhook.HeaderTimestamp) },
		"no signature":           func(q *http.Request) { q.Header.Del(webhook.HeaderSignature) },
		"an empty signature":     func(q *http.Request) { q.Header.Set(webhook.HeaderSignature, "sha256=") },
		"a short signature": func(q *http.Request) {
			q.Header.Set(webhook.HeaderSignature, q.Header.Get(webhook.HeaderSignature)[:40])
		},
		"a bare signature": func(q *http.Request) {
			q.Header.Set(webhook.HeaderSignature, strings.TrimPrefix(q.Header.Get(webhook.HeaderSignature), "sha256="))
		},
		"another algorithm": func(q *http.Request) {
			q.Header.Set(webhook.HeaderSignature, strings.Replace(q.Header.Get(webhook.HeaderSignature), "sha256", "sha1", 1))
		},
		"another media type": func(q *http.Request) { q.Header.Set("Content-Type", "text/plain") },
		"no key":             func(q *http.Request) { q.Header.Del(webhook.HeaderKey) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := receiver(t, "")
			q := sent(now, key)
			change(q)
			if got := status(r, q); got != http.StatusUnauthorized {
				t.Errorf("answered %d", got)
			}
			if seen := r.Report(); seen.Effects != 0 || seen.Received != 0 || len(seen.Refused) != 1 {
				t.Errorf("%+v", seen)
			}
		})
	}
	for name, q := range map[string]*http.Request{
		"old": sent(now.Add(-301*time.Second), key), "of the future": sent(now.Add(302*time.Second), key), "of another secret": sent(now, "evs_other"),
	} {
		if got := status(receiver(t, ""), q); got != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	// Good ones: as they come, at the edges of the time, and with a second signature of a secret that is not known
	// here.
	for name, q := range map[string]*http.Request{
		"as it comes": sent(now, key), "old enough": sent(now.Add(-298*time.Second), key), "first of two": sent(now, key, "evs_other"), "second of two": sent(now, "evs_other", key),
	} {
		if got := status(receiver(t, ""), q); got != http.StatusOK {
			t.Errorf("%s: answered %d", name, got)
		}
	}
}

// The key is not signed. Overheard, a webhook has no effect a second time, under its own key or another.
func TestReplay(t *testing.T) {
	t.Parallel()
	r := receiver(t, "")
	q := sent(time.Now(), key)
	again := func(change func(http.Header)) int {
		q := q.Clone(t.Context())
		q.Body = httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", strings.NewReader(`{"callId":"1"}`)).Body
		change(q.Header)
		return status(r, q)
	}
	for _, step := range []struct {
		change func(http.Header)
		want   int
	}{
		{func(http.Header) {}, http.StatusOK},
		{func(http.Header) {}, http.StatusOK},
		{func(h http.Header) { h.Set(webhook.HeaderKey, uuid.NewString()) }, http.StatusUnauthorized},
	} {
		if got := again(step.change); got != step.want {
			t.Errorf("answered %d, want %d", got, step.want)
		}
	}
	if seen := r.Report(); seen.Effects != 1 || seen.Received != 2 || seen.Refused["replayed"] != 1 {
		t.Errorf("%+v", seen)
	}
}

// A receiver that comes back knows everything that it answered 200 for, and is not confused by a line that it was
// writing when it died.
func TestState(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state")
	r := receiver(t, state)
	var taking sync.WaitGroup
	keys := make([]string, 50)
	for n := range keys {
		taking.Go(func() {
			q := sent(time.Now(), key)
			keys[n] = q.Header.Get(webhook.HeaderKey)
			// Each is signed for itself: the same body in the same second would have the same signature.
			q = resigned(q, `{"callId":"`+keys[n]+`"}`)
			if got := status(r, q); got != http.StatusOK {
				t.Errorf("answered %d", got)
			}
		})
	}
	taking.Wait()
	before := r.Report()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(state, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"key":"half`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	back := receiver(t, state)
	after := back.Report()
	slices.Sort(keys)
	if after.Effects != 50 || !maps.Equal(after.Keys, before.Keys) || !slices.Equal(slices.Sorted(maps.Keys(after.Keys)), keys) {
		t.Errorf("%+v, before %+v", after, before)
	}
	if got := status(back, sent(time.Now(), key)); got != http.StatusOK {
		t.Errorf("answered %d", got)
	}
	if n := receiver(t, state).Report().Effects; n != 51 {
		t.Errorf("%d effects, want 51", n)
	}
	if _, err := w3receiver.New(w3receiver.Options{State: "receiver_test.go"}); err == nil {
		t.Error("a file that is not ours was taken")
	}
}

func resigned(q *http.Request, body string) *http.Request {
	out := httptest.NewRequestWithContext(context.Background(), http.MethodPost, q.RequestURI, strings.NewReader(body))
	out.Header = q.Header.Clone()
	out.Header.Set(webhook.HeaderSignature, webhook.Sign([]string{key}, out.Header.Get(webhook.HeaderTimestamp), q.RequestURI, []byte(body)))
	return out
}

// What arrives after something newer of its subject, and a key with two bodies, is told.
func TestOrderAndConflicts(t *testing.T) {
	t.Parallel()
	r := receiver(t, "")
	subject := uuid.NewString()
	send := func(key, sequence, body string) {
		t.Helper()
		q := sent(time.Now(), "evs_example")
		q.Header.Set(webhook.HeaderKey, key)
		q.Header.Set(webhook.HeaderSequence, sequence)
		q.Header.Set(webhook.HeaderSubject, subject)
		if got := status(r, resigned(q, body)); got != http.StatusOK {
			t.Errorf("%s: answered %d", key, got)
		}
	}
	send("a", "1", `{"n":1}`)
	send("c", "3", `{"n":3}`)
	send("b", "2", `{"n":2}`)
	send("a", "1", `{"n":9}`)
	if seen := r.Report(); !slices.Equal(seen.OutOfOrder, []string{"b"}) || !slices.Equal(seen.Conflicts, []string{"a"}) || seen.Effects != 3 || seen.Subjects[subject] != 3 {
		t.Errorf("%+v", seen)
	}
}

func TestBehaviour(t *testing.T) {
	t.Parallel()
	r := receiver(t, "")
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	client := &http.Client{Timeout: 200 * time.Millisecond}
	for _, tc := range []struct {
		behaviour w3receiver.Behaviour
		want      int // zero: no answer
		taken     bool
	}{
		{w3receiver.Behaviour{}, 200, true},
		{w3receiver.Behaviour{FailPercent: 100}, 500, false},
		{w3receiver.Behaviour{RetryAfter: "7"}, 429, false},
		{w3receiver.Behaviour{Status: 404}, 404, false},
		{w3receiver.Behaviour{LiePercent: 100}, 500, true},
		{w3receiver.Behaviour{DropPercent: 100}, 0, true},
		{w3receiver.Behaviour{Hang: true}, 0, false},
		{w3receiver.Behaviour{DelayMillis: 60_000}, 0, false},
	} {
		r.Behave(tc.behaviour)
		before := r.Report().Effects
		q := sent(time.Now(), key)
		// The same second has the same signature: each has a body of its own.
		q = resigned(q, `{"callId":"`+q.Header.Get(webhook.HeaderKey)+`"}`)
		out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+q.RequestURI, q.Body)
		if err != nil {
			t.Fatal(err)
		}
		out.Header = q.Header
		got, retryAfter := 0, ""
		if resp, err := client.Do(out); err == nil {
			got, retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
			_ = resp.Body.Close()
		}
		if got != tc.want || retryAfter != tc.behaviour.RetryAfter || (r.Report().Effects > before) != tc.taken {
			t.Errorf("%+v: answered %d, Retry-After %q, %d effects before, %d after", tc.behaviour, got, retryAfter, before, r.Report().Effects)
		}
	}
}
