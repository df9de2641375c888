package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
)

const usage = `xmlcurl answers FreeSWITCH's mod_xml_curl. It takes no arguments but these:

  xmlcurl            run; settings come from the environment, see docs/settings.md
  xmlcurl version    print the version
`

// run is the process: it returns when ctx ends and everything is closed, or with the error that stopped it.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "version":
		_, err := fmt.Fprintln(stdout, version)
		return err
	case len(args) == 1 && (args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help"):
		_, err := io.WriteString(stdout, usage)
		return err
	case len(args) > 0:
		_, _ = io.WriteString(stderr, usage)
		return errors.New("unknown argument")
	}
	s, err := readSettings(environ)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(stderr, s.LogFormat, s.LogLevel)
	if err != nil {
		return err
	}
	server, db, err := build(s, log)
	if err != nil {
		return err
	}
	defer func() {
		if err := db.Close(); err != nil {
			log.ErrorContext(ctx, "closing the database", "error", err)
		}
	}()
	l, err := (&net.ListenConfig{}).Listen(ctx, s.network(), s.Addr)
	if err != nil {
		return fmt.Errorf("XMLCURL_ADDR: %w", err)
	}
	log.InfoContext(ctx, "listening", "addr", l.Addr().String(), "tls", s.TLSCertFile != "", "version", version)
	go warnUnlessReady(ctx, db, s.RequestTimeout, log)
	return serve(ctx, server, l, s.ShutdownTimeout, log)
}

// warnUnlessReady tells at once what the first lookup would tell: the process runs on, as the database may come later.
func warnUnlessReady(ctx context.Context, db *postgres.DB, timeout time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := db.Ping(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.WarnContext(ctx, "not ready: the database does not answer as it should", "error", err)
	}
}

// build puts the process together without opening a port.
func build(s settings, log *slog.Logger) (*httpd.Server, *postgres.DB, error) {
	switches, err := s.switchSettings()
	if err != nil {
		return nil, nil, err
	}
	keys, err := secret.LoadKeyRing(s.SecretKeysFile)
	if err != nil {
		return nil, nil, fmt.Errorf("SECRET_KEYS_FILE: %w", err)
	}
	tlsConfig, err := s.tls()
	if err != nil {
		return nil, nil, err
	}
	db, err := postgres.Open(postgres.Options{
		URL: s.DatabaseURL, Role: s.DatabaseRole, Application: "edgvoip-xmlcurl",
		MaxConns: s.DatabaseMaxConns, StatementTimeout: s.RequestTimeout,
	}, log)
	if err != nil {
		return nil, nil, err
	}
	registry := telemetry.NewRegistry()
	registry.MustRegister(collectors.NewDBStatsCollector(db.Pool(), "edgvoip"))
	handler, err := xmlcurl.New(xmlcurl.Options{
		Store: db, Keys: keys, Switch: switches, Credentials: s.Credentials, Registry: registry, Log: log,
	})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	server := httpd.New(httpd.Options{
		Name: "xmlcurl", BodyLimit: xmlcurl.BodyLimit, RequestTimeout: s.RequestTimeout, TLS: tlsConfig,
		Ready: db.Ping, Registry: registry, Log: log,
	})
	handler.Register(server)
	return server, db, nil
}

// serve answers until ctx ends, then lets requests under way finish.
func serve(ctx context.Context, server *httpd.Server, l net.Listener, timeout time.Duration, log *slog.Logger) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	log.InfoContext(ctx, "shutting down")
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	// A server that was told to stop before it began to serve knows no listener yet, and would go on.
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("shutdown: %w", err)
	}
	select {
	case err := <-failed:
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	case <-stopping.Done():
		return fmt.Errorf("shutdown: %w", stopping.Err())
	}
}

// tls returns the server's TLS, or nil for plain HTTP. With a client CA, only clients with a certificate of that CA are
// served.
func (s settings) tls() (*tls.Config, error) {
	if s.TLSCertFile == "" {
		return nil, nil //nolint:nilnil // plain HTTP
	}
	cert, err := tls.LoadX509KeyPair(s.TLSCertFile, s.TLSKeyFile)
	if err != nil {
		return nil, fmt.Errorf("XMLCURL_TLS_CERT_FILE and XMLCURL_TLS_KEY_FILE: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if s.TLSClientCAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(s.TLSClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("XMLCURL_TLS_CLIENT_CA_FILE: %w", err)
	}
	c.ClientCAs = x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("XMLCURL_TLS_CLIENT_CA_FILE: no certificate in it")
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}
