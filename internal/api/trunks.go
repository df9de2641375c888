package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/trunk"
	"github.com/edgvoip/edgvoip/webhook"
)

// Trunk is a trunk as operators see it. Its password is not part of it.
type Trunk struct {
	ID                  uuid.UUID          `json:"trunkId" format:"uuid"`
	TenantID            uuid.UUID          `json:"tenantId" format:"uuid"`
	StoreID             *uuid.UUID         `json:"storeId,omitempty" format:"uuid" doc:"Not there if the trunk belongs to no store."`
	Name                string             `json:"name"`
	Provider            string             `json:"provider"`
	Description         string             `json:"description" doc:"For people."`
	Host                string             `json:"host"`
	Port                int                `json:"port"`
	Protocol            string             `json:"protocol" enum:"udp,tcp,tls"`
	Proxy               string             `json:"proxy" doc:"Where requests are sent in the place of the host; empty for the host itself."`
	MaxChannels         int                `json:"maxChannels" doc:"Calls at the same time, both directions together; 0 means no limit."`
	Priority            int                `json:"priority" doc:"Calls out try the trunk with the lowest first."`
	Status              string             `json:"status" enum:"active,disabled,deleted"`
	SourceAddresses     []string           `json:"sourceAddresses" doc:"Where the carrier calls from, in CIDR form; none means the host, if that is an address."`
	Register            bool               `json:"register" doc:"Whether we register at the carrier."`
	Username            string             `json:"username,omitempty"`
	PasswordSet         bool               `json:"passwordSet" doc:"The password itself is never shown."`
	CallerIDPolicy      string             `json:"callerIdPolicy" enum:"trunk,extension,withheld"`
	CallerIDNumber      string             `json:"callerIdNumber,omitempty" doc:"E.164."`
	NumberFormat        string             `json:"numberFormat" enum:"plus,digits,zeros"`
	TechPrefix          string             `json:"techPrefix"`
	Prefixes            []string           `json:"prefixes" doc:"The beginnings of the E.164 numbers that the trunk carries, in order; none means all numbers."`
	Codecs              []string           `json:"codecs" doc:"In order of preference; none means what the switch offers."`
	PingSeconds         int                `json:"pingSeconds" doc:"OPTIONS to the carrier every so many seconds; 0 means none."`
	AIAgentRef          string             `json:"aiAgentRef,omitempty"`
	AITimePolicy        json.RawMessage    `json:"aiTimePolicy,omitempty" doc:"When the agent answers: what was given, spelled without space and with names in order."`
	AIFailoverExtension string             `json:"aiFailoverExtension,omitempty"`
	DIDRanges           []webhook.DIDRange `json:"didRanges" doc:"In order of number."`
	GatewayRevision     int64              `json:"gatewayRevision" doc:"Counts the changes that make switches register anew."`
	Warnings            []string           `json:"warnings,omitempty" doc:"For people: what does not work as it stands."`
	CreatedAt           time.Time          `json:"createdAt"`
	UpdatedAt           time.Time          `json:"updatedAt"`
}

// TrunkOf returns a stored trunk as operators see it.
func TrunkOf(r trunk.Record) Trunk {
	state := webhook.NewTrunkState(r)
	t := Trunk{
		ID: r.ID, TenantID: r.TenantID, StoreID: state.StoreID, Name: state.Name, Provider: state.Provider, Description: r.Description.String(),
		Host: state.Host, Port: state.Port, Protocol: state.Protocol, Proxy: r.Proxy.String(), MaxChannels: r.MaxChannels, Priority: r.Priority,
		Status: state.Status, SourceAddresses: make([]string, len(r.Sources)), Register: r.Register, Username: r.Username.Reveal().String(),
		PasswordSet: r.PasswordSet(), CallerIDPolicy: string(r.CallerID), CallerIDNumber: r.CallerIDNumber.String(),
		NumberFormat: string(r.NumberFormat), TechPrefix: r.TechPrefix.String(), Prefixes: append([]string{}, r.Prefixes...),
		Codecs: append([]string{}, r.Codecs.Names()...), PingSeconds: r.PingSeconds, AIAgentRef: r.AIAgentRef, AITimePolicy: r.AITimePolicy,
		AIFailoverExtension: state.AIFailoverExtension, DIDRanges: state.DIDRanges, GatewayRevision: r.Revision,
		Warnings: r.Warnings(), CreatedAt: state.CreatedAt, UpdatedAt: state.UpdatedAt,
	}
	for i, p := range r.Sources {
		t.SourceAddresses[i] = p.String()
	}
	return t
}

// NewDIDRange is a range of numbers as it is asked for.
type NewDIDRange struct {
	First string `json:"first" maxLength:"32" doc:"E.164, or as it is dialled in the tenant's country." example:"+390612345600"`
	Last  string `json:"last,omitempty" maxLength:"32" doc:"The same as first if it is not given. It has as many digits." example:"+390612345699"`
}

func ranges(list []NewDIDRange) []trunk.DIDRange {
	if list == nil {
		return nil
	}
	out := make([]trunk.DIDRange, len(list))
	for i, r := range list {
		out[i] = trunk.DIDRange(r)
	}
	return out
}

// NewTrunk is the body of POST /tenants/{tenantId}/trunks.
type NewTrunk struct {
	ID                  *uuid.UUID      `json:"trunkId,omitempty" format:"uuid" doc:"With an id that the sender makes up, the same body may be sent again: it creates one trunk. Made up if it is not given."`
	StoreID             *uuid.UUID      `json:"storeId,omitempty" format:"uuid"`
	Name                string          `json:"name" doc:"1 to 64 printable characters."`
	Provider            string          `json:"provider,omitempty" doc:"Up to 64 characters."`
	Description         string          `json:"description,omitempty" doc:"For people; up to 256 characters."`
	Host                string          `json:"host" doc:"A host name or an address." example:"sip.carrier.example"`
	Port                *int            `json:"port,omitempty" minimum:"1" maximum:"65535" doc:"Default: 5060."`
	Protocol            string          `json:"protocol,omitempty" doc:"udp (the default), tcp or tls."`
	Proxy               string          `json:"proxy,omitempty" doc:"host or host:port, where requests are sent in the place of the host."`
	MaxChannels         *int            `json:"maxChannels,omitempty" doc:"Calls at the same time, both directions together; 0 means no limit. Default: 30."`
	Priority            *int            `json:"priority,omitempty" doc:"Calls out try the trunk with the lowest first. Default: 100."`
	Status              string          `json:"status,omitempty" enum:"active,disabled" doc:"Default: active."`
	SourceAddresses     []string        `json:"sourceAddresses,omitempty" doc:"Where the carrier calls from, in CIDR form; none means the host, if that is an address."`
	Register            bool            `json:"register,omitempty" doc:"Whether we register at the carrier, which needs username and password."`
	Username            string          `json:"username,omitempty" doc:"With a password. Without register, it answers a carrier that challenges calls; without both, the carrier knows us by address."`
	Password            string          `json:"password,omitempty" doc:"It is sealed, and never shown."`
	CallerIDPolicy      string          `json:"callerIdPolicy,omitempty" doc:"Whose number calls out show: trunk (the default), extension or withheld."`
	CallerIDNumber      string          `json:"callerIdNumber,omitempty" doc:"E.164."`
	NumberFormat        string          `json:"numberFormat,omitempty" doc:"How the carrier wants called numbers: plus (the default; +39…), digits (39…) or zeros (0039…)."`
	TechPrefix          string          `json:"techPrefix,omitempty" doc:"Put before every called number: up to 16 digits, stars and hashes."`
	Prefixes            []string        `json:"prefixes,omitempty" doc:"The beginnings of the E.164 numbers that the trunk carries, without the plus sign; none means all numbers."`
	Codecs              []string        `json:"codecs,omitempty" doc:"In order of preference, one at least of OPUS, G722, PCMA, PCMU, GSM; none means what the switch offers."`
	PingSeconds         int             `json:"pingSeconds,omitempty" doc:"OPTIONS to the carrier every so many seconds, 5 to 3600; 0 means none."`
	AIAgentRef          string          `json:"aiAgentRef,omitempty" doc:"W3's agent that answers calls; up to 128 characters."`
	AITimePolicy        json.RawMessage `json:"aiTimePolicy,omitempty" doc:"When the agent answers; always if it is not given. At most 16 KiB; it is kept without space and with names in order."`
	AIFailoverExtension string          `json:"aiFailoverExtension,omitempty" doc:"The extension that takes calls when no agent does: an active one of the tenant."`
	DIDRanges           []NewDIDRange   `json:"didRanges,omitempty" doc:"No number of them is in another range."`
}

// The defaults of a new trunk.
const (
	defaultTrunkChannels = 30
	defaultTrunkPriority = 100
)

func (n NewTrunk) spec(tenant uuid.UUID) trunk.Spec {
	return trunk.Spec{
		TenantID: tenant, StoreID: given(n.StoreID), Name: n.Name, Provider: n.Provider, Description: n.Description, Host: n.Host, Port: orDefault(n.Port, 5060),
		Protocol: n.Protocol, Proxy: n.Proxy, MaxChannels: orDefault(n.MaxChannels, defaultTrunkChannels),
		Priority: orDefault(n.Priority, defaultTrunkPriority), SourceAddresses: n.SourceAddresses, Register: n.Register, Username: n.Username,
		Password: n.Password, CallerIDPolicy: n.CallerIDPolicy, CallerIDNumber: n.CallerIDNumber, NumberFormat: n.NumberFormat,
		TechPrefix: n.TechPrefix, Prefixes: n.Prefixes, Codecs: n.Codecs, PingSeconds: n.PingSeconds, AIAgentRef: n.AIAgentRef,
		AITimePolicy: n.AITimePolicy, AIFailoverExtension: n.AIFailoverExtension, DIDRanges: ranges(n.DIDRanges),
		Disabled: n.Status == string(trunk.StatusDisabled),
	}
}

func orDefault(n *int, otherwise int) int {
	if n == nil {
		return otherwise
	}
	return *n
}

// ChangedTrunk is the body of PATCH /tenants/{tenantId}/trunks/{trunkId}. What is not given stays as it is.
type ChangedTrunk struct {
	StoreID             *uuid.UUID      `json:"storeId,omitempty" format:"uuid" doc:"Zeros take it away."`
	Name                *string         `json:"name,omitempty"`
	Provider            *string         `json:"provider,omitempty"`
	Description         *string         `json:"description,omitempty"`
	Host                *string         `json:"host,omitempty"`
	Port                *int            `json:"port,omitempty"`
	Protocol            *string         `json:"protocol,omitempty"`
	Proxy               *string         `json:"proxy,omitempty"`
	MaxChannels         *int            `json:"maxChannels,omitempty"`
	Priority            *int            `json:"priority,omitempty"`
	Status              *string         `json:"status,omitempty" enum:"active,disabled" doc:"disabled takes the gateway from every switch."`
	SourceAddresses     []string        `json:"sourceAddresses,omitempty"`
	Register            *bool           `json:"register,omitempty"`
	Username            *string         `json:"username,omitempty" doc:"An empty text takes the password away too."`
	Password            *string         `json:"password,omitempty" doc:"A new password makes every switch register anew; the one that is kept changes nothing."`
	CallerIDPolicy      *string         `json:"callerIdPolicy,omitempty"`
	CallerIDNumber      *string         `json:"callerIdNumber,omitempty" doc:"An empty text takes it away, as with the texts below."`
	NumberFormat        *string         `json:"numberFormat,omitempty"`
	TechPrefix          *string         `json:"techPrefix,omitempty"`
	Prefixes            []string        `json:"prefixes,omitempty"`
	Codecs              []string        `json:"codecs,omitempty"`
	PingSeconds         *int            `json:"pingSeconds,omitempty"`
	AIAgentRef          *string         `json:"aiAgentRef,omitempty"`
	AITimePolicy        json.RawMessage `json:"aiTimePolicy,omitempty" doc:"null takes it away."`
	AIFailoverExtension *string         `json:"aiFailoverExtension,omitempty"`
	DIDRanges           []NewDIDRange   `json:"didRanges,omitempty" doc:"These and no others."`
}

func (c ChangedTrunk) change() trunk.Change {
	return trunk.Change{
		StoreID: c.StoreID, Name: c.Name, Provider: c.Provider, Description: c.Description, Host: c.Host, Port: c.Port, Protocol: c.Protocol,
		Proxy: c.Proxy, MaxChannels: c.MaxChannels, Priority: c.Priority, SourceAddresses: c.SourceAddresses, Register: c.Register,
		Username: c.Username, Password: c.Password, CallerIDPolicy: c.CallerIDPolicy, CallerIDNumber: c.CallerIDNumber,
		NumberFormat: c.NumberFormat, TechPrefix: c.TechPrefix, Prefixes: c.Prefixes, Codecs: c.Codecs, PingSeconds: c.PingSeconds,
		AIAgentRef: c.AIAgentRef, AITimePolicy: c.AITimePolicy, AIFailoverExtension: c.AIFailoverExtension, DIDRanges: ranges(c.DIDRanges),
		Status: c.Status,
	}
}

// ByTrunk are the parameters of a route about one trunk of a tenant.
type ByTrunk struct {
	ByTenant
	TrunkID uuid.UUID `path:"trunkId" format:"uuid"`
}

func (a *API) registerAdminTrunks() {
	const list, one = "/tenants/{tenantId}/trunks", "/tenants/{tenantId}/trunks/{trunkId}"
	create := adminOperation("create-trunk", http.MethodPost, list, "Create a trunk; W3 is told, and every switch", 404, 409, 413, 415, 422)
	create.Description = "201 if it was created, 200 if there is one of this trunkId that is exactly as it is asked for."
	create.DefaultStatus = http.StatusCreated
	handle(a, create, a.createTrunk)
	a.alike(create.Path, http.StatusCreated, http.StatusOK)
	listing := adminOperation("list-trunks", http.MethodGet, list, "List a tenant's trunks", 404, 422)
	listing.Description = "In order of id. Deleted trunks are listed only with status=deleted."
	handle(a, listing, a.listTrunks)
	handle(a, adminOperation("get-trunk", http.MethodGet, one, "Get a trunk, also a deleted one", 404, 422), a.getTrunk)
	change := adminOperation("change-trunk", http.MethodPatch, one, "Change a trunk", 404, 409, 413, 415, 422)
	change.Description = "All that is given, or nothing. Only what the carrier sees makes switches register anew; calls in progress go on."
	handle(a, change, a.changeTrunk)
	remove := adminOperation("delete-trunk", http.MethodDelete, one, "Delete a trunk", 404, 422)
	remove.Description = "For good: its numbers are free, and what we logged in with is gone. Once more is no error."
	handle(a, remove, a.deleteTrunk)
	handle(a, adminOperation("get-trunk-status", http.MethodGet, one+"/status", "See what each switch has made of a trunk", 404, 422), a.trunkStatus)
}

// registerTrunks registers what W3 reads of trunks.
func (a *API) registerTrunks() {
	handle(a, operation("list-own-trunks", http.MethodGet, "/trunks", "List trunks",
		"As the events about trunks show them, in order of id, for a W3 that wants to know whether it has missed one. Deleted trunks are listed only with status=deleted.", 422), a.listOwnTrunks)
	handle(a, operation("get-own-trunk", http.MethodGet, "/trunks/{id}", "Get a trunk", "As the events about it show it; also a deleted one.", 404, 422), a.getOwnTrunk)
}

// createdTrunk is the answer to a creation.
type createdTrunk struct {
	Status int
	Body   Trunk
}

func (a *API) createTrunk(ctx context.Context, in *struct {
	ByTenant
	Body NewTrunk
},
) (*createdTrunk, error) {
	id := given(in.Body.ID)
	if id == uuid.Nil {
		id = uuid.New()
	}
	r, effect, err := a.trunks.Create(ctx, id, in.Body.spec(in.TenantID), infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	infoOf(ctx).outcome = string(effect)
	out := createdTrunk{http.StatusOK, TrunkOf(r)}
	if effect == trunk.EffectCreated {
		out.Status = http.StatusCreated
	}
	return &out, nil
}

// TrunksPaged are the parameters of a list of trunks.
type TrunksPaged struct {
	Paged
	Status string `query:"status" enum:"active,disabled,deleted" doc:"Only those of this status; without it all that are not deleted."`
}

// pageOfTrunks reads a page of a tenant's trunks.
func pageOfTrunks[T any](ctx context.Context, a *API, tenant uuid.UUID, in TrunksPaged, show func(trunk.Record) T) (*body[page[T]], error) {
	parts, err := parseCursor(in.Cursor, 1)
	if err != nil {
		return nil, err
	}
	f := trunk.Filter{Status: trunk.Status(in.Status), Limit: in.Limit + 1}
	if in.Cursor != "" {
		if f.After, err = uuid.Parse(parts[0]); err != nil {
			return nil, errCursor
		}
	}
	records, err := a.trunks.List(ctx, tenant, f)
	if err != nil {
		return nil, err
	}
	kept := cut(records, in.Limit, func(r trunk.Record) string { return newCursor(r.ID.String()) })
	out := page[T]{Items: make([]T, len(kept.Items)), NextCursor: kept.NextCursor}
	for i, r := range kept.Items {
		out.Items[i] = show(r)
	}
	return &body[page[T]]{out}, nil
}

func (a *API) listTrunks(ctx context.Context, in *struct {
	ByTenant
	TrunksPaged
},
) (*body[page[Trunk]], error) {
	if _, err := a.store.Tenant(ctx, in.TenantID); err != nil {
		return nil, err
	}
	return pageOfTrunks(ctx, a, in.TenantID, in.TrunksPaged, TrunkOf)
}

func (a *API) getTrunk(ctx context.Context, in *ByTrunk) (*body[Trunk], error) {
	r, err := a.trunks.Get(ctx, in.TenantID, in.TrunkID)
	if err != nil {
		return nil, err
	}
	return &body[Trunk]{TrunkOf(r)}, nil
}

func (a *API) changeTrunk(ctx context.Context, in *struct {
	ByTrunk
	Body ChangedTrunk
},
) (*body[Trunk], error) {
	r, effect, err := a.trunks.Change(ctx, in.TenantID, in.TrunkID, in.Body.change(), infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	infoOf(ctx).outcome = string(effect)
	return &body[Trunk]{TrunkOf(r)}, nil
}

func (a *API) deleteTrunk(ctx context.Context, in *ByTrunk) (*struct{}, error) {
	_, effect, err := a.trunks.Delete(ctx, in.TenantID, in.TrunkID, infoOf(ctx).operator.Actor())
	if err == nil {
		infoOf(ctx).outcome = string(effect)
	}
	return nil, err
}

// TrunkStatus is what the switches have made of a trunk.
type TrunkStatus struct {
	Converged bool        `json:"converged" doc:"True if every active switch is done."`
	Nodes     []TrunkNode `json:"nodes"`
}

// TrunkNode is what one switch has made of a trunk.
type TrunkNode struct {
	Node         string     `json:"node"`
	Status       string     `json:"status" enum:"active,disabled" doc:"disabled: it is out of service, and is told before it comes back."`
	Wanted       int64      `json:"wantedRevision" doc:"gatewayRevision of the trunk; 0 if the switch is to have no such gateway."`
	Applied      int64      `json:"appliedRevision" doc:"What the switch works with; 0 is no such gateway."`
	Converged    bool       `json:"converged"`
	Registration string     `json:"registration,omitempty" doc:"In the switch's words: REGED, NOREG, TRYING, FAIL_WAIT…"`
	Ping         string     `json:"ping,omitempty" doc:"In the switch's words: UP or DOWN."`
	Error        string     `json:"error,omitempty"`
	SeenAt       *time.Time `json:"seenAt,omitempty" doc:"When the switch was asked last."`
}

func (a *API) trunkStatus(ctx context.Context, in *ByTrunk) (*body[TrunkStatus], error) {
	states, err := a.trunks.Nodes(ctx, in.TenantID, in.TrunkID)
	if err != nil {
		return nil, err
	}
	return &body[TrunkStatus]{TrunkStatusOf(states)}, nil
}

// TrunkStatusOf returns what the switches have made of a trunk, as operators see it.
func TrunkStatusOf(states []trunk.NodeState) TrunkStatus {
	out := TrunkStatus{Converged: true, Nodes: make([]TrunkNode, len(states))}
	for i, s := range states {
		out.Nodes[i] = TrunkNode{
			Node: s.Node, Status: "disabled", Wanted: s.Wanted, Applied: s.Applied, Converged: s.Converged, Registration: s.Registration,
			Ping: s.Ping, Error: s.Error, SeenAt: stamp(s.SeenAt),
		}
		if s.Active {
			out.Nodes[i].Status = "active"
			out.Converged = out.Converged && s.Converged
		}
	}
	return out
}

func (a *API) listOwnTrunks(ctx context.Context, in *TrunksPaged) (*body[page[webhook.TrunkState]], error) {
	return pageOfTrunks(ctx, a, infoOf(ctx).caller.TenantID, *in, webhook.NewTrunkState)
}

// ByOwnTrunk are the parameters of W3's route about one trunk.
type ByOwnTrunk struct {
	ID uuid.UUID `path:"id" format:"uuid" doc:"edgvoipTrunkId"`
}

func (a *API) getOwnTrunk(ctx context.Context, in *ByOwnTrunk) (*body[webhook.TrunkState], error) {
	r, err := a.trunks.Get(ctx, infoOf(ctx).caller.TenantID, in.ID)
	if err != nil {
		return nil, err
	}
	return &body[webhook.TrunkState]{webhook.NewTrunkState(r)}, nil
}
