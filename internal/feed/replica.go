package feed

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// MaxBehind is how far a replica may be behind its primary and still be taken for new: heartbeats come every
// beatInterval, are replayed a moment later, and the clocks of two servers differ a little.
const MaxBehind = 5 * beatInterval

// replica says in the log what becomes of a source that is one.
type replica struct {
	log *slog.Logger
	// read tells that what was read last came from a replica.
	read atomic.Bool
	// deaf is true once it was said that there is no heartbeat, late while it is behind.
	deaf, late bool
}

// note takes in a page.
func (r *replica) note(ctx context.Context, p Page) {
	r.read.Store(p.Replica)
	if p.Replica && !p.Beats && !r.deaf {
		r.deaf = true
		r.log.WarnContext(ctx, "how old what a replica knows is cannot be told: integration-api has never written a heartbeat on its primary")
	}
	if late := p.Behind > MaxBehind; late != r.late {
		r.late = late
		if late {
			r.log.WarnContext(ctx, "the replica is behind its primary, or integration-api writes no heartbeats, or their clocks differ",
				"behind", p.Behind.Round(time.Second).String())
		} else {
			r.log.InfoContext(ctx, "the replica follows its primary again")
		}
	}
}
