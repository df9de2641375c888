// Command load measures how fast xmlcurl answers, beside the fastest that an answer can be. It replays bodies captured
// from FreeSWITCH, rewritten so that they ask for every extension of a database that it fills, over one new TCP
// connection a request, as FreeSWITCH does; it reads each answer, and fails if one is not the one asked for.
//
// Beside xmlcurl runs a floor: the same HTTP server with a constant answer of the same size. Rounds of both alternate,
// so that whatever else the machine does hits both, and what counts is the ratio. docs/performance.md has the aims and
// the last tables.
//
//	load        measure; the options are listed by -help
//	load scan   ask for names that do not exist, and watch memory and PostgreSQL
//	load floor  be the floor; started by the above
//
// TEST_DATABASE_URL names a PostgreSQL superuser (dev/with-postgres); each size of database is a database of its own,
// which is dropped at the end. Linux only: it reads /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv("TEST_DATABASE_URL"), os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		stop()
		os.Exit(1) //nolint:forbidigo // only main exits
	}
}

// run is the process. What it measures goes to stdout, what it is doing to stderr.
func run(ctx context.Context, args []string, database string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "floor" {
		return floor(ctx, args[1:], stderr)
	}
	o, err := parseOptions(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if database == "" {
		return errors.New("TEST_DATABASE_URL is not set: run dev/with-postgres go run ./test/load")
	}
	// Each client is a thread that blocks in the kernel; with a processor for each the scheduler need not look after
	// them.
	runtime.GOMAXPROCS(o.clients + 2)
	debug.SetGCPercent(1000)
	s, err := newStage(ctx, o, database, stderr)
	if err != nil {
		return err
	}
	if o.scanning {
		err = s.scan(ctx, stdout)
	} else {
		err = s.measure(ctx, stdout)
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	return errors.Join(err, s.close(ctx))
}
