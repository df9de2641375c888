package aisession

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/webhook"
)

// Options describe a Client.
type Options struct {
	// Keys open the tenants' secrets.
	Keys *secret.KeyRing
	// Budget bounds the request for a session.
	Budget time.Duration
	// Allow are the networks that may be dialled besides the public Internet.
	Allow webhook.Networks
	// Plain allows http:// and ws://, for development.
	Plain bool
	// Roots are trusted instead of the machine's own certificates; nil means those.
	Roots *x509.CertPool
}

// Client talks to gateways. It is safe for concurrent use.
type Client struct {
	opts Options
	http *http.Client
}

// Errors of Client.Open besides *RefusedError and *invalid.FieldError.
var (
	// ErrForbidden means that a name leads to an address that may not be dialled.
	ErrForbidden = errors.New("the address may not be dialled (AI_ALLOW_NETWORKS)")
	// ErrNoSecret means that the tenant has no secret to sign with, or one that the keys do not open.
	ErrNoSecret = errors.New("the tenant has no valid secret")
	// ErrPlain means an endpoint that is not encrypted.
	ErrPlain = errors.New("the gateway is not https:// (AI_ALLOW_PLAIN)")
	// ErrLate means that there was no answer in time.
	ErrLate = errors.New("no answer in time")
)

// RefusedError means that the gateway answered, and gave no session.
type RefusedError struct{ Status int }

func (e *RefusedError) Error() string { return fmt.Sprintf("answered %d", e.Status) }

// Able tells whether the gateway works and does not want this call.
func (e *RefusedError) Able() bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Status != http.StatusRequestTimeout
}

const (
	userAgent   = "edgvoip-ai-bridge/1"
	idleTimeout = 30 * time.Second
	idleConns   = 16
)

// NewClient returns a client: no proxy of the environment, no redirects, certificates verified, and no connection to an
// address that is not allowed.
func NewClient(o Options) *Client {
	dialer := &net.Dialer{
		// After the name was resolved, for each address that it has: a name that leads elsewhere the second time gains
		// nothing.
		Control: func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil || !o.Allow.Allow(a.Addr()) {
				return ErrForbidden
			}
			return nil
		},
	}
	return &Client{opts: o, http: &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
			IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: idleConns, MaxResponseHeaderBytes: maxAnswer, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close closes the connections that nobody uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Check tells whether a trunk's gateway can be asked at all, as far as that can be told without asking. Errors:
// ErrPlain, ErrNoSecret.
func (c *Client) Check(t Trunk) error {
	if !t.Gateway.Encrypted() && !c.opts.Plain {
		return ErrPlain
	}
	_, err := c.signingKeys(t)
	return err
}

// Open asks the gateway for a session, within the budget. Errors: *RefusedError, *invalid.FieldError for an answer that
// cannot be used, the errors above, ctx's.
func (c *Client) Open(ctx context.Context, t Trunk, r SessionRequest) (Session, error) {
	bounded, cancel := context.WithTimeout(ctx, c.opts.Budget)
	defer cancel()
	s, err := c.open(bounded, t, r)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return s, ErrLate
	}
	return s, err
}

func (c *Client) open(ctx context.Context, t Trunk, r SessionRequest) (Session, error) {
	if !t.Gateway.Encrypted() && !c.opts.Plain {
		return Session{}, ErrPlain
	}
	req, err := c.request(ctx, t, r)
	if err != nil {
		return Session{}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Session{}, cause(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return Session{}, cause(ctx, err)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated:
		return Session{}, &RefusedError{resp.StatusCode}
	case len(body) > maxAnswer:
		return Session{}, errors.New("the answer is too long")
	}
	return ParseSession(body, c.opts.Plain, time.Now())
}

func (c *Client) request(ctx context.Context, t Trunk, r SessionRequest) (*http.Request, error) {
	keys, err := c.signingKeys(t)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("session request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, webhook.Method, t.Gateway.String()+SessionPath, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the gateway is not a URL")
	}
	timestamp := webhook.Timestamp(time.Now())
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json", "User-Agent": userAgent,
		webhook.HeaderKey: r.CallID, webhook.HeaderTimestamp: timestamp,
		webhook.HeaderSignature: webhook.Sign(keys, timestamp, req.URL.RequestURI(), body),
	} {
		req.Header.Set(name, value)
	}
	return req, nil
}

// signingKeys opens the tenant's secrets that are valid now.
func (c *Client) signingKeys(t Trunk) ([]string, error) {
	var keys []string
	for _, s := range t.Secrets {
		if !s.Valid(time.Now()) {
			continue
		}
		key, err := integration.SigningKey(s, c.opts.Keys)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoSecret, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, ErrNoSecret
	}
	return keys, nil
}

// errUnreadable means that whoever answered speaks neither TLS that is taken nor HTTP.
var errUnreadable = errors.New("an answer that cannot be read")

// cause says why there was no answer, without the URL, which errors of net/http begin with, and without the gateway's
// words, which errors of its parser repeat.
func cause(ctx context.Context, err error) error {
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, ErrForbidden):
		return ErrForbidden
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &network):
		return network
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &record):
		return errors.New("no TLS: " + record.Msg)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errUnreadable
}

// AllowsICE tells whether media may go to an address.
func (c *Client) AllowsICE(a netip.Addr) bool { return c.opts.Allow.Allow(a) }

// AllowsICEServer tells whether a STUN or TURN server may be asked: one that is given by name is.
func (c *Client) AllowsICEServer(u string) bool {
	_, rest, _ := strings.Cut(u, ":")
	host, _, _ := strings.Cut(rest, "?")
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil || c.opts.Allow.Allow(a)
}
