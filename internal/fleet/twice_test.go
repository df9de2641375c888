package fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/esl"
)

// Two processes hear of the same forged registration. It is dropped and counted once; the next one, of another event,
// again.
func TestForgeryIsCountedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	registries := []*prometheus.Registry{s.registry, prometheus.NewRegistry()}
	var processes []*connection
	for _, r := range registries {
		s.options.Registry = r
		s.run(t)
		eventually(t, func() error {
			c := s.at("fs1:8021").connected()
			if c == nil || slices.Contains(processes, c) {
				return errors.New("not connected")
			}
			processes = append(processes, c)
			return nil
		})
	}
	counted := func() (n float64) {
		for _, r := range registries {
			n += (&site{registry: r}).counter(t, "edgvoip_registrations_dropped_total", "foreign_address")
		}
		return n
	}
	hear := func(r esl.Registration) {
		for _, c := range processes {
			c.handlers.Registered(r)
		}
	}
	forged := seen("1002@tenant-a.example", "1001@tenant-a.example")
	honest := seen("1001@tenant-a.example", "1001@tenant-a.example")
	for n, event := range []string{"core/1", "core/2"} {
		forged.Event = event
		hear(forged)
		hear(honest)
		eventually(t, func() error {
			if got := counted(); got != float64(n+1) {
				return fmt.Errorf("%v counted", got)
			}
			// What comes after it is judged when it is.
			for _, r := range registries {
				if waiting := (&site{registry: r}).gauge(t, "edgvoip_registrations_unchecked", "fs1"); waiting != 0 {
					return fmt.Errorf("%v wait", waiting)
				}
			}
			return s.idle(t)
		})
	}
	if told := s.at("fs1:8021").takes(); len(told) != 2 {
		t.Errorf("the switch was told %q", told)
	}
}

// counter returns the sum of a metric's series with a label of this value.
func (s *site) counter(t *testing.T, name, label string) (sum float64) {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}
