package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Without a setting a switch is listened to from every address of this machine, as its profiles are bound to any of
// them, and from no other.
func TestPeersAreThisMachine(t *testing.T) {
	t.Parallel()
	s, err := readSettings(environment(t))
	if err != nil {
		t.Fatal(err)
	}
	peers, err := s.peers()
	if err != nil {
		t.Fatal(err)
	}
	has := func(a netip.Addr) bool {
		for _, p := range peers {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p := netip.MustParsePrefix(a.String()); !has(p.Addr().Unmap()) {
			t.Errorf("%v is not listened to", p.Addr())
		}
	}
	for _, a := range []string{"127.0.0.1", "127.9.9.9", "::1"} {
		if !has(netip.MustParseAddr(a)) {
			t.Errorf("%s is not listened to", a)
		}
	}
	if stranger := netip.MustParseAddr("192.0.2.1"); has(stranger) {
		t.Errorf("%v is listened to", stranger)
	}
}

// systemd gives running calls the time that they have by the settings.
func TestTheUnitWaitsForCalls(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile(filepath.Join("..", "..", "freeswitch-conf", "edgvoip-ai-bridge.service"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(unit), "\nTimeoutStopSec=")
	text, _, _ = strings.Cut(text, "\n")
	seconds, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := readSettings(environment(t))
	if err != nil {
		t.Fatal(err)
	}
	// What is left then is told so, and closed.
	const rest = 10 * time.Second
	if wait := time.Duration(seconds) * time.Second; wait < s.DrainTimeout+rest {
		t.Errorf("the unit waits for %v, calls may go on for %v", wait, s.DrainTimeout)
	}
}
