package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/webhook"
)

// callColumns are those of a callRow, as they are read and written.
const callColumns = `
	tenant_id, call_id, start_time, store_id, "from", "to", direction, answer_time, end_time, duration, billsec, disposition, hangup_cause,
	trunk_id, caller_id, callee_id, answered_by, transferred_to, related_call_id, route, reason, ai_agent_ref,
	recording_path, recording_state, recording_url, reconstructed, erased, revision, absorbed_by`

// callRow is the record of a call as the database has it, but for its document. It goes there as JSON, whose names are
// the columns'.
type callRow struct {
	TenantID       uuid.UUID  `db:"tenant_id" json:"tenant_id"`
	CallID         uuid.UUID  `db:"call_id" json:"call_id"`
	StartTime      time.Time  `db:"start_time" json:"start_time"`
	StoreID        *uuid.UUID `db:"store_id" json:"store_id"`
	From           string     `db:"from" json:"from"`
	To             string     `db:"to" json:"to"`
	Direction      string     `db:"direction" json:"direction"`
	AnswerTime     *time.Time `db:"answer_time" json:"answer_time"`
	EndTime        *time.Time `db:"end_time" json:"end_time"`
	Duration       int        `db:"duration" json:"duration"`
	BillSec        int        `db:"billsec" json:"billsec"`
	Disposition    string     `db:"disposition" json:"disposition"`
	Cause          string     `db:"hangup_cause" json:"hangup_cause"`
	TrunkID        *uuid.UUID `db:"trunk_id" json:"trunk_id"`
	CallerID       *uuid.UUID `db:"caller_id" json:"caller_id"`
	CalleeID       *uuid.UUID `db:"callee_id" json:"callee_id"`
	AnsweredBy     string     `db:"answered_by" json:"answered_by"`
	TransferredTo  string     `db:"transferred_to" json:"transferred_to"`
	RelatedID      *uuid.UUID `db:"related_call_id" json:"related_call_id"`
	Route          string     `db:"route" json:"route"`
	Reason         string     `db:"reason" json:"reason"`
	AgentRef       *string    `db:"ai_agent_ref" json:"ai_agent_ref"`
	RecordingPath  *string    `db:"recording_path" json:"recording_path"`
	RecordingState string     `db:"recording_state" json:"recording_state"`
	RecordingURL   *string    `db:"recording_url" json:"recording_url"`
	Reconstructed  bool       `db:"reconstructed" json:"reconstructed"`
	Erased         bool       `db:"erased" json:"erased"`
	Revision       int        `db:"revision" json:"revision"`
	AbsorbedBy     *uuid.UUID `db:"absorbed_by" json:"absorbed_by"`
}

func (r callRow) record() cdr.Record {
	return cdr.Record{
		Call: cdr.Call{
			TenantID: r.TenantID, ID: r.CallID, StoreID: orZero(r.StoreID), From: r.From, To: r.To, Direction: cdr.Direction(r.Direction),
			Start: r.StartTime.UTC(), Answer: orZero(r.AnswerTime).UTC(), End: orZero(r.EndTime).UTC(), Disposition: cdr.Disposition(r.Disposition),
			Cause: r.Cause, TrunkID: orZero(r.TrunkID), CallerID: orZero(r.CallerID), CalleeID: orZero(r.CalleeID), AnsweredBy: r.AnsweredBy,
			TransferredTo: r.TransferredTo, RelatedID: orZero(r.RelatedID), Route: r.Route, Reason: r.Reason, AgentRef: orZero(r.AgentRef),
			Recording: orZero(r.RecordingPath), Reconstructed: r.Reconstructed, Erased: r.Erased,
		},
		Revision: r.Revision, RecordingState: cdr.RecordingState(r.RecordingState), RecordingURL: orZero(r.RecordingURL), AbsorbedBy: orZero(r.AbsorbedBy),
	}
}

func rowOf(r cdr.Record) callRow {
	return callRow{
		TenantID: r.TenantID, CallID: r.ID, StartTime: r.Start, StoreID: unlessZero(r.StoreID), From: r.From, To: r.To, Direction: string(r.Direction),
		AnswerTime: unlessZero(r.Answer), EndTime: unlessZero(r.End), Duration: r.Duration(), BillSec: r.BillSec(), Disposition: string(r.Disposition),
		Cause: r.Cause, TrunkID: unlessZero(r.TrunkID), CallerID: unlessZero(r.CallerID), CalleeID: unlessZero(r.CalleeID), AnsweredBy: r.AnsweredBy,
		TransferredTo: r.TransferredTo, RelatedID: unlessZero(r.RelatedID), Route: r.Route, Reason: r.Reason, AgentRef: unlessZero(r.AgentRef),
		RecordingPath: unlessZero(r.Recording), RecordingState: string(r.RecordingState), RecordingURL: unlessZero(r.RecordingURL),
		Reconstructed: r.Reconstructed, Erased: r.Erased, Revision: r.Revision, AbsorbedBy: unlessZero(r.AbsorbedBy),
	}
}

// unlessZero is for what is NULL if it is zero, orZero the way back.
func unlessZero[T comparable](v T) *T {
	if v == *new(T) {
		return nil
	}
	return &v
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// storeCall writes the record that legs make over the one that is there, if it is another, and tells W3. raw is the
// number of the leg whose document the record carries.
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

// joinLegs makes the record of a call of its legs, with the revision of the one that is there, or the first if that is
// nil.
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
	if r.Recording != "" && r.Erased {
		r.RecordingState = cdr.RecordingRemoved // of a call that was erased before it was recorded
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

// legsOfCall returns the legs of a call in order of start.
func legsOfCall(ctx context.Context, tx *txn, key callKey) ([]cdr.Document, error) {
	found, err := legsOfCalls(ctx, tx, []callKey{key}, nil)
	return found[key], err
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

// complete adds to a record what legs do not tell. What was found before stays: a trunk may be of another store, and
// have another agent, by now.
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
		UPDATE edgvoip.cdr SET (` + callColumns + `) = (SELECT` + callColumns + ` FROM json_populate_record(NULL::edgvoip.cdr, $4)), raw = $5, updated_at = now()
		 WHERE tenant_id = $1 AND call_id = $2 AND start_time = $3`
	row, err := json.Marshal(rowOf(r))
	if err != nil {
		return fmt.Errorf("update call: %w", err)
	}
	if _, err := tx.ExecContext(ctx, query, r.TenantID, r.ID, start, string(row), string(raw)); err != nil {
		return fmt.Errorf("update call: %w", err)
	}
	return nil
}

// tell writes the event of a record, or gives an event that nobody has tried to send yet what there is to tell now.
func tell(ctx context.Context, tx *txn, r cdr.Record, delay time.Duration) error {
	e, err := eventOf(r, delay)
	if err != nil {
		return err
	}
	replaced, err := replacePendingEvent(ctx, tx, e.TenantID, e.Subject, e.Kind, e.Payload)
	if err != nil || replaced {
		return err
	}
	return addEvents(ctx, tx, []webhook.Event{e})
}

func eventOf(r cdr.Record, delay time.Duration) (webhook.Event, error) {
	payload, err := r.Payload()
	if err != nil {
		return webhook.Event{}, err
	}
	key, err := uuid.NewRandom()
	if err != nil {
		return webhook.Event{}, fmt.Errorf("key of an event: %w", err)
	}
	return webhook.Event{TenantID: r.TenantID, Key: key, Kind: webhook.CDR, Subject: r.ID, Payload: payload, Delay: delay}, nil
}
