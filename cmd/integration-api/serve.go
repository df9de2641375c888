package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/fleet"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/records"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/sender"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// process is the parts of a running integration-api.
type process struct {
	settings settings
	log      *slog.Logger
	db       *postgres.DB
	keys     *secret.KeyRing
	registry *prometheus.Registry
	fleet    *fleet.Fleet
	sender   *sender.Sender
	internal *httpd.Server // for operators: health and metrics
	api      *api.API
	door     *httpd.Server // of the API

	records    *records.Worker
	recordings *records.Files // nil if there are none
	ingest     *httpd.Server  // takes call records; nil if that is turned off
}

// serve works until ctx ends and everything is closed, or returns the error that stopped it.
func serve(ctx context.Context, s settings, log *slog.Logger) error {
	p, err := build(s, log)
	if err != nil {
		return err
	}
	return errors.Join(p.run(ctx), p.db.Close())
}

// build puts the process together without opening a port or asking the database.
func build(s settings, log *slog.Logger) (*process, error) {
	if err := s.checkServe(); err != nil {
		return nil, err
	}
	p := &process{settings: s, log: log, registry: telemetry.NewRegistry()}
	var err error
	if p.db, p.keys, err = openAPI(s, log); err != nil {
		return nil, err
	}
	p.registry.MustRegister(collectors.NewDBStatsCollector(p.db.Pool(), "edgvoip"))
	p.fleet = fleet.New(fleet.Options{
		Store: p.db, Directory: p.db, Keys: p.keys, Connect: fleet.Switches(esl.NewMetrics(p.registry), log), Witness: p.db, Registry: p.registry, Log: log,
	})
	p.internal = httpd.New(httpd.Options{
		Name: "internal", BodyLimit: internalBodyLimit, RequestTimeout: internalTimeout, Ready: p.db.Ping, Registry: p.registry, Log: log,
	})
	if err := errors.Join(p.buildRecords(), p.buildAPI(), p.buildSender()); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	return p, nil
}

// Bounds on requests to the internal listener, which have no body to speak of.
const (
	internalBodyLimit = 4 << 10
	internalTimeout   = 2 * time.Second
)

// run runs the parts. When one of them stops, for whatever reason, so do the others.
func (p *process) run(ctx context.Context) error {
	l, err := httpd.Listen(ctx, p.settings.MetricsAddr)
	if err != nil {
		return fmt.Errorf("API_METRICS_ADDR: %w", err)
	}
	door, err := p.listenAPI(ctx)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	taking, err := p.listenCDR(ctx)
	if err != nil {
		return errors.Join(err, l.Close(), door.Close())
	}
	p.log.InfoContext(ctx, "serving", "addr", door.Addr().String(), "tls", p.settings.TLSCertFile != "", "metrics_addr", l.Addr().String(), "version", version)
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error {
		p.fleet.Run(ctx)
		return nil
	})
	parts.Go(func() error {
		p.sender.Run(ctx)
		return nil
	})
	parts.Go(func() error {
		p.api.Keep(ctx)
		return nil
	})
	parts.Go(func() error {
		p.records.Run(ctx)
		return nil
	})
	parts.Go(func() error {
		feed.Keep(ctx, p.db, p.log.With("component", "feed"))
		return nil
	})
	parts.Go(func() error { return p.runIngest(ctx, taking) })
	parts.Go(func() error { return p.door.Run(ctx, door, p.settings.ShutdownTimeout) })
	parts.Go(func() error { return p.internal.Run(ctx, l, p.settings.ShutdownTimeout) })
	return parts.Wait()
}
