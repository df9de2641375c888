package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
)

// AuditLog returns rows of the audit log, the newest first.
func (d *DB) AuditLog(ctx context.Context, f integration.AuditFilter) ([]integration.AuditEntry, error) {
	const query = `
		SELECT id, at, tenant_id, actor, action, subject_id, correlation_id, before, after
		  FROM edgvoip.audit_log
		 WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR subject_id = $2)
		   AND ($3 = '' OR actor = $3) AND ($4 = '' OR action = $4) AND ($5 = 0 OR id < $5)
		   AND ($7 = '' OR correlation_id = $7) AND ($8::timestamptz IS NULL OR at >= $8) AND ($9::timestamptz IS NULL OR at < $9)
		 ORDER BY id DESC LIMIT $6`
	type row struct {
		ID            int64          `db:"id"`
		At            time.Time      `db:"at"`
		TenantID      uuid.UUID      `db:"tenant_id"`
		Actor         string         `db:"actor"`
		Action        string         `db:"action"`
		SubjectID     uuid.UUID      `db:"subject_id"`
		CorrelationID string         `db:"correlation_id"`
		Before        sql.NullString `db:"before"`
		After         sql.NullString `db:"after"`
	}
	// Not prepared: with all filters in one statement, each call wants a plan of its own.
	rows, err := bounded(ctx, func() (rows []row, err error) {
		err = d.db.SelectContext(ctx, &rows, query, nullID(f.TenantID), nullID(f.SubjectID), f.Actor, f.Action, f.BeforeID, f.Limit,
			f.CorrelationID, nullTime(f.From), nullTime(f.To))
		return rows, err
	})
	if err != nil {
		return nil, fmt.Errorf("select audit log: %w", err)
	}
	entries := make([]integration.AuditEntry, len(rows))
	for i, r := range rows {
		entries[i] = integration.AuditEntry{
			ID: r.ID, At: r.At, TenantID: r.TenantID, Actor: r.Actor, Action: r.Action, SubjectID: r.SubjectID, CorrelationID: r.CorrelationID,
		}
		if r.Before.Valid {
			entries[i].Before = []byte(r.Before.String)
		}
		if r.After.Valid {
			entries[i].After = []byte(r.After.String)
		}
	}
	return entries, nil
}
