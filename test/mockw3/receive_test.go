package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/test/w3receiver"
)

// What makes no sense is refused by what is wrong with it, and secrets are not shown.
func TestReceiveOptions(t *testing.T) {
	t.Parallel()
	state, secrets, empty := filepath.Join(t.TempDir(), "state"), write(t, "evs_hidden\n"), write(t, "\n")
	for want, args := range map[string]string{
		"-state":                   "-secrets " + secrets,
		"-secrets":                 "-state " + state,
		"-cert and -key":           "-state " + state + " -secrets " + secrets + " -cert x",
		"no arguments":             "-state " + state + " -secrets " + secrets + " x",
		"there is no secret in it": "-state " + state + " -secrets " + empty,
		"no such file":             "-state " + state + " -secrets /nowhere",
		"the state is not ours":    "-state " + secrets + " -secrets " + secrets,
		"missing port":             "-state " + state + " -secrets " + secrets + " -addr nowhere",
		"-gateway":                 "-state " + state + " -secrets " + secrets + " -gateway 127.0.0.1:8090",
	} {
		err := run(t.Context(), append([]string{"receive"}, strings.Fields(args)...), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// It misbehaves as it is told while it runs, and tells what it has seen.
func TestControl(t *testing.T) {
	t.Parallel()
	receiver, err := w3receiver.New(w3receiver.Options{Secrets: []string{"evs_example"}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(controlled(receiver, nil))
	t.Cleanup(s.Close)
	do := func(method, path, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b.String()
	}
	for _, step := range []struct {
		method, path, body string
		want               int
	}{
		{http.MethodPost, "/any/api/webhooks/voip/cdr", "{}", 401},
		{http.MethodPut, "/mock/behaviour", `{"failPercent": 100}`, 204},
		{http.MethodPost, "/any/api/webhooks/voip/cdr", "{}", 500},
		{http.MethodPut, "/mock/behaviour", `{"fail": 100}`, 400},
		{http.MethodPut, "/mock/behaviour", `{"retryAfter": "5"}`, 204},
		{http.MethodPost, "/any/api/webhooks/voip/cdr", "{}", 429},
	} {
		if got, body := do(step.method, step.path, step.body); got != step.want {
			t.Errorf("%s %s %s: %d %s, want %d", step.method, step.path, step.body, got, body, step.want)
		}
	}
	var r w3receiver.Report
	if _, body := do(http.MethodGet, "/mock/report", ""); json.Unmarshal([]byte(body), &r) != nil || r.Refused["timestamp"] != 1 {
		t.Errorf("report %s", body)
	}
}

// The gateway gets the request for a session as it was signed, and its own address in Host, which it makes the address
// of the channel from.
func TestForwardsToGateway(t *testing.T) {
	t.Parallel()
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.Host, r.URL.Path, r.Header.Get("X-Timestamp"), r.Header.Get("X-edgvoip-Signature"), string(b)}, " "))
	}))
	t.Cleanup(gateway.Close)
	at, err := url.Parse(gateway.URL)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := w3receiver.New(w3receiver.Options{Secrets: []string{"evs_example"}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(controlled(receiver, at))
	t.Cleanup(s.Close)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+aisession.SessionPath, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Timestamp", "1732060800")
	r.Header.Set("X-edgvoip-Signature", "sha256=00")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if want := "POST " + at.Host + " " + aisession.SessionPath + " 1732060800 sha256=00 {}"; err != nil || string(got) != want {
		t.Errorf("the gateway got %q, %v, want %q", got, err, want)
	}
}
