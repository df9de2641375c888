package sender

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/webhook"
)

// lane sends the events of one tenant. Its goroutine runs while there is something to send or under way; what it knows
// of the receiver stays longer, as long as its breaker is not closed.
type lane struct {
	sender *Sender
	log    *slog.Logger
	more   chan struct{} // something may be due
	ended  chan result   // of attempts

	// Guarded by the sender's lock.
	running bool
	found   webhook.Receiver // as it was found last

	// Of the goroutine alone.
	receiver webhook.Receiver
	breaker  webhook.Breaker
	underway int
	own      bool // the attempt that needs no share of what all tenants have together is under way
	outage   *background.Outage
}

// result is what a lane must know of an attempt that ended.
type result struct {
	receiver webhook.Receiver
	answer   answer
	own      bool
}

// errPlain means that an endpoint was given while plain HTTP was allowed, which it is no more.
var errPlain = errors.New("the endpoint is not https:// (WEBHOOK_ALLOW_HTTP)")

func newLane(s *Sender, r webhook.Receiver) *lane {
	log := s.log.With("tenant", r.Slug)
	return &lane{
		sender: s, receiver: r, found: r, log: log, more: make(chan struct{}, 1), ended: make(chan result, perTenant),
		outage: background.NewOutage(log, "events cannot be claimed"),
	}
}

// run works until nothing is left to do that may be done now. It claims until ctx ends; sending is of the attempts.
func (l *lane) run(ctx, sending context.Context) {
	for {
		if ctx.Err() == nil && l.fill(ctx, sending) {
			continue
		}
		if l.underway == 0 {
			if ctx.Err() != nil || l.sender.rest(l) {
				return
			}
			continue // somebody has found something; nobody may be there to say so again
		}
		select {
		case r := <-l.ended:
			l.settle(ctx, r)
		case <-l.more:
		}
	}
}

// fill claims and begins as many attempts as there is room for. It returns whether there may be more at once.
func (l *lane) fill(ctx, sending context.Context) bool {
	l.settleAll(ctx)
	l.refresh()
	room := l.reserve(l.breaker.Room(time.Now(), perTenant-l.underway))
	if len(room) == 0 {
		return false
	}
	claimed, keys, err := l.claim(ctx, len(room))
	l.outage.Note(ctx, err)
	for i, own := range room {
		if i >= len(claimed) {
			l.release(own)
			continue
		}
		l.breaker.Begin()
		l.underway++
		receiver, event := l.receiver, claimed[i]
		l.sender.running.Go(func() { l.ended <- result{receiver, l.attempt(sending, receiver, event, keys), own} })
	}
	l.show()
	return len(claimed) == len(room)
}

// refresh takes up a changed endpoint, which is not to pay for what the one before it did.
func (l *lane) refresh() {
	l.sender.mu.Lock()
	defer l.sender.mu.Unlock()
	if l.found != l.receiver {
		l.receiver, l.breaker = l.found, webhook.Breaker{}
	}
}

// reserve takes up to n places: the tenant's own, if it is free, and others of what all tenants share, as many as there
// are. Of each it returns whether it is the own.
func (l *lane) reserve(n int) (places []bool) {
	if n > 0 && !l.own {
		l.own = true
		places = append(places, true)
	}
	for len(places) < n && l.sender.shared.TryAcquire(1) {
		places = append(places, false)
	}
	return places
}

func (l *lane) release(own bool) {
	if own {
		l.own = false
	} else {
		l.sender.shared.Release(1)
	}
}

// claim claims up to n events, and opens what they are signed with. What cannot be sent is not claimed, so that it
// loses no attempt.
func (l *lane) claim(ctx context.Context, n int) ([]webhook.Delivery, []string, error) {
	if !l.receiver.BaseURL.Encrypted() && !l.sender.opts.AllowHTTP {
		return nil, nil, errPlain
	}
	// A claim that was cancelled half way may have been made: nobody would send its events until their leases end.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	keys, err := l.sender.signingKeys(asking, l.receiver.TenantID)
	if err != nil {
		return nil, nil, err
	}
	claimed, err := l.sender.opts.Store.ClaimEvents(asking, l.receiver.TenantID, n, l.sender.opts.Timeout+leaseMargin)
	return claimed, keys, err
}

// settleAll takes in what has ended meanwhile.
func (l *lane) settleAll(ctx context.Context) {
	for {
		select {
		case r := <-l.ended:
			l.settle(ctx, r)
		default:
			return
		}
	}
}

// settle takes in that an attempt has ended.
func (l *lane) settle(ctx context.Context, r result) {
	l.underway--
	l.release(r.own)
	if r.receiver != l.receiver {
		return // it says nothing of the endpoint that there is now
	}
	now := time.Now()
	before := l.breaker.State(now)
	switch {
	case errors.Is(r.answer.err, errStopping):
	case r.answer.able():
		l.breaker.Succeeded()
	default:
		l.breaker.Failed(now, r.answer.retryAfter)
	}
	if after := l.breaker.State(now); (before == webhook.Closed) != (after == webhook.Closed) {
		l.log.WarnContext(ctx, "receiver changed", "works", after == webhook.Closed, "last", r.answer.failure())
	}
	l.show()
}

func (l *lane) show() {
	l.sender.metrics.breaker.WithLabelValues(l.receiver.Slug).Set(float64(l.breaker.State(time.Now())))
}

// attempt sends a claimed event once, and writes down what came of it.
func (l *lane) attempt(ctx context.Context, r webhook.Receiver, d webhook.Delivery, keys []string) answer {
	ctx = telemetry.WithCorrelation(ctx, d.CorrelationID)
	sending, cancel := context.WithTimeout(ctx, l.sender.opts.Timeout)
	defer cancel()
	start := time.Now()
	got := l.sender.send(sending, r, d, keys)
	took := time.Since(start)
	l.sender.metrics.seconds.WithLabelValues(r.Slug).Observe(took.Seconds())
	outcome, err := l.conclude(ctx, d, got, webhook.Attempt{Number: d.Attempts, At: start, Duration: took, Status: got.status, Error: got.failure()})
	if err != nil {
		outcome = outcomeUnknown
	}
	l.sender.metrics.attempts.WithLabelValues(r.Slug, outcome).Inc()
	log := l.log.With("event", d.ID, "kind", string(d.Kind), "subject", d.Subject.String(), "attempt", d.Attempts, "took_ms", took.Milliseconds())
	switch {
	case err != nil:
		// Its lease runs out and it is sent once more, under the same key.
		log.ErrorContext(ctx, "outcome of an event cannot be written", "failure", got.failure(), "error", err)
	case outcome == outcomeDead:
		log.ErrorContext(ctx, "event given up", "failure", got.failure())
	case outcome == outcomeRetried:
		log.WarnContext(ctx, "event not taken, to be tried again", "failure", got.failure())
	default:
		log.InfoContext(ctx, "event delivered", "waited_ms", time.Since(d.CreatedAt).Milliseconds())
	}
	return got
}

// conclude ends the claim of an event, also while the process shuts down.
func (l *lane) conclude(ctx context.Context, d webhook.Delivery, got answer, a webhook.Attempt) (outcome string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	store := l.sender.opts.Store
	if a.Error == "" {
		return outcomeDelivered, store.DeliverEvent(ctx, d, a)
	}
	if errors.Is(got.err, errStopping) {
		return outcomeRetried, store.RetryEvent(ctx, d, a, 0)
	}
	verdict := d.Judge(time.Now(), got.retryAfter)
	if verdict.Dead {
		return outcomeDead, store.BuryEvent(ctx, d, a)
	}
	return outcomeRetried, store.RetryEvent(ctx, d, a, verdict.After)
}
