package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/fleet"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/secret"
	common "github.com/edgvoip/edgvoip/internal/settings"
)

// figuresAge is how long /health may remember what it counted: everybody may ask.
const figuresAge = time.Second

// buildAPI puts the API on a server of its own.
func (p *process) buildAPI() error {
	s := p.settings
	certificate, err := s.listener().TLS(p.log)
	if err != nil {
		return err
	}
	hashes := s.HashConcurrency
	if hashes == 0 {
		hashes = runtime.NumCPU()
	}
	agents, err := common.AgentsAddr(s.AIBridgeAddr)
	if err != nil {
		return err
	}
	recordings, err := common.RecordingsDir(s.RecordingsDir)
	if err != nil {
		return err
	}
	p.api, err = api.New(api.Options{
		Store: p.db, Keys: p.keys, Hasher: secret.NewHasher(hashes), Core: core{p.fleet}, WSEndpoint: s.WSEndpoint, Agents: agents, RecordingsDir: recordings,
		FiguresAge: figuresAge, AllowHTTP: s.WebhookAllowHTTP,
		PublicURL: s.PublicURL, Recordings: p.recordingFiles(),
		Limits: api.Limits{
			PerAddress: float64(s.RatePerAddress), BurstAddress: 2 * s.RatePerAddress, PerTenant: float64(s.RatePerTenant), BurstTenant: 2 * s.RatePerTenant,
		},
		Registry: p.registry, Log: p.log,
	})
	if err != nil {
		return fmt.Errorf("API_WS_ENDPOINT: %w", err)
	}
	p.door = httpd.New(api.ServerOptions(httpd.Options{
		Name: "api", RequestTimeout: s.RequestTimeout, TLS: certificate, Registry: p.registry, Log: p.log,
	}))
	p.api.Register(p.door)
	return nil
}

// core tells the API of the switches.
type core struct{ fleet *fleet.Fleet }

// Registrations implements api.Core.
func (c core) Registrations() int { return c.fleet.Census().Registrations }

// Switch implements api.Core.
func (c core) Switch(id uuid.UUID) (registrations int, connected bool) { return c.fleet.Switch(id) }

// Status implements api.Core.
func (c core) Status() api.CoreStatus {
	switch n := c.fleet.Census(); {
	case n.Active == 0:
		return api.CoreUnknown
	case n.Connected == 0:
		return api.CoreDown
	case n.Connected < n.Active:
		return api.CoreDegraded
	default:
		return api.CoreUp
	}
}

// listener returns the settings of the API's listener. What may do without TLS is for checkAPI to say.
func (s settings) listener() common.Listener {
	return common.Listener{Prefix: "API", Addr: s.Addr, TLSCertFile: s.TLSCertFile, TLSKeyFile: s.TLSKeyFile, AllowPlain: true}
}

// listenAPI opens the API's port.
func (p *process) listenAPI(ctx context.Context) (net.Listener, error) {
	l, err := httpd.Listen(ctx, p.settings.Addr)
	if err != nil {
		return nil, fmt.Errorf("API_ADDR: %w", err)
	}
	return l, nil
}

// checkAPI checks what the API needs.
func (s settings) checkAPI() error {
	if err := s.listener().Check(); err != nil {
		return err
	}
	switch {
	case s.TLSCertFile == "" && !s.DevelopmentHTTP:
		return errors.New("API_TLS_CERT_FILE is not set: the API speaks HTTPS only (for development on loopback: API_DEVELOPMENT_HTTP=true)")
	case s.TLSCertFile != "" && s.DevelopmentHTTP:
		return errors.New("API_DEVELOPMENT_HTTP and API_TLS_CERT_FILE contradict each other")
	case s.DevelopmentHTTP && !s.listener().Loopback():
		return errors.New("API_DEVELOPMENT_HTTP is for loopback, and API_ADDR is no loopback address")
	case s.RequestTimeout <= 0 || s.RequestTimeout > statementTimeout:
		return fmt.Errorf("API_REQUEST_TIMEOUT is not between 0 and %v", statementTimeout)
	case s.RatePerAddress < 1 || s.RatePerTenant < 1:
		return errors.New("API_RATE_PER_ADDRESS and API_RATE_PER_TENANT are at least 1")
	case s.HashConcurrency < 0 || s.HashConcurrency > 1024:
		return errors.New("API_HASH_CONCURRENCY is not between 0 and 1024")
	case !strings.HasPrefix(s.WSEndpoint, "wss://"):
		return errors.New("API_WS_ENDPOINT does not begin with wss://")
	}
	return nil
}
