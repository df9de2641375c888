package api

import (
	"sync"

	"github.com/google/uuid"
)

// mostPreparing is how many writes of one tenant may be prepared at a time, which is mostly passwords being hashed. All tenants
// share the processors: whoever sends more must come again, so that the others need not wait behind him.
const mostPreparing = 16

// turns counts what each tenant has under way. The zero value is ready. It is safe for concurrent use.
type turns struct {
	mu    sync.Mutex
	under map[uuid.UUID]int
}

// enter tells whether the tenant may begin one more; he must leave when it is done.
func (t *turns) enter(tenant uuid.UUID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under[tenant] >= mostPreparing {
		return false
	}
	if t.under == nil {
		t.under = map[uuid.UUID]int{}
	}
	t.under[tenant]++
	return true
}

func (t *turns) leave(tenant uuid.UUID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under[tenant]--; t.under[tenant] == 0 {
		delete(t.under, tenant)
	}
}
