package records

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/cdr"
)

// metrics are what an operator watches of call records.
type metrics struct {
	read          *prometheus.CounterVec
	calls         prometheus.Counter
	reconstructed prometheus.Counter
	kept          *prometheus.GaugeVec
	oldest        prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		read: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_cdr_documents_total",
			Help: "Documents that were read, by outcome: recorded, postponed, unreadable and unassigned (these two wait for an operator).",
		}, []string{"outcome"}),
		calls: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgvoip_cdr_calls_total", Help: "Call records that were made or changed.",
		}),
		reconstructed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgvoip_cdr_reconstructed_total", Help: "Legs that were reconstructed from events, as their documents did not come.",
		}),
		kept: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "edgvoip_cdr_documents", Help: "Documents that are not in call records, by state: new, called (legs that wait for who called to end), unreadable, unassigned; and sightings of channels without one.",
		}, []string{"state"}),
		oldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "edgvoip_cdr_documents_oldest_seconds", Help: "Age of the oldest document that is not read yet, but for those of called legs that wait for who called; 0 if there is none.",
		}),
	}
	r.MustRegister(m.read, m.calls, m.reconstructed, m.kept, m.oldest)
	return m
}

func (m *metrics) tally(t cdr.Tally) {
	m.read.WithLabelValues("recorded").Add(float64(t.Recorded))
	m.read.WithLabelValues("postponed").Add(float64(t.Postponed))
	m.read.WithLabelValues("unreadable").Add(float64(t.Unreadable))
	m.read.WithLabelValues("unassigned").Add(float64(t.Unassigned))
	m.calls.Add(float64(t.Changed))
}

func (m *metrics) waiting(n cdr.Waiting) {
	m.kept.WithLabelValues("new").Set(float64(n.Documents))
	m.kept.WithLabelValues("called").Set(float64(n.Called))
	m.kept.WithLabelValues("unreadable").Set(float64(n.Unreadable))
	m.kept.WithLabelValues("unassigned").Set(float64(n.Unassigned))
	m.kept.WithLabelValues("sighting").Set(float64(n.Sightings))
	age := 0.0
	if !n.Oldest.IsZero() {
		age = max(time.Since(n.Oldest).Seconds(), 0)
	}
	m.oldest.Set(age)
}
