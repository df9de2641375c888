// Run puts load on a real FreeSWITCH with SIPp, twice: once with the project's freeswitch-conf, xmlcurl and PostgreSQL,
// and once with the same users and routes as static XML on the switch's disk, which is the yardstick. It prints what
// was asked, what failed and why, how long calls took to set up, and what a registration and a call cost the switch.
//
// The two take turns, so that the noise of a busy machine meets both. README.md, one directory up, says how to read the
// tables.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "sipp:", err)
		os.Exit(1) //nolint:forbidigo // only main exits
	}
}

// options are what the command line chooses.
type options struct {
	xmlcurl, api string      // programs
	env          assignments // of xmlcurl, besides its own
	rounds       int
	strict       bool
	load         load
}

// load is how much of everything.
type load struct {
	extensions int
	storm      time.Duration // of registrations, in each round
	stormRate  int           // registrations a second
	calls      int           // between extensions, in each round
	callRate   int           // a second
	trunkCalls int           // of each kind, in each round
}

// whole is the load that make sipp puts on: in three rounds a minute of registrations and 900 calls. quick is a smaller
// one that shows that everything works.
var (
	whole = load{extensions: 1000, storm: 20 * time.Second, stormRate: 100, calls: 300, callRate: 30, trunkCalls: 100}
	quick = load{extensions: 300, storm: 6 * time.Second, stormRate: 100, calls: 90, callRate: 30, trunkCalls: 40}
)

// assignments is a flag NAME=VALUE that may be given several times.
type assignments []string

func (a *assignments) String() string { return strings.Join(*a, " ") }

func (a *assignments) Set(s string) error {
	if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
		return errors.New("not NAME=VALUE")
	}
	*a = append(*a, s)
	return nil
}

// parse reads the command line. Error: flag.ErrHelp after -help.
func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("sipp", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.xmlcurl, "xmlcurl", "bin/xmlcurl", "the xmlcurl to measure")
	flags.StringVar(&o.api, "api", "bin/integration-api", "the integration-api that migrates and seeds")
	flags.Var(&o.env, "env", "NAME=VALUE, a setting of xmlcurl (repeatable)")
	flags.BoolVar(&o.strict, "strict", false, "fail also when an aim is missed")
	small := flags.Bool("quick", false, "a smoke run: one round of a small load, whose ratios mean little")
	rounds := flags.Int("rounds", 0, "how often the two take turns (default 3, with -quick 1)")
	storm := flags.Duration("storm", 0, "length of the registration storm in each round (default 20s, with -quick 6s)")
	stormRate := flags.Int("storm-rate", 0, "registrations a second (default 100)")
	calls := flags.Int("calls", 0, "calls between extensions in each round (default 300, with -quick 90)")
	callRate := flags.Int("call-rate", 0, "calls between extensions a second (default 30)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, errors.New("no arguments are taken but options")
	}
	if *storm < 0 || min(*rounds, *stormRate, *calls, *callRate) < 0 {
		return o, errors.New("-rounds, -storm, -storm-rate, -calls and -call-rate are not negative")
	}
	o.rounds, o.load = 3, whole
	if *small {
		o.rounds, o.load = 1, quick
	}
	o.rounds = cmp.Or(*rounds, o.rounds)
	o.load.storm = cmp.Or(*storm, o.load.storm)
	o.load.stormRate = cmp.Or(*stormRate, o.load.stormRate)
	o.load.calls = cmp.Or(*calls, o.load.calls)
	o.load.callRate = cmp.Or(*callRate, o.load.callRate)
	return o, nil
}

// run runs the load tests and writes the report to stdout, progress to stderr. It returns an error when something could
// not be run, when anything failed that should have worked, and with -strict when an aim is missed.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if _, err := exec.LookPath("freeswitch"); err != nil {
		_, err := fmt.Fprintln(stdout, "Skipped: the load tests need FreeSWITCH, and there is no freeswitch in PATH.")
		return err
	}
	if _, err := exec.LookPath("sipp"); err != nil {
		return errors.New("no sipp in PATH (Debian: sip-tester)")
	}
	server := getenv("TEST_DATABASE_URL")
	if server == "" {
		return errors.New("TEST_DATABASE_URL names no PostgreSQL (test/sipp/load starts one)")
	}
	b := &bench{options: o, progress: stderr, atRest: map[kind]time.Duration{}}
	if err := b.run(ctx, server); err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, b.report()); err != nil {
		return err
	}
	return b.verdict()
}
