// Package directory knows who may use the switch: tenants, SIP domains, extensions and their credentials. It answers
// FreeSWITCH's directory lookups (Directory) and provisions extensions (Provisioner).
//
// It fails closed: whatever is unknown, disabled, inconsistent or asked for by somebody who may not, is a document
// without the user, which FreeSWITCH takes as a refusal.
package directory

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
)

// What a Store answers when there is nothing to return. Every other error means that the store could not tell.
var (
	ErrUnknownDomain    = errors.New("unknown SIP domain")
	ErrUnknownExtension = errors.New("unknown extension")
)

// Tenant is a customer and what of it a lookup needs.
type Tenant struct {
	ID      uuid.UUID
	Slug    fstext.Slug // also its dialplan context
	Name    fstext.DisplayName
	Country numbering.Country
	Active  bool
	// RecordCalls says which of its calls are recorded.
	RecordCalls RecordPolicy
}

// Domain is a SIP domain of a tenant.
type Domain struct {
	ID     uuid.UUID
	Realm  fstext.Realm
	Tenant Tenant
	// Active is false when the domain itself is disabled; see Usable.
	Active bool
}

// Usable tells whether anybody of this domain may register or call.
func (d Domain) Usable() bool { return d.Active && d.Tenant.Active }

// Extension is a number inside a tenant and the SIP account behind it.
type Extension struct {
	ID       uuid.UUID
	TenantID uuid.UUID
	DomainID uuid.UUID
	Realm    fstext.Realm
	Number   fstext.Extension
	// Username is what the phone logs in with; it may differ from the number.
	Username  fstext.Username
	Name      fstext.DisplayName
	Transport Transport
	Codecs    fstext.Codecs
	// MaxCalls bounds calls at the same time, made and received; 0 means no bound.
	MaxCalls int
	// CallerID is shown to the public network where a trunk's policy says so; may be empty.
	CallerID fstext.E164
	// Active is false for a suspended extension.
	Active bool
	// The digest A1s, sealed; see CredentialOwner.
	HA1MD5, HA1SHA256 secret.Sealed
}

// HashAlgorithm is a digest algorithm whose A1 we keep (RFC 8760).
type HashAlgorithm string

// The algorithms.
const (
	MD5    HashAlgorithm = "MD5"
	SHA256 HashAlgorithm = "SHA-256"
)

// CredentialOwner is the associated data under which an extension's A1 is sealed: a sealed A1 copied to another row, or
// read as another algorithm's, does not open.
func CredentialOwner(tenant uuid.UUID, username fstext.Username, realm fstext.Realm, alg HashAlgorithm) string {
	return "ha1|" + tenant.String() + "|" + username.String() + "|" + realm.String() + "|" + string(alg)
}

// Transport is how an extension's phone must reach the switch.
type Transport string

// The transports. TransportAny leaves the choice to the phone.
const (
	TransportAny Transport = "any"
	TransportUDP Transport = "udp"
	TransportTCP Transport = "tcp"
	TransportTLS Transport = "tls"
	TransportWSS Transport = "wss"
)

// ParseTransport accepts the names above.
func ParseTransport(s string) (Transport, error) {
	switch t := Transport(s); t {
	case TransportAny, TransportUDP, TransportTCP, TransportTLS, TransportWSS:
		return t, nil
	default:
		return "", errors.New("transport is one of any, udp, tcp, tls, wss")
	}
}

func (t Transport) text() fstext.Text {
	switch t {
	case TransportTCP:
		return fstext.Const("tcp")
	case TransportTLS:
		return fstext.Const("tls")
	case TransportWSS:
		return fstext.Const("wss")
	default:
		return fstext.Const("udp")
	}
}

// Device is the kind of device a registration came from, told by its transport. Registrations are stored one per
// extension and device kind: a desk phone, a desk phone over TLS and a browser ring together, and each can be asked for
// the media security its signalling promises (docs/decisions/0005-registrations-by-device.md).
type Device int

// The kinds of device.
const (
	DevicePlain   Device = iota // UDP or TCP
	DeviceTLS                   // SIP over TLS; media by SDES-SRTP, always
	DeviceBrowser               // SIP over (secure) WebSocket; media by DTLS-SRTP, always
)

// usedTransport reads the transport of a request as FreeSWITCH names it (sofia_glue.c, sofia_glue_transport2str). An
// unknown name gives false.
func usedTransport(viaProtocol string) (Transport, bool) {
	switch viaProtocol {
	case "udp":
		return TransportUDP, true
	case "tcp":
		return TransportTCP, true
	case "tls":
		return TransportTLS, true
	case "wss", "ws":
		// The profile has no plain WebSocket binding, and FreeSWITCH calls a secure one by either name.
		return TransportWSS, true
	default:
		return "", false
	}
}

// device is the kind of device that uses the transport.
func (t Transport) device() Device {
	switch t {
	case TransportTLS:
		return DeviceTLS
	case TransportWSS:
		return DeviceBrowser
	default:
		return DevicePlain
	}
}

// allows tells whether a phone of this transport may come over the other.
func (t Transport) allows(used Transport) bool { return t == TransportAny || t == used }

// StoredUser is the user part under which the switch keeps the registration of a device of this kind. The tilde is no
// part of any username, so the stored names of two extensions never meet.
func (e Extension) StoredUser(d Device) fstext.Text { return fstext.Join(e.Number.Text(), d.suffix()) }

// suffix marks the stored user of a device of this kind.
func (d Device) suffix() fstext.Text {
	switch d {
	case DeviceTLS:
		return fstext.Const("~tls")
	case DeviceBrowser:
		return fstext.Const("~wss")
	default:
		return fstext.Text{}
	}
}

// DialString returns the legs that ring every device of the extension, as mod_dptools' bridge and the user/ endpoint
// take them. context is the tenant's, where a leg goes that is transferred.
//
// It names registrations (user%realm) and lets mod_sofia find the contact, rather than pasting contacts in with
// ${sofia_contact()}: a contact is what a phone wrote, and a comma in it would add a leg.
func (e Extension) DialString(context fstext.Slug) fstext.Text {
	// Joined once: it is the longest text of an answer.
	parts := make([]fstext.Text, 0, 48)
	parts = e.appendLegVariables(parts, context)
	separator := fstext.Text{}
	add := func(options fstext.Text, d Device) {
		parts = append(parts, separator, options, fstext.Const("sofia/"+ProfileInternal+"/"), e.Number.Text(), d.suffix(), fstext.Const("%"), e.Realm.Text())
		separator = fstext.Const(",")
	}
	if e.Transport == TransportAny || e.Transport == TransportUDP || e.Transport == TransportTCP {
		add(fstext.Text{}, DevicePlain)
	}
	if e.Transport == TransportAny || e.Transport == TransportTLS {
		add(fstext.Const("[rtp_secure_media_outbound=mandatory]"), DeviceTLS)
	}
	if e.Transport == TransportAny || e.Transport == TransportWSS {
		add(fstext.Text{}, DeviceBrowser) // mod_sofia turns to DTLS-SRTP by itself for a WebSocket contact
	}
	return fstext.Join(parts...)
}

// Legs is the number of legs in the dial string.
func (e Extension) Legs() int {
	if e.Transport == TransportAny {
		return 3
	}
	return 1
}

// appendLegVariables appends what is set on each leg to the extension: what it may speak, how presence names it, and
// who it is, so that it can be told when it transfers the call.
func (e Extension) appendLegVariables(parts []fstext.Text, context fstext.Slug) []fstext.Text {
	return append(
		parts,
		// ^^; makes the semicolon the separator, as the codec list has commas.
		fstext.Const("{^^;"+LegVariables+";absolute_codec_string="), e.Codecs.Text(),
		fstext.Const(";presence_id="), e.Number.Text(), fstext.Const("@"), e.Realm.Text(),
		fstext.Const(";force_transfer_context="), context.Text(),
		fstext.Const(";"+VarLegUser+"="), e.Number.Text(),
		fstext.Const(";"+VarLegRealm+"="), e.Realm.Text(),
		fstext.Const(";"+VarExtensionID+"="), fstext.ID(e.ID),
		fstext.Const(";"+VarTenantID+"="), fstext.ID(e.TenantID),
		fstext.Const("}"),
	)
}

// The names of the SIP profiles.
const (
	ProfileInternal = "internal" // phones
	ProfileExternal = "external" // carriers
)

// Channel variables that we set and read back, in lookups and in call records (docs/freeswitch.md, "What a call record
// carries"). FreeSWITCH lets no SIP message set a variable of such a name, as long as docs/decisions/0020 is kept.
const (
	VarTenantID    = "edgvoip_tenant_id"
	VarExtensionID = "edgvoip_extension_id"
	VarTrunkID     = "edgvoip_trunk_id"  // on a leg to or from a carrier: its trunk
	VarLegUser     = "edgvoip_leg_user"  // on a leg to a phone: the extension's number
	VarLegRealm    = "edgvoip_leg_realm" // on a leg to a phone: its realm
	VarRecording   = "edgvoip_recording" // on every leg of a call that is recorded: the file, without its directory
	VarDirection   = "edgvoip_direction" // on every leg of a call that we routed
	VarRoute       = "edgvoip_route"     // on a leg that we routed: the kind of the route
	VarReason      = "edgvoip_reason"    // on a leg that we routed: why so, if there is something to say
	VarCallerID    = "edgvoip_caller_id" // on a leg that we routed: the extension that calls
	VarCalleeID    = "edgvoip_callee_id" // on a leg that we routed: the extension that is called
	VarDID         = "edgvoip_did"       // on a leg from a carrier: the number that it called
	VarAgent       = "edgvoip_agent"     // on a leg from a carrier that was routed to an AI agent
)

// LegVariables are set on every leg that we place, to phones and to carriers. A redirect (3xx) would make the switch
// call whomever the called party names, in the name of the caller; and a leg without media for so many milliseconds, or
// on hold for so many, is over.
const LegVariables = "outbound_redirect_fatal=true;" + MediaTimeout + ";" + MediaHoldTimeout

// MediaTimeout and MediaHoldTimeout are the channel variables that end a leg without media, in milliseconds.
const (
	MediaTimeout     = "media_timeout=300000"
	MediaHoldTimeout = "media_hold_timeout=1800000"
)

// Store is what Directory reads from. Implementations are safe for concurrent use. Rows of deleted tenants, domains and
// extensions do not exist for it; suspended and disabled ones do.
type Store interface {
	// Domain returns a domain. Error: ErrUnknownDomain.
	Domain(ctx context.Context, realm fstext.Realm) (Domain, error)
	// Extension returns the extension that answers to a name, its number or its SIP username in any letter case, and
	// its domain. Errors: ErrUnknownDomain; ErrUnknownExtension, with the domain filled in.
	Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (Domain, Extension, error)
	// Extensions returns up to limit active extensions of a domain, in order of number. Error: ErrUnknownDomain.
	Extensions(ctx context.Context, realm fstext.Realm, limit int) (Domain, []Extension, error)
}
