package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
)

// TenantSpec is a tenant as it is asked for.
type TenantSpec struct {
	Slug, Name string
	Country    string // ISO 3166-1 alpha-2
	Timezone   string // IANA; empty means UTC
}

// ExtensionSpec is an extension as it is asked for. The fields are those of W3's POST /extensions, see docs/design.md.
type ExtensionSpec struct {
	TenantID             uuid.UUID
	W3DomainID           uuid.UUID // domainId; zero if not given
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

// TenantRecord is a tenant about to be written.
type TenantRecord struct {
	Tenant
	Timezone string
}

// ExtensionRecord is an extension about to be written, or as it is stored, with what only provisioning sees.
type ExtensionRecord struct {
	Extension
	W3DomainID   uuid.UUID
	PasswordHash string // Argon2id, PHC form
}

// Registry is what Provisioner writes to. Each method is one transaction that also holds the audit row. Implementations
// are safe for concurrent use.
type Registry interface {
	// PutTenant creates a tenant or finds the one of that slug, and returns it as stored.
	PutTenant(ctx context.Context, t TenantRecord, actor string) (Tenant, error)
	// Tenant returns a tenant by id. Error: ErrUnknownTenant.
	Tenant(ctx context.Context, id uuid.UUID) (Tenant, error)
	// StoredExtension returns the extension of a number as stored. Error: ErrUnknownExtension, also for an unknown realm.
	StoredExtension(ctx context.Context, tenant uuid.UUID, realm fstext.Realm, number fstext.Extension) (ExtensionRecord, error)
	// PutExtension writes an extension over the one of the same tenant, realm and number, or creates it, and its domain
	// if need be. It returns the id under which it is stored. Its status is not part of it. Errors: ErrRealmTaken,
	// ErrDomainID, ErrNameTaken.
	PutExtension(ctx context.Context, e ExtensionRecord, actor string) (uuid.UUID, error)
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

// PutTenant creates a tenant, or returns the one of that slug unchanged. Errors: *invalid.FieldError, the registry's.
func (p *Provisioner) PutTenant(ctx context.Context, spec TenantSpec, actor string) (Tenant, error) {
	t := TenantRecord{Tenant: Tenant{ID: uuid.New(), Active: true}, Timezone: spec.Timezone}
	var err error
	if t.Slug, err = fstext.NewSlug(spec.Slug); err != nil {
		return Tenant{}, invalid.Because("slug", err)
	}
	if t.Name, err = fstext.NewDisplayName(spec.Name); err != nil {
		return Tenant{}, invalid.Because("name", err)
	}
	if t.Country, err = numbering.NewCountry(spec.Country); err != nil {
		return Tenant{}, invalid.Because("country", err)
	}
	if t.Timezone == "" {
		t.Timezone = "UTC"
	}
	if _, err := time.LoadLocation(t.Timezone); err != nil || t.Timezone == "Local" {
		return Tenant{}, &invalid.FieldError{Name: "timezone", Reason: "not the name of an IANA time zone"}
	}
	stored, err := p.registry.PutTenant(ctx, t, actor)
	if err != nil {
		return Tenant{}, fmt.Errorf("put tenant: %w", err)
	}
	return stored, nil
}

// PutExtension creates an extension or brings the one of that tenant, realm and number to what is asked for; a
// suspended one stays suspended. The same specification again changes nothing. Errors: *invalid.FieldError,
// ErrUnknownTenant, ErrRealmTaken, ErrDomainID, ErrNameTaken, the registry's.
func (p *Provisioner) PutExtension(ctx context.Context, spec ExtensionSpec, actor string) (Extension, error) {
	tenant, err := p.registry.Tenant(ctx, spec.TenantID)
	if err != nil {
		return Extension{}, fmt.Errorf("put extension: %w", err)
	}
	e, err := parseExtension(spec, tenant)
	if err != nil {
		return Extension{}, err
	}
	stored, err := p.registry.StoredExtension(ctx, tenant.ID, e.Realm, e.Number)
	switch {
	case errors.Is(err, ErrUnknownExtension):
		e.ID = uuid.New()
	case err != nil:
		return Extension{}, fmt.Errorf("put extension: %w", err)
	default:
		e.ID = stored.ID
	}
	if err := p.credentials(ctx, &e, stored, spec.SIPPassword); err != nil {
		return Extension{}, fmt.Errorf("put extension: %w", err)
	}
	if e.ID, err = p.registry.PutExtension(ctx, e, actor); err != nil {
		return Extension{}, fmt.Errorf("put extension: %w", err)
	}
	return e.Extension, nil
}

// credentials keeps the stored hashes when the password and what A1 is made of are the same, and makes new ones
// otherwise. The password goes no further than this.
func (p *Provisioner) credentials(ctx context.Context, e *ExtensionRecord, stored ExtensionRecord, password string) error {
	if stored.PasswordHash != "" && stored.Username == e.Username && p.keys.Knows(stored.HA1MD5.KeyID) {
		same, err := p.hasher.Matches(ctx, stored.PasswordHash, password)
		if err != nil && !errors.Is(err, secret.ErrBadHash) {
			return err
		}
		if same {
			e.PasswordHash, e.HA1MD5, e.HA1SHA256 = stored.PasswordHash, stored.HA1MD5, stored.HA1SHA256
			return nil
		}
	}
	hash, err := p.hasher.Hash(ctx, password)
	if err != nil {
		return err
	}
	user, realm := e.Username.String(), e.Realm.String()
	e.PasswordHash = hash
	e.HA1MD5 = p.keys.Seal([]byte(secret.HA1MD5(user, realm, password)), CredentialOwner(e.TenantID, e.Username, e.Realm, MD5))
	e.HA1SHA256 = p.keys.Seal([]byte(secret.HA1SHA256(user, realm, password)), CredentialOwner(e.TenantID, e.Username, e.Realm, SHA256))
	return nil
}

// Bounds on a SIP password, in bytes. The lower one lets demo passwords through; W3 sends 20 characters and more.
const (
	minPassword = 6
	maxPassword = 128
)

func parseExtension(spec ExtensionSpec, tenant Tenant) (ExtensionRecord, error) {
	e := ExtensionRecord{W3DomainID: spec.W3DomainID}
	e.TenantID, e.Active, e.MaxCalls = tenant.ID, true, spec.MaxConcurrentCalls
	var err error
	if e.Realm, err = fstext.NewRealm(spec.Realm); err != nil {
		return e, invalid.Because("sipRealm", err)
	}
	if e.Number, err = fstext.NewExtension(spec.Extension); err != nil {
		return e, invalid.Because("extension", err)
	}
	if numbering.Emergency(tenant.Country, spec.Extension) {
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
	if e.Transport, err = ParseTransport(cmp.Or(spec.Transport, string(TransportAny))); err != nil {
		return e, invalid.Because("transport", err)
	}
	names := spec.AllowedCodecs
	if len(names) == 0 {
		names = []string{"OPUS", "G722", "PCMA", "PCMU"}
	}
	if e.Codecs, err = ParseCodecs(names); err != nil {
		return e, invalid.Because("allowedCodecs", err)
	}
	if spec.MaxConcurrentCalls < 0 || spec.MaxConcurrentCalls > 1000 {
		return e, &invalid.FieldError{Name: "maxConcurrentCalls", Reason: "is not between 0 and 1000"}
	}
	if spec.OutboundCallerNumber != "" {
		if e.CallerID, err = fstext.NewE164(spec.OutboundCallerNumber); err != nil {
			return e, invalid.Because("outboundCallerNumber", err)
		}
	}
	if len(spec.SIPPassword) < minPassword || len(spec.SIPPassword) > maxPassword || !utf8.ValidString(spec.SIPPassword) {
		return e, &invalid.FieldError{Name: "sipPassword", Reason: fmt.Sprintf("does not have %d to %d bytes of UTF-8", minPassword, maxPassword)}
	}
	return e, nil
}
