package dialplan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/trunk"
)

// Asked is a call that somebody asks about, without making it.
type Asked struct {
	// To is what is dialled. From is who calls: number@realm for an extension, else somebody outside.
	To, From string
	// At is when.
	At time.Time
	// Trunk is the trunk that brings a call from outside; zero means that of the DID.
	Trunk uuid.UUID
	// Agents and Recordings are those of Call.
	Agents, Recordings fstext.Text
}

// Explanation is a decision with all that led to it.
type Explanation struct {
	Steps []Step
	Kind  Kind
	// Document is what FreeSWITCH would get, to the byte but for the UUID of the channel, which is made up.
	Document []byte
}

// ExplainStore is what questions are answered from. Implementations are safe for concurrent use.
type ExplainStore interface {
	Store
	trunk.Store
	BreakerStore
	EndpointStore
}

// askedChannel stands for the channel of a call that nobody makes.
var askedChannel = uuid.UUID{15: 1}

// Ask decides a call and explains it. Errors: *invalid.FieldError, the store's.
func Ask(ctx context.Context, s ExplainStore, a Asked) (Explanation, error) {
	c, err := a.call(ctx, s)
	if err != nil {
		return Explanation{}, err
	}
	f, err := Gather(ctx, s, c)
	if err != nil {
		return Explanation{}, err
	}
	r := Decide(c, f)
	steps, err := addEndpoint(ctx, s, f, Explain(c, f, r))
	if err != nil {
		return Explanation{}, err
	}
	steps, err = addBreakers(ctx, s, f, steps)
	if err != nil {
		return Explanation{}, err
	}
	doc, err := r.XML()
	return Explanation{Steps: steps, Kind: r.Kind, Document: doc}, err
}

func (a Asked) call(ctx context.Context, s ExplainStore) (Call, error) {
	c := Call{
		Channel: askedChannel.String(), At: a.At, Destination: a.To, Agents: a.Agents, Recordings: a.Recordings,
		CallerNumber: a.From, CallerName: a.From,
	}
	user, realm, isExtension := strings.Cut(a.From, "@")
	if isExtension {
		return a.fromExtension(ctx, s, c, user, realm)
	}
	source, err := a.source(ctx, s)
	if err != nil {
		return c, err
	}
	c.Context, c.Profile, c.Source = trunk.ContextInbound, directory.ProfileExternal, source
	return c, nil
}

func (Asked) fromExtension(ctx context.Context, s ExplainStore, c Call, user, realm string) (Call, error) {
	r, err1 := fstext.ParseRealm(realm)
	u, err2 := fstext.NewUsername(user)
	if err := errors.Join(err1, err2); err != nil {
		return c, invalid.Because("from", err)
	}
	domain, _, err := s.Extension(ctx, r, u)
	switch {
	case errors.Is(err, directory.ErrUnknownDomain), errors.Is(err, directory.ErrUnknownExtension):
		return c, &invalid.FieldError{Name: "from", Reason: "is not an extension, as number@realm"}
	case err != nil:
		return c, fmt.Errorf("caller: %w", err)
	}
	c.Context, c.Profile, c.Authorized, c.User, c.Realm = domain.Tenant.Slug.String(), directory.ProfileInternal, true, u.String(), r.String()
	return c, nil
}

// source returns an address that the carrier of the trunk calls from.
func (a Asked) source(ctx context.Context, s ExplainStore) (netip.Addr, error) {
	if a.Trunk == uuid.Nil {
		number, err := fstext.NewE164(a.To)
		if err != nil {
			return netip.Addr{}, &invalid.FieldError{Name: "to", Reason: "is not a DID as +390612345678; name the trunk that brings another form"}
		}
		t, err := s.InboundTrunk(ctx, number)
		if errors.Is(err, trunk.ErrUnknownDID) {
			return netip.Addr{}, &invalid.FieldError{Name: "to", Reason: "is a DID of no active trunk"}
		} else if err != nil {
			return netip.Addr{}, fmt.Errorf("did: %w", err)
		}
		return firstSource(t)
	}
	active, err := s.ActiveTrunks(ctx)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("trunks: %w", err)
	}
	for _, t := range active {
		if t.ID == a.Trunk {
			return firstSource(t)
		}
	}
	return netip.Addr{}, &invalid.FieldError{Name: "trunk", Reason: "is not an active trunk"}
}

func firstSource(t trunk.Trunk) (netip.Addr, error) {
	sources := t.SourceAddresses()
	if len(sources) == 0 {
		return netip.Addr{}, &invalid.FieldError{Name: "trunk", Reason: "has no source address that its carrier may call from: calls of the carrier are refused until its sourceAddresses are set"}
	}
	return sources[0].Addr(), nil
}

// Step is one thing that a decision went by, for people.
type Step struct {
	// Subject is what it is about: caller, tenant, number, trunk, agent, hours, callee, endpoint, breaker, route.
	Subject string
	// Text is what was found.
	Text string
}

// Explain tells how a route came about from the facts about a call, in order. It repeats what Decide looked at, and
// decides nothing itself. Numbers and names of the call are in it: it is for operators, not for logs.
func Explain(c Call, f Facts, r Route) []Step {
	var steps []Step
	add := func(subject, format string, args ...any) {
		steps = append(steps, Step{subject, fmt.Sprintf(format, args...)})
	}
	add("caller", "%s", f.explainCaller(c))
	if slug := r.tenant.Slug.String(); slug != "" {
		add("tenant", "%s, zone of its country %s", slug, r.tenant.Country)
	}
	switch {
	case f.emergency != (fstext.Dialled{}):
		add("number", "%s calls for help in %s", f.emergency, f.tenant.Country)
	case f.number != (fstext.E164{}):
		add("number", "%q is %s", c.Destination, f.number)
	}
	if f.inbound != nil {
		add("trunk", "%s (%s) brought the call", f.inbound.Name, f.inbound.ID)
		explainAgent(add, c, *f.inbound)
	}
	switch {
	case f.callee != nil:
		add("callee", "extension %s of %s, active: %t", f.callee.Number, f.callee.Realm, f.callee.Active)
	case f.inbound != nil && f.standIn == nil:
		add("callee", "%s", explainNoTarget(*f.inbound))
	}
	for i, a := range r.attempts {
		add("trunk", "attempt %d: %s (%s), number %s, caller id %s", i+1, a.trunk.Name, a.trunk.ID, a.number, a.callerID)
	}
	add("route", "%s", strings.TrimSuffix(string(r.Kind)+": "+r.explainReason(), ": "))
	return steps
}

func (r Route) explainReason() string {
	if r.Reason != "" {
		return r.Reason
	}
	return r.reason.String()
}

func (f Facts) explainCaller(c Call) string {
	switch f.who.origin {
	case originPhone:
		if f.caller == nil {
			return fmt.Sprintf("%s@%s is not an extension", f.who.user, f.who.realm)
		}
		return fmt.Sprintf("extension %s of %s, by its credentials; active: %t", f.caller.Number, f.caller.Realm, f.caller.Active)
	case originCarrier:
		return fmt.Sprintf("address %s on the carriers' profile; a carrier's: %t", c.Source, f.known)
	case originGuest:
		return "the far side of a call with a carrier, handed on by an extension"
	default:
		return "nobody: " + f.stranger
	}
}

// explainNoTarget says that nobody takes the calls of a trunk.
func explainNoTarget(t trunk.Trunk) string {
	if t.Failover == (fstext.Extension{}) {
		return "none: the trunk has no failover extension"
	}
	return fmt.Sprintf("none: failover extension %s of the trunk does not exist, or its domain is not active: whom no agent serves is let go", t.Failover)
}

func explainAgent(add func(subject, format string, args ...any), c Call, t trunk.Trunk) {
	if t.AIAgentRef == "" {
		add("agent", "none: calls go to the extension that stands in")
		return
	}
	hours := t.Hours.At(c.At)
	add("agent", "%s", t.AIAgentRef)
	add("hours", "%s is %s on the wall: %s, open: %t", c.At.UTC().Format(time.RFC3339), hours.Local.Format("2006-01-02 15:04 Mon MST"), hours.Rule, hours.Open)
	if next, ok := t.Hours.Next(c.At); ok {
		add("hours", "next change at %s", next.In(hours.Local.Location()).Format("2006-01-02 15:04 Mon MST"))
	}
}
