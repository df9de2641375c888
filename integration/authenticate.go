package integration

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/secret"
)

// Reason is why a request was not let in. It is for the log and the metrics; whoever asked is told nothing.
type Reason string

// The reasons.
const (
	ReasonNoToken         Reason = "no_token"
	ReasonUnknownToken    Reason = "unknown_token"
	ReasonExpired         Reason = "expired_secret"
	ReasonTenantSuspended Reason = "tenant_suspended"
	ReasonNoTimestamp     Reason = "no_timestamp"
	ReasonBadTimestamp    Reason = "bad_timestamp"
	ReasonSkew            Reason = "timestamp_skew"
	ReasonNoSignature     Reason = "no_signature"
	ReasonBadSignature    Reason = "bad_signature"
	ReasonBadTarget       Reason = "bad_target"
	ReasonReplayed        Reason = "replayed"
)

// Reasons are all of them.
var Reasons = []Reason{
	ReasonNoToken, ReasonUnknownToken, ReasonExpired, ReasonTenantSuspended, ReasonNoTimestamp, ReasonBadTimestamp, ReasonSkew,
	ReasonNoSignature, ReasonBadSignature, ReasonBadTarget, ReasonReplayed,
}

// RefusedError means that a request was not let in.
type RefusedError struct {
	Reason Reason
	// Known tells that the token is somebody's, whatever else is wrong. Whoever asked is not told that either.
	Known bool
}

func (e *RefusedError) Error() string { return "not authenticated: " + string(e.Reason) }

// Request is what authentication looks at.
type Request struct {
	// The headers as they came; empty if one is not there, or there twice.
	Authorization, Timestamp, Signature string

	Method string
	Target string // path and query as on the request line
	Body   []byte
}

// Token returns the hash of the bearer token that a request carries; ok is false if there is none.
func Token(authorization string) (hash TokenHash, ok bool) {
	token := bearer(authorization)
	return hashToken(token), token != ""
}

// Caller is a tenant that was let in.
type Caller struct {
	TenantID uuid.UUID
	SecretID uuid.UUID
	// Country is the tenant's, ISO 3166-1 alpha-2.
	Country string
}

// Actor is how the audit log names the caller.
func (c Caller) Actor() string { return "w3:" + c.TenantID.String() + "/" + c.SecretID.String() }

// Store is what an Authenticator asks. Implementations are safe for concurrent use.
type Store interface {
	// SecretByToken returns the secret of a token, valid or not. Error: ErrUnknownToken, also for a deleted tenant.
	SecretByToken(ctx context.Context, token TokenHash) (Secret, error)
	// UseSignature remembers a signature until it expires, and that its secret was used. It returns false if it knew
	// the signature.
	UseSignature(ctx context.Context, tenant, secret uuid.UUID, signature []byte, expires time.Time) (fresh bool, err error)
	// OperatorByToken returns the operator of a token, valid or not. Error: ErrUnknownToken.
	OperatorByToken(ctx context.Context, token TokenHash) (Operator, error)
}

// Authenticator lets requests in. It is safe for concurrent use.
type Authenticator struct {
	store Store
	keys  *secret.KeyRing
	now   func() time.Time
	// decoy signs in the place of a secret that does not exist, so that an unknown token takes as long as a wrong
	// signature.
	decoy []byte
}

// NewAuthenticator returns an authenticator over a store and the keys that signing secrets are sealed under. now is the
// clock.
func NewAuthenticator(store Store, keys *secret.KeyRing, now func() time.Time) *Authenticator {
	return &Authenticator{store: store, keys: keys, now: now, decoy: []byte(rand.Text())}
}

// replayMargin is how much longer than its timestamp allows a signature is remembered, for clocks of other processes.
const replayMargin = 5 * time.Minute

// Authenticate lets a request of W3 in. Errors: *RefusedError; every other means that it could not be told.
//
// Each check is made whatever the others said, but for the last, which writes and so is only for requests that are
// otherwise good.
func (a *Authenticator) Authenticate(ctx context.Context, r Request) (Caller, error) {
	var refused Reason
	check := func(ok bool, reason Reason) {
		if !ok && refused == "" {
			refused = reason
		}
	}
	token := bearer(r.Authorization)
	check(token != "", ReasonNoToken)
	s, key, err := a.secret(ctx, token)
	known := !errors.Is(err, ErrUnknownToken)
	if known && err != nil {
		return Caller{}, err
	}
	check(known, ReasonUnknownToken)
	now := a.now()
	check(s.Valid(now), ReasonExpired)
	check(s.TenantActive, ReasonTenantSuspended)
	check(r.Timestamp != "", ReasonNoTimestamp)
	at, ok := parseTimestamp(r.Timestamp)
	check(ok, ReasonBadTimestamp)
	check(now.Sub(at).Abs() <= maxSkew, ReasonSkew)
	check(r.Signature != "", ReasonNoSignature)
	given, ok := parseSignature(r.Signature)
	check(ok, ReasonBadSignature)
	check(targetAllowed(r.Target), ReasonBadTarget)
	check(hmac.Equal(given, signature(key, r.Timestamp, r.Method, r.Target, r.Body)), ReasonBadSignature)
	if refused != "" {
		return Caller{}, &RefusedError{refused, known}
	}
	fresh, err := a.store.UseSignature(ctx, s.TenantID, s.ID, given, at.Add(maxSkew+replayMargin))
	if err != nil {
		return Caller{}, fmt.Errorf("authenticate: %w", err)
	}
	if !fresh {
		return Caller{}, &RefusedError{ReasonReplayed, true}
	}
	return Caller{TenantID: s.TenantID, SecretID: s.ID, Country: s.Country}, nil
}

// secret returns the secret of a token and the key to verify with. With ErrUnknownToken the key is the decoy.
func (a *Authenticator) secret(ctx context.Context, token string) (Secret, []byte, error) {
	s, err := a.store.SecretByToken(ctx, hashToken(token))
	if errors.Is(err, ErrUnknownToken) {
		return Secret{}, a.decoy, err
	} else if err != nil {
		return Secret{}, nil, fmt.Errorf("authenticate: %w", err)
	}
	key, err := a.keys.Open(s.HMAC, hmacOwner(s.TenantID, s.ID))
	if err != nil {
		return Secret{}, nil, fmt.Errorf("authenticate: secret %s: %w", s.ID, err)
	}
	return s, key, nil
}

// AuthenticateOperator lets an operator in by his token alone. Errors: *RefusedError; every other means that it could
// not be told.
func (a *Authenticator) AuthenticateOperator(ctx context.Context, authorization string) (Operator, error) {
	token := bearer(authorization)
	o, err := a.store.OperatorByToken(ctx, hashToken(token))
	switch {
	case token == "":
		return Operator{}, &RefusedError{Reason: ReasonNoToken}
	case errors.Is(err, ErrUnknownToken):
		return Operator{}, &RefusedError{Reason: ReasonUnknownToken}
	case err != nil:
		return Operator{}, fmt.Errorf("authenticate operator: %w", err)
	case !o.Valid(a.now()):
		return Operator{}, &RefusedError{ReasonExpired, true}
	}
	return o, nil
}

// bearer returns the token of an Authorization header (RFC 6750, 2.1), or nothing.
func bearer(header string) string {
	scheme, token, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return token
}
