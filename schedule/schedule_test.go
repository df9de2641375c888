package schedule_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/schedule"
)

// shop is open on weekdays with a break, on Friday night until Saturday morning, and has days off.
const shop = `{
	"timezone": "Europe/Rome",
	"weekly": {
		"mon": [{"from": "09:00", "to": "13:00"}, {"from": "15:00", "to": "19:00"}],
		"fri": [{"from": "22:00", "to": "06:00"}],
		"sun": [{"from": "00:00", "to": "24:00"}]
	},
	"holidays": ["12-25", "2026-11-30"],
	"exceptions": [{"date": "2026-12-24", "windows": [{"from": "08:00", "to": "12:00"}]}, {"date": "2026-11-28", "windows": []}]
}`

func parse(t testing.TB, text string) schedule.Policy {
	t.Helper()
	p, err := schedule.Parse([]byte(text), "Europe/Rome")
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return p
}

func TestAt(t *testing.T) {
	t.Parallel()
	p := parse(t, shop)
	rome, err := schedule.LoadZone("Europe/Rome")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		local, rule string
		open        bool
	}{
		{"2026-11-23 08:59:59", "outside of windows", false},
		{"2026-11-23 09:00:00", "mon 09:00-13:00", true},
		{"2026-11-23 12:59:59", "mon 09:00-13:00", true},
		{"2026-11-23 13:00:00", "outside of windows", false},
		{"2026-11-23 15:00:00", "mon 15:00-19:00", true},
		{"2026-11-20 23:59:59", "fri 22:00-06:00", true},
		{"2026-11-21 05:59:59", "fri 22:00-06:00", true},
		{"2026-11-21 06:00:00", "outside of windows", false},
		{"2026-11-22 00:00:00", "sun 00:00-24:00", true},
		{"2026-11-23 00:00:00", "outside of windows", false},
		{"2026-11-30 10:00:00", "holiday 2026-11-30", false},
		{"2026-12-24 10:00:00", "exception 2026-12-24 08:00-12:00", true},
		{"2026-12-24 12:00:00", "exception 2026-12-24", false},
		// Of a special day only its own windows count: Friday's does not run into it.
		{"2026-11-28 03:00:00", "exception 2026-11-28", false},
		// Christmas 2026 is a Friday: closed, and so nothing runs into Saturday.
		{"2026-12-25 23:00:00", "holiday 2026-12-25", false},
		{"2026-12-26 03:00:00", "outside of windows", false},
	} {
		at, err := time.ParseInLocation(time.DateTime, tc.local, rome)
		if err != nil {
			t.Fatal(err)
		}
		if s := p.At(at.UTC()); s.Open != tc.open || s.Rule != tc.rule || s.Local.Format(time.DateTime) != tc.local {
			t.Errorf("%s: %+v, want open %t by %q", tc.local, s, tc.open, tc.rule)
		}
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	var none schedule.Policy
	for _, tc := range []struct {
		name string
		p    schedule.Policy
		open bool
	}{
		{"always", parse(t, `{"mode":"always"}`), true},
		{"never", parse(t, `{"mode":"never"}`), false},
		{"no policy", none, false},
		{"windows, all closed", parse(t, `{"weekly":{}}`), false},
	} {
		if s := tc.p.At(now); s.Open != tc.open || s.Rule == "" || s.Local.IsZero() {
			t.Errorf("%s: %+v", tc.name, s)
		}
		if next, ok := tc.p.Next(now); ok {
			t.Errorf("%s changes at %s", tc.name, next)
		}
	}
}

// A day off is a day off, also of who is there always.
func TestAlwaysButOn(t *testing.T) {
	t.Parallel()
	p := parse(t, `{"mode":"always","holidays":["12-25"],"exceptions":[{"date":"2026-12-24","windows":[{"from":"08:00","to":"12:00"}]}]}`)
	for _, tc := range []struct {
		utc, rule, next string
		open            bool
	}{
		{"2026-12-23T22:59:00Z", "always", "2026-12-23T23:00:00Z", true},
		{"2026-12-24T07:00:00Z", "exception 2026-12-24 08:00-12:00", "2026-12-24T11:00:00Z", true},
		{"2026-12-24T11:00:00Z", "exception 2026-12-24", "2026-12-25T23:00:00Z", false},
		{"2026-12-25T12:00:00Z", "holiday 2026-12-25", "2026-12-25T23:00:00Z", false},
		{"2026-12-26T00:00:00Z", "always", "2027-12-24T23:00:00Z", true},
	} {
		at, err := time.Parse(time.RFC3339, tc.utc)
		if err != nil {
			t.Fatal(err)
		}
		s := p.At(at)
		next, ok := p.Next(at)
		if s.Open != tc.open || s.Rule != tc.rule || !ok || next.UTC().Format(time.RFC3339) != tc.next {
			t.Errorf("%s: %+v, next %s; want %t by %q, next %s", tc.utc, s, next.UTC(), tc.open, tc.rule, tc.next)
		}
	}
}

// The nights on which the clock is changed.
func TestSummerTime(t *testing.T) {
	t.Parallel()
	p := parse(t, `{"weekly":{"sun":[{"from":"02:15","to":"02:45"}]}}`)
	for _, tc := range []struct {
		utc  string
		open bool
	}{
		// 25 October 2026: 02:30 comes twice, at 00:30 and at 01:30 UTC.
		{"2026-10-25T00:14:59Z", false},
		{"2026-10-25T00:30:00Z", true},
		{"2026-10-25T00:45:00Z", false},
		{"2026-10-25T01:30:00Z", true},
		{"2026-10-25T01:45:00Z", false},
		// 29 March 2026: 02:00 to 03:00 is left out.
		{"2026-03-29T00:30:00Z", false},
		{"2026-03-29T01:00:00Z", false},
		{"2026-03-29T01:30:00Z", false},
		{"2026-04-05T00:30:00Z", true},
	} {
		at, err := time.Parse(time.RFC3339, tc.utc)
		if err != nil {
			t.Fatal(err)
		}
		if s := p.At(at); s.Open != tc.open {
			t.Errorf("%s: %+v, want %t", tc.utc, s, tc.open)
		}
	}
	// From the first opening of a night that has the hour twice on.
	at := time.Date(2026, 10, 25, 0, 15, 0, 0, time.UTC)
	for _, want := range []string{"00:45", "01:15", "01:45"} {
		next, ok := p.Next(at)
		if !ok || next.UTC().Format("15:04") != want || next.UTC().Day() != 25 {
			t.Fatalf("after %s: %s, want %s", at, next.UTC(), want)
		}
		at = next
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, tc := range refusals() {
		_, err := schedule.Parse([]byte(tc.text), "Europe/Rome")
		bad, ok := errors.AsType[*invalid.FieldError](err)
		if !ok || bad.Name != tc.field || strings.Contains(bad.Reason, "Nowhere") || strings.Contains(bad.Reason, "passwd") {
			t.Errorf("%.80s: %v, want a fault of %s", tc.text, err, tc.field)
		}
	}
	if _, err := schedule.Parse([]byte(`{"mode":"always"}`), "nowhere"); err == nil {
		t.Error("a tenant's zone that is none was taken")
	}
}

type refusal struct {
	text, field string
	// meaning is set where the form is right and only the meaning is wrong, which a schema cannot tell.
	meaning bool
}

func refusals() []refusal {
	window := func(from, to string) string {
		return fmt.Sprintf(`{"weekly":{"mon":[{"from":%q,"to":%q}]}}`, from, to)
	}
	return []refusal{
		{``, "aiTimePolicy", false},
		{`[]`, "aiTimePolicy", false},
		{`"always"`, "aiTimePolicy", false},
		{`{"weekly":{}} {}`, "aiTimePolicy", false},
		{`{"weekly":{},"extra":1}`, "aiTimePolicy", false},
		{`{"weekly":{"mon":[{"from":"09:00","to":"10:00","zone":"x"}]}}`, "aiTimePolicy", false},
		{`{"weekly":` + strings.Repeat(" ", 32<<10) + `{}}`, "aiTimePolicy", true},
		{`{}`, "aiTimePolicy.weekly", false},
		{`{"mode":"sometimes"}`, "aiTimePolicy.mode", false},
		{`{"mode":"always","timezone":"Europe/Nowhere"}`, "aiTimePolicy.timezone", true},
		{`{"mode":"always","timezone":"Local"}`, "aiTimePolicy.timezone", true},
		{`{"mode":"always","timezone":"../../etc/passwd"}`, "aiTimePolicy.timezone", true},
		{`{"mode":"always","timezone":"localtime"}`, "aiTimePolicy.timezone", true},
		{`{"mode":"never","holidays":["12-25"]}`, "aiTimePolicy.holidays", false},
		{`{"mode":"never","exceptions":[{"date":"12-24"}]}`, "aiTimePolicy.exceptions", false},
		{`{"weekly":{"monday":[]}}`, "aiTimePolicy.weekly", false},
		{window("9:00", "10:00"), "aiTimePolicy.weekly.mon[0].from", false},
		{window("24:00", "10:00"), "aiTimePolicy.weekly.mon[0].from", false},
		{window("09:60", "10:00"), "aiTimePolicy.weekly.mon[0].from", false},
		{window("09:00", "24:01"), "aiTimePolicy.weekly.mon[0].to", false},
		{window("09:00", "+9:00"), "aiTimePolicy.weekly.mon[0].to", false},
		{window("09:00", "09:00"), "aiTimePolicy.weekly.mon[0].to", true},
		{`{"weekly":{"mon":[{"from":"09:00","to":"12:00"},{"from":"11:59","to":"13:00"}]}}`, "aiTimePolicy.weekly.mon", true},
		{`{"weekly":{},"holidays":["2026-02-29"]}`, "aiTimePolicy.holidays[0]", true},
		{`{"weekly":{},"holidays":["12-25","13-01"]}`, "aiTimePolicy.holidays[1]", false},
		{`{"weekly":{},"holidays":["2026-12-25","2026-12-25"]}`, "aiTimePolicy.holidays[1]", true},
		{`{"weekly":{},"holidays":["12-24"],"exceptions":[{"date":"12-24"}]}`, "aiTimePolicy.exceptions[0].date", true},
		{`{"weekly":{},"exceptions":[{"date":"2026-12-24","windows":[{"from":"8","to":"9"}]}]}`, "aiTimePolicy.exceptions[0].windows[0].from", false},
	}
}

// wire is a policy as the naive reading below knows it.
type wire struct {
	Timezone   string              `json:"timezone"`
	Mode       string              `json:"mode,omitempty"`
	Weekly     map[string][]window `json:"weekly"`
	Holidays   []string            `json:"holidays"`
	Exceptions []exception         `json:"exceptions"`
}

type window struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type exception struct {
	Date    string   `json:"date"`
	Windows []window `json:"windows"`
}

// naive reads the rule of package schedule once more, by comparing texts as a person at the door would: the date, the
// day's name and the time on the wall.
func naive(w wire, local time.Time) bool {
	wall := local.Format("15:04")
	today, special := naiveDay(w, local)
	if w.Mode == "always" && !special {
		return true
	}
	for _, x := range today {
		if wall >= x.From && (wall < x.To || x.To < x.From) {
			return true
		}
	}
	if special {
		return false
	}
	y, m, d := local.Date()
	before, _ := naiveDay(w, time.Date(y, m, d-1, 12, 0, 0, 0, time.UTC))
	for _, x := range before {
		if x.To < x.From && wall < x.To {
			return true
		}
	}
	return false
}

func naiveDay(w wire, day time.Time) (windows []window, special bool) {
	date := day.Format("2006-01-02")
	for _, form := range []string{date, date[5:]} {
		if slices.Contains(w.Holidays, form) {
			return nil, true
		}
		for _, e := range w.Exceptions {
			if e.Date == form {
				return e.Windows, true
			}
		}
	}
	return w.Weekly[strings.ToLower(day.Format("Mon"))], false
}

// zones are changed at all hours, some by half an hour, one at midnight, and one of them skipped a day.
var zones = []string{"Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Casablanca", "Asia/Kathmandu", "UTC"}

func randomWindows(r *rand.Rand) []window {
	var list []window
	at := r.IntN(600)
	for range r.IntN(3) {
		from := at + r.IntN(300)
		to := from + 1 + r.IntN(300)
		if to > 1440 {
			break
		}
		list = append(list, window{minute(from), minute(to)})
		at = to
	}
	if at < 1300 && r.IntN(3) == 0 {
		list = append(list, window{minute(1300 + r.IntN(100)), minute(r.IntN(500))})
	}
	return list
}

func minute(m int) string { return fmt.Sprintf("%02d:%02d", m/60, m%60) }

func randomPolicy(r *rand.Rand, begin time.Time) wire {
	w := wire{Timezone: zones[r.IntN(len(zones))], Weekly: map[string][]window{}}
	for _, d := range []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"} {
		if windows := randomWindows(r); len(windows) > 0 {
			w.Weekly[d] = windows
		}
	}
	days := r.Perm(12)
	for _, d := range days[:r.IntN(3)] {
		w.Holidays = append(w.Holidays, begin.AddDate(0, 0, d).Format("2006-01-02"))
	}
	for _, d := range days[3 : 3+r.IntN(3)] {
		w.Exceptions = append(w.Exceptions, exception{begin.AddDate(0, 0, d).Format("01-02"), randomWindows(r)})
	}
	if r.IntN(4) == 0 {
		w.Mode = "always"
	}
	return w
}

// begins are the days around which clocks are changed, a year ends, or a leap year has its day.
var begins = []time.Time{
	time.Date(2026, 3, 25, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 20, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 26, 0, 0, 0, 0, time.UTC),
	time.Date(2028, 2, 25, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 5, 0, 0, 0, 0, time.UTC), time.Date(2026, 10, 30, 0, 0, 0, 0, time.UTC),
	time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC), time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC),
}

// Minute by minute over twelve days, a policy agrees with the naive reading, and Next names each change and no other.
func TestAgainstNaiveReading(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 120 {
		begin := begins[i%len(begins)]
		w := randomPolicy(r, begin)
		text, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, parse(t, string(text)), w, begin)
	}
}

func compare(t *testing.T, p schedule.Policy, w wire, begin time.Time) {
	t.Helper()
	zone, err := schedule.LoadZone(w.Timezone)
	if err != nil {
		t.Fatal(err)
	}
	next, expected := p.Next(begin)
	open := naive(w, begin.In(zone))
	for at := begin; at.Before(begin.AddDate(0, 0, 12)); at = at.Add(time.Minute) {
		want := naive(w, at.In(zone))
		if got := p.At(at); got.Open != want {
			t.Fatalf("%s at %s: %+v, want %t", w.Timezone, at, got, want)
		}
		if want == open {
			continue
		}
		open = want
		if !expected || !next.Equal(at) {
			t.Fatalf("%s: changed at %s, Next said %s (%t)\n%+v", w.Timezone, at, next, expected, w)
		}
		next, expected = p.Next(at)
	}
	if expected && next.Before(begin.AddDate(0, 0, 12)) {
		t.Fatalf("%s: Next said %s, and nothing changed", w.Timezone, next)
	}
}

// A day that comes every four years is found, however far.
func TestNextLeapDay(t *testing.T) {
	t.Parallel()
	all := `[{"from":"00:00","to":"24:00"}]`
	p := parse(t, `{"timezone":"UTC","holidays":["02-29"],"weekly":{"mon":`+all+`,"tue":`+all+`,"wed":`+all+`,"thu":`+all+`,"fri":`+all+`,"sat":`+all+`,"sun":`+all+`}}`)
	next, ok := p.Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC))
	if want := time.Date(2104, 2, 29, 0, 0, 0, 0, time.UTC); !ok || !next.Equal(want) {
		t.Errorf("next %s, want %s", next, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(shop), int64(1795000000))
	f.Add([]byte(`{"mode":"always"}`), int64(0))
	f.Fuzz(func(t *testing.T, data []byte, unix int64) {
		p, err := schedule.Parse(data, "Europe/Rome")
		if err != nil {
			if _, ok := errors.AsType[*invalid.FieldError](err); !ok {
				t.Fatalf("error that names no field: %v", err)
			}
			return
		}
		at := time.Unix(unix%4e9, 0)
		next, ok := p.Next(at)
		if ok && (!next.After(at) || p.At(next).Open == p.At(at).Open) {
			t.Fatalf("at %s %+v, next %s %+v", at, p.At(at), next, p.At(next))
		}
	})
}

func BenchmarkAt(b *testing.B) {
	p := parse(b, shop)
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		p.At(at)
	}
}

// The schema takes what Parse takes, and refuses what Parse refuses for its form.
func TestSchema(t *testing.T) {
	t.Parallel()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(schedule.Schema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("policy", document); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("policy")
	if err != nil {
		t.Fatal(err)
	}
	takes := func(text string) bool {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		return err == nil && schema.Validate(v) == nil
	}
	for _, text := range []string{
		shop, `{"mode":"always"}`, `{"mode":"always","holidays":["12-25"],"exceptions":[{"date":"12-24"}]}`,
		`{"mode":"never","weekly":{},"holidays":[],"exceptions":[]}`, `{"weekly":{}}`, `{"exceptions":[{"date":"12-24"}]}`,
	} {
		if parse(t, text); !takes(text) {
			t.Errorf("the schema refuses %s", text)
		}
	}
	for _, r := range refusals() {
		if takes(r.text) != r.meaning {
			t.Errorf("%.80s: the schema says %t", r.text, takes(r.text))
		}
	}
}
