package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// adminOperation describes an operation of the operators' part.
func adminOperation(id, method, path, summary string, problems ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: AdminPath + path, Summary: summary, Tags: []string{"admin"},
		Security:     []map[string][]string{{"operator": {}}},
		Errors:       append([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable}, problems...),
		MaxBodyBytes: -1,
	}
}

func (a *API) registerAdmin() {
	handle(a, adminOperation("list-tenants", http.MethodGet, "/tenants", "List tenants"), a.listTenants)
	create := adminOperation("create-tenant", http.MethodPost, "/tenants", "Create a tenant; the same again changes nothing", 409, 422)
	create.DefaultStatus = http.StatusOK
	create.Description = "If there is one of this slug, what is given must be as it is; what is not given may be anything."
	handle(a, create, a.createTenant)
	change := adminOperation("change-tenant", http.MethodPatch, "/tenants/{tenantId}", "Change a tenant, suspend it or let it work again, and say which of its calls are recorded and how long that is kept", 404, 422)
	change.Description = "All that is given, or nothing. Numbers that were given in national form stay what they were taken for when the country changes. " +
		"With the timezone, W3 is told of the trunks anew."
	handle(a, change, a.changeTenant)
	a.registerEndings()
	handle(a, adminOperation("list-secrets", http.MethodGet, "/tenants/{tenantId}/secrets", "List a tenant's credentials", 404, 422), a.listSecrets)
	add := adminOperation("create-secret", http.MethodPost, "/tenants/{tenantId}/secrets", "Give a tenant new credentials; they are shown this once", 404, 422)
	add.DefaultStatus = http.StatusCreated
	handle(a, add, a.createSecret)
	rotate := adminOperation("rotate-secret", http.MethodPost, "/tenants/{tenantId}/secrets/rotate",
		"Give a tenant new credentials, shown this once; the others end after the overlap", 404, 422)
	rotate.DefaultStatus = http.StatusCreated
	handle(a, rotate, a.rotateSecret)
	handle(a, adminOperation("revoke-secret", http.MethodDelete, "/tenants/{tenantId}/secrets/{secretId}", "End credentials at once", 404, 422), a.revokeSecret)
	handle(a, adminOperation("list-audit", http.MethodGet, "/audit", "Read the audit log, the newest first", 422), a.listAudit)
	handle(a, adminOperation("explain", http.MethodGet, "/explain", "Tell where a call would go, and why", 422), a.explain)
}

// Tenant is a tenant as operators see it.
type Tenant struct {
	ID        uuid.UUID  `json:"tenantId" format:"uuid"`
	Slug      string     `json:"slug"`
	Name      string     `json:"name"`
	Country   string     `json:"country"`
	Status    string     `json:"status" enum:"active,suspended"`
	Timezone  string     `json:"timezone,omitempty"`
	CreatedAt *time.Time `json:"createdAt,omitempty"`
	*CallPolicy
}

// CallPolicy is what a tenant wants of its call records.
type CallPolicy struct {
	RecordCalls   string `json:"recordCalls" enum:"none,inbound,outbound,external,all" doc:"Which calls are recorded; external is inbound and outbound."`
	CDRDays       int    `json:"cdrDays" doc:"How many days call records are kept; 0 is for ever."`
	RecordingDays int    `json:"recordingDays" doc:"How many days recordings are kept; 0 is as long as the records."`
}

func policyOf(p cdr.Policy) *CallPolicy {
	return &CallPolicy{RecordCalls: string(p.RecordCalls), CDRDays: p.CDRDays, RecordingDays: p.RecordingDays}
}

func tenantOf(t directory.TenantRecord) Tenant {
	out := Tenant{
		ID: t.ID, Slug: t.Slug.String(), Name: t.Name.String(), Country: t.Country.String(), Status: "suspended", Timezone: t.Timezone,
		CreatedAt: stamp(t.CreatedAt),
	}
	if t.Active {
		out.Status = "active"
	}
	return out
}

func (a *API) listTenants(ctx context.Context, _ *struct{}) (*body[page[Tenant]], error) {
	records, err := a.store.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	policies, err := a.store.CallPolicies(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Tenant, len(records))
	for i, t := range records {
		list[i] = tenantOf(t)
		list[i].CallPolicy = policyOf(policies[t.ID])
	}
	return &body[page[Tenant]]{page[Tenant]{Items: list}}, nil
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// NewTenant is the body of POST /tenants.
type NewTenant struct {
	ID       *uuid.UUID `json:"tenantId,omitempty" format:"uuid" doc:"W3's id of the tenant; made up if it is not given."`
	Slug     string     `json:"slug" doc:"Short name, for ever."`
	Name     string     `json:"name" minLength:"1"`
	Country  string     `json:"country" doc:"ISO 3166-1 alpha-2." example:"IT"`
	Timezone string     `json:"timezone,omitempty" doc:"IANA; UTC if it is not given." example:"Europe/Rome"`
}

func (a *API) createTenant(ctx context.Context, in *struct{ Body NewTenant }) (*body[Tenant], error) {
	b := in.Body
	t, err := a.provisioner.PutTenant(ctx, directory.TenantSpec{
		ID: given(b.ID), Slug: b.Slug, Name: b.Name, Country: b.Country, Timezone: b.Timezone,
	}, infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	return &body[Tenant]{tenantOf(t)}, nil
}

// ByTenant are the parameters of a route about one tenant.
type ByTenant struct {
	TenantID uuid.UUID `path:"tenantId" format:"uuid"`
}

// ChangedTenant is the body of PATCH /tenants/{tenantId}. What is not given stays as it is.
type ChangedTenant struct {
	Name          *string `json:"name,omitempty"`
	Country       *string `json:"country,omitempty" doc:"ISO 3166-1 alpha-2: how numbers dialled in national form are read, and which call for help."`
	Timezone      *string `json:"timezone,omitempty" doc:"IANA: that of time policies without one of their own."`
	Status        *string `json:"status,omitempty" enum:"active,suspended" doc:"suspended refuses its phones, calls and requests."`
	RecordCalls   *string `json:"recordCalls,omitempty" enum:"none,inbound,outbound,external,all" doc:"Which calls are recorded; external is inbound and outbound."`
	CDRDays       *int    `json:"cdrDays,omitempty" doc:"How many days call records are kept; 0 is for ever."`
	RecordingDays *int    `json:"recordingDays,omitempty" doc:"How many days recordings are kept; 0 is as long as the records."`
}

func (a *API) changeTenant(ctx context.Context, in *struct {
	ByTenant
	Body ChangedTenant
},
) (*body[Tenant], error) {
	patch := directory.TenantPatch{Name: in.Body.Name, Country: in.Body.Country, Timezone: in.Body.Timezone}
	if in.Body.Status != nil {
		patch.Active = new(*in.Body.Status == "active")
	}
	change, err := patch.Change()
	if err != nil {
		return nil, err
	}
	t, policy, err := a.store.ChangeTenant(ctx, in.TenantID, change, cdr.PolicyPatch{
		RecordCalls: in.Body.RecordCalls, CDRDays: in.Body.CDRDays, RecordingDays: in.Body.RecordingDays,
	}, infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	out := tenantOf(t)
	out.CallPolicy = policyOf(policy)
	return &body[Tenant]{out}, nil
}

// Secret is what can be shown of a tenant's credentials.
type Secret struct {
	ID         uuid.UUID  `json:"secretId" format:"uuid"`
	Valid      bool       `json:"valid"`
	CreatedAt  *time.Time `json:"createdAt,omitempty"`
	RotatedAt  *time.Time `json:"rotatedAt,omitempty" doc:"When others took their place."`
	ExpiresAt  *time.Time `json:"expiresAt,omitempty" doc:"Not there if they have no end."`
	LastUsedAt *time.Time `json:"lastUsedAt,omitempty" doc:"To about ten seconds."`
}

func (a *API) listSecrets(ctx context.Context, in *ByTenant) (*body[page[Secret]], error) {
	if _, err := a.store.Tenant(ctx, in.TenantID); err != nil {
		return nil, err
	}
	secrets, err := a.store.Secrets(ctx, in.TenantID)
	if err != nil {
		return nil, err
	}
	list := make([]Secret, len(secrets))
	for i, s := range secrets {
		list[i] = Secret{
			ID: s.ID, Valid: s.Valid(a.now()), CreatedAt: stamp(s.CreatedAt), RotatedAt: stamp(s.RotatedAt),
			ExpiresAt: stamp(s.ExpiresAt), LastUsedAt: stamp(s.LastUsedAt),
		}
	}
	return &body[page[Secret]]{page[Secret]{Items: list}}, nil
}

// NewSecret are new credentials, shown once.
type NewSecret struct {
	ID         uuid.UUID `json:"secretId" format:"uuid"`
	Bearer     string    `json:"bearerToken" doc:"For Authorization: Bearer."`
	HMACSecret string    `json:"hmacSecret" doc:"To sign with: its text as it is here is the key."`
}

func shown(i integration.Issued, err error) (*body[NewSecret], error) {
	if err != nil {
		return nil, err
	}
	return &body[NewSecret]{NewSecret{i.ID, i.Bearer, i.HMAC}}, nil
}

func (a *API) createSecret(ctx context.Context, in *ByTenant) (*body[NewSecret], error) {
	return shown(a.issuer.Add(ctx, in.TenantID, infoOf(ctx).operator.Actor()))
}

// Rotation is the body of POST /tenants/{tenantId}/secrets/rotate.
type Rotation struct {
	OverlapSeconds int `json:"overlapSeconds" minimum:"0" maximum:"2592000" doc:"How long the others live on."`
}

func (a *API) rotateSecret(ctx context.Context, in *struct {
	ByTenant
	Body Rotation
},
) (*body[NewSecret], error) {
	return shown(a.issuer.Rotate(ctx, in.TenantID, time.Duration(in.Body.OverlapSeconds)*time.Second, infoOf(ctx).operator.Actor()))
}

func (a *API) revokeSecret(ctx context.Context, in *struct {
	ByTenant
	SecretID uuid.UUID `path:"secretId" format:"uuid"`
},
) (*struct{}, error) {
	return nil, a.issuer.Revoke(ctx, in.TenantID, in.SecretID, infoOf(ctx).operator.Actor())
}

// AuditEntry is one row of the audit log.
type AuditEntry struct {
	ID            int64           `json:"id"`
	At            time.Time       `json:"at"`
	TenantID      *uuid.UUID      `json:"tenantId,omitempty" format:"uuid" doc:"Not there for what belongs to no tenant."`
	Actor         string          `json:"actor" example:"operator:anna" doc:"operator: and the name of a token, w3: and whose credentials, or cli: and who ran a command on which host."`
	Action        string          `json:"action" example:"extension.updated"`
	SubjectID     uuid.UUID       `json:"subjectId" format:"uuid"`
	CorrelationID string          `json:"correlationId,omitempty" doc:"X-Request-Id of the request that did it, or the id of the command."`
	Before        json.RawMessage `json:"before,omitempty"`
	After         json.RawMessage `json:"after,omitempty"`
}

func (a *API) listAudit(ctx context.Context, in *struct {
	Paged
	TenantID  string `query:"tenantId" format:"uuid"`
	SubjectID string `query:"subjectId" format:"uuid"`
	Actor     string `query:"actor" maxLength:"128"`
	Action    string `query:"action" maxLength:"64"`

	CorrelationID string    `query:"correlationId" maxLength:"128" doc:"What one request or command did."`
	From          time.Time `query:"from" doc:"What was done then or later."`
	To            time.Time `query:"to" doc:"What was done before."`
},
) (*body[page[AuditEntry]], error) {
	f := integration.AuditFilter{
		Actor: in.Actor, Action: in.Action, CorrelationID: in.CorrelationID, From: in.From, To: in.To, Limit: in.Limit + 1,
	}
	if !in.From.IsZero() && !in.To.IsZero() && !in.From.Before(in.To) {
		return nil, &invalid.FieldError{Name: "query.to", Reason: "is not after from"}
	}
	parts, err := parseCursor(in.Cursor, 1)
	if err != nil {
		return nil, err
	}
	if in.Cursor != "" {
		if f.BeforeID, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
			return nil, errCursor
		}
	}
	// huma has checked their form.
	f.TenantID, _ = uuid.Parse(in.TenantID)
	f.SubjectID, _ = uuid.Parse(in.SubjectID)
	entries, err := a.store.AuditLog(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]AuditEntry, len(entries))
	for i, e := range entries {
		list[i] = AuditEntry{
			ID: e.ID, At: e.At.UTC(), TenantID: optional(e.TenantID), Actor: e.Actor, Action: e.Action, SubjectID: e.SubjectID,
			CorrelationID: e.CorrelationID, Before: e.Before, After: e.After,
		}
	}
	return &body[page[AuditEntry]]{cut(list, in.Limit, func(e AuditEntry) string { return newCursor(strconv.FormatInt(e.ID, 10)) })}, nil
}
