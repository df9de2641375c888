package aibridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pion/transport/v4"
	"github.com/pion/transport/v4/stdnet"
)

// serverTimeout is how long the name of a STUN or TURN server may take to be resolved, and a TURN server to take a
// connection. Who gathers candidates gives no bound of his own.
const serverTimeout = 2 * time.Second

// network is what one peer's ICE sees of the network. A name that a gateway gives for a STUN or TURN server leads only
// to addresses that may be dialled, looked at after it was resolved, so that one that leads elsewhere the next time
// gains nothing. It is safe for concurrent use.
type network struct {
	*stdnet.Net
	allow func(netip.Addr) bool

	mu      sync.Mutex
	aborted bool
	servers []io.Closer // what is open towards servers
}

func newNetwork(allow func(netip.Addr) bool) (*network, error) {
	n, err := stdnet.NewNet()
	if err != nil {
		return nil, fmt.Errorf("network interfaces: %w", err)
	}
	return &network{Net: n, allow: allow}, nil
}

// Errors of a network.
var (
	errForbiddenServer = errors.New("an address of a STUN or TURN server that may not be dialled")
	errAborted         = errors.New("the call is over")
)

// resolve returns the first address of a host that may be dialled. family is ip, ip4 or ip6.
func (n *network) resolve(family, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address of a server: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), serverTimeout)
	defer cancel()
	port, err := net.DefaultResolver.LookupPort(ctx, "udp", service)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port of a server: %w", err)
	}
	list, err := net.DefaultResolver.LookupNetIP(ctx, family, host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("name of a server: %w", err)
	}
	for _, a := range list {
		if n.allow(a.Unmap()) {
			return netip.AddrPortFrom(a.Unmap(), uint16(port)), nil //nolint:gosec // a port
		}
	}
	return netip.AddrPort{}, errForbiddenServer
}

// family returns the family of addresses of a network such as udp4.
func family(network string) string {
	switch network {
	case "udp4", "tcp4":
		return "ip4"
	case "udp6", "tcp6":
		return "ip6"
	default:
		return "ip"
	}
}

// ResolveUDPAddr implements transport.Net.
func (n *network) ResolveUDPAddr(network, address string) (*net.UDPAddr, error) {
	a, err := n.resolve(family(network), address)
	if err != nil {
		return nil, err
	}
	return net.UDPAddrFromAddrPort(a), nil
}

// ResolveTCPAddr implements transport.Net.
func (n *network) ResolveTCPAddr(network, address string) (*net.TCPAddr, error) {
	a, err := n.resolve(family(network), address)
	if err != nil {
		return nil, err
	}
	return net.TCPAddrFromAddrPort(a), nil
}

// ListenPacket implements transport.Net. It is how TURN over UDP begins.
func (n *network) ListenPacket(network, address string) (net.PacketConn, error) {
	c, err := n.Net.ListenPacket(network, address)
	if err != nil {
		return nil, fmt.Errorf("TURN: %w", err)
	}
	return c, n.keep(c)
}

// DialUDP implements transport.Net. It is how TURN over DTLS begins.
func (n *network) DialUDP(network string, local, remote *net.UDPAddr) (transport.UDPConn, error) {
	if err := n.allowed(remote.AddrPort()); err != nil {
		return nil, err
	}
	c, err := n.Net.DialUDP(network, local, remote)
	if err != nil {
		return nil, fmt.Errorf("TURN: %w", err)
	}
	return c, n.keep(c)
}

// DialTCP implements transport.Net. It is how TURN over TCP and TLS begins.
func (n *network) DialTCP(network string, local, remote *net.TCPAddr) (transport.TCPConn, error) {
	if err := n.allowed(remote.AddrPort()); err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: serverTimeout}
	if local != nil {
		d.LocalAddr = local
	}
	c, err := d.Dial(network, remote.String())
	if err != nil {
		return nil, fmt.Errorf("TURN: %w", err)
	}
	return c.(*net.TCPConn), n.keep(c)
}

// Dial implements transport.Net.
func (n *network) Dial(network, address string) (net.Conn, error) {
	a, err := n.resolve(family(network), address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: serverTimeout}
	c, err := d.Dial(network, a.String())
	if err != nil {
		return nil, fmt.Errorf("TURN: %w", err)
	}
	return c, n.keep(c)
}

// allowed looks at an address once more before it is dialled, wherever it comes from.
func (n *network) allowed(a netip.AddrPort) error {
	if !n.allow(a.Addr().Unmap()) {
		return errForbiddenServer
	}
	return nil
}

// keep remembers what is open towards a server, or closes it if it comes too late.
func (n *network) keep(c io.Closer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.aborted {
		return errors.Join(errAborted, c.Close())
	}
	n.servers = append(n.servers, c)
	return nil
}

// abort closes what is open towards servers, so that nobody waits for one that does not answer.
func (n *network) abort() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.aborted = true
	for _, c := range n.servers {
		_ = c.Close() // whoever used it may have closed it
	}
	n.servers = nil
}

var _ transport.Net = (*network)(nil)
