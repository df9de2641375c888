package esl

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/percipia/eslgo"
	"github.com/percipia/eslgo/command"
)

// link is one connection to a switch, logged in, with eslgo on the near side of a relay:
//
//	FreeSWITCH ── TCP ── relay ── unix socket ── eslgo.Conn ── send
//	                       └── events, read here ── queue
//
// eslgo v1.5.0 by itself notices few of the ways in which a connection ends, waits for ever for a greeting or for a
// reply that does not come, hands replies to the wrong caller, has no bound on what it reads, starts a goroutine for
// each event and loses what it cannot parse. So the relay reads the switch's frames with bounds and deadlines and keeps
// to these rules:
//
//   - eslgo gets a greeting as soon as it connects, and then for each command exactly one reply: the switch's, or the
//     relay's own once the connection is lost.
//   - It gets nothing else, in particular no end of the stream, until the connection is given up.
//   - Then it is made to close itself, see part.
type link struct {
	life   context.Context //nolint:containedctx // The connection's own life, no caller's; its cause is why it ended.
	retire context.CancelCauseFunc
	gone   chan struct{} // closed when nothing of the link is left

	conn    net.Conn      // to the switch
	from    *bufio.Reader // of conn
	events  *queue        // nil if they are not wanted
	timeout time.Duration // for a reply, and for the switch to take a command
	silence time.Duration // after which the switch is taken for dead

	local   net.Conn // to eslgo
	client  *eslgo.Conn
	known   atomic.Bool    // logged in
	turn    chan struct{}  // holds one command at a time: eslgo lets go of its lock before it reads the reply
	loops   sync.WaitGroup // the two directions of the relay
	hungUp  chan struct{}  // closed when the relay answers instead of the switch
	parting atomic.Bool    // eslgo is made to close itself

	mu     sync.Mutex // guards what follows, and the order of what is written to local
	owed   int        // replies that eslgo waits for
	closed bool       // the relay answers
}

// Why a connection ended or did not come about, besides the errors of the network.
var (
	errRejected = errors.New("the switch turns this host away (apply-inbound-acl of its event socket)")
	errPassword = errors.New("the switch refuses the password")
	errNoReply  = errors.New("no reply to a command in time")
	errUnasked  = errors.New("a reply that no command asked for")
	errSilent   = errors.New("the switch is silent")
)

// lostReply is what the relay answers when the switch cannot.
const lostReply = "-ERR edgvoip: connection lost"

// partTime bounds how long eslgo may take for its part, be it to take a reply or to close itself. It takes
// microseconds; the bound is for a version of it that does not play its part at all.
const partTime = 5 * time.Second

// dial connects and logs in. Events go to a queue, which may be nil. The link ends with ctx or when the connection is
// lost; whoever dialled waits for gone.
func dial(ctx context.Context, o *Options, events *queue) (*link, error) {
	deadline := time.Now().Add(o.DialTimeout)
	conn, err := (&net.Dialer{Deadline: deadline}).DialContext(ctx, "tcp", o.Node.Address)
	if err != nil {
		return nil, err
	}
	l := &link{
		gone: make(chan struct{}), conn: conn, from: bufio.NewReaderSize(conn, 32<<10), events: events,
		timeout: o.CommandTimeout, silence: o.Silence,
		turn: make(chan struct{}, 1), hungUp: make(chan struct{}),
	}
	life, retire := context.WithCancelCause(ctx)
	l.life, l.retire = life, retire
	context.AfterFunc(life, l.hangUp)
	if err := l.greeting(deadline); err != nil {
		l.retire(err)
		return nil, l.why()
	}
	if err := l.logIn(o); err != nil {
		return nil, err
	}
	go l.part()
	return l, nil
}

// why returns the reason for the end of the link.
func (l *link) why() error { return context.Cause(l.life) }

// greeting reads the first frame. Without the deadline, what accepts connections and says nothing would hold us for
// ever.
func (l *link) greeting(deadline time.Time) error {
	if err := l.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	f, err := readFrame(l.from)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("no greeting in time: is this an event socket?")
	case err != nil:
		return fmt.Errorf("read the greeting: %w", err)
	case f.contentType == "text/rude-rejection":
		return errRejected
	case f.contentType != eslgo.TypeAuthRequest:
		return fmt.Errorf("the switch greets with %.100q", f.contentType)
	}
	return nil
}

// logIn starts the relay and lets eslgo log in through it. When it fails, nothing of the link is left.
func (l *link) logIn(o *Options) error {
	dialled, err := l.joinClient(o)
	if err != nil {
		l.retire(err)
		return err
	}
	late := time.AfterFunc(l.timeout, func() { l.retire(errNoReply) })
	defer late.Stop()
	l.loops.Go(l.fromSwitch)
	l.loops.Go(l.toSwitch)
	l.write(frame{contentType: eslgo.TypeAuthRequest})
	client := <-dialled
	if client == nil {
		// eslgo has closed its end.
		l.retire(errPassword)
		l.loops.Wait()
		l.local.Close()
		return fmt.Errorf("log in: %w", l.why())
	}
	l.client = client
	l.known.Store(true)
	return nil
}

// joinClient has eslgo dial the relay. What it dialled, or nil if it could not log in, comes over the channel.
func (l *link) joinClient(o *Options) (<-chan *eslgo.Conn, error) {
	// An abstract name: no file, and gone with the listener. Whoever else might connect to it meets what he would meet
	// on the switch's own port, a request for the password.
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "@edgvoip-esl-" + rand.Text()})
	if err != nil {
		return nil, err
	}
	hide := func() { _ = listener.Close() } // it may be closed already
	defer hide()
	options := eslgo.InboundOptions{
		// The relay bounds each wait and answers in the end, so eslgo has to be a little more patient.
		Options: eslgo.Options{Context: context.WithoutCancel(l.life), Logger: eslgo.NilLogger{}, ExitTimeout: l.timeout + partTime},
		Network: "unix", Password: o.Node.Password, AuthTimeout: l.timeout + partTime,
	}
	dialled := make(chan *eslgo.Conn, 1)
	go func() {
		client, err := options.Dial(listener.Addr().String())
		if err != nil {
			// It may not have come as far as to connect. If it did, the cause of the link's end says more than this
			// error, which holds the switch's whole reply.
			hide()
		}
		dialled <- client
	}()
	// Should this fail where eslgo could connect, for want of a file descriptor, its Dial stays behind: it waits for a
	// greeting.
	l.local, err = listener.Accept()
	return dialled, err
}

// fromSwitch reads what the switch sends until the connection is lost.
func (l *link) fromSwitch() {
	for {
		// A whole frame has to arrive in time, so a peer that sends a byte now and then is silent too.
		if err := l.conn.SetReadDeadline(time.Now().Add(l.silence)); err != nil {
			l.retire(err)
			return
		}
		f, err := readFrame(l.from)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("%w for %s", errSilent, l.silence)
		}
		if err == nil {
			err = l.take(f)
		}
		if err != nil {
			l.retire(err)
			return
		}
	}
}

// take passes a frame on. An error means that the stream makes no sense any more.
func (l *link) take(f frame) error {
	switch f.contentType {
	case eslgo.TypeReply, eslgo.TypeAPIResponse:
		if !l.known.Load() && strings.HasPrefix(f.replyText, "-ERR") {
			return errPassword
		}
		if !l.reply(f) {
			return errUnasked
		}
	case eslgo.TypeEventPlain:
		l.event(string(f.body))
	case eslgo.TypeDisconnect:
		notice, _, _ := strings.Cut(string(f.body), "\n")
		return fmt.Errorf("the switch takes its leave: %.100q", notice)
	default:
		return badFrame("its type is %.100q", f.contentType)
	}
	return nil
}

func (l *link) event(text string) {
	if l.events == nil {
		return
	}
	if e, err := parseEvent(text); err != nil {
		l.events.lose()
	} else {
		l.events.push(e)
	}
}

// toSwitch passes eslgo's commands on until eslgo closes its end.
func (l *link) toSwitch() {
	commands := bufio.NewReader(l.local)
	for {
		message, err := readCommand(commands)
		if err != nil {
			l.retire(err)
			return
		}
		switch {
		case l.parting.Load():
			l.write(frame{contentType: eslgo.TypeDisconnect})
		case l.owe():
			if err := l.forward(message); err != nil {
				l.retire(err)
			}
		}
	}
}

// readCommand reads one command with the empty line that ends it. No command of ours has a body.
func readCommand(r *bufio.Reader) ([]byte, error) {
	var message []byte
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return nil, err
		}
		message = append(message, line...)
		if bytes.HasSuffix(message, []byte(eslgo.EndOfMessage)) {
			return message, nil
		}
	}
}

func (l *link) forward(message []byte) error {
	// A switch that has stopped reading must not hold the relay.
	if err := l.conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		return err
	}
	_, err := l.conn.Write(message)
	return err
}

// owe notes a command of eslgo's. If the switch is lost it answers instead and returns false.
func (l *link) owe() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		l.writeLocked(frame{contentType: eslgo.TypeReply, replyText: lostReply})
		return false
	}
	l.owed++
	return true
}

// reply hands eslgo the reply to its command. It returns false if there is no command: eslgo would take the reply for
// that to its next one.
func (l *link) reply(f frame) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return true
	}
	if l.owed == 0 {
		return false
	}
	l.owed--
	l.writeLocked(f)
	return true
}

// hangUp runs when the link's life ends: the relay gives the replies that are owed, so that nobody waits.
func (l *link) hangUp() {
	l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for ; l.owed > 0; l.owed-- {
		l.writeLocked(frame{contentType: eslgo.TypeReply, replyText: lostReply})
	}
	close(l.hungUp)
}

func (l *link) write(f frame) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writeLocked(f)
}

func (l *link) writeLocked(f frame) {
	err := l.local.SetWriteDeadline(time.Now().Add(partTime))
	if err == nil {
		_, err = l.local.Write(f.bytes())
	}
	if err != nil {
		l.retire(err)
	}
}

// part waits for the end of the link's life and takes eslgo down.
//
// eslgo's Close writes to a map that two of its goroutines, authLoop and disconnectLoop, read without a lock, and its
// handling of the end of a stream reads it too: data races, which the race detector reports at each Dial and Close. So
// we never call Close and never show eslgo an end. We have it close itself in an order that has no race: asked to log
// in again, authLoop sends the password, after which it reads the map under the lock only; that, seen here, is answered
// with a notice of disconnection, on which disconnectLoop, the other reader, closes.
func (l *link) part() {
	defer close(l.gone)
	<-l.hungUp
	// The last command has its reply, and no other may get between.
	l.turn <- struct{}{}
	l.parting.Store(true)
	// What eslgo does not close in time is lost, but nothing of ours waits for it.
	late := time.AfterFunc(partTime, func() { l.local.Close() })
	defer late.Stop()
	l.write(frame{contentType: eslgo.TypeAuthRequest})
	l.loops.Wait()
	l.local.Close()
}

// send runs one command and returns the switch's reply. Commands wait for their turn. One that gets no reply in time
// ends the link, as nobody can tell any more which reply belongs to which command; a caller that gives up earlier does
// not. The error is that of ctx, or wraps ErrDown if nothing was sent, or ErrLost if the command may have been run.
func (l *link) send(ctx context.Context, c command.Command) (*eslgo.RawResponse, error) {
	if err := l.await(ctx); err != nil {
		return nil, err
	}
	answered := make(chan *eslgo.RawResponse, 1)
	go func() {
		defer func() { <-l.turn }()
		late := time.AfterFunc(l.timeout, func() { l.retire(errNoReply) })
		defer late.Stop()
		// The relay answers in any case. A context that ended before would leave the reply to the next command.
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout+partTime)
		defer cancel()
		r, err := l.client.SendCommand(patient, c)
		if err != nil {
			l.retire(err)
		}
		answered <- r
	}()
	select {
	case r := <-answered:
		if r == nil || r.Headers.Get("Reply-Text") == lostReply {
			return nil, fmt.Errorf("%w: %w", ErrLost, l.why())
		}
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// await takes the turn, unless the link or the caller ends before; its errors are those of send.
func (l *link) await(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		// More than one may be ready, of which select takes any.
		if l.life.Err() == nil && ctx.Err() == nil {
			return nil
		}
		<-l.turn
	case <-l.life.Done():
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDown, l.why())
}

// subscribe asks for events of one kind: HEARTBEAT, CUSTOM sofia::register.
func (l *link) subscribe(ctx context.Context, event string) error {
	r, err := l.send(ctx, command.Event{Format: "plain", Listen: []string{event}})
	if err != nil {
		return err
	}
	// RawResponse.IsOk decodes the text, and has none left where that fails.
	if reply := r.Headers.Get("Reply-Text"); !strings.HasPrefix(reply, "+OK") {
		return fmt.Errorf("subscribe to %q: %q", event, reply)
	}
	return nil
}
