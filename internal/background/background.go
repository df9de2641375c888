// Package background holds what loops that work beside the requests have in common: to be woken, to wait, and to tell
// once of what goes on failing.
package background

import (
	"context"
	"log/slog"
	"time"
)

// Poke wakes who waits on a channel of capacity one, or lets him find out later that he was woken.
func Poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Pause waits, but not beyond ctx.
func Pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Outage logs that something has begun to fail, and that it works again, but not each time that it fails. It is for one
// goroutine.
type Outage struct {
	log     *slog.Logger
	what    string
	failing bool
}

// NewOutage returns an outage that is none yet. What says in the log what does not work then.
func NewOutage(log *slog.Logger, what string) *Outage { return &Outage{log: log, what: what} }

// Failing tells whether it failed when last noted.
func (o *Outage) Failing() bool { return o.failing }

// Note takes in how it went. An error after ctx has ended is no failure.
func (o *Outage) Note(ctx context.Context, err error) {
	switch {
	case err != nil && ctx.Err() == nil && !o.failing:
		o.failing = true
		o.log.ErrorContext(ctx, "out of order", "what", o.what, "error", err)
	case err == nil && o.failing:
		o.failing = false
		o.log.InfoContext(ctx, "in order again", "what", o.what)
	}
}
