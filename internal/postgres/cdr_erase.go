package postgres

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// EraseNumber takes a person's number out of a tenant's call records, their legs, what is not read yet, the events about calls and
// the recordings, whose files go as soon as somebody has removed them; see RemovedRecordings. It returns how many calls it was in. The audit
// log has how many there were, and not the number.
func (d *DB) EraseNumber(ctx context.Context, tenant uuid.UUID, p cdr.Person, actor string) (calls int, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		// Documents before calls, as whoever reads them does.
		if err := eraseUnread(ctx, tx, tenant, p); err != nil {
			return err
		}
		ids, err := callsOfPerson(ctx, tx, tenant, p)
		if err != nil {
			return err
		}
		if err := lockCalls(ctx, tx, ids); err != nil {
			return err
		}
		for _, id := range ids {
			if err := eraseCall(ctx, tx, callKey{tenant, uuid.MustParse(id)}, p); err != nil {
				return err
			}
		}
		if err := eraseStrayEvents(ctx, tx, tenant, p); err != nil {
			return err
		}
		calls = len(ids)
		return audit(ctx, tx, tenant, actor, "number.erased", tenant, nil, map[string]any{"calls": calls})
	})
	return calls, err
}

// callsOfPerson returns the calls in which the digits of a number stand anywhere, in order of id. What is not the person's
// number after all loses no more than texts around it.
func callsOfPerson(ctx context.Context, tx *txn, tenant uuid.UUID, p cdr.Person) ([]string, error) {
	query := `
		SELECT call_id::text FROM edgvoip.cdr_legs WHERE tenant_id = $1 AND position($2 IN ` + closedUp("raw::text") + `) > 0
		UNION
		SELECT call_id::text FROM edgvoip.cdr WHERE tenant_id = $1
		   AND position($2 IN ` + closedUp(`concat_ws('|', "from", "to", answered_by, transferred_to, raw::text)`) + `) > 0
		ORDER BY 1`
	var ids []string
	if err := tx.SelectContext(ctx, &ids, query, tenant, p.Digits()); err != nil {
		return nil, fmt.Errorf("calls of a person: %w", err)
	}
	return ids, nil
}

// closedUp is a text without what people and phones write between the digits of a number.
func closedUp(text string) string { return `regexp_replace(` + text + `, '%20|[ ()./-]', '', 'g')` }

func eraseCall(ctx context.Context, tx *txn, key callKey, p cdr.Person) error {
	docs, err := legsOfCall(ctx, tx, key)
	if err != nil {
		return err
	}
	kept, err := callByID(ctx, tx, key)
	if err != nil {
		return err
	}
	if err := eraseLegs(ctx, tx, key, docs, p); err != nil {
		return err
	}
	if kept == nil || len(docs) == 0 {
		return nil
	}
	const recording = `
		UPDATE edgvoip.cdr SET recording_state = 'removed', recording_url = NULL
		 WHERE tenant_id = $1 AND call_id = $2 AND recording_state IN ('expected', 'ready', 'lost')`
	if _, err := tx.ExecContext(ctx, recording, key.tenant, key.call); err != nil {
		return fmt.Errorf("erase recording: %w", err)
	}
	if kept.RecordingState != cdr.RecordingNone {
		kept.RecordingState, kept.RecordingURL = cdr.RecordingRemoved, ""
	}
	calling := 0
	for i, doc := range docs {
		if doc.Leg().ID == key.call {
			calling = i
		}
	}
	if _, err := storeCall(ctx, tx, key, docs, calling, kept); err != nil {
		return err
	}
	// Also if the record itself says the same as before: the number may stand deeper.
	const raw = `UPDATE edgvoip.cdr SET raw = $3 WHERE tenant_id = $1 AND call_id = $2`
	if _, err := tx.ExecContext(ctx, raw, key.tenant, key.call, string(docs[calling].JSON())); err != nil {
		return fmt.Errorf("erase raw record: %w", err)
	}
	return eraseEvents(ctx, tx, key)
}

// eraseLegs erases a number from legs, in the list too. Those from which everything was erased before stay as they are.
func eraseLegs(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, p cdr.Person) error {
	for i, doc := range docs {
		if p == (cdr.Person{}) && doc.Leg().Erased {
			continue
		}
		erased, err := doc.Erase(p)
		if err != nil {
			return fmt.Errorf("erase leg: %w", err)
		}
		if err := updateLeg(ctx, tx, key, erased, doc.Leg().Start); err != nil {
			return err
		}
		docs[i] = erased
	}
	return nil
}

// eraseEvents gives every event about a call that is still here, sent or not, what the last one says.
func eraseEvents(ctx context.Context, tx *txn, key callKey) error {
	r, err := callByID(ctx, tx, key)
	if err != nil || r == nil {
		return err
	}
	payload, err := r.Payload()
	if err != nil {
		return err
	}
	const query = `UPDATE edgvoip.webhook_events SET payload = $3 WHERE tenant_id = $1 AND subject = $2 AND kind = 'cdr'`
	if _, err := tx.ExecContext(ctx, query, key.tenant, key.call, string(payload)); err != nil {
		return fmt.Errorf("erase events: %w", err)
	}
	return nil
}
