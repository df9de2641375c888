package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// bench runs the scenarios on both switches, in turns, and keeps what it saw.
type bench struct {
	options
	progress io.Writer

	in       *installation
	static   static
	samples  []sample
	problems []string // what went otherwise than it should
	// The most sessions that began in a second, and how many a switch lets begin.
	sessionPeak, sessionLimit int
	atRest                    map[kind]time.Duration // of CPU a second
}

// sample is one scenario, once, on one switch.
type sample struct {
	scenario   string
	kind       kind
	round      int
	result     result
	switchCPU  time.Duration
	xmlcurlCPU time.Duration
	callerCPU  time.Duration // of the SIPp that calls
	lookups    lookups
	asks       lookups // that each call should need
	busy       float64 // share of the whole machine's processor time that was used, by anybody
}

// run runs everything. Its error means that something could not be run; what ran and went wrong is in problems.
func (b *bench) run(ctx context.Context, server string) (err error) {
	b.say("database, %d extensions, xmlcurl", b.load.extensions)
	b.in, err = install(ctx, b.options, server)
	defer func() { err = errors.Join(err, b.close(ctx, err)) }()
	if err != nil {
		return err
	}
	if b.static, err = staticXML(ctx, b.in, b.load.extensions); err != nil {
		return err
	}
	if b.static.cacheable {
		b.problem("a directory document is cacheable")
	}
	for round := range b.rounds {
		for _, k := range []kind{ours, yardstick} {
			if err := b.turn(ctx, round, k); err != nil {
				return fmt.Errorf("%s, round %d: %w", k, round+1, err)
			}
		}
	}
	return nil
}

// close clears away, but for the logs of a run that went wrong by itself.
func (b *bench) close(ctx context.Context, runErr error) error {
	err := b.in.close(ctx)
	if runErr == nil && len(b.problems) == 0 || ctx.Err() != nil {
		return errors.Join(err, os.RemoveAll(b.in.dir))
	}
	b.say("logs are kept in %s", b.in.dir)
	return err
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, format+"\n", args...)
}

func (b *bench) problem(format string, args ...any) {
	b.problems = append(b.problems, fmt.Sprintf(format, args...))
}

// turn starts one of the switches and runs the scenarios on it: those that the aims are about in every round, the
// others once.
func (b *bench) turn(ctx context.Context, round int, k kind) error {
	dir := filepath.Join(b.in.dir, fmt.Sprintf("%d-%s", round+1, k))
	s, err := startSwitch(ctx, b.in, k, b.static, dir)
	if err != nil {
		return err
	}
	defer s.stop()
	t := &turn{bench: b, fsSwitch: s, round: round, dir: dir}
	scenarios := []func(context.Context) error{t.registrations, t.internalCalls}
	if round == 0 {
		scenarios = append(scenarios, t.rest, t.trunkOut, t.trunkIn, t.failoverRefused, t.failoverDown, t.limitOfExtensions, t.limitOfTrunksOut, t.limitOfTrunkIn)
	}
	for _, scenario := range scenarios {
		if err := scenario(ctx); err != nil {
			return err
		}
	}
	return t.lookInside()
}

// lookInside asks the switch what it has cached, and how near it came to its limit of new sessions.
func (t *turn) lookInside() error {
	cached, err := t.count("xml_flush_cache")
	if err != nil {
		return err
	}
	if cached != 0 {
		t.problem("%s: %d users were cached in the switch", t.kind, cached)
	}
	status, err := t.socket.api("status")
	if err != nil {
		return err
	}
	peak, limit, err := parseSessionRate(status)
	t.sessionPeak, t.sessionLimit = max(t.sessionPeak, peak), limit
	return err
}

// turn is one switch in one round.
type turn struct {
	*bench
	*fsSwitch
	round int
	dir   string
}

// counters are what grows while a scenario runs.
type counters struct {
	switchCPU, xmlcurlCPU time.Duration
	lookups               lookups
	machine               machineTime
}

func (t *turn) counters(ctx context.Context) (c counters, err error) {
	if c.switchCPU, err = t.process.cpu(); err != nil {
		return c, err
	}
	if c.xmlcurlCPU, err = t.in.xmlcurl.cpu(); err != nil {
		return c, err
	}
	if c.machine, err = readMachineTime(); err != nil {
		return c, err
	}
	c.lookups, err = t.in.lookups(ctx)
	return c, err
}

// answerer answers calls.
type answerer struct {
	name string // for messages
	sipp
	want int // calls
}

// measure runs a scenario: who answers, who calls, and what that cost. want are the final answers that the callers must
// get; every other is a problem, and so is a call that did not go as its scenario says, on either side.
func (t *turn) measure(ctx context.Context, scenario string, callers sipp, want map[string]int, answerers ...answerer) error {
	t.say("round %d, %s: %s", t.round+1, t.kind, scenario)
	answering := make([]*sippRun, len(answerers))
	for i, a := range answerers {
		r, err := startSIPp(ctx, t.dir, a.sipp)
		if err != nil {
			return err
		}
		defer r.process.stop(syscall.SIGTERM)
		answering[i] = r
	}
	before, err := t.counters(ctx)
	if err != nil {
		return err
	}
	calling, err := startSIPp(ctx, t.dir, callers)
	if err != nil {
		return err
	}
	got, err := calling.wait(ctx)
	if err != nil {
		return err
	}
	if err := t.idle(ctx); err != nil {
		t.problem("%s, %s: %v", t.kind, scenario, err)
	}
	after, err := t.counters(ctx)
	if err != nil {
		return err
	}
	s := sample{
		scenario: scenario, kind: t.kind, round: t.round, result: got,
		switchCPU: after.switchCPU - before.switchCPU, xmlcurlCPU: after.xmlcurlCPU - before.xmlcurlCPU,
		callerCPU: calling.cpu(), lookups: after.lookups.minus(before.lookups), asks: callers.asks,
		busy: after.machine.busySince(before.machine),
	}
	t.samples = append(t.samples, s)
	t.judge(s, want)
	for i, a := range answerers {
		got, err := answering[i].finish()
		if err != nil {
			return err
		}
		t.judgeAnswers(scenario, a, got)
	}
	return nil
}

// judge notes what went otherwise than it should for those who call.
func (t *turn) judge(s sample, want map[string]int) {
	r := s.result
	if r.failed > 0 {
		t.problem("%s, %s: %d of %d failed: %v", s.kind, s.scenario, r.failed, r.calls, r.why)
	}
	if !maps.Equal(r.counted, want) {
		t.problem("%s, %s: final answers %v, not %v", s.kind, s.scenario, r.counted, want)
	}
	switch users, routes := s.lookups.directory, s.lookups.dialplan; {
	case s.kind == yardstick && users+routes > 0:
		t.problem("%s, %s: xmlcurl was asked for %d users and %d routes", s.kind, s.scenario, users, routes)
	case s.kind == ours && (users < r.succeeded*s.asks.directory || routes < r.succeeded*s.asks.dialplan):
		t.problem("%s, %s: xmlcurl was asked for %d users and %d routes only: something is cached", s.kind, s.scenario, users, routes)
	}
}

// judgeAnswers notes what went otherwise than it should for those who answer. What the switch tells phones outside
// calls counts as a call of SIPp's, but not as an INVITE.
func (t *turn) judgeAnswers(scenario string, who answerer, r result) {
	if r.failed > 0 {
		t.problem("%s, %s, %s: %d of %d failed: %v", t.kind, scenario, who.name, r.failed, r.calls, r.why)
	}
	if n := r.counted["INVITE"]; n != who.want {
		t.problem("%s, %s, %s: called %d times, not %d", t.kind, scenario, who.name, n, who.want)
	}
}

// The names of the scenarios, in the order of the report.
const (
	registering       = "register and re-register"
	internal          = "extension to extension"
	trunkOut          = "trunk, out"
	trunkIn           = "trunk, in"
	failoverRefused   = "failover: first carrier 503"
	failoverDown      = "failover: first carrier down"
	limitOfExtensions = "limit: extensions"
	limitOfTrunksOut  = "limit: trunks, out"
	limitOfTrunkIn    = "limit: trunk, in"
)

// account is the beginning of a line of the CSV: the n-th extension. SIPp takes the whole header from there.
func account(n int) string {
	number := strconv.Itoa(firstExtension + n)
	return fmt.Sprintf("%s;%s;[authentication username=%s password=pw%s]", number, realm, number, number)
}

// registrations registers all extensions one after the other, and again from the first, at the address where they will
// answer calls.
func (t *turn) registrations(ctx context.Context) error {
	var lines []string
	for n := range t.load.extensions {
		lines = append(lines, account(n))
	}
	n := max(t.load.stormRate*int(t.load.storm/time.Second), t.load.extensions)
	options, err := scenarioFile("options")
	if err != nil {
		return err
	}
	err = t.measure(ctx, registering, sipp{
		scenario: "register", port: t.in.phones, remote: t.in.internal, lines: lines, calls: n, rate: t.load.stormRate,
		measures: "register", asks: lookups{directory: 1},
		args: []string{"-key", "expires", "600", "-oocsf", options},
	}, map[string]int{"200": n})
	if err != nil {
		return err
	}
	registered, err := t.count("show registrations count")
	if err == nil && registered != t.load.extensions {
		t.problem("%s: %d extensions are registered, not %d", t.kind, registered, t.load.extensions)
	}
	return err
}

// restTime is how long the switch is watched doing nothing.
const restTime = 5 * time.Second

// rest measures what the switch uses when all extensions are registered and nobody calls: it keeps their paths through
// address translation open.
func (t *turn) rest(ctx context.Context) error {
	phones, err := startSIPp(ctx, t.dir, t.phones(0).sipp)
	if err != nil {
		return err
	}
	defer phones.process.stop(syscall.SIGTERM)
	before, err := t.process.cpu()
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(restTime):
	}
	after, err := t.process.cpu()
	t.atRest[t.kind] = (after - before) * time.Second / restTime
	return err
}

// callLength is that of the calls whose set-up is timed.
const callLength = 500 * time.Millisecond

// phones answer for all extensions.
func (t *turn) phones(want int) answerer {
	return answerer{"phones", sipp{scenario: "answer", port: t.in.phones}, want}
}

// carrier answers for the first or the second carrier.
func (t *turn) carrier(n int, scenario string, want int) answerer {
	return answerer{"carrier " + strconv.Itoa(n), sipp{scenario: scenario, port: t.in.carriers[n-1]}, want}
}

// phoneCalls is a number of phones that call.
func (t *turn) phoneCalls(lines []string, calls, rate int, length time.Duration) sipp {
	return sipp{
		scenario: "load_call", port: t.in.caller, remote: t.in.internal, lines: lines, calls: calls, rate: rate,
		measures: "setup", asks: lookups{directory: 1, dialplan: 1}, args: []string{"-d", strconv.FormatInt(length.Milliseconds(), 10)},
	}
}

// internalCalls are calls from one half of the extensions to the other.
func (t *turn) internalCalls(ctx context.Context) error {
	var lines []string
	half := t.load.extensions / 2
	for n := range half {
		lines = append(lines, account(n)+";"+strconv.Itoa(firstExtension+half+n))
	}
	return t.measure(ctx, internal, t.phoneCalls(lines, t.load.calls, t.load.callRate, callLength), map[string]int{"200": t.load.calls}, t.phones(t.load.calls))
}

// trunkRate is that of calls with carriers: below the channels of a trunk by far.
const trunkRate = 20

// abroad are lines of phones that call the public network, each another.
func (t *turn) abroad(calls int) []string {
	var lines []string
	for n := range calls {
		lines = append(lines, account(n%t.load.extensions)+";"+learntNumber)
	}
	return lines
}

func (t *turn) outward(ctx context.Context, scenario string, carriers ...answerer) error {
	n := t.load.trunkCalls
	return t.measure(ctx, scenario, t.phoneCalls(t.abroad(n), n, trunkRate, callLength), map[string]int{"200": n}, append(carriers, t.phones(0))...)
}

func (t *turn) trunkOut(ctx context.Context) error {
	return t.outward(ctx, trunkOut, t.carrier(1, "answer", t.load.trunkCalls), t.carrier(2, "answer", 0))
}

func (t *turn) failoverRefused(ctx context.Context) error {
	n := t.load.trunkCalls
	return t.outward(ctx, failoverRefused, t.carrier(1, "unavailable", n), t.carrier(2, "answer", n))
}

func (t *turn) failoverDown(ctx context.Context) error {
	return t.outward(ctx, failoverDown, t.carrier(2, "answer", t.load.trunkCalls))
}

// carrierCalls are calls to the DIDs of the first trunk.
func (t *turn) carrierCalls(calls, rate int, length time.Duration) sipp {
	var lines []string
	for n := range dids {
		lines = append(lines, learntCaller+";+"+strconv.Itoa(firstDID+n))
	}
	return sipp{
		scenario: "load_carrier_call", port: t.in.caller, remote: t.in.external, lines: lines, calls: calls, rate: rate,
		measures: "setup", asks: lookups{dialplan: 1}, args: []string{"-d", strconv.FormatInt(length.Milliseconds(), 10)},
	}
}

func (t *turn) trunkIn(ctx context.Context) error {
	n := t.load.trunkCalls
	return t.measure(ctx, trunkIn, t.carrierCalls(n, trunkRate, callLength), map[string]int{"200": n}, t.phones(n))
}

// The calls of the limits' scenarios come at this rate, and each that is let in lasts until all have come.
const limitRate = 40

func untilAllHaveCome(calls int) time.Duration {
	return time.Duration(calls)*time.Second/limitRate + 2*time.Second
}

// limitOfExtensions are callers who call twice as often as they may, and phones that are called twice as often.
func (t *turn) limitOfExtensions(ctx context.Context) error {
	const busy, most = 10, 2 * maxCalls
	var lines []string
	others := 2 * busy // extensions of which each has one call
	for try := range most {
		for n := range busy {
			lines = append(lines,
				account(1+n)+";"+strconv.Itoa(firstExtension+1+others+2*(try*busy+n)),
				account(1+others+2*(try*busy+n)+1)+";"+strconv.Itoa(firstExtension+1+busy+n))
		}
	}
	let := 2 * busy * maxCalls
	return t.measure(ctx, limitOfExtensions, t.phoneCalls(lines, len(lines), limitRate, untilAllHaveCome(len(lines))),
		map[string]int{"200": let, "486": len(lines) - let}, t.phones(let))
}

// limitOfTrunksOut are half as many calls again as both trunks have channels.
func (t *turn) limitOfTrunksOut(ctx context.Context) error {
	n := 3 * maxChannels
	return t.measure(ctx, limitOfTrunksOut, t.phoneCalls(t.abroad(n), n, limitRate, untilAllHaveCome(n)),
		map[string]int{"200": 2 * maxChannels, "503": n - 2*maxChannels}, t.carrier(1, "answer", maxChannels), t.carrier(2, "answer", maxChannels), t.phones(0))
}

// limitOfTrunkIn are half as many calls again as the trunk has channels.
func (t *turn) limitOfTrunkIn(ctx context.Context) error {
	n := maxChannels * 3 / 2
	return t.measure(ctx, limitOfTrunkIn, t.carrierCalls(n, limitRate, untilAllHaveCome(n)),
		map[string]int{"200": maxChannels, "503": n - maxChannels}, t.phones(maxChannels))
}

// of returns the samples of a scenario on a switch, round by round.
func (b *bench) of(scenario string, k kind) []sample {
	var of []sample
	for _, s := range b.samples {
		if s.scenario == scenario && s.kind == k {
			of = append(of, s)
		}
	}
	return of
}

// scenarios are the names of all that ran, in order.
func (b *bench) scenarios() []string {
	var names []string
	for _, s := range b.samples {
		if !slices.Contains(names, s.scenario) {
			names = append(names, s.scenario)
		}
	}
	return names
}
