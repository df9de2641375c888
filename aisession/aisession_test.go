package aisession_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/webhook"
)

const answer = `{"sessionId":"s-1","sdpOffer":"v=0","wsEndpoint":"wss://gateway.example/channel/1?x=y","token":"t0ken",
	"iceServers":[{"urls":"stun:stun.example"},{"urls":["turn:turn.example:3478?transport=udp"],"username":"u","credential":"c"}],"expiresAt":"2026-11-21T10:00:00Z","more":1}`

var before = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

func TestParseSession(t *testing.T) {
	t.Parallel()
	s, err := aisession.ParseSession([]byte(answer), false, before)
	if err != nil || s.ID != "s-1" || s.Offer != "v=0" || s.Endpoint.Host != "gateway.example" || s.Token != "t0ken" || len(s.ICEServers) != 2 ||
		s.ICEServers[1].URLs[0] != "turn:turn.example:3478?transport=udp" {
		t.Fatalf("%+v, %v", s, err)
	}
	if s, err := aisession.ParseSession([]byte(`{"sessionId":"1","sdp":{"type":"offer","sdp":"v=0"},"wsEndpoint":"ws://h/"}`), true, before); err != nil || s.Offer != "v=0" {
		t.Errorf("%+v, %v", s, err)
	}
	if strings.Contains(s.String()+s.GoString(), "t0ken") {
		t.Error("a session shows its token")
	}
	for _, tc := range []struct{ field, old, new string }{
		{"body", `"more":1}`, `"more":1`},
		{"body", `"more":1}`, `"more":1}{}`},
		{"body", `"s-1"`, `1`},
		{"sessionId", `"s-1"`, `""`},
		{"sessionId", `"s-1"`, `"s 1"`},
		{"sdpOffer", `"v=0"`, `""`},
		{"sdpOffer", `v=0`, strings.Repeat("x", 33<<10)},
		{"sdp", `"more":1`, `"sdp":{"type":"offer","sdp":"v=0"}`},
		{"sdp.type", `"sdpOffer":"v=0"`, `"sdp":{"type":"answer","sdp":"v=0"}`},
		{"wsEndpoint", `wss://`, `ws://`},
		{"wsEndpoint", `wss://`, `https://`},
		{"wsEndpoint", `wss://`, `wss://u:p@`},
		{"wsEndpoint", `wss://gateway.example/channel/1?x=y`, ``},
		{"wsEndpoint", `?x=y`, `#x`},
		{"iceServers", `stun:stun.example`, `http://stun.example`},
		{"iceServers", `stun:stun.example`, `stun:`},
		{"iceServers", `["turn:turn.example:3478?transport=udp"]`, `[]`},
		{"iceServers", `["turn:turn.example:3478?transport=udp"]`, `["stun:x"` + strings.Repeat(`,"stun:x"`, 15) + `]`},
		{"iceServers", `stun:stun.example`, `stun:stun.example?transport=udp`},
		{"iceServers", `transport=udp`, `transport=sctp`},
		{"iceServers", `turn.example:3478?transport=udp`, `?transport=udp`},
		{"iceServers", `"username":"u",`, ``},
		{"iceServers", `"username":"u"`, `"username":""`},
		{"iceServers", `,"credential":"c"`, ``},
		{"iceServers", `"credential":"c"`, `"credential":""`},
		{"token", `t0ken`, `t0ken\r\nX: y`},
		{"expiresAt", `10:00:00Z`, `08:00:00Z`},
	} {
		_, err := aisession.ParseSession([]byte(strings.Replace(answer, tc.old, tc.new, 1)), false, before)
		var field *invalid.FieldError
		if !errors.As(err, &field) || field.Name != tc.field {
			t.Errorf("%s for %.40s: %v, want an error that names %s", tc.new, tc.old, err, tc.field)
		} else if strings.Contains(err.Error(), "t0ken") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}

func TestParseMessage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]aisession.MessageType{
		`{"type":"candidate","candidate":{"candidate":"candidate:1 1 udp 1 192.0.2.1 1 typ host","sdpMid":"0","sdpMLineIndex":0}}`: aisession.TypeCandidate,
		`{"type":"candidate","candidate":{"candidate":""}}`:                                                                        aisession.TypeCandidate,
		`{"type":"hangup","reason":"normal"}`:                                                                                      aisession.TypeHangup,
		`{"type":"hangup","reason":"failure","text":"more than we know"}`:                                                          aisession.TypeHangup,
		`{"type":"transfer","to":"1002"}`:                                                                                          aisession.TypeTransfer,
		`{"type":"error","code":"model_unavailable","message":"for somebody"}`:                                                     aisession.TypeError,
	} {
		if m, err := aisession.ParseMessage([]byte(in)); err != nil || m.Type != want {
			t.Errorf("%s: %v, %v", in, m.Type, err)
		}
	}
	if _, err := aisession.ParseMessage([]byte(`{"type":"mood"}`)); !errors.Is(err, aisession.ErrUnknownMessage) {
		t.Errorf("an unknown type: %v", err)
	}
	for in, field := range map[string]string{
		`x`: "message", `{}`: "type", `[]`: "message", `{"type":"answer","sdp":"v=0"}`: "type", `{"type":"hold","active":true}`: "type",
		`{"type":"candidate"}`: "candidate", `{"type":"hangup"}`: "reason", `{"type":"hangup","reason":"transferred"}`: "reason",
		`{"type":"transfer"}`: "to", `{"type":"transfer","to":"+390612345678"}`: "to", `{"type":"transfer","to":"1002@evil.example"}`: "to",
		`{"type":"transfer","to":"${system(id)}"}`: "to", `{"type":"error","code":"a b"}`: "code", `{"type":"hangup","reason":"normal"}{}`: "message",
	} {
		_, err := aisession.ParseMessage([]byte(in))
		var f *invalid.FieldError
		if !errors.As(err, &f) || f.Name != field {
			t.Errorf("%s: %v, want an error that names %s", in, err, field)
		}
	}
}

// What is taken of a gateway's message is what may be acted on, whatever it sends.
func FuzzParseMessage(f *testing.F) {
	f.Add([]byte(`{"type":"transfer","to":"1002"}`))
	f.Add([]byte(`{"type":"candidate","candidate":{"candidate":"x","sdpMid":"0"}}`))
	f.Add([]byte(`{"type":"hangup","reason":"normal"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := aisession.ParseMessage(b)
		if err != nil {
			return
		}
		switch {
		case m.Type == aisession.TypeTransfer && (m.To == "" || strings.Trim(m.To, "0123456789") != ""),
			m.Type == aisession.TypeCandidate && m.Candidate == nil,
			m.Type == aisession.TypeHangup && m.Reason != aisession.HangupNormal && m.Reason != aisession.HangupFailure,
			m.Type == aisession.TypeAnswer, m.Type == aisession.TypeHold:
			t.Errorf("%q became %+v", b, m)
		}
	})
}

// A session is whole or refused.
func FuzzParseSession(f *testing.F) {
	f.Add([]byte(answer))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := aisession.ParseSession(b, false, before)
		if err == nil && (s.ID == "" || s.Offer == "" || s.Endpoint.Scheme != "wss" || s.Endpoint.Host == "" || strings.ContainsAny(s.Token, "\r\n ")) {
			t.Errorf("%q became %+v", b, s)
		}
	})
}

// clock is one that is set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// A breaker opens after failures in a row, lets one call try when its pause is over, and closes when that one works.
func TestBreakers(t *testing.T) {
	t.Parallel()
	c := &clock{t: before}
	b := aisession.NewBreakers(c.now)
	enter := func(v aisession.Verdict) bool {
		done, ok := b.Enter("https://one")
		if ok {
			done(v)
		}
		return ok
	}
	for range 4 {
		enter(aisession.Broken)
	}
	enter(aisession.Works)
	for i := range 5 {
		enter(aisession.Undecided)
		if !enter(aisession.Broken) {
			t.Fatalf("open after %d", i)
		}
	}
	if enter(aisession.Works) || b.Open() != 1 {
		t.Error("it is not open")
	}
	if _, ok := b.Enter("https://another"); !ok {
		t.Error("another gateway is left alone, too")
	}
	c.add(time.Second)
	probe, ok := b.Enter("https://one")
	if _, second := b.Enter("https://one"); !ok || second {
		t.Errorf("half open: the first %v, the second %v", ok, second)
	}
	probe(aisession.Undecided) // the caller hung up: the next one tries
	if probe, ok = b.Enter("https://one"); !ok {
		t.Fatal("nobody may try any more")
	}
	probe(aisession.Broken)
	c.add(time.Second)
	if enter(aisession.Works) {
		t.Error("the second pause is as short as the first")
	}
	c.add(time.Second)
	for range 2 {
		if !enter(aisession.Works) || b.Open() != 0 {
			t.Error("it is not closed")
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	l := aisession.NewLimits(3, 2)
	one, two := uuid.New(), uuid.New()
	leave, err := l.Enter(one)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		tenant uuid.UUID
		want   error
	}{{one, nil}, {one, aisession.ErrTooManyOfATenant}, {two, nil}, {two, aisession.ErrTooMany}} {
		if _, err := l.Enter(tc.tenant); !errors.Is(err, tc.want) {
			t.Errorf("%v, want %v", err, tc.want)
		}
	}
	leave()
	if _, err := l.Enter(one); err != nil {
		t.Error(err)
	}
}

// store gives trunks, or an error.
type store struct {
	mu     sync.Mutex
	trunks []aisession.Trunk
	err    error
	wake   func()
	heard  chan struct{}
}

func (s *store) AITrunks(context.Context) ([]aisession.Trunk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trunks, s.err
}

func (s *store) set(err error, trunks ...aisession.Trunk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trunks, s.err = trunks, err
}

func (s *store) ListenForChanges(ctx context.Context, wake func()) error {
	s.wake = wake
	close(s.heard)
	<-ctx.Done()
	return ctx.Err()
}

// Trunks are known after the first read, change when the store says so, and stay while it is away.
func TestTrunks(t *testing.T) {
	t.Parallel()
	s := &store{heard: make(chan struct{})}
	trunks := aisession.NewTrunks(aisession.TrunksOptions{Store: s, Interval: time.Hour, Timeout: time.Second, Log: slog.New(slog.DiscardHandler)})
	one := aisession.Trunk{ID: uuid.New(), AgentRef: "anna"}
	if _, err := trunks.Trunk(one.ID); !errors.Is(err, aisession.ErrNotReady) || trunks.Ready() == nil || trunks.Age() != 0 {
		t.Errorf("before the first read: %v", err)
	}
	s.set(nil, one)
	if err := trunks.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := trunks.Trunk(one.ID); err != nil || got.AgentRef != "anna" || trunks.Ready() != nil {
		t.Errorf("%+v, %v", got, err)
	}
	s.set(errors.New("away"))
	if err := trunks.Read(t.Context()); err == nil {
		t.Error("no error")
	}
	if _, err := trunks.Trunk(one.ID); err != nil {
		t.Errorf("while the store is away: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		trunks.Run(ctx)
	}()
	<-s.heard
	s.set(nil)
	s.wake()
	deadline := time.After(10 * time.Second)
	for {
		if _, err := trunks.Trunk(one.ID); errors.Is(err, aisession.ErrUnknownTrunk) {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the change was not heard of")
		case <-time.After(time.Millisecond):
		}
	}
	stop()
	<-done
}

// gateway answers requests for sessions.
type gateway struct {
	server *httptest.Server
	trunk  aisession.Trunk
	client *aisession.Client
}

const hmacSecret = "evs_a-secret"

func newGateway(t *testing.T, allow string, h http.HandlerFunc) gateway {
	t.Helper()
	line, err := secret.NewKeyLine("k")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := secret.ParseKeyRing([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	g := gateway{server: httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h(w, r)
	}))}
	t.Cleanup(g.server.Close)
	base, err := webhook.ParseBaseURL(g.server.URL + "/w3")
	if err != nil {
		t.Fatal(err)
	}
	tenant, id := uuid.New(), uuid.New()
	g.trunk = aisession.Trunk{ID: uuid.New(), TenantID: tenant, AgentRef: "anna", Gateway: base, Secrets: []integration.Secret{
		{ID: id, TenantID: tenant, HMAC: keys.Seal([]byte(hmacSecret), "hmac|"+tenant.String()+"|"+id.String())},
		{ID: id, TenantID: tenant, HMAC: keys.Seal([]byte("of old"), "hmac|"+tenant.String()+"|"+id.String()), ExpiresAt: time.Now().Add(-time.Hour)},
	}}
	networks, err := webhook.ParseNetworks(allow)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(g.server.Certificate())
	g.client = aisession.NewClient(aisession.Options{Keys: keys, Budget: 500 * time.Millisecond, Allow: networks, Roots: roots})
	t.Cleanup(g.client.Close)
	return g
}

func (g gateway) open(ctx context.Context) (aisession.Session, error) {
	return g.client.Open(ctx, g.trunk, aisession.SessionRequest{CallID: "c-1", CallerNumber: "+390612345678", AgentRef: "anna", TenantID: g.trunk.TenantID.String()})
}

const sessionAnswer = `{"sessionId":"s-1","sdpOffer":"v=0","wsEndpoint":"wss://gateway.example/"}`

// A request is signed as docs/ai-gateway.md says, with the secrets that have not ended.
func TestOpen(t *testing.T) {
	t.Parallel()
	var header http.Header
	var body map[string]any
	g := newGateway(t, "127.0.0.0/8", func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		b, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(b, &body) != nil {
			t.Errorf("%s, %v", b, err)
		}
		want := "sha256=" + integration.Sign(hmacSecret, r.Header.Get("X-Timestamp"), "POST", "/w3/api/voip/ai-gateway/session", b)
		if r.Header.Get("X-edgvoip-Signature") != want {
			t.Errorf("signature %q, want %q", r.Header.Get("X-edgvoip-Signature"), want)
		}
		_, _ = w.Write([]byte(sessionAnswer))
	})
	s, err := g.open(t.Context())
	if err != nil || s.ID != "s-1" {
		t.Fatal(s, err)
	}
	if header.Get("X-Idempotency-Key") != "c-1" || body["callId"] != "c-1" || body["aiAgentRef"] != "anna" || body["storeId"] != nil {
		t.Errorf("%v, %v", header, body)
	}
}

// Whatever is wrong with a gateway is an error, in time, that shows neither what it said nor where it is.
func TestOpenFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		is     func(error) bool
	}{
		"late":       {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, func(err error) bool { return errors.Is(err, aisession.ErrLate) }},
		"slow body":  {func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() }, func(err error) bool { return errors.Is(err, aisession.ErrLate) }},
		"refused":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, func(err error) bool { return able(err, true) }},
		"accepted":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) }, func(err error) bool { return able(err, false) }},
		"no content": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, func(err error) bool { return able(err, false) }},
		"overloaded": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, func(err error) bool { return able(err, false) }},
		"broken":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, func(err error) bool { return able(err, false) }},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, func(err error) bool { return able(err, false) }},
		"no session": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("s3cret")) }, isField},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat(" ", 200<<10) + sessionAnswer))
		}, func(err error) bool { return err != nil }},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, "127.0.0.0/8", tc.answer)
			_, err := g.open(t.Context())
			if !tc.is(err) {
				t.Fatalf("%v", err)
			}
			if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), g.server.URL) {
				t.Errorf("the error shows too much: %v", err)
			}
		})
	}
}

func able(err error, want bool) bool {
	var refused *aisession.RefusedError
	return errors.As(err, &refused) && refused.Able() == want
}

func isField(err error) bool {
	var field *invalid.FieldError
	return errors.As(err, &field)
}

// Nobody is dialled who is not on the public Internet, unless it is allowed, nor without TLS, nor unsigned.
func TestForbidden(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "", func(http.ResponseWriter, *http.Request) { t.Error("it was asked") })
	if _, err := g.open(t.Context()); !errors.Is(err, aisession.ErrForbidden) {
		t.Errorf("loopback: %v", err)
	}
	s, err := aisession.ParseSession([]byte(strings.Replace(sessionAnswer, "gateway.example", strings.TrimPrefix(g.server.URL, "https://"), 1)), false, before)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.client.Dial(t.Context(), s); !errors.Is(err, aisession.ErrForbidden) {
		t.Errorf("the channel: %v", err)
	}
	plain, err := webhook.ParseBaseURL("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	secrets := g.trunk.Secrets
	g.trunk.Gateway = plain
	if _, err := g.open(t.Context()); !errors.Is(err, aisession.ErrPlain) {
		t.Errorf("plain HTTP: %v", err)
	}
	h := newGateway(t, "127.0.0.0/8", func(http.ResponseWriter, *http.Request) { t.Error("it was asked unsigned") })
	h.trunk.Secrets = nil
	if _, err := h.open(t.Context()); !errors.Is(err, aisession.ErrNoSecret) {
		t.Errorf("no secret: %v", err)
	}
	h.trunk.Secrets = secrets[1:]
	if _, err := h.open(t.Context()); !errors.Is(err, aisession.ErrNoSecret) {
		t.Errorf("a secret that has ended: %v", err)
	}
	for u, want := range map[string]bool{
		"stun:127.0.0.1": false, "turn:10.0.0.1:3478?transport=tcp": false, "stun:[::1]:3478": false, "stun:169.254.169.254": false,
		"stun:stun.example:3478": true, "turns:8.8.8.8": true,
	} {
		if got := g.client.AllowsICEServer(u); got != want {
			t.Errorf("%s: %v", u, got)
		}
	}
}
