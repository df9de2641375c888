// Package dialplan decides where a call goes. Gather collects the facts about a call from a Store, Decide turns them
// into a Route without looking at anything else, and Route.XML is what FreeSWITCH executes: one context, one extension,
// no conditions.
//
// Who calls is told by what the switch itself established: digest credentials, or for a carrier the address its packets
// came from. Caller id, context and gateway name are the caller's own words and prove nothing.
package dialplan

import (
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// Call is a channel that asks for its route. Its texts are as FreeSWITCH sent them: hostile until parsed.
type Call struct {
	// Channel is the UUID of the channel, At when it asks.
	Channel string
	At      time.Time
	// Context is what FreeSWITCH will look for in the answer.
	Context string
	// Destination is what was dialled.
	Destination string
	// Profile is the SIP profile the channel belongs to.
	Profile string
	// Source is the address its packets come from; the zero value if unknown.
	Source netip.Addr
	// Authorized is true if the channel presented valid digest credentials, of User at Realm.
	Authorized  bool
	User, Realm string
	// Insecure is true if the channel signals over TLS and offers media without encryption.
	Insecure bool
	// CallerNumber and CallerName are what the caller says of himself.
	CallerNumber, CallerName string
	// Outbound is true for a leg that the switch placed itself.
	Outbound bool
	// Transferred is true once a transfer brought the channel here.
	Transferred bool
	// LegUser and LegRealm are set on a leg that we placed to a phone: the extension's number and realm.
	LegUser, LegRealm string
	// LegTenant is set on every leg of a call that we routed before, LegTrunk on one to or from a carrier.
	LegTenant, LegTrunk string
	// LegRecording is set on every leg of a call that is recorded already: its file.
	LegRecording string
	// WithAgent is set on the leg of a caller for as long as he is with an AI agent.
	WithAgent bool
	// Agents is where ai-bridge takes calls for AI agents, as host:port; empty if there is none.
	Agents fstext.Text
	// Recordings is the directory for recordings on the switch that asks; empty if it has none.
	Recordings fstext.Text
}

// origin is who a call comes from.
type origin int

const (
	_ origin = iota // a stranger
	// originPhone is an extension, by its credentials or by being the phone we called.
	originPhone
	// originCarrier is somebody on the carriers' profile; the address must still be a carrier's.
	originCarrier
	// originGuest is the far side of a call with a carrier, sent on by an extension that it was talking to.
	originGuest
)

// identity is a call's origin with what names it.
type identity struct {
	origin origin
	user   fstext.Username
	realm  fstext.Realm
	tenant uuid.UUID
}

// identify tells who a call comes from. The reason is set for a stranger.
func identify(c Call) (identity, string) {
	user, realm := c.User, c.Realm
	switch {
	case c.Authorized && c.Profile == directory.ProfileInternal:
	case c.Authorized:
		return identity{}, "credentials on a profile that has none"
	case c.Outbound && c.Transferred && c.LegUser != "":
		user, realm = c.LegUser, c.LegRealm
	case c.Transferred && c.LegTenant != "" && c.Profile == directory.ProfileExternal:
		tenant, err := uuid.Parse(c.LegTenant)
		if err != nil {
			return identity{}, "leg without a tenant"
		}
		return identity{origin: originGuest, tenant: tenant}, ""
	case c.Profile == directory.ProfileExternal:
		return identity{origin: originCarrier}, ""
	default:
		return identity{}, "no credentials"
	}
	u, err := fstext.NewUsername(user)
	if err != nil {
		return identity{}, "credentials without a user"
	}
	r, err := fstext.ParseRealm(realm)
	if err != nil {
		return identity{}, "credentials without a realm"
	}
	return identity{origin: originPhone, user: u, realm: r}, ""
}

// publicDigits is the least that a public number has; shorter ones look like a colleague.
const publicDigits = 7

// callerID is what we let others see of a caller who is not ours: a plain public number and a name, or nothing.
func callerID(c Call) (number, name fstext.Text) {
	d, err := fstext.NewDialled(strings.TrimPrefix(c.CallerNumber, "tel:"))
	if err != nil || len(strings.TrimPrefix(d.String(), "+")) < publicDigits {
		return fstext.Const("anonymous"), fstext.Const("anonymous")
	}
	if n, err := fstext.NewDisplayName(c.CallerName); err == nil {
		return d.Text(), n.Text()
	}
	return d.Text(), d.Text()
}
