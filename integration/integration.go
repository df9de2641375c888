// Package integration is about W3 at our door: the credentials of its tenants and of our operators, the signature on
// each of its requests, and the keys by which a request that is repeated has its effect once. It knows neither HTTP nor
// SQL.
package integration

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/secret"
)

// Secret is what a tenant authenticates with: a bearer token, kept as a hash, and a secret to sign with, kept sealed.
type Secret struct {
	ID           uuid.UUID
	TenantID     uuid.UUID
	TenantActive bool
	// Country is the tenant's, ISO 3166-1 alpha-2.
	Country string
	// HMAC is sealed for hmacOwner.
	HMAC      secret.Sealed
	CreatedAt time.Time
	// RotatedAt is when another took its place; zero if none did.
	RotatedAt time.Time
	// ExpiresAt is when it stops being valid; zero means never.
	ExpiresAt time.Time
	// LastUsedAt is to about ten seconds; zero means never.
	LastUsedAt time.Time
}

// Valid tells whether the secret is valid at a time.
func (s Secret) Valid(at time.Time) bool { return s.ExpiresAt.IsZero() || at.Before(s.ExpiresAt) }

// hmacOwner is the associated data under which a tenant's signing secret is sealed.
func hmacOwner(tenant, id uuid.UUID) string { return "hmac|" + tenant.String() + "|" + id.String() }

// Operator is one of our own people, who manages tenants.
type Operator struct {
	ID   uuid.UUID
	Name string
	// ExpiresAt is when his token stops being valid; zero means never.
	ExpiresAt time.Time
	RevokedAt time.Time
	CreatedAt time.Time
}

// Valid tells whether the operator's token is valid at a time.
func (o Operator) Valid(at time.Time) bool {
	return o.RevokedAt.IsZero() && (o.ExpiresAt.IsZero() || at.Before(o.ExpiresAt))
}

// Actor is how the audit log names the operator.
func (o Operator) Actor() string { return "operator:" + o.Name }

// What a store answers when there is nothing to return.
var (
	ErrUnknownToken    = errors.New("unknown token")
	ErrUnknownSecret   = errors.New("unknown secret")
	ErrUnknownOperator = errors.New("unknown operator")
	ErrOperatorTaken   = errors.New("an operator of that name has a token")
)

// TokenHash is the SHA-256 of a token. A token is random and long, so a plain hash tells nothing about it.
type TokenHash [sha256.Size]byte

// hashToken returns the hash under which a token is kept and looked up.
func hashToken(token string) TokenHash { return sha256.Sum256([]byte(token)) }

// Prefixes tell what a leaked string is, to people and to scanners.
const (
	prefixBearer   = "evb_"
	prefixHMAC     = "evs_"
	prefixOperator = "evo_"
)

// newToken returns 256 random bits as printable text.
func newToken(prefix string) string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return prefix + base64.RawURLEncoding.EncodeToString(b[:])
}

// Claim is a write that is to happen once.
type Claim struct {
	TenantID uuid.UUID
	// Key is the one that the client chose; empty means that it asked for nothing.
	Key string
	// Digests are those of the request, one under each key of the ring, the one to keep first.
	Digests [][]byte
	// Ahead takes the key before the write: for one that cannot be undone with the transaction that keeps its answer.
	Ahead bool
}

// Answer is what a write was answered with.
type Answer struct {
	Status int
	Body   []byte // JSON
}

// KeyLifetime is how long an answer is kept under its key.
const KeyLifetime = 24 * time.Hour

// ErrKeyReused means that a key was used before for another request.
var ErrKeyReused = errors.New("Idempotency-Key was used for another request")

// AuditEntry is one row of the audit log.
type AuditEntry struct {
	ID            int64
	At            time.Time
	TenantID      uuid.UUID // zero for what belongs to no tenant
	Actor         string
	Action        string
	SubjectID     uuid.UUID
	CorrelationID string
	Before, After []byte // JSON objects without secrets; nil if there is none
}

// AuditFilter chooses rows of the audit log; a zero field chooses all.
type AuditFilter struct {
	TenantID  uuid.UUID
	SubjectID uuid.UUID
	Actor     string
	Action    string
	// CorrelationID is that of the request or command that did it.
	CorrelationID string
	// From and To bound when it was done: then or later, and before.
	From, To time.Time
	// BeforeID leaves out this row and newer ones.
	BeforeID int64
	Limit    int
}

// Figures are what W3 asks to see whether all is well.
type Figures struct {
	DomainsActive int
	// LastUse is the last request of W3 that was let in; zero if there was none.
	LastUse time.Time
}

// Registry keeps credentials. Each change is one transaction that also holds its audit row. Implementations are safe
// for concurrent use.
type Registry interface {
	// AddSecret adds a tenant's secret. With retire, those that would live longer end then. Error: the store's own for
	// an unknown tenant.
	AddSecret(ctx context.Context, s Secret, token TokenHash, retire time.Time, actor string) error
	// RevokeSecret ends a secret at once. Error: ErrUnknownSecret.
	RevokeSecret(ctx context.Context, tenant, id uuid.UUID, actor string) error
	// Secrets returns a tenant's secrets, the newest first, ended ones too.
	Secrets(ctx context.Context, tenant uuid.UUID) ([]Secret, error)
	// AddOperator adds an operator. Error: ErrOperatorTaken.
	AddOperator(ctx context.Context, o Operator, token TokenHash, actor string) error
	// RevokeOperator ends the token of the operator of a name. Error: ErrUnknownOperator.
	RevokeOperator(ctx context.Context, name, actor string) error
	// Operators returns all operators, the newest first, revoked ones too.
	Operators(ctx context.Context) ([]Operator, error)
}
