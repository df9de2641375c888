package trunk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// Spec is a trunk as it is asked for. Empty fields take the defaults of schema.sql.
type Spec struct {
	TenantID            uuid.UUID
	StoreID             uuid.UUID // zero if the trunk belongs to no store
	Name, Provider      string
	Host                string
	Port                int
	Protocol            string
	MaxChannels         int
	Priority            int
	SourceAddresses     []string // CIDR
	Username, Password  string   // both or neither; with them we register
	CallerIDPolicy      string
	CallerIDNumber      string // E.164
	AIFailoverExtension string
	DIDRanges           []DIDRange
}

// DIDRange is a range of numbers of one length, both ends in it.
type DIDRange struct{ First, Last string } // E.164

// Record is a trunk about to be written.
type Record struct {
	Trunk
	StoreID  uuid.UUID
	Provider fstext.Text
	Ranges   []Range
}

// Range is a DIDRange that was read.
type Range struct{ First, Last fstext.E164 }

// ErrDIDTaken means that a number of a range already belongs to a trunk, of this tenant or another.
var ErrDIDTaken = errors.New("a number of the DID ranges already belongs to a trunk")

// Other conflicts that writing a trunk can meet.
var (
	ErrIDTaken       = errors.New("trunk id belongs to another tenant")
	ErrUnknownTenant = errors.New("unknown tenant")
)

// Registry is what Provisioner writes to. Implementations are safe for concurrent use.
type Registry interface {
	// PutTrunk writes a trunk over the one of the same tenant and id, or creates it, with its DID ranges and an audit
	// row in one transaction. Its status is not part of it. Errors: ErrDIDTaken, ErrIDTaken, ErrUnknownTenant.
	PutTrunk(ctx context.Context, t Record, actor string) error
}

// Provisioner creates and changes trunks. It is safe for concurrent use.
type Provisioner struct {
	registry Registry
	keys     *secret.KeyRing
}

// NewProvisioner returns a provisioner that writes to a registry and seals with a key ring.
func NewProvisioner(r Registry, keys *secret.KeyRing) *Provisioner {
	return &Provisioner{registry: r, keys: keys}
}

// Put creates the trunk of an id, or brings it to what is asked for. Errors: *invalid.FieldError, ErrDIDTaken,
// ErrIDTaken, ErrUnknownTenant, the registry's.
func (p *Provisioner) Put(ctx context.Context, id uuid.UUID, spec Spec, actor string) (Trunk, error) {
	r, err := parse(spec)
	if err != nil {
		return Trunk{}, err
	}
	r.ID = id
	if r.Register {
		r.Password = p.keys.Seal([]byte(spec.Password), PasswordOwner(r.TenantID, r.ID))
	}
	if err := p.registry.PutTrunk(ctx, r, actor); err != nil {
		return Trunk{}, fmt.Errorf("put trunk: %w", err)
	}
	return r.Trunk, nil
}

func parse(spec Spec) (Record, error) {
	r := Record{StoreID: spec.StoreID}
	r.TenantID, r.Port, r.MaxChannels, r.Priority = spec.TenantID, cmp.Or(spec.Port, 5060), spec.MaxChannels, spec.Priority
	var err error
	if r.Name, err = fstext.NewDisplayName(spec.Name); err != nil {
		return r, invalid.Because("name", err)
	}
	if r.Provider, err = fstext.NewText(spec.Provider); err != nil {
		return r, invalid.Because("provider", err)
	}
	if utf8.RuneCountInString(spec.Provider) > 64 {
		return r, &invalid.FieldError{Name: "provider", Reason: "has more than 64 characters"}
	}
	if r.Host, err = fstext.NewHost(spec.Host); err != nil {
		return r, invalid.Because("host", err)
	}
	if r.Port < 1 || r.Port > 65535 {
		return r, &invalid.FieldError{Name: "port", Reason: "is not between 1 and 65535"}
	}
	if r.MaxChannels < 0 || r.MaxChannels > 100000 {
		return r, &invalid.FieldError{Name: "maxChannels", Reason: "is not between 0 and 100000"}
	}
	if r.Priority < 0 || r.Priority > 1000000 {
		return r, &invalid.FieldError{Name: "priority", Reason: "is not between 0 and 1000000"}
	}
	if r.Protocol, err = ParseProtocol(cmp.Or(spec.Protocol, string(ProtocolUDP))); err != nil {
		return r, invalid.Because("protocol", err)
	}
	if r.CallerID, err = ParseCallerIDPolicy(cmp.Or(spec.CallerIDPolicy, string(CallerIDTrunk))); err != nil {
		return r, invalid.Because("callerIdPolicy", err)
	}
	if spec.CallerIDNumber != "" {
		if r.CallerIDNumber, err = fstext.NewE164(spec.CallerIDNumber); err != nil {
			return r, invalid.Because("callerIdNumber", err)
		}
	}
	if spec.AIFailoverExtension != "" {
		if r.Failover, err = fstext.NewExtension(spec.AIFailoverExtension); err != nil {
			return r, invalid.Because("aiFailoverExtension", err)
		}
	}
	return r, errors.Join(parseSources(&r, spec), parseRegistration(&r, spec), parseRanges(&r, spec))
}

func parseSources(r *Record, spec Spec) error {
	for _, s := range spec.SourceAddresses {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || p != p.Masked():
			return &invalid.FieldError{Name: "sourceAddresses", Reason: "is not a list of address blocks in CIDR form without host bits"}
		case p.Bits() < 8:
			return &invalid.FieldError{Name: "sourceAddresses", Reason: "holds a block larger than /8: a carrier does not call from everywhere"}
		}
		r.Sources = append(r.Sources, p)
	}
	return nil
}

func parseRegistration(r *Record, spec Spec) error {
	if (spec.Username == "") != (spec.Password == "") {
		return &invalid.FieldError{Name: "password", Reason: "username and password go together"}
	}
	if r.Register = spec.Username != ""; !r.Register {
		return nil
	}
	var err error
	if r.Username, err = fstext.NewCredential(spec.Username); err != nil {
		return invalid.Because("username", err)
	}
	if _, err = fstext.NewCredential(spec.Password); err != nil {
		return invalid.Because("password", err)
	}
	return nil
}

func parseRanges(r *Record, spec Spec) error {
	for _, d := range spec.DIDRanges {
		first, err1 := fstext.NewE164(d.First)
		last, err2 := fstext.NewE164(d.Last)
		if err := errors.Join(err1, err2); err != nil {
			return invalid.Because("didRanges", err)
		}
		if len(d.First) != len(d.Last) || first.Int() > last.Int() {
			return &invalid.FieldError{Name: "didRanges", Reason: "a range goes from a number up to one of the same length"}
		}
		r.Ranges = append(r.Ranges, Range{first, last})
	}
	slices.SortFunc(r.Ranges, func(a, b Range) int { return cmp.Compare(a.First.Int(), b.First.Int()) })
	for i := 1; i < len(r.Ranges); i++ {
		if r.Ranges[i].First.Int() <= r.Ranges[i-1].Last.Int() {
			return &invalid.FieldError{Name: "didRanges", Reason: "holds a number twice"}
		}
	}
	return nil
}
