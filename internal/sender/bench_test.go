package sender_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/test/w3receiver"
)

// How long an event of one tenant takes from being written to being taken, alone and beside a tenant with 10 000 events
// whose receiver hangs, in turns of one run: the 99th percentile beside it may be a tenth more at most. An iteration is
// an event of each.
func BenchmarkStuckTenant(b *testing.B) {
	const round = 250 // events until it is the other's turn
	s := newScene(b)
	stuck, other := s.tenant(b, "stuck"), s.tenant(b, "other")
	stuck.receiver.Behave(w3receiver.Behaviour{Hang: true})
	other.watch(b)
	s.exec(b, `ALTER TABLE edgvoip.webhook_events DISABLE TRIGGER line_up`)
	s.exec(b, `INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, front)
		SELECT $1, gen_random_uuid(), 'cdr', gen_random_uuid(), '{}', true FROM generate_series(1, 10000)`, stuck.id)
	s.exec(b, `ALTER TABLE edgvoip.webhook_events ENABLE TRIGGER line_up`)
	s.exec(b, `VACUUM ANALYZE edgvoip.webhook_events`)
	o := s.options(stuck, other)
	o.Timeout = time.Minute
	times := map[bool][]time.Duration{}
	one := func(beside bool) {
		s.exec(b, `UPDATE edgvoip.webhook_endpoints SET status = CASE WHEN $2 THEN 'active' ELSE 'paused' END WHERE tenant_id = $1`, stuck.id, beside)
		s.exec(b, `UPDATE edgvoip.webhook_events SET state = 'pending', attempts = 0, due_at = created_at WHERE state = 'leased'`)
		o.Registry = prometheus.NewRegistry()
		stop := send(b, o)
		for n := range round + 20 {
			took := other.deliver(b)
			if n >= 20 { // the first ones wait for connections
				times[beside] = append(times[beside], took)
			}
		}
		if leased := stuck.state(b, "leased"); (leased == 8) != beside {
			b.Fatalf("%d attempts of the stuck tenant are under way", leased)
		}
		stop()
	}
	for n := 0; n < b.N; n += round {
		one(false)
		one(true)
	}
	for beside, name := range map[bool]string{false: "alone", true: "beside"} {
		all := times[beside]
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-"+name+"-ms")
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-"+name+"-ms")
	}
	b.ReportMetric(0, "ns/op") // says nothing here
}

// watch lets deliver wait for what the tenant's receiver takes.
func (w *tenant) watch(t testing.TB) {
	t.Helper()
	w.taken = make(chan string, 1)
	var err error
	w.receiver, err = w3receiver.New(w3receiver.Options{Secrets: []string{w.secret.HMAC}, Took: func(_, subject string, _ []byte) {
		w.taken <- subject
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.server.Config.Handler = w.receiver
}

// deliver writes an event and returns how long it took to arrive.
func (w *tenant) deliver(t testing.TB) time.Duration {
	t.Helper()
	subject := uuid.New()
	start := time.Now()
	w.add(t, subject, 1)
	select {
	case got := <-w.taken:
		if got != subject.String() {
			t.Fatalf("%s arrived, want %s", got, subject)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not arrive")
	}
	return time.Since(start)
}
