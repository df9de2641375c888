package trunk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
)

// Spec is a trunk as it is asked for. An empty text is a default where there is one (port 5060, protocol udp, caller id
// policy trunk, number format plus), and nothing otherwise; a number of zero is zero.
type Spec struct {
	TenantID            uuid.UUID
	StoreID             uuid.UUID // zero if the trunk belongs to no store
	Name, Provider      string
	Description         string
	Host                string
	Port                int
	Protocol            string
	Proxy               string // host or host:port
	MaxChannels         int
	Priority            int
	SourceAddresses     []string // CIDR
	Register            bool     // needs Username and Password
	Username, Password  string   // both or neither; without them the carrier knows us by address
	CallerIDPolicy      string
	CallerIDNumber      string // E.164
	NumberFormat        string
	TechPrefix          string
	Prefixes            []string
	Codecs              []string // in any letter case
	PingSeconds         int
	AIAgentRef          string
	AITimePolicy        json.RawMessage // a JSON object; nil if there is none
	AIFailoverExtension string
	DIDRanges           []DIDRange
	Disabled            bool // for a new trunk only
}

// Record is a trunk about to be written, or as it is stored, with what calls do not need to know.
type Record struct {
	Trunk
	StoreID      uuid.UUID
	Provider     fstext.Text
	Description  fstext.Text
	AITimePolicy json.RawMessage // see ParseAITimePolicy
	Ranges       []Range         // in order of number
	Status       Status

	// What follows is part of stored records only.

	// Timezone is the tenant's, by its IANA name.
	Timezone  string
	CreatedAt time.Time
	// UpdatedAt is later after each change than after the one before.
	UpdatedAt time.Time
}

// Equal tells whether two records are the same in everything.
func (r Record) Equal(o Record) bool { return reflect.DeepEqual(r, o) }

// Warnings say, for people, what of an active trunk does not work as it stands, although each part of it may be meant.
func (r Record) Warnings() []string {
	if r.Status != StatusActive || len(r.Ranges) == 0 || len(r.SourceAddresses()) > 0 {
		return nil
	}
	return []string{"the carrier's calls are refused: the host is a name, and no source addresses say where they come from"}
}

// PasswordSet tells whether a password is kept.
func (r Record) PasswordSet() bool { return len(r.Password.Data) > 0 }

// Status is that of a trunk.
type Status string

// The states. A deleted trunk stays deleted; its numbers are free.
const (
	StatusActive   Status = "active"
	StatusDisabled Status = "disabled"
	StatusDeleted  Status = "deleted"
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

// Conflicts that writing a trunk can meet.
var (
	// ErrDIDTaken means that a number of a range already belongs to a trunk, of this tenant or another.
	ErrDIDTaken = errors.New("a number of the DID ranges already belongs to a trunk")
	// ErrIDTaken means that the id belongs to a trunk of another tenant, or to one that is not as it is asked for.
	ErrIDTaken       = errors.New("trunk id belongs to another trunk")
	ErrDeleted       = errors.New("trunk is deleted")
	ErrUnknownTrunk  = errors.New("unknown trunk")
	ErrUnknownTenant = errors.New("unknown tenant")
)

// Home is where a tenant is: how he reads numbers, the IANA zone of his clock, and whom he can be called at.
type Home struct {
	Country  numbering.Country
	Timezone string
	// Rings tells whether a call from outside to an extension's number rings: found as calls find it (dialplan.Store's
	// TenantExtension), and active. Its errors are the registry's.
	Rings func(fstext.Extension) (bool, error)
}

// Edit returns a trunk as it is to be, from what is stored of it; nil if nothing is. Home is its tenant's.
type Edit func(home Home, stored *Record) (Record, error)

// Registry is what Provisioner writes to. Implementations are safe for concurrent use.
type Registry interface {
	// WriteTrunk is one transaction: it locks the trunk of an id, gives it to edit and writes what comes back, with its
	// DID ranges, an audit row and an event for W3; none of that if it is what is stored. It returns the trunk as it is
	// stored then. edit may run more than once; its errors are returned as they are. Other errors: ErrDIDTaken,
	// ErrIDTaken, ErrUnknownTenant.
	WriteTrunk(ctx context.Context, tenant, id uuid.UUID, edit Edit, actor string) (Record, Effect, error)
	// TrunkByID returns a trunk as stored, also a deleted one. Error: ErrUnknownTrunk.
	TrunkByID(ctx context.Context, tenant, id uuid.UUID) (Record, error)
	// ListTrunks returns a tenant's trunks in order of id.
	ListTrunks(ctx context.Context, tenant uuid.UUID, f Filter) ([]Record, error)
	// TrunkNodes tells of each switch, in order of name, what it has made of a trunk. Error: ErrUnknownTrunk.
	TrunkNodes(ctx context.Context, tenant, id uuid.UUID) ([]NodeState, error)
}

// Filter chooses trunks.
type Filter struct {
	// Status leaves out deleted trunks when it is empty.
	Status Status
	// After leaves out this id and those before it.
	After uuid.UUID
	Limit int
}

// NodeState is what one switch has made of a trunk.
type NodeState struct {
	Node string
	// Active is false for a switch that is disabled: it is told of the trunk before it comes back.
	Active bool
	// Wanted is the revision of the gateway that the switch is to work with, and Applied the one that it works with; 0
	// is no gateway.
	Wanted, Applied int64
	// Converged tells that Applied is Wanted and that nothing else about the trunk is left to do, such as reading the
	// lists of carriers' addresses anew.
	Converged bool
	// Registration and Ping are the switch's own words: REGED, FAIL_WAIT…, and UP or DOWN; empty if unknown.
	Registration, Ping string
	// Error is why it does not register, or has not done what is asked; empty if nothing is wrong.
	Error string
	// SeenAt is when the switch was asked last; zero if never.
	SeenAt time.Time
}

// Provisioner creates, changes and deletes trunks, and shows them. It is safe for concurrent use.
type Provisioner struct {
	registry Registry
	keys     *secret.KeyRing
}

// NewProvisioner returns a provisioner that writes to a registry and seals with a key ring.
func NewProvisioner(r Registry, keys *secret.KeyRing) *Provisioner {
	return &Provisioner{registry: r, keys: keys}
}

// Create creates the trunk of an id. If there is one that is exactly what is asked for, nothing changes. Errors:
// *invalid.FieldError, ErrDIDTaken, ErrIDTaken, ErrDeleted, ErrUnknownTenant, the registry's.
func (p *Provisioner) Create(ctx context.Context, id uuid.UUID, spec Spec, actor string) (Record, Effect, error) {
	c := spec.change()
	c.Status = new(string(spec.status()))
	return p.write(ctx, spec.TenantID, id, actor, func(home Home, stored *Record) (Record, error) {
		if stored == nil {
			return c.apply(newRecord(spec.TenantID, id), home, p.keys)
		}
		if stored.Status == StatusDeleted {
			return Record{}, ErrDeleted
		}
		r, err := c.apply(*stored, home, p.keys)
		if err == nil && !r.Equal(*stored) {
			return Record{}, ErrIDTaken
		}
		return r, err
	})
}

// Put creates the trunk of an id, or brings it to what is asked for; a disabled one stays disabled. Errors:
// *invalid.FieldError, ErrDIDTaken, ErrIDTaken, ErrDeleted, ErrUnknownTenant, the registry's.
func (p *Provisioner) Put(ctx context.Context, id uuid.UUID, spec Spec, actor string) (Trunk, error) {
	r, _, err := p.write(ctx, spec.TenantID, id, actor, func(home Home, stored *Record) (Record, error) {
		r := newRecord(spec.TenantID, id)
		if r.Status = spec.status(); stored != nil {
			r = *stored
		}
		if r.Status == StatusDeleted {
			return Record{}, ErrDeleted
		}
		return spec.change().apply(r, home, p.keys)
	})
	return r.Trunk, err
}

func (s Spec) status() Status {
	if s.Disabled {
		return StatusDisabled
	}
	return StatusActive
}

func newRecord(tenant, id uuid.UUID) Record {
	return Record{Trunk: Trunk{ID: id, TenantID: tenant}}
}

// Change changes what is given of a trunk, all of it or nothing. Errors: *invalid.FieldError, ErrDIDTaken,
// ErrUnknownTrunk, ErrDeleted, ErrUnknownTenant, the registry's.
func (p *Provisioner) Change(ctx context.Context, tenant, id uuid.UUID, c Change, actor string) (Record, Effect, error) {
	return p.write(ctx, tenant, id, actor, func(home Home, stored *Record) (Record, error) {
		switch {
		case stored == nil:
			return Record{}, ErrUnknownTrunk
		case stored.Status == StatusDeleted:
			return Record{}, ErrDeleted
		}
		return c.apply(*stored, home, p.keys)
	})
}

// Delete deletes a trunk for good: its numbers are free, and what it logged in with is gone. One that is deleted
// already stays as it is. Errors: ErrUnknownTrunk, ErrUnknownTenant, the registry's.
func (p *Provisioner) Delete(ctx context.Context, tenant, id uuid.UUID, actor string) (Record, Effect, error) {
	return p.write(ctx, tenant, id, actor, func(_ Home, stored *Record) (Record, error) {
		if stored == nil {
			return Record{}, ErrUnknownTrunk
		}
		r := *stored
		r.Status, r.Ranges = StatusDeleted, nil
		r.Register, r.Username, r.Password = false, fstext.Credential{}, secret.Sealed{}
		return r, nil
	})
}

func (p *Provisioner) write(ctx context.Context, tenant, id uuid.UUID, actor string, edit Edit) (Record, Effect, error) {
	r, effect, err := p.registry.WriteTrunk(ctx, tenant, id, edit, actor)
	if err != nil {
		return Record{}, "", fmt.Errorf("write trunk: %w", err)
	}
	return r, effect, nil
}

// Get returns a trunk, also a deleted one. Errors: ErrUnknownTrunk, the registry's.
func (p *Provisioner) Get(ctx context.Context, tenant, id uuid.UUID) (Record, error) {
	return p.registry.TrunkByID(ctx, tenant, id)
}

// List returns a tenant's trunks in order of id.
func (p *Provisioner) List(ctx context.Context, tenant uuid.UUID, f Filter) ([]Record, error) {
	return p.registry.ListTrunks(ctx, tenant, f)
}

// Nodes tells of each switch, in order of name, what it has made of a trunk. Errors: ErrUnknownTrunk, the registry's.
func (p *Provisioner) Nodes(ctx context.Context, tenant, id uuid.UUID) ([]NodeState, error) {
	return p.registry.TrunkNodes(ctx, tenant, id)
}
