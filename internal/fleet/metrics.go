package fleet

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/node"
)

// metrics are labelled by the names of switches, which an operator gives.
type metrics struct {
	up, pending, dead, oldest, registrations, waiting *prometheus.GaugeVec
	jobs, dropped, unseen, kept                       *prometheus.CounterVec
	gateways                                          *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"node"})
		r.MustRegister(g)
		return g
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"node"}, labels...))
		r.MustRegister(c)
		return c
	}
	gateways := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "edgvoip_node_gateways",
		Help: "Gateways of the switch by the state of their registration: REGED, FAIL_WAIT and so on; NOREG does not register.",
	}, []string{"node", "state"})
	r.MustRegister(gateways)
	return &metrics{
		gateways:      gateways,
		up:            gauge("edgvoip_node_up", "Whether there is a connection to the event socket of the switch."),
		pending:       gauge("edgvoip_node_jobs_pending", "Jobs that the switch has not done yet."),
		dead:          gauge("edgvoip_node_jobs_dead", "Jobs of the switch that were given up and wait for an operator."),
		oldest:        gauge("edgvoip_node_jobs_oldest_seconds", "Age of the oldest job that the switch has not done yet; 0 if there is none."),
		registrations: gauge("edgvoip_node_registrations", "Phones that are registered at the switch."),
		waiting:       gauge("edgvoip_registrations_unchecked", "Registrations that the watch has still to check."),
		jobs:          counter("edgvoip_node_jobs_total", "Jobs that were tried, by outcome: done, retried (it failed, and is tried again later), dead (given up).", "kind", "outcome"),
		kept:          counter("edgvoip_node_unmarked_cached_users_total", "Entries found in the switch's cache of users although the node is not marked -caches-users."),
		unseen:        counter("edgvoip_cdr_sightings_lost_total", "Channels that were seen to end and not written down: too many at once, or the database was away when the process ended."),
		dropped: counter("edgvoip_registrations_dropped_total",
			"Registrations that may not stay and were dropped, by reason: foreign_address, unknown_account, suspended; or could not be: unnameable.", "reason"),
	}
}

// present shows whether a switch is there. One that is not has no phones that we know of.
func (m *metrics) present(name string, up bool) {
	if up {
		m.up.WithLabelValues(name).Set(1)
		return
	}
	m.up.WithLabelValues(name).Set(0)
	m.registrations.DeleteLabelValues(name)
	m.gateways.DeletePartialMatch(prometheus.Labels{"node": name})
}

func (m *metrics) backlog(name string, b node.Backlog) {
	m.pending.WithLabelValues(name).Set(float64(b.Pending))
	m.dead.WithLabelValues(name).Set(float64(b.Dead))
	age := 0.0
	if !b.Oldest.IsZero() {
		age = max(0, time.Since(b.Oldest).Seconds())
	}
	m.oldest.WithLabelValues(name).Set(age)
}

// forget removes the gauges of a switch that has left. Counters stay: they count what happened.
func (m *metrics) forget(name string) {
	for _, g := range []*prometheus.GaugeVec{m.up, m.pending, m.dead, m.oldest, m.registrations, m.waiting} {
		g.DeleteLabelValues(name)
	}
	m.gateways.DeletePartialMatch(prometheus.Labels{"node": name})
}

// showGateways shows how many gateways of a switch are in each state.
func (m *metrics) showGateways(name string, states map[string]int) {
	m.gateways.DeletePartialMatch(prometheus.Labels{"node": name})
	for state, n := range states {
		m.gateways.WithLabelValues(name, state).Set(float64(n))
	}
}

// kindLabel keeps the label to a closed set, whatever is in the database.
func kindLabel(k node.Kind) string {
	if slices.Contains([]node.Kind{node.KindUser, node.KindDomain, node.KindDropRegistration, node.KindTrunk}, k) {
		return string(k)
	}
	return "unknown"
}

// reasonLabel does the same for the reason to drop a registration.
func reasonLabel(reason string) string {
	if slices.Contains([]string{reasonForeign, reasonUnknown, reasonSuspended}, reason) {
		return reason
	}
	return "unknown"
}
