package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/webhook"
)

// callColumns are what a callRow is read from, of table c.
const callColumns = `
	c.tenant_id, c.call_id, c.store_id, c."from", c."to", c.direction, c.start_time, c.answer_time, c.end_time, c.disposition, c.hangup_cause,
	c.trunk_id, c.caller_id, c.callee_id, c.answered_by, c.transferred_to, c.related_call_id, c.route, c.reason, coalesce(c.ai_agent_ref, '') AS ai_agent_ref, coalesce(c.recording_path, '') AS recording_path,
	c.recording_state, coalesce(c.recording_url, '') AS recording_url, c.reconstructed, c.erased, c.revision,
	c.absorbed_by`

type callRow struct {
	TenantID       uuid.UUID     `db:"tenant_id"`
	CallID         uuid.UUID     `db:"call_id"`
	StoreID        uuid.NullUUID `db:"store_id"`
	From           string        `db:"from"`
	To             string        `db:"to"`
	Direction      string        `db:"direction"`
	StartTime      time.Time     `db:"start_time"`
	AnswerTime     sql.NullTime  `db:"answer_time"`
	EndTime        sql.NullTime  `db:"end_time"`
	Disposition    string        `db:"disposition"`
	Cause          string        `db:"hangup_cause"`
	TrunkID        uuid.NullUUID `db:"trunk_id"`
	CallerID       uuid.NullUUID `db:"caller_id"`
	CalleeID       uuid.NullUUID `db:"callee_id"`
	AnsweredBy     string        `db:"answered_by"`
	TransferredTo  string        `db:"transferred_to"`
	RelatedID      uuid.NullUUID `db:"related_call_id"`
	Route          string        `db:"route"`
	Reason         string        `db:"reason"`
	AgentRef       string        `db:"ai_agent_ref"`
	RecordingPath  string        `db:"recording_path"`
	RecordingState string        `db:"recording_state"`
	RecordingURL   string        `db:"recording_url"`
	Reconstructed  bool          `db:"reconstructed"`
	Erased         bool          `db:"erased"`
	Revision       int           `db:"revision"`
	AbsorbedBy     uuid.NullUUID `db:"absorbed_by"`
}

func (r callRow) record() cdr.Record {
	at := func(t sql.NullTime) time.Time {
		if !t.Valid {
			return time.Time{}
		}
		return t.Time.UTC()
	}
	return cdr.Record{
		Call: cdr.Call{
			TenantID: r.TenantID, ID: r.CallID, StoreID: r.StoreID.UUID, From: r.From, To: r.To, Direction: cdr.Direction(r.Direction),
			Start: r.StartTime.UTC(), Answer: at(r.AnswerTime), End: at(r.EndTime), Disposition: cdr.Disposition(r.Disposition), Cause: r.Cause,
			TrunkID: r.TrunkID.UUID, CallerID: r.CallerID.UUID, CalleeID: r.CalleeID.UUID, AnsweredBy: r.AnsweredBy, TransferredTo: r.TransferredTo,
			RelatedID: r.RelatedID.UUID, Route: r.Route, Reason: r.Reason, AgentRef: r.AgentRef, Recording: r.RecordingPath, Reconstructed: r.Reconstructed, Erased: r.Erased,
		},
		Revision: r.Revision, RecordingState: cdr.RecordingState(r.RecordingState), RecordingURL: r.RecordingURL,
		AbsorbedBy: r.AbsorbedBy.UUID,
	}
}

// putCall makes the record of a call anew of the legs that are there, and tells W3 if that changes it. Without the calling leg
// it waits, unless it is to wait no longer: errWaits.
func putCall(ctx context.Context, tx *txn, key callKey, orphan bool) (changed bool, err error) {
	// The call's own leg may be the leg of none of our documents.
	if err := lockCalls(ctx, tx, []string{key.call.String()}); err != nil {
		return false, err
	}
	docs, err := legsOfCall(ctx, tx, key)
	if err != nil {
		return false, err
	}
	if len(docs) == 0 {
		return false, nil // they are of another call by now
	}
	kept, err := callByID(ctx, tx, key)
	if err != nil {
		return false, err
	}
	calling := slices.IndexFunc(docs, func(d cdr.Document) bool { return d.Leg().ID == key.call })
	if calling < 0 && kept == nil && !orphan {
		return false, errWaits
	}
	if kept != nil && kept.Erased || slices.ContainsFunc(docs, func(d cdr.Document) bool { return d.Leg().Erased }) {
		// Whoever asked for it is still meant, and his number is not known any more.
		if err := eraseLegs(ctx, tx, key, docs, cdr.Person{}); err != nil {
			return false, err
		}
		if kept != nil && !kept.Erased {
			if err := eraseRecording(ctx, tx, key, kept); err != nil {
				return false, err
			}
		}
	}
	if changed, err = storeCall(ctx, tx, key, docs, max(calling, 0), kept); err != nil {
		return false, err
	}
	return changed, mend(ctx, tx, key, docs)
}

// storeCall writes the record that legs make, if it is another than the one that is there. raw is the number of the leg whose
// document the record carries.
func storeCall(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, raw int, kept *cdr.Record) (changed bool, err error) {
	legs := make([]cdr.Leg, len(docs))
	for i, d := range docs {
		legs[i] = d.Leg()
	}
	r := cdr.Record{Call: cdr.Join(key.call, legs), Revision: 1, RecordingState: cdr.RecordingNone}
	r.TenantID = key.tenant
	if r.Recording != "" {
		r.RecordingState = cdr.RecordingExpected
	}
	if err := complete(ctx, tx, &r, kept); err != nil {
		return false, err
	}
	if kept == nil {
		if err := insertCall(ctx, tx, r, docs[raw].JSON()); err != nil {
			return false, err
		}
		return true, tell(ctx, tx, r, eventDelay)
	}
	if kept.RecordingState != cdr.RecordingNone {
		// What became of the file is not for legs to say.
		r.Recording, r.RecordingState, r.RecordingURL = kept.Recording, kept.RecordingState, kept.RecordingURL
	}
	if r.Revision = kept.Revision; r == *kept {
		return false, nil
	}
	r.Revision++
	if err := updateCall(ctx, tx, r, kept.Start, docs[raw].JSON()); err != nil {
		return false, err
	}
	return true, tell(ctx, tx, r, eventDelay)
}

func legsOfCall(ctx context.Context, tx *txn, key callKey) ([]cdr.Document, error) {
	var rows [][]byte
	const query = `SELECT raw FROM edgvoip.cdr_legs WHERE tenant_id = $1 AND call_id = $2 ORDER BY start_time, leg_id`
	if err := tx.SelectContext(ctx, &rows, query, key.tenant, key.call); err != nil {
		return nil, fmt.Errorf("select legs: %w", err)
	}
	docs := make([]cdr.Document, len(rows))
	for i, raw := range rows {
		var err error
		if docs[i], err = cdr.Parse(raw); err != nil {
			return nil, errStored
		}
	}
	return docs, nil
}

// callByID returns the record of a call, locked, or nil.
func callByID(ctx context.Context, tx *txn, key callKey) (*cdr.Record, error) {
	var row callRow
	err := tx.GetContext(ctx, &row, `SELECT`+callColumns+` FROM edgvoip.cdr c WHERE c.tenant_id = $1 AND c.call_id = $2 FOR UPDATE`, key.tenant, key.call)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer
	} else if err != nil {
		return nil, fmt.Errorf("select call: %w", err)
	}
	r := row.record()
	return &r, nil
}

// routeAgent is the route of a call that the dialplan sent to an agent.
const routeAgent = "agent"

// complete adds to a record what legs do not tell. What was found before stays: a trunk may have another agent by now.
func complete(ctx context.Context, tx *txn, r, kept *cdr.Record) (err error) {
	if r.RelatedID != uuid.Nil {
		if r.RelatedID, err = callOfLeg(ctx, tx, r.TenantID, r.RelatedID); err != nil {
			return err
		}
	}
	if r.TrunkID == uuid.Nil {
		return nil
	}
	var trunk struct {
		Store uuid.NullUUID `db:"store_id"`
		Agent string        `db:"ai_agent_ref"`
	}
	const query = `SELECT store_id, coalesce(ai_agent_ref, '') AS ai_agent_ref FROM edgvoip.sip_trunks WHERE tenant_id = $1 AND id = $2`
	if err := tx.GetContext(ctx, &trunk, query, r.TenantID, r.TrunkID); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("trunk of a call: %w", err)
	}
	if r.StoreID == uuid.Nil {
		r.StoreID = trunk.Store.UUID
	}
	if kept != nil && kept.AgentRef != "" {
		r.AgentRef = kept.AgentRef
	} else if r.Route == routeAgent {
		r.AgentRef = trunk.Agent
	}
	return nil
}

// callValues are what insertCall and updateCall write, from $1 on.
func callValues(r cdr.Record, raw []byte) []any {
	return []any{
		r.TenantID, r.ID, r.Start, nullID(r.StoreID), r.From, r.To, string(r.Direction), nullTime(r.Answer), nullTime(r.End), r.Duration(), r.BillSec(),
		string(r.Disposition), r.Cause, nullID(r.TrunkID), nullID(r.CallerID), nullID(r.CalleeID), r.AnsweredBy, r.TransferredTo, r.Route, r.Reason,
		nullable(r.Recording != "", r.Recording), string(r.RecordingState), nullable(r.RecordingURL != "", r.RecordingURL), r.Reconstructed, r.Erased,
		r.Revision, string(raw), nullID(r.RelatedID), nullable(r.AgentRef != "", r.AgentRef),
	}
}

func insertCall(ctx context.Context, tx *txn, r cdr.Record, raw []byte) error {
	const query = `
		INSERT INTO edgvoip.cdr (tenant_id, call_id, start_time, store_id, "from", "to", direction, answer_time, end_time, duration, billsec,
			disposition, hangup_cause, trunk_id, caller_id, callee_id, answered_by, transferred_to, route, reason,
			recording_path, recording_state, recording_url, reconstructed, erased, revision, raw, related_call_id, ai_agent_ref)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29)`
	if _, err := tx.ExecContext(ctx, query, callValues(r, raw)...); err != nil {
		return fmt.Errorf("insert call: %w", err)
	}
	return nil
}

// updateCall writes a record over the one that began at a time, which a leg that came later may have changed.
func updateCall(ctx context.Context, tx *txn, r cdr.Record, start time.Time, raw []byte) error {
	const query = `
		UPDATE edgvoip.cdr SET start_time = $3, store_id = $4, "from" = $5, "to" = $6, direction = $7, answer_time = $8, end_time = $9, duration = $10,
			billsec = $11, disposition = $12, hangup_cause = $13, trunk_id = $14, caller_id = $15, callee_id = $16, answered_by = $17, transferred_to = $18,
			route = $19, reason = $20, recording_path = $21, recording_state = $22, recording_url = $23, reconstructed = $24, erased = $25,
			revision = $26, raw = $27, related_call_id = $28, ai_agent_ref = $29, updated_at = now(), absorbed_by = NULL
		 WHERE tenant_id = $1 AND call_id = $2 AND start_time = $30`
	if _, err := tx.ExecContext(ctx, query, append(callValues(r, raw), start)...); err != nil {
		return fmt.Errorf("update call: %w", err)
	}
	return nil
}

// tell writes the event of a record, or gives an event that nobody has tried to send yet what there is to tell now.
func tell(ctx context.Context, tx *txn, r cdr.Record, delay time.Duration) error {
	payload, err := r.Payload()
	if err != nil {
		return err
	}
	replaced, err := replacePendingEvent(ctx, tx, r.TenantID, r.ID, webhook.CDR, payload)
	if err != nil || replaced {
		return err
	}
	key, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("key of an event: %w", err)
	}
	return addEvent(ctx, tx, webhook.Event{TenantID: r.TenantID, Key: key, Kind: webhook.CDR, Subject: r.ID, Payload: payload, Delay: delay})
}
