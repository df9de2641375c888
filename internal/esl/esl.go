// Package esl talks to a switch over the event socket (mod_event_socket): commands with typed, checked arguments, and
// events in order. A Client keeps two connections to one switch, because the switch runs a command in the thread that
// would otherwise send events; both are watched and made again when they are lost.
//
//	                 ┌─ commands ── API, FlushUser, …
//	switch ── Client ┤
//	                 └─ events ──── Resync, then Handle for each event; Resync again after every gap
//
// Events may be missed: while there is no connection, and when they come faster than they are handled. After each gap,
// Resync runs before the next event, so whoever keeps a picture of the switch reads it anew there.
//
// Nobody hands the switch text through this package that it could take for anything but the argument that it is.
package esl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/invalid"
)

// Node says where a switch's event socket is. Printed or logged, it keeps its password to itself.
type Node struct {
	Name     string // in logs and metrics
	Address  string // host:port
	Password string
}

func (n Node) String() string { return n.Name + " at " + n.Address }

// GoString hides the password from %#v.
func (n Node) GoString() string { return n.String() }

// LogValue hides the password from logs.
func (n Node) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", n.Name), slog.String("address", n.Address))
}

func (n Node) check() error {
	if n.Name == "" {
		return invalidArgument("Node.Name", "is empty")
	}
	if _, port, err := net.SplitHostPort(n.Address); err != nil || port == "" {
		return invalidArgument("Node.Address", "is not host:port")
	}
	if n.Password == "" || strings.ContainsAny(n.Password, "\r\n\x00") {
		return invalidArgument("Node.Password", "is empty or has a line break")
	}
	return nil
}

// Options describe a client. What is left zero has a default.
type Options struct {
	Node Node
	// Events are the kinds to subscribe to, by the name of the event or, for a CUSTOM one, CUSTOM and its subclass:
	// "CUSTOM sofia::register". HEARTBEAT need not be named: every client watches it, and Handle gets it.
	Events []string
	// Handle gets the events in the order in which the switch sent them, one at a time, and not while Resync runs. Its
	// context ends with the connection; the next connection waits until it has returned.
	Handle func(context.Context, Event)
	// Resync reads the state that the events change. It runs when a connection has been made, before the first event of
	// that connection, and again after each gap in the events; events that come meanwhile are handled after it. When it
	// fails it is tried again. Commands work while it runs. Its context ends with the connection.
	Resync func(context.Context, *Client) error
	// Metrics may be shared with other clients.
	Metrics *Metrics
	// Log is narrowed to the component; by default nothing is logged.
	Log *slog.Logger

	DialTimeout    time.Duration // until the greeting; 3 s
	CommandTimeout time.Duration // for one reply, after which the connection is given up; 5 s
	// Silence is how long a switch may send nothing until its connection is given up: 65 s, as the default heartbeat
	// comes every 20 s (event-heartbeat-interval in switch.conf).
	Silence time.Duration
	// MinBackoff and MaxBackoff bound the wait before the next attempt to connect, which doubles from one to the other,
	// less up to a half of it at random: 250 ms and 15 s.
	MinBackoff, MaxBackoff time.Duration
	// QueueSize is how many events may wait for Handle: 10 000, some ten megabytes.
	QueueSize int
}

func (o *Options) setDefaults() {
	for _, d := range []struct {
		value     *time.Duration
		byDefault time.Duration
	}{
		{&o.DialTimeout, 3 * time.Second},
		{&o.CommandTimeout, 5 * time.Second},
		{&o.Silence, 65 * time.Second},
		{&o.MinBackoff, 250 * time.Millisecond},
		{&o.MaxBackoff, 15 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.byDefault
		}
	}
	if o.QueueSize == 0 {
		o.QueueSize = 10_000
	}
	if o.Handle == nil {
		o.Handle = func(context.Context, Event) {}
	}
	if o.Resync == nil {
		o.Resync = func(context.Context, *Client) error { return nil }
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// kindOfEvent is what Options.Events may hold. The switch takes what follows CUSTOM in a subscription for subclasses,
// and ALL would send us everything that happens in every call.
var kindOfEvent = regexp.MustCompile(`^(CUSTOM [A-Za-z0-9_.:-]+|[A-Z][A-Z_]*)$`)

const heartbeat = "HEARTBEAT"

func (o *Options) check() error {
	if err := o.Node.check(); err != nil {
		return err
	}
	for _, kind := range o.Events {
		if !kindOfEvent.MatchString(kind) || kind == "ALL" || kind == "CUSTOM" {
			return invalidArgument("Events", fmt.Sprintf("%q is not the name of an event", kind))
		}
	}
	if o.DialTimeout < 0 || o.CommandTimeout < 0 || o.Silence < 0 || o.MinBackoff < 0 || o.MaxBackoff < o.MinBackoff || o.QueueSize < 0 {
		return invalidArgument("Options", "a time or a size is negative, or MaxBackoff is less than MinBackoff")
	}
	return nil
}

// Errors of commands, besides *CommandError and that of the caller's context.
var (
	// ErrDown is returned at once when there is no connection. The command was not sent.
	ErrDown = errors.New("the switch is not connected")
	// ErrLost is returned when the connection was lost before the reply. The command may have been run.
	ErrLost = errors.New("the switch was lost before it replied")
)

// Client talks to one switch. New makes one; its methods may be called from many goroutines.
type Client struct {
	opts     Options
	log      *slog.Logger
	running  atomic.Bool
	commands *place
	events   *place
}

// New returns a client that is not connected until Run. The error says which option is wrong, as an
// *invalid.FieldError.
func New(o Options) (*Client, error) {
	o.setDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Events = slices.Clone(o.Events)
	if !slices.Contains(o.Events, heartbeat) {
		o.Events = append(o.Events, heartbeat)
	}
	return &Client{
		opts: o, log: o.Log.With("component", "esl", "node", o.Node.Name),
		commands: newPlace(), events: newPlace(),
	}, nil
}

// Up tells whether both connections stand.
func (c *Client) Up() bool { return c.commands.link() != nil && c.events.link() != nil }

// place is where one of the client's connections is, while it stands.
type place struct {
	mu      sync.Mutex
	current *link
	filled  chan struct{} // closed while there is a link
}

func newPlace() *place { return &place{filled: make(chan struct{})} }

// link returns the connection, or nil.
func (p *place) link() *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current
}

// hold puts a connection in its place. What it returns takes the connection out again and waits until nothing of it is
// left.
func (p *place) hold(l *link) (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = l
	close(p.filled)
	return func() {
		p.clear()
		<-l.gone
	}
}

func (p *place) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = nil
	p.filled = make(chan struct{})
}

// wait waits until there is a connection, or returns the error of ctx.
func (p *place) wait(ctx context.Context) error {
	p.mu.Lock()
	filled := p.filled
	p.mu.Unlock()
	select {
	case <-filled:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func invalidArgument(name, reason string) error {
	return &invalid.FieldError{Name: name, Reason: reason}
}
