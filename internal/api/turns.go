package api

import (
	"sync"

	"github.com/google/uuid"
)

// Bounds on what one tenant may have under way at a time. All tenants share the processors and the database: whoever
// sends more must come again, so that the others need not wait behind him.
const (
	// Writes that are prepared, which is mostly passwords being hashed.
	mostPreparing = 16
	// Searches through all of a tenant's call records.
	mostSearching = 2
	// Erasures under a key, of all tenants together: each holds a connection and works on another.
	mostErasing = 2
)

// turns counts what each tenant has under way. It is safe for concurrent use.
type turns struct {
	name  string // of the bound, in metrics
	most  int
	mu    sync.Mutex
	under map[uuid.UUID]int
}

// enter tells whether the tenant may begin one more; he must leave when it is done.
func (t *turns) enter(tenant uuid.UUID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.under[tenant] >= t.most {
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
