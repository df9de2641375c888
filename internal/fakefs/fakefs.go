// Package fakefs plays the event socket of a FreeSWITCH for tests: it logs clients in, answers commands from a script,
// sends events, and fails in the ways in which switches and networks do. Only tests may import it.
package fakefs

import (
	"bufio"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Password is the one that clients log in with.
const Password = "fake-password"

// Welcome is how the server receives a connection.
type Welcome int

// The welcomes. The first is that of a switch that works.
const (
	Normal     Welcome = iota
	Mute               // accepts, and says nothing
	Rude               // turns the client away, as an access list does
	Stranger           // is no event socket
	HangUp             // closes at once
	Refuse             // refuses every password
	MuteLogin          // greets, and does not reply to the password
	LeaveLogin         // greets, and closes when the password comes
	Brief              // logs the client in and closes
)

// Fault is a way in which a connection fails.
type Fault int

// The faults.
const (
	FIN     Fault = iota // the connection is closed
	RST                  // it is reset
	MidBody              // it is closed within a frame
	Notice               // the switch takes its leave and closes
	Silence              // nothing is sent or answered any more
)

// Server is a fake switch. Its methods may be called from many goroutines.
type Server struct {
	t        testing.TB
	listener net.Listener
	handling sync.WaitGroup
	sequence atomic.Uint64

	mu        sync.Mutex
	api       func(c *Conn, line string) string
	subscribe func(c *Conn, kind string) string
	welcome   Welcome
	conns     []*Conn // open
	accepted  int
	received  []string
	closed    bool
}

// New starts a server on a port of the loopback address. It ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{
		t: t, api: func(*Conn, string) string { return "+OK\n" },
		subscribe: func(*Conn, string) string { return "+OK event listener enabled plain" },
	}
	s.listen("127.0.0.1:0")
	t.Cleanup(s.Stop)
	return s
}

func (s *Server) listen(address string) {
	s.t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(s.t.Context(), "tcp4", address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.listener = listener
	s.handling.Go(func() { s.accept(listener) })
}

// Addr returns host and port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Stop closes the port and all connections, as a switch that is killed does, and waits until nobody handles one.
func (s *Server) Stop() {
	s.mu.Lock()
	s.closed = true
	open := slices.Clone(s.conns)
	s.mu.Unlock()
	s.listener.Close()
	for _, c := range open {
		c.conn.Close()
	}
	s.handling.Wait()
}

// Restart listens again on the same port after Stop. It must not be called while another Restart or Stop runs.
func (s *Server) Restart() {
	s.t.Helper()
	s.mu.Lock()
	s.closed = false
	s.mu.Unlock()
	s.listen(s.Addr())
}

// OnAPI sets what answers api commands: it gets the connection and the command with its arguments, and returns the
// reply; it may also write to the connection or break it. It runs while the connection waits, as on a switch, so one
// that takes its time is a slow command.
func (s *Server) OnAPI(f func(c *Conn, line string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.api = f
}

// OnSubscribe sets what answers subscriptions: it gets the connection and a kind of event, as Emit does, and returns
// the reply. One that is not +OK refuses.
func (s *Server) OnSubscribe(f func(c *Conn, kind string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribe = f
}

// Welcome sets how connections are received from now on.
func (s *Server) Welcome(w Welcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.welcome = w
}

// Accepted counts the connections that came, whatever became of them.
func (s *Server) Accepted() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Received returns the commands that came on all connections, in order, without passwords.
func (s *Server) Received() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.received)
}

// Conns returns the open connections that have subscribed to a kind of event; with no kind, all.
func (s *Server) Conns(kind string) []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*Conn
	for _, c := range s.conns {
		if kind == "" || c.Subscribed(kind) {
			found = append(found, c)
		}
	}
	return found
}

// Break makes all connections fail that have subscribed to a kind of event; with no kind, all.
func (s *Server) Break(f Fault, kind string) {
	for _, c := range s.Conns(kind) {
		c.Break(f)
	}
}

// Emit sends an event to those who have subscribed to its kind: HEARTBEAT, CUSTOM sofia::register. Headers are names
// and values in turn.
func (s *Server) Emit(kind string, headers ...string) {
	name, subclass, _ := strings.Cut(kind, " ")
	all := append([]string{"Event-Name", name}, headers...)
	if subclass != "" {
		all = append([]string{"Event-Subclass", subclass}, all...)
	}
	var b strings.Builder
	for pair := range slices.Chunk(append(all, "Event-Sequence", fmt.Sprint(s.sequence.Add(1))), 2) {
		// As switch_event_serialize encodes: a space is %20, a plus sign stays.
		fmt.Fprintf(&b, "%s: %s\n", pair[0], url.PathEscape(pair[1]))
	}
	s.EmitText(kind, b.String()+"\n")
}

// EmitText sends a text as the body of an event to those who have subscribed to a kind.
func (s *Server) EmitText(kind, text string) {
	for _, c := range s.Conns(kind) {
		c.Write(fmt.Sprintf("Content-Length: %d\nContent-Type: text/event-plain\n\n%s", len(text), text))
	}
}

func (s *Server) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.accepted++
		welcome, closed := s.welcome, s.closed
		c := &Conn{server: s, conn: conn}
		// Known from here on, so that Stop closes it.
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		if closed {
			conn.Close()
		}
		s.handling.Go(func() {
			defer s.forget(c)
			c.serve(welcome)
		})
	}
}

func (s *Server) forget(c *Conn) {
	c.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = slices.DeleteFunc(s.conns, func(other *Conn) bool { return other == c })
}

func (s *Server) note(line string) (api, subscribe func(*Conn, string) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, line)
	return s.api, s.subscribe
}

// Conn is a client's connection.
type Conn struct {
	server *Server
	conn   net.Conn

	mu     sync.Mutex // guards what follows and keeps frames whole
	kinds  []string
	silent bool
}

// Subscribed tells whether the client gets a kind of event.
func (c *Conn) Subscribed(kind string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.kinds, kind)
}

// Write sends bytes as they are. To a connection that has failed it does nothing.
func (c *Conn) Write(raw string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.silent {
		_, _ = c.conn.Write([]byte(raw)) // whoever has gone away need not hear it
	}
}

// Break makes the connection fail.
func (c *Conn) Break(f Fault) {
	const leave = "The system is being shut down.\n"
	switch f {
	case FIN:
	case RST:
		if tcp, ok := c.conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it fails only where the connection has ended already
		}
	case MidBody:
		c.Write("Content-Type: api/response\nContent-Length: 1000\n\nhalf of it")
	case Notice:
		c.Write(fmt.Sprintf("Content-Type: text/disconnect-notice\nContent-Length: %d\n\n%s", len(leave), leave))
	case Silence:
		c.mu.Lock()
		c.silent = true
		c.mu.Unlock()
		return
	}
	c.conn.Close()
}

// serve answers a connection until it ends.
func (c *Conn) serve(w Welcome) {
	lines := bufio.NewScanner(c.conn)
	if !c.logIn(w, lines) {
		return
	}
	for lines.Scan() {
		if line := strings.TrimSuffix(lines.Text(), "\r"); line != "" {
			c.command(line)
		}
	}
}

// logIn receives the client. It returns true if the client may go on.
func (c *Conn) logIn(w Welcome, lines *bufio.Scanner) bool {
	switch w {
	case Mute:
		for lines.Scan() {
			continue
		}
		return false
	case Rude:
		c.Write("Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n")
		return false
	case Stranger:
		c.Write("SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
		return false
	case HangUp:
		return false
	}
	c.Write("Content-Type: auth/request\n\n")
	for lines.Scan() {
		line := strings.TrimSuffix(lines.Text(), "\r")
		switch {
		case line == "" || w == MuteLogin:
			continue
		case w == LeaveLogin:
			return false
		case line != "auth "+Password || w == Refuse:
			c.reply("-ERR invalid")
			return false
		}
		c.reply("+OK accepted")
		return w != Brief
	}
	return false
}

func (c *Conn) command(line string) {
	api, subscribe := c.server.note(line)
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "api":
		out := api(c, strings.TrimSpace(rest))
		if out == "" {
			out = "-ERR no reply\n"
		}
		c.Write(fmt.Sprintf("Content-Type: api/response\nContent-Length: %d\n\n%s", len(out), out))
	case "event":
		kind := strings.TrimPrefix(rest, "plain ")
		out := subscribe(c, kind)
		if strings.HasPrefix(out, "+OK") {
			c.mu.Lock()
			c.kinds = append(c.kinds, kind)
			c.mu.Unlock()
		}
		c.reply(out)
	case "exit":
		c.reply("+OK bye")
		c.conn.Close()
	default:
		c.reply("-ERR command not found")
	}
}

func (c *Conn) reply(text string) {
	c.Write("Content-Type: command/reply\nReply-Text: " + text + "\n\n")
}
