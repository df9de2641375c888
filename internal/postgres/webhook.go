package postgres

import (
	"context"
	"fmt"

	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/webhook"
)

// addEvent writes an event in the transaction of what it tells.
func addEvent(ctx context.Context, tx *txn, e webhook.Event) error {
	const query = `
		INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, due_at, correlation_id)
		VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6), $7)`
	if _, err := tx.ExecContext(ctx, query, e.TenantID, e.Key, string(e.Kind), e.Subject, string(e.Payload), e.Delay.Seconds(),
		telemetry.Correlation(ctx)); err != nil {
		return fmt.Errorf("add event: %w", err)
	}
	return nil
}
