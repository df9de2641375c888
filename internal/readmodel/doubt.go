package readmodel

import (
	"maps"
	"sync"
	"time"
)

// doubts remember of each epoch that is over when the database was last heard of in it: what was read in an epoch, and
// not anew since, is as old as that, however fresh the rest is. Those are kept that something may still be answered
// from.
type doubts struct {
	mu   sync.RWMutex
	last map[uint32]int64 // Unix nanoseconds
}

// begin ends an epoch, of which was last heard at a time. Epochs last heard of before oldest are dropped.
func (d *doubts) begin(epoch uint32, heard, oldest int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last == nil {
		d.last = map[uint32]int64{}
	}
	d.last[epoch] = heard
	maps.DeleteFunc(d.last, func(_ uint32, at int64) bool { return at < oldest })
}

// since tells when the database was last heard of in an epoch that is over. known is false if that is too long ago.
func (d *doubts) since(epoch uint32) (at time.Time, known bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	ns, known := d.last[epoch]
	return time.Unix(0, ns), known
}

func (d *doubts) snapshot() map[uint32]int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return maps.Clone(d.last)
}

func (d *doubts) restore(last map[uint32]int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = last
}

// usable tells whether what was read in an epoch may be answered: surely if it is undoubted, else if nothing better can
// be had.
func (m *Model) usable(epoch uint32) bool {
	if !m.fresh() {
		return false
	}
	if epoch == m.epoch.Load() {
		return true
	}
	at, known := m.doubts.since(epoch)
	return known && m.now().Sub(at) <= m.opts.MaxAge
}
