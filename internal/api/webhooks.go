package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/webhook"
)

// webhookEvents are what the API asks of events to W3.
type webhookEvents interface {
	// Events returns a tenant's events that a filter selects, the newest first.
	Events(ctx context.Context, tenant uuid.UUID, f webhook.Filter) ([]webhook.Delivery, error)
	// EventAttempts returns a tenant's event and what came of each attempt to send it. Error: webhook.ErrUnknownEvent.
	EventAttempts(ctx context.Context, tenant uuid.UUID, id int64) (webhook.Delivery, []webhook.Attempt, error)
	// ReplayEvent and DiscardEvent make a dead event due again, or give it up for good. Errors:
	// webhook.ErrUnknownEvent, webhook.ErrNotDead.
	ReplayEvent(ctx context.Context, tenant uuid.UUID, id int64, actor string) error
	DiscardEvent(ctx context.Context, tenant uuid.UUID, id int64, actor string) error
	// ReplayEvents makes a tenant's dead events due again, all if no numbers are given, and returns how many there
	// were.
	ReplayEvents(ctx context.Context, tenant uuid.UUID, ids []int64, actor string) (int, error)
}

// The routes of one tenant's webhooks.
const (
	endpointPath = "/tenants/{tenantId}/webhook-endpoint"
	eventsPath   = "/tenants/{tenantId}/webhook-events"
)

func (a *API) registerWebhooks() {
	handle(a, adminOperation("put-webhook-endpoint", http.MethodPut, endpointPath,
		"Say where W3 takes a tenant's events; the same again changes nothing", 404, 422), a.putEndpoint)
	handle(a, adminOperation("get-webhook-endpoint", http.MethodGet, endpointPath, "Read where W3 takes a tenant's events", 404, 422), a.getEndpoint)
	handle(a, adminOperation("delete-webhook-endpoint", http.MethodDelete, endpointPath,
		"Forget where W3 takes a tenant's events; they wait for another endpoint", 404, 422), a.deleteEndpoint)
	handle(a, adminOperation("list-webhook-events", http.MethodGet, eventsPath, "List a tenant's events, the newest first, without their bodies", 404, 422), a.listEvents)
	handle(a, adminOperation("get-webhook-event", http.MethodGet, eventsPath+"/{eventId}", "Inspect an event: its body, and each attempt to send it", 404, 422), a.getEvent)
	replay := adminOperation("replay-webhook-event", http.MethodPost, eventsPath+"/{eventId}/replay", "Send an event again that was given up, under the same key", 404, 409, 422)
	replay.DefaultStatus = http.StatusNoContent
	handle(a, replay, a.replayEvent)
	discard := adminOperation("discard-webhook-event", http.MethodPost, eventsPath+"/{eventId}/discard", "Give an event up for good", 404, 409, 422)
	discard.DefaultStatus = http.StatusNoContent
	handle(a, discard, a.discardEvent)
	handle(a, adminOperation("replay-webhook-events", http.MethodPost, eventsPath+"/replay", "Send all events again that were given up", 404, 422), a.replayEvents)
	a.describeWebhooks()
}

// NewEndpoint is the body of PUT /tenants/{tenantId}/webhook-endpoint.
type NewEndpoint struct {
	BaseURL string `json:"baseUrl" doc:"https:// with host, port and leading path; /api/webhooks/voip/… is put behind it." example:"https://w3suite.example"`
	Status  string `json:"status,omitempty" enum:"active,paused" default:"active" doc:"A paused endpoint is sent nothing; its events wait."`
}

// Endpoint is where W3 takes a tenant's events.
type Endpoint struct {
	BaseURL   string     `json:"baseUrl" example:"https://w3suite.example"`
	Status    string     `json:"status" enum:"active,paused"`
	CreatedAt *time.Time `json:"createdAt,omitempty"`
	UpdatedAt *time.Time `json:"updatedAt,omitempty"`
}

func endpointOf(e webhook.Endpoint) *body[Endpoint] {
	out := Endpoint{BaseURL: e.BaseURL.String(), Status: "paused", CreatedAt: stamp(e.CreatedAt), UpdatedAt: stamp(e.UpdatedAt)}
	if e.Active {
		out.Status = "active"
	}
	return &body[Endpoint]{out}
}

func (a *API) putEndpoint(ctx context.Context, in *struct {
	ByTenant
	Body NewEndpoint
},
) (*body[Endpoint], error) {
	active := in.Body.Status != "paused"
	e, err := a.endpoints.Put(ctx, in.TenantID, webhook.Change{BaseURL: &in.Body.BaseURL, Active: &active}, infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	return endpointOf(e), nil
}

func (a *API) getEndpoint(ctx context.Context, in *ByTenant) (*body[Endpoint], error) {
	e, err := a.store.Endpoint(ctx, in.TenantID)
	if err != nil {
		return nil, err
	}
	return endpointOf(e), nil
}

func (a *API) deleteEndpoint(ctx context.Context, in *ByTenant) (*struct{}, error) {
	return nil, a.store.RemoveEndpoint(ctx, in.TenantID, infoOf(ctx).operator.Actor())
}

// WebhookEvent is an event to W3 as operators see it in a list.
type WebhookEvent struct {
	ID             int64      `json:"eventId" doc:"Number of the event, which W3 is sent as X-edgvoip-Sequence."`
	Key            uuid.UUID  `json:"key" format:"uuid" doc:"X-Idempotency-Key."`
	Kind           string     `json:"kind" enum:"trunk.created,trunk.updated,trunk.deleted,cdr"`
	Subject        uuid.UUID  `json:"subject" format:"uuid" doc:"The trunk or the call."`
	State          string     `json:"state" enum:"pending,leased,delivered,dead,discarded" doc:"leased is being sent; dead was given up."`
	Attempts       int        `json:"attempts"`
	CreatedAt      time.Time  `json:"createdAt"`
	DueAt          *time.Time `json:"dueAt,omitempty" doc:"When it is sent next, at the earliest; not there if it is not to be sent."`
	FirstAttemptAt *time.Time `json:"firstAttemptAt,omitempty"`
	FinishedAt     *time.Time `json:"finishedAt,omitempty" doc:"When it was delivered, given up or discarded."`
	LastError      string     `json:"lastError,omitempty" doc:"Why the last attempt failed."`
	CorrelationID  string     `json:"correlationId,omitempty" doc:"X-Request-Id of the request that caused it."`
}

func webhookEventOf(d webhook.Delivery) WebhookEvent {
	out := WebhookEvent{
		ID: d.ID, Key: d.Key, Kind: string(d.Kind), Subject: d.Subject, State: string(d.State), Attempts: d.Attempts, CreatedAt: d.CreatedAt.UTC(),
		FirstAttemptAt: stamp(d.FirstAttemptAt), FinishedAt: stamp(d.FinishedAt), LastError: d.LastError, CorrelationID: d.CorrelationID,
	}
	if d.FinishedAt.IsZero() {
		out.DueAt = stamp(d.DueAt)
	}
	return out
}

func (a *API) listEvents(ctx context.Context, in *struct {
	ByTenant
	Paged
	State string `query:"state" enum:"pending,leased,delivered,dead,discarded" doc:"Only those of this state."`
},
) (*body[page[WebhookEvent]], error) {
	f := webhook.Filter{State: webhook.State(in.State), Limit: in.Limit + 1}
	parts, err := parseCursor(in.Cursor, 1)
	if err != nil {
		return nil, err
	}
	if in.Cursor != "" {
		if f.BeforeID, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
			return nil, errCursor
		}
	}
	if _, err := a.store.Tenant(ctx, in.TenantID); err != nil {
		return nil, err
	}
	events, err := a.store.Events(ctx, in.TenantID, f)
	if err != nil {
		return nil, err
	}
	list := make([]WebhookEvent, len(events))
	for i, e := range events {
		list[i] = webhookEventOf(e)
	}
	return &body[page[WebhookEvent]]{cut(list, in.Limit, func(e WebhookEvent) string { return newCursor(strconv.FormatInt(e.ID, 10)) })}, nil
}

// ByEvent are the parameters of a route about one event.
type ByEvent struct {
	ByTenant
	EventID int64 `path:"eventId" minimum:"1"`
}

// WebhookAttempt is what came of sending an event once.
type WebhookAttempt struct {
	Number     int       `json:"attempt" doc:"A number is missing where a process of ours died in the middle."`
	At         time.Time `json:"at"`
	DurationMS int64     `json:"durationMs"`
	Status     int       `json:"status,omitempty" doc:"HTTP status; not there if there was no answer."`
	Error      string    `json:"error,omitempty" doc:"Why it failed; not there if it did not."`
}

// InspectedEvent is an event with everything that is known of it.
type InspectedEvent struct {
	WebhookEvent

	Body json.RawMessage  `json:"body" doc:"As it is sent."`
	Log  []WebhookAttempt `json:"log" doc:"Each attempt to send it, the first first."`
}

func (a *API) getEvent(ctx context.Context, in *ByEvent) (*body[InspectedEvent], error) {
	event, attempts, err := a.store.EventAttempts(ctx, in.TenantID, in.EventID)
	if err != nil {
		return nil, err
	}
	out := InspectedEvent{WebhookEvent: webhookEventOf(event), Body: event.Payload, Log: make([]WebhookAttempt, len(attempts))}
	for i, t := range attempts {
		out.Log[i] = WebhookAttempt{Number: t.Number, At: t.At.UTC(), DurationMS: t.Duration.Milliseconds(), Status: t.Status, Error: t.Error}
	}
	return &body[InspectedEvent]{out}, nil
}

func (a *API) replayEvent(ctx context.Context, in *ByEvent) (*struct{}, error) {
	return nil, a.store.ReplayEvent(ctx, in.TenantID, in.EventID, infoOf(ctx).operator.Actor())
}

func (a *API) discardEvent(ctx context.Context, in *ByEvent) (*struct{}, error) {
	return nil, a.store.DiscardEvent(ctx, in.TenantID, in.EventID, infoOf(ctx).operator.Actor())
}

// Replayed is how many events or jobs were made due again.
type Replayed struct {
	Replayed int `json:"replayed"`
}

func (a *API) replayEvents(ctx context.Context, in *ByTenant) (*body[Replayed], error) {
	if _, err := a.store.Tenant(ctx, in.TenantID); err != nil {
		return nil, err
	}
	n, err := a.store.ReplayEvents(ctx, in.TenantID, nil, infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	return &body[Replayed]{Replayed{n}}, nil
}

// outgoing is a webhook as the document describes it.
type outgoing struct {
	name, path, summary, description string
	kinds                            []any
	body                             *huma.Schema
}

// describeWebhooks puts what we send to W3 into the document.
func (a *API) describeWebhooks() {
	o := a.huma.OpenAPI()
	o.Webhooks = map[string]*huma.PathItem{}
	for _, w := range []outgoing{
		{
			"trunk", webhook.TrunkPath, "A trunk was created, changed or deleted", "Events of one trunk arrive in order.",
			[]any{string(webhook.TrunkCreated), string(webhook.TrunkUpdated), string(webhook.TrunkDeleted)},
			trunkEventSchema(o),
		},
		{
			"cdr", webhook.CDRPath, "A call has ended, or its record was completed", "Events of one call arrive in order. One with absorbedBy ends the call: it turned out to be a part of another.",
			[]any{string(webhook.CDR)},
			callEventSchema(o),
		},
	} {
		o.Webhooks[w.name] = &huma.PathItem{Post: w.operation()}
	}
}

// trunkEventSchema is the body of a trunk's events.
func trunkEventSchema(o *huma.OpenAPI) *huma.Schema {
	return o.Components.Schemas.Schema(reflect.TypeFor[webhook.TrunkEvent](), true, "TrunkEvent")
}

// callEventSchema is the body of a call's events.
func callEventSchema(o *huma.OpenAPI) *huma.Schema {
	return o.Components.Schemas.Schema(reflect.TypeFor[cdr.Event](), true, "CallEvent")
}

func (w outgoing) operation() *huma.Operation {
	header := func(name, description string, schema huma.Schema) *huma.Param {
		return &huma.Param{Name: name, In: "header", Required: true, Description: description, Schema: &schema}
	}
	return &huma.Operation{
		OperationID: "webhook-" + w.name, Summary: w.summary, Tags: []string{"webhooks"},
		Description: "Posted to " + w.path + " under the tenant's base URL, and again until it is answered 2xx, for 72 hours. " + w.description,
		Parameters: []*huma.Param{
			header(webhook.HeaderKey, "The same for every attempt to send the event, and for no other event.", huma.Schema{Type: huma.TypeString, Format: "uuid"}),
			header(webhook.HeaderTimestamp, "When it was signed, in Unix seconds.", huma.Schema{Type: huma.TypeString, Pattern: "^[0-9]+$"}),
			header(webhook.HeaderSignature, "sha256= and, in lower-case hexadecimal, the HMAC-SHA256 with the tenant's signing secret over X-Timestamp, method, path and body, "+
				"one after the other; during a rotation one for each secret, separated by a comma.",
				huma.Schema{Type: huma.TypeString, Pattern: "^sha256=[0-9a-f]{64}(, sha256=[0-9a-f]{64})*$"}),
			header(webhook.HeaderEvent, "What the event tells.", huma.Schema{Type: huma.TypeString, Enum: w.kinds}),
			header(webhook.HeaderSubject, "The trunk or the call.", huma.Schema{Type: huma.TypeString, Format: "uuid"}),
			header(webhook.HeaderSequence, "Of two events of one subject the one with the higher number tells the newer state.", huma.Schema{Type: huma.TypeInteger, Format: "int64"}),
		},
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: w.body}}},
		Responses: map[string]*huma.Response{
			"2XX": {Description: "W3 has taken the event for good."},
			"default": {
				Description: "It has not: the event is sent again, also after a redirect, which is not followed.",
				Headers:     map[string]*huma.Param{"Retry-After": {Description: "Seconds or a date; at most an hour.", Schema: &huma.Schema{Type: huma.TypeString}}},
			},
		},
	}
}
