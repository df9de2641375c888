package readmodel

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"

	"github.com/google/uuid"
)

// mostAdded is how many names may be added before all are read anew; of a large number, a quarter may.
const mostAdded = 10_000

// names knows which names exist: a hash of each realm and of each name in its domain, eight bytes a name. It is never
// wrong about a name that it lacks, and may be about one that it has: names that are gone stay until it is read anew.
type names struct {
	// seed keeps others from choosing names whose hashes collide.
	seed nameSeed

	mu    sync.RWMutex
	read  bool     // whether all was ever read
	all   []uint64 // sorted
	epoch uint32   // in which it was read
	// added are names that are not in all but may exist, with the number of the change that told of them.
	added map[uint64]uint64
}

type nameSeed [16]byte

func (n *names) init() {
	_, _ = rand.Read(n.seed[:]) // never fails (crypto/rand)
	n.added = map[uint64]uint64{}
}

// hash returns the hash of a name in a domain, or with a zero domain of a realm.
func (n *names) hash(domain uuid.UUID, name string) uint64 {
	var buf [len(nameSeed{}) + 16 + 256]byte
	b := append(buf[:0], n.seed[:]...)
	b = append(b, domain[:]...)
	// A stranger chooses the name, so a fast hash with a seed will not do: for those, names are found that collide
	// under every seed.
	sum := sha256.Sum256(append(b, name...))
	return binary.LittleEndian.Uint64(sum[:])
}

// absent tells that no such name exists, as far as was heard in an epoch. Before all names were read, none is absent.
func (n *names) absent(hash uint64) (absent bool, epoch uint32) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.read && !n.has(hash), n.epoch
}

func (n *names) has(hash uint64) bool {
	if _, ok := n.added[hash]; ok {
		return true
	}
	_, ok := slices.BinarySearch(n.all, hash)
	return ok
}

// absentForNow tells that no such name existed when the database was last heard of. It is for numbers that a known user
// dials, when the database cannot be asked: a number that was nobody's extension goes out as it did before.
func (m *Model) absentForNow(domain uuid.UUID, name string) bool {
	n := &m.names
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.read && m.usable(n.epoch) && !n.has(n.hash(domain, name))
}

// add adds a name that may be new.
func (n *names) add(hash, seq uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := slices.BinarySearch(n.all, hash); !ok {
		n.added[hash] = seq
	}
}

// set takes the names that were read, in any order, since the change of a number. Names added after it stay.
func (n *names) set(all []uint64, epoch uint32, since uint64) {
	slices.Sort(all)
	all = slices.Clip(slices.Compact(all))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all, n.epoch, n.read = all, epoch, true
	for hash, seq := range n.added {
		if seq <= since {
			delete(n.added, hash)
		}
	}
}

// due tells whether the names have to be read.
func (n *names) due(epoch uint32) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return !n.read || n.epoch != epoch || len(n.added) > max(mostAdded, len(n.all)/4)
}

func (n *names) count() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.all) + len(n.added)
}
