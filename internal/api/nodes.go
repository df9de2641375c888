package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/node"
)

// nodeStore is what the API asks of switches and what they have to do.
type nodeStore interface {
	node.Registry

	// Backlogs returns what each switch still has to do, of those that have something.
	Backlogs(ctx context.Context) ([]node.Backlog, error)
	// Jobs returns the jobs that a filter selects, in order of id.
	Jobs(ctx context.Context, f node.Filter) ([]node.Job, error)
	// ReplayJobs makes dead jobs due again, those of the given numbers or, with none given, all of a switch (of every switch
	// if its name is empty), and returns how many there were.
	ReplayJobs(ctx context.Context, name string, ids []int64, actor string) (int, error)
}

func (a *API) registerNodes() {
	const one = "/nodes/{name}"
	handle(a, adminOperation("list-nodes", http.MethodGet, "/nodes", "List the switches"), a.listNodes)
	put := adminOperation("put-node", http.MethodPut, one, "Add a switch, or bring the one of this name to what is asked for", 413, 415, 422)
	put.Description = "The same again changes nothing. A disabled switch stays disabled."
	handle(a, put, a.putNode)
	handle(a, adminOperation("get-node", http.MethodGet, one, "Get a switch, and how it is", 404), a.getNode)
	handle(a, adminOperation("change-node", http.MethodPatch, one, "Change a switch, or take it out of service and back", 404, 413, 415, 422), a.changeNode)
	remove := adminOperation("remove-node", http.MethodDelete, one, "Forget a switch", 404, 409, 422)
	remove.Description = "A switch that was not told everything may run still, with users registered who are suspended. It is forgotten only by force."
	handle(a, remove, a.removeNode)
	listing := adminOperation("list-jobs", http.MethodGet, "/jobs", "List what the switches have to do, the oldest first", 422)
	listing.Description = "All that is not done, or what is in the state that is asked for."
	handle(a, listing, a.listJobs)
	handle(a, adminOperation("retry-jobs", http.MethodPost, "/jobs/retry", "Have jobs tried again that were given up", 404, 413, 415, 422), a.retryJobs)
}

// Node is a switch as operators see it. Its password is not part of it.
type Node struct {
	ID            uuid.UUID `json:"nodeId" format:"uuid"`
	Name          string    `json:"name"`
	Address       string    `json:"address" doc:"host:port of its event socket."`
	CachesUsers   bool      `json:"cachesUsers" doc:"Whether xmlcurl lets it cache users (SWITCH_CACHES_USERS), so that it is told of every change."`
	Status        string    `json:"status" enum:"active,disabled" doc:"A disabled switch is left alone."`
	Connected     bool      `json:"connected" doc:"Whether the process that answers is connected to it."`
	Registrations int       `json:"registrations" doc:"Phones that are registered there, a few seconds old at most; 0 if it is not connected."`
	Pending       int       `json:"pending" doc:"What it still has to do."`
	Failed        int       `json:"failed" doc:"What it refused; an operator must look."`
}

func (a *API) node(n node.Node, b node.Backlog) Node {
	out := Node{ID: n.ID, Name: n.Name, Address: n.Address, CachesUsers: n.CachesUsers, Status: "disabled", Pending: b.Pending, Failed: b.Dead}
	if n.Active {
		out.Status = "active"
	}
	out.Registrations, out.Connected = a.core.Switch(n.ID)
	return out
}

// backlogs returns what each switch still has to do, by its id.
func (a *API) backlogs(ctx context.Context) (map[uuid.UUID]node.Backlog, error) {
	all, err := a.store.Backlogs(ctx)
	byNode := make(map[uuid.UUID]node.Backlog, len(all))
	for _, b := range all {
		byNode[b.NodeID] = b
	}
	return byNode, err
}

func (a *API) listNodes(ctx context.Context, _ *struct{}) (*body[page[Node]], error) {
	nodes, err := a.store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	backlogs, err := a.backlogs(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Node, len(nodes))
	for i, n := range nodes {
		list[i] = a.node(n, backlogs[n.ID])
	}
	return &body[page[Node]]{page[Node]{Items: list}}, nil
}

// ByName are the parameters of a route about one switch.
type ByName struct {
	Name string `path:"name" maxLength:"64"`
}

// NewNode is the body of PUT /nodes/{name}.
type NewNode struct {
	Address     string `json:"address" doc:"host:port of its event socket." example:"10.0.0.1:8021"`
	Password    string `json:"password" writeOnly:"true" doc:"The event socket's: 1 to 128 printable ASCII characters without space. It is sealed, and never shown."`
	CachesUsers bool   `json:"cachesUsers,omitempty" doc:"Whether xmlcurl lets it cache users (SWITCH_CACHES_USERS), so that it must be told of every change."`
}

func (a *API) putNode(ctx context.Context, in *struct {
	ByName
	Body NewNode
},
) (*body[Node], error) {
	spec := node.Spec{Name: in.Name, Address: in.Body.Address, Password: in.Body.Password, CachesUsers: in.Body.CachesUsers}
	n, err := a.switches.Put(ctx, spec, infoOf(ctx).operator.Actor())
	if f, ok := errors.AsType[*invalid.FieldError](err); ok && f.Name == "name" {
		return nil, &invalid.FieldError{Name: "path.name", Reason: f.Reason}
	}
	return a.shownNode(ctx, n, err)
}

// shownNode answers with a switch that was changed.
func (a *API) shownNode(ctx context.Context, n node.Node, err error) (*body[Node], error) {
	if err != nil {
		return nil, err
	}
	backlogs, err := a.backlogs(ctx)
	if err != nil {
		return nil, err
	}
	return &body[Node]{a.node(n, backlogs[n.ID])}, nil
}

func (a *API) getNode(ctx context.Context, in *ByName) (*body[Node], error) {
	n, err := a.nodeOf(ctx, in.Name)
	return a.shownNode(ctx, n, err)
}

// nodeOf returns the switch of a name; there are few. Error: node.ErrUnknownNode.
func (a *API) nodeOf(ctx context.Context, name string) (node.Node, error) {
	all, err := a.store.Nodes(ctx)
	if err != nil {
		return node.Node{}, err
	}
	for _, n := range all {
		if n.Name == name {
			return n, nil
		}
	}
	return node.Node{}, node.ErrUnknownNode
}

// ChangedNode is the body of PATCH /nodes/{name}. What is not given stays as it is.
type ChangedNode struct {
	Address     *string `json:"address,omitempty"`
	Password    *string `json:"password,omitempty" writeOnly:"true" doc:"The one that is kept changes nothing."`
	CachesUsers *bool   `json:"cachesUsers,omitempty"`
	Status      *string `json:"status,omitempty" enum:"active,disabled" doc:"disabled leaves the switch alone: nobody connects to it."`
}

func (a *API) changeNode(ctx context.Context, in *struct {
	ByName
	Body ChangedNode
},
) (*body[Node], error) {
	c := node.Change{Address: in.Body.Address, Password: in.Body.Password, CachesUsers: in.Body.CachesUsers}
	if in.Body.Status != nil {
		c.Active = new(*in.Body.Status == "active")
	}
	n, err := a.switches.Change(ctx, in.Name, c, infoOf(ctx).operator.Actor())
	return a.shownNode(ctx, n, err)
}

func (a *API) removeNode(ctx context.Context, in *struct {
	ByName
	Force bool `query:"force" doc:"Also if it has jobs that are not done, which are forgotten too: for a switch that is gone."`
},
) (*struct{}, error) {
	return nil, a.switches.Remove(ctx, in.Name, in.Force, infoOf(ctx).operator.Actor())
}

// Job is something that one switch has to do.
type Job struct {
	ID            int64           `json:"jobId"`
	Node          string          `json:"node"`
	Kind          string          `json:"kind" enum:"switch.user,switch.domain,switch.drop_registration,switch.trunk"`
	State         string          `json:"state" enum:"pending,leased,done,dead" doc:"leased is being done; dead was given up."`
	Attempts      int             `json:"attempts"`
	TenantID      *uuid.UUID      `json:"tenantId,omitempty" format:"uuid" doc:"Not there for what belongs to no tenant."`
	Subject       string          `json:"subject" doc:"What it is about. Jobs of one subject are done in order."`
	Task          json.RawMessage `json:"task"`
	CorrelationID string          `json:"correlationId,omitempty" doc:"X-Request-Id of the request that caused it."`
	LastError     string          `json:"lastError,omitempty" doc:"Why the last attempt failed."`
	CreatedAt     time.Time       `json:"createdAt"`
	DueAt         *time.Time      `json:"dueAt,omitempty" doc:"When it is tried next, at the earliest; not there if it is not to be tried."`
	FinishedAt    *time.Time      `json:"finishedAt,omitempty" doc:"When it was done or given up."`
}

func jobOf(j node.Job, name string) Job {
	out := Job{
		ID: j.ID, Node: name, Kind: string(j.Kind), State: string(j.State), Attempts: j.Attempts, TenantID: optional(j.TenantID), Subject: j.Subject,
		Task: j.Payload, CorrelationID: j.CorrelationID, LastError: j.LastError, CreatedAt: j.CreatedAt.UTC(), FinishedAt: stamp(j.FinishedAt),
	}
	if j.FinishedAt.IsZero() {
		out.DueAt = stamp(j.DueAt)
	}
	return out
}

func (a *API) listJobs(ctx context.Context, in *struct {
	Paged
	Node  string `query:"node" maxLength:"64" doc:"Only those of the switch of this name."`
	State string `query:"state" enum:"pending,leased,done,dead" doc:"Only those of this state; without it all that are not done."`
},
) (*body[page[Job]], error) {
	f := node.Filter{Node: in.Node, Limit: in.Limit + 1}
	if in.State != "" {
		f.States = []node.State{node.State(in.State)}
	}
	parts, err := parseCursor(in.Cursor, 1)
	if err != nil {
		return nil, err
	}
	if in.Cursor != "" {
		if f.After, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
			return nil, errCursor
		}
	}
	nodes, err := a.store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	names := make(map[uuid.UUID]string, len(nodes))
	for _, n := range nodes {
		names[n.ID] = n.Name
	}
	jobs, err := a.store.Jobs(ctx, f)
	if err != nil {
		return nil, err
	}
	list := make([]Job, len(jobs))
	for i, j := range jobs {
		list[i] = jobOf(j, names[j.NodeID])
	}
	return &body[page[Job]]{cut(list, in.Limit, func(j Job) string { return newCursor(strconv.FormatInt(j.ID, 10)) })}, nil
}

// Retry is the body of POST /jobs/retry: numbers of jobs, a switch, both, or all.
type Retry struct {
	Jobs []int64 `json:"jobs,omitempty" minItems:"1" maxItems:"1000" doc:"Those of these numbers."`
	Node string  `json:"node,omitempty" maxLength:"64" doc:"Those of the switch of this name."`
	All  bool    `json:"all,omitempty" doc:"All, of every switch."`
}

func (a *API) retryJobs(ctx context.Context, in *struct{ Body Retry }) (*body[Replayed], error) {
	b := in.Body
	if chosen := b.Node != "" || len(b.Jobs) > 0; chosen == b.All {
		return nil, &invalid.FieldError{Name: "all", Reason: "is true if neither jobs nor node is given, and only then"}
	}
	if b.Node != "" {
		if _, err := a.nodeOf(ctx, b.Node); err != nil {
			return nil, err
		}
	}
	n, err := a.store.ReplayJobs(ctx, b.Node, b.Jobs, infoOf(ctx).operator.Actor())
	if err != nil {
		return nil, err
	}
	return &body[Replayed]{Replayed{n}}, nil
}
