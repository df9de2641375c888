// Command mockw3 plays W3 against an edgvoip: it provisions the extensions of a file over the integration API as W3
// would, with an Idempotency-Key for each, sending again what was not answered; it checks every answer and reads back
// what was stored; and it reports how often each request was sent and what came back. docs/integration.md says what it
// relies on.
//
//	mockw3 [-url https://127.0.0.1:8443] [-ca FILE] [-clients 8] FILE
//	mockw3 receive -secrets FILE -state FILE [-addr 127.0.0.1:8444] [-cert FILE -key FILE] [-gateway URL] [-fail 10]...
//
// receive is the other direction: it takes webhooks (package w3receiver), misbehaves as it is told, and tells at
// /mock/report what it received how often. Requests for AI sessions it forwards to a voice gateway (test/mockgateway).
//
// example.json shows the file: tenants with their credentials, and for each the bodies of POST /extensions without
// tenantId, or a number of extensions to make up. A second run changes nothing.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "mockw3:", err)
		stop()
		os.Exit(1) //nolint:forbidigo // only main exits
	}
}

// run is the process. Its report goes to stdout. The error says whether anything was not provisioned.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "receive" {
		return receive(ctx, args[1:], stdout, stderr)
	}
	flags := flag.NewFlagSet("mockw3", flag.ContinueOnError)
	flags.SetOutput(stderr)
	url := flags.String("url", "https://127.0.0.1:8443", "where edgvoip is")
	ca := flags.String("ca", "", "certificates to trust, as a PEM file; the machine's own if not given")
	clients := flags.Int("clients", 8, "requests at the same time")
	attempts := flags.Int("attempts", 12, "how often a request is sent at most")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case flags.NArg() != 1:
		return errors.New("give one file, see test/mockw3/example.json")
	case *clients < 1 || *attempts < 1:
		return errors.New("-clients and -attempts are at least 1")
	}
	tenants, err := readTenants(flags.Arg(0))
	if err != nil {
		return err
	}
	client, err := newHTTP(*ca, *clients)
	if err != nil {
		return err
	}
	r := provision(ctx, tenants, options{url: *url, http: client, clients: *clients, attempts: *attempts})
	if err := r.write(stdout); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if r.failed > 0 {
		return fmt.Errorf("%d extensions are not provisioned", r.failed)
	}
	return nil
}

// newHTTP returns a client that trusts the certificates of a file, or the machine's own.
func newHTTP(ca string, clients int) (*http.Client, error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: clients}
	if ca != "" {
		pem, err := os.ReadFile(ca) //nolint:gosec // the caller says whom to trust
		if err != nil {
			return nil, fmt.Errorf("-ca: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("-ca: there is no certificate in it")
		}
	}
	return &http.Client{Transport: t, Timeout: patience}, nil
}
