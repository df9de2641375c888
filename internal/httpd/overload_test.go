package httpd_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/httpd"
)

// patience is how long a test waits for what must come; nothing is measured by it.
const patience = 30 * time.Second

// service is a server on a port, with the path /fine and the path /held, which answers when it is released.
type service struct {
	*testing.T
	addr     string
	registry *prometheus.Registry
	held     chan struct{} // a request to /held has come
	release  chan struct{} // lets one of them go
}

func serve(t *testing.T, o httpd.Options, wrap ...func(net.Listener) net.Listener) *service {
	t.Helper()
	s := &service{T: t, registry: prometheus.NewRegistry(), held: make(chan struct{}, 100), release: make(chan struct{}, 100)}
	o.Name, o.Registry, o.Log = "test", s.registry, slog.New(slog.DiscardHandler)
	o.Ready = func(context.Context) error { return nil }
	if o.BodyLimit == 0 {
		o.BodyLimit = 64 << 10
	}
	server := httpd.New(o)
	fine := func(c *fiber.Ctx) error { return c.SendString("fine") }
	server.Handle(http.MethodGet, "/fine", fine)
	server.Handle(http.MethodPost, "/fine", fine)
	server.Handle(http.MethodGet, "/held", func(c *fiber.Ctx) error {
		s.held <- struct{}{}
		<-s.release
		return fine(c)
	})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	for _, w := range wrap {
		l = w(l)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		close(s.release)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-done); err != nil {
			t.Error(err)
		}
	})
	return s
}

// dial opens a connection that the test waits for no longer than it has patience.
func (s *service) dial() net.Conn {
	s.Helper()
	c, err := (&net.Dialer{}).DialContext(s.Context(), "tcp", s.addr)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		s.Fatal(err)
	}
	return c
}

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n" }

// ask sends a request, and returns the status of the answer and what is in it.
func (s *service) ask(c net.Conn, request string) (int, string) {
	s.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		s.Fatal(err)
	}
	return s.answer(c)
}

func (s *service) answer(c net.Conn) (int, string) {
	s.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.Fatalf("no answer: %v", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// refused is what http_refused_total says for a reason.
func (s *service) refused(reason string) (n float64) {
	s.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "http_refused_total" && l.GetName() == "reason" && l.GetValue() == reason {
					n += m.GetCounter().GetValue()
				}
			}
		}
	}
	return n
}

// hold makes a request that waits in its handler.
func (s *service) hold(c net.Conn) {
	s.Helper()
	if _, err := io.WriteString(c, get("/held")); err != nil {
		s.Fatal(err)
	}
	<-s.held
}

// Beyond MaxConnections a connection has its 503 while all others are held up, before it has asked anything, and is
// counted. Those that were taken are answered, and their places given to others.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	s := serve(t, httpd.Options{MaxConnections: 2})
	first, second := s.dial(), s.dial()
	s.hold(first)
	s.hold(second)
	for i := range 3 {
		if status, _ := s.answer(s.dial()); status != http.StatusServiceUnavailable {
			t.Errorf("connection %d: %d, want 503", i+3, status)
		}
	}
	if n := s.refused("connections"); n != 3 {
		t.Errorf("%v connections counted as refused, want 3", n)
	}
	s.release <- struct{}{}
	s.release <- struct{}{}
	for _, c := range []net.Conn{first, second} {
		if status, body := s.answer(c); status != http.StatusOK || body != "fine" {
			t.Errorf("a connection that was taken: %d %s", status, body)
		}
		_ = c.Close()
	}
	s.servedAgain(s.dial)
	if n := s.refused("late"); n != 0 {
		t.Errorf("%v requests counted as late", n)
	}
}

// servedAgain waits until a new connection is served: a place is given back a moment after its connection was closed.
func (s *service) servedAgain(dial func() net.Conn) {
	s.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		c := dial()
		_, err := io.WriteString(c, get("/fine"))
		resp, err2 := http.ReadResponse(bufio.NewReader(c), nil)
		_ = c.Close()
		if errors.Join(err, err2) == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			s.Fatalf("nobody is served any more: %v", errors.Join(err, err2))
		}
	}
}

// Over TLS somebody who is too many, and says nothing, keeps nobody else waiting.
func TestTooManySilentConnectionsOverTLS(t *testing.T) {
	t.Parallel()
	cert, key := pair(t, "localhost")
	certificate, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, httpd.Options{MaxConnections: 1, TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}})
	client := func() net.Conn {
		return tls.Client(s.dial(), &tls.Config{InsecureSkipVerify: true})
	}
	first := client()
	s.hold(first)
	silent := s.dial()
	s.counted("connections", 1)
	s.release <- struct{}{}
	if status, _ := s.answer(first); status != http.StatusOK {
		t.Errorf("the one that was taken: %d", status)
	}
	_ = first.Close()
	s.servedAgain(client)
	_ = silent.Close()
}

// counted waits until so many were refused for a reason.
func (s *service) counted(reason string, n float64) {
	s.Helper()
	for deadline := time.Now().Add(patience); s.refused(reason) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("%v refused for %s, want %v", s.refused(reason), reason, n)
		}
	}
}

// queue is a listener whose connections wait for their turn once they are accepted: none is read from before it is let
// go.
type queue struct {
	net.Listener
	waiting, turn chan struct{}
}

func newQueue() queue { return queue{waiting: make(chan struct{}, 100), turn: make(chan struct{})} }

func (q queue) over(l net.Listener) net.Listener {
	q.Listener = l
	return q
}

// Accept implements net.Listener.
func (q queue) Accept() (net.Conn, error) {
	c, err := q.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return queued{c, q}, nil
}

type queued struct {
	net.Conn
	queue queue
}

// SetReadDeadline is what the server calls before it reads.
func (c queued) SetReadDeadline(t time.Time) error {
	c.queue.waiting <- struct{}{}
	<-c.queue.turn
	return c.Conn.SetReadDeadline(t)
}

// A request that waited for its turn longer than a request may take is refused without being looked at, and counted.
// The next on its connection is not.
func TestLateRequest(t *testing.T) {
	t.Parallel()
	const timeout = time.Second // the next request has no more
	q := newQueue()
	s := serve(t, httpd.Options{RequestTimeout: timeout}, q.over)
	c := s.dial()
	if _, err := io.WriteString(c, get("/held")); err != nil {
		t.Fatal(err)
	}
	<-q.waiting // it was accepted
	time.Sleep(timeout)
	close(q.turn)
	if status, _ := s.answer(c); status != http.StatusServiceUnavailable || len(s.held) > 0 {
		t.Errorf("a request that waited too long: %d, looked at: %v; want 503", status, len(s.held) > 0)
	}
	if n := s.refused("late"); n != 1 {
		t.Errorf("%v requests counted as late, want 1", n)
	}
	if status, body := s.ask(c, get("/fine")); status != http.StatusOK || body != "fine" {
		t.Errorf("the next request: %d %s", status, body)
	}
}

// A request is not late because its connection was opened before it was needed, as HTTP clients with a pool do.
func TestConnectionOpenedInAdvance(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	q := newQueue()
	close(q.turn)
	s := serve(t, httpd.Options{RequestTimeout: timeout}, q.over)
	c := s.dial()
	<-q.waiting
	time.Sleep(2 * timeout)
	if status, body := s.ask(c, get("/fine")); status != http.StatusOK || body != "fine" {
		t.Errorf("%d %s, want 200", status, body)
	}
	if n := s.refused("late"); n != 0 {
		t.Errorf("%v requests counted as late", n)
	}
}

// Somebody who sends his body byte by byte is cut off however often a byte comes, and occupies his connection and no
// more until then.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	s := serve(t, httpd.Options{MaxConnections: 2})
	other, slow := s.dial(), s.dial()
	s.hold(other)
	if _, err := fmt.Fprintf(slow, "POST /fine HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", 60<<10); err != nil {
		t.Fatal(err)
	}
	cut := make(chan error, 1)
	go func() {
		_, err := io.ReadAll(slow) // an answer, if any, and the end
		cut <- err
	}()
	if status, _ := s.answer(s.dial()); status != http.StatusServiceUnavailable {
		t.Errorf("a third connection: %d, want 503", status)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for sending := true; sending; {
		select {
		case err := <-cut:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("not cut off in %v", patience)
			}
			sending = false
		case <-tick.C:
			_, _ = io.WriteString(slow, "x") // when it fails, the other side tells
		}
	}
	s.servedAgain(s.dial)
	s.release <- struct{}{}
	if status, _ := s.answer(other); status != http.StatusOK {
		t.Errorf("who was there with him: %d", status)
	}
}
