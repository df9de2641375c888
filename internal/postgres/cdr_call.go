package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

// storeCall writes the record that legs make over the one that is there, if it is another, and tells W3. raw is the number of the
// leg whose document the record carries.
func storeCall(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, raw int, kept *cdr.Record) error {
	r, err := joinLegs(ctx, tx, key, docs, kept, trunksRead{})
	if err != nil || r == *kept {
		return err
	}
	return changeCall(ctx, tx, r, kept.Start, docs[raw])
}

// changeCall writes a record over the one that began at a time, and tells W3.
func changeCall(ctx context.Context, tx *txn, r cdr.Record, start time.Time, raw cdr.Document) error {
	r.Revision++
	if err := updateCall(ctx, tx, r, start, raw.JSON()); err != nil {
		return err
	}
	return tell(ctx, tx, r, eventDelay)
}

// joinLegs makes the record of a call of its legs, with the revision of the one that is there, or the first if that is nil.
func joinLegs(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, kept *cdr.Record, trunks trunksRead) (cdr.Record, error) {
	legs := make([]cdr.Leg, len(docs))
	for i, d := range docs {
		legs[i] = d.Leg()
	}
	r := cdr.Record{Call: cdr.Join(key.call, legs), Revision: 1, RecordingState: cdr.RecordingNone}
	r.TenantID = key.tenant
	if r.Recording != "" {
		r.RecordingState = cdr.RecordingExpected
	}
	if err := complete(ctx, tx, &r, kept, trunks); err != nil {
		return r, err
	}
	if kept == nil {
		return r, nil
	}
	if kept.RecordingState != cdr.RecordingNone {
		// What became of the file is not for legs to say.
		r.Recording, r.RecordingState, r.RecordingURL = kept.Recording, kept.RecordingState, kept.RecordingURL
	}
	r.Revision = kept.Revision
	return r, nil
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
	found, err := callsByID(ctx, tx, []callKey{key})
	return found[key], err
}

// routeAgent is the route of a call that the dialplan sent to an agent.
const routeAgent = "agent"

// trunkRead is what a record takes from its trunk.
type trunkRead struct {
	Store uuid.NullUUID `db:"store_id"`
	Agent string        `db:"ai_agent_ref"`
}

// trunksRead are the trunks that were read in a transaction, by tenant and trunk: many calls have the same.
type trunksRead map[[2]uuid.UUID]trunkRead

// read returns a trunk; one that is not there is zero.
func (t trunksRead) read(ctx context.Context, tx *txn, tenant, id uuid.UUID) (trunk trunkRead, err error) {
	trunk, there := t[[2]uuid.UUID{tenant, id}]
	if there {
		return trunk, nil
	}
	const query = `SELECT store_id, coalesce(ai_agent_ref, '') AS ai_agent_ref FROM edgvoip.sip_trunks WHERE tenant_id = $1 AND id = $2`
	if err := tx.GetContext(ctx, &trunk, query, tenant, id); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return trunk, fmt.Errorf("trunk of a call: %w", err)
	}
	t[[2]uuid.UUID{tenant, id}] = trunk
	return trunk, nil
}

// complete adds to a record what legs do not tell. What was found before stays: a trunk may be of another store, and have another agent,
// by now.
func complete(ctx context.Context, tx *txn, r, kept *cdr.Record, trunks trunksRead) (err error) {
	if r.RelatedID != uuid.Nil {
		if r.RelatedID, err = callOfLeg(ctx, tx, r.TenantID, r.RelatedID); err != nil {
			return err
		}
	}
	if r.TrunkID == uuid.Nil {
		return nil
	}
	trunk, err := trunks.read(ctx, tx, r.TenantID, r.TrunkID)
	if err != nil {
		return err
	}
	if kept != nil && kept.TrunkID == r.TrunkID {
		r.StoreID = kept.StoreID
	} else {
		r.StoreID = trunk.Store.UUID
	}
	if kept != nil && kept.AgentRef != "" {
		r.AgentRef = kept.AgentRef
	} else if r.Route == routeAgent {
		r.AgentRef = trunk.Agent
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
	if _, err := tx.ExecContext(ctx, query,
		r.TenantID, r.ID, r.Start, nullID(r.StoreID), r.From, r.To, string(r.Direction), nullTime(r.Answer), nullTime(r.End), r.Duration(), r.BillSec(),
		string(r.Disposition), r.Cause, nullID(r.TrunkID), nullID(r.CallerID), nullID(r.CalleeID), r.AnsweredBy, r.TransferredTo, r.Route, r.Reason,
		nullable(r.Recording != "", r.Recording), string(r.RecordingState), nullable(r.RecordingURL != "", r.RecordingURL), r.Reconstructed, r.Erased,
		r.Revision, string(raw), nullID(r.RelatedID), nullable(r.AgentRef != "", r.AgentRef), start); err != nil {
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
