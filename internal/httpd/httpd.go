// Package httpd is the HTTP server that the processes share: fiber with bounds on everything, one log event a request
// with a correlation id, the endpoints that operators and load balancers ask, and a shutdown that finishes what it
// began.
package httpd

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/gofiber/fiber/v2/utils"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// Options describe a server.
type Options struct {
	// Name is the component in logs.
	Name string
	// BodyLimit is the largest body taken, in bytes.
	BodyLimit int
	// RequestTimeout bounds the handling of one request; the context of a handler ends then. A request that had to wait
	// as long for its turn is refused.
	RequestTimeout time.Duration
	// MaxConnections bounds connections at the same time; more are refused at once. Zero means 1024.
	MaxConnections int
	// TLS serves HTTPS; nil serves HTTP.
	TLS *tls.Config
	// Ready tells whether the process can do its work; asked by /readyz.
	Ready func(context.Context) error
	// Immutable gives handlers strings that stay as they are after they returned, for the price of a copy each.
	Immutable bool
	// Answer writes the answer to a request that failed, for a reason that the client may know; nil writes it as plain
	// text.
	Answer func(c *fiber.Ctx, status int, reason string)
	// Public leaves out /readyz and /metrics: strangers reach this server, and another one is for operators.
	Public bool
	// Registry counts, and is shown at /metrics. Several servers, each with a name of its own, may share it.
	Registry *prometheus.Registry
	Log      *slog.Logger
}

// Server is one HTTP server. Its zero value is not usable, see New.
type Server struct {
	app  *fiber.App
	opts Options
	log  *slog.Logger
	late prometheus.Counter
	// turnedAway are connections over TLS that were too many.
	turnedAway atomic.Int64
	listener   atomic.Pointer[stampedListener] // set by Serve
	draining   atomic.Bool
}

// Bounds on slow and idle peers. FreeSWITCH sends its request at once.
const (
	readTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	idleTimeout  = 60 * time.Second
	headerBytes  = 16 << 10

	defaultMaxConnections = 1024
)

// New returns a server with /healthz, /readyz and /metrics; Handle adds to it.
func New(o Options) *Server {
	slack := 0
	if o.TLS != nil {
		slack = 64 // the bound is kept before the handshake, and a connection that was closed may still have its goroutine
	}
	s := &Server{opts: o, log: o.Log.With("component", o.Name)}
	s.app = fiber.New(fiber.Config{
		AppName:               o.Name,
		BodyLimit:             o.BodyLimit,
		ReadTimeout:           readTimeout,
		WriteTimeout:          writeTimeout,
		IdleTimeout:           idleTimeout,
		ReadBufferSize:        headerBytes,
		DisableStartupMessage: true,
		Immutable:             o.Immutable,
		// Each connection may hold one body before its credentials are looked at.
		Concurrency:  cmp.Or(o.MaxConnections, defaultMaxConnections) + slack,
		ErrorHandler: s.failed,
		Network:      fiber.NetworkTCP,
	})
	s.countRefused()
	s.app.Use(s.observe)
	s.app.Get("/healthz", quietly(func(c *fiber.Ctx) error { return c.SendString("ok\n") }))
	if o.Public {
		return s
	}
	s.app.Get("/readyz", quietly(s.ready))
	s.app.Get("/metrics", quietly(adaptor.HTTPHandler(promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{}))))
	return s
}

// quietly keeps what is asked every few seconds out of the log while all is well.
func quietly(h fiber.Handler) fiber.Handler {
	return func(c *fiber.Ctx) error {
		EventOf(c).Level = slog.LevelDebug
		return h(c)
	}
}

// Handle registers a handler for a method and path. A handler returns an *Error, or any other error, which is a fault
// of ours: 500.
func (s *Server) Handle(method, path string, h fiber.Handler) { s.app.Add(method, path, h) }

// Event collects what the one log line of a request says. Handlers add to it.
type Event struct {
	// Level is that of the line when the answer is no error; the zero value is info.
	Level slog.Level
	// Expected is true if an answer of status 500 and above is no fault.
	Expected bool
	Attrs    []slog.Attr

	log *slog.Logger
}

// Wanted tells whether a line of the event's level would be written, so that nobody collects what is for nobody.
func (e *Event) Wanted() bool { return e.log.Enabled(context.Background(), e.Level) }

// Add adds an attribute.
func (e *Event) Add(key, value string) {
	e.Attrs = append(e.Attrs, slog.String(key, clip(value, fieldBytes)))
}

// Bounds on what a peer, and on what one of our own errors, can make us write.
const (
	fieldBytes = 128
	causeBytes = 4 << 10
)

func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "?") + "…"
	}
	return s
}

// shown is a path, or an error that may repeat one, as it is logged: a long hexadecimal part of it, as the signature of
// a link is, opens what it signs.
func shown(text string) string {
	if len(text) < signatureDigits {
		return text
	}
	return signatureSyntax.ReplaceAllLiteralString(text, "…")
}

// signatureDigits is more than an identifier has: a UUID has 32, in parts.
const signatureDigits = 40

var signatureSyntax = regexp.MustCompile(`(?:[0-9A-Fa-f]|%3[0-9]|%[46][1-6]){40,}`)

// EventOf returns the event of a request. It is there from the first handler on.
func EventOf(c *fiber.Ctx) *Event {
	e, _ := c.Locals(eventKey{}).(*Event)
	return e
}

type eventKey struct{}

// Error is an answer that is not a success, with what the log is to say about it.
type Error struct {
	Status int
	// Reason is for the log and, below status 500, for the client. It holds nothing that the client sent.
	Reason string
	Cause  error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Reason + ": " + e.Cause.Error()
	}
	return e.Reason
}

func (e *Error) Unwrap() error { return e.Cause }

// observe gives each request its id, its deadline and its log line, and turns a panic into an error.
func (s *Server) observe(c *fiber.Ctx) error {
	start := time.Now()
	event := &Event{log: s.log}
	c.Locals(eventKey{}, event)
	id := newID()
	ctx := telemetry.WithCorrelation(c.UserContext(), id)
	if s.opts.RequestTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.opts.RequestTimeout)
		defer cancel()
	}
	c.SetUserContext(ctx)
	c.Set("X-Request-Id", id)
	err := s.inTime(c, start)
	if err == nil {
		err = protect(c)
	}
	if err != nil {
		s.answer(c, err)
	}
	s.report(ctx, c, event, err, time.Since(start))
	return nil
}

func protect(c *fiber.Ctx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &Error{Status: fiber.StatusInternalServerError, Reason: "panic", Cause: fmt.Errorf("%v\n%s", r, debug.Stack())}
		}
	}()
	return c.Next()
}

// answer writes the answer to a request that failed: the reason if it is the client's doing, and no more than that.
func (s *Server) answer(c *fiber.Ctx, err error) {
	e := asError(err)
	reason := e.Reason
	if e.Status >= fiber.StatusInternalServerError {
		reason = "internal error, see the log under the id in X-Request-Id"
	}
	if s.opts.Answer != nil {
		s.opts.Answer(c, e.Status, reason)
		return
	}
	c.Set(fiber.HeaderContentType, fiber.MIMETextPlainCharsetUTF8)
	_ = c.Status(e.Status).SendString(reason + "\n") // SendString fails never: it sets the body
}

func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if fe, ok := errors.AsType[*fiber.Error](err); ok {
		// The message may repeat the path that was asked for.
		return &Error{Status: fe.Code, Reason: strings.ToLower(utils.StatusMessage(fe.Code))}
	}
	return &Error{Status: fiber.StatusInternalServerError, Reason: "internal error", Cause: err}
}

func (s *Server) report(ctx context.Context, c *fiber.Ctx, event *Event, err error, took time.Duration) {
	level, status := event.Level, c.Response().StatusCode()
	switch {
	case event.Expected:
	case status >= fiber.StatusInternalServerError:
		level = slog.LevelError
	case status >= fiber.StatusBadRequest:
		level = slog.LevelWarn
	}
	if !s.log.Enabled(ctx, level) {
		return
	}
	attrs := append([]slog.Attr{
		slog.String("method", c.Method()), slog.String("path", clip(shown(c.Path()), fieldBytes)), slog.Int("status", status),
		slog.String("peer", c.Context().RemoteIP().String()), slog.Float64("took_ms", float64(took.Microseconds())/1000),
	}, event.Attrs...)
	if err != nil {
		attrs = append(attrs, slog.String("error", clip(shown(err.Error()), causeBytes)))
	}
	s.log.LogAttrs(ctx, level, "request", attrs...)
}

// failed answers what never reached a handler: a body or header over the limit, a broken request.
func (s *Server) failed(c *fiber.Ctx, err error) error {
	s.answer(c, err)
	ctx := telemetry.WithCorrelation(context.Background(), newID())
	// There may have been no request at all: a handshake that failed, a peer that went away.
	s.log.LogAttrs(ctx, slog.LevelWarn, "connection without a request that can be read", slog.Int("status", c.Response().StatusCode()),
		slog.String("peer", c.Context().RemoteIP().String()), slog.String("error", clip(shown(err.Error()), fieldBytes)))
	return nil
}

func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func (s *Server) ready(c *fiber.Ctx) error {
	if s.draining.Load() {
		EventOf(c).Expected = true
		return &Error{Status: fiber.StatusServiceUnavailable, Reason: "shutting down"}
	}
	if err := s.opts.Ready(c.UserContext()); err != nil {
		return &Error{Status: fiber.StatusServiceUnavailable, Reason: "not ready", Cause: err}
	}
	return c.SendString("ready\n")
}

// Serve answers on a listener until Shutdown, and closes it. A listener for HTTPS is wrapped here. It is called once.
func (s *Server) Serve(l net.Listener) error {
	stamped := &stampedListener{Listener: l}
	if s.opts.TLS != nil {
		stamped.most, stamped.turnedAway = int64(cmp.Or(s.opts.MaxConnections, defaultMaxConnections)), &s.turnedAway
	}
	s.listener.Store(stamped)
	if s.draining.Load() {
		return stamped.Close()
	}
	l = stamped
	if s.opts.TLS != nil {
		l = tls.NewListener(l, s.opts.TLS)
	}
	if err := s.app.Listener(l); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Run serves on a listener until ctx ends, then lets requests under way finish, for at most so long.
func (s *Server) Run(ctx context.Context, l net.Listener, timeout time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.log.InfoContext(ctx, "shutting down", "addr", l.Addr().String())
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if err := s.Shutdown(stopping); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	// A server that was told to stop before it began to serve knows no listener yet, and would go on.
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("shutdown: %w", err)
	}
	select {
	case err := <-failed:
		return err
	case <-stopping.Done():
		return fmt.Errorf("shutdown: %w", stopping.Err())
	}
}

// App is the fiber application behind the server, for tests that need no listener.
func (s *Server) App() *fiber.App { return s.app }

// Shutdown says that the server is not ready any more, accepts what has already connected and no more, and waits for
// requests under way, at most until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	if l := s.listener.Load(); l != nil {
		if err := l.finish(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		select {
		case <-time.After(drainTime):
		case <-ctx.Done():
		}
	}
	return s.app.ShutdownWithContext(ctx)
}
