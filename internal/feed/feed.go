// Package feed follows the ordered list of changes that triggers write into PostgreSQL (edgvoip.changes), so that what a
// process remembers can be forgotten as soon as it is not true any more. It misses nothing: a notification may be lost, a
// connection broken, a transaction may commit after one that began later, a failover may lose history, and reads may go to
// a replica.
package feed

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/background"
)

// Subject is what a change is about.
type Subject string

// The subjects.
const (
	SubjectTenant    Subject = "tenant"
	SubjectDomain    Subject = "domain"
	SubjectExtension Subject = "extension"
	SubjectTrunk     Subject = "trunk"
	// SubjectEverything is a table emptied at once.
	SubjectEverything Subject = "everything"
)

// Change is one change of something that a lookup reads.
type Change struct {
	// ID orders changes. Numbers are given before their transactions commit.
	ID int64
	// Tx is the writer's transaction.
	Tx      uint64
	At      time.Time
	Subject Subject
	Tenant  uuid.UUID
	// Domain is that of an extension, and otherwise zero.
	Domain uuid.UUID
	// Names are all that the change touches, old and new: of an extension its number and username, in lower case; of a
	// domain its realm.
	Names []string
}

// Mark tells one row of the list from every other: a failover can give a number again.
type Mark struct {
	ID int64
	Tx uint64
}

// Span is a range of numbers, both ends included.
type Span struct{ First, Last int64 }

// Page is what one read of the list saw, in one snapshot of the database.
type Page struct {
	// Changes are those after the mark, the first ones up to the limit, and those that have appeared in the spans; in order
	// of number.
	Changes []Change
	// MarkFound tells whether the row of the mark is still there. Without it, changes may have been lost.
	MarkFound bool
	// Head is the newest row; zero if there is none.
	Head Mark
	// History names what the server's rows are the end of: it is another after a failover, also where no change seems lost. Empty if
	// the server does not say.
	History string
	// Oldest is the oldest transaction that was not over (pg_snapshot_xmin); Next the first not begun (pg_snapshot_xmax).
	Oldest, Next uint64
	// Replica tells that it was read from one. Behind is then the age of the newest that it has from its primary, by its own
	// clock: not less than zero. Beats tells whether the primary has ever written a heartbeat; without, Behind is not known, and zero.
	Replica, Beats bool
	Behind         time.Duration
}

// Source is where changes are read.
type Source interface {
	// MarkFound is also false if late, which may be zero, is a row that is not there any more.
	Changes(ctx context.Context, after, late Mark, missing []Span, limit int) (Page, error)
	// PruneChanges removes some changes older than keep and returns how many; none are left when it is zero.
	PruneChanges(ctx context.Context, keep time.Duration) (int, error)
	// ListenForChanges calls wake for each notification, and whenever notifications may have been lost, until ctx ends or
	// the server cannot notify (a replica).
	ListenForChanges(ctx context.Context, wake func()) error
}

// Reader is who must know of changes. Its methods are called one at a time.
type Reader interface {
	// Apply forgets what changed.
	Apply(changes []Change)
	// Forget distrusts everything: what changed is not known any more.
	Forget()
	// Synced is called after each read: all that was committed a moment ago is applied, or so much longer ago as Behind was
	// told before.
	Synced(at time.Time)
	// Behind is called before Synced with how old that is what was read: on a replica the age of the newest sign of its
	// primary, elsewhere zero.
	Behind(age time.Duration)
}

// Gap is a range of numbers that were not there when later ones were. Until all transactions before Until are over, they can
// still appear.
type Gap struct {
	Span
	Until uint64
}

// Position is how far a follower has read. It can be kept, and given to another follower. The zero value is nowhere.
type Position struct {
	Mark Mark
	Gaps []Gap
	// History is that of the page that was read last; empty if it is not known.
	History string
}

// Heard is the number up to which there is no change that was not applied, nor will be one; zero nowhere.
func (p Position) Heard() int64 {
	heard := p.Mark.ID
	for _, g := range p.Gaps {
		heard = min(heard, g.First-1)
	}
	return heard
}

// Options describe a follower.
type Options struct {
	Source Source
	Reader Reader
	// Interval is the time between reads without a notification.
	Interval time.Duration
	// Timeout bounds one read.
	Timeout time.Duration
	// From is where to go on; the zero value begins with what is committed from now on.
	From    Position
	Metrics Metrics
	Log     *slog.Logger
}

// Metrics are told what a follower does. The zero value tells nobody.
type Metrics struct {
	// Lag is called with the time from each change to its being applied.
	Lag func(time.Duration)
	// Failed is called for each read that failed, Forgot whenever the reader was told to forget everything.
	Failed, Forgot func()
	// Heard is called after each read with Position.Heard.
	Heard func(id int64)
}

// Follower reads changes and hands them to a Reader.
type Follower struct {
	opts Options
	wake chan struct{}

	mu   sync.Mutex // guards what follows
	mark Mark
	// late is the last row that appeared before the mark. It was committed after the mark's, so a failover can lose it alone.
	late  Mark
	gaps  []Gap
	begun bool
	// history is that of the last page that had one.
	history string
	// settle is the transaction that must be over before what was read since the start can be trusted; zero if it is.
	settle uint64

	replica replica
}

// pageSize bounds the changes of one read. A variable for tests.
var pageSize = 5000

// lateKept is for how many changes a late row is looked after: it must not be missed when it is pruned.
const lateKept = 500

// pruning: changes are kept for as long as a reader may be away and still go on where it was.
const (
	pruneInterval = 10 * time.Minute
	pruneKeep     = time.Hour
)

// New returns a follower. Run makes it follow.
func New(o Options) *Follower {
	f := &Follower{opts: o, wake: make(chan struct{}, 1), replica: replica{log: o.Log}}
	if o.From.Mark != (Mark{}) {
		f.begun, f.mark, f.gaps, f.history = true, o.From.Mark, slices.Clone(o.From.Gaps), o.From.History
	}
	return f
}

// Position returns how far the follower has read.
func (f *Follower) Position() Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.position()
}

func (f *Follower) position() Position {
	if f.settle != 0 {
		return Position{} // not yet sure of anything before the mark
	}
	return Position{Mark: f.mark, Gaps: slices.Clone(f.gaps), History: f.history}
}

// Run follows until ctx ends. It does not return before: a source that fails is asked again.
func (f *Follower) Run(ctx context.Context) {
	var helpers sync.WaitGroup
	helpers.Go(func() { f.listen(ctx) })
	helpers.Go(func() { f.prune(ctx) })
	defer helpers.Wait()
	tick := time.NewTicker(f.opts.Interval)
	defer tick.Stop()
	healthy := true
	for {
		err := f.Read(ctx)
		if ctx.Err() != nil {
			return
		}
		if (err == nil) != healthy {
			healthy = err == nil
			if healthy {
				f.opts.Log.InfoContext(ctx, "following changes again")
			} else {
				f.opts.Log.WarnContext(ctx, "changes cannot be followed; answers are from what is known", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-f.wake:
		}
	}
}

func (f *Follower) listen(ctx context.Context) {
	const pause = 30 * time.Second
	for ctx.Err() == nil {
		err := f.opts.Source.ListenForChanges(ctx, func() { background.Poke(f.wake) })
		if ctx.Err() != nil {
			return
		}
		f.opts.Log.InfoContext(ctx, "no notifications of changes; the list is read at intervals", "interval", f.opts.Interval.String(), "error", err)
		background.Pause(ctx, pause)
	}
}

// prune removes old changes now and then. Several followers do; on a replica none can, and Keep does.
func (f *Follower) prune(ctx context.Context) {
	tick := time.NewTicker(pruneInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if f.replica.read.Load() {
			continue
		}
		for removed := 1; removed > 0; {
			var err error
			if removed, err = f.opts.Source.PruneChanges(ctx, pruneKeep); err != nil && ctx.Err() == nil {
				f.opts.Log.WarnContext(ctx, "old changes not removed", "error", err)
			}
		}
	}
}

// Read applies all changes that are committed. It is for Run and for tests.
func (f *Follower) Read(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		asked := time.Now()
		page, full, err := f.readPage(ctx)
		if err != nil {
			if f.opts.Metrics.Failed != nil {
				f.opts.Metrics.Failed()
			}
			return err
		}
		if !full {
			f.replica.note(ctx, page)
			f.opts.Reader.Behind(page.Behind)
			f.opts.Reader.Synced(asked)
			if f.opts.Metrics.Heard != nil {
				f.opts.Metrics.Heard(f.position().Heard())
			}
			return nil
		}
	}
}

// readPage reads and applies one page. full tells that there may be more.
func (f *Follower) readPage(ctx context.Context) (page Page, full bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.opts.Timeout)
	defer cancel()
	spans := make([]Span, len(f.gaps))
	for i, g := range f.gaps {
		spans[i] = g.Span
	}
	if page, err = f.opts.Source.Changes(ctx, f.mark, f.late, spans, pageSize); err != nil {
		return page, false, err
	}
	elsewhere := f.elsewhere(page.History)
	if !f.begun || elsewhere || !page.MarkFound && (f.mark != page.Head || f.late != Mark{}) { // the same only where there was no row, and is none
		f.restart(page)
		return page, false, nil
	}
	newer := f.note(page)
	if f.mark.ID-f.late.ID > lateKept {
		f.late = Mark{}
	}
	if len(page.Changes) > 0 {
		f.opts.Reader.Apply(page.Changes)
		f.measure(page.Changes)
	}
	f.gaps = slices.DeleteFunc(f.gaps, func(g Gap) bool { return g.Until <= page.Oldest })
	if f.settle != 0 && f.settle <= page.Oldest {
		f.settle = 0
		f.forget()
	}
	return page, newer >= pageSize, nil
}

// elsewhere tells whether the history of a page is another than that of the pages before it. A lookup may then have read what the end
// of the old one took with it, and what was never told of here.
func (f *Follower) elsewhere(history string) bool {
	before := f.history
	f.history = cmp.Or(history, before)
	return before != "" && f.history != before
}

// restart begins at the newest change, with nothing known. Transactions may be open that have numbers before it: once they
// are over, what was read meanwhile is distrusted once more.
func (f *Follower) restart(page Page) {
	f.begun, f.mark, f.late, f.gaps, f.settle = true, page.Head, Mark{}, nil, page.Next
	if page.Oldest >= page.Next {
		f.settle = 0
	}
	f.forget()
}

func (f *Follower) forget() {
	f.opts.Reader.Forget()
	if f.opts.Metrics.Forgot != nil {
		f.opts.Metrics.Forgot()
	}
}

// note moves the mark, closes gaps whose numbers have appeared and opens gaps for numbers that are missing. It returns the
// number of changes after the old mark.
func (f *Follower) note(page Page) (newer int) {
	for _, c := range page.Changes {
		if c.ID <= f.mark.ID {
			f.fill(c.ID)
			f.late = Mark{c.ID, c.Tx}
			continue
		}
		if c.ID > f.mark.ID+1 {
			f.gaps = append(f.gaps, Gap{Span{f.mark.ID + 1, c.ID - 1}, page.Next})
		}
		f.mark = Mark{c.ID, c.Tx}
		newer++
	}
	return newer
}

// fill takes a number out of the gaps.
func (f *Follower) fill(id int64) {
	for i, g := range f.gaps {
		if id < g.First || id > g.Last {
			continue
		}
		var rest []Gap
		if id > g.First {
			rest = append(rest, Gap{Span{g.First, id - 1}, g.Until})
		}
		if id < g.Last {
			rest = append(rest, Gap{Span{id + 1, g.Last}, g.Until})
		}
		f.gaps = slices.Replace(f.gaps, i, i+1, rest...)
		return
	}
}

func (f *Follower) measure(changes []Change) {
	if f.opts.Metrics.Lag == nil {
		return
	}
	for _, c := range changes {
		f.opts.Metrics.Lag(max(0, time.Since(c.At)))
	}
}
