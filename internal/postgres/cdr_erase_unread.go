package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
)

// eraseUnread takes a person's number out of what is no call record yet: documents that are the tenant's or, as far as can be
// told, nobody's, and channels of the tenant that were seen to end. What is read of them later is erased, and its call with it.
func eraseUnread(ctx context.Context, tx *txn, tenant uuid.UUID, p cdr.Person) error {
	if err := eraseSightings(ctx, tx, tenant, p); err != nil {
		return err
	}
	var after int64
	for {
		const query = `SELECT id, body FROM edgvoip.cdr_documents WHERE id > $1 ORDER BY id LIMIT 100 FOR UPDATE`
		var rows []struct {
			ID   int64  `db:"id"`
			Body []byte `db:"body"`
		}
		if err := tx.SelectContext(ctx, &rows, query, after); err != nil {
			return fmt.Errorf("documents of a person: %w", err)
		}
		for _, r := range rows {
			if err := eraseDocument(ctx, tx, tenant, r.ID, r.Body, p); err != nil {
				return err
			}
			after = r.ID
		}
		if len(rows) == 0 {
			return nil
		}
	}
}

// eraseDocument erases a document that the number stands in. It stays known by the digest of what came, so that the same does
// not come again.
func eraseDocument(ctx context.Context, tx *txn, tenant uuid.UUID, id int64, body []byte, p cdr.Person) error {
	text, err := cdr.Decode(body)
	if err != nil {
		text = body
	}
	if !p.In(string(text)) {
		return nil
	}
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

// eraseStrayEvents takes a person's number out of events about calls of which there is no record any more.
func eraseStrayEvents(ctx context.Context, tx *txn, tenant uuid.UUID, p cdr.Person) error {
	query := `
		SELECT id, payload FROM edgvoip.webhook_events WHERE tenant_id = $1 AND kind = 'cdr' AND ` + closedUp("payload") + ` ~ $2
		 ORDER BY id FOR UPDATE`
	var rows []struct {
		ID      int64  `db:"id"`
		Payload string `db:"payload"`
	}
	if err := tx.SelectContext(ctx, &rows, query, tenant, p.Pattern()); err != nil {
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
