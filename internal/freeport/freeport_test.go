package freeport

import (
	"net"
	"strconv"
	"testing"
)

// No port is handed out twice, and each is below the system's own.
func TestNew(t *testing.T) {
	t.Parallel()
	seen := map[int]bool{}
	for range 200 {
		port := New(t)
		if seen[port] || port < first || port > last {
			t.Fatalf("port %d, again: %v", port, seen[port])
		}
		seen[port] = true
	}
}

// A port that is held, whether for TCP or for UDP, is not free.
func TestFree(t *testing.T) {
	t.Parallel()
	port := New(t)
	if !free(t, port) {
		t.Errorf("port %d was handed out and is not free", port)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	if free(t, port) {
		t.Error("a port that is held for TCP counts as free")
	}
	l.Close()
	u, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	if free(t, port) {
		t.Error("a port that is held for UDP counts as free")
	}
}
