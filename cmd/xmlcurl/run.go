package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/edgvoip/edgvoip/internal/entry"
	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
)

const usage = `xmlcurl answers FreeSWITCH's mod_xml_curl. It takes no arguments but these:

  xmlcurl            run; settings come from the environment, see docs/settings.md
  xmlcurl explain    tell where a call would go, and why; -help lists its options
  xmlcurl version    print the version
`

// run is the process: it returns when ctx ends and everything is closed, or with the error that stopped it.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "explain" {
		return explain(ctx, args[1:], environ, stdout, stderr)
	}
	if done, err := entry.Words(args, usage, version, stdout, stderr); done {
		return err
	}
	s, err := readSettings(environ)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(stderr, s.LogFormat, s.LogLevel)
	if err != nil {
		return err
	}
	p, err := build(ctx, s, log)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	l, err := httpd.Listen(ctx, s.Addr)
	if err != nil {
		return fmt.Errorf("XMLCURL_ADDR: %w", err)
	}
	defer entry.CollectRarely()()
	model, stop := context.WithCancel(context.WithoutCancel(ctx))
	following := p.follow(model)
	log.InfoContext(ctx, "listening", "addr", l.Addr().String(), "tls", s.TLSCertFile != "", "version", version)
	go warnUnlessReady(ctx, p.lookups, s.RequestTimeout, log)
	err = p.server.Run(ctx, l, s.ShutdownTimeout)
	// Only now: requests under way still need the model.
	stop()
	<-following
	return err
}

// warnUnlessReady tells at once what the first lookup would tell: the process runs on, as the database may come later.
func warnUnlessReady(ctx context.Context, db *postgres.DB, timeout time.Duration, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := db.Ping(ctx); err != nil && !errors.Is(err, context.Canceled) {
		log.WarnContext(ctx, "the database does not answer as it should", "error", err)
	}
}

// process is the parts of a running xmlcurl.
type process struct {
	settings settings
	log      *slog.Logger
	// lookups is asked by lookups, and must answer while FreeSWITCH waits; bulk is read from in the background.
	lookups, bulk *postgres.DB
	model         *readmodel.Model
	feed          *feed.Follower
	eventSocket   *esl.Client  // nil for none
	caching       *userCaching // nil for switches that keep no users
	server        *httpd.Server
}

// Reads in the background: how long one may take, and how many connections they have.
const (
	bulkTimeout = 30 * time.Second
	bulkConns   = 2
)

// build puts the process together without opening a port or asking the database.
func build(ctx context.Context, s settings, log *slog.Logger) (_ *process, err error) {
	switches, err := s.switchSettings()
	if err != nil {
		return nil, err
	}
	keys, err := secret.LoadKeyRing(s.SecretKeysFile)
	if err != nil {
		return nil, fmt.Errorf("SECRET_KEYS_FILE: %w", err)
	}
	certificate, err := s.listener().TLS(log)
	if err != nil {
		return nil, err
	}
	p := &process{settings: s, log: log}
	defer func() {
		if err != nil {
			p.close(ctx)
		}
	}()
	if p.lookups, err = s.open(log, s.DatabaseMaxConns, s.RequestTimeout); err != nil {
		return nil, err
	}
	if p.bulk, err = s.open(log, bulkConns, bulkTimeout); err != nil {
		return nil, err
	}
	registry := telemetry.NewRegistry()
	registry.MustRegister(collectors.NewDBStatsCollector(p.lookups.Pool(), "edgvoip"))
	if s.SwitchCachesUsers > 0 {
		p.caching = newUserCaching(s.SwitchCachesUsers, 3*s.ChangesInterval+s.RequestTimeout, p.bulk.ActiveTenants, registry, log)
	}
	p.buildModel(ctx, registry)
	o := xmlcurl.Options{
		Store: p.model, Keys: keys, Switch: switches, Credentials: s.Credentials, Registry: registry, Log: log,
	}
	if p.caching != nil {
		o.CacheUsers = p.caching.cacheFor
	}
	if s.EventSocketPasswordFile != "" {
		if p.eventSocket, err = s.eventSocket(registry, log); err != nil {
			return nil, err
		}
		o.HangUp = p.eventSocket.HangUp
	}
	handler, err := xmlcurl.New(o)
	if err != nil {
		return nil, err
	}
	p.server = httpd.New(httpd.Options{
		Name: "xmlcurl", BodyLimit: xmlcurl.BodyLimit, RequestTimeout: s.RequestTimeout, MaxConnections: s.MaxConnections, TLS: certificate,
		Ready: p.model.Ready, Registry: registry, Log: log,
	})
	handler.Register(p.server)
	return p, nil
}

// eventSocket returns a client of the switch's event socket, which connects when it runs.
func (s settings) eventSocket(registry prometheus.Registerer, log *slog.Logger) (*esl.Client, error) {
	password, err := os.ReadFile(s.EventSocketPasswordFile)
	if err != nil {
		return nil, fmt.Errorf("EVENT_SOCKET_PASSWORD_FILE: %w", err)
	}
	c, err := esl.New(esl.Options{
		Node:    esl.Node{Name: "switch", Address: s.EventSocketAddr, Password: strings.TrimRight(string(password), "\r\n")},
		Metrics: esl.NewMetrics(registry), Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("EVENT_SOCKET_ADDR and EVENT_SOCKET_PASSWORD_FILE: %w", err)
	}
	return c, nil
}

// buildModel makes the model, with what a snapshot tells, and what will follow the changes from there.
func (p *process) buildModel(ctx context.Context, registry *prometheus.Registry) {
	s := p.settings
	metrics := readmodel.NewMetrics(registry)
	log := p.log.With("component", "readmodel")
	p.model = readmodel.New(readmodel.Options{
		Store: p.lookups, Bulk: p.bulk, MaxExtensions: s.ModelExtensions, MaxAge: s.MaxDataAge, Preload: s.Preload,
		LoadTimeout: s.RequestTimeout, MaxLoads: s.DatabaseMaxConns, LiveFor: 3*s.ChangesInterval + s.RequestTimeout, Metrics: metrics, Log: log,
	})
	var from feed.Position
	if s.SnapshotFile != "" {
		var err error
		if from, err = p.model.Load(s.SnapshotFile); err != nil {
			// Less is known, and nothing wrong: no reason not to start.
			log.ErrorContext(ctx, "XMLCURL_SNAPSHOT_FILE", "error", err)
		}
	}
	var reader feed.Reader = p.model
	if p.caching != nil {
		p.caching.Reader, reader = p.model, p.caching
	}
	p.feed = feed.New(feed.Options{
		Source: source{p.lookups, p.bulk}, Reader: reader, Interval: s.ChangesInterval, Timeout: s.RequestTimeout, From: from,
		Metrics: feed.Metrics{Lag: metrics.Lag, Heard: metrics.Heard, Failed: metrics.ReadFailed, Forgot: metrics.Forgot}, Log: log,
	})
}

// source reads changes while lookups wait for them, and removes old ones while nobody does.
type source struct {
	feed.Source
	bulk *postgres.DB
}

// PruneChanges implements feed.Source.
func (s source) PruneChanges(ctx context.Context, keep time.Duration) (int, error) {
	return s.bulk.PruneChanges(ctx, keep)
}

// follow keeps the model true until ctx ends; the channel is closed when that is over. It returns when changes were read for
// the first time, or could not be.
func (p *process) follow(ctx context.Context) <-chan struct{} {
	if err := p.feed.Read(ctx); err == nil {
		// So that the first call from a carrier is no query. If it fails, Run tries again.
		_ = p.model.Refresh(ctx)
	}
	var parts sync.WaitGroup
	parts.Go(func() { p.feed.Run(ctx) })
	parts.Go(func() { p.model.Run(ctx) })
	if p.caching != nil {
		parts.Go(func() { p.caching.run(ctx) })
	}
	if p.eventSocket != nil {
		parts.Go(func() { _ = p.eventSocket.Run(ctx) }) // which connects until ctx ends
	}
	if s := p.settings; s.SnapshotFile != "" {
		parts.Go(func() { p.model.KeepSnapshot(ctx, s.SnapshotFile, s.SnapshotInterval, p.feed.Position) })
	}
	done := make(chan struct{})
	go func() {
		parts.Wait()
		close(done)
	}()
	return done
}

// close closes what build opened.
func (p *process) close(ctx context.Context) {
	for _, db := range []*postgres.DB{p.lookups, p.bulk} {
		if db == nil {
			continue
		}
		if err := db.Close(); err != nil {
			p.log.ErrorContext(ctx, "closing the database", "error", err)
		}
	}
}

// open returns a pool of connections.
func (s settings) open(log *slog.Logger, conns int, timeout time.Duration) (*postgres.DB, error) {
	return postgres.Open(postgres.Options{
		URL: s.DatabaseURL, Role: s.DatabaseRole, Application: "edgvoip-xmlcurl", MaxConns: conns, StatementTimeout: timeout,
	}, log)
}
