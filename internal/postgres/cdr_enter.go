package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
)

// enter writes the legs of documents and the calls that they are of. All go together through the same few statements,
// as one costs the server much the same for a hundred legs as for one. An error is of the database and ends the
// transaction, as does errPoisoned; what is wrong with one document is in its entry.
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

// inherit gives legs of which the dialplan did not write down whose they are the tenant of who called, if he is among
// them: he may have it from his own caller, and so on. Channels that say that they called each other end it after as
// many rounds as there are legs.
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

// tenantsOfLegs returns for each leg the tenant that the dialplan wrote down, if there is one; without it that of the
// calling leg, of the realm, of the trunk, of the number that was called. Zero means nobody's.
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
