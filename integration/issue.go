package integration

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// Issuer makes and ends credentials. It is safe for concurrent use.
type Issuer struct {
	registry Registry
	keys     *secret.KeyRing
	now      func() time.Time
}

// NewIssuer returns an issuer that writes to a registry and seals with a key ring. now is the clock.
func NewIssuer(r Registry, keys *secret.KeyRing, now func() time.Time) *Issuer {
	return &Issuer{registry: r, keys: keys, now: now}
}

// Issued are new credentials of a tenant. They are shown once: what is kept cannot be turned back into them.
type Issued struct {
	ID     uuid.UUID
	Bearer string
	HMAC   string
}

// String hides the credentials from logs and errors.
func (i Issued) String() string { return "secret " + i.ID.String() }

// GoString hides the credentials from %#v.
func (i Issued) GoString() string { return i.String() }

// MaxOverlap is how long an old secret may live on beside a new one.
const MaxOverlap = 30 * 24 * time.Hour

// Add gives a tenant one more secret; those it has stay as they are.
func (i *Issuer) Add(ctx context.Context, tenant uuid.UUID, actor string) (Issued, error) {
	return i.add(ctx, tenant, time.Time{}, actor)
}

// Rotate gives a tenant a new secret. All others stay valid for the overlap at most and end then; those that end before
// keep their end. Error: *invalid.FieldError.
func (i *Issuer) Rotate(ctx context.Context, tenant uuid.UUID, overlap time.Duration, actor string) (Issued, error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Issued{}, &invalid.FieldError{Name: "overlap", Reason: fmt.Sprintf("is not between 0 and %v", MaxOverlap)}
	}
	return i.add(ctx, tenant, i.now().Add(overlap), actor)
}

func (i *Issuer) add(ctx context.Context, tenant uuid.UUID, retire time.Time, actor string) (Issued, error) {
	out := Issued{ID: uuid.New(), Bearer: newToken(prefixBearer), HMAC: newToken(prefixHMAC)}
	s := Secret{ID: out.ID, TenantID: tenant, HMAC: i.keys.Seal([]byte(out.HMAC), hmacOwner(tenant, out.ID))}
	if err := i.registry.AddSecret(ctx, s, hashToken(out.Bearer), retire, actor); err != nil {
		return Issued{}, fmt.Errorf("add secret: %w", err)
	}
	return out, nil
}

// Revoke ends a secret at once. Error: ErrUnknownSecret.
func (i *Issuer) Revoke(ctx context.Context, tenant, id uuid.UUID, actor string) error {
	if err := i.registry.RevokeSecret(ctx, tenant, id, actor); err != nil {
		return fmt.Errorf("revoke secret: %w", err)
	}
	return nil
}

var operatorName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// AddOperator makes a token for an operator, valid for so long or, if lifetime is zero, until it is revoked. Errors:
// *invalid.FieldError, ErrOperatorTaken.
func (i *Issuer) AddOperator(ctx context.Context, name string, lifetime time.Duration, actor string) (token string, err error) {
	if !operatorName.MatchString(name) {
		return "", &invalid.FieldError{Name: "name", Reason: "is not 1 to 64 lower-case letters, digits, dots, hyphens and underscores, beginning with a letter or digit"}
	}
	if lifetime < 0 {
		return "", &invalid.FieldError{Name: "lifetime", Reason: "is negative"}
	}
	o := Operator{ID: uuid.New(), Name: name}
	if lifetime > 0 {
		o.ExpiresAt = i.now().Add(lifetime)
	}
	token = newToken(prefixOperator)
	if err := i.registry.AddOperator(ctx, o, hashToken(token), actor); err != nil {
		return "", fmt.Errorf("add operator: %w", err)
	}
	return token, nil
}
