package sender

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/webhook"
)

// metrics are labelled by the slugs of tenants, which an operator gives.
type metrics struct {
	attempts *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	pending  *prometheus.GaugeVec
	dead     *prometheus.GaugeVec
	oldest   *prometheus.GaugeVec
	breaker  *prometheus.GaugeVec
	shown    map[string]bool // slugs of the last count; of the one who counts
}

// Outcomes of an attempt.
const (
	outcomeDelivered = "delivered"
	outcomeRetried   = "retried" // it failed, and will be tried again
	outcomeDead      = "dead"    // it failed, and was given up
	outcomeUnknown   = "unknown" // what came of it could not be written down: it will be tried again
)

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"tenant"})
		r.MustRegister(g)
		return g
	}
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_webhook_attempts_total",
			Help: "Attempts to send an event, by outcome: delivered, retried (it failed, and is tried again), dead (given up), unknown (not written down).",
		}, []string{"tenant", "outcome"}),
		// Few buckets: each is a series for each tenant.
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "edgvoip_webhook_attempt_seconds", Help: "Time until the tenant's receiver answered, or was given up.",
			Buckets: []float64{.025, .1, .25, 1, 5, 15},
		}, []string{"tenant"}),
		pending: gauge("edgvoip_webhook_events_pending", "Events that the tenant's W3 has not taken yet."),
		dead:    gauge("edgvoip_webhook_events_dead", "Events that were given up and wait for an operator."),
		oldest:  gauge("edgvoip_webhook_events_oldest_seconds", "Age of the oldest event that the tenant's W3 has not taken yet; 0 if there is none."),
		breaker: gauge("edgvoip_webhook_breaker_state", "Circuit breaker of the tenant's receiver: 0 closed, 1 half open, 2 open."),
		shown:   map[string]bool{},
	}
	r.MustRegister(m.attempts, m.seconds)
	return m
}

// backlogs shows what waits, and forgets tenants of whom nothing is known any more. Counters stay: they count what
// happened.
func (m *metrics) backlogs(all []webhook.Backlog, now time.Time) {
	shown := map[string]bool{}
	for _, b := range all {
		shown[b.Slug] = true
		age := 0.0
		if !b.Oldest.IsZero() {
			age = max(0, now.Sub(b.Oldest).Seconds())
		}
		m.pending.WithLabelValues(b.Slug).Set(float64(b.Pending))
		m.dead.WithLabelValues(b.Slug).Set(float64(b.Dead))
		m.oldest.WithLabelValues(b.Slug).Set(age)
	}
	for slug := range m.shown {
		if !shown[slug] {
			for _, g := range []*prometheus.GaugeVec{m.pending, m.dead, m.oldest, m.breaker} {
				g.DeleteLabelValues(slug)
			}
		}
	}
	m.shown = shown
}
