package aisession

import (
	"errors"
	"sync"

	"github.com/google/uuid"
)

// Errors of Limits.Enter.
var (
	ErrTooMany          = errors.New("as many sessions as there may be")
	ErrTooManyOfATenant = errors.New("as many sessions as a tenant may have")
)

// Limits bound the sessions at the same time, of all tenants and of one. They are safe for concurrent use.
type Limits struct {
	total, perTenant int
	mu               sync.Mutex
	all              int
	of               map[uuid.UUID]int
}

// NewLimits returns limits: for all tenants together, and for each one.
func NewLimits(total, perTenant int) *Limits {
	return &Limits{total: total, perTenant: perTenant, of: map[uuid.UUID]int{}}
}

// Enter counts a session of a tenant until leave, which must be called once. Errors: ErrTooMany, ErrTooManyOfATenant.
func (l *Limits) Enter(tenant uuid.UUID) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.all >= l.total:
		return nil, ErrTooMany
	case l.of[tenant] >= l.perTenant:
		return nil, ErrTooManyOfATenant
	}
	l.all++
	l.of[tenant]++
	return func() { l.leave(tenant) }, nil
}

func (l *Limits) leave(tenant uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.of[tenant]--; l.of[tenant] == 0 {
		delete(l.of, tenant)
	}
}
