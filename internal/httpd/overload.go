package httpd

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// What is more than can be answered in time is refused at once, so that what is taken is answered: beyond MaxConnections a
// connection gets 503 and is closed without being read, and a request that waited for its turn until its time was up gets 503
// without being looked at. FreeSWITCH then asks its next binding.

func (s *Server) countRefused() {
	const name, help = "http_refused_total", "Requests refused because there were too many: connections beyond the limit, and requests that waited too long for their turn."
	s.late = prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"server": s.opts.Name, "reason": "late"}})
	connections := prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"server": s.opts.Name, "reason": "connections"}},
		func() float64 { return float64(s.app.Server().GetRejectedConnectionsCount()) })
	s.opts.Registry.MustRegister(s.late, connections)
}

// inTime refuses the first request of a connection that was accepted so long ago that whoever asked has given up.
func (s *Server) inTime(c *fiber.Ctx, now time.Time) error {
	conn := c.Context().Conn()
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	stamped, ok := conn.(*stampedConn)
	if !ok || s.opts.RequestTimeout <= 0 || stamped.used.Swap(true) || now.Sub(stamped.accepted) < s.opts.RequestTimeout {
		return nil
	}
	s.late.Inc()
	return &Error{Status: fiber.StatusServiceUnavailable, Reason: "too late: the request waited for its turn longer than it may take"}
}

// drainTime is how long a listener still accepts after it was told to finish: what the kernel had taken by then would be
// reset otherwise.
const drainTime = 50 * time.Millisecond

// stampedListener notes when each connection was accepted, and can be told to accept what is there and no more.
type stampedListener struct {
	net.Listener
	finishing atomic.Bool
}

func (l *stampedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		if l.finishing.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errors.Join(net.ErrClosed, l.Listener.Close())
		}
		return nil, err
	}
	return &stampedConn{Conn: c, accepted: time.Now()}, nil
}

// finish makes Accept return net.ErrClosed once what is there is accepted.
func (l *stampedListener) finish() error {
	l.finishing.Store(true)
	if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); ok {
		return d.SetDeadline(time.Now().Add(drainTime))
	}
	return l.Close()
}

// Close may be called again: whoever finds it finished closes it as well.
func (l *stampedListener) Close() error {
	if err := l.Listener.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

type stampedConn struct {
	net.Conn
	accepted time.Time
	used     atomic.Bool // a request was read from it
}
