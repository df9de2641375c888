package aibridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// pair is the two sockets of a stream towards the switch.
type pair struct{ rtp, rtcp *net.UDPConn }

// portTries is how often a neighbouring port is looked for before RTCP takes any: the SDP says which (RFC 3605).
const portTries = 8

// listenPair opens the sockets of a stream, on ports that the system chooses.
func listenPair(ctx context.Context, addr netip.Addr) (pair, error) {
	for try := 1; ; try++ {
		p, err := tryPair(ctx, addr, try == portTries)
		if err == nil || try == portTries {
			return p, err
		}
	}
}

func tryPair(ctx context.Context, addr netip.Addr, anywhere bool) (pair, error) {
	rtp, err := listenUDP(ctx, netip.AddrPortFrom(addr, 0))
	if err != nil {
		return pair{}, err
	}
	next := rtp.LocalAddr().(*net.UDPAddr).AddrPort().Port() + 1
	if anywhere {
		next = 0
	} else if next%2 == 0 {
		_ = rtp.Close() // nothing was sent
		return pair{}, errOdd
	}
	rtcp, err := listenUDP(ctx, netip.AddrPortFrom(addr, next))
	if err != nil {
		_ = rtp.Close() // nothing was sent
		return pair{}, err
	}
	return pair{rtp, rtcp}, nil
}

// errOdd means that RTP would have an odd port (RFC 3550, 11).
var errOdd = errors.New("odd port")

func listenUDP(ctx context.Context, at netip.AddrPort) (*net.UDPConn, error) {
	c, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return nil, fmt.Errorf("media socket: %w", err)
	}
	return c.(*net.UDPConn), nil
}

func (p pair) close() {
	_ = p.rtp.Close() // a datagram is not lost by closing
	_ = p.rtcp.Close()
}

// ports returns the two port numbers.
func (p pair) ports() (rtp, rtcp uint16) {
	return p.rtp.LocalAddr().(*net.UDPAddr).AddrPort().Port(), p.rtcp.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}
