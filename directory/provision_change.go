package directory

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// Effect says what a write did.
type Effect string

// The effects.
const (
	EffectCreated   Effect = "created"
	EffectUpdated   Effect = "updated"
	EffectUnchanged Effect = "unchanged"
	EffectDeleted   Effect = "deleted"
)

// Writer makes changes of extensions, each with its audit row: all those of one Writer in one transaction, where it
// stands for one, and each in its own otherwise. Nothing that waits, such as hashing, belongs between them.
type Writer interface {
	// PutExtension writes an extension over the one of the same tenant, realm and number, or creates it, and its domain
	// if need be. It returns the id under which it is stored. Its status is not part of it. Errors: ErrRealmTaken,
	// ErrDomainID, ErrNameTaken.
	PutExtension(ctx context.Context, e ExtensionRecord, actor string) (uuid.UUID, Effect, error)
	// ChangeExtension changes an extension and returns it as it is then. Errors: ErrUnknownExtension, ErrDeleted,
	// ErrChangedMeanwhile.
	ChangeExtension(ctx context.Context, tenant, id uuid.UUID, c ExtensionChange, actor string) (ExtensionRecord, Effect, error)
	// DeleteExtension deletes an extension: its hashes are gone, its names are free, its stores have no access to it.
	// One that is deleted already stays as it is. Error: ErrUnknownExtension.
	DeleteExtension(ctx context.Context, tenant, id uuid.UUID, actor string) (Effect, error)
	// PutStores gives access to an extension to these stores and no others, and returns them in order, each once.
	// Errors: ErrUnknownExtension, ErrDeleted.
	PutStores(ctx context.Context, tenant, id uuid.UUID, stores []uuid.UUID, actor string) ([]uuid.UUID, Effect, error)
}

// Reader shows extensions to those who provision them.
type Reader interface {
	// ExtensionByID returns an extension as stored, also a deleted one. Error: ErrUnknownExtension.
	ExtensionByID(ctx context.Context, tenant, id uuid.UUID) (ExtensionRecord, error)
	// ListExtensions returns a tenant's extensions in order of number and id.
	ListExtensions(ctx context.Context, tenant uuid.UUID, f ExtensionFilter) ([]ExtensionRecord, error)
	// ListDomains returns up to limit of a tenant's domains whose realm comes after one, in order of realm.
	ListDomains(ctx context.Context, tenant uuid.UUID, after string, limit int) ([]DomainRecord, error)
	// Stores returns the stores that have access to an extension, in order. Error: ErrUnknownExtension.
	Stores(ctx context.Context, tenant, id uuid.UUID) ([]uuid.UUID, error)
}

// ExtensionFilter chooses extensions; a zero field chooses all.
type ExtensionFilter struct {
	Realm string
	// Status leaves out deleted extensions when it is empty.
	Status Status
	// After leaves out what comes before this place in the order of the list, and the place itself.
	After ExtensionPlace
	Limit int
}

// ExtensionPlace is where an extension stands in a list. Neither part ever changes, so a list that is read page by page
// shows each extension that was there all the time exactly once.
type ExtensionPlace struct {
	Number string
	ID     uuid.UUID
}

// DomainRecord is a SIP domain as it is stored.
type DomainRecord struct {
	ID         uuid.UUID
	Realm      fstext.Realm
	Name       string // may be empty
	W3DomainID uuid.UUID
	Active     bool
	// Extensions counts those that are not deleted.
	Extensions int
	CreatedAt  time.Time
}

// ExtensionPatch is a change as it is asked for. A nil field stays as it is.
type ExtensionPatch struct {
	DisplayName          *string
	Status               *string // active or suspended
	Transport            *string
	AllowedCodecs        []string
	MaxConcurrentCalls   *int
	OutboundCallerNumber *string // empty takes it away
	SIPPassword          *string
}

// ExtensionChange is a change that can be written. A nil field stays as it is.
type ExtensionChange struct {
	Name        *fstext.DisplayName
	Active      *bool
	Transport   *Transport
	Codecs      *fstext.Codecs
	MaxCalls    *int
	CallerID    *fstext.E164
	Credentials *Credentials
}

// Credentials are what is kept of a password.
type Credentials struct {
	// Username is the one that the A1s are made for.
	Username          fstext.Username
	PasswordHash      string // Argon2id, PHC form
	HA1MD5, HA1SHA256 secret.Sealed
}

// PrepareChange checks a change and makes the hashes of a new password. The password that is there already is no
// change. Errors: *invalid.FieldError, ErrUnknownExtension, ErrDeleted, the registry's.
func (p *Provisioner) PrepareChange(ctx context.Context, tenant, id uuid.UUID, patch ExtensionPatch) (ExtensionChange, error) {
	stored, err := p.registry.ExtensionByID(ctx, tenant, id)
	if err != nil {
		return ExtensionChange{}, fmt.Errorf("prepare change: %w", err)
	}
	if stored.Status == StatusDeleted {
		return ExtensionChange{}, ErrDeleted
	}
	c, err := parsePatch(patch)
	if err != nil || patch.SIPPassword == nil {
		return c, err
	}
	credentials, err := p.credentials(ctx, stored.Extension, stored, *patch.SIPPassword)
	if err != nil {
		return ExtensionChange{}, fmt.Errorf("prepare change: %w", err)
	}
	if credentials.PasswordHash != stored.PasswordHash {
		c.Credentials = &credentials
	}
	return c, nil
}

func parsePatch(patch ExtensionPatch) (ExtensionChange, error) {
	var c ExtensionChange
	if patch.DisplayName != nil {
		name, err := fstext.NewDisplayName(*patch.DisplayName)
		if err != nil {
			return c, invalid.Because("displayName", err)
		}
		c.Name = &name
	}
	if patch.Status != nil {
		s := Status(*patch.Status)
		if s != StatusActive && s != StatusSuspended {
			return c, &invalid.FieldError{Name: "status", Reason: "is neither active nor suspended"}
		}
		c.Active = new(s == StatusActive)
	}
	if patch.Transport != nil {
		t, err := parseTransport(*patch.Transport)
		if err != nil {
			return c, err
		}
		c.Transport = &t
	}
	if patch.AllowedCodecs != nil {
		list, err := parseCodecs(patch.AllowedCodecs)
		if err != nil {
			return c, err
		}
		c.Codecs = &list
	}
	if patch.MaxConcurrentCalls != nil {
		if err := checkMaxCalls(*patch.MaxConcurrentCalls); err != nil {
			return c, err
		}
		c.MaxCalls = patch.MaxConcurrentCalls
	}
	if patch.OutboundCallerNumber != nil {
		number, err := parseCallerID(*patch.OutboundCallerNumber)
		if err != nil {
			return c, err
		}
		c.CallerID = &number
	}
	if patch.SIPPassword != nil {
		return c, checkPassword(*patch.SIPPassword)
	}
	return c, nil
}

// Apply returns the extension as it is after the change. Error: ErrChangedMeanwhile.
func (c ExtensionChange) Apply(e ExtensionRecord) (ExtensionRecord, error) {
	set(&e.Name, c.Name)
	set(&e.Transport, c.Transport)
	set(&e.Codecs, c.Codecs)
	set(&e.MaxCalls, c.MaxCalls)
	set(&e.CallerID, c.CallerID)
	if c.Active != nil {
		e.Active, e.Status = *c.Active, StatusSuspended
		if e.Active {
			e.Status = StatusActive
		}
	}
	if c.Credentials != nil {
		if c.Credentials.Username != e.Username {
			return e, ErrChangedMeanwhile
		}
		e.PasswordHash, e.HA1MD5, e.HA1SHA256 = c.Credentials.PasswordHash, c.Credentials.HA1MD5, c.Credentials.HA1SHA256
	}
	return e, nil
}

func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}
