// Package ingest takes call records as mod_json_cdr posts them. It stores the body as it came and answers when that is
// durable; nobody reads it before. An answer of 200 is a promise, and anything else makes FreeSWITCH keep the record in
// a file (mod_json_cdr.c, process_cdr), from where it is sent again.
package ingest

import (
	"context"
	"log/slog"
	"strings"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/httpd"
)

// BodyLimit is the largest body taken. A record of a long call with many stations is some 100 KiB; a phone that ends
// its call with thousands of headers makes it megabytes, of which little is kept.
const BodyLimit = 8 << 20

// HeaderFile names the file that a document lay in; a document with it was swept, not posted by a switch.
const HeaderFile = "X-Cdr-File"

// path is where documents are taken.
const path = "/cdr"

// Store keeps documents. Implementations are safe for concurrent use.
type Store interface {
	// KeepDocument stores a document for good, or returns an error. It returns false for one that is there already.
	KeepDocument(ctx context.Context, p cdr.Posted) (added bool, err error)
}

// Options describe a handler.
type Options struct {
	Store Store
	// Credentials are "user:password" for HTTP basic authentication.
	Credentials string
	// Wake is called when there is something to read; nil means nobody wants to know. It does not block.
	Wake     func()
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// Handler answers POST /cdr. It is safe for concurrent use.
type Handler struct {
	store       Store
	wake        func()
	credentials httpd.Basic
	received    *prometheus.CounterVec
}

// New returns a handler.
func New(o Options) *Handler {
	h := &Handler{
		store: o.Store, wake: o.Wake, credentials: httpd.NewBasic(o.Credentials),
		received: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgvoip_cdr_received_total",
			Help: "Call records that were posted, by outcome: kept, duplicate, refused (no credentials, no body), failed (HTTP 503).",
		}, []string{"outcome"}),
	}
	o.Registry.MustRegister(h.received)
	if h.wake == nil {
		h.wake = func() {}
	}
	return h
}

// Register adds the handler to a server.
func (h *Handler) Register(s *httpd.Server) { s.Handle(fiber.MethodPost, path, h.serve) }

func (h *Handler) serve(c *fiber.Ctx) error {
	if err := h.credentials.Check(c); err != nil {
		h.received.WithLabelValues("refused").Inc()
		return err
	}
	p := posted(c)
	if len(p.Body) == 0 {
		h.received.WithLabelValues("refused").Inc()
		return &httpd.Error{Status: fiber.StatusBadRequest, Reason: "there is no body"}
	}
	added, err := h.store.KeepDocument(c.UserContext(), p)
	if err != nil {
		h.received.WithLabelValues("failed").Inc()
		return &httpd.Error{Status: fiber.StatusServiceUnavailable, Reason: "not stored", Cause: err}
	}
	outcome := "duplicate"
	if added {
		outcome = "kept"
		h.wake()
	}
	h.received.WithLabelValues(outcome).Inc()
	event := httpd.EventOf(c)
	event.Level = slog.LevelDebug
	event.Add("outcome", outcome)
	return c.SendString("ok\n")
}

// posted reads a request, of which nothing lives on after it but what is copied here.
func posted(c *fiber.Ctx) cdr.Posted {
	p := cdr.Posted{
		LegID: named(string(c.Request().URI().QueryString())), Source: cdr.SourcePost, Sender: c.Context().RemoteIP().String(),
		ContentType: shorten(string(c.Request().Header.ContentType()), 128), Body: c.Request().Body(),
	}
	if file := string(c.Request().Header.Peek(HeaderFile)); file != "" {
		p.Source, p.Sender = cdr.SourceSweep, shorten(file, 260)
	}
	return p
}

// shorten makes text of a sender fit for a column: so many bytes of valid UTF-8 without NUL.
func shorten(s string, most int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

// named returns the channel that the query names. FreeSWITCH puts "?uuid=" behind the address whether it has a query or
// not, and a prefix before the UUID of a calling leg if it is told to.
func named(query string) uuid.UUID {
	i := strings.LastIndex(query, "uuid=")
	if i < 0 {
		return uuid.Nil
	}
	name, _, _ := strings.Cut(query[i+len("uuid="):], "&")
	name = strings.TrimPrefix(name, "a_")
	id, err := uuid.Parse(name)
	if err != nil || len(name) != 36 {
		return uuid.Nil
	}
	return id
}
