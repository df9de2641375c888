package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/httpd"
)

// info is what is known of a request on its way through the API.
type info struct {
	event     *httpd.Event
	operation string
	outcome   string

	caller   integration.Caller   // of W3's part
	operator integration.Operator // of the operators' part
	digests  [][]byte             // of the request, for its Idempotency-Key
}

type infoKey struct{}

// infoOf returns the info of a request. Without one, which only a mistake in the order of routes could cause, it is
// empty: no tenant has the zero id.
func infoOf(ctx context.Context) *info {
	if i, ok := ctx.Value(infoKey{}).(*info); ok {
		return i
	}
	return &info{event: &httpd.Event{}}
}

// Headers of W3's part.
const (
	headerTimestamp      = "X-Timestamp"
	headerSignature      = "X-Signature"
	headerIdempotencyKey = "Idempotency-Key"
)

// observe counts a request and how long it took.
func (a *API) observe(c *fiber.Ctx) error {
	start := time.Now()
	i := &info{event: httpd.EventOf(c), operation: "none", outcome: "ok"}
	c.SetUserContext(context.WithValue(c.UserContext(), infoKey{}, i))
	c.Set(fiber.HeaderCacheControl, "no-store")
	err := c.Next()
	if err != nil {
		err = refuse(c, asProblem(c.UserContext(), asHTTP(err)), "")
	}
	i.event.Add("operation", i.operation)
	i.event.Add("outcome", i.outcome)
	a.metrics.requests.WithLabelValues(i.operation, i.outcome).Inc()
	a.metrics.seconds.WithLabelValues(i.operation).Observe(time.Since(start).Seconds())
	return err
}

// asHTTP turns fiber's own errors into problems.
func asHTTP(err error) error {
	if e, ok := errors.AsType[*fiber.Error](err); ok {
		switch e.Code {
		case http.StatusNotFound:
			return newProblem(codeNotFound)
		case http.StatusMethodNotAllowed:
			return newProblem(codeMethodNotAllowed)
		}
	}
	return err
}

// failureCost is what a request that is not let in costs: the address beyond itself if nobody knows the token, or else
// the token at that address, so that the wrong credentials of one tenant do not lock out another behind the same
// address.
const failureCost = 10

// limitAddress bounds the requests of an address, whoever it says to be. Those for health are bounded by themselves: it
// must be there for whoever looks why he is not let in.
func (a *API) limitAddress(c *fiber.Ctx) error {
	scope, l := "address", a.addresses
	if c.Method() == http.MethodGet && c.Path() == BasePath+healthPath {
		scope, l = "health", a.healths
	}
	if after, ok := l.take(peer(c), 1); !ok {
		return a.limited(c, scope, after)
	}
	return c.Next()
}

// limitToken refuses a token that was not let in too often from this address, before anybody looks at it.
func (a *API) limitToken(c *fiber.Ctx) error {
	if token, ok := tokenAt(c); ok {
		if after, ok := a.tokens.left(token); !ok {
			return a.limited(c, "credentials", after)
		}
	}
	return c.Next()
}

// tokenAt names the token of a request at its address; ok is false if there is none.
func tokenAt(c *fiber.Ctx) (name string, ok bool) {
	hash, ok := integration.Token(single(c, fiber.HeaderAuthorization))
	return string(hash[:]) + peer(c), ok
}

func (a *API) limited(c *fiber.Ctx, scope string, after int) error {
	a.metrics.limited.WithLabelValues(scope).Inc()
	p := newProblem(codeRateLimited)
	p.retryAfter = max(after, 1)
	return refuse(c, p, "rate of the "+scope)
}

// peer names the other end of the connection.
func peer(c *fiber.Ctx) string {
	addr, _ := netip.AddrFromSlice(c.Context().RemoteIP())
	return addressOf(addr)
}

// authenticate lets W3 in, and bounds the requests of a tenant. What is refused looks the same whatever the reason.
func (a *API) authenticate(c *fiber.Ctx) error {
	r := integration.Request{
		Authorization: single(c, fiber.HeaderAuthorization), Timestamp: single(c, headerTimestamp), Signature: single(c, headerSignature),
		Method: c.Method(), Target: string(c.Request().Header.RequestURI()), Body: c.Request().Body(),
	}
	caller, err := a.auth.Authenticate(c.UserContext(), r)
	if err != nil {
		return a.notIn(c, err)
	}
	i := infoOf(c.UserContext())
	i.caller = caller
	i.event.Add("tenant_id", caller.TenantID.String())
	i.event.Add("secret_id", caller.SecretID.String())
	if after, ok := a.tenants.take(caller.TenantID.String(), 1); !ok {
		return a.limited(c, "tenant", after)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		i.digests = a.keys.Digests(slices.Concat([]byte(r.Method+"\n"+r.Target+"\n"), r.Body))
	}
	return a.formed(c)
}

// notIn answers a request that is not authenticated, or of which it cannot be told.
func (a *API) notIn(c *fiber.Ctx, err error) error {
	refused, ok := errors.AsType[*integration.RefusedError](err)
	if !ok {
		return refuse(c, asProblem(c.UserContext(), errors.Join(newProblem(codeUnavailable), err)), "")
	}
	a.metrics.failures.WithLabelValues(string(refused.Reason)).Inc()
	if token, ok := tokenAt(c); ok && refused.Known {
		a.tokens.charge(token, failureCost)
	} else {
		a.addresses.charge(peer(c), failureCost-1)
	}
	return refuse(c, newProblem(codeUnauthenticated), string(refused.Reason))
}

// single returns the value of a header that is there once, and nothing otherwise.
func single(c *fiber.Ctx, name string) string {
	values := c.Request().Header.PeekAll(name)
	if len(values) != 1 {
		return ""
	}
	return string(values[0])
}

// formed refuses what no handler could take: a body without a meaning, or in a form that would be decoded silently.
func (a *API) formed(c *fiber.Ctx) error {
	h := &c.Request().Header
	switch hasBody := len(c.Request().Body()) > 0; {
	case len(c.Request().Body()) > bodyLimit:
		return refuse(c, newProblem(codeTooLarge), "")
	case hasBody && len(h.Peek(fiber.HeaderContentEncoding)) > 0:
		return refuse(c, newProblem(codeUnsupportedMedia), "content encoding")
	case hasBody && (c.Method() == http.MethodGet || c.Method() == http.MethodHead || c.Method() == http.MethodDelete):
		return refuse(c, newProblem(codeMalformed), "body of a "+c.Method())
	case len(h.PeekAll(headerIdempotencyKey)) > 1:
		return refuse(c, newProblem(codeIdempotencyHeader), "two keys")
	case len(h.PeekAll(headerIdempotencyKey)) == 1 && len(h.Peek(headerIdempotencyKey)) == 0:
		return refuse(c, newProblem(codeIdempotencyHeader), "empty key")
	}
	for name, value := range c.Request().URI().QueryArgs().All() {
		// No text of ours has them, and PostgreSQL takes them nowhere.
		if !utf8.Valid(value) || bytes.IndexByte(value, 0) >= 0 {
			return refuse(c, newProblem(codeInvalid, FieldError{"query." + parameter(name), "is not UTF-8 without U+0000"}), "parameter")
		}
	}
	return c.Next()
}

// parameter is the name of a query parameter as far as it can be repeated.
func parameter(name []byte) string {
	for _, b := range name {
		if b < 'A' || b > 'z' {
			return "?"
		}
	}
	return string(name)
}

// authenticateOperator lets an operator in.
func (a *API) authenticateOperator(c *fiber.Ctx) error {
	operator, err := a.auth.AuthenticateOperator(c.UserContext(), single(c, fiber.HeaderAuthorization))
	if err != nil {
		return a.notIn(c, err)
	}
	i := infoOf(c.UserContext())
	i.operator = operator
	i.event.Add("operator", operator.Name)
	// A kept answer would hold fresh credentials; a key that is not heeded would promise what is not so.
	if c.Method() != http.MethodGet && c.Method() != http.MethodHead && len(c.Request().Header.PeekAll(headerIdempotencyKey)) > 0 {
		return refuse(c, newProblem(codeKeyNotTaken), "key of an operator")
	}
	return a.formed(c)
}
