// Package trunk knows the carriers: where they are, what numbers they bring, how many calls they carry, and how all
// that is told to FreeSWITCH as gateways and address lists.
package trunk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/schedule"
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
	// Hours are when the agent answers.
	Hours schedule.Hours
	// Proxy is where requests are sent in the place of the host: a host or host:port as a SIP URI writes it; may be
	// empty.
	Proxy fstext.Text
	// NumberFormat is how the carrier wants called numbers, and TechPrefix what stands before each; may be empty.
	NumberFormat NumberFormat
	TechPrefix   fstext.Text
	// Prefixes are the beginnings of the E.164 numbers that the trunk carries, without the plus sign, in order; none
	// means all numbers.
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

// VarRevision is the variable of a gateway that holds its Revision, so that a switch can be asked which one it has.
const VarRevision = "edgvoip_revision"

// WriteGateway writes the trunk as a gateway of a sofia profile (sofia.c, parse_gateways). An error means that its
// password does not open.
func (t Trunk) WriteGateway(doc *fsxml.Document, keys *secret.KeyRing) error {
	password, err := t.revealPassword(keys)
	if err != nil {
		return fmt.Errorf("password of trunk %s: %w", t.ID, err)
	}
	doc.Open("gateway", fsxml.A("name", t.Gateway()))
	doc.Param("proxy", fstext.Join(t.Host.Text(), fstext.Const(":"), fstext.Int(t.Port)))
	doc.Param("realm", t.Host.Text())
	doc.Param("from-domain", t.Host.Text())
	if t.Proxy != (fstext.Text{}) {
		// "proxy" above is the host of request URIs; these are where requests go, calls by the one, REGISTER and
		// OPTIONS by the other.
		doc.Param("outbound-proxy", t.nextHop())
		doc.Param("register-proxy", t.nextHop())
	}
	doc.Param("register-transport", t.Protocol.text())
	doc.Param("register", fstext.Bool(t.Register))
	if t.Username != (fstext.Credential{}) {
		doc.Param("username", t.Username.Reveal())
		doc.Param("password", password)
	}
	if t.PingSeconds > 0 {
		doc.Param("ping", fstext.Int(t.PingSeconds))
	}
	doc.Param("caller-id-in-from", fstext.Bool(true))
	// Any caller can send himself here with ;gw=name (sofia.c, sofia_handle_sip_i_invite), so the context grants
	// nothing.
	doc.Param("context", fstext.Const(ContextInbound))
	doc.Open("variables")
	doc.Leaf("variable", fsxml.A("name", fstext.Const(VarRevision)), fsxml.A("value", fstext.Int(int(t.Revision))),
		fsxml.A("direction", fstext.Const("outbound")))
	doc.Close()
	doc.Close()
	return nil
}

// nextHop returns the proxy as a SIP URI without its scheme. One that has parameters has a port too: FreeSWITCH takes
// what stands before the last colon for the host, from which alone it lets itself be challenged (sofia_reg.c,
// is_host_from_gateway).
func (t Trunk) nextHop() fstext.Text {
	if t.Protocol == ProtocolUDP {
		return t.Proxy
	}
	port := fstext.Text{}
	if _, _, err := net.SplitHostPort(t.Proxy.String()); err != nil {
		if port = fstext.Const(":5060"); t.Protocol == ProtocolTLS {
			port = fstext.Const(":5061")
		}
	}
	return fstext.Join(t.Proxy, port, fstext.Const(";transport="), t.Protocol.text())
}

// revealPassword opens the password; without a username there is none.
func (t Trunk) revealPassword(keys *secret.KeyRing) (fstext.Text, error) {
	if t.Username == (fstext.Credential{}) {
		return fstext.Text{}, nil
	}
	plain, err := keys.Open(t.Password, PasswordOwner(t.TenantID, t.ID))
	if err != nil {
		return fstext.Text{}, err
	}
	c, err := fstext.NewCredential(string(plain))
	return c.Reveal(), err
}
