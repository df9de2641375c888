package esl

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/edgvoip/edgvoip/internal/background"
)

// Run connects, and connects again whenever a connection is lost, until ctx ends; then it returns nil and nothing of
// the client is left running. The error is for a client that runs already.
func (c *Client) Run(ctx context.Context) error {
	if !c.running.CompareAndSwap(false, true) {
		return errors.New("the client runs already")
	}
	defer c.running.Store(false)
	var both sync.WaitGroup
	both.Go(func() { c.keep(ctx, "commands", c.serveCommands) })
	both.Go(func() { c.keep(ctx, "events", c.serveEvents) })
	both.Wait()
	return nil
}

// keep calls serve, which returns when its connection is lost or was not made, until ctx ends.
func (c *Client) keep(ctx context.Context, connection string, serve func(context.Context) error) {
	pause := newBackoff(&c.opts)
	for ctx.Err() == nil {
		began := time.Now()
		err := serve(ctx)
		if ctx.Err() != nil {
			return
		}
		// One that is lost at once, again and again, is no better than one that is not made.
		if time.Since(began) > c.opts.MaxBackoff {
			pause.reset()
		}
		wait := pause.next()
		c.log.WarnContext(ctx, "no connection to the switch", "connection", connection, "error", err, "retry_in", wait.Round(time.Millisecond))
		background.Pause(ctx, wait)
	}
}

func (c *Client) serveCommands(ctx context.Context) error {
	// The heartbeat keeps silence from meaning anything but a lost switch.
	l, err := c.connect(ctx, "commands", nil, []string{heartbeat})
	if err != nil {
		return err
	}
	defer c.commands.hold(l)()
	<-l.life.Done()
	return l.why()
}

func (c *Client) serveEvents(ctx context.Context) error {
	dropped := c.opts.Metrics.dropped.WithLabelValues(c.opts.Node.Name)
	events := newQueue(c.opts.QueueSize, dropped.Inc)
	l, err := c.connect(ctx, "events", events, c.opts.Events)
	if err != nil {
		return err
	}
	defer c.events.hold(l)()
	c.dispatch(l.life, events) //nolint:contextcheck // The life of the link is ctx, ended earlier.
	return l.why()
}

// connect dials and subscribes.
func (c *Client) connect(ctx context.Context, connection string, events *queue, kinds []string) (*link, error) {
	count := func(outcome string) {
		c.opts.Metrics.connects.WithLabelValues(c.opts.Node.Name, connection, outcome).Inc()
	}
	l, err := dial(ctx, &c.opts, events)
	if err != nil {
		count("failed")
		return nil, err
	}
	for _, kind := range kinds {
		if err := l.subscribe(ctx, kind); err != nil {
			count("failed")
			l.retire(err)
			<-l.gone
			return nil, err
		}
	}
	count("connected")
	c.log.InfoContext(ctx, "connected to the switch", "connection", connection)
	return l, nil
}

// dispatch reads the state and handles events, and so on after each gap, until ctx ends.
func (c *Client) dispatch(ctx context.Context, events *queue) {
	for c.resync(ctx) {
		for {
			e, gap, err := events.next(ctx)
			if err != nil {
				return
			}
			if gap {
				c.log.WarnContext(ctx, "events were lost")
				break
			}
			c.opts.Handle(ctx, e)
		}
	}
}

// resync reads the state until that succeeds. It returns false if ctx ended.
func (c *Client) resync(ctx context.Context) bool {
	count := func(outcome string) { c.opts.Metrics.resyncs.WithLabelValues(c.opts.Node.Name, outcome).Inc() }
	for pause := newBackoff(&c.opts); ; {
		// It will want to ask the switch.
		if c.commands.wait(ctx) != nil {
			return false
		}
		err := c.opts.Resync(ctx, c)
		if ctx.Err() != nil {
			return false
		}
		if err == nil {
			count("done")
			return true
		}
		count("failed")
		wait := pause.next()
		c.log.WarnContext(ctx, "resync with the switch failed", "error", err, "retry_in", wait.Round(time.Millisecond))
		background.Pause(ctx, wait)
	}
}

// backoff is a wait that doubles.
type backoff struct{ least, most, now time.Duration }

func newBackoff(o *Options) *backoff {
	return &backoff{least: o.MinBackoff, most: o.MaxBackoff, now: o.MinBackoff}
}

func (b *backoff) reset() { b.now = b.least }

// next returns the wait, shortened by up to a half at random: the clients of a switch that restarts should not come all
// at once.
func (b *backoff) next() time.Duration {
	wait := b.now - rand.N(b.now/2+1) //nolint:gosec // Jitter is no secret.
	b.now = min(2*b.now, b.most)
	return wait
}
