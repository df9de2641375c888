package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/internal/entry"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	common "github.com/edgvoip/edgvoip/internal/settings"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

const usage = `ai-bridge connects calls from FreeSWITCH to W3's AI voice agents. It takes no arguments but these:

  ai-bridge            run; settings come from the environment, see docs/settings.md
  ai-bridge version    print the version
`

// run is the process: it returns when ctx ends and everything is closed, or with the error that stopped it.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
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
	return serve(ctx, s, log)
}

// Bounds on the database, which no call waits for, and on requests of operators.
const (
	databaseTimeout   = 5 * time.Second
	internalBodyLimit = 4 << 10
	internalTimeout   = 2 * time.Second
)

// process is the parts of a running ai-bridge.
type process struct {
	settings settings
	log      *slog.Logger
	db       *postgres.DB
	trunks   *aisession.Trunks
	client   *aisession.Client
	breakers *aisession.Breakers
	bridge   *aibridge.Bridge
	internal *httpd.Server // for operators: health and metrics
}

// serve works until ctx ends and everything is closed, or returns the error that stopped it.
func serve(ctx context.Context, s settings, log *slog.Logger) error {
	p := &process{settings: s, log: log}
	var err error
	p.db, err = postgres.Open(postgres.Options{
		URL: s.DatabaseURL, Role: s.DatabaseRole, Application: "edgvoip-ai-bridge", MaxConns: s.DatabaseMaxConns, StatementTimeout: databaseTimeout,
	}, log)
	if err != nil {
		return err
	}
	if err := p.build(ctx); err != nil {
		return errors.Join(err, p.db.Close())
	}
	defer p.client.Close()
	return errors.Join(p.run(ctx), p.db.Close())
}

// build puts the process together, and opens the ports for SIP.
func (p *process) build(ctx context.Context) error {
	s := p.settings
	addr, err := s.sipAddr()
	if err != nil {
		return err
	}
	peers, err := s.peers()
	if err != nil {
		return err
	}
	if p.client, err = s.client(); err != nil {
		return err
	}
	p.trunks = aisession.NewTrunks(aisession.TrunksOptions{Store: p.db, Interval: s.TrunksInterval, Timeout: databaseTimeout, Log: p.log.With("component", "trunks")})
	p.breakers = aisession.NewBreakers(time.Now)
	registry := telemetry.NewRegistry()
	p.bridge, err = aibridge.New(ctx, aibridge.Options{
		Addr: addr, Peers: peers, Sessions: p.client, Trunks: p.trunks, Limits: aisession.NewLimits(s.MaxSessions, s.MaxSessionsPerTenant), Breakers: p.breakers,
		ConnectBudget: s.ConnectBudget, AgentSilence: s.MediaTimeout, CallerSilence: s.CallerTimeout, DrainTimeout: s.DrainTimeout,
		// Without it a gateway on this machine could not be reached.
		Loopback: p.client.AllowsICE(netip.AddrFrom4([4]byte{127, 0, 0, 1})),
		Metrics:  aibridge.NewMetrics(registry, func() float64 { return float64(p.breakers.Open()) }, func() float64 { return p.trunks.Age().Seconds() }),
		Log:      p.log,
	})
	if err != nil {
		return fmt.Errorf("AI_BRIDGE_SIP_ADDR: %w", err)
	}
	p.internal = httpd.New(httpd.Options{
		Name: "internal", BodyLimit: internalBodyLimit, RequestTimeout: internalTimeout,
		Ready:    func(context.Context) error { return errors.Join(p.bridge.Ready(), p.trunks.Ready()) },
		Registry: registry, Log: p.log,
	})
	return nil
}

// client returns what talks to gateways.
func (s settings) client() (*aisession.Client, error) {
	keys, err := secret.LoadKeyRing(s.SecretKeysFile)
	if err != nil {
		return nil, fmt.Errorf("SECRET_KEYS_FILE: %w", err)
	}
	networks, err := s.networks()
	if err != nil {
		return nil, err
	}
	roots, err := common.ReadAuthorities(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("AI_CA_FILE: %w", err)
	}
	return aisession.NewClient(aisession.Options{Keys: keys, Budget: s.SessionBudget, Allow: networks, Plain: s.AllowPlain, Roots: roots}), nil
}

// name is what tells this ai-bridge from others, also when it is started again.
func (p *process) name() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name of this machine: %w", err)
	}
	return host + " " + p.settings.SIPAddr, nil
}

// run runs the parts. The trunks and the listener for operators stay until the last call is over.
func (p *process) run(ctx context.Context) error {
	l, err := httpd.Listen(ctx, p.settings.MetricsAddr)
	if err != nil {
		return fmt.Errorf("AI_BRIDGE_METRICS_ADDR: %w", err)
	}
	name, err := p.name()
	if err != nil {
		return errors.Join(err, l.Close())
	}
	rest, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	parts, rest := errgroup.WithContext(rest)
	parts.Go(func() error {
		p.trunks.Run(rest)
		return nil
	})
	parts.Go(func() error {
		p.breakers.Publish(rest, p.db, name, p.log.With("component", "breakers"))
		return nil
	})
	parts.Go(func() error { return p.internal.Run(rest, l, internalTimeout) })
	p.log.InfoContext(ctx, "serving", "addr", p.bridge.Addr().String(), "metrics_addr", l.Addr().String(), "version", version)
	calls, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(rest, cancel) // when one of them fails
	err = p.bridge.Run(calls)
	stop()
	return errors.Join(err, parts.Wait())
}
