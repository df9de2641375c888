package postgres

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/webhook"
)

// addEvents writes events in the transaction of what they tell; those of a tenant that was deleted are for nobody.
func addEvents(ctx context.Context, tx *txn, events []webhook.Event) error {
	const query = `
		INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, due_at, correlation_id)
		SELECT e.tenant, e.key, e.kind, e.subject, e.payload, now() + make_interval(secs => e.delay), $7
		  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::float8[]) AS e (tenant, key, kind, subject, payload, delay)
		 WHERE EXISTS (SELECT FROM edgvoip.tenants t WHERE t.id = e.tenant AND t.status <> 'deleted')`
	n := len(events)
	if n == 0 {
		return nil
	}
	tenants, keys, subjects := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
	kinds, payloads, delays := make(pq.StringArray, n), make([][]byte, n), make(pq.Float64Array, n)
	for i, e := range events {
		tenants[i], keys[i], subjects[i], kinds[i], payloads[i], delays[i] = e.TenantID, e.Key, e.Subject, string(e.Kind), e.Payload, e.Delay.Seconds()
	}
	if _, err := tx.ExecContext(ctx, query, idArray(tenants), idArray(keys), kinds, idArray(subjects), quotedArray(payloads), delays,
		telemetry.Correlation(ctx)); err != nil {
		return fmt.Errorf("add events: %w", err)
	}
	return nil
}

// replacePendingEvent gives the last open event of a subject another payload, if it is of the kind and nobody has tried
// to send it yet; otherwise it returns false and changes nothing, and the caller adds an event. The caller keeps other
// writers of the subject's events away meanwhile, as whoever writes what the event tells does.
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
