package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/dialplan"
)

var _ aisession.BreakerStore = (*DB)(nil)

// NoteBreakers implements aisession.BreakerStore. It also removes what bridges have left behind that are gone.
func (d *DB) NoteBreakers(ctx context.Context, bridge string, open []aisession.OpenBreaker) error {
	var gateways []string
	var pauses []float64
	for _, b := range open {
		gateways, pauses = append(gateways, b.Gateway), append(pauses, b.Pause.Seconds())
	}
	return d.inTx(ctx, func(tx *txn) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM edgvoip.ai_breakers WHERE bridge = $1 OR open_until < now() - interval '1 day'`, bridge); err != nil {
			return fmt.Errorf("delete breakers: %w", err)
		}
		const query = `
			INSERT INTO edgvoip.ai_breakers (bridge, gateway, open_until)
			SELECT $1, o.gateway, now() + o.pause * interval '1 second' FROM unnest($2::text[], $3::float8[]) AS o (gateway, pause)`
		if _, err := tx.ExecContext(ctx, query, bridge, pq.Array(gateways), pq.Array(pauses)); err != nil {
			return fmt.Errorf("insert breakers: %w", err)
		}
		return nil
	})
}

type openBreakerRow struct {
	Bridge string    `db:"bridge"`
	Until  time.Time `db:"open_until"`
}

// OpenBreakers implements dialplan.ExplainStore.
func (d *DB) OpenBreakers(ctx context.Context, tenant uuid.UUID) ([]dialplan.OpenBreaker, error) {
	rows, err := list[openBreakerRow](ctx, d, `SELECT bridge, open_until FROM edgvoip.ai_open_breakers WHERE tenant_id = $1 ORDER BY bridge`, tenant)
	if err != nil {
		return nil, fmt.Errorf("select open breakers: %w", err)
	}
	open := make([]dialplan.OpenBreaker, len(rows))
	for i, r := range rows {
		open[i] = dialplan.OpenBreaker(r)
	}
	return open, nil
}
