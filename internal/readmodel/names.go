package readmodel

import (
	"crypto/rand"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
)

// names knows which names exist: a hash of each realm and of each name in its domain, eight bytes a name. It is never wrong
// about a name that it lacks, and may be about one that it has: names that are gone stay until it is read anew.
type names struct {
	// seed keeps others from choosing names whose hashes collide.
	seed [8]byte

	mu    sync.RWMutex
	read  bool     // whether all was ever read
	all   []uint64 // sorted
	epoch uint32   // in which it was read
	// added are names that are not in all but may exist.
	added map[uint64]struct{}
}

func (n *names) init() {
	_, _ = rand.Read(n.seed[:]) // never fails (crypto/rand)
	n.added = map[uint64]struct{}{}
}

// hash returns the hash of a name in a domain, or with a zero domain of a realm.
func (n *names) hash(domain uuid.UUID, name string) uint64 {
	var buf [8 + 16 + 256]byte
	b := append(buf[:0], n.seed[:]...)
	b = append(b, domain[:]...)
	return xxhash.Sum64(append(b, name...))
}

// absent tells that no such name exists, as far as was heard in an epoch.
func (n *names) absent(hash uint64, epoch uint32) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.read && n.epoch == epoch && !n.has(hash)
}

func (n *names) has(hash uint64) bool {
	if _, ok := n.added[hash]; ok {
		return true
	}
	_, ok := slices.BinarySearch(n.all, hash)
	return ok
}

// absentForNow tells that no such name existed when the database was last heard of. It is for numbers that a known user
// dials: while the database is away, a number that was nobody's extension goes out as it did before.
func (n *names) absentForNow(m *Model, domain uuid.UUID, name string) bool {
	if m.live() || !m.usable() {
		return false
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.read && !n.has(n.hash(domain, name))
}

// add adds a name that may be new.
func (n *names) add(hash uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := slices.BinarySearch(n.all, hash); !ok {
		n.added[hash] = struct{}{}
	}
}

// set takes the names that were read, in any order. Names added while they were read stay.
func (n *names) set(all []uint64, epoch uint32) {
	slices.Sort(all)
	all = slices.Clip(slices.Compact(all))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.epoch, n.read = all, epoch, true
	for hash := range n.added {
		if _, ok := slices.BinarySearch(all, hash); ok {
			delete(n.added, hash)
		}
	}
}

// due tells whether the names have to be read.
func (n *names) due(epoch uint32) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return !n.read || n.epoch != epoch
}

func (n *names) count() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.all) + len(n.added)
}
