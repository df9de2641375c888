package fleet

import (
	"context"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/esl"
)

// Witness takes down channels that switches were seen to end, in case their records do not come. Implementations are
// safe for concurrent use.
type Witness interface {
	AddSightings(ctx context.Context, list []cdr.Sighting) error
}

// eventHangup tells of the end of a channel, when its record has been posted or spooled.
const eventHangup = "CHANNEL_HANGUP_COMPLETE"

// hungUp returns the headers of an event. Of two with a name the first is the switch's own, see esl.Event.Get.
func hungUp(e esl.Event) map[string]string {
	m := make(map[string]string, len(e.Headers))
	for _, h := range e.Headers {
		if _, there := m[h.Name]; !there {
			m[h.Name] = h.Value
		}
	}
	return m
}

// Bounds on sightings: how many wait to be written, and are written at once. What comes while the queue is full is
// lost, and counted: it is the second witness, and the first is the document.
const (
	sightingQueue = 10_000
	sightingBatch = 200
)

// sight takes an event into the queue. It does not block.
func (m *member) sight(event map[string]string) {
	if m.fleet.opts.Witness == nil {
		return
	}
	s, ours := cdr.NewSighting(m.node.ID, event)
	if !ours {
		return
	}
	select {
	case m.sightings <- s:
	default:
		m.fleet.metrics.unseen.WithLabelValues(m.node.Name).Inc()
	}
}

// witness writes sightings down until ctx ends, those that wait together in one go. While the store is away they wait.
// When the connection has ended, no more will come, and what is left is written.
func (m *member) witness(ctx context.Context, ended <-chan struct{}) {
	outage := background.NewOutage(m.log, "sightings cannot be written")
	var list []cdr.Sighting
	for ctx.Err() == nil {
		if len(list) == 0 {
			select {
			case <-ctx.Done():
			case s := <-m.sightings:
				list = m.waiting(append(list, s))
			}
			continue
		}
		err := m.writeSightings(ctx, list)
		outage.Note(ctx, err)
		if err != nil {
			background.Pause(ctx, pollInterval)
			continue
		}
		list = nil
	}
	<-ended
	m.writeLast(ctx, list)
}

// waiting adds the sightings that wait, as many as are written at once.
func (m *member) waiting(list []cdr.Sighting) []cdr.Sighting {
	for len(list) < sightingBatch {
		select {
		case s := <-m.sightings:
			list = append(list, s)
		default:
			return list
		}
	}
	return list
}

// writeLast writes, after ctx has ended, a list and what still waits. What the store does not take now is lost.
func (m *member) writeLast(ctx context.Context, list []cdr.Sighting) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	for list = m.waiting(list); len(list) > 0; list = m.waiting(nil) {
		if err := m.writeSightings(ctx, list); err != nil {
			lost := len(list) + len(m.sightings)
			m.fleet.metrics.unseen.WithLabelValues(m.node.Name).Add(float64(lost))
			m.log.ErrorContext(ctx, "sightings lost at the end", "sightings", lost, "error", err)
			return
		}
	}
}

func (m *member) writeSightings(ctx context.Context, list []cdr.Sighting) error {
	writing, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return m.fleet.opts.Witness.AddSightings(writing, list)
}
