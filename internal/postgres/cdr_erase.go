package postgres

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// Erasing goes by pages of documents, of a tenant's legs and of its events, and by batches of those with the number,
// each a transaction: a tenant with millions of them holds neither locks nor a connection for long.
const (
	erasureDocuments = 200
	erasureLegs      = 2000
	erasureEvents    = 5000
	erasureBatch     = 50
)

// EraseNumber takes a person's number out of a tenant's call records, their legs, what is not read yet, the events
// about calls and the recordings, whose files go as soon as somebody has removed them; see RemovedRecordings. It begins
// where another has stopped, and stops after a while, but not before one page: it returns in how many calls the number
// was, and where to go on. The audit log has how many there were, and not the number.
func (d *DB) EraseNumber(ctx context.Context, tenant uuid.UUID, p cdr.Person, from cdr.ErasurePlace, patience time.Duration, actor string) (calls int, next cdr.ErasurePlace, err error) {
	finds := p.Finder()
	next = from
	for until := time.Now().Add(patience); next.Stage < cdr.EraseDone; {
		var found int
		switch next.Stage {
		case cdr.EraseDocuments:
			next, err = d.eraseUnread(ctx, tenant, p, finds, next)
		case cdr.EraseLegs:
			found, next, err = d.eraseRead(ctx, tenant, p, next, until)
		default:
			next, err = d.eraseStrayEvents(ctx, tenant, p, next)
		}
		if calls += found; err != nil {
			return calls, next, err
		}
		if !time.Now().Before(until) {
			break
		}
	}
	return calls, next, d.inTx(ctx, func(tx *txn) error {
		return audit(ctx, tx, tenant, actor, "number.erased", tenant, nil, map[string]any{"calls": calls, "done": next.Stage == cdr.EraseDone})
	})
}

// eraseRead erases a page of a tenant's legs, and the calls that they are of. It stops in the middle when its time is
// over.
func (d *DB) eraseRead(ctx context.Context, tenant uuid.UUID, p cdr.Person, from cdr.ErasurePlace, until time.Time) (calls int, next cdr.ErasurePlace, err error) {
	found, last, done, err := d.callsOfPerson(ctx, tenant, p, from.Leg)
	if err != nil {
		return 0, from, err
	}
	for batch := range slices.Chunk(found, erasureBatch) {
		if calls > 0 && !time.Now().Before(until) {
			return calls, from, nil // what is erased is not found again
		}
		if err := d.repeated(ctx, func(tx *txn) error { return eraseCalls(ctx, tx, tenant, batch, p) }); err != nil {
			return calls, from, err
		}
		calls += len(batch)
	}
	if done {
		return len(found), cdr.ErasurePlace{Stage: cdr.EraseEvents}, nil
	}
	return len(found), cdr.ErasurePlace{Stage: cdr.EraseLegs, Leg: last}, nil
}

// callsOfPerson returns the calls of one page of legs in which a number stands anywhere, and the key of the page's last
// leg.
func (d *DB) callsOfPerson(ctx context.Context, tenant uuid.UUID, p cdr.Person, after cdr.LegKey) (calls []uuid.UUID, last cdr.LegKey, done bool, err error) {
	query := `
		SELECT start_time, leg_id, call_id, ` + closedUp("raw::text") + ` ~ $4 AS hit
		  FROM edgvoip.cdr_legs WHERE tenant_id = $1 AND (start_time, leg_id) > ($2, $3) ORDER BY start_time, leg_id LIMIT $5`
	rows, err := list[struct {
		Start  time.Time `db:"start_time"`
		LegID  uuid.UUID `db:"leg_id"`
		CallID uuid.UUID `db:"call_id"`
		Hit    bool      `db:"hit"`
	}](ctx, d, query, tenant, after.Start, after.ID, p.Pattern(), erasureLegs)
	if err != nil {
		return nil, after, false, fmt.Errorf("calls of a person: %w", err)
	}
	last = after
	for _, r := range rows {
		if last = (cdr.LegKey{Start: r.Start, ID: r.LegID}); r.Hit && !slices.Contains(calls, r.CallID) {
			calls = append(calls, r.CallID)
		}
	}
	return calls, last, len(rows) < erasureLegs, nil
}

// closedUp is a text without what people and phones write between the digits of a number.
func closedUp(text string) string {
	return `regexp_replace(replace(replace(` + text + `, '%2B', '+'), '%2b', '+'), '%20|[ ()./-]', '', 'g')`
}

func eraseCalls(ctx context.Context, tx *txn, tenant uuid.UUID, calls []uuid.UUID, p cdr.Person) error {
	ids := make([]string, len(calls))
	for i, id := range calls {
		ids[i] = id.String()
	}
	if err := lockCalls(ctx, tx, ids); err != nil {
		return err
	}
	for _, id := range calls {
		if err := eraseCall(ctx, tx, callKey{tenant, id}, p); err != nil {
			return err
		}
	}
	return nil
}

func eraseCall(ctx context.Context, tx *txn, key callKey, p cdr.Person) error {
	docs, err := legsOfCall(ctx, tx, key)
	if err != nil {
		return err
	}
	kept, err := callByID(ctx, tx, key)
	if err != nil {
		return err
	}
	concerned := p.Concerns(docs)
	if err := eraseLegs(ctx, tx, key, docs, p); err != nil {
		return err
	}
	if len(docs) == 0 {
		return eraseWhole(ctx, tx, key, p)
	}
	if kept == nil {
		return nil
	}
	if err := eraseParts(ctx, tx, key, docs, concerned); err != nil {
		return err
	}
	if concerned {
		if err := eraseRecording(ctx, tx, key, kept); err != nil {
			return err
		}
	}
	calling := 0
	for i, doc := range docs {
		if doc.Leg().ID == key.call {
			calling = i
		}
	}
	if err := storeCall(ctx, tx, key, docs, calling, kept); err != nil {
		return err
	}
	// Also if the record itself says the same as before: the number may stand deeper.
	const raw = `UPDATE edgvoip.cdr SET raw = $3 WHERE tenant_id = $1 AND call_id = $2`
	if _, err := tx.ExecContext(ctx, raw, key.tenant, key.call, string(docs[calling].JSON())); err != nil {
		return fmt.Errorf("erase raw record: %w", err)
	}
	return eraseEvents(ctx, tx, key)
}

// eraseWhole erases from the call that one without legs has become a part of since its legs were looked for. It is
// locked out of order; see repeated.
func eraseWhole(ctx context.Context, tx *txn, key callKey, p cdr.Person) error {
	whole, err := callOfLeg(ctx, tx, key.tenant, key.call)
	if err != nil || whole == key.call {
		return err
	}
	return eraseCalls(ctx, tx, key.tenant, []uuid.UUID{whole}, p)
}

// eraseRecording gives up the recording of a call, in its record too.
func eraseRecording(ctx context.Context, tx *txn, key callKey, kept *cdr.Record) error {
	const query = `
		UPDATE edgvoip.cdr SET recording_state = 'removed', recording_url = NULL
		 WHERE tenant_id = $1 AND call_id = $2 AND recording_state IN ('expected', 'ready', 'lost')`
	if _, err := tx.ExecContext(ctx, query, key.tenant, key.call); err != nil {
		return fmt.Errorf("erase recording: %w", err)
	}
	if kept.RecordingState != cdr.RecordingNone {
		kept.RecordingState, kept.RecordingURL = cdr.RecordingRemoved, ""
	}
	return nil
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
