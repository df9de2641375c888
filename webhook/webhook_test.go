package webhook_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/webhook"
)

func TestBaseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ base, url, target string }{
		"https://w3.example":             {"https://w3.example", "https://w3.example/api/webhooks/voip/cdr", "/api/webhooks/voip/cdr"},
		"https://w3.example/":            {"https://w3.example", "https://w3.example/api/webhooks/voip/cdr", "/api/webhooks/voip/cdr"},
		"HTTPS://W3.Example:8443/a/b.c/": {"https://w3.example:8443/a/b.c", "https://w3.example:8443/a/b.c/api/webhooks/voip/cdr", "/a/b.c/api/webhooks/voip/cdr"},
		"https://[2001:DB8::1]/x":        {"https://[2001:db8::1]/x", "https://[2001:db8::1]/x/api/webhooks/voip/cdr", "/x/api/webhooks/voip/cdr"},
		"https://[2001:db8::1]:444":      {"https://[2001:db8::1]:444", "https://[2001:db8::1]:444/api/webhooks/voip/cdr", "/api/webhooks/voip/cdr"},
		"http://192.0.2.1:80":            {"http://192.0.2.1:80", "http://192.0.2.1:80/api/webhooks/voip/cdr", "/api/webhooks/voip/cdr"},
	} {
		b, err := webhook.ParseBaseURL(text)
		if err != nil || b.String() != want.base || b.URL(webhook.CDR) != want.url || b.Target(webhook.CDR) != want.target {
			t.Errorf("%s: %q %q %q, %v", text, b, b.URL(webhook.CDR), b.Target(webhook.CDR), err)
		}
		if again, err := webhook.ParseBaseURL(b.String()); err != nil || again != b {
			t.Errorf("%s read again is %q, %v", b, again, err)
		}
		if b.Encrypted() != strings.HasPrefix(want.base, "https:") {
			t.Errorf("%s: encrypted %v", text, b.Encrypted())
		}
	}
	if b, err := webhook.ParseBaseURL("https://w3.example"); err != nil || b.Target(webhook.TrunkDeleted) != "/api/webhooks/voip/trunk" {
		t.Errorf("%q, %v", b.Target(webhook.TrunkDeleted), err)
	}
	for _, text := range []string{
		"", "https://", "https://a", "w3.example", "//w3.example/path", "/api/w3.example", "ftp://w3.example", "https:w3.example", "https:///w3.example",
		"https://user@w3.example", "https://user:s3cret@w3.example", "https://w3.example?x=1", "https://w3.example?", "https://w3.example#x", "https://w3.example#",
		"https://w3.example:", "https://w3.example:0", "https://w3.example:65536", "https://w3.example:x", "https://w3.example/a//b", "https://w3.example/../x",
		"https://w3.example/a/./b", "https://w3.example/a b", "https://w3.example/%2e%2e/x", "https://w3.example/é", "https://w3 .example", "https://w3.example\n",
		"https://w3_.example{}", "https://[fe80::1%25eth0]/x", "https://[::1", "https://w3.example/" + strings.Repeat("x", 512), "https://${x}.example", "javascript:alert(1)",
	} {
		b, err := webhook.ParseBaseURL(text)
		f, ok := errors.AsType[*invalid.FieldError](err)
		if !ok || f.Name != "baseUrl" || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %q, %v, want an error of baseUrl", text, b, err)
		}
	}
}

// registry is a webhook.Registry in memory.
type registry map[uuid.UUID]webhook.Endpoint

func (r registry) Endpoint(context.Context, uuid.UUID) (webhook.Endpoint, error) {
	return webhook.Endpoint{}, webhook.ErrNoEndpoint
}

func (r registry) ChangeEndpoint(_ context.Context, tenant uuid.UUID, change func(*webhook.Endpoint) (webhook.Endpoint, error), _ string) (webhook.Endpoint, error) {
	var stored *webhook.Endpoint
	if e, ok := r[tenant]; ok {
		stored = &e
	}
	e, err := change(stored)
	if err == nil {
		r[tenant] = e
	}
	return e, err
}

func (r registry) RemoveEndpoint(context.Context, uuid.UUID, string) error {
	return webhook.ErrNoEndpoint
}

func TestPut(t *testing.T) {
	t.Parallel()
	tenant := uuid.New()
	r := registry{}
	strict := webhook.NewProvisioner(r, false)
	no, plain, url := false, "http://w3.example", "https://w3.example"
	if _, err := strict.Put(t.Context(), tenant, webhook.Change{Active: &no}, "test"); !errors.Is(err, webhook.ErrNoEndpoint) {
		t.Errorf("pause of nothing: %v", err)
	}
	if _, err := strict.Put(t.Context(), tenant, webhook.Change{BaseURL: &plain}, "test"); err == nil || len(r) != 0 {
		t.Errorf("plain HTTP was taken: %v", r)
	}
	if e, err := webhook.NewProvisioner(r, true).Put(t.Context(), tenant, webhook.Change{BaseURL: &plain}, "test"); err != nil || !e.Active {
		t.Errorf("%+v, %v", e, err)
	}
	// What was given while it was allowed can still be paused.
	if e, err := strict.Put(t.Context(), tenant, webhook.Change{Active: &no}, "test"); err != nil || e.Active || e.BaseURL.String() != plain {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := strict.Put(t.Context(), tenant, webhook.Change{BaseURL: &url}, "test"); err != nil || e.Active || e.BaseURL.String() != url {
		t.Errorf("another URL: %+v, %v", e, err)
	}
}

// The signature is what openssl makes of the same bytes.
func TestSign(t *testing.T) {
	t.Parallel()
	// printf '%s' '1732060800POST/api/webhooks/voip/cdr{"a":"è"}' | openssl dgst -sha256 -hmac evs_example
	const first = "sha256=ab68c7ef1d191cfe874c291ffcfe55233567a65662da555a87f9db0357c7ecc5"
	const second = "sha256=0c9f8ecb348fdc3ab248169df6aa8e9db2be7f8dce8d406f6b7ad02c7248154d"
	body := []byte(`{"a":"è"}`)
	if got := webhook.Sign([]string{"evs_example"}, "1732060800", "/api/webhooks/voip/cdr", body); got != first {
		t.Errorf("%s, want %s", got, first)
	}
	if got := webhook.Sign([]string{"evs_example", "evs_other"}, "1732060800", "/api/webhooks/voip/cdr", body); got != first+", "+second {
		t.Errorf("%s, want both", got)
	}
	if got := webhook.Timestamp(time.Unix(1732060800, 999999999)); got != "1732060800" {
		t.Errorf("timestamp %s", got)
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "2a00:1450:4001::1", "100.63.255.255", "100.128.0.0", "172.15.0.1", "172.32.0.1"} {
		if !webhook.Networks(nil).Allow(netip.MustParseAddr(text)) {
			t.Errorf("%s is refused", text)
		}
	}
	for _, text := range []string{
		"127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "169.254.0.1", "100.64.0.1",
		"100.127.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
		"255.255.255.255", "192.88.99.1", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1",
		"64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "2002:a00:1::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254",
		"fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "ff0e::1",
	} {
		if webhook.Networks(nil).Allow(netip.MustParseAddr(text)) {
			t.Errorf("%s is allowed", text)
		}
	}
	allowed, err := webhook.ParseNetworks(" 10.20.0.0/16, fd00:1::/64,")
	if err != nil || len(allowed) != 2 {
		t.Fatalf("%v, %v", allowed, err)
	}
	for text, want := range map[string]bool{
		"10.20.255.1": true, "::ffff:10.20.0.1": true, "fd00:1::5": true, "1.1.1.1": true, "10.21.0.1": false, "fd00:2::5": false, "64:ff9b::a14:1": false, "127.0.0.1": false,
	} {
		if got := allowed.Allow(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: allowed %v, want %v", text, got, want)
		}
	}
	if empty, err := webhook.ParseNetworks(""); err != nil || len(empty) != 0 {
		t.Errorf("%v, %v", empty, err)
	}
	for _, text := range []string{"10.0.0.1/8", "10.0.0.0", "x", "::ffff:10.0.0.0/104", "10.0.0.0/33"} {
		if _, err := webhook.ParseNetworks(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// Waits are between nothing and a bound that doubles from a second to an hour; what the receiver asks for is kept up to
// an hour; the last attempt is when the patience ends, and after that the event is given up.
func TestJudge(t *testing.T) {
	t.Parallel()
	now := time.Now()
	rapid.Check(t, func(t *rapid.T) {
		attempts := rapid.IntRange(1, 1_000_000).Draw(t, "attempts")
		age := time.Duration(rapid.Int64Range(0, int64(2*webhook.Patience)).Draw(t, "age"))
		asked := time.Duration(rapid.Int64Range(0, int64(48*time.Hour)).Draw(t, "asked"))
		v := webhook.Delivery{Attempts: attempts, FirstAttemptAt: now.Add(-age)}.Judge(now, asked)
		if v.Dead != (age >= webhook.Patience) {
			t.Fatalf("given up %v", v.Dead)
		}
		if v.Dead {
			return
		}
		bound := time.Hour
		if attempts <= 12 {
			bound = min(bound, time.Second<<(attempts-1))
		}
		left := webhook.Patience - age
		if v.After <= 0 || v.After > min(left, max(bound, min(asked, time.Hour))) || v.After < min(left, asked, time.Hour) {
			t.Fatalf("%v, with %v left, a bound of %v, asked for %v", v.After, left, bound, asked)
		}
	})
	// The jitter is full: waits of one bound are spread over all of it.
	quarters := map[time.Duration]int{}
	for range 400 {
		quarters[webhook.Delivery{Attempts: 30, FirstAttemptAt: now}.Judge(now, 0).After/(15*time.Minute)]++
	}
	for q := range time.Duration(4) {
		if quarters[q] < 40 {
			t.Errorf("%d of 400 waits are in quarter %d of the bound", quarters[q], q)
		}
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	now := time.Now()
	var b webhook.Breaker
	fail := func(n int) {
		for range n {
			b.Failed(now, 0)
		}
	}
	is := func(what string, state webhook.BreakerState, room int) {
		t.Helper()
		if b.State(now) != state || b.Room(now, 5) != room {
			t.Errorf("%s: state %d with room for %d, want %d with %d", what, b.State(now), b.Room(now, 5), state, room)
		}
	}
	is("new", webhook.Closed, 5)
	fail(7)
	is("some failures", webhook.Closed, 5)
	b.Succeeded()
	fail(7)
	is("not in a row", webhook.Closed, 5)
	fail(1)
	is("in a row", webhook.Open, 0)
	fail(3) // of attempts that were under way
	now = now.Add(time.Second)
	is("after the pause", webhook.HalfOpen, 1)
	b.Begin()
	is("trying", webhook.HalfOpen, 0)
	fail(1)
	is("tried in vain", webhook.Open, 0)
	now = now.Add(time.Second)
	is("the second pause is longer", webhook.Open, 0)
	now = now.Add(time.Second)
	is("after the second pause", webhook.HalfOpen, 1)
	b.Begin()
	b.Succeeded()
	is("it works", webhook.Closed, 5)
	// The pauses end at a minute.
	for range 20 {
		fail(8)
		now = now.Add(time.Minute)
		is("after a minute", webhook.HalfOpen, 1)
	}
	b.Succeeded()
	b.Failed(now, 10*time.Second)
	is("asked to be left alone", webhook.Open, 0)
	now = now.Add(9 * time.Second)
	is("as long as it asked", webhook.Open, 0)
	now = now.Add(time.Second)
	is("and no longer", webhook.HalfOpen, 1)
	b.Failed(now, 24*time.Hour)
	now = now.Add(time.Minute)
	is("a day is too much", webhook.HalfOpen, 1)
}
