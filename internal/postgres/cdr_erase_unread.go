package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
)

// eraseUnread takes a person's number out of what is no call record yet: a page of the documents that are the tenant's
// or, as far as can be told, nobody's, and with the first page channels of the tenant that were seen to end. What is
// read of them later is erased, and its call with it. Only documents with the number are locked: until those are read
// or erased, readers go on with the others.
func (d *DB) eraseUnread(ctx context.Context, tenant uuid.UUID, p cdr.Person, finds func(string) bool, from cdr.ErasurePlace) (cdr.ErasurePlace, error) {
	if from.Document == 0 {
		if err := d.repeated(ctx, func(tx *txn) error { return eraseSightings(ctx, tx, tenant, p) }); err != nil {
			return from, err
		}
	}
	type document struct {
		ID   int64  `db:"id"`
		Body []byte `db:"body"`
	}
	page, err := list[document](ctx, d, `SELECT id, body FROM edgvoip.cdr_documents WHERE id > $1 ORDER BY id LIMIT $2`, from.Document, erasureDocuments)
	if err != nil {
		return from, fmt.Errorf("documents: %w", err)
	}
	var hits pq.Int64Array
	for _, r := range page {
		if finds(readable(r.Body)) {
			hits = append(hits, r.ID)
		}
	}
	for batch := range slices.Chunk(hits, erasureBatch) {
		err := d.repeated(ctx, func(tx *txn) error {
			var rows []document
			// Whoever reads one is waited for: what he makes of it is a leg by then.
			const query = `SELECT id, body FROM edgvoip.cdr_documents WHERE id = ANY ($1) ORDER BY id FOR UPDATE`
			if err := tx.SelectContext(ctx, &rows, query, batch); err != nil {
				return fmt.Errorf("documents of a person: %w", err)
			}
			for _, r := range rows {
				if err := eraseDocument(ctx, tx, tenant, r.ID, r.Body, p); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return from, err
		}
	}
	if len(page) < erasureDocuments {
		return cdr.ErasurePlace{Stage: cdr.EraseLegs}, nil
	}
	return cdr.ErasurePlace{Document: page[len(page)-1].ID}, nil
}

// readable is the text of a document, as far as it can be decoded.
func readable(body []byte) string {
	if text, err := cdr.Decode(body); err == nil {
		body = text
	}
	return string(body)
}

// eraseDocument erases a document that the number stands in. It stays known by the digest of what came, so that the
// same does not come again.
func eraseDocument(ctx context.Context, tx *txn, tenant uuid.UUID, id int64, body []byte, p cdr.Person) error {
	erased := []byte(cdr.Erased)
	if doc, err := cdr.Parse(body); err == nil {
		owners, err := tenantsOfLegs(ctx, tx, []cdr.Leg{doc.Leg()})
		if err != nil {
			return err
		}
		owner := owners[0]
		if owner != uuid.Nil && owner != tenant {
			return nil
		}
		if erased, err = erasedFor(doc, owner, p); err != nil {
			return err
		}
	}
	if bytes.Equal(erased, body) {
		return nil
	}
	if _, err := tx.ExecContext(ctx, `UPDATE edgvoip.cdr_documents SET body = $2 WHERE id = $1`, id, erased); err != nil {
		return fmt.Errorf("erase document: %w", err)
	}
	return nil
}

// erasedFor erases a document, which afterwards does not tell any more by its numbers whose it is.
func erasedFor(doc cdr.Document, owner uuid.UUID, p cdr.Person) ([]byte, error) {
	erased, err := doc.Erase(p)
	if err != nil {
		return nil, fmt.Errorf("erase document: %w", err)
	}
	if owner != uuid.Nil {
		if erased, err = erased.Assign(owner); err != nil {
			return nil, fmt.Errorf("erase document: %w", err)
		}
	}
	return erased.JSON(), nil
}

// eraseSightings makes erased documents of channels of a tenant that were seen to end.
func eraseSightings(ctx context.Context, tx *txn, tenant uuid.UUID, p cdr.Person) error {
	query := `
		DELETE FROM edgvoip.cdr_sightings WHERE event ->> 'variable_` + directory.VarTenantID + `' = $1
		   AND ` + closedUp("event::text") + ` ~ $2 RETURNING leg_id, event`
	var rows []struct {
		LegID uuid.UUID `db:"leg_id"`
		Event []byte    `db:"event"`
	}
	if err := tx.SelectContext(ctx, &rows, query, tenant.String(), p.Pattern()); err != nil {
		return fmt.Errorf("sightings of a person: %w", err)
	}
	for _, r := range rows {
		var event map[string]string
		if err := json.Unmarshal(r.Event, &event); err != nil {
			return fmt.Errorf("erase sighting: %w", err)
		}
		doc, err := cdr.Reconstruct(event)
		if err != nil {
			continue // it would make no record, and is gone
		}
		body, err := erasedFor(doc, tenant, p)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(r.Event)
		const keep = `
			INSERT INTO edgvoip.cdr_documents (sha256, leg_id, source, sender, content_type, body)
			VALUES ($1, $2, 'post', 'CHANNEL_HANGUP_COMPLETE', 'application/json', $3) ON CONFLICT (sha256) DO NOTHING`
		if _, err := tx.ExecContext(ctx, keep, sum[:], r.LegID, body); err != nil {
			return fmt.Errorf("keep sighting: %w", err)
		}
	}
	return nil
}

// eraseStrayEvents takes a person's number out of a page of events about calls, of which there may be no record any
// more.
func (d *DB) eraseStrayEvents(ctx context.Context, tenant uuid.UUID, p cdr.Person, from cdr.ErasurePlace) (cdr.ErasurePlace, error) {
	query := `
		SELECT id, kind = 'cdr' AND ` + closedUp("payload") + ` ~ $3 AS hit FROM edgvoip.webhook_events
		 WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $4`
	page, err := list[struct {
		ID  int64 `db:"id"`
		Hit bool  `db:"hit"`
	}](ctx, d, query, tenant, from.Event, p.Pattern(), erasureEvents)
	if err != nil {
		return from, fmt.Errorf("events: %w", err)
	}
	var hits pq.Int64Array
	for _, r := range page {
		if r.Hit {
			hits = append(hits, r.ID)
		}
	}
	for batch := range slices.Chunk(hits, erasureBatch) {
		if err := d.repeated(ctx, func(tx *txn) error { return eraseEventsByID(ctx, tx, tenant, batch, p) }); err != nil {
			return from, err
		}
	}
	if len(page) < erasureEvents {
		return cdr.ErasurePlace{Stage: cdr.EraseDone}, nil
	}
	return cdr.ErasurePlace{Stage: cdr.EraseEvents, Event: page[len(page)-1].ID}, nil
}

func eraseEventsByID(ctx context.Context, tx *txn, tenant uuid.UUID, ids pq.Int64Array, p cdr.Person) error {
	const query = `SELECT id, payload FROM edgvoip.webhook_events WHERE tenant_id = $1 AND id = ANY ($2) ORDER BY id FOR UPDATE`
	var rows []struct {
		ID      int64  `db:"id"`
		Payload string `db:"payload"`
	}
	if err := tx.SelectContext(ctx, &rows, query, tenant, ids); err != nil {
		return fmt.Errorf("events of a person: %w", err)
	}
	for _, r := range rows {
		var e cdr.Event
		if err := json.Unmarshal([]byte(r.Payload), &e); err != nil {
			return fmt.Errorf("erase event %d: %w", r.ID, err)
		}
		payload, err := json.Marshal(e.Erase(p))
		if err != nil {
			return fmt.Errorf("erase event %d: %w", r.ID, err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE edgvoip.webhook_events SET payload = $3 WHERE tenant_id = $1 AND id = $2`, tenant, r.ID, string(payload)); err != nil {
			return fmt.Errorf("erase event %d: %w", r.ID, err)
		}
	}
	return nil
}
