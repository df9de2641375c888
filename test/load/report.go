package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// spread is what was seen of one figure over the rounds.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`

	rounds []float64
}

func (s *spread) add(v float64) { s.rounds = append(s.rounds, v) }

// finish computes the figures; of an even number of rounds the median is the mean of the two in the middle.
func (s *spread) finish() {
	sorted := slices.Sorted(slices.Values(s.rounds))
	n := len(sorted)
	if n == 0 {
		return
	}
	s.Min, s.Max = sorted[0], sorted[n-1]
	s.Median = (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is a figure of one server to that of another, round by round.
func ratio(a, b spread) spread {
	var r spread
	for i := range min(len(a.rounds), len(b.rounds)) {
		if b.rounds[i] > 0 {
			r.add(a.rounds[i] / b.rounds[i])
		}
	}
	r.finish()
	return r
}

// times are those of one plan, in milliseconds.
type times struct {
	Rate float64 `json:"rate"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
}

func newTimes(o outcome) *times {
	return &times{o.rate(), milliseconds(percentile(o.latencies, 0.5)), milliseconds(percentile(o.latencies, 0.99))}
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// figures are what was seen of one server in one workload.
type figures struct {
	contestant *contestant

	Server     string `json:"server"`
	Extensions int    `json:"extensions"`
	// First is the warm-up, if nothing was asked before it.
	First *times `json:"first,omitempty"`
	// Rate is right answers a second.
	Rate spread `json:"rate"`
	P50  spread `json:"p50_ms"`
	P99  spread `json:"p99_ms"`
	Max  spread `json:"max_ms"`
	// CPU is the server's time a request, Own the generator's.
	CPU spread `json:"server_cpu_us"`
	Own spread `json:"generator_cpu_us"`
	RSS spread `json:"rss_mib"`
	// Rest is what everybody else, PostgreSQL too, used of the machine's processors.
	Rest   spread `json:"rest_of_machine_percent"`
	Errors int    `json:"errors"`
}

func (f *figures) add(o outcome, cpu, own time.Duration, rss int64) {
	requests := float64(max(len(o.latencies)+o.failed, 1))
	f.Rate.add(o.rate())
	f.P50.add(milliseconds(percentile(o.latencies, 0.5)))
	f.P99.add(milliseconds(percentile(o.latencies, 0.99)))
	f.Max.add(milliseconds(percentile(o.latencies, 1)))
	f.CPU.add(cpu.Seconds() * 1e6 / requests)
	f.Own.add(own.Seconds() * 1e6 / requests)
	f.RSS.add(mebibytes(rss))
	f.Errors += o.failed
}

// comparison is one server to another.
type comparison struct {
	Server string `json:"server"`
	To     string `json:"to"`
	Rate   spread `json:"rate"`
	CPU    spread `json:"server_cpu"`
	P50    spread `json:"p50"`
	P99    spread `json:"p99"`
	// The aims, where there are some, and whether they are met. An open loop has its rate from outside.
	RateAim string `json:"rate_aim,omitempty"`
	RateMet *bool  `json:"rate_met,omitempty"`
	CPUAim  string `json:"server_cpu_aim,omitempty"`
	CPUMet  *bool  `json:"server_cpu_met,omitempty"`
}

// result is what one workload gave.
type result struct {
	workload workload

	Name          string `json:"workload"`
	DocumentBytes int    `json:"document_bytes"`
	// Disturbed tells that something else was busy while the floor ran, which needs no PostgreSQL.
	Disturbed   bool          `json:"disturbed"`
	Servers     []*figures    `json:"servers"`
	Comparisons []*comparison `json:"comparisons"`
}

// report is the line of JSON.
type report struct {
	Clients      int       `json:"clients"`
	Rate         float64   `json:"open_loop_rate"`
	Rounds       int       `json:"rounds"`
	RoundSeconds float64   `json:"round_seconds"`
	Choice       string    `json:"choice"`
	Spread       int       `json:"spread"`
	Warm         string    `json:"warm"`
	Extensions   []int     `json:"extensions"`
	Workloads    []*result `json:"workloads"`
	AimsMet      bool      `json:"aims_met"`
}

func (r *report) add(w *result) {
	r.Workloads = append(r.Workloads, w)
	for _, c := range w.Comparisons {
		for _, met := range []*bool{c.RateMet, c.CPUMet} {
			r.AimsMet = r.AimsMet && (met == nil || *met)
		}
	}
}

// quiet is how much of a machine, in percent, others may use in a round of the floor for its numbers to be worth
// keeping.
const quiet = 10

// finish computes medians and compares: everything to the floor, each size to the first, and what is measured to what
// it is measured against.
func (r *result) finish(o options) {
	for _, f := range r.Servers {
		for _, s := range []*spread{&f.Rate, &f.P50, &f.P99, &f.Max, &f.CPU, &f.Own, &f.RSS, &f.Rest} {
			s.finish()
		}
	}
	r.Disturbed = r.Servers[0].Rest.Max > quiet
	var first *figures // of xmlcurl
	for _, f := range r.Servers[1:] {
		c := r.compare(f, r.Servers[0])
		if f.contestant.role != roleXMLCurl {
			continue
		}
		c.CPUAim, c.CPUMet = fmt.Sprintf("%.2f or less", r.workload.aim.cpu), new(c.CPU.Median <= r.workload.aim.cpu)
		if o.rate == 0 {
			c.RateAim, c.RateMet = fmt.Sprintf("%.2f or more", r.workload.aim.rate), new(c.Rate.Median >= r.workload.aim.rate)
		}
		if first == nil {
			first = f
			continue
		}
		c = r.compare(f, first)
		if o.rate == 0 {
			c.RateAim = fmt.Sprintf("%.2f to %.2f", 1-sizeAim, 1+sizeAim)
			c.RateMet = new(c.Rate.Median >= 1-sizeAim && c.Rate.Median <= 1+sizeAim)
		}
	}
	for _, old := range r.Servers[1:] {
		for _, f := range r.Servers[1:] {
			if old.contestant.role == roleAgainst && f.contestant.role == roleXMLCurl && f.Extensions == old.Extensions {
				r.compare(f, old)
			}
		}
	}
}

func (r *result) compare(a, b *figures) *comparison {
	c := &comparison{
		Server: a.Server, To: b.Server,
		Rate: ratio(a.Rate, b.Rate), CPU: ratio(a.CPU, b.CPU), P50: ratio(a.P50, b.P50), P99: ratio(a.P99, b.P99),
	}
	r.Comparisons = append(r.Comparisons, c)
	return c
}

// text is the result for people.
func (r *result) text(o options) string {
	var b strings.Builder
	loop := "closed loop"
	if o.rate > 0 {
		loop = fmt.Sprintf("open loop of %.0f/s (%s)", o.rate, o.arrivals)
	}
	fmt.Fprintf(&b, "\n%s: %s; document of %d bytes; %d clients, %s, %s choice; %d rounds of %v, median (min..max)\n\n",
		r.Name, r.workload.about, r.DocumentBytes, o.clients, loop, o.choice, o.rounds, o.round)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { _, _ = fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") } // to memory
	row("", "rate/s", "p50 ms", "p99 ms", "max ms", "server CPU µs", "generator CPU µs", "RSS MiB", "rest of machine %", "errors")
	for _, f := range r.Servers {
		row(f.Server, f.Rate.format(0), f.P50.format(2), f.P99.format(2), f.Max.format(1), f.CPU.format(1), f.Own.format(1), f.RSS.format(0), f.Rest.format(0), fmt.Sprint(f.Errors))
	}
	_ = t.Flush() // to memory
	b.WriteByte('\n')
	for _, f := range r.Servers {
		if f.First != nil {
			fmt.Fprintf(&b, "  %s, each extension for the first time: %.0f/s, p50 %.2f ms, p99 %.2f ms\n", f.Server, f.First.Rate, f.First.P50, f.First.P99)
		}
	}
	for _, c := range r.Comparisons {
		fmt.Fprintf(&b, "  %s to %s: ", c.Server, c.To)
		if o.rate == 0 {
			fmt.Fprintf(&b, "rate %s%s", c.Rate.format(2), verdict(c.RateAim, c.RateMet))
		} else {
			fmt.Fprintf(&b, "p50 %s; p99 %s", c.P50.format(2), c.P99.format(2))
		}
		fmt.Fprintf(&b, "; server CPU %s%s\n", c.CPU.format(2), verdict(c.CPUAim, c.CPUMet))
	}
	if r.Disturbed {
		fmt.Fprintf(&b, "  Not to be kept: something else used %s %% of the machine while the floor ran.\n", r.Servers[0].Rest.format(0))
	}
	return b.String()
}

func (s spread) format(digits int) string {
	return fmt.Sprintf("%.*f (%.*f..%.*f)", digits, s.Median, digits, s.Min, digits, s.Max)
}

func verdict(aim string, met *bool) string {
	switch {
	case met == nil:
		return ""
	case *met:
		return ", aim " + aim + ": met"
	default:
		return ", aim " + aim + ": MISSED"
	}
}
