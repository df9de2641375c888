package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// Job is something that one switch must do. Jobs of users, domains, tenants and trunks are written by triggers of the
// database, in the transaction of the change that causes them (schema.sql, tell_switches…), so that no writer can
// forget them.
//
//	pending ──claimed──► leased ──► done
//	   ▲                   │ │
//	   └──failed, or the ◄─┘ └──failed too often──► dead ──replayed──► pending
//	      lease ran out
type Job struct {
	TenantID uuid.UUID // zero for what belongs to no tenant
	ID       int64
	NodeID   uuid.UUID
	Kind     Kind
	// Subject is what the job is about: jobs of one subject are carried out in order of id.
	Subject string
	Payload json.RawMessage
	State   State
	// Attempts counts how often the job was claimed. It is also the fence: who holds a claim of an earlier count has
	// lost it.
	Attempts      int
	CorrelationID string
	LastError     string
	CreatedAt     time.Time
	// DueAt is when the job may be claimed next.
	DueAt time.Time
	// FinishedAt is when the job was done or given up; zero while it is open.
	FinishedAt time.Time
}

// Kind says what a job is.
type Kind string

// The kinds.
const (
	KindUser             Kind = "switch.user"              // User
	KindDomain           Kind = "switch.domain"            // Domain
	KindDropRegistration Kind = "switch.drop_registration" // Registration
	KindTrunk            Kind = "switch.trunk"             // Trunk
)

// State says how far a job is.
type State string

// The states.
const (
	Pending State = "pending"
	Leased  State = "leased"
	Done    State = "done"
	Dead    State = "dead" // failed for good, until an operator replays it
)

// What a store of jobs answers.
var (
	ErrNoJob     = errors.New("no job is due")
	ErrLeaseLost = errors.New("the job was given to somebody else meanwhile")
	ErrSameJob   = errors.New("somebody else carries out the same job")
)

// ErrPayload means that a job cannot be read, which no repetition mends.
var ErrPayload = errors.New("job cannot be read")

// User is the task to forget a user as he was: from the switch's own cache, and if Revoked his registrations too.
type User struct {
	Realm    fstext.Realm
	Number   fstext.Extension
	Username fstext.Username
	Revoked  bool
	// Settle marks the second round, which only forgets the cached user: see SecondRound.
	Settle bool
}

// Domain is the task to forget every user and registration of a domain.
type Domain struct {
	Realm fstext.Realm
	// Users marks a job that stands for changes of single users, of which too many waited (schema.sql, ask_switches).
	Users bool
	// Settle marks the second round, as in User.
	Settle bool
}

// Registration is the task to drop one registration, named as the switch stores it. Its parts come from a phone and
// are text of any kind.
type Registration struct {
	Profile string `json:"profile"`
	User    string `json:"user"`
	Realm   string `json:"realm"`
	CallID  string `json:"callId"`
	// Reason is why.
	Reason string `json:"reason"`
	// Event is how the switch named what told of it, the same to all who heard it; empty if it was seen in a list.
	Event string `json:"event,omitempty"`
}

// payload is the wire form of User and Domain.
type payload struct {
	Realm    string `json:"realm"`
	Number   string `json:"number,omitempty"`
	Username string `json:"username,omitempty"`
	Revoked  bool   `json:"revoked,omitempty"`
	Users    bool   `json:"users,omitempty"`
	Settle   bool   `json:"settle,omitempty"`
}

// Task reads what a job asks for: a User, a Domain, a Registration or a Trunk. Error: ErrPayload.
func (j Job) Task() (any, error) {
	switch j.Kind {
	case KindUser:
		return j.user()
	case KindDomain:
		var p payload
		if err := json.Unmarshal(j.Payload, &p); err != nil {
			return nil, unreadable(err)
		}
		realm, err := fstext.NewRealm(p.Realm)
		if err != nil {
			return nil, unreadable(err)
		}
		return Domain{Realm: realm, Users: p.Users, Settle: p.Settle}, nil
	case KindDropRegistration:
		var r Registration
		if err := json.Unmarshal(j.Payload, &r); err != nil {
			return nil, unreadable(err)
		}
		return r, nil
	case KindTrunk:
		return j.trunk()
	default:
		return nil, fmt.Errorf("%w: unknown kind", ErrPayload)
	}
}

func (j Job) user() (User, error) {
	var p payload
	if err := json.Unmarshal(j.Payload, &p); err != nil {
		return User{}, unreadable(err)
	}
	realm, err1 := fstext.NewRealm(p.Realm)
	number, err2 := fstext.NewExtension(p.Number)
	username, err3 := fstext.NewUsername(p.Username)
	if err := errors.Join(err1, err2, err3); err != nil {
		return User{}, unreadable(err)
	}
	return User{Realm: realm, Number: number, Username: username, Revoked: p.Revoked, Settle: p.Settle}, nil
}

func unreadable(err error) error { return fmt.Errorf("%w: %w", ErrPayload, err) }

// settleSuffix makes the subject of a second round. It is a subject of its own: forgetting a cached user commutes with
// everything, and must not make the next change of the same user wait.
const settleSuffix = "/settle"

// Subjects returns the subjects under which what is asked of the switches about one thing is found.
func Subjects(subject string) []string { return []string{subject, subject + settleSuffix} }

// SecondRound returns the task that ends what a task began: for a user or a domain, on a switch that caches users, and
// for the addresses of a trunk, on every switch. The first round comes right after the change, while an xmlcurl may for
// a moment not yet have heard of it: the switch that forgot a user may ask for him, be told the old truth, and keep it
// once more. So it forgets him again a little later, when every xmlcurl has heard. ok is false for a task that needs no
// second round.
func SecondRound(task any) (second any, ok bool) {
	switch t := task.(type) {
	case User:
		ok, t.Settle, t.Revoked = !t.Settle, true, false
		return t, ok
	case Domain:
		ok, t.Settle = !t.Settle, true
		return t, ok
	case Trunk:
		ok, t.Settle, t.Gateway = t.Addresses && !t.Settle, true, GatewayKeep
		return t, ok
	default:
		return nil, false
	}
}

// Settled returns the job for the second round of a task that this job was.
func (j Job) Settled(second any) (Job, error) {
	var p any
	switch t := second.(type) {
	case User:
		p = payload{Realm: t.Realm.String(), Number: t.Number.String(), Username: t.Username.String(), Settle: t.Settle}
	case Domain:
		p = payload{Realm: t.Realm.String(), Users: t.Users, Settle: t.Settle}
	case Trunk:
		p = trunkPayload(t)
	}
	b, err := json.Marshal(p)
	return Job{
		TenantID: j.TenantID, NodeID: j.NodeID, Kind: j.Kind, Subject: j.Subject + settleSuffix, CorrelationID: j.CorrelationID, Payload: b,
	}, err
}

// Progress says how far one switch is with what was asked of it about a subject.
type Progress struct {
	Node string
	// Active is false for a switch that is disabled: what it has to do waits.
	Active bool
	// State is Pending, Done or Dead. A switch of which nothing was asked is done.
	State State
	// LastError is why the oldest job that is not done failed last; empty if it did not.
	LastError string
	// Since is when the oldest job that is not done was asked for, or when the last one was done; zero if nothing was
	// asked.
	Since time.Time
}

// Backlog is what one switch still has to do.
type Backlog struct {
	NodeID        uuid.UUID
	Pending, Dead int
	// Oldest is when the oldest pending job was asked for; zero if there is none.
	Oldest time.Time
}

// Filter selects jobs. The zero value selects all that are not done.
type Filter struct {
	// Node is the name of a switch; empty means all.
	Node string
	// States are the wanted states; empty means those that are not done.
	States []State
	// After leaves out this job and older ones.
	After int64
	// Limit bounds the number; zero means 100.
	Limit int
}
