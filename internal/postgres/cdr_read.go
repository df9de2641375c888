package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
)

// Calls returns call records of a tenant, the newest first.
func (d *DB) Calls(ctx context.Context, tenant uuid.UUID, f cdr.Filter) ([]cdr.Record, error) {
	query, args := callsQuery(tenant, f)
	// Not prepared: with all filters in one statement, each call wants a plan of its own.
	rows, err := bounded(ctx, func() (rows []callRow, err error) {
		err = d.db.SelectContext(ctx, &rows, query, args...)
		return rows, err
	})
	if err != nil {
		return nil, fmt.Errorf("select calls: %w", err)
	}
	records := make([]cdr.Record, len(rows))
	for i, r := range rows {
		records[i] = r.record()
	}
	return records, nil
}

// callsMatching chooses call records by all filters but the number; callsInOrder is how far and in which order.
const (
	callsMatching = `
		 FROM edgvoip.cdr c
		WHERE c.tenant_id = $1 AND c.absorbed_by IS NULL AND ($2::timestamptz IS NULL OR c.start_time >= $2) AND ($3::timestamptz IS NULL OR c.start_time < $3)
		  AND ($4 = '' OR c.direction = $4) AND ($5 = '' OR c.disposition = $5) AND ($6::uuid IS NULL OR c.store_id = $6)
		  AND ($7::timestamptz IS NULL OR (c.start_time, c.call_id) < ($7, $8))`
	callsInOrder = ` ORDER BY start_time DESC, call_id DESC LIMIT $9`
)

// numberPlaces are where in a record a number may stand, each as an index has it: one statement with OR would read all
// records of the tenant.
var numberPlaces = []string{
	`ltrim(c."from", '+') = $10`,
	`ltrim(c."to", '+') = $10`,
	`ltrim(c.answered_by, '+') = $10 AND c.answered_by <> '' AND c.answered_by <> c."to"`,
	`ltrim(c.transferred_to, '+') = $10 AND c.transferred_to <> ''`,
}

// callsQuery returns what Calls asks.
func callsQuery(tenant uuid.UUID, f cdr.Filter) (query string, args []any) {
	args = []any{
		tenant, nullTime(f.From), nullTime(f.To), string(f.Direction), string(f.Disposition), nullID(f.StoreID), nullTime(f.Before.Start), f.Before.ID, f.Limit,
	}
	number := strings.TrimLeft(f.Number, "+")
	if number == "" {
		return `SELECT` + callColumns + callsMatching + callsInOrder, args
	}
	parts := make([]string, len(numberPlaces))
	for i, place := range numberPlaces {
		parts[i] = `(SELECT c.start_time, c.call_id` + callsMatching + ` AND ` + place + callsInOrder + `)`
	}
	return `SELECT` + callColumns + ` FROM (SELECT * FROM (` + strings.Join(parts, ` UNION `) + `) AS places` + callsInOrder + `) AS found (at, id)
		  JOIN edgvoip.cdr c ON c.tenant_id = $1 AND c.start_time = found.at AND c.call_id = found.id
		 ORDER BY c.start_time DESC, c.call_id DESC`, append(args, number)
}

// Call returns the record of a call of a tenant. Error: cdr.ErrUnknownCall.
func (d *DB) Call(ctx context.Context, tenant, call uuid.UUID) (cdr.Record, error) {
	row, err := get[callRow](ctx, d, `SELECT`+callColumns+` FROM edgvoip.cdr c WHERE c.tenant_id = $1 AND c.call_id = $2`, tenant, call)
	if errors.Is(err, sql.ErrNoRows) {
		return cdr.Record{}, cdr.ErrUnknownCall
	} else if err != nil {
		return cdr.Record{}, fmt.Errorf("select call: %w", err)
	}
	return row.record(), nil
}

// Legs returns the legs of a call of a tenant, in order of start.
func (d *DB) Legs(ctx context.Context, tenant, call uuid.UUID) ([]cdr.Leg, error) {
	const query = `SELECT raw FROM edgvoip.cdr_legs WHERE tenant_id = $1 AND call_id = $2 ORDER BY start_time, leg_id`
	rows, err := list[[]byte](ctx, d, query, tenant, call)
	if err != nil {
		return nil, fmt.Errorf("select legs: %w", err)
	}
	legs := make([]cdr.Leg, 0, len(rows))
	for _, raw := range rows {
		doc, err := cdr.Parse(raw)
		if err != nil {
			d.unfit(ctx, err)
			continue
		}
		legs = append(legs, doc.Leg())
	}
	return legs, nil
}

// KeptDocuments returns documents of a state, without their bodies, in order of id from after one on.
func (d *DB) KeptDocuments(ctx context.Context, state cdr.DocumentState, after int64, limit int) ([]cdr.KeptDocument, error) {
	const query = `SELECT` + documentColumns + `, NULL::bytea AS body FROM edgvoip.cdr_documents WHERE state = $1 AND id > $2 ORDER BY id LIMIT $3`
	rows, err := list[documentRow](ctx, d, query, string(state), after, limit)
	if err != nil {
		return nil, fmt.Errorf("select documents: %w", err)
	}
	docs := make([]cdr.KeptDocument, len(rows))
	for i, r := range rows {
		docs[i] = r.document()
	}
	return docs, nil
}

const documentColumns = `
	id, leg_id, source, sender, content_type, state, attempts, coalesce(error, '') AS error, received_at, length(body) AS size`

type documentRow struct {
	ID          int64         `db:"id"`
	LegID       uuid.NullUUID `db:"leg_id"`
	Source      string        `db:"source"`
	Sender      string        `db:"sender"`
	ContentType string        `db:"content_type"`
	State       string        `db:"state"`
	Attempts    int           `db:"attempts"`
	Error       string        `db:"error"`
	ReceivedAt  time.Time     `db:"received_at"`
	Size        int           `db:"size"`
	Body        []byte        `db:"body"`
}

func (r documentRow) document() cdr.KeptDocument {
	return cdr.KeptDocument{
		ID: r.ID, LegID: r.LegID.UUID, Source: r.Source, Sender: r.Sender, ContentType: r.ContentType, State: cdr.DocumentState(r.State),
		Attempts: r.Attempts, Error: r.Error, ReceivedAt: r.ReceivedAt, Size: r.Size, Body: r.Body,
	}
}

// KeptDocument returns a document with its body. Error: cdr.ErrUnknownCall.
func (d *DB) KeptDocument(ctx context.Context, id int64) (cdr.KeptDocument, error) {
	row, err := get[documentRow](ctx, d, `SELECT`+documentColumns+`, body FROM edgvoip.cdr_documents WHERE id = $1 AND state <> 'new'`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return cdr.KeptDocument{}, cdr.ErrUnknownCall
	} else if err != nil {
		return cdr.KeptDocument{}, fmt.Errorf("select document: %w", err)
	}
	return row.document(), nil
}

// RetryDocument has a document read once more. Error: cdr.ErrUnknownCall.
func (d *DB) RetryDocument(ctx context.Context, id int64, actor string) error {
	const query = `UPDATE edgvoip.cdr_documents SET state = 'new', attempts = 0, error = NULL, due_at = now() WHERE id = $1 AND state <> 'new' RETURNING leg_id`
	return d.changeDocument(ctx, query, id, actor, "cdr_document.retried")
}

// DiscardDocument removes a document that nobody can read, for good. Error: cdr.ErrUnknownCall.
func (d *DB) DiscardDocument(ctx context.Context, id int64, actor string) error {
	const query = `DELETE FROM edgvoip.cdr_documents WHERE id = $1 AND state <> 'new' RETURNING leg_id`
	return d.changeDocument(ctx, query, id, actor, "cdr_document.discarded")
}

func (d *DB) changeDocument(ctx context.Context, query string, id int64, actor, action string) error {
	return d.inTx(ctx, func(tx *txn) error {
		var leg uuid.NullUUID
		err := tx.GetContext(ctx, &leg, query, id)
		if errors.Is(err, sql.ErrNoRows) {
			return cdr.ErrUnknownCall
		} else if err != nil {
			return fmt.Errorf("change document: %w", err)
		}
		return audit(ctx, tx, nobodysTenant, actor, action, leg.UUID, map[string]any{"document": id}, nil)
	})
}

// CallPolicy returns what a tenant wants of its call records. Error: directory.ErrUnknownTenant.
func (d *DB) CallPolicy(ctx context.Context, tenant uuid.UUID) (cdr.Policy, error) {
	row, err := get[policyRow](ctx, d, `SELECT`+policyColumns+` FROM edgvoip.tenants WHERE id = $1 AND status <> 'deleted'`, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return cdr.Policy{}, directory.ErrUnknownTenant
	} else if err != nil {
		return cdr.Policy{}, fmt.Errorf("select call policy: %w", err)
	}
	return row.policy(), nil
}

const policyColumns = ` record_calls, coalesce(cdr_days, 0) AS cdr_days, coalesce(recording_days, 0) AS recording_days`

type policyRow struct {
	RecordCalls   string `db:"record_calls"`
	CDRDays       int    `db:"cdr_days"`
	RecordingDays int    `db:"recording_days"`
}

func (r policyRow) policy() cdr.Policy {
	return cdr.Policy{RecordCalls: directory.RecordPolicy(r.RecordCalls), CDRDays: r.CDRDays, RecordingDays: r.RecordingDays}
}

// CallPolicies returns the same of every tenant.
func (d *DB) CallPolicies(ctx context.Context) (map[uuid.UUID]cdr.Policy, error) {
	rows, err := list[struct {
		ID uuid.UUID `db:"id"`
		policyRow
	}](ctx, d, `SELECT id,`+policyColumns+` FROM edgvoip.tenants WHERE status <> 'deleted'`)
	if err != nil {
		return nil, fmt.Errorf("select call policies: %w", err)
	}
	policies := make(map[uuid.UUID]cdr.Policy, len(rows))
	for _, r := range rows {
		policies[r.ID] = r.policy()
	}
	return policies, nil
}

func changePolicy(ctx context.Context, tx *txn, tenant uuid.UUID, patch cdr.PolicyPatch, actor string) (changed cdr.Policy, err error) {
	if err := claimTenant(ctx, tx, tenant); err != nil {
		return changed, err
	}
	var row policyRow
	err = tx.GetContext(ctx, &row, `SELECT`+policyColumns+` FROM edgvoip.tenants WHERE id = $1 AND status <> 'deleted' FOR UPDATE`, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return changed, directory.ErrUnknownTenant
	} else if err != nil {
		return changed, fmt.Errorf("lock tenant: %w", err)
	}
	if changed, err = patch.Apply(row.policy()); err != nil || changed == row.policy() {
		return changed, err
	}
	const query = `
		UPDATE edgvoip.tenants SET record_calls = $2, cdr_days = nullif($3, 0), recording_days = nullif($4, 0), updated_at = now() WHERE id = $1`
	if _, err := tx.ExecContext(ctx, query, tenant, string(changed.RecordCalls), changed.CDRDays, changed.RecordingDays); err != nil {
		return changed, fmt.Errorf("change call policy: %w", err)
	}
	return changed, audit(ctx, tx, tenant, actor, "tenant.updated", tenant, policyForAudit(row.policy()), policyForAudit(changed))
}

func policyForAudit(p cdr.Policy) map[string]any {
	return map[string]any{"recordCalls": p.RecordCalls, "cdrDays": p.CDRDays, "recordingDays": p.RecordingDays}
}

// EnsurePartitions makes the partitions of last month and of the months to come.
func (d *DB) EnsurePartitions(ctx context.Context) error {
	const query = `SELECT edgvoip.ensure_cdr_partitions((now() AT TIME ZONE 'UTC' - interval '1 month')::date, 4) FROM` + partitionsLock
	_, err := bounded(ctx, func() (n int, err error) { return n, d.db.GetContext(ctx, &n, query) })
	if err != nil {
		return fmt.Errorf("ensure partitions: %w", err)
	}
	return nil
}

// ExpireRecordings gives up recordings that are older than their tenants keep them, or than they keep the records:
// their files are then removed, see RemovedRecordings.
func (d *DB) ExpireRecordings(ctx context.Context) error {
	const query = `
		UPDATE edgvoip.cdr SET recording_state = 'removed', recording_url = NULL, updated_at = now()
		 WHERE (tenant_id, start_time, call_id) IN (
		       SELECT c.tenant_id, c.start_time, c.call_id FROM edgvoip.tenants t JOIN edgvoip.cdr c ON c.tenant_id = t.id
		        WHERE c.recording_state IN ('expected', 'ready', 'lost')
		          AND c.start_time < now() - make_interval(days => least(t.recording_days, t.cdr_days)) LIMIT $1)`
	for {
		res, err := bounded(ctx, func() (sql.Result, error) { return d.db.ExecContext(ctx, query, pruneBatch) })
		if err != nil {
			return fmt.Errorf("expire recordings: %w", err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return fmt.Errorf("expire recordings: %w", err)
		} else if n < pruneBatch {
			return nil
		}
	}
}

// ExpireCalls removes call records that are older than their tenants keep them, but for those whose recordings are
// still there: without them nobody would know of the files; and events about calls that were given up as long ago. It
// returns how many rows.
func (d *DB) ExpireCalls(ctx context.Context) (removed int64, err error) {
	ids, err := list[uuid.UUID](ctx, d, `SELECT id FROM edgvoip.tenants WHERE cdr_days IS NOT NULL`)
	if err != nil {
		return 0, fmt.Errorf("expire calls: %w", err)
	}
	for _, id := range ids {
		for {
			n, err := get[int64](ctx, d, `SELECT edgvoip.expire_cdr($1)`, id)
			if err != nil {
				return removed, fmt.Errorf("expire calls: %w", err)
			}
			if removed += n; n == 0 {
				break
			}
		}
		n, err := d.expireEvents(ctx, id)
		if removed += n; err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// expireEvents removes events about calls of a tenant that wait for an operator for as long as the tenant keeps
// records.
func (d *DB) expireEvents(ctx context.Context, tenant uuid.UUID) (removed int64, err error) {
	const query = `
		DELETE FROM edgvoip.webhook_events WHERE (tenant_id, id) IN (
		       SELECT e.tenant_id, e.id FROM edgvoip.webhook_events e JOIN edgvoip.tenants t ON t.id = e.tenant_id
		        WHERE e.tenant_id = $1 AND e.state = 'dead' AND e.kind = 'cdr' AND e.finished_at < now() - make_interval(days => t.cdr_days) LIMIT $2)`
	for {
		res, err := bounded(ctx, func() (sql.Result, error) { return d.db.ExecContext(ctx, query, tenant, pruneBatch) })
		if err != nil {
			return removed, fmt.Errorf("expire events: %w", err)
		}
		n, err := res.RowsAffected()
		if removed += n; err != nil || n < pruneBatch {
			return removed, err
		}
	}
}

// Recordings returns recordings of a state whose files are expected, lost or to be removed, from after one on, in order
// of start.
func (d *DB) Recordings(ctx context.Context, state cdr.RecordingState, after cdr.Recording, limit int) ([]cdr.Recording, error) {
	const query = `
		SELECT tenant_id, call_id, start_time, recording_path AS path FROM edgvoip.cdr
		 WHERE recording_path IS NOT NULL AND recording_state IN ('expected', 'lost', 'removed') AND recording_state = $1
		   AND (start_time, call_id) > ($2, $3) ORDER BY start_time, call_id LIMIT $4`
	rows, err := list[struct {
		TenantID uuid.UUID `db:"tenant_id"`
		CallID   uuid.UUID `db:"call_id"`
		Start    time.Time `db:"start_time"`
		Path     string    `db:"path"`
	}](ctx, d, query, string(state), after.Start, after.CallID, limit)
	if err != nil {
		return nil, fmt.Errorf("select recordings: %w", err)
	}
	recordings := make([]cdr.Recording, len(rows))
	for i, r := range rows {
		recordings[i] = cdr.Recording(r)
	}
	return recordings, nil
}

// RecordingReady says that the file of a recording is there, and where it can be asked for; W3 is told.
func (d *DB) RecordingReady(ctx context.Context, rec cdr.Recording, url string) error {
	return d.inTx(ctx, func(tx *txn) error {
		key := callKey{rec.TenantID, rec.CallID}
		if err := lockCalls(ctx, tx, []string{rec.CallID.String()}); err != nil {
			return err
		}
		r, err := callByID(ctx, tx, key)
		if err != nil || r == nil || r.RecordingState != cdr.RecordingExpected && r.RecordingState != cdr.RecordingLost {
			return err
		}
		r.RecordingState, r.RecordingURL = cdr.RecordingReady, url
		r.Revision++
		const query = `
			UPDATE edgvoip.cdr SET recording_state = 'ready', recording_url = $4, revision = $5, updated_at = now()
			 WHERE tenant_id = $1 AND call_id = $2 AND start_time = $3`
		if _, err := tx.ExecContext(ctx, query, rec.TenantID, rec.CallID, r.Start, url, r.Revision); err != nil {
			return fmt.Errorf("recording ready: %w", err)
		}
		return tell(ctx, tx, *r, 0)
	})
}

// RecordingLost says that the file of a recording did not come.
func (d *DB) RecordingLost(ctx context.Context, rec cdr.Recording) error {
	return d.settleRecording(ctx, rec, `recording_state = 'lost'`, cdr.RecordingExpected)
}

// RecordingGone says that the file of a recording that was given up is removed.
func (d *DB) RecordingGone(ctx context.Context, rec cdr.Recording) error {
	return d.settleRecording(ctx, rec, `recording_path = NULL`, cdr.RecordingRemoved)
}

// settleRecording sets columns of a call whose recording is in a state; set is a constant of this file.
func (d *DB) settleRecording(ctx context.Context, rec cdr.Recording, set string, state cdr.RecordingState) error {
	query := `UPDATE edgvoip.cdr SET ` + set + `, updated_at = now() WHERE tenant_id = $1 AND call_id = $2 AND start_time = $3 AND recording_state = $4`
	_, err := bounded(ctx, func() (sql.Result, error) {
		return d.db.ExecContext(ctx, query, rec.TenantID, rec.CallID, rec.Start, string(state))
	})
	if err != nil {
		return fmt.Errorf("settle recording: %w", err)
	}
	return nil
}
