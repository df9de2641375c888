package xmlcurl

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/fsxml"
)

// metrics count lookups. Labels come from closed sets.
type metrics struct {
	lookups    *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	rejected   *prometheus.CounterVec
	unrecorded prometheus.Counter
}

func newMetrics(r *prometheus.Registry) metrics {
	m := metrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "xmlcurl_lookups_total",
			Help: "Lookups answered, by section and outcome; outcome fault is HTTP 503.",
		}, []string{"section", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "xmlcurl_lookup_seconds",
			Help: "Time from the received request to the answer, by section. FreeSWITCH gives up after the timeout of its binding (2 s).",
			// From an answer out of memory to the timeout.
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
		}, []string{"section"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "xmlcurl_rejected_total",
			Help: "Requests that are no lookups, by what is wrong with them.",
		}, []string{"reason"}),
		unrecorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "xmlcurl_unrecorded_calls_total",
			Help: "Calls that their tenant wants recorded and that cannot be; the log says why.",
		}),
	}
	r.MustRegister(m.lookups, m.seconds, m.rejected, m.unrecorded)
	return m
}

func (m metrics) answered(section, outcome string, start time.Time) {
	label := "other"
	switch s := fsxml.Section(section); s {
	case fsxml.SectionDirectory, fsxml.SectionDialplan, fsxml.SectionConfiguration, fsxml.SectionLanguages, fsxml.SectionPhrases, fsxml.SectionChatplan,
		fsxml.SectionChannels:
		label = string(s) // a constant, not the request's bytes
	}
	m.lookups.WithLabelValues(label, outcome).Inc()
	m.seconds.WithLabelValues(label).Observe(time.Since(start).Seconds())
}
