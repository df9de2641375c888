package schedule

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// State is what a policy says of an instant.
type State struct {
	Open bool
	// Rule is what decided, for people: "mon 09:00-18:00", "holiday 2026-12-25", "exception 2026-12-24 09:00-12:00",
	// "outside of windows", "always", "never".
	Rule string
	// Local is the instant as the wall shows it; its location is the policy's zone.
	Local time.Time
}

// At tells whether an instant is in the hours, and why.
func (p Policy) At(t time.Time) State {
	switch p.mode {
	case ModeAlways:
		local := t.In(p.zone)
		if _, _, isSpecial := p.day(dateOf(local)); isSpecial {
			return p.look(local)
		}
		return State{Open: true, Rule: string(ModeAlways), Local: local}
	case ModeWindows:
		return p.look(t.In(p.zone))
	default:
		return State{Rule: string(ModeNever), Local: p.local(t)}
	}
}

// local is a wall time also for the zero Policy.
func (p Policy) local(t time.Time) time.Time {
	if p.zone == nil {
		return t.UTC()
	}
	return t.In(p.zone)
}

// look judges a wall time. Of a day with an exception, or a holiday, only its own windows count: what began the day
// before does not run into it. What begins on it may run over its end.
func (p Policy) look(local time.Time) State {
	today := dateOf(local)
	minute := local.Hour()*60 + local.Minute()
	day, name, isSpecial := p.day(today)
	if w, ok := find(day.windows, minute); ok {
		return State{Open: true, Rule: name + " " + w.String(), Local: local}
	}
	if isSpecial {
		return State{Rule: name, Local: local}
	}
	yesterday, before, _ := p.day(today.plus(-1))
	if w, ok := find(yesterday.windows, minute+minutesADay); ok {
		return State{Open: true, Rule: before + " " + w.String(), Local: local}
	}
	return State{Rule: "outside of windows", Local: local}
}

// day returns the windows that begin on a day and what to call it.
func (p Policy) day(d date) (day special, name string, isSpecial bool) {
	day, isSpecial = p.dated[d]
	if !isSpecial {
		day, isSpecial = p.yearly[monthDay{d.month, d.day}]
	}
	switch {
	case isSpecial && day.holiday:
		return day, "holiday " + d.String(), true
	case isSpecial:
		return day, "exception " + d.String(), true
	}
	weekday := d.noon().Weekday()
	return special{windows: p.weekly[weekday]}, weekdays[weekday], false
}

func find(windows []window, minute int) (window, bool) {
	for _, w := range windows {
		if w.from <= minute && minute < w.to {
			return w, true
		}
	}
	return window{}, false
}

func (w window) String() string {
	to := w.to
	if to > minutesADay {
		to -= minutesADay
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", w.from/60, w.from%60, to/60, to%60)
}

// A policy that does not change within horizon days changes only on a special day, if ever: two weeks hold every day of
// the week twice, so one of them is not the day on which the clock is changed.
const horizon = 16

// yearsAhead is how far a 29th of February can be away.
const yearsAhead = 8

// Next returns the first instant after t at which the policy opens or closes; ok is false if it never does.
func (p Policy) Next(t time.Time) (next time.Time, ok bool) {
	if p.mode != ModeWindows && p.mode != ModeAlways {
		return time.Time{}, false
	}
	open := p.At(t).Open
	for _, d := range p.daysToLookAt(dateOf(t.In(p.zone))) {
		for _, c := range p.candidates(d) {
			if c.After(t) && p.At(c).Open != open {
				return c, true
			}
		}
	}
	return time.Time{}, false
}

// daysToLookAt returns the days on which something may change, in order.
func (p Policy) daysToLookAt(today date) []date {
	var days []date
	for i := range horizon {
		days = append(days, today.plus(i-1))
	}
	around := func(d date) {
		for i := -1; i <= 1; i++ {
			days = append(days, d.plus(i))
		}
	}
	for d := range p.dated {
		around(d)
	}
	for m := range p.yearly {
		for y := today.year - 1; y <= today.year+yearsAhead; y++ {
			// A 29th of February in a year without is no day.
			if d := (date{y, m.month, m.day}); dateOf(d.noon()) == d {
				around(d)
			}
		}
	}
	slices.SortFunc(days, func(a, b date) int { return a.noon().Compare(b.noon()) })
	return slices.Compact(days)
}

// candidates returns the instants of a day at which something may change, in order: its midnight, the edges of the
// windows that touch it, and the moment at which its clock is changed.
func (p Policy) candidates(d date) []time.Time {
	minutes := []int{0}
	day, _, _ := p.day(d)
	before, _, _ := p.day(d.plus(-1))
	for _, w := range day.windows {
		minutes = append(minutes, w.from, w.to)
	}
	for _, w := range before.windows {
		minutes = append(minutes, w.to-minutesADay)
	}
	var instants []time.Time
	for _, m := range minutes {
		if m >= 0 && m < minutesADay {
			instants = append(instants, p.instants(d, m)...)
		}
	}
	instants = append(instants, p.transitions(d)...)
	slices.SortFunc(instants, func(a, b time.Time) int { return cmp.Compare(a.UnixNano(), b.UnixNano()) })
	return instants
}

// transitions returns the moments of a day, or just about it, at which its clock is changed. Midnight itself may be in
// the hour that is left out.
func (p Policy) transitions(d date) []time.Time {
	begin := time.Date(d.year, d.month, d.day, 0, 0, 0, 0, p.zone)
	var found []time.Time
	from, to := begin.ZoneBounds()
	for _, bound := range []time.Time{from, to} {
		if !bound.IsZero() && bound.Sub(begin).Abs() < 26*time.Hour {
			found = append(found, bound)
		}
	}
	return found
}

// instants returns when the wall shows a minute of a day: once, twice, or not at all.
func (p Policy) instants(d date, minute int) []time.Time {
	guess := time.Date(d.year, d.month, d.day, 0, minute, 0, 0, p.zone)
	var found []time.Time
	// time.Date chooses one of two; a zone's clock is never changed by more than three hours a time, but for those that
	// crossed the date line.
	for _, offset := range offsetsAround(guess) {
		t := time.Date(d.year, d.month, d.day, 0, minute, 0, 0, time.UTC).Add(-time.Duration(offset) * time.Second).In(p.zone)
		if dateOf(t) == d && t.Hour()*60+t.Minute() == minute && t.Second() == 0 {
			found = append(found, t)
		}
	}
	return found
}

// offsetsAround returns the offsets from UTC, in seconds, that hold about an instant.
func offsetsAround(t time.Time) []int {
	var offsets []int
	for _, about := range []time.Duration{-26 * time.Hour, 0, 26 * time.Hour} {
		_, offset := t.Add(about).Zone()
		if !slices.Contains(offsets, offset) {
			offsets = append(offsets, offset)
		}
	}
	return offsets
}
