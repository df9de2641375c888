// Package xmlcurl speaks to mod_xml_curl: it reads its requests, which are hostile, asks the domain packages, and
// answers with documents that FreeSWITCH takes as meant.
//
// Every answer that is known, refusals included, is HTTP 200, as FreeSWITCH reads no other. What is not a lookup is
// refused with a fitting status, and when the answer is not known (a fault of ours) the status is 503: FreeSWITCH then
// goes to its next binding, another xmlcurl, and after that to its own empty files.
package xmlcurl

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/trunk"
)

// Store is all that lookups read.
type Store interface {
	directory.Store
	dialplan.Store
	trunk.Store
}

// Options describe a handler.
type Options struct {
	Store  Store
	Keys   *secret.KeyRing
	Switch SwitchSettings
	// Credentials are "user:password" for HTTP basic authentication.
	Credentials string
	// CacheUsers tells how long a switch may keep a user; nil for not at all. See directory.New.
	CacheUsers func() time.Duration
	// HangUp ends a channel on the switch that asks; nil if there is no way to.
	HangUp func(ctx context.Context, channel uuid.UUID) error
	// Now is the clock; nil means the machine's.
	Now      func() time.Time
	Registry *prometheus.Registry
	Log      *slog.Logger
}

// Handler answers POST /xml. It is safe for concurrent use.
type Handler struct {
	credentials httpd.Basic
	directory   *directory.Directory
	store       Store
	config      *configuration
	agents      fstext.Text
	recordings  fstext.Text
	hangUp      func(ctx context.Context, channel uuid.UUID) error
	log         *slog.Logger
	now         func() time.Time
	metrics     metrics
}

// BodyLimit is the largest body taken. A dialplan lookup with every variable of a long call is some 30 KiB.
const BodyLimit = 256 << 10

// New returns a handler. The error tells of a template that is wrong.
func New(o Options) (*Handler, error) {
	log := o.Log.With("component", "xmlcurl")
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Switch.Transfers && o.HangUp == nil {
		return nil, errors.New("transfers without a way to hang up")
	}
	config, err := newConfiguration(o.Switch, o.Store, o.Keys, func(ctx context.Context, err error) {
		log.ErrorContext(ctx, "gateway left out", "error", err)
	})
	if err != nil {
		return nil, err
	}
	return &Handler{
		credentials: httpd.NewBasic(o.Credentials),
		directory:   directory.New(o.Store, o.Keys, o.CacheUsers),
		store:       o.Store,
		config:      config,
		agents:      o.Switch.Agents,
		recordings:  o.Switch.Recordings,
		hangUp:      o.HangUp,
		log:         log,
		now:         o.Now,
		metrics:     newMetrics(o.Registry),
	}, nil
}

// Register adds the handler to a server.
func (h *Handler) Register(s *httpd.Server) { s.Handle(fiber.MethodPost, "/xml", h.serve) }

func (h *Handler) serve(c *fiber.Ctx) error {
	start := time.Now()
	if err := h.credentials.Check(c); err != nil {
		h.metrics.rejected.WithLabelValues("credentials").Inc()
		return err
	}
	if mediaType, _, _ := strings.Cut(c.Get(fiber.HeaderContentType), ";"); !strings.EqualFold(strings.TrimSpace(mediaType), fiber.MIMEApplicationForm) {
		h.metrics.rejected.WithLabelValues("content_type").Inc()
		return &httpd.Error{Status: fiber.StatusUnsupportedMediaType, Reason: "body is not " + fiber.MIMEApplicationForm}
	}
	var f form
	if err := f.parse(c.Body()); err != nil {
		h.metrics.rejected.WithLabelValues("form").Inc()
		return &httpd.Error{Status: fiber.StatusBadRequest, Reason: err.Error()}
	}
	event := httpd.EventOf(c)
	a, err := h.answer(c.UserContext(), &f)
	if err != nil {
		if _, ok := errors.AsType[*httpd.Error](err); ok {
			h.metrics.rejected.WithLabelValues("section").Inc()
			event.Add("section", f.section)
			event.Add("switch", f.hostname)
			return err
		}
		answer{outcome: outcomeFault, reason: "answer not known"}.describe(event, &f)
		h.metrics.answered(f.section, outcomeFault, start)
		return &httpd.Error{Status: fiber.StatusServiceUnavailable, Reason: "answer not known", Cause: err}
	}
	a.describe(event, &f)
	h.metrics.answered(f.section, a.outcome, start)
	c.Set(fiber.HeaderContentType, "text/xml; charset=utf-8")
	c.Response().SetBody(a.document) // a copy, unlike Send
	fsxml.Release(a.document)
	return nil
}

// answer is a document and what the log and the metrics say about it.
type answer struct {
	document []byte
	// outcome is from a closed set: a directory.Outcome, a dialplan.Kind, found or not_found.
	outcome string
	reason  string
}

// outcomeFault is the outcome of a lookup whose answer is not known.
const outcomeFault = "fault"

// describe adds to the log line of the request: little for what goes well, who and what for a refusal.
func (a answer) describe(e *httpd.Event, f *form) {
	if a.reason == "" {
		if e.Level = slog.LevelDebug; !e.Wanted() {
			return
		}
	}
	e.Add("section", f.section)
	e.Add("switch", f.hostname)
	e.Add("outcome", a.outcome)
	if id := f.get(fieldUniqueID); id != "" {
		e.Add("channel", id)
	}
	if id := cmp.Or(f.get(fieldCallID), f.get(fieldVarCallID)); id != "" {
		e.Add("sip_call_id", id)
	}
	if a.reason == "" {
		return
	}
	e.Level = slog.LevelInfo
	e.Add("reason", a.reason)
	e.Add("function", f.get(fieldFunction))
	switch fsxml.Section(f.section) {
	case fsxml.SectionDirectory:
		e.Add("domain", f.keyValue)
		e.Add("user", f.get(fieldUser))
		if f.get(fieldAction) == "sip_auth" {
			e.Add("sip_method", f.get(fieldAuthMethod))
			e.Add("to", f.get(fieldToUser)+"@"+f.get(fieldToHost))
			e.Add("from", f.get(fieldFromUser)+"@"+f.get(fieldFromHost))
			e.Add("transport", f.get(fieldViaProtocol))
			e.Add("phone", f.get(fieldIP)+":"+f.get(fieldClientPort))
		}
	case fsxml.SectionDialplan:
		e.Add("context", f.get(fieldHuntContext))
		e.Add("destination", f.get(fieldHuntDestination))
		e.Add("user", f.get(fieldVarUserName)+"@"+f.get(fieldVarDomainName))
		e.Add("source", f.get(fieldHuntNetworkAddr))
	default:
		e.Add("key", f.keyValue)
	}
}

// answer finds the answer to a lookup. An *httpd.Error means that it is none; any other error that the answer is not
// known.
func (h *Handler) answer(ctx context.Context, f *form) (answer, error) {
	switch fsxml.Section(f.section) {
	case fsxml.SectionDirectory:
		return h.directoryAnswer(ctx, f)
	case fsxml.SectionDialplan:
		return h.dialplanAnswer(ctx, f)
	case fsxml.SectionConfiguration:
		doc, found, err := h.config.answer(ctx, f.keyValue, f.get(fieldProfile))
		if !found {
			return answer{doc, "not_found", ""}, err
		}
		return answer{doc, "found", ""}, err
	case fsxml.SectionLanguages, fsxml.SectionPhrases:
		doc, err := language(fsxml.Section(f.section), f.get(fieldLang))
		return answer{doc, "found", ""}, err
	case fsxml.SectionChatplan:
		doc, err := chatplan()
		return answer{doc, "found", ""}, err
	case fsxml.SectionChannels:
		return h.transferElsewhere(ctx, f)
	default:
		return answer{}, &httpd.Error{Status: fiber.StatusBadRequest, Reason: "section is not one that FreeSWITCH has"}
	}
}

func (h *Handler) directoryAnswer(ctx context.Context, f *form) (answer, error) {
	l, reason, known := directoryLookup(f)
	if !known {
		return answer{fsxml.NotFound(), string(directory.OutcomeRefused), reason}, nil
	}
	a, err := h.directory.Answer(ctx, l)
	if err != nil {
		return answer{}, err
	}
	if reason != "" {
		a.Outcome, a.Reason = directory.OutcomeRefused, reason
	}
	return answer{a.Document, string(a.Outcome), a.Reason}, nil
}

func (h *Handler) dialplanAnswer(ctx context.Context, f *form) (answer, error) {
	c, reason := call(f)
	c.At, c.Agents, c.Recordings = h.now(), h.agents, h.recordings
	if reason != "" {
		r := dialplan.Refuse(reason)
		doc, err := r.XML()
		return answer{doc, string(r.Kind), r.Reason}, err
	}
	facts, err := dialplan.Gather(ctx, h.store, c)
	if err != nil {
		return answer{}, err
	}
	r := dialplan.Decide(c, facts)
	if r.Unrecorded != "" {
		h.metrics.unrecorded.Inc()
	}
	doc, err := r.XML()
	return answer{doc, string(r.Kind), cmp.Or(r.Reason, r.Unrecorded)}, err
}

// language answers for spoken phrases: no macros yet, and the say module of the language. What cannot be the name of a
// language gets English.
func language(s fsxml.Section, lang string) ([]byte, error) {
	code := fstext.Const("en")
	if name, err := fstext.NewUsername(lang); err == nil {
		code = name.Text()
	}
	doc := fsxml.New(s)
	doc.Open("language", fsxml.A("name", code), fsxml.A("say-module", code))
	doc.Open("phrases")
	doc.Leaf("macros")
	return doc.Bytes()
}

// chatplan answers for text messages: nothing is done with them.
func chatplan() ([]byte, error) {
	doc := fsxml.New(fsxml.SectionChatplan)
	doc.Leaf("context", fsxml.A("name", fstext.Const("global")))
	return doc.Bytes()
}
