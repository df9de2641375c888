package aibridge

import (
	"github.com/prometheus/client_golang/prometheus"
)

// outcome is how a call ended, a closed set for the metric and the log.
type outcome string

// The outcomes. Those above the line are no fault; every other sends the caller to a person.
const (
	outcomeCaller      outcome = "caller_hung_up"
	outcomeAgent       outcome = "agent_hung_up"
	outcomeTransferred outcome = "transferred"
	outcomeCancelled   outcome = "cancelled"

	outcomeBadRequest     outcome = "bad_request"
	outcomeBadMedia       outcome = "bad_media"
	outcomeUnknownTrunk   outcome = "unknown_trunk"
	outcomeNotReady       outcome = "not_ready"
	outcomeNoSecret       outcome = "no_secret"
	outcomeForbidden      outcome = "gateway_forbidden"
	outcomeDraining       outcome = "draining"
	outcomeLimit          outcome = "limit"
	outcomeTenantLimit    outcome = "tenant_limit"
	outcomeBreaker        outcome = "breaker_open"
	outcomeSession        outcome = "session_failed"
	outcomeSessionLate    outcome = "session_late"
	outcomeSessionRefused outcome = "session_refused"
	outcomeSessionBad     outcome = "session_unusable"
	outcomeChannel        outcome = "channel_failed"
	outcomeConnectLate    outcome = "connect_late"
	outcomePeerLost       outcome = "peer_lost"
	outcomeAgentFailed    outcome = "agent_failed"
	outcomeAgentSilent    outcome = "agent_silent"
	outcomeCallerSilent   outcome = "caller_silent"
	outcomeChannelLost    outcome = "channel_lost"
	outcomeTransferFailed outcome = "transfer_failed"
	outcomeSwitch         outcome = "switch_failed"
	outcomeExpired        outcome = "session_timer_expired"
	outcomeNoAck          outcome = "no_ack"
	outcomeInternal       outcome = "internal"
)

// way is where a packet comes from.
type way string

const (
	fromCaller way = "caller"
	fromAgent  way = "agent"
)

// dropReason is why a packet was not carried.
type dropReason string

const (
	dropStranger dropReason = "stranger" // not from where the SDP says
	dropBroken   dropReason = "broken"
	dropType     dropReason = "payload_type"
	dropHeld     dropReason = "held"
	dropLate     dropReason = "late"
	dropUnsent   dropReason = "unsent"
	dropFlood    dropReason = "flood"  // more than a stream of voice has
	dropStream   dropReason = "stream" // of a stream that a newer one has taken the place of
)

// Metrics count what a Bridge does.
type Metrics struct {
	calls    *prometheus.CounterVec
	active   prometheus.Gauge
	session  prometheus.Histogram
	connect  prometheus.Histogram
	packets  map[way]prometheus.Counter
	dropping *prometheus.CounterVec
}

// NewMetrics registers the metrics of a bridge. openBreakers and trunksAge are asked when somebody looks: how many
// gateways are left alone, and how old what is known of trunks is, in seconds.
func NewMetrics(r prometheus.Registerer, openBreakers, trunksAge func() float64) *Metrics {
	// Around the budgets of 1.5 s and 4 s.
	buckets := []float64{.025, .05, .1, .25, .5, 1, 1.5, 2, 3, 4, 6}
	m := &Metrics{
		calls:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aibridge_calls_total", Help: "Calls that are over, by how they ended."}, []string{"outcome"}),
		active:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "aibridge_calls", Help: "Calls that are there now, also those that are being connected."}),
		session:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "aibridge_session_seconds", Help: "From the request for a session to the answer, good or not.", Buckets: buckets}),
		connect:  prometheus.NewHistogram(prometheus.HistogramOpts{Name: "aibridge_connect_seconds", Help: "From INVITE to 200.", Buckets: buckets}),
		dropping: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aibridge_packets_dropped_total", Help: "RTP packets that were not carried."}, []string{"from", "reason"}),
		packets:  map[way]prometheus.Counter{},
	}
	carried := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "aibridge_packets_total", Help: "RTP packets that were carried."}, []string{"from"})
	for _, w := range []way{fromCaller, fromAgent} {
		m.packets[w] = carried.WithLabelValues(string(w))
	}
	r.MustRegister(m.calls, m.active, m.session, m.connect, carried, m.dropping,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "aibridge_breakers_open", Help: "Gateways that are left alone, or tried by one call at a time."}, openBreakers),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "aibridge_trunks_age_seconds", Help: "How old what is known of trunks is."}, trunksAge))
	return m
}

func (m *Metrics) carried(w way) { m.packets[w].Inc() }
func (m *Metrics) dropped(w way, r dropReason) {
	m.dropping.WithLabelValues(string(w), string(r)).Inc()
}
