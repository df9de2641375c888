package aibridge

import (
	"errors"
	"net"
	"net/netip"
	"testing"
)

// An address that may not be dialled is not, also where it was not resolved here.
func TestDialsWhatIsAllowed(t *testing.T) {
	t.Parallel()
	n, err := newNetwork(func(netip.Addr) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	_, udp := n.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:9")))
	_, tcp := n.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:9")))
	_, plain := n.Dial("udp", "127.0.0.1:9")
	for what, err := range map[string]error{"DialUDP": udp, "DialTCP": tcp, "Dial": plain} {
		if !errors.Is(err, errForbiddenServer) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
