// Package trunk knows the carriers: where they are, what numbers they bring, how many calls they carry, and how all that is
// told to FreeSWITCH as gateways and address lists.
package trunk

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// ErrUnknownDID is what a store answers for a number that is in no trunk's ranges.
var ErrUnknownDID = errors.New("number belongs to no trunk")

// Trunk is a carrier's access for one tenant.
type Trunk struct {
	ID       uuid.UUID
	TenantID uuid.UUID
	Name     fstext.DisplayName
	Host     fstext.Host
	Port     int
	Protocol Protocol
	// MaxChannels bounds calls at the same time, both directions together; 0 means no bound.
	MaxChannels int
	Priority    int
	// Sources are the addresses that the carrier calls from; see SourceAddresses.
	Sources []netip.Prefix
	// Register tells whether we register at the carrier. Username and the sealed password are then set; they may be set
	// without it too, for a carrier that challenges calls.
	Register bool
	Username fstext.Credential
	Password secret.Sealed
	CallerID CallerIDPolicy
	// CallerIDNumber is the number the carrier lets us show; may be empty.
	CallerIDNumber fstext.E164
	// Failover is the extension that takes a call to one of the trunk's DIDs when no AI agent does; may be empty.
	Failover fstext.Extension
	// AIAgentRef names W3's agent that answers calls to the trunk's DIDs; empty if none does.
	AIAgentRef string
	// Proxy is where requests are sent in the place of the host: a host or host:port as a SIP URI writes it; may be empty.
	Proxy fstext.Text
	// NumberFormat is how the carrier wants called numbers, and TechPrefix what stands before each; may be empty.
	NumberFormat NumberFormat
	TechPrefix   fstext.Text
	// Prefixes are the beginnings of the E.164 numbers that the trunk carries, without the plus sign, in order; none means all
	// numbers.
	Prefixes []string
	// Codecs are what calls of the trunk offer; empty means what the switch offers.
	Codecs fstext.Codecs
	// PingSeconds is how often the carrier is asked whether it is there, with OPTIONS; 0 means never.
	PingSeconds int
	// Revision counts the changes of what FreeSWITCH reads as the gateway. The database counts.
	Revision int64
}

// Protocol is the transport of SIP to the carrier.
type Protocol string

// The protocols.
const (
	ProtocolUDP Protocol = "udp"
	ProtocolTCP Protocol = "tcp"
	ProtocolTLS Protocol = "tls"
)

// ParseProtocol accepts the names above.
func ParseProtocol(s string) (Protocol, error) {
	switch p := Protocol(s); p {
	case ProtocolUDP, ProtocolTCP, ProtocolTLS:
		return p, nil
	default:
		return "", errors.New("protocol is one of udp, tcp, tls")
	}
}

func (p Protocol) text() fstext.Text {
	switch p {
	case ProtocolTCP:
		return fstext.Const("tcp")
	case ProtocolTLS:
		return fstext.Const("tls")
	default:
		return fstext.Const("udp")
	}
}

// CallerIDPolicy says whose number a call out of the trunk shows.
type CallerIDPolicy string

// The policies.
const (
	CallerIDTrunk     CallerIDPolicy = "trunk"     // the trunk's number, for everyone
	CallerIDExtension CallerIDPolicy = "extension" // the extension's own, where it has one
	CallerIDWithheld  CallerIDPolicy = "withheld"  // the trunk's number for the carrier, hidden from the called party
)

// ParseCallerIDPolicy accepts the names above.
func ParseCallerIDPolicy(s string) (CallerIDPolicy, error) {
	switch p := CallerIDPolicy(s); p {
	case CallerIDTrunk, CallerIDExtension, CallerIDWithheld:
		return p, nil
	default:
		return "", errors.New("caller id policy is one of trunk, extension, withheld")
	}
}

// Gateway is the name of the trunk's gateway in FreeSWITCH. Names are global to a switch, so it is the id.
func (t Trunk) Gateway() fstext.Text { return fstext.ID(t.ID) }

// PasswordOwner is the associated data under which the trunk's password is sealed.
func PasswordOwner(tenant, trunk uuid.UUID) string {
	return "trunk|" + tenant.String() + "|" + trunk.String()
}

// SourceAddresses returns where the carrier may call from: the addresses given, else the host if it is an address, else
// none.
func (t Trunk) SourceAddresses() []netip.Prefix {
	if len(t.Sources) > 0 {
		return t.Sources
	}
	if a, ok := t.Host.Addr(); ok {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	return nil
}

// CallsFrom tells whether the carrier may call from an address.
func (t Trunk) CallsFrom(a netip.Addr) bool {
	a = a.Unmap()
	return slices.ContainsFunc(t.SourceAddresses(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// Store is what the switch's configuration is read from. Implementations are safe for concurrent use.
type Store interface {
	// ActiveTrunks returns all active trunks of all active tenants, in order of tenant, priority and id.
	ActiveTrunks(ctx context.Context) ([]Trunk, error)
}

// ContextInbound is the dialplan context of calls from carriers.
const ContextInbound = "public"

// WriteGateway writes the trunk as a gateway of a sofia profile (sofia.c, parse_gateways). An error means that its
// password does not open.
func (t Trunk) WriteGateway(doc *fsxml.Document, keys *secret.KeyRing) error {
	var password fstext.Text
	if t.Register {
		plain, err := keys.Open(t.Password, PasswordOwner(t.TenantID, t.ID))
		if err != nil {
			return fmt.Errorf("password of trunk %s: %w", t.ID, err)
		}
		c, err := fstext.NewCredential(string(plain))
		if err != nil {
			return fmt.Errorf("password of trunk %s: %w", t.ID, err)
		}
		password = c.Reveal()
	}
	proxy := fstext.Join(t.Host.Text(), fstext.Const(":"), fstext.Int(t.Port))
	doc.Open("gateway", fsxml.A("name", t.Gateway()))
	doc.Param("proxy", proxy)
	doc.Param("realm", t.Host.Text())
	doc.Param("from-domain", t.Host.Text())
	doc.Param("register-transport", t.Protocol.text())
	doc.Param("register", fstext.Bool(t.Register))
	if t.Register {
		doc.Param("username", t.Username.Reveal())
		doc.Param("password", password)
	}
	doc.Param("caller-id-in-from", fstext.Bool(true))
	// Any caller can send himself here with ;gw=name (sofia.c, sofia_handle_sip_i_invite), so the context grants nothing.
	doc.Param("context", fstext.Const(ContextInbound))
	doc.Close()
	return nil
}
