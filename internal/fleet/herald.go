package fleet

import (
	"context"
	"time"

	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/node"
)

// heralded is how many jobs the herald takes at once. Where more wait, each does its part when its turn comes.
const heralded = 200

// herald makes a switch that caches forget at once whom a change is about, ahead of the job's turn: the jobs before it
// may wait for the database of a SIP profile, and as long as he is in the cache he can register. It does a part of the
// job that does no harm twice and needs no order; the job does all of it. A job whose transaction committed after that
// of a higher number it passes over.
func (m *member) herald(ctx context.Context) {
	if !m.node.CachesUsers {
		return
	}
	outage := background.NewOutage(m.log, "new jobs cannot be read")
	for last := int64(0); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			return
		case <-m.news:
		}
		if !m.sw.Up() {
			continue // each connection begins with forgetting everybody
		}
		jobs, err := m.untried(ctx, last)
		outage.Note(ctx, err)
		for _, job := range jobs {
			last = job.ID
			m.announce(ctx, job)
		}
		m.announceOld(ctx)
	}
}

// announceOld announces jobs anew that have waited for so long that a later change may have joined them
// (edgvoip.ask_switches).
func (m *member) announceOld(ctx context.Context) {
	waiting, err := m.untried(ctx, 0)
	if err != nil {
		return // the jobs come all the same, in their turn
	}
	for _, job := range waiting {
		if time.Since(job.CreatedAt) > joinable {
			m.announce(ctx, job)
		}
	}
}

// joinable is the age from which on a job may stand for a later change too.
const joinable = time.Minute

func (m *member) untried(ctx context.Context, last int64) ([]node.Job, error) {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return m.fleet.opts.Store.UntriedJobs(asking, m.node.ID, last, heralded)
}

// announce makes the switch forget whom a job is about. If that fails, it is the job that is tried again.
func (m *member) announce(ctx context.Context, job node.Job) {
	task, err := job.Task()
	if err != nil {
		return
	}
	if again, ok := node.SecondRound(task); ok && m.obey(ctx, again) == nil {
		m.startEcho(ctx, task)
	}
}
