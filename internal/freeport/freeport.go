// Package freeport finds ports for the programs that tests start, which take no open sockets. Only tests may import it.
package freeport

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// The ports are below those that the system hands out to whoever connects (ip_local_port_range), which may take a port
// between here and the program, and below those of media, which for FreeSWITCH begin at 16384.
const first, last = 10000, 16383

var handedOut sync.Map // int to true

// New returns a port of 127.0.0.1 that is free for UDP and TCP, and that this process has not handed out before. It may
// be called by several goroutines.
func New(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := first + rand.IntN(last-first+1) //nolint:gosec // it keeps processes apart, and guards nothing
		if _, taken := handedOut.LoadOrStore(port, true); !taken && free(t, port) {
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

func free(t testing.TB, port int) bool {
	t.Helper()
	addr := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)).String() //nolint:gosec // it is one of the above
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", addr)
	if err != nil {
		return false
	}
	defer l.Close()
	u, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", addr)
	if err != nil {
		return false
	}
	return u.Close() == nil
}
