package aisession

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/time/rate"
)

// subprotocol names the messages of this package (RFC 6455, 1.9). A gateway that selects another is not ours.
const subprotocol = "edgvoip.ai.v1"

// How often a gateway is asked whether it is there, how long its answer may take, how long a message may take to be
// sent, and how long a gateway may take to close the channel after a goodbye.
const (
	pingInterval = 2 * time.Second
	pingTimeout  = 2 * time.Second
	sendTimeout  = 2 * time.Second

	goodbyeTimeout = 500 * time.Millisecond
)

// How many messages a gateway may send in a second, and at once: many times as many as a call has, also of types that
// are ignored.
const (
	messageRate  = 50
	messageBurst = 200
)

// Channel carries the messages about one session, over a WebSocket. Its methods are safe for concurrent use.
type Channel struct {
	conn     *websocket.Conn
	messages chan Message
	cancel   context.CancelFunc
	loops    sync.WaitGroup

	mu  sync.Mutex
	err error
}

// What it means that a gateway grants the upgrade and speaks something else.
var (
	errNoWebSocket   = errors.New("the gateway does not speak WebSocket")
	errWrongProtocol = errors.New("the gateway did not select " + subprotocol)
)

// Dial opens the channel of a session. It lives until Close, not until ctx ends.
func (c *Client) Dial(ctx context.Context, s Session) (*Channel, error) {
	header := http.Header{"User-Agent": {userAgent}}
	if s.Token != "" {
		header.Set("Authorization", "Bearer "+s.Token)
	}
	client, release := c.upgrading(ctx)
	conn, resp, err := websocket.Dial(ctx, s.Endpoint.String(), &websocket.DialOptions{ //nolint:bodyclose // the library closes it
		HTTPClient: client, HTTPHeader: header, Subprotocols: []string{subprotocol},
	})
	inTime := release()
	switch {
	case err == nil && inTime:
	case err == nil:
		_ = conn.CloseNow() // it is closed already
		return nil, ctx.Err()
	case resp != nil && resp.StatusCode == http.StatusSwitchingProtocols:
		return nil, errNoWebSocket
	case resp != nil:
		return nil, &RefusedError{resp.StatusCode}
	default:
		return nil, cause(ctx, err)
	}
	if conn.Subprotocol() != subprotocol {
		_ = conn.CloseNow() // it is not used
		return nil, errWrongProtocol
	}
	conn.SetReadLimit(maxMessage)
	living, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ch := &Channel{conn: conn, messages: make(chan Message, 16), cancel: cancel}
	ch.loops.Go(func() { ch.read(living) })
	ch.loops.Go(func() { ch.ping(living) })
	return ch, nil
}

// upgrading returns a client whose upgrade to a WebSocket ends with ctx, until release is called, which tells whether
// it was in time. net/http bounds it only until the gateway grants it; the library then waits for three seconds for
// what should follow.
func (c *Client) upgrading(ctx context.Context) (client *http.Client, release func() bool) {
	stop := func() bool { return true }
	upgrading := *c.http
	upgrading.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := c.http.Transport.RoundTrip(req)
		if err == nil && resp.StatusCode == http.StatusSwitchingProtocols {
			conn := resp.Body
			stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return resp, err
	})
	return &upgrading, func() bool { return stop() }
}

// roundTripper is a function that is an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// Messages returns what the gateway says; closed when the channel is lost, and then Err says why.
func (ch *Channel) Messages() <-chan Message { return ch.messages }

// Err returns why the channel was lost; nil while it is not.
func (ch *Channel) Err() error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.err
}

func (ch *Channel) lost(err error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.err == nil {
		ch.err = err
	}
}

func (ch *Channel) read(ctx context.Context) {
	defer close(ch.messages)
	limit := rate.NewLimiter(messageRate, messageBurst)
	for {
		kind, b, err := ch.conn.Read(ctx)
		if status := websocket.CloseStatus(err); status != -1 { // without the gateway's words
			ch.lost(fmt.Errorf("receive: closed with status %d", status))
			return
		} else if err != nil {
			ch.lost(fmt.Errorf("receive: %w", err))
			return
		}
		if kind != websocket.MessageText {
			ch.lost(errors.New("receive: a message that is no text"))
			return
		}
		if !limit.Allow() {
			ch.lost(errors.New("receive: more messages than anybody needs"))
			return
		}
		m, err := ParseMessage(b)
		if errors.Is(err, ErrUnknownMessage) {
			continue
		} else if err != nil {
			ch.lost(fmt.Errorf("receive: %w", err))
			return
		}
		select {
		case ch.messages <- m:
		case <-ctx.Done():
			return
		}
	}
}

// ping finds out when a gateway is gone without a word. A connection that does not answer is closed, which ends read.
func (ch *Channel) ping(ctx context.Context) {
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		asking, cancel := context.WithTimeout(ctx, pingTimeout)
		err := ch.conn.Ping(asking)
		cancel()
		if err != nil {
			ch.lost(fmt.Errorf("ping: %w", err))
			_ = ch.conn.CloseNow() // it is lost already
			return
		}
	}
}

// Send sends a message, also when ctx ends meanwhile: the library closes a connection whose message it cannot finish,
// and nobody could say goodbye any more.
func (ch *Channel) Send(ctx context.Context, m Message) error {
	b, err := m.encode()
	if err != nil {
		return fmt.Errorf("send %s: %w", m.Type, err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	if err := ch.conn.Write(ctx, websocket.MessageText, b); err != nil {
		return fmt.Errorf("send %s: %w", m.Type, err)
	}
	return nil
}

// Close says goodbye with a reason, gives the gateway a moment to close the channel itself, and closes it, also when
// ctx has ended. It is called once.
func (ch *Channel) Close(ctx context.Context, reason HangupReason) {
	// Whoever is gone does not hear it.
	if ch.Err() == nil && ch.Send(ctx, Message{Type: TypeHangup, Reason: reason}) == nil {
		ch.linger()
	}
	ch.cancel()
	_ = ch.conn.CloseNow() // nothing is left to be said
	ch.loops.Wait()
}

// linger reads what is still on its way. A connection that is closed with something unread would take the goodbye with
// it.
func (ch *Channel) linger() {
	patience := time.After(goodbyeTimeout)
	for {
		select {
		case _, ok := <-ch.messages:
			if !ok {
				return
			}
		case <-patience:
			return
		}
	}
}
