package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// settleTime is how long each server is driven before the rounds of a workload, uncounted.
const settleTime = 500 * time.Millisecond

// measure runs all workloads and reports on each as it is done.
func (s *stage) measure(ctx context.Context, stdout io.Writer) error {
	r := report{
		Clients: s.clients, Rate: s.rate, Rounds: s.rounds, RoundSeconds: s.round.Seconds(), Choice: s.choice, Spread: s.spread,
		Warm:       s.warm,
		Extensions: s.sizes, AimsMet: true,
	}
	var failure error
	for i, name := range s.workloads {
		w, err := s.contest(ctx, s.questions.workload(name), i == 0)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if w == nil {
			return err
		}
		if failure == nil {
			failure = err
		}
		r.add(w)
		if _, err := io.WriteString(stdout, w.text(s.options)); err != nil {
			return err
		}
	}
	if s.json {
		if err := json.NewEncoder(stdout).Encode(r); err != nil {
			return err
		}
	}
	if failure == nil && s.strict && !r.AimsMet {
		failure = errors.New("an aim is missed (-strict)")
	}
	return failure
}

// contest measures one workload. The error is the first failure; a result comes with it where there is one. first tells
// that nothing was asked yet.
func (s *stage) contest(ctx context.Context, w workload, first bool) (*result, error) {
	document, err := s.document(w)
	if err != nil {
		return nil, err
	}
	floor, err := s.startFloor(ctx, document)
	if err != nil {
		return nil, err
	}
	defer floor.process.close()
	res := &result{workload: w, Name: w.name, DocumentBytes: len(document)}
	all := append([]*contestant{floor}, s.contestants...)
	for _, c := range all {
		f := &figures{contestant: c, Server: c.name, Extensions: c.people.extensions}
		res.Servers = append(res.Servers, f)
		if c.role != roleFloor && c.cold && s.warm != warmNone {
			warm, err := s.warmUp(ctx, c, w)
			if err != nil {
				return nil, err
			}
			if first {
				f.First = newTimes(warm)
			}
		}
		if err := c.failure(drive(ctx, c.target, s.plan(c, w, document, settleTime, 0))); err != nil {
			return nil, err
		}
	}
	var failure error
	for round := 1; round <= s.rounds; round++ {
		for _, f := range res.Servers {
			o, err := s.play(ctx, f, w, document, round)
			if err != nil {
				return nil, err
			}
			if failure == nil {
				failure = f.contestant.failure(o)
			}
		}
	}
	res.finish(s.options)
	return res, failure
}

// document returns the right answer to one question of a workload.
func (s *stage) document(w workload) ([]byte, error) {
	c := s.contestants[0]
	var q question
	w.ask(&q, c.people.nth(0), 0)
	a, err := newClient(0).ask(c.target, q.body)
	if err == nil {
		err = q.check(a)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.name, err)
	}
	return a.body, nil
}

// asking returns how the questions of a workload are put to a contestant. The floor is asked the same, and knows one
// answer.
func asking(c *contestant, w workload, document []byte) func(q *question, extension int, n uint64) {
	if c.role != roleFloor {
		return w.ask
	}
	constant := string(document)
	return func(q *question, extension int, n uint64) {
		w.ask(q, extension, n)
		q.wants = append(q.wants[:0], constant)
	}
}

// plan returns the plan of a round; each contestant's has the same questions.
func (s *stage) plan(c *contestant, w workload, document []byte, length time.Duration, round int) plan {
	ask, choose := asking(c, w, document), chooser(c.people, s.choice, s.asked(c))
	p := plan{
		clients: s.clients, length: length, seed: uint64(round), //nolint:gosec // positive
		write: func(q *question, r *rand.Rand, _ int) { ask(q, choose(r), r.Uint64()) },
	}
	if s.rate > 0 {
		p.due = arrivals(s.arrivals, s.rate, length, rand.New(rand.NewPCG(p.seed, 0))) //nolint:gosec // the same every time
	}
	return p
}

// asked is the number of extensions that a contestant is asked for.
func (s *stage) asked(c *contestant) int {
	if s.spread > 0 {
		return min(s.spread, c.people.extensions)
	}
	return c.people.extensions
}

// warmUp asks once for each extension that will be asked for.
func (s *stage) warmUp(ctx context.Context, c *contestant, w workload) (outcome, error) {
	o := drive(ctx, c.target, plan{
		clients: s.clients, count: s.asked(c),
		write: func(q *question, _ *rand.Rand, n int) { w.ask(q, c.people.nth(n), 0) },
	})
	return o, c.failure(o)
}

// play plays one round of one contestant and adds what it saw to its figures.
func (s *stage) play(ctx context.Context, f *figures, w workload, document []byte, n int) (outcome, error) {
	c := f.contestant
	p := s.plan(c, w, document, s.round, n)
	before, err := c.process.usage()
	if err != nil {
		return outcome{}, err
	}
	whole, err := machineUsage()
	if err != nil {
		return outcome{}, err
	}
	own := ownCPU()
	o := drive(ctx, c.target, p)
	own = ownCPU() - own
	after, err := c.process.usage()
	if err != nil {
		return outcome{}, err
	}
	wholeAfter, err := machineUsage()
	if err != nil {
		return outcome{}, err
	}
	cpu := after.cpu - before.cpu
	f.add(o, cpu, own, after.rss)
	f.Rest.add(100 * float64(wholeAfter.used-whole.used-cpu-own) / float64(max(wholeAfter.all-whole.all, 1)))
	return o, nil
}
