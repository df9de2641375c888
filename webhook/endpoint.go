package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// Where W3 takes events, under a tenant's base URL.
const (
	TrunkPath = "/api/webhooks/voip/trunk"
	CDRPath   = "/api/webhooks/voip/cdr"
)

// BaseURL is what the paths are put behind: a scheme, a host, a port where one is given, and a leading path. It ends in
// no slash. The zero value is not valid, see ParseBaseURL.
type BaseURL struct{ text string }

// The length of a base URL, in bytes, as schema.sql bounds it.
const (
	minBaseURL = 10
	maxBaseURL = 512
)

// ParseBaseURL reads a base URL. What could be read in two ways is refused, so that what is checked is what is dialled,
// and what is signed is what is on the request line. Its error is a *invalid.FieldError of baseUrl that does not repeat
// the text.
func ParseBaseURL(s string) (BaseURL, error) {
	refuse := func(reason string) (BaseURL, error) {
		return BaseURL{}, &invalid.FieldError{Name: "baseUrl", Reason: reason}
	}
	if len(s) < minBaseURL || len(s) > maxBaseURL {
		return refuse(fmt.Sprintf("does not have %d to %d bytes", minBaseURL, maxBaseURL))
	}
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.Host == "" {
		return refuse("is not a URL of the form https://host/path")
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http":
		return refuse("does not begin with https://")
	case u.User != nil:
		return refuse("holds a user or a password")
	case u.RawQuery != "" || u.ForceQuery:
		return refuse("holds a query")
	case strings.Contains(s, "#"):
		return refuse("holds a fragment")
	case !plainPath(u.EscapedPath()):
		return refuse("has a path that is not made of letters, digits and -._~, with a slash between its parts")
	}
	host, err := parseHost(u)
	if err != nil {
		return BaseURL{}, err
	}
	return BaseURL{u.Scheme + "://" + host + strings.TrimSuffix(u.Path, "/")}, nil
}

// parseHost returns the host, in lower case, and the port of a URL as they stand in one.
func parseHost(u *url.URL) (string, error) {
	h, err := fstext.NewHost(u.Hostname())
	if err != nil {
		return "", &invalid.FieldError{Name: "baseUrl", Reason: "has a host that is neither a name nor an address"}
	}
	host := h.String()
	port := u.Port()
	if port == "" && strings.HasSuffix(u.Host, ":") {
		return "", &invalid.FieldError{Name: "baseUrl", Reason: "has an empty port"}
	}
	if port == "" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return host, nil
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", &invalid.FieldError{Name: "baseUrl", Reason: "has a port that is not between 1 and 65535"}
	}
	return net.JoinHostPort(host, port), nil
}

// plainPath tells whether a path needs no escaping and holds no dots to be resolved.
func plainPath(p string) bool {
	if p == "" || p == "/" {
		return true
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(p, "/")[1:], "/") {
		rest := strings.Trim(part, "-_~.0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
		if part == "" || part == "." || part == ".." || rest != "" {
			return false
		}
	}
	return true
}

// String returns the URL.
func (b BaseURL) String() string { return b.text }

// Encrypted tells whether what is sent there is sent over TLS.
func (b BaseURL) Encrypted() bool { return strings.HasPrefix(b.text, "https://") }

// URL returns where an event of a kind is sent.
func (b BaseURL) URL(k Kind) string { return b.text + path(k) }

// Target returns the path of that URL as it stands on the request line, which is what is signed.
func (b BaseURL) Target(k Kind) string {
	_, rest, _ := strings.Cut(b.text, "://")
	if _, leading, ok := strings.Cut(rest, "/"); ok {
		return "/" + leading + path(k)
	}
	return path(k)
}

func path(k Kind) string {
	if k == CDR {
		return CDRPath
	}
	return TrunkPath
}

// Endpoint is where W3 takes a tenant's events.
type Endpoint struct {
	TenantID uuid.UUID
	BaseURL  BaseURL
	// Active is false for an endpoint that is paused: it is sent nothing, and its events wait.
	Active    bool
	CreatedAt time.Time
	UpdatedAt time.Time
}

// ErrNoEndpoint is what a Registry answers for a tenant that has no endpoint.
var ErrNoEndpoint = errors.New("the tenant has no webhook endpoint")

// Registry keeps endpoints. Each change is one transaction that also holds its audit row. Implementations are safe for
// concurrent use.
type Registry interface {
	// Endpoint returns a tenant's endpoint. Error: ErrNoEndpoint.
	Endpoint(ctx context.Context, tenant uuid.UUID) (Endpoint, error)
	// ChangeEndpoint locks a tenant's endpoint, gives it to change (nil if there is none) and writes what change
	// returns, unless that is what is stored. change may run more than once; its errors are returned as they are.
	// Error: the store's own for an unknown tenant.
	ChangeEndpoint(ctx context.Context, tenant uuid.UUID, change func(stored *Endpoint) (Endpoint, error), actor string) (Endpoint, error)
	// RemoveEndpoint forgets a tenant's endpoint; its events wait for another. Error: ErrNoEndpoint.
	RemoveEndpoint(ctx context.Context, tenant uuid.UUID, actor string) error
}

// Provisioner gives tenants their endpoints. It is safe for concurrent use.
type Provisioner struct {
	registry  Registry
	allowHTTP bool
}

// NewProvisioner returns a provisioner that writes to a registry. allowHTTP lets events go over plain HTTP, for
// development.
func NewProvisioner(r Registry, allowHTTP bool) *Provisioner { return &Provisioner{r, allowHTTP} }

// Change is what to change of an endpoint; nil leaves a thing as it is.
type Change struct {
	BaseURL *string
	Active  *bool
}

// Put gives a tenant an endpoint, active unless the change says otherwise, or brings the one it has to what is asked
// for. Errors: *invalid.FieldError, the registry's.
func (p *Provisioner) Put(ctx context.Context, tenant uuid.UUID, c Change, actor string) (Endpoint, error) {
	return p.registry.ChangeEndpoint(ctx, tenant, func(stored *Endpoint) (Endpoint, error) {
		e := Endpoint{TenantID: tenant, Active: true}
		if stored != nil {
			e = *stored
		} else if c.BaseURL == nil {
			return Endpoint{}, ErrNoEndpoint
		}
		return p.apply(e, c)
	}, actor)
}

func (p *Provisioner) apply(e Endpoint, c Change) (Endpoint, error) {
	if c.BaseURL != nil {
		base, err := ParseBaseURL(*c.BaseURL)
		if err != nil {
			return Endpoint{}, err
		}
		if !base.Encrypted() && !p.allowHTTP {
			return Endpoint{}, &invalid.FieldError{Name: "baseUrl", Reason: "does not begin with https:// (http:// is for development: WEBHOOK_ALLOW_HTTP)"}
		}
		e.BaseURL = base
	}
	if c.Active != nil {
		e.Active = *c.Active
	}
	return e, nil
}
