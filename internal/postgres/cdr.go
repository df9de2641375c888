package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
)

// Times of the ledger.
const (
	// A called leg is read at once when its caller's comes. Whether that was missed is looked at after as long as it
	// has waited, within these two.
	leastPostponement = 15 * time.Second
	mostPostponement  = 10 * time.Minute
	// orphanAge is after how long a call is recorded without its calling leg, of which there is neither a document nor
	// a sighting: it may be a caller who still talks, and hardly anybody does for a day.
	orphanAge = 24 * time.Hour
	// A document that the database does not take is tried so often before it counts as unreadable.
	documentAttempts = 5
	documentBackoff  = 10 * time.Second
	// eventDelay is what an event waits for, so that legs which come one after the other make one.
	eventDelay = 2 * time.Second
)

// entry is a document on its way into the ledger.
type entry struct {
	id       int64 // of its row; 0 for one that was reconstructed
	attempts int
	old      bool // it has waited for its caller long enough
	doc      cdr.Document
	leg      cdr.Leg
	call     callKey
	failure  error // why it is not in the ledger yet
}

// awaits is the channel whose leg an entry waits for: the one that began its call or, if nobody knows whose that is,
// the one that called it.
func (e *entry) awaits() uuid.UUID { return cmp.Or(e.call.call, e.leg.Parent) }

// callKey names a call.
type callKey struct{ tenant, call uuid.UUID }

// Reasons why a document does not go on; constant texts.
var (
	errUnassigned = errors.New("the record belongs to no tenant")
	errWaits      = errors.New("the calling leg has not come yet")
	errStored     = errors.New("a leg of the call that is stored already cannot be read")
)

// ReadDocuments reads up to so many documents into call records, in one transaction: what cannot be read is marked and
// kept, and keeps nobody up. Several processes may do it at the same time.
func (d *DB) ReadDocuments(ctx context.Context, most int) (cdr.Tally, error) {
	return inBatch(most, func(most int) (t cdr.Tally, err error) {
		err = d.repeated(ctx, func(tx *txn) error {
			t = cdr.Tally{}
			entries, err := claimDocuments(ctx, tx, most)
			if err != nil {
				return err
			}
			t.Taken = len(entries)
			if err := enter(ctx, tx, entries, &t); err != nil {
				return err
			}
			return settleDocuments(ctx, tx, entries, &t)
		})
		return t, err
	})
}

// errPoisoned means that the database does not take something of a batch, and so nothing of the batch may stay: which
// of them it is shows when it is alone.
var errPoisoned = errors.New("the batch holds what the database does not take")

// inBatch runs a transaction about up to so many documents or sightings, and about each half of them if they cannot go
// together, until what is wrong is alone.
func inBatch(most int, run func(most int) (cdr.Tally, error)) (cdr.Tally, error) {
	total, err := run(most)
	if !errors.Is(err, errPoisoned) {
		return total, err
	}
	total = cdr.Tally{}
	for _, half := range []int{most / 2, most - most/2} {
		part, err := inBatch(half, run)
		total.Add(part)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func claimDocuments(ctx context.Context, tx *txn, most int) ([]*entry, error) {
	const query = `
		SELECT id, body, attempts, received_at < now() - make_interval(secs => $2) AS old FROM edgvoip.cdr_documents
		 WHERE state = 'new' AND due_at <= now() ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED`
	var rows []struct {
		ID       int64  `db:"id"`
		Body     []byte `db:"body"`
		Attempts int    `db:"attempts"`
		Old      bool   `db:"old"`
	}
	if err := tx.SelectContext(ctx, &rows, query, most, orphanAge.Seconds()); err != nil {
		return nil, fmt.Errorf("claim documents: %w", err)
	}
	entries := make([]*entry, len(rows))
	for i, r := range rows {
		e := &entry{id: r.ID, attempts: r.Attempts, old: r.Old}
		e.doc, e.failure = cdr.Parse(r.Body)
		e.leg = e.doc.Leg()
		entries[i] = e
	}
	return entries, nil
}

// attempt runs f behind a savepoint. A failure that is not the database's own is returned apart, and what f wrote is
// gone.
func attempt(ctx context.Context, tx *txn, f func() error) (failure, err error) {
	if _, err := tx.Tx.ExecContext(ctx, `SAVEPOINT attempt`); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	failure = f()
	if failure == nil {
		_, err = tx.Tx.ExecContext(ctx, `RELEASE SAVEPOINT attempt`)
		return nil, err
	}
	if pe, ok := errors.AsType[*pq.Error](failure); ok {
		if slices.Contains(passing, string(pe.Code.Class())) {
			return nil, failure
		}
		// The server's own text may repeat what is in the document.
		failure = fmt.Errorf("the database does not take it: SQLSTATE %s", pe.Code)
	} else if !errors.Is(failure, errStored) {
		return nil, failure
	}
	if _, err := tx.Tx.ExecContext(ctx, `ROLLBACK TO SAVEPOINT attempt`); err != nil {
		return nil, fmt.Errorf("rollback to savepoint: %w", err)
	}
	return failure, nil
}

// lockLegs keeps others away from the channels of documents, from those that called them and from those of the other
// call of an attended transfer, until the end of the transaction: whoever comes second sees what the first wrote. The
// order keeps two of us from waiting for each other in most cases; see repeated for the others.
func lockLegs(ctx context.Context, tx *txn, entries []*entry) error {
	var ids []string
	for _, e := range entries {
		if e.failure == nil {
			ids = append(ids, e.leg.ID.String())
			if !e.leg.IsCalling() {
				ids = append(ids, e.leg.Parent.String())
			}
			for _, other := range []uuid.UUID{e.leg.Joined, e.leg.HandedOn, e.leg.Consulted} {
				if other != uuid.Nil {
					ids = append(ids, other.String())
				}
			}
		}
	}
	return lockFamilies(ctx, tx, ids)
}

func lockCalls(ctx context.Context, tx *txn, ids []string) error {
	const query = `
		SELECT pg_advisory_xact_lock(k) FROM (SELECT DISTINCT hashtextextended(id, 5) AS k FROM unnest($1::text[]) AS id ORDER BY k) AS s`
	if _, err := tx.ExecContext(ctx, query, pq.StringArray(ids)); err != nil {
		return fmt.Errorf("lock calls: %w", err)
	}
	return nil
}

// calledNumber returns the number that a carrier asked for, as a number: 0 if it is none.
func calledNumber(l cdr.Leg) int64 {
	if !l.Outside || len(l.Called) > 16 {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(l.Called, "+"), 10, 62)
	if err != nil {
		return 0
	}
	return int64(n)
}

// callOfLeg returns the call that a leg is of, or a call of its own while it has not come.
func callOfLeg(ctx context.Context, tx *txn, tenant, leg uuid.UUID) (uuid.UUID, error) {
	var call uuid.UUID
	err := tx.GetContext(ctx, &call, `SELECT call_id FROM edgvoip.cdr_legs WHERE tenant_id = $1 AND leg_id = $2 LIMIT 1`, tenant, leg)
	if errors.Is(err, sql.ErrNoRows) {
		return leg, nil
	} else if err != nil {
		return call, fmt.Errorf("call of a leg: %w", err)
	}
	return call, nil
}

func updateLeg(ctx context.Context, tx *txn, call callKey, doc cdr.Document, start time.Time) error {
	const query = `
		UPDATE edgvoip.cdr_legs SET start_time = $4, end_time = $5, reconstructed = $6, raw = $7
		 WHERE tenant_id = $1 AND leg_id = $2 AND start_time = $3`
	l := doc.Leg()
	if _, err := tx.ExecContext(ctx, query, call.tenant, l.ID, start, l.Start, nullTime(l.End), l.Reconstructed, string(doc.JSON())); err != nil {
		return fmt.Errorf("update leg: %w", err)
	}
	return nil
}

func nullTime(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }

// settleDocuments writes down what became of documents: those in the ledger are not needed any more.
func settleDocuments(ctx context.Context, tx *txn, entries []*entry, t *cdr.Tally) error {
	var done []int64
	var legs []string
	for _, e := range entries {
		if e.failure == nil {
			done, legs = append(done, e.id), append(legs, e.leg.ID.String())
			t.Recorded++
			continue
		}
		if err := settleFailed(ctx, tx, e, t); err != nil {
			return err
		}
	}
	if len(done) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM edgvoip.cdr_documents WHERE id = ANY ($1)`, pq.Int64Array(done)); err != nil {
		return fmt.Errorf("delete documents: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM edgvoip.cdr_sightings WHERE leg_id = ANY ($1::uuid[])`, pq.StringArray(legs)); err != nil {
		return fmt.Errorf("delete sightings: %w", err)
	}
	return nil
}

func settleFailed(ctx context.Context, tx *txn, e *entry, t *cdr.Tally) error {
	if errors.Is(e.failure, errWaits) {
		t.Postponed++
		return postpone(ctx, tx, e)
	}
	state, wait, awaits := cdr.DocumentUnreadable, time.Duration(0), uuid.Nil
	switch {
	case errors.Is(e.failure, errUnassigned):
		state, awaits = cdr.DocumentUnassigned, e.leg.Parent
		t.Unassigned++
	case e.leg.ID != uuid.Nil && e.attempts+1 < documentAttempts:
		state, wait = cdr.DocumentNew, documentBackoff<<e.attempts
		t.Postponed++
	default:
		t.Unreadable++
	}
	const query = `
		UPDATE edgvoip.cdr_documents SET state = $2, due_at = now() + make_interval(secs => $3), attempts = attempts + 1, error = $4, awaits = $5
		 WHERE id = $1`
	if _, err := tx.ExecContext(ctx, query, e.id, string(state), wait.Seconds(), clipped(e.failure.Error()), nullID(awaits)); err != nil {
		return fmt.Errorf("mark document: %w", err)
	}
	return nil
}

// postpone has a called leg's document wait for who called.
func postpone(ctx context.Context, tx *txn, e *entry) error {
	const query = `
		UPDATE edgvoip.cdr_documents SET awaits = $2, error = $3,
		       due_at = now() + least(greatest(now() - received_at, make_interval(secs => $4)), make_interval(secs => $5))
		 WHERE id = $1`
	if _, err := tx.ExecContext(ctx, query, e.id, e.awaits(), errWaits.Error(), leastPostponement.Seconds(), mostPostponement.Seconds()); err != nil {
		return fmt.Errorf("postpone document: %w", err)
	}
	return nil
}

// releaseDocuments makes documents that wait for legs due before all others, also those that have been put aside as
// nobody's, and returns how many. One that somebody has in hand is let alone: he waits for us, and sees what we wrote.
func releaseDocuments(ctx context.Context, tx *txn, legs []uuid.UUID) (int, error) {
	const query = `
		UPDATE edgvoip.cdr_documents SET state = 'new', due_at = received_at
		 WHERE id IN (SELECT id FROM edgvoip.cdr_documents WHERE awaits = ANY ($1::uuid[]) AND state IN ('new', 'unassigned') FOR UPDATE SKIP LOCKED)`
	if len(legs) == 0 {
		return 0, nil
	}
	res, err := tx.ExecContext(ctx, query, idArray(legs))
	if err != nil {
		return 0, fmt.Errorf("release documents: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("release documents: %w", err)
	}
	return int(n), nil
}

// WaitingDocuments counts what has still to be read, and what waits for an operator.
func (d *DB) WaitingDocuments(ctx context.Context) (cdr.Waiting, error) {
	const query = `
		SELECT (SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'new' AND awaits IS NULL) AS documents,
		       (SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'new' AND awaits IS NOT NULL) AS called,
		       (SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'unreadable') AS unreadable,
		       (SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'unassigned') AS unassigned,
		       (SELECT count(*) FROM edgvoip.cdr_sightings) AS sightings,
		       (SELECT min(received_at) FROM edgvoip.cdr_documents WHERE state = 'new' AND awaits IS NULL) AS oldest`
	row, err := get[struct {
		Documents  int          `db:"documents"`
		Called     int          `db:"called"`
		Unreadable int          `db:"unreadable"`
		Unassigned int          `db:"unassigned"`
		Sightings  int          `db:"sightings"`
		Oldest     sql.NullTime `db:"oldest"`
	}](ctx, d, query)
	if err != nil {
		return cdr.Waiting{}, fmt.Errorf("count documents: %w", err)
	}
	return cdr.Waiting{
		Documents: row.Documents, Called: row.Called, Unreadable: row.Unreadable, Unassigned: row.Unassigned, Sightings: row.Sightings,
		Oldest: row.Oldest.Time,
	}, nil
}
