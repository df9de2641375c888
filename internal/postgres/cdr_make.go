package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/webhook"
)

// putCalls makes the records of the calls of entries anew of the legs that are there, and tells W3 of those which that
// changes. A call without its calling leg waits, unless it is to wait no longer.
func (g *gathering) putCalls(ctx context.Context, tx *txn) (changed int, err error) {
	members := g.members()
	if len(members) == 0 {
		return 0, nil
	}
	keys := sortedKeys(members)
	docs, err := legsOfCalls(ctx, tx, keys, g.written)
	if err != nil {
		return 0, err
	}
	kept, err := callsByID(ctx, tx, keys)
	if err != nil {
		return 0, err
	}
	made, changed, err := makeCalls(ctx, tx, members, docs, kept)
	if err != nil {
		return 0, err
	}
	if err := insertCalls(ctx, tx, made); err != nil {
		return 0, err
	}
	if err := tellAll(ctx, tx, made); err != nil {
		return 0, err
	}
	for _, key := range keys {
		if err := mend(ctx, tx, key, docs[key]); err != nil {
			return 0, err
		}
	}
	return changed + len(made), nil
}

// members are the entries of each call.
func (g *gathering) members() map[callKey][]*entry {
	members := map[callKey][]*entry{}
	for _, e := range g.entries {
		if isOpen(e) {
			members[e.call] = append(members[e.call], e)
		}
	}
	return members
}

// makeCalls makes the records of calls. It writes those that were there before and are others now, and returns how many
// these are and those that are new. Entries of calls that wait are marked.
func makeCalls(ctx context.Context, tx *txn, members map[callKey][]*entry, docs map[callKey][]cdr.Document, kept map[callKey]*cdr.Record,
) (made []madeCall, changed int, err error) {
	trunks := trunksRead{}
	for _, key := range sortedKeys(members) {
		orphan := slices.ContainsFunc(members[key], func(e *entry) bool { return e.old })
		m, err := makeCall(ctx, tx, key, docs[key], kept[key], orphan, trunks)
		switch {
		case err != nil:
			return nil, 0, err
		case m.waits:
			for _, e := range members[key] {
				e.failure = errWaits
			}
		case m.record == nil:
		case kept[key] == nil:
			made = append(made, m)
		default:
			changed++
			if err := changeCall(ctx, tx, *m.record, kept[key].Start, m.raw); err != nil {
				return nil, 0, err
			}
		}
	}
	return made, changed, nil
}

func sortedKeys(m map[callKey][]*entry) []callKey {
	keys := make([]callKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b callKey) int { return strings.Compare(a.call.String(), b.call.String()) })
	return keys
}

// columnsOfKeys are the tenants and the calls of keys, as arrays.
func columnsOfKeys(keys []callKey) (tenants, calls string) {
	t, c := make([]uuid.UUID, len(keys)), make([]uuid.UUID, len(keys))
	for i, k := range keys {
		t[i], c[i] = k.tenant, k.call
	}
	return idArray(t), idArray(c)
}

// legsOfCalls returns the legs of calls in order of start. Those that were written just now are not read again.
func legsOfCalls(ctx context.Context, tx *txn, keys []callKey, written map[legKey]*entry) (map[callKey][]cdr.Document, error) {
	// OFFSET 0: one look into the index a call, whatever the planner takes the arrays for.
	const query = `
		SELECT l.tenant_id, l.leg_id, l.call_id, l.raw FROM unnest($1::uuid[], $2::uuid[]) AS k (tenant, call) CROSS JOIN LATERAL (
		       SELECT tenant_id, leg_id, call_id, start_time, CASE WHEN (tenant_id, leg_id) IN (SELECT * FROM unnest($3::uuid[], $4::uuid[])) THEN NULL ELSE raw END AS raw
		         FROM edgvoip.cdr_legs WHERE tenant_id = k.tenant AND call_id = k.call OFFSET 0) AS l
		 ORDER BY l.start_time, l.leg_id`
	var writtenTenants, writtenLegs []uuid.UUID
	for leg := range written {
		writtenTenants, writtenLegs = append(writtenTenants, leg.tenant), append(writtenLegs, leg.leg)
	}
	tenants, calls := columnsOfKeys(keys)
	var rows []storedLeg
	if err := tx.SelectContext(ctx, &rows, query, tenants, calls, idArray(writtenTenants), idArray(writtenLegs)); err != nil {
		return nil, fmt.Errorf("select legs of calls: %w", err)
	}
	docs := make(map[callKey][]cdr.Document, len(keys))
	for _, r := range rows {
		var doc cdr.Document
		if e := written[legKey{r.TenantID, r.LegID}]; e != nil {
			doc = e.doc
		} else {
			var err error
			if doc, err = cdr.Parse(r.Raw); err != nil {
				return nil, errStored
			}
		}
		key := callKey{r.TenantID, r.CallID}
		docs[key] = append(docs[key], doc)
	}
	return docs, nil
}

// callsByID returns the records of calls, locked, as far as they are there.
func callsByID(ctx context.Context, tx *txn, keys []callKey) (map[callKey]*cdr.Record, error) {
	const query = `
		SELECT c.* FROM unnest($1::uuid[], $2::uuid[]) AS k (tenant, call) CROSS JOIN LATERAL (
		       SELECT` + callColumns + ` FROM edgvoip.cdr c WHERE c.tenant_id = k.tenant AND c.call_id = k.call OFFSET 0 FOR UPDATE) AS c`
	tenants, calls := columnsOfKeys(keys)
	var rows []callRow
	if err := tx.SelectContext(ctx, &rows, query, tenants, calls); err != nil {
		return nil, fmt.Errorf("select calls: %w", err)
	}
	found := make(map[callKey]*cdr.Record, len(rows))
	for _, row := range rows {
		r := row.record()
		found[callKey{r.TenantID, r.ID}] = &r
	}
	return found, nil
}

// madeCall is what became of a call.
type madeCall struct {
	record *cdr.Record  // nil if it is as it was
	raw    cdr.Document // whose document the record carries
	waits  bool         // for its calling leg
}

// makeCall makes the record of a call of its legs.
func makeCall(ctx context.Context, tx *txn, key callKey, docs []cdr.Document, kept *cdr.Record, orphan bool, trunks trunksRead) (m madeCall, err error) {
	if len(docs) == 0 {
		return m, nil // they are of another call by now
	}
	calling := slices.IndexFunc(docs, func(d cdr.Document) bool { return d.Leg().ID == key.call })
	if calling < 0 && kept == nil && !orphan {
		return madeCall{waits: true}, nil
	}
	if kept != nil && kept.Erased || slices.ContainsFunc(docs, func(d cdr.Document) bool { return d.Leg().Erased }) {
		// Whoever asked for it is still meant, and his number is not known any more.
		if err := eraseLegs(ctx, tx, key, docs, cdr.Person{}); err != nil {
			return m, err
		}
		if kept != nil && !kept.Erased {
			if err := eraseRecording(ctx, tx, key, kept); err != nil {
				return m, err
			}
		}
	}
	r, err := joinLegs(ctx, tx, key, docs, kept, trunks)
	if err != nil || kept != nil && r == *kept {
		return m, err
	}
	return madeCall{record: &r, raw: docs[max(calling, 0)]}, nil
}

// insertCalls writes records of which none is there yet. Their documents are copied from their legs: the server has
// them, read and compressed.
func insertCalls(ctx context.Context, tx *txn, made []madeCall) error {
	const query = `
		INSERT INTO edgvoip.cdr (` + callColumns + `, raw)
		SELECT` + callColumns + `, (SELECT l.raw FROM edgvoip.cdr_legs l WHERE l.tenant_id = c.tenant_id AND l.start_time = d.start AND l.leg_id = d.leg)
		  FROM json_populate_recordset(NULL::edgvoip.cdr, $1) WITH ORDINALITY AS c
		  JOIN unnest($2::uuid[], $3::timestamptz[]) WITH ORDINALITY AS d (leg, start, ordinality) USING (ordinality)`
	n := len(made)
	if n == 0 {
		return nil
	}
	rows, legs, starts := make([]callRow, n), make([]uuid.UUID, n), make([]time.Time, n)
	for i, m := range made {
		rows[i], legs[i], starts[i] = rowOf(*m.record), m.raw.Leg().ID, m.raw.Leg().Start
	}
	text, err := json.Marshal(rows)
	if err != nil {
		return fmt.Errorf("insert calls: %w", err)
	}
	if _, err := tx.ExecContext(ctx, query, string(text), idArray(legs), timeArray(starts)); err != nil {
		return fmt.Errorf("insert calls: %w", err)
	}
	return nil
}

// tellAll writes the events of records that are new.
func tellAll(ctx context.Context, tx *txn, made []madeCall) error {
	events := make([]webhook.Event, len(made))
	for i, m := range made {
		var err error
		if events[i], err = eventOf(*m.record, eventDelay); err != nil {
			return err
		}
	}
	return addEvents(ctx, tx, events)
}
