package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// aim is a ratio that must not be passed: ours to the yardstick's. It is taken of the best round of each, since the
// noise of a busy machine only ever adds.
type aim struct {
	what     string
	scenario string
	of       func(sample) float64 // in milliseconds
	most     float64
}

var aims = []aim{
	{"switch CPU of a registration", registering, sample.switchCost, 1.15},
	{"INVITE to 200, mean", internal, sample.meanTime, 1.10},
}

// outcome is an aim with what was seen.
type outcome struct {
	aim
	ours, yardstick []float64 // round by round
}

func (b *bench) outcome(a aim) outcome {
	o := outcome{aim: a}
	for _, s := range b.samples {
		switch {
		case s.scenario != a.scenario:
		case s.kind == ours:
			o.ours = append(o.ours, a.of(s))
		default:
			o.yardstick = append(o.yardstick, a.of(s))
		}
	}
	return o
}

func (o outcome) ratio() float64 { return slices.Min(o.ours) / slices.Min(o.yardstick) }

func (o outcome) met() bool { return o.ratio() <= o.most }

// perCall is a cost divided by the calls that had it, in milliseconds.
func (s sample) perCall(d time.Duration) float64 {
	return float64(d) / float64(time.Millisecond) / float64(max(s.result.calls, 1))
}

func (s sample) switchCost() float64 { return s.perCall(s.switchCPU) }

func (s sample) meanTime() float64 {
	var total float64
	for _, r := range s.result.times {
		total += r.took
	}
	return total / float64(max(len(s.result.times), 1))
}

// quantile is the response time that a share of all do not exceed, by nearest rank; 0 if there is none.
func quantile(times []response, share float64) float64 {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(times), func(a, b response) int { return cmp.Compare(a.took, b.took) })
	rank := int(math.Ceil(share * float64(len(sorted))))
	return sorted[max(rank, 1)-1].took
}

// rate is how many responses came in a second.
func rate(times []response) float64 {
	if len(times) < 2 {
		return 0
	}
	first, last := times[0].at, times[0].at
	for _, r := range times {
		first, last = min(first, r.at), max(last, r.at)
	}
	return float64(len(times)-1) / max(last-first, 1) * 1000
}

// merge is what all rounds of a scenario on a switch come to.
func merge(samples []sample) sample {
	m := sample{}
	for _, s := range samples {
		m.result.calls += s.result.calls
		m.result.failed += s.result.failed
		m.result.retransmitted += s.result.retransmitted
		m.result.times = append(m.result.times, s.result.times...)
		m.switchCPU += s.switchCPU
		m.xmlcurlCPU += s.xmlcurlCPU
		m.callerCPU += s.callerCPU
		m.lookups.directory += s.lookups.directory
		m.lookups.dialplan += s.lookups.dialplan
		m.busy = max(m.busy, s.busy)
	}
	return m
}

// overload is the share of the machine from which on a measurement says less about the programs.
const overload = 0.9

// report is what is printed: Markdown, fit for docs/performance.md.
func (b *bench) report() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%d processors, %d extensions, %d rounds in turns. Times to 200 in ms, CPU in ms a call.\n\n", runtime.NumCPU(), b.load.extensions, b.rounds)
	out.WriteString(table(b.scenarioRows()))
	out.WriteString("\n")
	out.WriteString(table(b.aimRows()))
	fmt.Fprintf(&out, "\nWith all registered and nobody calling, the switch used %d ms of CPU a second (xmlcurl) and %d (static).\n",
		b.atRest[ours].Milliseconds(), b.atRest[yardstick].Milliseconds())
	fmt.Fprintf(&out, "At most %d sessions began in a second; the switch allows %d (sessions-per-second of switch.conf).\n", b.sessionPeak, b.sessionLimit)
	if n := b.overloaded(); n > 0 {
		fmt.Fprintf(&out, "The machine was busy, above %.0f %%, in %d of %d measurements: times and costs say less than on a quiet one.\n",
			100*overload, n, len(b.samples))
	}
	if len(b.problems) == 0 {
		fmt.Fprintf(&out, "No failure. Nothing is cached in the switch: xml_flush_cache found nothing to clear, none of %d directory documents is "+
			"cacheable, and every registration and call asked xmlcurl.\n", b.static.users)
	}
	for _, p := range b.problems {
		fmt.Fprintf(&out, "PROBLEM: %s\n", p)
	}
	return out.String()
}

// overloaded counts the measurements during which others wanted the processors too.
func (b *bench) overloaded() (n int) {
	for _, s := range b.samples {
		if s.busy > overload {
			n++
		}
	}
	return n
}

func (b *bench) scenarioRows() [][]string {
	rows := [][]string{{
		"scenario", "users and routes", "calls", "failed", "a second", "mean", "p50", "p99", "switch CPU", "xmlcurl CPU", "SIPp CPU", "lookups", "resent", "machine",
	}}
	for _, name := range b.scenarios() {
		for _, k := range []kind{ours, yardstick} {
			samples := b.of(name, k)
			if len(samples) == 0 {
				continue
			}
			m := merge(samples)
			rows = append(rows, []string{
				name, string(k), fmt.Sprint(m.result.calls), fmt.Sprint(m.result.failed), fmt.Sprintf("%.0f", rate(samples[0].result.times)),
				fmt.Sprintf("%.1f", m.meanTime()), fmt.Sprintf("%.0f", quantile(m.result.times, 0.5)), fmt.Sprintf("%.0f", quantile(m.result.times, 0.99)),
				fmt.Sprintf("%.2f", m.switchCost()), fmt.Sprintf("%.2f", m.perCall(m.xmlcurlCPU)), fmt.Sprintf("%.2f", m.perCall(m.callerCPU)),
				fmt.Sprintf("%.2f", float64(m.lookups.directory+m.lookups.dialplan)/float64(max(m.result.calls, 1))),
				fmt.Sprint(m.result.retransmitted), fmt.Sprintf("%.0f %%", 100*m.busy),
			})
		}
	}
	return rows
}

func (b *bench) aimRows() [][]string {
	rows := [][]string{{"best round of each", "xmlcurl", "static", "ratio", "aim", "", "xmlcurl by round", "static by round"}}
	for _, a := range aims {
		o := b.outcome(a)
		verdict := "met"
		if !o.met() {
			verdict = "MISSED"
		}
		rows = append(rows, []string{
			a.what, fmt.Sprintf("%.2f", slices.Min(o.ours)), fmt.Sprintf("%.2f", slices.Min(o.yardstick)), fmt.Sprintf("%.2f", o.ratio()),
			fmt.Sprintf("%.2f", a.most), verdict, list(o.ours), list(o.yardstick),
		})
	}
	return rows
}

func list(values []float64) string {
	var texts []string
	for _, v := range values {
		texts = append(texts, fmt.Sprintf("%.2f", v))
	}
	return strings.Join(texts, ", ")
}

// table writes rows as a Markdown table, the first as its header, padded for people.
func table(rows [][]string) string {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var out strings.Builder
	for n, row := range rows {
		for i, cell := range row {
			out.WriteString("| " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+1))
		}
		out.WriteString("|\n")
		if n == 0 {
			for _, w := range widths {
				out.WriteString("|" + strings.Repeat("-", w+2))
			}
			out.WriteString("|\n")
		}
	}
	return out.String()
}

// verdict is the error that the run ends with.
func (b *bench) verdict() error {
	if n := len(b.problems); n > 0 {
		return fmt.Errorf("%d problems", n)
	}
	if !b.strict {
		return nil
	}
	var missed []error
	for _, a := range aims {
		if o := b.outcome(a); !o.met() {
			missed = append(missed, fmt.Errorf("%s: %.2f times the yardstick's, not %.2f", a.what, o.ratio(), a.most))
		}
	}
	return errors.Join(missed...)
}
