package aibridge

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/emiago/sipgo/sip"
	"golang.org/x/time/rate"
)

// peers are the networks of switches. SIP is taken from them and sent to them, and so is media.
type peers []netip.Prefix

// has tells whether an address is one of a switch.
func (p peers) has(a netip.Addr) bool {
	for _, network := range p {
		if network.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}

// at tells whether an address and port, as text, is one of a switch.
func (p peers) at(address string) bool {
	a, err := netip.ParseAddrPort(address)
	return err == nil && p.has(a.Addr())
}

// inviteRate is how many INVITEs are taken over UDP in a second, and at once. What is dropped is sent again. Over UDP
// each that is refused is remembered for half a minute, for its repetitions (RFC 3261, 17.2.1), so that a flood would
// take all memory; over TCP, by which the dialplan calls, nothing is.
const inviteRate = 100

// filter returns what drops messages that do not come from a switch, before anybody reads them, and floods.
func (p peers) filter() sip.TransportReadFilter {
	invites := rate.NewLimiter(inviteRate, inviteRate)
	return func(from sip.TransportReadProps, data []byte) ([]byte, error) {
		switch {
		case !p.at(from.RemoteAddr.String()):
			return nil, nil
		case !sip.IsReliable(from.Transport) && bytes.HasPrefix(data, []byte("INVITE ")) && !invites.Allow():
			return nil, nil
		}
		return data, nil
	}
}

// How long a switch may take to accept a connection of ours, and to read what is written to it.
const (
	dialTimeout  = time.Second
	writeTimeout = 2 * time.Second
)

// tcp returns the transport for connections with switches. Ours go to no other address, whatever a Contact says or is
// resolved to.
func (p peers) tcp() *sip.TransportTCP {
	return &sip.TransportTCP{WriteTimeout: writeTimeout, DialerCreate: func(local net.Addr) net.Dialer {
		return net.Dialer{Timeout: dialTimeout, LocalAddr: local, Control: func(_, address string, _ syscall.RawConn) error {
			if !p.at(address) {
				return errStranger
			}
			return nil
		}}
	}}
}

var errStranger = errors.New("the address is not a switch's (AI_BRIDGE_PEERS)")

// listener takes connections of switches, and hangs up on everybody else.
type listener struct {
	net.Listener
	peers peers
}

// acceptPause is how long is waited after a connection could not be taken: there are as many files open as may be,
// which those who have them will close.
const acceptPause = 50 * time.Millisecond

// Accept waits for the connection of a switch. It fails only when the listener is closed: a server that gave up because
// of anything else would end all calls.
func (l listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			time.Sleep(acceptPause)
		case l.peers.at(conn.RemoteAddr().String()):
			return conn, nil
		default:
			_ = conn.Close() // nothing was said
		}
	}
}
