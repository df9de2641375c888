package sender_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgvoip/edgvoip/internal/sender"
	"github.com/edgvoip/edgvoip/test/w3receiver"
	"github.com/edgvoip/edgvoip/webhook"
)

// Events arrive, signed, in order, and what came of each is written down.
func TestDelivery(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	for n := range 5 {
		w.add(t, subject(n), 4)
	}
	o := s.options(w)
	registry := prometheus.NewRegistry()
	o.Registry = registry
	stop := send(t, o)
	eventually(t, "all are delivered", func() bool { return w.state(t, webhook.Delivered) == 20 })
	stop()
	r := w.receiver.Report()
	if r.Received != 20 || r.Effects != 20 || len(r.Subjects) != 5 || len(r.OutOfOrder)+len(r.Refused)+len(r.Conflicts) != 0 {
		t.Errorf("%+v", r)
	}
	if n := s.number(t, `SELECT count(*) FROM edgvoip.webhook_attempts WHERE attempt = 1 AND status = 200 AND error IS NULL`); n != 20 {
		t.Errorf("%d attempts", n)
	}
	want := "# HELP edgvoip_webhook_attempts_total Attempts to send an event, by outcome: delivered, retried (it failed, and is tried again), dead (given up), unknown (not written down).\n" +
		"# TYPE edgvoip_webhook_attempts_total counter\n" + `edgvoip_webhook_attempts_total{outcome="delivered",tenant="shop"} 20` + "\n"
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "edgvoip_webhook_attempts_total"); err != nil {
		t.Error(err)
	}
	if strings.Contains(s.log.String(), w.secret.HMAC) || strings.Contains(s.log.String(), "callId") {
		t.Error("the log shows a secret or a body")
	}
}

// Whatever the receiver and the senders do, each event has its effect once, and those of a subject in order. One of two
// processes dies in the middle: it ends its claims no more, so that their leases run out.
func TestOnceAndInOrder(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	w.receiver.Behave(w3receiver.Behaviour{FailPercent: 15, DropPercent: 10, LiePercent: 10})
	// Repetition that waits seconds would take a test minutes: what has failed falls due at once, and a lease soon.
	quick := func(d *dying) *dying {
		d.quick = s
		return d
	}
	mortal := quick(&dying{Store: s.store(t)})
	mortal.deadline.Store(int64(20 + rand.IntN(20)))
	first, second := s.options(w), s.options(w)
	first.Store, second.Store = mortal, quick(&dying{Store: s.store(t)})
	send(t, first)
	send(t, second)
	const subjects, each = 20, 10
	var writers sync.WaitGroup
	for n := range subjects {
		writers.Go(func() {
			for range each {
				w.add(t, subject(n), 1)
			}
		})
	}
	writers.Wait()
	eventually(t, "all are delivered", func() bool { return w.state(t, webhook.Delivered) == subjects*each })
	r := w.receiver.Report()
	if r.Effects != subjects*each || len(r.OutOfOrder) != 0 || len(r.Conflicts) != 0 {
		t.Errorf("%d effects, out of order %v, conflicts %v", r.Effects, r.OutOfOrder, r.Conflicts)
	}
	for subject, n := range r.Subjects {
		if n != each {
			t.Errorf("%s: %d effects", subject, n)
		}
	}
	if r.Received <= r.Effects || mortal.lost.Load() == 0 {
		t.Errorf("nothing was repeated (%d received) or lost (%d)", r.Received, mortal.lost.Load())
	}
	t.Logf("%d effects of %d receptions; the dying sender lost %d outcomes", r.Effects, r.Received, mortal.lost.Load())
}

// errDead is what a dead process would say.
var errDead = errors.New("dead")

// dying is the store of a process that dies after a number of claims, of which nobody ever hears again.
type dying struct {
	sender.Store

	quick    *scene
	deadline atomic.Int64 // outcomes until it dies; zero means never
	ended    atomic.Int64
	lost     atomic.Int64
}

func (d *dying) dead() bool {
	deadline := d.deadline.Load()
	return deadline > 0 && d.ended.Load() >= deadline
}

func (d *dying) ClaimEvents(ctx context.Context, tenant uuid.UUID, limit int, lease time.Duration) ([]webhook.Delivery, error) {
	// It dies with something in its hands.
	if d.dead() && d.lost.Load() > 0 {
		return nil, errDead
	}
	return d.Store.ClaimEvents(ctx, tenant, limit, lease)
}

// end writes an outcome down, unless the process is dead: then the lease runs out, without the wait.
func (d *dying) end(ctx context.Context, e webhook.Delivery, write func() error) error {
	if !d.dead() {
		d.ended.Add(1)
		return write()
	}
	d.lost.Add(1)
	_, err := d.quick.raw.ExecContext(ctx, `UPDATE edgvoip.webhook_events SET due_at = now() WHERE tenant_id = $1 AND id = $2 AND attempts = $3`, e.TenantID, e.ID, e.Attempts)
	return errors.Join(errDead, err)
}

func (d *dying) DeliverEvent(ctx context.Context, e webhook.Delivery, a webhook.Attempt) error {
	return d.end(ctx, e, func() error { return d.Store.DeliverEvent(ctx, e, a) })
}

func (d *dying) RetryEvent(ctx context.Context, e webhook.Delivery, a webhook.Attempt, _ time.Duration) error {
	return d.end(ctx, e, func() error { return d.Store.RetryEvent(ctx, e, a, 0) })
}

// While one tenant's receiver hangs, with more to send to it than there are places, another's events all arrive.
func TestStuckTenant(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	stuck, other := s.tenant(t, "stuck"), s.tenant(t, "other")
	stuck.receiver.Behave(w3receiver.Behaviour{Hang: true})
	o := s.options(stuck, other)
	o.Shared, o.Timeout = 4, 30*time.Second
	for n := range 20 {
		stuck.add(t, subject(n), 1)
	}
	send(t, o)
	eventually(t, "the stuck tenant holds all places", func() bool { return stuck.state(t, webhook.Leased) == 5 })
	for n := range 50 {
		other.add(t, subject(100+n), 2)
	}
	eventually(t, "the other's are delivered", func() bool { return other.state(t, webhook.Delivered) == 100 })
	if n := stuck.state(t, webhook.Leased); n != 5 {
		t.Errorf("%d of the stuck tenant's are under way, want 5 still", n)
	}
	if r := other.receiver.Report(); r.Effects != 100 || r.Received != 100 {
		t.Errorf("%d received, %d effects", r.Received, r.Effects)
	}
}

// An address that may not be dialled is not, by name or by number, whatever else is allowed; a redirect leads nowhere.
func TestForbiddenAddresses(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	reached := make(chan string, 100)
	inside := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.Host }))
	t.Cleanup(inside.Close)
	port := inside.URL[strings.LastIndex(inside.URL, ":"):]
	resolver := names(t, map[string][]string{
		"loopback.example": {"127.0.0.1"}, "loopback6.example": {"::1"}, "private.example": {"10.0.0.1"}, "metadata.example": {"169.254.169.254"},
		"metadata6.example": {"fd00:ec2::254"}, "mapped.example": {"::ffff:127.0.0.1"}, "nat64.example": {"64:ff9b::7f00:1"},
		"sixtofour.example": {"2002:7f00:1::1"}, "cgnat.example": {"100.64.0.1"}, "unspecified.example": {"0.0.0.0"}, "both.example": {"127.0.0.1", "::1"},
		"link.example": {"fe80::1"},
	})
	o := s.options(w)
	o.AllowHTTP, o.Allow, o.Resolver = true, nil, resolver
	send(t, o)
	for _, host := range []string{
		"loopback.example", "loopback6.example", "private.example", "metadata.example", "metadata6.example", "mapped.example", "nat64.example", "sixtofour.example",
		"cgnat.example", "unspecified.example", "both.example", "link.example",
		"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "0.0.0.0", "[::]", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
		"[fd00:ec2::254]", "[fe80::1]", "100.64.0.1", "224.0.0.1", "[ff02::1]", "255.255.255.255",
	} {
		s.exec(t, `DELETE FROM edgvoip.webhook_events`)
		w.endpoint(t, "http://"+host+port)
		w.add(t, subject(1), 1)
		eventually(t, host+" was tried", func() bool {
			return s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE attempts > 0 AND last_error IS NOT NULL`) == 1
		})
		if n := s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE last_error LIKE '%may not be dialled%'`); n != 1 {
			var reason string
			_ = s.raw.QueryRowContext(t.Context(), `SELECT last_error FROM edgvoip.webhook_events`).Scan(&reason)
			t.Errorf("%s: %s", host, reason)
		}
	}
	select {
	case host := <-reached:
		t.Errorf("%s was reached", host)
	default:
	}
}

// A redirect is a failure, and is not followed.
func TestRedirect(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	var followed atomic.Int64
	there := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed.Add(1) }))
	t.Cleanup(there.Close)
	here := httptest.NewServer(http.RedirectHandler(there.URL, http.StatusTemporaryRedirect))
	t.Cleanup(here.Close)
	o := s.options(w)
	o.AllowHTTP = true
	w.endpoint(t, here.URL)
	w.add(t, subject(1), 1)
	send(t, o)
	eventually(t, "it failed", func() bool {
		return s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE last_error = 'answered 307' AND state = 'pending'`) == 1
	})
	if followed.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

// What is not to be sent is not claimed: no attempt is lost while an endpoint is paused, plain, or without a secret to
// sign with.
func TestNothingToSendTo(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	paused, plain, bare, works := s.tenant(t, "paused"), s.tenant(t, "plain"), s.tenant(t, "bare"), s.tenant(t, "works")
	no := false
	if _, err := webhook.NewProvisioner(s.db, false).Put(t.Context(), paused.id, webhook.Change{Active: &no}, "test"); err != nil {
		t.Fatal(err)
	}
	plain.endpoint(t, "http://127.0.0.1:9")
	if err := s.issuer().Revoke(t.Context(), bare.id, bare.secret.ID, "test"); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*tenant{paused, plain, bare} {
		w.add(t, subject(1), 1)
	}
	send(t, s.options(paused, plain, bare, works))
	eventually(t, "the others were looked at", func() bool {
		return strings.Contains(s.log.String(), "WEBHOOK_ALLOW_HTTP") && strings.Contains(s.log.String(), "no valid secret")
	})
	works.add(t, subject(2), 1)
	eventually(t, "one is delivered", func() bool { return works.state(t, webhook.Delivered) == 1 })
	if n := s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE attempts > 0`); n != 1 {
		t.Errorf("%d events were tried, want 1", n)
	}
	yes := true
	if _, err := webhook.NewProvisioner(s.db, false).Put(t.Context(), paused.id, webhook.Change{Active: &yes}, "test"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was paused is delivered", func() bool { return paused.state(t, webhook.Delivered) == 1 })
}

// During a rotation both signatures are sent, so that W3 may know either secret; after it only the new one.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	next, err := s.issuer().Rotate(t.Context(), w.id, time.Hour, "test")
	if err != nil {
		t.Fatal(err)
	}
	send(t, s.options(w))
	for n, known := range []string{w.secret.HMAC, next.HMAC} {
		w.receiver.Trust(known)
		w.add(t, subject(n), 1)
		eventually(t, "it is delivered", func() bool { return w.state(t, webhook.Delivered) == n+1 })
	}
	if err := s.issuer().Revoke(t.Context(), w.id, w.secret.ID, "test"); err != nil {
		t.Fatal(err)
	}
	w.receiver.Trust(w.secret.HMAC)
	// A claim that was under way read its keys before; the next one does not know the ended one.
	event := 2
	eventually(t, "the ended secret signs no more", func() bool {
		w.add(t, subject(event), 1)
		event++
		return w.receiver.Report().Refused["signature"] > 0
	})
}

// A receiver that does not answer is left alone after some failures: the rest of what waits loses no attempt. It is
// tried again after a pause, and all arrives when it works.
func TestBreaker(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	w.receiver.Behave(w3receiver.Behaviour{FailPercent: 100})
	for n := range 60 {
		w.add(t, subject(n), 1)
	}
	send(t, s.options(w))
	eventually(t, "the breaker opens", func() bool { return strings.Contains(s.log.String(), "receiver changed") })
	if n := s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE attempts = 0`); n < 30 {
		t.Errorf("only %d events have lost no attempt", n)
	}
	w.receiver.Behave(w3receiver.Behaviour{})
	// Of those that failed, some perhaps only now, the wait for the next attempt is left out.
	eventually(t, "all are delivered", func() bool {
		s.exec(t, `UPDATE edgvoip.webhook_events SET due_at = now() WHERE state = 'pending' AND attempts > 0`)
		return w.state(t, webhook.Delivered) == 60
	})
}

// An event is tried again when the receiver wants it, but not later than in an hour.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		header   string
		date     time.Duration // from now; the header is a date where it is not zero
		min, max int           // seconds
	}{
		{"120", 0, 110, 121},
		{"a date", 30 * time.Minute, 29 * 60, 1801},
		{"86400", 0, 3590, 3601},
		{"99999999999999999999", 0, 3590, 3601},
		// A second attempt may have been made by the time that the sender is stopped.
		{"a date in the past", -time.Hour, 0, 5},
		{"soon", 0, 0, 5},
		{"-5", 0, 0, 5},
	} {
		t.Run(tc.header, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			w := s.tenant(t, "shop")
			header := tc.header
			if tc.date != 0 {
				header = time.Now().Add(tc.date).UTC().Format(http.TimeFormat)
			}
			w.receiver.Behave(w3receiver.Behaviour{RetryAfter: header})
			w.add(t, subject(1), 1)
			stop := send(t, s.options(w))
			eventually(t, "it was answered", func() bool {
				return s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE last_error = 'answered 429'`) == 1
			})
			stop()
			n := s.number(t, `SELECT extract(epoch FROM e.due_at - a.at)::int FROM edgvoip.webhook_events e JOIN edgvoip.webhook_attempts a ON a.event_id = e.id
				ORDER BY a.attempt DESC LIMIT 1`)
			if n < tc.min || n > tc.max {
				t.Errorf("due %d s after the attempt, want %d to %d", n, tc.min, tc.max)
			}
		})
	}
}

// At shutdown what is under way is given its grace and then back, to be sent again at once.
func TestShutdown(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	w.receiver.Behave(w3receiver.Behaviour{Hang: true})
	w.add(t, subject(1), 1)
	o := s.options(w)
	o.Timeout = time.Minute
	stop := send(t, o)
	eventually(t, "it is under way", func() bool { return w.state(t, webhook.Leased) == 1 })
	stop()
	if n := s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE state = 'pending' AND due_at <= now() AND last_error LIKE 'interrupted%'`); n != 1 {
		t.Errorf("%d events were given back", n)
	}
	w.receiver.Behave(w3receiver.Behaviour{})
	send(t, s.options(w))
	eventually(t, "it is delivered", func() bool { return w.state(t, webhook.Delivered) == 1 })
}

// After its patience an event is given up, and the next of its subject is sent.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	w.receiver.Behave(w3receiver.Behaviour{Status: http.StatusBadRequest})
	w.add(t, subject(1), 2)
	s.exec(t, fmt.Sprintf(`UPDATE edgvoip.webhook_events SET first_attempt_at = now() - interval '%d seconds', attempts = 80 WHERE front`, int(webhook.Patience.Seconds())))
	send(t, s.options(w))
	eventually(t, "the first is dead", func() bool { return w.state(t, webhook.Dead) == 1 })
	eventually(t, "the second was tried", func() bool {
		return s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE state = 'pending' AND last_error = 'answered 400'`) == 1
	})
}

// An answer that is no HTTP, or does not end, shows nothing of itself.
func TestStrangeAnswers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer string
		want   string
	}{
		"no http":       {"+390612345678 calling\r\n\r\n", "the answer is not HTTP"},
		"closed":        {"", "the connection was closed before an answer (EOF)"},
		"endless":       {"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n", "answered 500"},
		"large headers": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), "the headers of the answer are too large"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			w := s.tenant(t, "shop")
			server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = conn.Write([]byte(tc.answer))
				if name == "endless" {
					<-r.Context().Done()
				}
				_ = conn.Close()
			}))
			t.Cleanup(server.Close)
			w.endpoint(t, server.URL)
			w.add(t, subject(1), 1)
			o := s.options(w)
			o.AllowHTTP, o.Timeout = true, time.Second
			send(t, o)
			eventually(t, "it failed", func() bool {
				return s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE last_error IS NOT NULL`) == 1
			})
			var reason string
			if err := s.raw.QueryRowContext(t.Context(), `SELECT last_error FROM edgvoip.webhook_events`).Scan(&reason); err != nil {
				t.Fatal(err)
			}
			if reason != tc.want {
				t.Errorf("%q, want %q", reason, tc.want)
			}
		})
	}
}

// A receiver whose certificate nobody vouches for is sent nothing.
func TestUntrustedCertificate(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	w.add(t, subject(1), 1)
	send(t, s.options()) // trusts nobody
	eventually(t, "it failed", func() bool {
		return s.number(t, `SELECT count(*) FROM edgvoip.webhook_events WHERE last_error LIKE '%failed to verify certificate%'`) == 1
	})
	if r := w.receiver.Report(); r.Received != 0 || len(r.Refused) != 0 {
		t.Errorf("%+v", r)
	}
}

// A proxy of the environment sees nothing: it would dial where we may not.
func TestProxyIsIgnored(t *testing.T) {
	var seen atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	t.Cleanup(proxy.Close)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	s := newScene(t)
	w := s.tenant(t, "shop")
	direct := httptest.NewServer(w.receiver)
	t.Cleanup(direct.Close)
	o := s.options(w)
	o.AllowHTTP, o.Resolver = true, names(t, map[string][]string{"w3.example": {"127.0.0.1"}})
	w.endpoint(t, "http://w3.example"+direct.URL[strings.LastIndex(direct.URL, ":"):])
	w.add(t, subject(1), 1)
	send(t, o)
	eventually(t, "it is delivered", func() bool { return w.state(t, webhook.Delivered) == 1 })
	if seen.Load() != 0 {
		t.Error("the proxy was asked")
	}
}

// A lane that is at work takes up another endpoint, and does not hold against it what the one before it did.
func TestEndpointChanged(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	before, after := s.tenant(t, "shop"), s.tenant(t, "mall")
	before.receiver.Behave(w3receiver.Behaviour{Hang: true})
	after.receiver.Trust(before.secret.HMAC)
	for n := range 30 {
		before.add(t, subject(n), 1)
	}
	o := s.options(before, after)
	o.Timeout = 2 * time.Second
	send(t, o)
	eventually(t, "the lane is full", func() bool { return before.state(t, webhook.Leased) == 8 })
	before.endpoint(t, after.server.URL)
	// Of those that hung, the wait for the next attempt is left out.
	eventually(t, "all are delivered", func() bool {
		s.exec(t, `UPDATE edgvoip.webhook_events SET due_at = now() WHERE state = 'pending' AND attempts > 0`)
		return before.state(t, webhook.Delivered) == 30
	})
	if r := after.receiver.Report(); r.Effects != 30 || len(r.Refused) != 0 {
		t.Errorf("%d effects, refused %v", r.Effects, r.Refused)
	}
}

// What waits, what was given up and how old it is can be seen of each tenant.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	s.exec(t, `UPDATE edgvoip.webhook_endpoints SET status = 'paused'`)
	for n := range 4 {
		w.add(t, subject(n), 1)
	}
	s.exec(t, `UPDATE edgvoip.webhook_events SET created_at = now() - interval '2 hours'`)
	s.exec(t, `UPDATE edgvoip.webhook_events SET state = 'dead', finished_at = now() WHERE subject = $1`, subject(0))
	o := s.options(w)
	registry := prometheus.NewRegistry()
	o.Registry = registry
	send(t, o)
	values := func() map[string]float64 {
		found := map[string]float64{}
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if m.GetGauge() != nil && m.GetLabel()[0].GetValue() == "shop" {
					found[f.GetName()] = m.GetGauge().GetValue()
				}
			}
		}
		return found
	}
	eventually(t, "it was counted", func() bool { return len(values()) == 3 })
	if v := values(); v["edgvoip_webhook_events_pending"] != 3 || v["edgvoip_webhook_events_dead"] != 1 || v["edgvoip_webhook_events_oldest_seconds"] < 7199 ||
		v["edgvoip_webhook_events_oldest_seconds"] > 7300 {
		t.Errorf("%v", v)
	}
}

// A tenant for whom nothing can be signed is told of once, and once more when it works.
func TestOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	w := s.tenant(t, "shop")
	s.exec(t, `UPDATE edgvoip.integration_secrets SET expires_at = now() - interval '1 hour'`)
	w.add(t, subject(1), 1)
	send(t, s.options(w))
	eventually(t, "it is told", func() bool { return strings.Contains(s.log.String(), "out of order") })
	for n := range 5 {
		w.add(t, subject(2+n), 1) // wakes the sender
	}
	s.exec(t, `UPDATE edgvoip.integration_secrets SET expires_at = NULL`)
	eventually(t, "it is delivered", func() bool { return w.state(t, webhook.Delivered) == 6 })
	if n := strings.Count(s.log.String(), "out of order"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if !strings.Contains(s.log.String(), "in order again") {
		t.Error("nobody is told that it works again")
	}
}
