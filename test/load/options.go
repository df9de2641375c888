package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options say what is measured and how.
type options struct {
	scanning bool // rather than measuring

	xmlcurl, against string
	env              list
	captured         string

	sizes     sizes
	workloads names
	choice    string
	spread    int
	warm      string

	clients  int
	rate     float64
	arrivals string
	rounds   int
	round    time.Duration
	unknown  int

	strict, json bool
}

// How a server's memory is filled before measuring.
const (
	warmAsk     = "ask"
	warmPreload = "preload"
	warmNone    = "none"
)

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(s string) error {
	if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
		return errors.New("not KEY=VALUE")
	}
	*l = append(*l, s)
	return nil
}

// sizes is a list of numbers of extensions.
type sizes []int

func (s *sizes) String() string {
	texts := make([]string, len(*s))
	for i, n := range *s {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, ",")
}

func (s *sizes) Set(text string) error {
	*s = nil
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < perTenant || n > maxExtensions || n%perTenant != 0 {
			return fmt.Errorf("a size is a multiple of %d up to %d", perTenant, maxExtensions)
		}
		if slices.Contains(*s, n) {
			return fmt.Errorf("size %d is there twice", n)
		}
		*s = append(*s, n)
	}
	return nil
}

// names is a list of workloads.
type names []string

func (n *names) String() string { return strings.Join(*n, ",") }

func (n *names) Set(text string) error {
	*n = strings.Split(text, ",")
	for _, name := range *n {
		if !slices.Contains(workloadNames, name) {
			return errors.New("workloads are " + strings.Join(workloadNames, ", "))
		}
	}
	return nil
}

// parseOptions reads the arguments. Error: flag.ErrHelp after -help.
func parseOptions(args []string, stderr io.Writer) (options, error) {
	o := options{sizes: sizes{1000}, workloads: workloadNames}
	if len(args) > 0 && args[0] == "scan" {
		o.scanning, args = true, args[1:]
	}
	flags := flag.NewFlagSet("load", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.xmlcurl, "xmlcurl", "bin/xmlcurl", "the program that is measured")
	flags.StringVar(&o.against, "against", "", "another xmlcurl, measured in the same rounds on the same database")
	flags.Var(&o.env, "env", "KEY=VALUE for the environment of every server, the floor too (repeatable)")
	flags.StringVar(&o.captured, "captured", "internal/xmlcurl/testdata/captured", "directory of the captured requests")
	flags.Var(&o.sizes, "extensions", "sizes of database, each measured in the same rounds, as 1000,100000,1000000; scan takes the first")
	flags.Var(&o.workloads, "workload", "what is asked, separated by commas")
	flags.StringVar(&o.choice, "choice", "uniform", "how extensions are chosen: uniform or zipf")
	flags.IntVar(&o.spread, "spread", 0, "number of extensions of each size that are asked for at all; 0 means all")
	flags.StringVar(&o.warm, "warm", warmAsk, "how memory is filled before measuring: "+warmAsk+" (once for each extension that is asked for), "+
		warmPreload+" (with XMLCURL_PRELOAD, waiting for it; older programs are asked) or "+warmNone)
	flags.IntVar(&o.clients, "clients", 16, "lookups at the same time")
	flags.Float64Var(&o.rate, "rate", 0, "open loop: lookups a second, with latencies from when each was due; 0 means closed loop")
	flags.StringVar(&o.arrivals, "arrivals", "poisson", "arrivals of the open loop: poisson or constant")
	flags.IntVar(&o.rounds, "rounds", 5, "rounds of each server")
	flags.DurationVar(&o.round, "round", 2500*time.Millisecond, "length of a round")
	flags.IntVar(&o.unknown, "names", 1_000_000, "scan: lookups of names that do not exist")
	flags.BoolVar(&o.strict, "strict", false, "fail when an aim is missed")
	flags.BoolVar(&o.json, "json", false, "end in one line of JSON")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	return o, o.check()
}

func (o *options) check() error {
	switch {
	case o.clients < 1 || o.clients > maxClients:
		return fmt.Errorf("-clients is not between 1 and %d", maxClients)
	case o.rate < 0 || o.rate > 1e6:
		return errors.New("-rate is not between 0 and 1000000")
	case o.rounds < 1:
		return errors.New("-rounds is not positive")
	case o.round < 100*time.Millisecond:
		// CPU time is counted in steps of 10 ms.
		return errors.New("-round is shorter than 100ms")
	case o.spread < 0:
		return errors.New("-spread is negative")
	case o.unknown < 1:
		return errors.New("-names is not positive")
	case o.warm != warmAsk && o.warm != warmPreload && o.warm != warmNone:
		return fmt.Errorf("-warm is %s, %s or %s", warmAsk, warmPreload, warmNone)
	case o.choice != "uniform" && o.choice != "zipf":
		return errors.New("-choice is uniform or zipf")
	case o.arrivals != "poisson" && o.arrivals != "constant":
		return errors.New("-arrivals is poisson or constant")
	}
	for _, p := range []struct {
		flag string
		path *string
	}{{"-xmlcurl", &o.xmlcurl}, {"-against", &o.against}} {
		if *p.path == "" && p.flag == "-against" {
			continue
		}
		// A bare name would be looked for in PATH.
		path, err := filepath.Abs(*p.path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return fmt.Errorf("%s: %w (make build)", p.flag, err)
		}
		*p.path = path
	}
	return nil
}
