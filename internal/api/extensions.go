package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/node"
	"github.com/edgvoip/edgvoip/numbering"
)

// Extension is an extension as it is stored.
type Extension struct {
	ID                   uuid.UUID  `json:"edgvoipExtensionId" format:"uuid"`
	TenantID             uuid.UUID  `json:"tenantId" format:"uuid"`
	DomainID             *uuid.UUID `json:"domainId,omitempty" format:"uuid" doc:"W3's id of the domain, if W3 gave it."`
	DomainName           string     `json:"domainName,omitempty"`
	SIPRealm             string     `json:"sipRealm"`
	Extension            string     `json:"extension"`
	SIPUsername          string     `json:"sipUsername"`
	DisplayName          string     `json:"displayName"`
	Transport            string     `json:"transport" doc:"any, udp, tcp, tls or wss."`
	AllowedCodecs        []string   `json:"allowedCodecs" doc:"In order of preference."`
	MaxConcurrentCalls   int        `json:"maxConcurrentCalls" doc:"Made and received together; 0 means no limit."`
	OutboundCallerNumber string     `json:"outboundCallerNumber,omitempty" doc:"E.164."`
	Status               string     `json:"status" doc:"active, suspended or deleted."`
	W3ExtensionID        *uuid.UUID `json:"w3ExtensionId,omitempty" format:"uuid"`
	WSEndpoint           string     `json:"wsEndpoint" doc:"Where a softphone in a browser registers."`
	CreatedAt            time.Time  `json:"createdAt"`
	UpdatedAt            time.Time  `json:"updatedAt"`
}

func (a *API) extension(e directory.ExtensionRecord) Extension {
	return Extension{
		ID: e.ID, TenantID: e.TenantID, DomainID: optional(e.W3DomainID), DomainName: e.DomainName.String(), SIPRealm: e.Realm.String(),
		Extension: e.Number.String(), SIPUsername: e.Username.String(), DisplayName: e.Name.String(), Transport: string(e.Transport),
		AllowedCodecs: e.Codecs.Names(), MaxConcurrentCalls: e.MaxCalls, OutboundCallerNumber: e.CallerID.String(), Status: string(e.Status),
		W3ExtensionID: optional(e.W3ExtensionID), WSEndpoint: a.endpoint(e.Realm.String()), CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC(),
	}
}

func (a *API) endpoint(realm string) string {
	return strings.ReplaceAll(a.wsEndpoint, "{realm}", realm)
}

func optional(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

// NewExtension is the body of POST /extensions.
type NewExtension struct {
	TenantID             uuid.UUID  `json:"tenantId" format:"uuid" doc:"The tenant of the credentials."`
	DomainID             *uuid.UUID `json:"domainId,omitempty" format:"uuid" doc:"W3's id of the domain. Once given for a realm, it stays."`
	DomainName           string     `json:"domainName,omitempty" maxLength:"64" doc:"W3's name of the domain."`
	SIPRealm             string     `json:"sipRealm" doc:"A host name in lower case; phones are challenged with it."`
	Extension            string     `json:"extension" doc:"2 to 12 digits."`
	SIPUsername          string     `json:"sipUsername,omitempty" doc:"What the phone logs in with; the extension's number if it is not given."`
	SIPPassword          string     `json:"sipPassword" doc:"6 to 128 bytes. It is not kept."`
	DisplayName          string     `json:"displayName,omitempty" doc:"1 to 64 printable characters; the extension's number if it is not given."`
	Transport            string     `json:"transport,omitempty" doc:"What the phone must use: any (the default), udp, tcp, tls, wss; in any letter case." example:"WSS"`
	AllowedCodecs        []string   `json:"allowedCodecs,omitempty" doc:"In order of preference, of OPUS, G722, PCMA, PCMU, GSM, of which one at least is there, and G729, VP8, H264, which not every switch speaks; in any letter case. Default: OPUS, G722, PCMA, PCMU."`
	MaxConcurrentCalls   *int       `json:"maxConcurrentCalls,omitempty" doc:"0 to 1000; 0 means no limit. Default: 2."`
	OutboundCallerNumber string     `json:"outboundCallerNumber,omitempty" doc:"E.164; shown to the public network where the trunk's policy says so."`
	W3ExtensionID        *uuid.UUID `json:"w3ExtensionId,omitempty" format:"uuid" doc:"W3's id of the extension."`
}

const defaultMaxCalls = 2

func (n NewExtension) spec() directory.ExtensionSpec {
	s := directory.ExtensionSpec{
		TenantID: n.TenantID, W3DomainID: given(n.DomainID), W3ExtensionID: given(n.W3ExtensionID), DomainName: n.DomainName, Realm: n.SIPRealm,
		Extension: n.Extension, SIPUsername: n.SIPUsername, SIPPassword: n.SIPPassword, DisplayName: n.DisplayName, Transport: n.Transport,
		AllowedCodecs: n.AllowedCodecs, MaxConcurrentCalls: defaultMaxCalls, OutboundCallerNumber: n.OutboundCallerNumber,
	}
	if n.MaxConcurrentCalls != nil {
		s.MaxConcurrentCalls = *n.MaxConcurrentCalls
	}
	return s
}

func given(id *uuid.UUID) uuid.UUID {
	if id == nil {
		return uuid.Nil
	}
	return *id
}

// Provisioned is the answer to POST /extensions.
type Provisioned struct {
	Success    bool      `json:"success"`
	ID         uuid.UUID `json:"edgvoipExtensionId" format:"uuid"`
	Status     string    `json:"status" enum:"provisioned"`
	WSEndpoint string    `json:"wsEndpoint" doc:"Where a softphone in a browser registers."`
}

// Deleted is the answer to DELETE /extensions/{id}.
type Deleted struct {
	Success bool      `json:"success"`
	ID      uuid.UUID `json:"edgvoipExtensionId" format:"uuid"`
	Status  string    `json:"status" enum:"deleted"`
}

// ChangedExtension is the body of PATCH /extensions/{id}. What is not given stays as it is.
type ChangedExtension struct {
	DisplayName          *string  `json:"displayName,omitempty"`
	Status               *string  `json:"status,omitempty" enum:"active,suspended" doc:"suspended refuses the phone and drops its registration."`
	AllowedCodecs        []string `json:"allowedCodecs,omitempty" minItems:"1"`
	MaxConcurrentCalls   *int     `json:"maxConcurrentCalls,omitempty"`
	Transport            *string  `json:"transport,omitempty"`
	OutboundCallerNumber *string  `json:"outboundCallerNumber,omitempty" doc:"An empty text takes it away."`
	SIPPassword          *string  `json:"sipPassword,omitempty" doc:"A new password drops the registration."`
}

func (c ChangedExtension) patch() directory.ExtensionPatch {
	return directory.ExtensionPatch{
		DisplayName: c.DisplayName, Status: c.Status, AllowedCodecs: c.AllowedCodecs, MaxConcurrentCalls: c.MaxConcurrentCalls,
		Transport: c.Transport, OutboundCallerNumber: c.OutboundCallerNumber, SIPPassword: c.SIPPassword,
	}
}

// ByID are the parameters of a route about one extension.
type ByID struct {
	ID uuid.UUID `path:"id" format:"uuid" doc:"edgvoipExtensionId"`
}

// Keyed is the parameter of every write. Exported, like all that huma is to look into.
type Keyed struct {
	Key string `header:"Idempotency-Key" maxLength:"255" doc:"The same key with the same request has its effect once, for 24 hours: a repetition is answered as the first was, with Idempotent-Replayed: true."`
}

// written is the answer to a write.
type written[T any] struct {
	Status   int
	Replayed string `header:"Idempotent-Replayed" doc:"true if the answer is that of an earlier request with the same Idempotency-Key."`
	Body     T
}

type body[T any] struct{ Body T }

func (a *API) registerExtensions() {
	put := operation("put-extension", http.MethodPost, "/extensions", "Provision an extension",
		"Creates the extension of this realm and number, and the domain if need be, or brings it to what is asked for. The same again changes nothing. "+
			"201 if it was created, 200 if it was there. A suspended extension stays suspended.", 403, 409, 413, 415, 422)
	put.DefaultStatus = http.StatusCreated
	handle(a, put, a.putExtension)
	a.alike(put.Path, http.StatusCreated, http.StatusOK)
	handle(a, operation("list-extensions", http.MethodGet, "/extensions", "List extensions",
		"In order of number. Deleted extensions are listed only with status=deleted.", 422), a.listExtensions)
	handle(a, operation("get-extension", http.MethodGet, "/extensions/{id}", "Get an extension", "Also a deleted one.", 404, 422), a.getExtension)
	handle(a, operation("patch-extension", http.MethodPatch, "/extensions/{id}", "Change an extension",
		"All that is given, or nothing. A change of status, transport or password drops the registration on every switch; see convergence.", 404, 409, 413, 415, 422), a.patchExtension)
	handle(a, operation("delete-extension", http.MethodDelete, "/extensions/{id}", "Delete an extension",
		"For good: what was kept of its password is gone, and its registration is dropped. Its number can be provisioned again, as another extension. Once more is no error.", 404, 422), a.deleteExtension)
	handle(a, operation("get-stores", http.MethodGet, "/extensions/{id}/stores", "Get the stores that have access to an extension", "", 404, 422), a.getStores)
	handle(a, operation("put-stores", http.MethodPut, "/extensions/{id}/stores", "Give stores access to an extension",
		"These and no others.", 404, 409, 413, 415, 422), a.putStores)
	handle(a, operation("get-convergence", http.MethodGet, "/extensions/{id}/convergence", "See whether every switch obeys",
		"What the changes of an extension ask of each switch, and whether it is done.", 404, 422), a.getConvergence)
}

// claim is what a write claims under a key.
func (i *info) claim(key string) integration.Claim {
	return integration.Claim{TenantID: i.caller.TenantID, Key: key, Digests: i.digests}
}

// write runs a write under its Idempotency-Key, and answers. prepare does what takes long, and is not done for a request
// that was answered before; what it returns writes, in one transaction with the answer.
func write[T any](ctx context.Context, a *API, claim integration.Claim, prepare func() (func(directory.Writer) (T, int, directory.Effect, error), error)) (*written[T], error) {
	i := infoOf(ctx)
	if !printable(claim.Key) {
		return nil, newProblem(codeIdempotencyHeader)
	}
	if kept, found, err := a.store.Answered(ctx, claim); err != nil {
		return nil, err
	} else if found {
		return replay[T](a, i, kept)
	}
	commit, err := inTurn(a, &a.preparing, i.caller.TenantID, prepare)
	if err != nil {
		return nil, err
	}
	var out written[T]
	var effect directory.Effect
	kept, replayed, err := a.store.Once(ctx, claim, func(w directory.Writer) (integration.Answer, error) {
		if out.Body, out.Status, effect, err = commit(w); err != nil {
			return integration.Answer{}, err
		}
		encoded, err := json.Marshal(out.Body)
		return integration.Answer{Status: out.Status, Body: encoded}, err
	})
	if err != nil {
		return nil, err
	}
	if replayed {
		return replay[T](a, i, kept)
	}
	i.outcome = string(effect)
	return &out, nil
}

// inTurn prepares a write, unless the tenant has too many under way.
func inTurn[T any](a *API, t *turns, tenant uuid.UUID, do func() (T, error)) (v T, err error) {
	if !t.enter(tenant) {
		a.metrics.limited.WithLabelValues(t.name).Inc()
		p := newProblem(codeRateLimited)
		p.retryAfter = 1
		return v, p
	}
	defer t.leave(tenant)
	return do()
}

// replay answers as the first request was answered. The body is encoded anew, from the same type: the bytes are the same.
func replay[T any](a *API, i *info, kept integration.Answer) (*written[T], error) {
	out := written[T]{Status: kept.Status, Replayed: "true"}
	if err := json.Unmarshal(kept.Body, &out.Body); err != nil {
		return nil, fmt.Errorf("kept answer: %w", err)
	}
	a.metrics.replays.Inc()
	i.outcome = "replayed"
	return &out, nil
}

// printable tells whether a key is printable ASCII.
func printable(key string) bool {
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return false
		}
	}
	return true
}

func (a *API) putExtension(ctx context.Context, in *struct {
	Keyed
	Body NewExtension
},
) (*written[Provisioned], error) {
	caller := infoOf(ctx).caller
	if in.Body.TenantID != caller.TenantID {
		return nil, newProblem(codeTenantMismatch, FieldError{"tenantId", "is not the tenant of the credentials"})
	}
	return write(ctx, a, infoOf(ctx).claim(in.Key), func() (func(directory.Writer) (Provisioned, int, directory.Effect, error), error) {
		country, err := numbering.NewCountry(caller.Country)
		if err != nil {
			return nil, fmt.Errorf("country of the tenant: %w", err)
		}
		e, err := a.provisioner.PrepareExtension(ctx, in.Body.spec(), country)
		return func(w directory.Writer) (Provisioned, int, directory.Effect, error) {
			id, effect, err := w.PutExtension(ctx, e, caller.Actor())
			status := http.StatusOK
			if effect == directory.EffectCreated {
				status = http.StatusCreated
			}
			return Provisioned{Success: true, ID: id, Status: "provisioned", WSEndpoint: a.endpoint(e.Realm.String())}, status, effect, err
		}, err
	})
}

func (a *API) patchExtension(ctx context.Context, in *struct {
	ByID
	Keyed
	Body ChangedExtension
},
) (*written[Extension], error) {
	caller := infoOf(ctx).caller
	return write(ctx, a, infoOf(ctx).claim(in.Key), func() (func(directory.Writer) (Extension, int, directory.Effect, error), error) {
		c, err := a.provisioner.PrepareChange(ctx, caller.TenantID, in.ID, in.Body.patch())
		return func(w directory.Writer) (Extension, int, directory.Effect, error) {
			e, effect, err := w.ChangeExtension(ctx, caller.TenantID, in.ID, c, caller.Actor())
			if err != nil {
				return Extension{}, 0, "", err
			}
			return a.extension(e), http.StatusOK, effect, nil
		}, err
	})
}

func (a *API) deleteExtension(ctx context.Context, in *struct {
	ByID
	Keyed
},
) (*written[Deleted], error) {
	caller := infoOf(ctx).caller
	return write(ctx, a, infoOf(ctx).claim(in.Key), func() (func(directory.Writer) (Deleted, int, directory.Effect, error), error) {
		return func(w directory.Writer) (Deleted, int, directory.Effect, error) {
			effect, err := w.DeleteExtension(ctx, caller.TenantID, in.ID, caller.Actor())
			return Deleted{Success: true, ID: in.ID, Status: "deleted"}, http.StatusOK, effect, err
		}, nil
	})
}

func (a *API) getExtension(ctx context.Context, in *ByID) (*body[Extension], error) {
	e, err := a.store.ExtensionByID(ctx, infoOf(ctx).caller.TenantID, in.ID)
	if err != nil {
		return nil, err
	}
	return &body[Extension]{a.extension(e)}, nil
}

// Paged are the parameters of every list.
type Paged struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"Entries a page at most."`
	Cursor string `query:"cursor" maxLength:"512" doc:"nextCursor of the page before."`
}

// page is a page of a list.
type page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"nextCursor,omitempty" doc:"Not there on the last page."`
}

// cut makes a page of a list that was read one entry beyond it.
func cut[T any](list []T, limit int, cursor func(T) string) page[T] {
	if len(list) <= limit {
		return page[T]{Items: list}
	}
	return page[T]{Items: list[:limit], NextCursor: cursor(list[limit-1])}
}

var errCursor = &invalid.FieldError{Name: "query.cursor", Reason: "is no nextCursor of this list"}

func newCursor(parts ...string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "|")))
}

// parseCursor returns the parts of a cursor, or as many empty ones of none.
func parseCursor(cursor string, parts int) ([]string, error) {
	if cursor == "" {
		return make([]string, parts), nil
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	list := strings.Split(string(b), "|")
	if err != nil || len(list) != parts || bytes.ContainsRune(b, 0) || !printable(string(b)) {
		return nil, errCursor
	}
	return list, nil
}

func (a *API) listExtensions(ctx context.Context, in *struct {
	Paged
	SIPRealm string `query:"sipRealm" maxLength:"253" doc:"Only those of this realm."`
	Status   string `query:"status" enum:"active,suspended,deleted" doc:"Only those of this status; without it all that are not deleted."`
},
) (*body[page[Extension]], error) {
	parts, err := parseCursor(in.Cursor, 2)
	if err != nil {
		return nil, err
	}
	if in.SIPRealm != "" {
		if _, err := fstext.ParseRealm(in.SIPRealm); err != nil {
			return nil, invalid.Because("query.sipRealm", err)
		}
	}
	f := directory.ExtensionFilter{Realm: in.SIPRealm, Status: directory.Status(in.Status), Limit: in.Limit + 1}
	if f.After.Number = parts[0]; in.Cursor != "" {
		if f.After.ID, err = uuid.Parse(parts[1]); err != nil {
			return nil, errCursor
		}
	}
	records, err := a.store.ListExtensions(ctx, infoOf(ctx).caller.TenantID, f)
	if err != nil {
		return nil, err
	}
	list := make([]Extension, len(records))
	for i, r := range records {
		list[i] = a.extension(r)
	}
	return &body[page[Extension]]{cut(list, in.Limit, func(e Extension) string { return newCursor(e.Extension, e.ID.String()) })}, nil
}

// StoreAccess is which stores have access to an extension.
type StoreAccess struct {
	StoreIDs []uuid.UUID `json:"storeIds" maxItems:"1000" doc:"In order of id."`
}

func (a *API) getStores(ctx context.Context, in *ByID) (*body[StoreAccess], error) {
	ids, err := a.store.Stores(ctx, infoOf(ctx).caller.TenantID, in.ID)
	if err != nil {
		return nil, err
	}
	return &body[StoreAccess]{StoreAccess{ids}}, nil
}

func (a *API) putStores(ctx context.Context, in *struct {
	ByID
	Keyed
	Body StoreAccess
},
) (*written[StoreAccess], error) {
	caller := infoOf(ctx).caller
	return write(ctx, a, infoOf(ctx).claim(in.Key), func() (func(directory.Writer) (StoreAccess, int, directory.Effect, error), error) {
		return func(w directory.Writer) (StoreAccess, int, directory.Effect, error) {
			ids, effect, err := w.PutStores(ctx, caller.TenantID, in.ID, in.Body.StoreIDs, caller.Actor())
			return StoreAccess{ids}, http.StatusOK, effect, err
		}, nil
	})
}

// Convergence is whether every switch obeys.
type Convergence struct {
	Converged bool              `json:"converged" doc:"True if every active switch is done."`
	Nodes     []NodeConvergence `json:"nodes"`
}

// NodeConvergence is whether one switch obeys.
type NodeConvergence struct {
	Node   string     `json:"node"`
	Status string     `json:"status" enum:"done,pending,failed,disabled" doc:"failed: it refused, and an operator must look. disabled: it is out of service, and will be told before it comes back."`
	Since  *time.Time `json:"since,omitempty" doc:"When it was done, or asked for if it is not. Not there if nothing was ever asked."`
}

func (a *API) getConvergence(ctx context.Context, in *ByID) (*body[Convergence], error) {
	tenant := infoOf(ctx).caller.TenantID
	if _, err := a.store.ExtensionByID(ctx, tenant, in.ID); err != nil {
		return nil, err
	}
	progress, err := a.store.Convergence(ctx, tenant, in.ID.String())
	if err != nil {
		return nil, err
	}
	out := Convergence{Converged: true, Nodes: make([]NodeConvergence, len(progress))}
	for i, p := range progress {
		n := NodeConvergence{Node: p.Node, Status: "pending"}
		switch {
		case !p.Active:
			n.Status = "disabled"
		case p.State == node.Done:
			n.Status = "done"
		case p.State == node.Dead:
			n.Status = "failed"
		}
		if !p.Since.IsZero() {
			at := p.Since.UTC()
			n.Since = &at
		}
		out.Converged = out.Converged && (n.Status == "done" || n.Status == "disabled")
		out.Nodes[i] = n
	}
	return &body[Convergence]{out}, nil
}
