package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/webhook"
)

// enter writes the legs of documents and the calls that they are of. All go together through the same few statements, as one
// costs the server much the same for a hundred legs as for one. An error is of the database and ends the transaction, as does
// errPoisoned; what is wrong with one document is in its entry.
func enter(ctx context.Context, tx *txn, entries []*entry, t *cdr.Tally) error {
	if !slices.ContainsFunc(entries, isOpen) {
		return nil
	}
	if err := lockLegs(ctx, tx, entries); err != nil {
		return err
	}
	var entered cdr.Tally
	failure, err := attempt(ctx, tx, func() (err error) {
		entered, err = enterTogether(ctx, tx, entries)
		return err
	})
	switch {
	case err != nil:
		return err
	case failure != nil && len(entries) > 1:
		return errPoisoned
	case failure != nil:
		entries[0].failure = failure
		return nil
	}
	t.Add(entered)
	return nil
}

func isOpen(e *entry) bool { return e.failure == nil }

// gathering is what is known of channels while their documents are entered together.
type gathering struct {
	entries []*entry
	// stored are legs that are in the database: those of the entries and those that called them.
	stored map[legKey]storedLeg
	// best is the entry to keep of each channel.
	best map[legKey]*entry
	// written are those that were written.
	written map[legKey]*entry
}

// legKey names a leg: a channel, and whose it is.
type legKey struct{ tenant, leg uuid.UUID }

type storedLeg struct {
	TenantID uuid.UUID `db:"tenant_id"`
	LegID    uuid.UUID `db:"leg_id"`
	CallID   uuid.UUID `db:"call_id"`
	Raw      []byte    `db:"raw"` // nil for one that is only of interest as who called
}

// enterTogether returns how many calls changed and how many documents were released.
func enterTogether(ctx context.Context, tx *txn, entries []*entry) (t cdr.Tally, err error) {
	g := &gathering{entries: entries, best: map[legKey]*entry{}, written: map[legKey]*entry{}}
	if g.stored, err = storedLegs(ctx, tx, entries); err != nil {
		return t, err
	}
	if err := g.assign(ctx, tx); err != nil {
		return t, err
	}
	if err := g.putLegs(ctx, tx); err != nil {
		return t, err
	}
	if t.Changed, err = g.putCalls(ctx, tx); err != nil {
		return t, err
	}
	t.Released, err = releaseDocuments(ctx, tx, g.writtenLegs())
	return t, err
}

func (g *gathering) writtenLegs() []uuid.UUID {
	legs := make([]uuid.UUID, 0, len(g.written))
	for key := range g.written {
		legs = append(legs, key.leg)
	}
	return legs
}

// storedLegs reads the legs of entries and those that called them, as far as they are there.
func storedLegs(ctx context.Context, tx *txn, entries []*entry) (map[legKey]storedLeg, error) {
	var own, all pq.StringArray
	for _, e := range entries {
		if isOpen(e) {
			own, all = append(own, e.leg.ID.String()), append(all, e.leg.ID.String())
			if !e.leg.IsCalling() {
				all = append(all, e.leg.Parent.String())
			}
		}
	}
	const query = `
		SELECT tenant_id, leg_id, call_id, CASE WHEN leg_id = ANY ($2::uuid[]) THEN raw END AS raw FROM edgvoip.cdr_legs WHERE leg_id = ANY ($1::uuid[])`
	var rows []storedLeg
	if err := tx.SelectContext(ctx, &rows, query, all, own); err != nil {
		return nil, fmt.Errorf("select legs: %w", err)
	}
	stored := make(map[legKey]storedLeg, len(rows))
	for _, r := range rows {
		stored[legKey{r.TenantID, r.LegID}] = r
	}
	return stored, nil
}

// assign finds whose each leg is, and the entry to keep of each channel.
func (g *gathering) assign(ctx context.Context, tx *txn) error {
	var open []*entry
	var legs []cdr.Leg
	for _, e := range g.entries {
		if isOpen(e) {
			open, legs = append(open, e), append(legs, e.leg)
		}
	}
	owners, err := tenantsOfLegs(ctx, tx, legs)
	if err != nil {
		return err
	}
	for i, e := range open {
		e.call.tenant = owners[i]
	}
	inherit(open)
	for _, e := range open {
		switch {
		case e.call.tenant != uuid.Nil:
			key := legKey{e.call.tenant, e.leg.ID}
			if other, there := g.best[key]; !there || e.leg.Supersedes(other.leg) {
				g.best[key] = e
			}
		case !e.leg.IsCalling() && e.leg.TenantID == uuid.Nil && !e.old:
			e.failure = errWaits // whoever called may tell
		default:
			e.failure = errUnassigned
		}
	}
	return nil
}

// inherit gives legs of which the dialplan did not write down whose they are the tenant of who called, if he is among them: he may have
// it from his own caller, and so on. Channels that say that they called each other end it after as many rounds as there are legs.
func inherit(open []*entry) {
	ownerOf := make(map[uuid.UUID]uuid.UUID, len(open))
	for _, e := range open {
		if e.call.tenant != uuid.Nil {
			ownerOf[e.leg.ID] = e.call.tenant
		}
	}
	for range open {
		changed := false
		for _, e := range open {
			owner := ownerOf[e.leg.Parent]
			if e.leg.TenantID == uuid.Nil && !e.leg.IsCalling() && owner != uuid.Nil && owner != e.call.tenant {
				e.call.tenant, ownerOf[e.leg.ID], changed = owner, owner, true
			}
		}
		if !changed {
			return
		}
	}
}

// tenantsOfLegs returns for each leg the tenant that the dialplan wrote down, if there is one; without it that of the calling leg,
// of the realm, of the trunk, of the number that was called. Zero means nobody's.
func tenantsOfLegs(ctx context.Context, tx *txn, legs []cdr.Leg) ([]uuid.UUID, error) {
	const query = `
		SELECT CASE WHEN o.tenant IS NOT NULL THEN (SELECT id FROM edgvoip.tenants WHERE id = o.tenant) ELSE coalesce(
		         (SELECT tenant_id FROM edgvoip.cdr_legs WHERE leg_id = o.parent LIMIT 1),
		         (SELECT tenant_id FROM edgvoip.sip_domains WHERE realm = o.realm AND status <> 'deleted'),
		         (SELECT tenant_id FROM edgvoip.sip_trunks WHERE id = o.trunk),
		         (SELECT tenant_id FROM edgvoip.sip_trunk_did_ranges WHERE last_number >= o.called AND first_number <= o.called ORDER BY last_number LIMIT 1)) END
		  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::bigint[]) WITH ORDINALITY AS o (tenant, parent, realm, trunk, called, n)
		 ORDER BY o.n`
	n := len(legs)
	tenants, parents, trunks := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
	realms, called := make(pq.StringArray, n), make(pq.Int64Array, n)
	for i, l := range legs {
		tenants[i], parents[i], trunks[i], realms[i], called[i] = l.TenantID, l.Parent, l.TrunkID, l.Realm, calledNumber(l)
	}
	var found []uuid.NullUUID
	if err := tx.SelectContext(ctx, &found, query, idArray(tenants), idArray(parents), realms, idArray(trunks), called); err != nil {
		return nil, fmt.Errorf("tenants of legs: %w", err)
	}
	owners := make([]uuid.UUID, n)
	for i, f := range found {
		owners[i] = f.UUID
	}
	return owners, nil
}

// idArray writes a uuid[]; zero is NULL.
func idArray(list []uuid.UUID) string {
	texts := make([]string, len(list))
	for i, id := range list {
		if texts[i] = id.String(); id == uuid.Nil {
			texts[i] = "NULL"
		}
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// callOf returns the call that a channel is of: that of the one that called it, and so on, as far as they are known.
func (g *gathering) callOf(key legKey) uuid.UUID {
	at := key
	for range len(g.entries) + 2 { // channels that say that they called each other are of any of their calls
		stored, there := g.stored[at]
		e, entered := g.best[at]
		switch {
		case there && stored.CallID != at.leg:
			at.leg = stored.CallID
		case !there && entered && !e.leg.IsCalling():
			at.leg = e.leg.Parent
		default:
			return at.leg
		}
	}
	return key.leg
}

// putLegs writes legs of which no better record is there, and says of each entry of which call it is.
func (g *gathering) putLegs(ctx context.Context, tx *txn) error {
	var added []*entry
	for _, e := range g.entries {
		key := legKey{e.call.tenant, e.leg.ID}
		if !isOpen(e) {
			continue
		}
		e.call.call = g.callOf(key)
		if g.best[key] != e {
			continue
		}
		stored, there := g.stored[key]
		if !there {
			added = append(added, e)
			g.written[key] = e
			continue
		}
		kept, err := cdr.Parse(stored.Raw)
		if err != nil {
			return errStored
		}
		if e.leg.Supersedes(kept.Leg()) {
			if err := updateLeg(ctx, tx, e.call, e.doc, kept.Leg().Start); err != nil {
				return err
			}
			g.written[key] = e
		}
	}
	if err := insertLegs(ctx, tx, added); err != nil {
		return err
	}
	return adoptLegs(ctx, tx, added)
}

func insertLegs(ctx context.Context, tx *txn, entries []*entry) error {
	const query = `
		INSERT INTO edgvoip.cdr_legs (tenant_id, leg_id, call_id, start_time, end_time, reconstructed, raw)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[], $5::timestamptz[], $6::boolean[], $7::jsonb[])`
	n := len(entries)
	if n == 0 {
		return nil
	}
	tenants, legs, calls := make([]uuid.UUID, n), make([]uuid.UUID, n), make([]uuid.UUID, n)
	starts, ends, raws, reconstructed := make([]time.Time, n), make([]time.Time, n), make([][]byte, n), make(pq.BoolArray, n)
	for i, e := range entries {
		tenants[i], legs[i], calls[i], starts[i], ends[i] = e.call.tenant, e.leg.ID, e.call.call, e.leg.Start, e.leg.End
		raws[i], reconstructed[i] = e.doc.JSON(), e.leg.Reconstructed
	}
	if _, err := tx.ExecContext(ctx, query, idArray(tenants), idArray(legs), idArray(calls), timeArray(starts), timeArray(ends), reconstructed,
		quotedArray(raws)); err != nil {
		return fmt.Errorf("insert legs: %w", err)
	}
	return nil
}

// timeArray writes a timestamptz[]; zero is NULL.
func timeArray(list []time.Time) string {
	texts := make([]string, len(list))
	for i, t := range list {
		if texts[i] = "NULL"; !t.IsZero() {
			texts[i] = `"` + t.UTC().Format("2006-01-02 15:04:05.999999") + `+00"`
		}
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// quotedArray writes an array of any texts, such as documents, in one pass.
func quotedArray(list [][]byte) string {
	size := 2
	for _, text := range list {
		size += len(text) + len(text)/8 + 3
	}
	out := append(make([]byte, 0, size), '{')
	for i, text := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		for _, c := range text {
			if c == '"' || c == '\\' {
				out = append(out, '\\')
			}
			out = append(out, c)
		}
		out = append(out, '"')
	}
	return string(append(out, '}'))
}

// adoptLegs takes legs that new ones called, and that have come before them, into their call.
func adoptLegs(ctx context.Context, tx *txn, entries []*entry) error {
	const query = `
		UPDATE edgvoip.cdr_legs l SET call_id = a.call FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS a (tenant, leg, call)
		 WHERE l.tenant_id = a.tenant AND l.call_id = a.leg AND a.call <> a.leg`
	var tenants, legs, calls []uuid.UUID
	for _, e := range entries {
		if !e.leg.IsCalling() {
			tenants, legs, calls = append(tenants, e.call.tenant), append(legs, e.leg.ID), append(calls, e.call.call)
		}
	}
	if len(legs) == 0 {
		return nil
	}
	if _, err := tx.ExecContext(ctx, query, idArray(tenants), idArray(legs), idArray(calls)); err != nil {
		return fmt.Errorf("adopt legs: %w", err)
	}
	return nil
}

// putCalls makes the records of the calls of entries anew of the legs that are there, and tells W3 of those which that changes.
// A call without its calling leg waits, unless it is to wait no longer.
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

// makeCalls makes the records of calls. It writes those that were there before and are others now, and returns how many these are and
// those that are new. Entries of calls that wait are marked.
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

// insertCalls writes records of which none is there yet. Their documents are copied from their legs: the server has them, read
// and compressed.
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
