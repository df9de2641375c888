package postgres

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
)

// AddSightings writes down channels that a switch was seen to end, but for those that are recorded already.
func (d *DB) AddSightings(ctx context.Context, list []cdr.Sighting) error {
	const query = `
		INSERT INTO edgvoip.cdr_sightings (leg_id, node_id, event)
		SELECT s.leg, (SELECT id FROM edgvoip.switch_nodes WHERE id = s.node), s.event::jsonb
		  FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS s (leg, node, event)
		 WHERE NOT EXISTS (SELECT FROM edgvoip.cdr_legs WHERE leg_id = s.leg)
		ON CONFLICT DO NOTHING`
	legs, nodes, events := make([]string, len(list)), make([]string, len(list)), make([]string, len(list))
	for i, s := range list {
		event, err := json.Marshal(s.Event)
		if err != nil {
			return fmt.Errorf("add sightings: %w", err)
		}
		legs[i], nodes[i], events[i] = s.LegID.String(), s.NodeID.String(), string(event)
	}
	_, err := bounded(ctx, func() (sql.Result, error) {
		return d.db.ExecContext(ctx, query, pq.StringArray(legs), pq.StringArray(nodes), pq.StringArray(events))
	})
	if err != nil {
		return fmt.Errorf("add sightings: %w", err)
	}
	return nil
}

// sightingRow is a channel that was seen to end.
type sightingRow struct {
	LegID uuid.UUID `db:"leg_id"`
	Event []byte    `db:"event"`
	// Recorded tells that its document has come: it was read when the channel was seen to end.
	Recorded bool `db:"recorded"`
}

// entry makes a document of a sighting.
func (r sightingRow) entry() *entry {
	e := &entry{}
	var event map[string]string
	if e.failure = json.Unmarshal(r.Event, &event); e.failure == nil {
		e.doc, e.failure = cdr.Reconstruct(event)
		e.leg = e.doc.Leg()
	}
	return e
}

// Reconstruct makes records of channels that were seen to end so long ago, up to so many, and of which no document
// came. It waits while documents wait to be read, as theirs may be among them.
func (d *DB) Reconstruct(ctx context.Context, after time.Duration, most int) (cdr.Tally, error) {
	const query = `
		SELECT leg_id, event, EXISTS (SELECT FROM edgvoip.cdr_legs l WHERE l.leg_id = s.leg_id) AS recorded FROM edgvoip.cdr_sightings s
		 WHERE seen_at < now() - make_interval(secs => $1)
		   AND NOT EXISTS (SELECT FROM edgvoip.cdr_documents WHERE state = 'new' AND due_at < now() - interval '5 s')
		 ORDER BY seen_at LIMIT $2 FOR UPDATE SKIP LOCKED`
	return inBatch(most, func(most int) (t cdr.Tally, err error) {
		err = d.repeated(ctx, func(tx *txn) error {
			t = cdr.Tally{}
			var rows []sightingRow
			if err := tx.SelectContext(ctx, &rows, query, after.Seconds(), most); err != nil {
				return fmt.Errorf("select sightings: %w", err)
			}
			t.Taken = len(rows)
			return enterSightings(ctx, tx, rows, &t)
		})
		return t, err
	})
}

func enterSightings(ctx context.Context, tx *txn, rows []sightingRow, t *cdr.Tally) error {
	var entries []*entry
	var seen []sightingRow
	for _, r := range rows {
		if !r.Recorded {
			entries, seen = append(entries, r.entry()), append(seen, r)
		} else if err := endSighting(ctx, tx, r.LegID); err != nil {
			return err
		}
	}
	if err := enter(ctx, tx, entries, t); err != nil {
		return err
	}
	for i, r := range seen {
		if err := settleSighting(ctx, tx, r, entries[i], t); err != nil {
			return err
		}
	}
	return nil
}

func endSighting(ctx context.Context, tx *txn, leg uuid.UUID) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM edgvoip.cdr_sightings WHERE leg_id = $1`, leg); err != nil {
		return fmt.Errorf("delete sighting: %w", err)
	}
	return nil
}

// settleSighting ends a sighting. That of a called leg goes on as a document that waits for the caller; one that makes
// no record is kept as a document that cannot be read.
func settleSighting(ctx context.Context, tx *txn, r sightingRow, e *entry, t *cdr.Tally) error {
	if err := endSighting(ctx, tx, r.LegID); err != nil {
		return err
	}
	state, body, awaits := cdr.DocumentUnreadable, r.Event, uuid.Nil
	switch {
	case e.failure == nil:
		t.Recorded++
		return nil
	case errors.Is(e.failure, errWaits):
		state, body, awaits = cdr.DocumentNew, e.doc.JSON(), e.awaits()
		t.Postponed++
	default:
		t.Unreadable++
	}
	const query = `
		INSERT INTO edgvoip.cdr_documents (sha256, leg_id, source, sender, content_type, body, state, error, awaits, due_at)
		VALUES ($1, $2, 'post', 'CHANNEL_HANGUP_COMPLETE', 'application/json', $3, $4, $5, $6, now() + make_interval(secs => $7))
		    ON CONFLICT (sha256) DO NOTHING`
	sum := sha256.Sum256(r.Event)
	if _, err := tx.ExecContext(ctx, query, sum[:], r.LegID, body, string(state), clipped(e.failure.Error()), nullID(awaits),
		leastPostponement.Seconds()); err != nil {
		return fmt.Errorf("keep sighting: %w", err)
	}
	return nil
}
