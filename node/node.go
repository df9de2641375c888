// Package node knows the switches: where the event socket of each is, and what each still has to do before a change is
// in force everywhere. A switch is a row (Node), a thing to do is a row (Job) with a result per switch.
package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// Node is a switch.
type Node struct {
	ID   uuid.UUID
	Name string
	// Address is the host:port of its event socket.
	Address string
	// Password is the event socket's, sealed; see PasswordOwner.
	Password secret.Sealed
	// CachesUsers tells that the switch may keep users in its own cache, and must then be told of every change of one.
	CachesUsers bool
	// Active is false for a switch that is left alone: nobody connects to it, and what it has to do waits.
	Active bool
}

// Equal tells whether two switches are the same in everything.
func (n Node) Equal(o Node) bool {
	return n.ID == o.ID && n.Name == o.Name && n.Address == o.Address && n.CachesUsers == o.CachesUsers && n.Active == o.Active &&
		n.Password.KeyID == o.Password.KeyID && bytes.Equal(n.Password.Data, o.Password.Data)
}

// PasswordOwner is the associated data under which a switch's password is sealed.
func PasswordOwner(id uuid.UUID) string { return "node|" + id.String() }

// ErrUnknownNode is what a Registry answers for a switch that is not there.
var ErrUnknownNode = errors.New("unknown node")

// JobsLeftError is what a Registry answers for a switch that is to be forgotten while it has jobs that are not done. It may run
// still, with a user registered of whom it was to be told that he is suspended, and would not be told of him any more.
type JobsLeftError struct {
	Pending, Dead int
}

func (e *JobsLeftError) Error() string {
	return fmt.Sprintf("the switch was not told everything: %d jobs are pending and %d were given up", e.Pending, e.Dead)
}

// Spec is a switch as it is asked for.
type Spec struct {
	Name, Address, Password string
	CachesUsers             bool
}

// Change is what to change of a switch; nil leaves a thing as it is.
type Change struct {
	Address, Password   *string
	CachesUsers, Active *bool
}

// Registry is what Provisioner writes to. Implementations are safe for concurrent use.
type Registry interface {
	// Nodes returns every switch, in order of name.
	Nodes(ctx context.Context) ([]Node, error)
	// ChangeNode is one transaction: it locks the switch of a name, gives it to change (nil if there is none) and
	// writes what change returns, with an audit row, unless that is what is stored. change may run more than once. Its
	// errors are returned as they are.
	ChangeNode(ctx context.Context, name string, change func(stored *Node) (Node, error), actor string) (Node, error)
	// RemoveNode forgets a switch, with an audit row; by force also if it has jobs that are not done, which are forgotten too.
	// Errors: ErrUnknownNode, *JobsLeftError.
	RemoveNode(ctx context.Context, name string, force bool, actor string) error
}

// Provisioner adds, changes and removes switches. It is safe for concurrent use.
type Provisioner struct {
	registry Registry
	keys     *secret.KeyRing
}

// NewProvisioner returns a provisioner that writes to a registry and seals with a key ring.
func NewProvisioner(r Registry, keys *secret.KeyRing) *Provisioner {
	return &Provisioner{registry: r, keys: keys}
}

// Put adds a switch, or brings the one of that name to what is asked for; the same again changes nothing. A disabled
// switch stays disabled. Errors: *invalid.FieldError, the registry's.
func (p *Provisioner) Put(ctx context.Context, spec Spec, actor string) (Node, error) {
	if err := checkName(spec.Name); err != nil {
		return Node{}, err
	}
	return p.registry.ChangeNode(ctx, spec.Name, func(stored *Node) (Node, error) {
		n := Node{ID: uuid.New(), Name: spec.Name, Active: true}
		if stored != nil {
			n = *stored
		}
		return p.apply(n, Change{Address: &spec.Address, Password: &spec.Password, CachesUsers: &spec.CachesUsers})
	}, actor)
}

// Change changes a switch. Errors: ErrUnknownNode, *invalid.FieldError, the registry's.
func (p *Provisioner) Change(ctx context.Context, name string, c Change, actor string) (Node, error) {
	return p.registry.ChangeNode(ctx, name, func(stored *Node) (Node, error) {
		if stored == nil {
			return Node{}, ErrUnknownNode
		}
		return p.apply(*stored, c)
	}, actor)
}

// Remove forgets a switch that has done everything, by force also one that has not. Errors: ErrUnknownNode, *JobsLeftError, the
// registry's.
func (p *Provisioner) Remove(ctx context.Context, name string, force bool, actor string) error {
	return p.registry.RemoveNode(ctx, name, force, actor)
}

// List returns every switch, in order of name.
func (p *Provisioner) List(ctx context.Context) ([]Node, error) { return p.registry.Nodes(ctx) }

// Password opens a switch's password. Errors: secret.ErrUnknownKey, secret.ErrTampered.
func Password(n Node, keys *secret.KeyRing) (string, error) {
	b, err := keys.Open(n.Password, PasswordOwner(n.ID))
	if err != nil {
		return "", fmt.Errorf("password of node %s: %w", n.Name, err)
	}
	return string(b), nil
}

func (p *Provisioner) apply(n Node, c Change) (Node, error) {
	if c.Address != nil {
		address, err := parseAddress(*c.Address)
		if err != nil {
			return n, err
		}
		n.Address = address
	}
	if c.Password != nil {
		if err := checkPassword(*c.Password); err != nil {
			return n, err
		}
		// Sealing is random: a password that has not changed keeps its seal, so that the same again is no change. One
		// that does not open any more is replaced.
		stored, err := p.keys.Open(n.Password, PasswordOwner(n.ID))
		if err != nil || !bytes.Equal(stored, []byte(*c.Password)) {
			n.Password = p.keys.Seal([]byte(*c.Password), PasswordOwner(n.ID))
		}
	}
	if c.CachesUsers != nil {
		n.CachesUsers = *c.CachesUsers
	}
	if c.Active != nil {
		n.Active = *c.Active
	}
	return n, nil
}

// nameSyntax is that of schema.sql. The name is a label of metrics.
var nameSyntax = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$`)

func checkName(s string) error {
	if !nameSyntax.MatchString(s) {
		return &invalid.FieldError{Name: "name", Reason: "is not 1 to 64 lower-case letters, digits, dots and hyphens, beginning and ending with a letter or digit"}
	}
	return nil
}

func parseAddress(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", &invalid.FieldError{Name: "address", Reason: "is not host:port"}
	}
	h, err := fstext.NewHost(host)
	if err != nil {
		return "", invalid.Because("address", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", &invalid.FieldError{Name: "address", Reason: "has a port that is not between 1 and 65535"}
	}
	return net.JoinHostPort(h.String(), port), nil
}

// maxPassword bounds the event socket's password, in bytes.
const maxPassword = 128

// checkPassword refuses what cannot be sent in one line of the event socket's protocol.
func checkPassword(s string) error {
	if s == "" || len(s) > maxPassword {
		return &invalid.FieldError{Name: "password", Reason: fmt.Sprintf("does not have 1 to %d characters", maxPassword)}
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return &invalid.FieldError{Name: "password", Reason: "is not made of printable ASCII characters without space"}
		}
	}
	return nil
}
