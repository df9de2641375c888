package readmodel

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"github.com/maypok86/otter/v2"
)

// cache is one bounded table of the model. Otter bounds it and chooses what leaves; what is said here is when an entry
// may be believed, and that a load never brings back what was forgotten while it ran.
type cache[K comparable, V any] struct {
	model *Model
	items *otter.Cache[K, entry[V]]

	// stripes remember when keys of a hash were last forgotten.
	stripes [1024]stripe
}

type entry[V any] struct {
	value V
	epoch uint32
}

type stripe struct {
	mu   sync.Mutex
	last uint64
}

// newCache returns a cache of at most so many entries, or if weigh is given of so much weight.
func newCache[K comparable, V any](m *Model, most int, weigh func(V) uint32) *cache[K, V] {
	o := &otter.Options[K, entry[V]]{MaximumSize: most}
	if weigh != nil {
		o = &otter.Options[K, entry[V]]{
			MaximumWeight: uint64(max(0, most)),
			Weigher:       func(_ K, e entry[V]) uint32 { return weigh(e.value) },
		}
	}
	return &cache[K, V]{model: m, items: otter.Must(o)}
}

// request is a question to a cache.
type request[K comparable, V any] struct {
	// key is what the answer is kept under: in memory of its own, where the key that was asked for may lie in a whole
	// request.
	key K
	// hash is that of the name asked for. flight is the same for the same question only.
	hash   uint64
	flight string
	// unknown is the error by which the store says that there is none; nil if it never does.
	unknown error
	load    func(context.Context) (V, error)
}

// get returns the value of a key, from memory if it can be believed, else from the store, which is asked as the request
// says.
func (c *cache[K, V]) get(ctx context.Context, key K, ask func() request[K, V]) (V, error) {
	m := c.model
	e, known := c.items.GetIfPresent(key)
	if known && !m.usable(e.epoch) {
		known = false
	}
	if known {
		if m.undoubted(e.epoch) {
			m.opts.Metrics.count(answerHit)
			return e.value, nil
		}
		// In doubt. Without the database there is nothing better.
		if !m.answers() {
			m.opts.Metrics.count(answerStale)
			return e.value, nil
		}
	}
	r := ask()
	told := existsPerhaps
	if !known && r.unknown != nil {
		told = m.told(r.hash)
	}
	var none V
	switch told {
	case existsNot:
		m.opts.Metrics.count(answerUnknown)
		return none, r.unknown
	case existsUnheard:
		m.opts.Metrics.count(answerFailed)
		return none, ErrBusy
	case existsPerhaps, existsHardly:
	}
	absent := told == existsHardly
	v, err := c.load(ctx, r, absent)
	if err == nil || r.unknown != nil && errors.Is(err, r.unknown) {
		m.opts.Metrics.count(answerDatabase)
		return v, err
	}
	if known && !errors.Is(err, ErrBehind) { // of which the replica denies that it exists, or says nothing that may be told
		m.opts.Metrics.count(answerStale)
		return e.value, nil
	}
	if absent && m.live() {
		m.noDoubt.Store(m.now().Add(doubtPause).UnixNano())
		m.opts.Metrics.count(answerUnknown)
		return v, r.unknown
	}
	m.opts.Metrics.count(answerFailed)
	return v, err
}

// undoubted tells that what was read in an epoch is still true as far as was heard.
func (m *Model) undoubted(epoch uint32) bool { return m.synced.Load() && epoch == m.epoch.Load() }

// existence is what is told of a name without asking the database.
type existence int

const (
	// existsPerhaps: the database must be asked.
	existsPerhaps existence = iota
	// existsHardly: there is none as far as was heard. The database is asked all the same, if it answers at once.
	existsHardly
	// existsNot: there is none as far as was heard, and enough is asked already.
	existsNot
	// existsUnheard: there was none before everything was distrusted. There may be one now, and enough is asked
	// already.
	existsUnheard
)

// told tells whether a name exists. That it does not can only be said while every change is heard of.
func (m *Model) told(hash uint64) existence {
	if !m.answers() {
		return existsPerhaps
	}
	epoch, hears := m.epoch.Load(), m.synced.Load() && !m.late()
	if asked, ok := m.unknown.GetIfPresent(hash); ok && asked == epoch && hears {
		return existsNot
	}
	absent, of := m.names.absent(hash)
	enough := func() bool { return m.now().UnixNano() < m.noDoubt.Load() || !m.doubt.Allow() }
	switch heard := of == epoch && hears; {
	case absent && heard && enough():
		return existsNot
	case absent && heard:
		return existsHardly
	case absent && enough():
		return existsUnheard
	}
	return existsPerhaps
}

// load asks the store, once for all who ask the same at the same time. Who is in doubt only does not wait for long.
func (c *cache[K, V]) load(ctx context.Context, r request[K, V], inDoubt bool) (V, error) {
	m := c.model
	if inDoubt {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, doubtPatience)
		defer cancel()
	}
	// Whoever asks after a change must not be told what was read before it: he is another flight.
	flight := r.flight + " " + strconv.FormatUint(c.forgotten(r.hash), 10) + " " + strconv.FormatUint(uint64(m.epoch.Load()), 10)
	return fly(ctx, m, flight, func(ctx context.Context) (V, error) {
		seq, epoch := m.seq.Load(), m.epoch.Load()
		if e, ok := c.items.GetIfPresent(r.key); ok && m.undoubted(e.epoch) && m.usable(e.epoch) {
			return e.value, nil // whoever asked before has just been answered
		}
		v, err := through(ctx, m, func(err error) bool { return errors.Is(err, errMoved) || r.unknown != nil && errors.Is(err, r.unknown) }, r.load)
		switch {
		case err == nil:
			c.put(r.key, r.hash, v, seq, epoch)
		case r.unknown != nil && errors.Is(err, r.unknown):
			c.putUnknown(r.key, r.hash, seq, epoch)
		}
		return v, err
	})
}

// fly does what is asked once for all who ask it at the same time, also if the first of them does not wait for it.
func fly[V any](ctx context.Context, m *Model, flight string, load func(context.Context) (V, error)) (V, error) {
	done := m.flight.DoChan(flight, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.opts.LoadTimeout)
		defer cancel()
		return load(ctx)
	})
	var none V
	select {
	case <-ctx.Done():
		return none, ctx.Err()
	case res := <-done:
		if v, ok := res.Val.(V); ok {
			return v, res.Err
		}
		return none, res.Err
	}
}

// forgotten is the number of the change by which keys of a hash were last forgotten.
func (c *cache[K, V]) forgotten(hash uint64) uint64 {
	s := &c.stripes[hash%uint64(len(c.stripes))]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// put keeps what was loaded when seq and epoch were what they are given as, unless it was forgotten since.
func (c *cache[K, V]) put(key K, hash uint64, v V, seq uint64, epoch uint32) {
	s := &c.stripes[hash%uint64(len(c.stripes))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last <= seq {
		c.items.Set(key, entry[V]{v, epoch})
	}
}

// putUnknown remembers that there is none, also no one in doubt.
func (c *cache[K, V]) putUnknown(key K, hash, seq uint64, epoch uint32) {
	s := &c.stripes[hash%uint64(len(c.stripes))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last <= seq {
		c.items.Invalidate(key)
		c.model.unknown.Set(hash, epoch)
	}
}

// forget drops a key. seq is the number of the change.
func (c *cache[K, V]) forget(key K, hash, seq uint64) {
	s := &c.stripes[hash%uint64(len(c.stripes))]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = seq
	c.items.Invalidate(key)
	c.model.unknown.Invalidate(hash)
}

// forgetWhere drops all values of a kind, whose keys nobody can name.
func (c *cache[K, V]) forgetWhere(seq uint64, match func(V) bool) {
	for i := range c.stripes {
		s := &c.stripes[i]
		s.mu.Lock()
		s.last = seq
		s.mu.Unlock()
	}
	for k, e := range c.items.All() {
		if match(e.value) {
			c.items.Invalidate(k)
		}
	}
}
