package httpd

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// What is more than can be answered in time is refused at once, so that what is taken is answered: beyond
// MaxConnections a connection gets 503 and is closed without being read, and a request that waited for its turn until
// its time was up gets 503 without being looked at. FreeSWITCH then asks its next binding.

func (s *Server) countRefused() {
	const name, help = "http_refused_total", "Requests refused because there were too many: connections beyond the limit, and requests that waited too long for their turn."
	s.late = prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"server": s.opts.Name, "reason": "late"}})
	connections := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"server": s.opts.Name, "reason": "connections"}},
		func() float64 {
			return float64(s.app.Server().GetRejectedConnectionsCount()) + float64(s.turnedAway.Load())
		})
	s.opts.Registry.MustRegister(s.late, connections)
}

// inTime refuses the first request of a connection if it has waited so long, since the connection was accepted, that
// whoever asked has given up.
func (s *Server) inTime(c *fiber.Ctx, now time.Time) error {
	conn := c.Context().Conn()
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	stamped, ok := conn.(*stampedConn)
	if !ok || s.opts.RequestTimeout <= 0 || stamped.used.Swap(true) || now.Sub(stamped.accepted)-stamped.silence < s.opts.RequestTimeout {
		return nil
	}
	s.late.Inc()
	return &Error{Status: fiber.StatusServiceUnavailable, Reason: "too late: the request waited for its turn longer than it may take"}
}

// drainTime is how long a listener that is to finish waits for one more connection: that long a handshake may take that
// the kernel has begun.
const drainTime = 50 * time.Millisecond

// Listen opens a port as a Server needs it. An IPv4 address stays one: 0.0.0.0 alone would listen on IPv6 too. And it
// is no multipath TCP, which no switch speaks: a listener of that kind cannot be finished without resets (see shut).
func Listen(ctx context.Context, address string) (net.Listener, error) {
	network := "tcp"
	if host, _, err := net.SplitHostPort(address); err == nil {
		if a, err := netip.ParseAddr(host); err == nil && a.Is4() {
			network = "tcp4"
		}
	}
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	return c.Listen(ctx, network, address)
}

// stampedListener notes when each connection was accepted, and can be told to accept what is there and no more.
type stampedListener struct {
	net.Listener
	// most bounds open connections, and turnedAway counts those beyond; nil for no bound here.
	most       int64
	turnedAway *atomic.Int64
	open       atomic.Int64

	finishing atomic.Bool
	once      sync.Once
	end       chan struct{} // see ended
}

// ended is closed when Accept has returned everybody there was.
func (l *stampedListener) ended() chan struct{} {
	l.once.Do(func() { l.end = make(chan struct{}) })
	return l.end
}

func (l *stampedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.acceptOne()
		if err != nil || l.turnedAway == nil {
			return c, err
		}
		if l.open.Load() <= l.most {
			return c, nil
		}
		// Over TLS nothing can be said before a handshake, for which a peer can let everybody wait.
		l.turnedAway.Add(1)
		_ = c.Close() // nobody was told anything
	}
}

func (l *stampedListener) acceptOne() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if l.finishing.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		// The time may have been up before all were accepted: they were not looked for.
		if err = l.drain(); err == nil {
			c, err = l.Listener.Accept()
		}
		if err != nil {
			defer close(l.ended())
			return nil, errors.Join(net.ErrClosed, l.Close())
		}
	}
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	return &stampedConn{Conn: c, accepted: time.Now(), leave: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

// finish makes Accept return net.ErrClosed once it has returned everybody who is connected or about to be, and waits
// for that.
func (l *stampedListener) finish() error {
	l.finishing.Store(true)
	_ = l.shut() // a kernel that will not do that lets somebody in until the end, who may be reset
	if err := l.drain(); err != nil {
		return l.Close()
	}
	select {
	case <-l.ended():
	case <-time.After(20 * drainTime): // nobody accepts, or the kernel lets people in after all
	}
	return nil
}

// drain lets Accept wait no longer than drainTime.
func (l *stampedListener) drain() error {
	d, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return errors.ErrUnsupported
	}
	return d.SetDeadline(time.Now().Add(drainTime))
}

// withoutSYN is a filter that passes all packets of TCP but those that begin a connection (RFC 9293, 3.1: the flag
// SYN).
var withoutSYN = []syscall.SockFilter{
	{Code: syscall.BPF_LD | syscall.BPF_B | syscall.BPF_ABS, K: 13}, // the flags
	{Code: syscall.BPF_JMP | syscall.BPF_JSET | syscall.BPF_K, K: 2, Jf: 1},
	{Code: syscall.BPF_RET | syscall.BPF_K, K: 0},
	{Code: syscall.BPF_RET | syscall.BPF_K, K: 1<<32 - 1},
}

// shut makes the kernel take no new connection, and finish those that it has begun. Whoever is closed out is refused
// when the listener is closed and he tries again. To close it at once would reset all whom the kernel has let in and
// nobody accepted yet.
func (l *stampedListener) shut() error {
	c, ok := l.Listener.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var attach error
	err = raw.Control(func(fd uintptr) {
		attach = syscall.AttachLsf(int(fd), withoutSYN) //nolint:staticcheck // deprecated for a package that only builds filters
	})
	return errors.Join(err, attach)
}

// Close may be called again: whoever finds it finished closes it as well.
func (l *stampedListener) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// stampedConn is read from by one goroutine, which handles its requests too.
type stampedConn struct {
	net.Conn
	accepted time.Time
	leave    func()      // takes it off the count of open connections, once
	used     atomic.Bool // a request was read from it
	// silence is the time in which there was nothing to read of the first request: clients connect in advance.
	silence time.Duration
}

func (c *stampedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}

func (c *stampedConn) Read(b []byte) (int, error) {
	if c.used.Load() {
		return c.Conn.Read(b)
	}
	start := time.Now()
	n, err := c.Conn.Read(b)
	c.silence += time.Since(start)
	return n, err
}
