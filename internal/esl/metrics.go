package esl

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics count what happens between us and the switches. One set serves the clients of all nodes. Labels come from
// closed sets and from the names of nodes.
type Metrics struct {
	connects *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	resyncs  *prometheus.CounterVec
	commands *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// NewMetrics returns metrics that a registry shows. A registry takes them once.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_esl_connects_total",
			Help: "Attempts to connect to a switch's event socket, by connection (events, commands) and outcome (connected, failed).",
		}, []string{"node", "connection", "outcome"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_esl_dropped_events_total",
			Help: "Events that came faster than they were handled, or could not be read. A resync follows.",
		}, []string{"node"}),
		resyncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_esl_resyncs_total",
			Help: "Times the state of a switch was read anew, by outcome (done, failed).",
		}, []string{"node", "outcome"}),
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_esl_commands_total",
			Help: "Commands to a switch, by outcome: ok, refused by the switch, down (not sent), lost (no reply), abandoned by the caller.",
		}, []string{"node", "outcome"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "edgvoip_esl_command_seconds",
			Help: "Time from a command, with its wait for those before it, to the reply.",
			// From a lookup in the switch's memory to the timeout.
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"node"}),
	}
	r.MustRegister(m.connects, m.dropped, m.resyncs, m.commands, m.seconds)
	return m
}

func (m *Metrics) commanded(node string, err error, took time.Duration) {
	outcome := outcomeOf(err)
	m.commands.WithLabelValues(node, outcome).Inc()
	if outcome == "ok" || outcome == "refused" {
		m.seconds.WithLabelValues(node).Observe(took.Seconds())
	}
}

func outcomeOf(err error) string {
	var refused *CommandError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refused):
		return "refused"
	case errors.Is(err, ErrDown):
		return "down"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "abandoned"
	default:
		return "lost"
	}
}
