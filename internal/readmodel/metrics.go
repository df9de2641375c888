package readmodel

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tell how lookups were answered and how true the model is. A nil *Metrics tells nobody.
type Metrics struct {
	registry prometheus.Registerer
	lookups  *prometheus.CounterVec
	lag      prometheus.Histogram
	heard    prometheus.Gauge
	failures prometheus.Counter
	forgot   prometheus.Counter
	answers  [answerFailed + 1]prometheus.Counter
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		registry: r,
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "xmlcurl_model_lookups_total",
			Help: "Parts of lookups by how they were answered: from memory (hit), as known not to exist (unknown), from the database (database), " +
				"from memory though in doubt because the database is away (stale), or not at all (failed).",
		}, []string{"answer"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "xmlcurl_change_lag_seconds", Help: "Time from a change to its being applied.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 60},
		}),
		heard: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "xmlcurl_change_heard", Help: "Number (edgvoip.changes.id) up to which all changes are applied; 0 while that is not known.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "xmlcurl_change_read_failures_total", Help: "Reads of the change feed that failed.",
		}),
		forgot: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "xmlcurl_model_distrusted_total", Help: "Times that everything was distrusted: at the start, and after changes that nobody can list.",
		}),
	}
	for a, label := range map[answer]string{
		answerHit: "hit", answerUnknown: "unknown", answerDatabase: "database", answerStale: "stale", answerFailed: "failed",
	} {
		m.answers[a] = m.lookups.WithLabelValues(label)
	}
	r.MustRegister(m.lookups, m.lag, m.heard, m.failures, m.forgot)
	return m
}

// answer is how a part of a lookup was answered.
type answer int

const (
	answerHit answer = iota
	answerUnknown
	answerDatabase
	answerStale
	answerFailed
)

func (m *Metrics) count(a answer) {
	if m != nil {
		m.answers[a].Inc()
	}
}

// Lag observes the time from a change to its being applied. It is for feed.Metrics, as the next three are.
func (m *Metrics) Lag(d time.Duration) {
	if m != nil {
		m.lag.Observe(d.Seconds())
	}
}

// Heard tells up to which number all changes are applied; zero if that is not known.
func (m *Metrics) Heard(id int64) {
	if m != nil {
		m.heard.Set(float64(id))
	}
}

// ReadFailed counts a read of the feed that failed.
func (m *Metrics) ReadFailed() {
	if m != nil {
		m.failures.Inc()
	}
}

// Forgot counts that everything was distrusted.
func (m *Metrics) Forgot() {
	if m != nil {
		m.forgot.Inc()
	}
}

// entryOverhead is what a kept extension costs beside its record, in bytes: its entry in the table and its place in the order
// of use. Measured; BenchmarkMemory tells the sum.
const entryOverhead = 160

// observe registers what is read off a model.
func (m *Metrics) observe(model *Model) {
	if m == nil {
		return
	}
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("xmlcurl_data_age_seconds", "Time since the database was last heard of; -1 if it never was.", nil, func() float64 {
		age, known := model.Age()
		if !known {
			return -1
		}
		return age.Seconds()
	})
	const entries, entriesHelp = "xmlcurl_model_entries", "Entries of the model."
	gauge(entries, entriesHelp, prometheus.Labels{"of": "extension_names"}, func() float64 { return float64(model.extensions.items.EstimatedSize()) })
	gauge(entries, entriesHelp, prometheus.Labels{"of": "domains"}, func() float64 { return float64(model.domains.items.EstimatedSize()) })
	gauge(entries, entriesHelp, prometheus.Labels{"of": "known_names"}, func() float64 { return float64(model.names.count()) })
	gauge(entries, entriesHelp, prometheus.Labels{"of": "unknown_names"}, func() float64 { return float64(model.unknown.EstimatedSize()) })
	gauge(entries, entriesHelp, prometheus.Labels{"of": "trunks"}, func() float64 { return float64(model.carriers.count()) })
	gauge("xmlcurl_model_extension_bytes", "Memory that kept extensions take, in bytes; estimated from a mean record.", nil, func() float64 {
		return float64(model.extensions.items.EstimatedSize()) * (entryOverhead + model.meanRecord())
	})
}

// meanRecord is the mean length of some records.
func (m *Model) meanRecord() float64 {
	const sample = 100
	total, n := 0, 0
	for _, e := range m.extensions.items.All() {
		total += len(e.value)
		if n++; n == sample {
			break
		}
	}
	return float64(total) / float64(max(1, n))
}

func (c *carriers) count() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.table == nil {
		return 0
	}
	return len(c.table.all)
}
