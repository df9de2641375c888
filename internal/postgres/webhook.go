package postgres

import (
	"context"
	"fmt"

	"github.com/google/uuid"

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

// replacePendingEvent gives the last open event of a subject another payload, if it is of the kind and nobody has tried to
// send it yet; otherwise it returns false and changes nothing, and the caller adds an event. The caller keeps other writers
// of the subject's events away meanwhile, as whoever writes what the event tells does.
func replacePendingEvent(ctx context.Context, tx *txn, tenant, subject uuid.UUID, kind webhook.Kind, payload []byte) (replaced bool, err error) {
	// A claim between our look and our lock makes the row one that has been tried: the conditions are read again then.
	const query = `
		UPDATE edgvoip.webhook_events SET payload = $4
		 WHERE tenant_id = $1 AND state = 'pending' AND attempts = 0 AND kind = $3
		   AND id = (SELECT max(id) FROM edgvoip.webhook_events WHERE tenant_id = $1 AND subject = $2 AND state IN ('pending', 'leased'))`
	res, err := tx.ExecContext(ctx, query, tenant, subject, string(kind), string(payload))
	if err != nil {
		return false, fmt.Errorf("replace event: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("replace event: %w", err)
	}
	return n > 0, nil
}
