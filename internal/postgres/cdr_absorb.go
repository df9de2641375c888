package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
)

// mend puts right what was recorded of other calls before the legs of this one had come: calls that turn out to be
// parts of it end, and the other call of an attended transfer names the whole of it. The record of the call itself is
// written before.
func mend(ctx context.Context, tx *txn, key callKey, docs []cdr.Document) error {
	parts, err := partsOfCall(ctx, tx, key, docs)
	if err != nil {
		return err
	}
	parts = slices.DeleteFunc(parts, func(r cdr.Record) bool { return r.AbsorbedBy == key.call })
	if len(parts) == 0 && !slices.ContainsFunc(docs, attended) {
		return nil
	}
	whole, err := callByID(ctx, tx, key)
	if err != nil || whole == nil {
		return err
	}
	related := []uuid.UUID{whole.RelatedID}
	for _, part := range parts {
		if err := absorb(ctx, tx, part, *whole); err != nil {
			return err
		}
		related = append(related, part.RelatedID)
	}
	return relate(ctx, tx, key, docs, related)
}

// partsOfCall returns the records of calls whose legs are of this call now, locked, also of those that are known to be
// parts of it. Only a leg that called others can have stood for a call while it had not come. A call that has legs goes
// on, whatever a leg of ours says of its caller, as channels may say that they called each other; and one whose own leg
// is of another call is a part of that one.
func partsOfCall(ctx context.Context, tx *txn, key callKey, docs []cdr.Document) ([]cdr.Record, error) {
	var ids []string
	for _, d := range docs {
		if parent := d.Leg().Parent; parent != uuid.Nil && parent != key.call {
			ids = append(ids, parent.String())
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	const query = `
		SELECT` + callColumns + ` FROM edgvoip.cdr c
		 WHERE c.tenant_id = $1 AND c.call_id = ANY ($2::uuid[])
		   AND NOT EXISTS (SELECT FROM edgvoip.cdr_legs l WHERE l.tenant_id = c.tenant_id AND l.call_id = c.call_id)
		   AND NOT EXISTS (SELECT FROM edgvoip.cdr_legs l WHERE l.tenant_id = c.tenant_id AND l.leg_id = c.call_id AND l.call_id <> $3)
		 ORDER BY c.call_id FOR UPDATE`
	var rows []callRow
	if err := tx.SelectContext(ctx, &rows, query, key.tenant, pq.StringArray(ids), key.call); err != nil {
		return nil, fmt.Errorf("parts of a call: %w", err)
	}
	parts := make([]cdr.Record, len(rows))
	for i, r := range rows {
		parts[i] = r.record()
	}
	return parts, nil
}

// absorb ends a call that is a part of another, and tells W3. Whoever takes its recording or its events for its own
// meanwhile waits for its row.
func absorb(ctx context.Context, tx *txn, part, whole cdr.Record) error {
	left := part.Absorbed(whole)
	if err := updateCall(ctx, tx, left, left.Start, []byte("{}")); err != nil {
		return err
	}
	if err := tell(ctx, tx, left, eventDelay); err != nil || !left.Erased {
		return err
	}
	return eraseEvents(ctx, tx, callKey{left.TenantID, left.ID})
}

func attended(d cdr.Document) bool { return d.Leg().Joined != uuid.Nil || d.Leg().HandedOn != uuid.Nil }

// relate makes calls that name a leg of this one name the call instead: the leg had not come, or was of another call.
func relate(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, others []uuid.UUID) error {
	for _, id := range others {
		if id == uuid.Nil {
			continue
		}
		r, err := callByID(ctx, tx, callKey{key.tenant, id})
		if err != nil {
			return err
		}
		if r == nil || r.RelatedID == key.call || !slices.ContainsFunc(docs, func(d cdr.Document) bool { return d.Leg().ID == r.RelatedID }) {
			continue
		}
		r.RelatedID = key.call
		r.Revision++
		const query = `
			UPDATE edgvoip.cdr SET related_call_id = $4, revision = $5, updated_at = now() WHERE tenant_id = $1 AND call_id = $2 AND start_time = $3`
		if _, err := tx.ExecContext(ctx, query, r.TenantID, r.ID, r.Start, r.RelatedID, r.Revision); err != nil {
			return fmt.Errorf("relate call: %w", err)
		}
		if err := tell(ctx, tx, *r, eventDelay); err != nil {
			return err
		}
	}
	return nil
}

// eraseParts erases from calls that became parts of one what may still hold a number: what was told of them, and a
// recording of their own.
func eraseParts(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, concerned bool) error {
	parts, err := partsOfCall(ctx, tx, key, docs)
	if err != nil {
		return err
	}
	for _, part := range parts {
		of := callKey{part.TenantID, part.ID}
		if concerned {
			if err := eraseRecording(ctx, tx, of, &part); err != nil {
				return err
			}
		}
		if err := eraseEvents(ctx, tx, of); err != nil {
			return err
		}
	}
	return nil
}

// lockFamilies locks legs and the calls that they are of: whoever brings the leg between such a call and its caller
// moves all legs of the call, and would miss one that is being written. They are looked for first, so that all are
// locked in one order but for those that became another call's while we waited; see repeated.
func lockFamilies(ctx context.Context, tx *txn, legs []string) error {
	const query = `SELECT DISTINCT call_id::text FROM edgvoip.cdr_legs WHERE leg_id = ANY ($1::uuid[]) AND call_id <> ALL ($1::uuid[])`
	for locked := 0; ; {
		var calls []string
		if err := tx.SelectContext(ctx, &calls, query, pq.StringArray(legs)); err != nil {
			return fmt.Errorf("calls of legs: %w", err)
		}
		if legs = append(legs, calls...); locked == len(legs) {
			return nil
		}
		if err := lockCalls(ctx, tx, legs[locked:]); err != nil {
			return err
		}
		// While we waited they may have become another call's.
		locked = len(legs)
	}
}
