package api

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/node"
	"github.com/edgvoip/edgvoip/trunk"
	"github.com/edgvoip/edgvoip/webhook"
)

// Code names a kind of problem. Codes are part of the contract and never change their meaning.
type Code string

// The codes.
const (
	codeMalformed         Code = "malformed"
	codeInvalid           Code = "invalid"
	codeUnauthenticated   Code = "unauthenticated"
	codeTenantMismatch    Code = "tenant_mismatch"
	codeBadLink           Code = "bad_link"
	codeNotFound          Code = "not_found"
	codeMethodNotAllowed  Code = "method_not_allowed"
	codeRealmTaken        Code = "realm_taken"
	codeDomainMismatch    Code = "domain_mismatch"
	codeNameTaken         Code = "name_taken"
	codeDeleted           Code = "extension_deleted"
	codeChangedMeanwhile  Code = "changed_meanwhile"
	codeTenantIDTaken     Code = "tenant_id_taken"
	codeTenantExists      Code = "tenant_exists"
	codeTenantActive      Code = "tenant_active"
	codeDomainInUse       Code = "domain_in_use"
	codeTrunkExists       Code = "trunk_exists"
	codeTrunkDeleted      Code = "trunk_deleted"
	codeDIDTaken          Code = "did_taken"
	codeEventNotDead      Code = "event_not_dead"
	codeNodeHasJobs       Code = "node_has_jobs"
	codeKeyReused         Code = "idempotency_key_reused"
	codeTooLarge          Code = "too_large"
	codeHeadersTooLarge   Code = "headers_too_large"
	codeUnsupportedMedia  Code = "unsupported_media_type"
	codeRateLimited       Code = "rate_limited"
	codeUnavailable       Code = "unavailable"
	codeInternal          Code = "internal"
	codeRequestTimeout    Code = "request_timeout"
	codeIdempotencyHeader Code = "bad_idempotency_key"
	codeKeyNotTaken       Code = "idempotency_key_not_taken"
)

// kinds are all problems there are: the catalogue.
var kinds = map[Code]struct {
	status int
	title  string
	detail string
}{
	codeMalformed:         {400, "Malformed request", "The request is not what this route takes: the body is not one JSON object of UTF-8 with each name once, or there is a body where none belongs."},
	codeIdempotencyHeader: {400, "Bad Idempotency-Key", "Idempotency-Key is given once, with 1 to 255 printable ASCII characters."},
	codeKeyNotTaken:       {400, "Idempotency-Key not taken", "Operators' writes take no Idempotency-Key: leave it out, and look before sending one again."},
	codeUnauthenticated:   {401, "Not authenticated", "The request is not authenticated."},
	codeTenantMismatch:    {403, "Another tenant", "tenantId is not the tenant of the credentials."},
	codeBadLink:           {403, "Bad link", "The link is not good, or not any more."},
	codeNotFound:          {404, "Not found", "There is no such thing here."},
	codeMethodNotAllowed:  {405, "Method not allowed", "This method does nothing here."},
	codeRequestTimeout:    {408, "Request timeout", "The request did not arrive in time."},
	codeRealmTaken:        {409, "Realm taken", "sipRealm belongs to somebody else."},
	codeDomainMismatch:    {409, "Domain mismatch", "sipRealm belongs to a domain with another domainId."},
	codeNameTaken:         {409, "Name taken", "extension or sipUsername is a name of another extension of the domain."},
	codeDeleted:           {409, "Extension deleted", "The extension is deleted, for good. Its number can be provisioned again."},
	codeChangedMeanwhile:  {409, "Changed meanwhile", "Somebody else changed the same thing at the same time. Send the request again."},
	codeTenantIDTaken:     {409, "Tenant exists", "The id or the slug belongs to another tenant."},
	codeTenantExists:      {409, "Tenant exists", "There is a tenant of this slug that is not as it is asked for; errors names what differs."},
	codeTenantActive:      {409, "Tenant active", "Only a tenant that is suspended can be deleted."},
	codeDomainInUse:       {409, "Domain in use", "Only a domain whose extensions are all deleted can be deleted."},
	codeTrunkExists:       {409, "Trunk exists", "trunkId belongs to another trunk, or to one that is not as it is asked for."},
	codeTrunkDeleted:      {409, "Trunk deleted", "The trunk is deleted, for good."},
	codeDIDTaken:          {409, "Number taken", "A number of didRanges belongs to another trunk already."},
	codeEventNotDead:      {409, "Event not dead", "Only an event that was given up can be replayed or discarded."},
	codeNodeHasJobs:       {409, "Switch has jobs", "The switch was not told everything, and may run still; errors says how much is left. force=true forgets that too."},
	codeTooLarge:          {413, "Body too large", "The body is larger than 64 KiB."},
	codeUnsupportedMedia:  {415, "Unsupported media type", "The body is JSON, sent as application/json, not compressed."},
	codeInvalid:           {422, "Invalid request", "Some fields are not valid; see errors."},
	codeKeyReused:         {422, "Idempotency-Key reused", "This Idempotency-Key was used for another request."},
	codeRateLimited:       {429, "Too many requests", "There were too many requests. Retry-After says when to come again."},
	codeHeadersTooLarge:   {431, "Headers too large", "The headers are too large."},
	codeInternal:          {500, "Internal error", "Something is wrong here. Our log says what, under requestId."},
	codeUnavailable:       {503, "Unavailable", "The request cannot be worked on now. Send it again a little later."},
}

// Problem is the body of every answer that is no success (RFC 9457). It never repeats a value of the request.
//
//nolint:errname // the name of the RFC, and of the schema in the document
type Problem struct {
	Type      string       `json:"type" format:"uri" doc:"Identifies the kind of problem: urn:edgvoip:problem: and the code." example:"urn:edgvoip:problem:invalid"`
	Title     string       `json:"title" doc:"Short name of the kind." example:"Invalid request"`
	Status    int          `json:"status" doc:"HTTP status." example:"422"`
	Code      Code         `json:"code" doc:"Identifies the kind of problem; does not change." example:"invalid"`
	Detail    string       `json:"detail" doc:"What it means, for people."`
	RequestID string       `json:"requestId,omitempty" doc:"The same as in X-Request-Id and in our log."`
	Errors    []FieldError `json:"errors,omitempty" doc:"What is wrong with which field."`

	retryAfter int      // seconds; zero means that there is nothing to say
	allow      []string // methods that the path has
}

// FieldError says what is wrong with one field.
type FieldError struct {
	Field   string `json:"field" doc:"Name of the field of the body; parameters begin with path., query. or header." example:"sipRealm"`
	Message string `json:"message" doc:"What is wrong, for people. It does not repeat the value." example:"a realm begins with a letter a to z"`
}

func newProblem(code Code, fields ...FieldError) *Problem {
	k := kinds[code]
	p := &Problem{Type: "urn:edgvoip:problem:" + string(code), Title: k.title, Status: k.status, Code: code, Detail: k.detail, Errors: fields}
	if code == codeUnavailable || code == codeChangedMeanwhile {
		p.retryAfter = 1
	}
	return p
}

// Error makes a problem an error.
func (p *Problem) Error() string { return string(p.Code) }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// GetHeaders implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retryAfter > 0 {
		h.Set(fiber.HeaderRetryAfter, strconv.Itoa(p.retryAfter))
	}
	if len(p.allow) > 0 {
		h.Set(fiber.HeaderAllow, strings.Join(p.allow, ", "))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set(fiber.HeaderWWWAuthenticate, `Bearer realm="edgvoip"`)
	}
	return h
}

// asProblem turns a domain's error into a problem. What is no problem of the request goes to the log, and not further.
func asProblem(ctx context.Context, err error) *Problem {
	p := problemOf(err)
	info := infoOf(ctx)
	info.outcome = string(p.Code)
	p.RequestID = telemetry.Correlation(ctx)
	if p.Status >= http.StatusInternalServerError {
		info.event.Attrs = append(info.event.Attrs, slog.String("cause", err.Error()))
	}
	return p
}

// conflicts pairs the errors of domain packages with problems.
var conflicts = []struct {
	err  error
	code Code
}{
	{directory.ErrUnknownExtension, codeNotFound},
	{directory.ErrUnknownTenant, codeNotFound},
	{integration.ErrUnknownSecret, codeNotFound},
	{node.ErrUnknownNode, codeNotFound},
	{cdr.ErrUnknownCall, codeNotFound},
	{cdr.ErrNotReady, codeNotFound},
	{directory.ErrRealmTaken, codeRealmTaken},
	{directory.ErrDomainID, codeDomainMismatch},
	{directory.ErrNameTaken, codeNameTaken},
	{directory.ErrDeleted, codeDeleted},
	{directory.ErrChangedMeanwhile, codeChangedMeanwhile},
	{directory.ErrTenantID, codeTenantIDTaken},
	{directory.ErrTenantActive, codeTenantActive},
	{directory.ErrDomainInUse, codeDomainInUse},
	{directory.ErrUnknownDomain, codeNotFound},
	{trunk.ErrUnknownTrunk, codeNotFound},
	{trunk.ErrUnknownTenant, codeNotFound},
	{trunk.ErrIDTaken, codeTrunkExists},
	{trunk.ErrDeleted, codeTrunkDeleted},
	{trunk.ErrDIDTaken, codeDIDTaken},
	{integration.ErrKeyReused, codeKeyReused},
	{webhook.ErrNoEndpoint, codeNotFound},
	{webhook.ErrUnknownEvent, codeNotFound},
	{webhook.ErrNotDead, codeEventNotDead},
	{context.DeadlineExceeded, codeUnavailable},
	{context.Canceled, codeUnavailable},
	{driver.ErrBadConn, codeUnavailable},
}

// passing is an error that says whether the store is only unavailable for the moment.
type passing interface {
	error
	Unavailable() bool
}

func problemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	if f, ok := errors.AsType[*invalid.FieldError](err); ok {
		return newProblem(codeInvalid, FieldError{f.Name, f.Reason})
	}
	if d, ok := errors.AsType[*directory.TenantDiffersError](err); ok {
		p := newProblem(codeTenantExists)
		for _, name := range d.Fields {
			p.Errors = append(p.Errors, FieldError{name, "is another than the tenant's"})
		}
		return p
	}
	if left, ok := errors.AsType[*node.JobsLeftError](err); ok {
		return newProblem(codeNodeHasJobs, FieldError{"query.force", left.Error()})
	}
	for _, c := range conflicts {
		if errors.Is(err, c.err) {
			return newProblem(c.code)
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return newProblem(codeUnavailable)
	}
	if p, ok := errors.AsType[passing](err); ok && p.Unavailable() {
		return newProblem(codeUnavailable)
	}
	return newProblem(codeInternal)
}

// huma makes its errors with these two functions of its own, which are the same for every API of a process.
func init() {
	huma.NewError = func(status int, _ string, errs ...error) huma.StatusError { return fromHuma(status, errs) }
	huma.NewErrorWithContext = func(c huma.Context, status int, _ string, errs ...error) huma.StatusError {
		p := fromHuma(status, errs)
		ctx := c.Context()
		p.RequestID = telemetry.Correlation(ctx)
		info := infoOf(ctx)
		info.outcome = string(p.Code)
		return p
	}
	// A field has one spelling, and a list that is not given is not there.
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
}

// fromHuma turns what huma found wrong with a request into a problem, without the values that it would show.
func fromHuma(status int, errs []error) *Problem {
	code := codeInternal
	for c, k := range kinds {
		if k.status == status && (c != codeKeyReused && c != codeIdempotencyHeader && c != codeKeyNotTaken) {
			code = c
		}
	}
	p := newProblem(code)
	for _, err := range errs {
		var d huma.ErrorDetailer
		if code != codeInvalid || !errors.As(err, &d) {
			continue
		}
		detail := d.ErrorDetail()
		// What comes after a colon is another error's text, which may show the value.
		message, _, _ := strings.Cut(detail.Message, ":")
		if m := missing.FindStringSubmatch(message); m != nil {
			p.Errors = append(p.Errors, FieldError{fieldName(detail.Location + "." + m[1]), "is missing"})
			continue
		}
		p.Errors = append(p.Errors, FieldError{fieldName(detail.Location), message})
	}
	return p
}

// missing is how huma says that a field of ours is not there; it says so of the object.
var missing = regexp.MustCompile(`^expected required property (\S+) to be present$`)

var plainName = regexp.MustCompile(`^[A-Za-z0-9_.\[\]-]{1,64}$`)

// fieldName names a field of the body as it is, and a parameter by where it is. A name that the client made up may be
// anything.
func fieldName(location string) string {
	name := strings.TrimPrefix(location, "body.")
	if !plainName.MatchString(name) {
		return "body"
	}
	return name
}

// answerFault writes the answer to what never reached a handler of this package, or ended in no problem.
func answerFault(c *fiber.Ctx, status int, _ string) {
	code := codeInternal
	switch status {
	case http.StatusBadRequest:
		code = codeMalformed
	case http.StatusNotFound:
		code = codeNotFound
	case http.StatusMethodNotAllowed:
		code = codeMethodNotAllowed
	case http.StatusRequestTimeout:
		code = codeRequestTimeout
	case http.StatusRequestEntityTooLarge:
		code = codeTooLarge
	case http.StatusRequestHeaderFieldsTooLarge:
		code = codeHeadersTooLarge
	case http.StatusServiceUnavailable:
		code = codeUnavailable
	}
	writeProblem(c, newProblem(code))
}

// writeProblem answers with a problem outside of huma.
func writeProblem(c *fiber.Ctx, p *Problem) {
	p.RequestID = telemetry.Correlation(c.UserContext())
	body, err := json.Marshal(p)
	if err != nil {
		body = nil // a struct of texts and numbers always has a JSON form
	}
	for name, values := range p.GetHeaders() {
		c.Set(name, values[0])
	}
	c.Set(fiber.HeaderContentType, problemType)
	_ = c.Status(p.Status).Send(body) // Send fails never: it sets the body
}

// refuse answers with a problem and says in the log why.
func refuse(c *fiber.Ctx, p *Problem, reason string) error {
	if reason != "" {
		httpd.EventOf(c).Add("reason", reason)
	}
	infoOf(c.UserContext()).outcome = string(p.Code)
	writeProblem(c, p)
	return nil
}
