package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
)

// Conflicts that provisioning can meet.
var (
	ErrRealmTaken = errors.New("sipRealm belongs to another tenant")
	ErrDomainID   = errors.New("sipRealm belongs to a domain with another domainId")
	ErrNameTaken  = errors.New("extension or sipUsername is the name of another extension of the domain")
	ErrTenantID   = errors.New("slug belongs to a tenant with another id")
	ErrDeleted    = errors.New("extension is deleted")
	// ErrChangedMeanwhile means that somebody changed what a new password was made for. Asking again helps.
	ErrChangedMeanwhile = errors.New("extension was changed by somebody else at the same time")
)

// TenantSpec is a tenant as it is asked for.
type TenantSpec struct {
	ID       uuid.UUID // W3's tenantId; zero makes one up
	Slug     string
	Name     string // empty means the slug, or what it is called already
	Country  string // ISO 3166-1 alpha-2
	Timezone string // IANA; empty means UTC, or what it is already
}

// ExtensionSpec is an extension as it is asked for. The fields are those of W3's POST /extensions, see docs/design.md.
type ExtensionSpec struct {
	TenantID             uuid.UUID
	W3DomainID           uuid.UUID // domainId; zero if not given
	W3ExtensionID        uuid.UUID // w3ExtensionId; zero if not given
	DomainName           string    // empty if not given
	Realm                string    // sipRealm
	Extension            string
	SIPUsername          string // empty means the extension's number
	SIPPassword          string
	DisplayName          string // empty means the extension's number
	Transport            string // empty means any
	AllowedCodecs        []string
	MaxConcurrentCalls   int
	OutboundCallerNumber string // E.164, may be empty
}

// TenantRecord is a tenant about to be written, or as it is stored.
type TenantRecord struct {
	Tenant
	Timezone string
	// CreatedAt is part of stored records only.
	CreatedAt time.Time
}

// ExtensionRecord is an extension about to be written, or as it is stored, with what only provisioning sees.
type ExtensionRecord struct {
	Extension
	W3DomainID    uuid.UUID
	W3ExtensionID uuid.UUID
	DomainName    fstext.DisplayName
	PasswordHash  string // Argon2id, PHC form

	// What follows is part of stored records only.

	Status               Status
	CreatedAt, UpdatedAt time.Time
}

// Status is that of an extension.
type Status string

// The states. A deleted extension stays deleted; its number can be provisioned again, as another extension.
const (
	StatusActive    Status = "active"
	StatusSuspended Status = "suspended"
	StatusDeleted   Status = "deleted"
)

// Registry is what Provisioner writes to. Each method is one transaction that also holds the audit row. Implementations
// are safe for concurrent use.
type Registry interface {
	// PutTenant creates a tenant or finds the one of that slug, and returns it as stored.
	PutTenant(ctx context.Context, t TenantRecord, actor string) (TenantRecord, error)
	// Tenant returns a tenant by id. Error: ErrUnknownTenant.
	Tenant(ctx context.Context, id uuid.UUID) (Tenant, error)
	// StoredExtension returns the extension of a number as stored. Error: ErrUnknownExtension, also for an unknown
	// realm.
	StoredExtension(ctx context.Context, tenant uuid.UUID, realm fstext.Realm, number fstext.Extension) (ExtensionRecord, error)
	// ExtensionByID returns an extension as stored, also a deleted one. Error: ErrUnknownExtension.
	ExtensionByID(ctx context.Context, tenant, id uuid.UUID) (ExtensionRecord, error)
	// SetTenantStatus suspends a tenant or lets it work again. Error: ErrUnknownTenant.
	SetTenantStatus(ctx context.Context, id uuid.UUID, active bool, actor string) (Tenant, error)
	// Tenants returns all tenants by slug.
	Tenants(ctx context.Context) ([]TenantRecord, error)
	// DeleteDomain gives the realm of a domain without extensions free. Errors: ErrUnknownDomain, ErrDomainInUse.
	DeleteDomain(ctx context.Context, tenant uuid.UUID, realm fstext.Realm, actor string) error
	// DeleteTenant deletes a suspended tenant for good, with all that answers for it: its extensions, domains and
	// trunks are deleted, its credentials end, and nothing more is told to its W3. Its call records stay as long as it
	// keeps them. Errors: ErrUnknownTenant, ErrTenantActive, *invalid.FieldError for records that would stay for ever.
	DeleteTenant(ctx context.Context, id uuid.UUID, actor string) error

	Writer
}

// ErrUnknownTenant is what a Registry answers for a tenant that is not there.
var ErrUnknownTenant = errors.New("unknown tenant")

// Provisioner creates and changes tenants and extensions. It is safe for concurrent use.
type Provisioner struct {
	registry Registry
	keys     *secret.KeyRing
	hasher   *secret.Hasher
}

// NewProvisioner returns a provisioner that writes to a registry, seals with a key ring and hashes with a hasher.
func NewProvisioner(r Registry, keys *secret.KeyRing, hasher *secret.Hasher) *Provisioner {
	return &Provisioner{registry: r, keys: keys, hasher: hasher}
}

// PutTenant creates a tenant, or returns the one of that slug if it is as it is asked for. Errors: *invalid.FieldError,
// ErrTenantID, *TenantDiffersError, the registry's.
func (p *Provisioner) PutTenant(ctx context.Context, spec TenantSpec, actor string) (TenantRecord, error) {
	t := TenantRecord{Tenant: Tenant{ID: spec.ID, Active: true}}
	if t.ID == uuid.Nil {
		t.ID = uuid.New()
	}
	var err error
	if t.Slug, err = fstext.NewSlug(spec.Slug); err != nil {
		return TenantRecord{}, invalid.Because("slug", err)
	}
	if t.Name, err = fstext.NewDisplayName(cmp.Or(spec.Name, spec.Slug)); err != nil {
		return TenantRecord{}, invalid.Because("name", err)
	}
	if t.Country, err = numbering.NewCountry(spec.Country); err != nil {
		return TenantRecord{}, invalid.Because("country", err)
	}
	t.Timezone = cmp.Or(spec.Timezone, "UTC")
	if err := checkTimezone(t.Timezone); err != nil {
		return TenantRecord{}, err
	}
	stored, err := p.registry.PutTenant(ctx, t, actor)
	if err != nil {
		return TenantRecord{}, fmt.Errorf("put tenant: %w", err)
	}
	if spec.ID != uuid.Nil && stored.ID != spec.ID {
		return TenantRecord{}, ErrTenantID
	}
	return stored, spec.differs(t, stored)
}

// PutExtension creates an extension or brings the one of that tenant, realm and number to what is asked for; a
// suspended one stays suspended. The same specification again changes nothing. Errors: *invalid.FieldError,
// ErrUnknownTenant, ErrRealmTaken, ErrDomainID, ErrNameTaken, the registry's.
func (p *Provisioner) PutExtension(ctx context.Context, spec ExtensionSpec, actor string) (Extension, error) {
	tenant, err := p.registry.Tenant(ctx, spec.TenantID)
	if err != nil {
		return Extension{}, fmt.Errorf("put extension: %w", err)
	}
	e, err := p.PrepareExtension(ctx, spec, tenant.Country)
	if err != nil {
		return Extension{}, err
	}
	if e.ID, _, err = p.registry.PutExtension(ctx, e, actor); err != nil {
		return Extension{}, fmt.Errorf("put extension: %w", err)
	}
	return e.Extension, nil
}

// PrepareExtension does all of PutExtension that can be done without writing, the hashing above all, so that the record
// can be written in a short transaction. country is that of the tenant, whom the caller has just seen. Errors: *invalid.FieldError, the
// registry's.
func (p *Provisioner) PrepareExtension(ctx context.Context, spec ExtensionSpec, country numbering.Country) (ExtensionRecord, error) {
	e, err := parseExtension(spec, country)
	if err != nil {
		return ExtensionRecord{}, err
	}
	stored, err := p.registry.StoredExtension(ctx, e.TenantID, e.Realm, e.Number)
	if err != nil && !errors.Is(err, ErrUnknownExtension) {
		return ExtensionRecord{}, fmt.Errorf("prepare extension: %w", err)
	}
	// The id of a new one; where there is one already, writing finds it again under a lock.
	e.ID = uuid.New()
	c, err := p.credentials(ctx, e.Extension, stored, spec.SIPPassword)
	if err != nil {
		return ExtensionRecord{}, fmt.Errorf("prepare extension: %w", err)
	}
	e.PasswordHash, e.HA1MD5, e.HA1SHA256 = c.PasswordHash, c.HA1MD5, c.HA1SHA256
	return e, nil
}

// credentials keeps the stored hashes when the password and what A1 is made of are the same, and makes new ones
// otherwise. A hash of weaker parameters than today's is made again. The password goes no further than this.
func (p *Provisioner) credentials(ctx context.Context, e Extension, stored ExtensionRecord, password string) (Credentials, error) {
	c := Credentials{Username: e.Username}
	if stored.PasswordHash != "" && stored.Username == e.Username && p.keys.Knows(stored.HA1MD5.KeyID) {
		same, err := p.hasher.Matches(ctx, stored.PasswordHash, password)
		if err != nil && !errors.Is(err, secret.ErrBadHash) {
			return c, err
		}
		if same {
			c.PasswordHash, c.HA1MD5, c.HA1SHA256 = stored.PasswordHash, stored.HA1MD5, stored.HA1SHA256
			if !secret.Outdated(stored.PasswordHash) {
				return c, nil
			}
			c.PasswordHash, err = p.hasher.Hash(ctx, password)
			return c, err
		}
	}
	hash, err := p.hasher.Hash(ctx, password)
	if err != nil {
		return c, err
	}
	user, realm := e.Username.String(), e.Realm.String()
	c.PasswordHash = hash
	c.HA1MD5 = p.keys.Seal([]byte(secret.HA1MD5(user, realm, password)), CredentialOwner(e.TenantID, e.Username, e.Realm, MD5))
	c.HA1SHA256 = p.keys.Seal([]byte(secret.HA1SHA256(user, realm, password)), CredentialOwner(e.TenantID, e.Username, e.Realm, SHA256))
	return c, nil
}

// Bounds on a SIP password, in bytes. The lower one lets demo passwords through; W3 sends 20 characters and more.
const (
	minPassword = 6
	maxPassword = 128
)

func parseExtension(spec ExtensionSpec, country numbering.Country) (ExtensionRecord, error) {
	e := ExtensionRecord{W3DomainID: spec.W3DomainID, W3ExtensionID: spec.W3ExtensionID}
	e.TenantID, e.Active, e.MaxCalls = spec.TenantID, true, spec.MaxConcurrentCalls
	var err error
	if e.Realm, err = fstext.NewRealm(spec.Realm); err != nil {
		return e, invalid.Because("sipRealm", err)
	}
	if e.Number, err = fstext.NewExtension(spec.Extension); err != nil {
		return e, invalid.Because("extension", err)
	}
	if numbering.Emergency(country, spec.Extension) {
		return e, &invalid.FieldError{Name: "extension", Reason: "is an emergency number in the tenant's country"}
	}
	e.Username = e.Number.Username()
	if spec.SIPUsername != "" {
		if e.Username, err = fstext.NewUsername(spec.SIPUsername); err != nil {
			return e, invalid.Because("sipUsername", err)
		}
	}
	if e.Name, err = fstext.NewDisplayName(cmp.Or(spec.DisplayName, spec.Extension)); err != nil {
		return e, invalid.Because("displayName", err)
	}
	if spec.DomainName != "" {
		if e.DomainName, err = fstext.NewDisplayName(spec.DomainName); err != nil {
			return e, invalid.Because("domainName", err)
		}
	}
	if e.Transport, err = parseTransport(cmp.Or(spec.Transport, string(TransportAny))); err != nil {
		return e, err
	}
	names := spec.AllowedCodecs
	if len(names) == 0 {
		names = []string{"OPUS", "G722", "PCMA", "PCMU"}
	}
	if e.Codecs, err = parseCodecs(names); err != nil {
		return e, err
	}
	if err := checkMaxCalls(spec.MaxConcurrentCalls); err != nil {
		return e, err
	}
	if e.CallerID, err = parseCallerID(spec.OutboundCallerNumber); err != nil {
		return e, err
	}
	return e, checkPassword(spec.SIPPassword)
}

// parseTransport takes a name as people write it, in any letter case.
func parseTransport(s string) (Transport, error) {
	t, err := ParseTransport(strings.ToLower(s))
	if err != nil {
		return "", invalid.Because("transport", err)
	}
	return t, nil
}

func parseCodecs(names []string) (fstext.Codecs, error) {
	c, err := fstext.ParseCodecs(names)
	if err != nil {
		return fstext.Codecs{}, invalid.Because("allowedCodecs", err)
	}
	return c, nil
}

// parseCallerID takes a public number, or nothing.
func parseCallerID(s string) (fstext.E164, error) {
	if s == "" {
		return fstext.E164{}, nil
	}
	n, err := fstext.NewE164(s)
	if err != nil {
		return fstext.E164{}, invalid.Because("outboundCallerNumber", err)
	}
	return n, nil
}

func checkMaxCalls(n int) error {
	if n < 0 || n > 1000 {
		return &invalid.FieldError{Name: "maxConcurrentCalls", Reason: "is not between 0 and 1000"}
	}
	return nil
}

func checkPassword(s string) error {
	if len(s) < minPassword || len(s) > maxPassword || !utf8.ValidString(s) {
		return &invalid.FieldError{Name: "sipPassword", Reason: fmt.Sprintf("does not have %d to %d bytes of UTF-8", minPassword, maxPassword)}
	}
	return nil
}
