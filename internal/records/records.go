// Package records makes call records of the documents that were taken, looks for their recordings, and removes what is
// older than its tenant keeps it. Several processes may do so at the same time.
package records

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/background"
)

// Store is where records are. Implementations are safe for concurrent use.
type Store interface {
	// ReadDocuments reads up to so many documents into call records, Reconstruct up to so many channels that were seen
	// to end so long ago.
	ReadDocuments(ctx context.Context, most int) (cdr.Tally, error)
	Reconstruct(ctx context.Context, after time.Duration, most int) (cdr.Tally, error)
	// WaitingDocuments counts what has still to be done.
	WaitingDocuments(ctx context.Context) (cdr.Waiting, error)

	// EnsurePartitions makes room for the months to come.
	EnsurePartitions(ctx context.Context) error
	// ExpireRecordings gives up recordings, and ExpireCalls removes records, that are older than their tenants keep
	// them. With files, records stay whose recordings are still there.
	ExpireRecordings(ctx context.Context) error
	ExpireCalls(ctx context.Context) (removed int64, err error)

	// Recordings returns recordings of a state, from after one on.
	Recordings(ctx context.Context, state cdr.RecordingState, after cdr.Recording, limit int) ([]cdr.Recording, error)
	// RecordingReady says that the file is there, RecordingLost that it will not come, RecordingGone that it is
	// removed.
	RecordingReady(ctx context.Context, r cdr.Recording, url string) error
	RecordingLost(ctx context.Context, r cdr.Recording) error
	RecordingGone(ctx context.Context, r cdr.Recording) error
}

// Options describe a worker.
type Options struct {
	Store Store
	// Files is the directory of recordings; nil means that they are not looked for.
	Files *Files
	// URL returns where the recording of a call can be asked for.
	URL func(cdr.Recording) string
	// Patience is how long the document of a channel that was seen to end is waited for. Zero means two minutes.
	Patience time.Duration
	// Poll is how often documents are looked for without Wake. Zero means half a second.
	Poll     time.Duration
	Registry prometheus.Registerer
	Log      *slog.Logger
}

// The worker's times and sizes.
const (
	defaultPatience = 2 * time.Minute
	defaultPoll     = 500 * time.Millisecond
	batch           = 100
	// gather is how long documents are let come after the first: a document that is read alone costs nearly five times
	// as much as one of a hundred, and the event about a call waits much longer for its legs.
	gather = 100 * time.Millisecond
	// storeTimeout bounds one question to the store.
	storeTimeout      = 30 * time.Second
	countInterval     = 5 * time.Second
	recordingInterval = 5 * time.Second
	keepInterval      = time.Hour
)

// Worker works on call records. See Run.
type Worker struct {
	opts    Options
	log     *slog.Logger
	metrics *metrics
	due     chan struct{} // holds something when there may be documents
}

// New returns a worker that does nothing until Run.
func New(o Options) *Worker {
	o.Patience, o.Poll = cmp.Or(o.Patience, defaultPatience), cmp.Or(o.Poll, defaultPoll)
	return &Worker{opts: o, log: o.Log.With("component", "records"), metrics: newMetrics(o.Registry), due: make(chan struct{}, readers)}
}

// Wake tells that there may be documents. It does not block.
func (w *Worker) Wake() { background.Poke(w.due) }

// readers is how many batches are read at the same time: while the database writes one, another is parsed. The legs of
// a call that are in both wait for each other in the store.
const readers = 2

// Run works until ctx ends and everything it started has ended.
func (w *Worker) Run(ctx context.Context) {
	var parts sync.WaitGroup
	part := func(what string, every time.Duration, wake <-chan struct{}, f func(context.Context) (more bool, err error)) {
		parts.Go(func() { w.repeat(ctx, what, every, wake, f) })
	}
	// Before the first record: its month should be there.
	w.makeRoom(ctx)
	part("records are kept", keepInterval, nil, w.keep)
	for range readers {
		part("documents are read", w.opts.Poll, w.due, (&reader{Worker: w, most: batch}).read)
	}
	part("channels without documents are reconstructed", max(w.opts.Patience/12, w.opts.Poll), nil, w.reconstruct)
	part("documents are counted", countInterval, nil, w.count)
	if w.opts.Files != nil {
		part("recordings are looked for", recordingInterval, nil, w.look)
		part("lost recordings are looked for", keepInterval, nil, w.lookAgain)
		part("recordings are removed", recordingInterval, nil, w.remove)
	}
	parts.Wait()
}

// repeat does something again and again: at once while there is more, otherwise every so often. It logs when that
// begins to fail and when it works again.
func (w *Worker) repeat(ctx context.Context, what string, every time.Duration, wake <-chan struct{}, f func(context.Context) (bool, error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	outage := background.NewOutage(w.log, what)
	for ctx.Err() == nil {
		doing, cancel := context.WithTimeout(ctx, storeTimeout)
		more, err := f(doing)
		cancel()
		outage.Note(ctx, err)
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-wake:
			background.Pause(ctx, gather)
		case <-tick.C:
		}
	}
}

// reader reads documents. It is for one goroutine.
type reader struct {
	*Worker
	most int // documents in the next batch
}

// read reads a batch. After one that failed, as it may have been too much for the time that there is, one document is
// read at a time, then twice as many each time.
func (r *reader) read(ctx context.Context) (more bool, err error) {
	most := r.most
	t, err := r.opts.Store.ReadDocuments(ctx, most)
	if err != nil {
		r.most = 1
		return false, err
	}
	r.most = min(2*most, batch)
	r.metrics.tally(t)
	if t.Unreadable > 0 || t.Unassigned > 0 {
		r.log.WarnContext(ctx, "documents wait for an operator", "unreadable", t.Unreadable, "unassigned", t.Unassigned)
	}
	return t.Taken == most || t.Released > 0, nil
}

func (w *Worker) reconstruct(ctx context.Context) (more bool, err error) {
	t, err := w.opts.Store.Reconstruct(ctx, w.opts.Patience, batch)
	if err != nil {
		return false, err
	}
	legs := t.Recorded + t.Postponed // some have to wait for who called
	w.metrics.reconstructed.Add(float64(legs))
	if legs > 0 {
		w.log.WarnContext(ctx, "records reconstructed, as their documents did not come", "legs", legs)
	}
	return t.Taken == batch, nil
}

func (w *Worker) count(ctx context.Context) (more bool, err error) {
	n, err := w.opts.Store.WaitingDocuments(ctx)
	if err == nil {
		w.metrics.waiting(n)
	}
	return false, err
}

// missFiles tells of recordings whose files nobody looks for or removes, and without that their records stay, whatever
// the tenant wants.
func (w *Worker) missFiles(ctx context.Context) error {
	if w.opts.Files != nil {
		return nil
	}
	for _, state := range []cdr.RecordingState{cdr.RecordingExpected, cdr.RecordingRemoved} {
		list, err := w.opts.Store.Recordings(ctx, state, cdr.Recording{}, 1)
		if err != nil {
			return err
		}
		if len(list) > 0 {
			w.log.WarnContext(ctx, "calls are recorded, and RECORDINGS_DIR is not set: no recording is found or removed, nor its record")
			return nil
		}
	}
	return nil
}

// makeRoom makes partitions. Without one a record goes to the default partition, and is found there as well.
func (w *Worker) makeRoom(ctx context.Context) {
	making, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := w.opts.Store.EnsurePartitions(making); err != nil && ctx.Err() == nil {
		w.log.ErrorContext(ctx, "partitions cannot be made", "error", err)
	}
}

// keep makes room for what comes, and removes what is too old.
func (w *Worker) keep(ctx context.Context) (more bool, err error) {
	w.makeRoom(ctx)
	if err := w.opts.Store.ExpireRecordings(ctx); err != nil {
		return false, err
	}
	if err := w.missFiles(ctx); err != nil {
		return false, err
	}
	n, err := w.opts.Store.ExpireCalls(ctx)
	if n > 0 {
		w.log.InfoContext(ctx, "removed old call records", "rows", n)
	}
	return false, err
}
