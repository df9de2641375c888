package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// metrics are what an operator watches of the API. Every label has a closed set of values.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	failures *prometheus.CounterVec
	limited  *prometheus.CounterVec
	replays  prometheus.Counter
}

func newMetrics(r prometheus.Registerer, hasher *secret.Hasher) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "integration_requests_total",
			Help: "Requests by operation and outcome: what a write did (created, updated, unchanged, deleted, replayed), ok, or the code of the problem.",
		}, []string{"operation", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "integration_request_seconds", Help: "Time to answer a request.",
			// From a read to a write that waited for its turn to hash.
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "integration_authentication_failures_total", Help: "Requests that were not let in, by reason.",
		}, []string{"reason"}),
		limited: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "integration_rate_limited_total", Help: "Requests refused because there were too many, by scope: of an address, of an address for health, of a tenant, or of credentials that are wrong.",
		}, []string{"scope"}),
		replays: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "integration_idempotent_replays_total", Help: "Writes answered from the answer kept under their Idempotency-Key.",
		}),
	}
	for _, reason := range integration.Reasons {
		m.failures.WithLabelValues(string(reason))
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	r.MustRegister(m.requests, m.seconds, m.failures, m.limited, m.replays,
		gauge("integration_argon2_working", "Password hashes being worked on.", func() float64 { n, _ := hasher.Load(); return float64(n) }),
		gauge("integration_argon2_waiting", "Password hashes that wait for their turn.", func() float64 { _, n := hasher.Load(); return float64(n) }),
	)
	return m
}
