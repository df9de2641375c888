// Package schedule tells whether an instant lies in somebody's hours: weekly windows, holidays and dated exceptions, in
// the time of a zone. It is a pure function of policy and instant: the same answer now, later, and in an explanation.
//
// What counts is what a clock on the wall shows. A window is open while the wall shows a time in it, so the hour that
// comes twice when summer time ends is open twice, and a window that lies in the hour that is left out when it begins
// is not open on that day.
package schedule

import (
	"bytes"
	_ "embed" // for Schema
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/edgvoip/edgvoip/internal/invalid"
)

// Policy is a time policy that was read. Its zero value is never open. It is not changed after it was made, so it is
// safe for concurrent use.
type Policy struct {
	mode Mode
	zone *time.Location
	// weekly holds the windows that begin on each day of the week.
	weekly [7][]window
	// dated and yearly hold days that are not like their day of the week; dated counts before yearly.
	dated  map[date]special
	yearly map[monthDay]special
}

// Mode says what counts.
type Mode string

// The modes: the windows of the week; all of every day; nothing. Holidays and exceptions count in the first two, and
// have no place in the last.
const (
	ModeWindows Mode = "windows"
	ModeAlways  Mode = "always"
	ModeNever   Mode = "never"
)

// special is a day with windows of its own; a holiday has none.
type special struct {
	windows []window
	holiday bool
}

// window is open from a minute of the day on, up to another that is not part of it. An end beyond minutesADay lies in
// the day after.
type window struct{ from, to int }

const minutesADay = 24 * 60

// date is a day of the calendar.
type date struct {
	year  int
	month time.Month
	day   int
}

// monthDay is a day of every year.
type monthDay struct {
	month time.Month
	day   int
}

// Bounds of a policy, so that one decision never costs more than microseconds. A database may spell longer what it was
// given.
const (
	maxBytes   = 32 << 10
	maxWindows = 16 // a day
	maxDays    = 512
)

// document is the wire form: policy.schema.json.
type document struct {
	Timezone   string                  `json:"timezone"`
	Mode       Mode                    `json:"mode"`
	Weekly     map[string][]wireWindow `json:"weekly"`
	Holidays   []string                `json:"holidays"`
	Exceptions []wireException         `json:"exceptions"`
}

type wireWindow struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type wireException struct {
	Date    string       `json:"date"`
	Windows []wireWindow `json:"windows"`
}

// field is the name of a policy in the API's requests.
const field = "aiTimePolicy"

// Parse reads a policy as JSON (policy.schema.json). zone is the tenant's IANA zone, which holds where the policy names
// none. Error: *invalid.FieldError, which never repeats a value.
func Parse(data []byte, zone string) (Policy, error) {
	var d document
	if err := decode(data, &d); err != nil {
		return Policy{}, err
	}
	name := zone
	if d.Timezone != "" {
		name = d.Timezone
	}
	location, err := LoadZone(name)
	if err != nil {
		return Policy{}, invalid.Because(field+".timezone", err)
	}
	p := Policy{mode: d.Mode, zone: location, dated: map[date]special{}, yearly: map[monthDay]special{}}
	switch p.mode {
	case "":
		p.mode = ModeWindows
	case ModeWindows, ModeAlways, ModeNever:
	default:
		return Policy{}, wrong("mode", "is one of windows, always, never")
	}
	if err := d.checkNever(); err != nil {
		return Policy{}, err
	}
	if err := errors.Join(p.addWeek(d.Weekly), p.addHolidays(d.Holidays), p.addExceptions(d.Exceptions)); err != nil {
		return Policy{}, first(err)
	}
	if p.mode == ModeWindows && d.Weekly == nil && len(d.Exceptions) == 0 {
		return Policy{}, wrong("weekly", "is missing: a policy of mode windows has windows; always and never are modes of their own")
	}
	return p, nil
}

// checkNever refuses days that somebody may expect to count, and which cannot: never opens on no day.
func (d document) checkNever() error {
	const reason = "has no place in mode never; a policy that opens on some dates only has mode windows and exceptions"
	switch {
	case d.Mode == ModeNever && len(d.Holidays) > 0:
		return wrong("holidays", reason)
	case d.Mode == ModeNever && len(d.Exceptions) > 0:
		return wrong("exceptions", reason)
	}
	return nil
}

func wrong(path, reason string) error {
	return &invalid.FieldError{Name: field + "." + path, Reason: reason}
}

// first returns the first of joined errors: one is enough to say.
func first(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()[0]
	}
	return err
}

func decode(data []byte, d *document) error {
	if len(data) > maxBytes {
		return &invalid.FieldError{Name: field, Reason: "is larger than 32 KiB"}
	}
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	if err := in.Decode(d); err != nil || in.More() {
		return &invalid.FieldError{Name: field, Reason: "is not an object of timezone, mode, weekly, holidays and exceptions as its schema has them"}
	}
	return nil
}

// weekdays are the names of days, as time.Weekday counts them.
var weekdays = [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

func (p *Policy) addWeek(weekly map[string][]wireWindow) error {
	for name := range weekly {
		if !slices.Contains(weekdays[:], name) {
			return wrong("weekly", "has a day that is none of mon, tue, wed, thu, fri, sat, sun")
		}
	}
	for i, name := range weekdays {
		windows, err := parseWindows("weekly."+name, weekly[name])
		if err != nil {
			return err
		}
		p.weekly[i] = windows
	}
	return nil
}

func (p *Policy) addHolidays(days []string) error {
	if len(days) > maxDays {
		return wrong("holidays", fmt.Sprintf("has more than %d days", maxDays))
	}
	for i, s := range days {
		path := "holidays[" + strconv.Itoa(i) + "]"
		if err := p.addSpecial(path, s, special{holiday: true}); err != nil {
			return err
		}
	}
	return nil
}

func (p *Policy) addExceptions(exceptions []wireException) error {
	if len(exceptions) > maxDays {
		return wrong("exceptions", fmt.Sprintf("has more than %d days", maxDays))
	}
	for i, e := range exceptions {
		path := "exceptions[" + strconv.Itoa(i) + "]"
		windows, err := parseWindows(path+".windows", e.Windows)
		if err != nil {
			return err
		}
		if err := p.addSpecial(path+".date", e.Date, special{windows: windows}); err != nil {
			return err
		}
	}
	return nil
}

// addSpecial adds a day as 2026-12-24, or 12-24 for that of every year.
func (p *Policy) addSpecial(path, s string, day special) error {
	const twice = "is a day that is there already, as a holiday or an exception"
	if t, err := time.Parse("2006-01-02", s); err == nil {
		key := dateOf(t)
		if _, there := p.dated[key]; there {
			return wrong(path, twice)
		}
		p.dated[key] = day
		return nil
	}
	// A leap year, so that there is a 29th of February.
	t, err := time.Parse("2006-01-02", "2000-"+s)
	if err != nil {
		return wrong(path, "is not a date like 2026-12-24, or 12-24 for that of every year")
	}
	key := monthDay{t.Month(), t.Day()}
	if _, there := p.yearly[key]; there {
		return wrong(path, twice)
	}
	p.yearly[key] = day
	return nil
}

// parseWindows reads the windows that begin on one day, in order.
func parseWindows(path string, list []wireWindow) ([]window, error) {
	if len(list) > maxWindows {
		return nil, wrong(path, fmt.Sprintf("has more than %d windows", maxWindows))
	}
	windows := make([]window, len(list))
	for i, w := range list {
		at := path + "[" + strconv.Itoa(i) + "]"
		from, ok := parseMinute(w.From)
		if !ok || from == minutesADay {
			return nil, wrong(at+".from", "is not a time from 00:00 to 23:59, as HH:mm")
		}
		to, ok := parseMinute(w.To)
		if !ok {
			return nil, wrong(at+".to", "is not a time from 00:00 to 24:00, as HH:mm")
		}
		switch {
		case from == to:
			return nil, wrong(at+".to", "is the same as from; a whole day is 00:00 to 24:00")
		case to < from:
			to += minutesADay
		}
		windows[i] = window{from, to}
	}
	slices.SortFunc(windows, func(a, b window) int { return a.from - b.from })
	for i := 1; i < len(windows); i++ {
		if windows[i].from < windows[i-1].to {
			return nil, wrong(path, "has windows that overlap")
		}
	}
	return windows, nil
}

// parseMinute reads HH:mm, 24:00 included, as minutes since midnight.
func parseMinute(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	for _, i := range []int{0, 1, 3, 4} {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	hour, minute := int(s[0]-'0')*10+int(s[1]-'0'), int(s[3]-'0')*10+int(s[4]-'0')
	return hour*60 + minute, minute < 60 && (hour < 24 || hour == 24 && minute == 0)
}

func dateOf(t time.Time) date {
	y, m, d := t.Date()
	return date{y, m, d}
}

// noon is a moment of the day, in UTC, to count days with: no zone leaves it out or has it twice.
func (d date) noon() time.Time { return time.Date(d.year, d.month, d.day, 12, 0, 0, 0, time.UTC) }

func (d date) plus(days int) date { return dateOf(d.noon().AddDate(0, 0, days)) }

func (d date) String() string { return d.noon().Format("2006-01-02") }

// Schema is the JSON Schema (2020-12) of a policy's wire form. It tells the form; zones, days that are none, days that
// are there twice and windows that overlap are beyond it.
//
//go:embed policy.schema.json
var Schema []byte
