package dialplan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/trunk"
)

// Store is what Gather reads from. Implementations are safe for concurrent use.
type Store interface {
	// Extension is directory.Store's.
	Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (directory.Domain, directory.Extension, error)
	// TenantExtension returns the extension of a tenant that answers to a name. Where several domains have it, the one
	// of the domain "near" is meant, and without that the one of the oldest domain. Extensions of domains and tenants
	// that are not active do not exist here. Error: directory.ErrUnknownExtension.
	TenantExtension(ctx context.Context, tenant, near uuid.UUID, name fstext.Username) (directory.Tenant, directory.Extension, error)
	// TrunkTenant returns the tenant that a trunk belongs to, by the tenant's id. Error: directory.ErrUnknownTenant.
	TrunkTenant(ctx context.Context, tenant uuid.UUID) (directory.Tenant, error)
	// TenantTrunks returns the active trunks of a tenant in the order in which calls out try them.
	TenantTrunks(ctx context.Context, tenant uuid.UUID) ([]trunk.Trunk, error)
	// InboundTrunk returns the active trunk of an active tenant whose DID ranges hold a number. Error:
	// trunk.ErrUnknownDID.
	InboundTrunk(ctx context.Context, number fstext.E164) (trunk.Trunk, error)
	// CarrierCountries returns the countries, each once, of the active tenants that have an active trunk whose carrier
	// may call from an address. None means that the address is no carrier's.
	CarrierCountries(ctx context.Context, a netip.Addr) ([]numbering.Country, error)
}

// Facts is all that Decide knows about a call.
type Facts struct {
	who      identity
	stranger string // why the caller is nobody

	tenant directory.Tenant
	domain directory.Domain     // of the caller, if it is an extension
	caller *directory.Extension // nil if the caller is not an extension
	callee *directory.Extension // the extension that was dialled, nil if there is none
	// number is the public number that was dialled, empty if it is none.
	number    fstext.E164
	emergency fstext.Dialled // set if help was called for
	trunks    []trunk.Trunk  // to call out on
	inbound   *trunk.Trunk   // that the call came in on
	// standIn takes the call if the extension to which an AI agent has handed it does not; nil if nobody does.
	standIn *directory.Extension
	known   bool // the source address is a carrier's
}

// Gather collects the facts about a call. An error means that the store could not tell, and no route may be given.
func Gather(ctx context.Context, s Store, c Call) (Facts, error) {
	var f Facts
	f.who, f.stranger = identify(c)
	switch f.who.origin {
	case originPhone:
		return f, f.gatherPhone(ctx, s, c)
	case originCarrier:
		return f, f.gatherCarrier(ctx, s, c)
	case originGuest:
		return f, f.gatherGuest(ctx, s, c)
	default:
		return f, nil
	}
}

func (f *Facts) gatherPhone(ctx context.Context, s Store, c Call) error {
	dom, ext, err := s.Extension(ctx, f.who.realm, f.who.user)
	switch {
	case errors.Is(err, directory.ErrUnknownDomain), errors.Is(err, directory.ErrUnknownExtension):
		return nil
	case err != nil:
		return fmt.Errorf("caller: %w", err)
	}
	f.domain, f.tenant, f.caller = dom, dom.Tenant, &ext
	dialled, notDialled := fstext.NewDialled(c.Destination)
	if notDialled == nil && numbering.Emergency(dom.Tenant.Country, c.Destination) {
		f.emergency = dialled
		return f.gatherTrunks(ctx, s)
	}
	if err := f.gatherCallee(ctx, s, c, dom.ID); err != nil || f.callee != nil || notDialled != nil {
		return err
	}
	if f.number, err = numbering.Normalise(dom.Tenant.Country, dialled); err != nil {
		return nil //nolint:nilerr // not a number: Decide refuses it
	}
	return f.gatherTrunks(ctx, s)
}

func (f *Facts) gatherTrunks(ctx context.Context, s Store) (err error) {
	if f.trunks, err = s.TenantTrunks(ctx, f.tenant.ID); err != nil {
		return fmt.Errorf("trunks: %w", err)
	}
	return nil
}

// gatherCallee looks for the extension that was dialled, by number or by SIP username.
func (f *Facts) gatherCallee(ctx context.Context, s Store, c Call, near uuid.UUID) error {
	name, err := fstext.NewUsername(c.Destination)
	if err != nil {
		return nil //nolint:nilerr // no extension can have that name
	}
	tenant, ext, err := s.TenantExtension(ctx, f.tenant.ID, near, name)
	switch {
	case errors.Is(err, directory.ErrUnknownExtension):
		return nil
	case err != nil:
		return fmt.Errorf("callee: %w", err)
	}
	f.tenant, f.callee = tenant, &ext
	return nil
}

// gatherCarrier finds the trunk that a call came in on: the trunk of the DID, if its carrier may call from this
// address. Carriers send E.164 with and without the plus sign, and national numbers; these are read as each country of
// the carrier's tenants reads them.
func (f *Facts) gatherCarrier(ctx context.Context, s Store, c Call) error {
	if !c.Source.IsValid() {
		return nil
	}
	// What the store cannot tell of one reading of the number matters only if no other is right.
	var failed error
	try := func(number fstext.E164) (found bool) {
		found, err := f.gatherDID(ctx, s, c, number)
		if found {
			failed = err
		} else {
			failed = cmp.Or(failed, err)
		}
		return found
	}
	for _, form := range []string{c.Destination, "+" + c.Destination} {
		if number, err := fstext.NewE164(form); err == nil && try(number) {
			return failed
		}
	}
	countries, err := s.CarrierCountries(ctx, c.Source.Unmap())
	if err != nil {
		return fmt.Errorf("countries of an address: %w", err)
	}
	f.known = len(countries) > 0
	dialled, err := fstext.NewDialled(c.Destination)
	if err != nil {
		return failed // no DID has such a number
	}
	for _, country := range countries {
		if number, err := numbering.Normalise(country, dialled); err == nil && try(number) {
			return failed
		}
	}
	return failed
}

// gatherDID looks whether a number is a DID that the caller's address may bring, and if so who takes the call.
func (f *Facts) gatherDID(ctx context.Context, s Store, c Call, number fstext.E164) (found bool, err error) {
	t, err := s.InboundTrunk(ctx, number)
	switch {
	case errors.Is(err, trunk.ErrUnknownDID):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("did: %w", err)
	case !t.CallsFrom(c.Source):
		return false, nil
	}
	f.inbound, f.number, f.known = &t, number, true
	return true, f.gatherTarget(ctx, s)
}

// gatherTarget finds the trunk's tenant, and the extension that takes calls to the trunk's DIDs.
func (f *Facts) gatherTarget(ctx context.Context, s Store) error {
	if f.inbound.Failover == (fstext.Extension{}) {
		return f.gatherTenant(ctx, s)
	}
	tenant, ext, err := s.TenantExtension(ctx, f.inbound.TenantID, uuid.Nil, f.inbound.Failover.Username())
	switch {
	case errors.Is(err, directory.ErrUnknownExtension):
		return f.gatherTenant(ctx, s)
	case err != nil:
		return fmt.Errorf("target of the trunk: %w", err)
	}
	f.tenant, f.callee = tenant, &ext
	return nil
}

// gatherTenant finds the tenant of a trunk whose calls no extension takes: an agent may, who hands them to people, and
// they may have to be recorded.
func (f *Facts) gatherTenant(ctx context.Context, s Store) error {
	f.tenant.ID = f.inbound.TenantID
	tenant, err := s.TrunkTenant(ctx, f.inbound.TenantID)
	switch {
	case errors.Is(err, directory.ErrUnknownTenant):
		return nil
	case err != nil:
		return fmt.Errorf("tenant of the trunk: %w", err)
	}
	f.tenant = tenant
	return nil
}

// gatherGuest looks only among the tenant's extensions: somebody from outside is never sent outside again at the
// tenant's cost. His leg goes on to occupy its trunk, which a transfer makes the switch forget (switch_limit.c,
// limit_state_handler).
func (f *Facts) gatherGuest(ctx context.Context, s Store, c Call) error {
	f.tenant.ID = f.who.tenant
	if err := f.gatherCallee(ctx, s, c, uuid.Nil); err != nil || f.callee == nil && !c.WithAgent {
		return err
	}
	if err := f.gatherTrunks(ctx, s); err != nil {
		return err
	}
	for i := range f.trunks {
		if f.trunks[i].ID.String() == c.LegTrunk {
			f.inbound = &f.trunks[i]
		}
	}
	if c.WithAgent && f.inbound != nil {
		return f.gatherStandIn(ctx, s)
	}
	return nil
}

// gatherStandIn finds who takes a call that an AI agent has handed to an extension, should that not take it.
func (f *Facts) gatherStandIn(ctx context.Context, s Store) error {
	wanted := f.callee
	f.callee = nil
	err := f.gatherTarget(ctx, s)
	f.callee, f.standIn = wanted, f.callee
	return err
}

// echoTest is the feature code of the echo test. An extension of that number comes first.
const echoTest = "9196"

// Decide routes a call from the facts about it. It is a pure function.
func Decide(c Call, f Facts) Route {
	switch f.who.origin {
	case originPhone:
		return decidePhone(c, f)
	case originCarrier:
		return decideCarrier(c, f)
	case originGuest:
		return decideGuest(c, f)
	default:
		return turnAway(c, f.stranger)
	}
}

func decidePhone(c Call, f Facts) Route {
	if f.caller == nil {
		return turnAway(c, "caller is not an extension any more")
	}
	r := Route{context: f.domain.Tenant.Slug.Text(), tenant: f.domain.Tenant, caller: f.caller, direction: cdr.Internal}
	switch {
	case !f.domain.Usable() || !f.caller.Active:
		return r.refuse(c, statusForbidden, fstext.Const("caller's extension, domain or tenant is not active"))
	case c.Context != f.domain.Tenant.Slug.String():
		// A phone's context is its tenant's. Another one means ;gw= in the request URI, or a transfer made by somebody
		// else.
		return r.refuse(c, statusForbidden, fstext.Const("phone in a context that is not its tenant's"))
	case c.Insecure:
		// FreeSWITCH would refuse it too, but only when the called phone has rung and answered.
		return r.refuse(c, statusInsecure, fstext.Const("media without encryption from a phone on TLS"))
	case f.emergency != (fstext.Dialled{}):
		return outward(c, r, f, KindEmergency)
	case f.callee != nil && f.callee.ID == f.caller.ID:
		return r.refuse(c, statusBusy, fstext.Const("extension calls itself"))
	case f.callee != nil:
		r.callerNumber, r.callerName = f.caller.Number.Text(), f.caller.Name.Text()
		return inward(c, r, f)
	case c.Destination == echoTest:
		r.Kind = KindEcho
		return r.record(c)
	case f.number != (fstext.E164{}):
		return outward(c, r, f, KindPublic)
	default:
		return r.refuse(c, statusNotFound, fstext.Const("neither an extension nor a public number"))
	}
}

func decideCarrier(c Call, f Facts) Route {
	if !f.known {
		return turnAway(c, "address is no carrier's")
	}
	r := Route{context: fstext.Const(trunk.ContextInbound), tenant: f.tenant, inbound: f.inbound, did: f.number, direction: cdr.Inbound}
	switch {
	case c.Context != trunk.ContextInbound:
		return r.refuse(c, statusForbidden, fstext.Const("carrier in a context that is not the carriers'"))
	case f.inbound == nil:
		return r.refuse(c, statusNotFound, fstext.Const("no DID of a trunk from this address"))
	case f.inbound.AIAgentRef != "":
		return decideAgent(c, r, f)
	case f.callee == nil:
		return r.refuse(c, statusNotFound, f.noTarget())
	}
	r.callerNumber, r.callerName = callerID(c)
	return inward(c, r, f)
}

// noTarget says why no extension takes the calls of the trunk.
func (f Facts) noTarget() fstext.Text {
	if f.inbound.Failover == (fstext.Extension{}) {
		return fstext.Const("trunk has no extension to take its calls")
	}
	return fstext.Const("extension that takes the trunk's calls does not exist")
}

func decideGuest(c Call, f Facts) Route {
	r := Route{context: f.tenant.Slug.Text(), tenant: f.tenant, inbound: f.inbound, direction: cdr.Inbound}
	if c.Outbound {
		r.direction = cdr.Outbound // we called him
	}
	switch {
	case f.callee == nil && f.standIn == nil:
		return r.refuse(c, statusNotFound, fstext.Const("transferred to something that is not an extension of the tenant"))
	case c.Context != f.tenant.Slug.String():
		return r.refuse(c, statusForbidden, fstext.Const("transferred into a context that is not the tenant's"))
	}
	r.callerNumber, r.callerName = callerID(c)
	if c.WithAgent {
		return handOver(c, r, f)
	}
	return inward(c, r, f)
}

// inward finishes a route to an extension.
func inward(c Call, r Route, f Facts) Route {
	r.callee = f.callee
	if !f.callee.Active {
		return r.refuse(c, statusUnavailable, fstext.Const("called extension is suspended"))
	}
	r.Kind = KindExtension
	return r.record(c)
}

// outward finishes a route to the public network. A call for help tries every trunk, whatever its load and whatever
// numbers it carries.
func outward(c Call, r Route, f Facts, kind Kind) Route {
	r.direction = cdr.Outbound
	if len(f.trunks) == 0 {
		return r.refuse(c, statusNoService, fstext.Const("tenant has no active trunk"))
	}
	r.Kind = kind
	r.attempts = make([]attempt, 0, len(f.trunks))
	for i := range f.trunks {
		t := &f.trunks[i]
		a := attempt{trunk: t, callerID: t.CallerIDNumber.Text(), withheld: t.CallerID == trunk.CallerIDWithheld && kind != KindEmergency}
		if kind == KindEmergency {
			a.number = t.Prefixed(f.emergency.Text())
		} else if a.number = t.Called(f.number); !t.Carries(f.number) {
			continue
		}
		if own := f.caller.CallerID; t.CallerID == trunk.CallerIDExtension && own != (fstext.E164{}) {
			a.callerID = own.Text()
		}
		if a.callerID == (fstext.Text{}) {
			a.callerID = fstext.Const("anonymous")
		}
		r.attempts = append(r.attempts, a)
	}
	if len(r.attempts) == 0 {
		return r.refuse(c, statusNoService, fstext.Const("no trunk of the tenant carries the number"))
	}
	return r.record(c)
}
