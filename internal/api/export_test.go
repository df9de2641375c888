package api

import (
	"context"
	"time"

	"github.com/edgvoip/edgvoip/integration"
)

// NewFigures and Get let tests ask for figures without a server.
func NewFigures(s Store, age time.Duration, now func() time.Time) *figures {
	return &figures{store: s, age: age, now: now}
}

// Get is get.
func (f *figures) Get(ctx context.Context) (integration.Figures, error) { return f.get(ctx) }
