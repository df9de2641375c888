package main

import (
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/testdb"
)

// wire is what lies between xmlcurl and PostgreSQL: a TCP port before a server, which can be cut in several ways.
type wire struct {
	mu    sync.Mutex
	state wireState
	conns map[*wired]bool
}

type wireState int

const (
	passing    wireState = iota
	refusing             // connections are reset
	swallowing           // connections are accepted, and nothing goes through
	delaying             // everything takes wireDelay longer, in each direction
)

const wireDelay = 50 * time.Millisecond

// wired is a connection through a wire.
type wired struct {
	client, server net.Conn
	broken         bool // something was swallowed
}

// newWire returns a wire to the server of a connection string, and the connection string through it.
func newWire(t *testing.T, dsn string) (*wire, string) {
	t.Helper()
	w := &wire{conns: map[*wired]bool{}}
	dsn = testdb.Wire(t, dsn, w.carry)
	t.Cleanup(func() { w.set(refusing) })
	return w, dsn
}

// set changes the state, also for connections that are open.
func (w *wire) set(s wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = s
	for c := range w.conns {
		if s == refusing || s != swallowing && c.broken {
			testdb.Reset(c.client)
			_ = c.server.Close()
		}
	}
}

// carry carries one connection until either side ends.
func (w *wire) carry(client, server net.Conn) {
	w.mu.Lock()
	if w.state == refusing {
		w.mu.Unlock()
		testdb.Reset(client)
		return
	}
	c := &wired{client: client, server: server}
	w.conns[c] = true
	w.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { w.pump(c, server, client) })
	both.Go(func() { w.pump(c, client, server) })
	both.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

func (w *wire) pump(c *wired, to, from net.Conn) {
	defer func() { _ = errors.Join(to.Close(), from.Close()) }()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		w.mu.Lock()
		state := w.state
		c.broken = c.broken || state == swallowing
		w.mu.Unlock()
		if state == swallowing {
			continue
		}
		if state == delaying {
			time.Sleep(wireDelay)
		}
		if _, err := to.Write(b[:n]); err != nil {
			return
		}
	}
}
