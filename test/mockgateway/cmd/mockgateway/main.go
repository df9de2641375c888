// Command mockgateway plays W3's voice gateway (docs/ai-gateway.md): it gives sessions, plays a tone, hears the
// caller's, and reports at /report what became of each call.
//
//	mockgateway [-addr 127.0.0.1:8090] [-secret FILE] [-cert FILE -key FILE] [-fault refuse] [-hz 440] [-loopback]
//
// An agent whose name ends in a plus sign and a fault goes wrong in that way; -fault is for all the others.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "mockgateway:", err)
		stop()
		os.Exit(1) //nolint:forbidigo // only main exits
	}
}

// run gives sessions until ctx ends.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("mockgateway", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8090", "where to listen")
	secret := flags.String("secret", "", "file with the secret that requests are signed with; everything is let in without")
	cert := flags.String("cert", "", "certificate, as a PEM file; plain HTTP without")
	key := flags.String("key", "", "its key")
	fault := flags.String("fault", "", "how calls go wrong: "+faults())
	after := flags.Duration("after", time.Second, "when faults in mid-call happen")
	hz := flags.Float64("hz", 440, "the tone that is played")
	to := flags.String("to", "1002", "the extension of the fault transfer")
	loopback := flags.Bool("loopback", false, "keep media on the loopback interface")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if *fault != "" && !slices.Contains(mockgateway.Faults, mockgateway.Fault(*fault)) {
		return errors.New("-fault is one of " + faults())
	}
	o := mockgateway.Options{
		Hz: *hz, Fault: mockgateway.Fault(*fault), After: *after, TransferTo: *to, Loopback: *loopback, Log: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	if *secret != "" {
		b, err := os.ReadFile(*secret)
		if err != nil {
			return fmt.Errorf("-secret: %w", err)
		}
		o.Secret = strings.TrimSpace(string(b))
	}
	g, err := mockgateway.New(o)
	if err != nil {
		return err
	}
	defer g.Close()
	return serve(ctx, g, *addr, *cert, *key, stderr)
}

func faults() string {
	var names []string
	for _, f := range mockgateway.Faults {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

func serve(ctx context.Context, h http.Handler, addr, cert, key string, stderr io.Writer) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintln(stderr, "listening on", l.Addr()) // for whoever looks
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() }) // what is open ends with the process
	if cert != "" {
		err = server.ServeTLS(l, cert, key)
	} else {
		err = server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
