package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/node"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/trunk"
	"github.com/edgvoip/edgvoip/webhook"
)

var _ trunk.Registry = (*DB)(nil)

// trunkRecords selects what a trunkRecordRow is read from; a condition on tables k and t comes behind it.
const trunkRecords = `
	SELECT` + trunkColumns + `, k.store_id, k.provider, k.description, k.status, k.created_at, k.updated_at,
	       ARRAY(SELECT r.first_number FROM edgvoip.sip_trunk_did_ranges r
	              WHERE r.tenant_id = k.tenant_id AND r.trunk_id = k.id ORDER BY r.first_number) AS first_numbers,
	       ARRAY(SELECT r.last_number FROM edgvoip.sip_trunk_did_ranges r
	              WHERE r.tenant_id = k.tenant_id AND r.trunk_id = k.id ORDER BY r.first_number) AS last_numbers
	  FROM edgvoip.sip_trunks k
	  JOIN edgvoip.tenants t ON t.id = k.tenant_id AND t.status <> 'deleted'
	 WHERE `

type trunkRecordRow struct {
	trunkRow
	StoreID     uuid.NullUUID `db:"store_id"`
	Provider    string        `db:"provider"`
	Description string        `db:"description"`
	Status      string        `db:"status"`
	CreatedAt   time.Time     `db:"created_at"`
	UpdatedAt   time.Time     `db:"updated_at"`
	First       pq.Int64Array `db:"first_numbers"`
	Last        pq.Int64Array `db:"last_numbers"`
}

func (r trunkRecordRow) record() (trunk.Record, error) {
	t, err := r.trunk()
	if err != nil {
		return trunk.Record{}, err
	}
	rec := trunk.Record{
		Trunk: t, StoreID: r.StoreID.UUID, Status: trunk.Status(r.Status), Timezone: r.Timezone, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	var errs [4]error
	rec.Provider, errs[0] = trunk.ParseProvider(r.Provider)
	rec.Description, errs[1] = trunk.ParseDescription(r.Description)
	rec.AITimePolicy, errs[2] = trunk.ParseAITimePolicy([]byte(r.AITimePolicy.String))
	rec.Ranges, errs[3] = didRanges(r.First, r.Last)
	if err := errors.Join(errs[:]...); err != nil {
		return trunk.Record{}, fmt.Errorf("trunk %s: %w", r.TrunkID, err)
	}
	return rec, nil
}

// didRanges puts ranges together that were read as two lists; nil if there are none.
func didRanges(first, last []int64) (ranges []trunk.Range, err error) {
	for i := range min(len(first), len(last)) {
		from, err1 := fstext.NewE164(fmt.Sprintf("+%d", first[i]))
		to, err2 := fstext.NewE164(fmt.Sprintf("+%d", last[i]))
		if err1 != nil || err2 != nil {
			return nil, errors.New("a did range is not of public numbers")
		}
		ranges = append(ranges, trunk.Range{First: from, Last: to})
	}
	return ranges, nil
}

// trunkBy reads one trunk.
func trunkBy(ctx context.Context, q sqlx.QueryerContext, tenant, id uuid.UUID) (trunk.Record, error) {
	var row trunkRecordRow
	const one = trunkRecords + `k.tenant_id = $1 AND k.id = $2`
	if err := sqlx.GetContext(ctx, q, &row, one, tenant, id); errors.Is(err, sql.ErrNoRows) {
		return trunk.Record{}, trunk.ErrUnknownTrunk
	} else if err != nil {
		return trunk.Record{}, fmt.Errorf("select trunk: %w", err)
	}
	return row.record()
}

// TrunkByID implements trunk.Registry.
func (d *DB) TrunkByID(ctx context.Context, tenant, id uuid.UUID) (trunk.Record, error) {
	return trunkBy(ctx, d.db, tenant, id)
}

// ListTrunks implements trunk.Registry.
func (d *DB) ListTrunks(ctx context.Context, tenant uuid.UUID, f trunk.Filter) ([]trunk.Record, error) {
	const query = trunkRecords + `k.tenant_id = $1 AND k.id > $2
		AND CASE $3 WHEN '' THEN k.status <> 'deleted' ELSE k.status = $3 END
		ORDER BY k.id LIMIT $4`
	rows, err := list[trunkRecordRow](ctx, d, query, tenant, f.After, string(f.Status), f.Limit)
	if err != nil {
		return nil, fmt.Errorf("select trunks of tenant: %w", err)
	}
	records := make([]trunk.Record, len(rows))
	for i, r := range rows {
		// A row that does not fit is an error here: left out, it would end the list before its end.
		if records[i], err = r.record(); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// WriteTrunk implements trunk.Registry.
func (d *DB) WriteTrunk(ctx context.Context, tenant, id uuid.UUID, edit trunk.Edit, actor string) (trunk.Record, trunk.Effect, error) {
	r, effect, err := d.writeTrunk(ctx, tenant, id, edit, actor)
	if isConstraint(err, "sip_trunks_pkey") || isConstraint(err, "sip_trunks_id_key") {
		// Somebody else added it between our look and our insert: now there is one to lock, if it is the tenant's.
		r, effect, err = d.writeTrunk(ctx, tenant, id, edit, actor)
	}
	switch {
	case isConstraint(err, "sip_trunk_did_ranges_no_overlap"), isConstraint(err, "sip_trunk_did_ranges_last_idx"):
		return r, "", trunk.ErrDIDTaken
	case isConstraint(err, "sip_trunks_pkey"), isConstraint(err, "sip_trunks_id_key"):
		return r, "", trunk.ErrIDTaken
	}
	return r, effect, err
}

func (d *DB) writeTrunk(ctx context.Context, tenant, id uuid.UUID, edit trunk.Edit, actor string) (r trunk.Record, effect trunk.Effect, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		home, err := tenantHome(ctx, tx, tenant)
		if err != nil {
			return err
		}
		stored, err := lockTrunk(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		if r, err = edit(home, stored); err != nil {
			return err
		}
		if stored != nil && stored.Equal(r) {
			effect = trunk.EffectUnchanged
			return nil
		}
		if err := saveTrunk(ctx, tx, stored, r); err != nil {
			return err
		}
		// What the database counts and stamps is known only now.
		if r, err = trunkBy(ctx, tx, tenant, id); err != nil {
			return err
		}
		effect, err = tellOfTrunk(ctx, tx, stored, r, actor)
		return err
	})
	return r, effect, err
}

// tenantHome returns where a tenant is, which stays so until the end of the transaction. Error: trunk.ErrUnknownTenant.
func tenantHome(ctx context.Context, tx *txn, tenant uuid.UUID) (trunk.Home, error) {
	var row struct {
		Country  string `db:"country"`
		Timezone string `db:"timezone"`
	}
	err := tx.GetContext(ctx, &row, `SELECT country, timezone FROM edgvoip.tenants WHERE id = $1 AND status <> 'deleted' FOR KEY SHARE`, tenant)
	if errors.Is(err, sql.ErrNoRows) {
		return trunk.Home{}, trunk.ErrUnknownTenant
	} else if err != nil {
		return trunk.Home{}, fmt.Errorf("select home of tenant: %w", err)
	}
	country, err := numbering.NewCountry(row.Country)
	rings := func(number fstext.Extension) (bool, error) { return extensionRings(ctx, tx, tenant, number) }
	return trunk.Home{Country: country, Timezone: row.Timezone, Rings: rings}, err
}

// extensionRings tells whether the extension that TenantExtension finds by a number is active.
func extensionRings(ctx context.Context, tx *txn, tenant uuid.UUID, number fstext.Extension) (bool, error) {
	var row domainExtensionRow
	err := tx.GetContext(ctx, &row, tenantExtensionQuery, tenant, uuid.Nil, number.Username().Fold().String())
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("select extension that rings: %w", err)
	}
	return row.ExtensionActive.Bool, nil
}

// lockTrunk returns a trunk, locked, or nil.
func lockTrunk(ctx context.Context, tx *txn, tenant, id uuid.UUID) (*trunk.Record, error) {
	// The lock comes first: one statement that locks and reads would take the ranges as they were before it waited. It
	// lets those pass who write meanwhile what switches have made of the trunk.
	if _, err := tx.ExecContext(ctx, `SELECT FROM edgvoip.sip_trunks WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE`, tenant, id); err != nil {
		return nil, fmt.Errorf("lock trunk: %w", err)
	}
	r, err := trunkBy(ctx, tx, tenant, id)
	if errors.Is(err, trunk.ErrUnknownTrunk) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	return &r, err
}

// saveTrunk writes a trunk and its DID ranges over what is stored of it.
func saveTrunk(ctx context.Context, tx *txn, stored *trunk.Record, r trunk.Record) error {
	const insert = `
		INSERT INTO edgvoip.sip_trunks (tenant_id, id, store_id, name, provider, description, host, port, protocol, proxy, max_channels,
			priority, status, source_addresses, register, username, password_sealed, password_key_id, caller_id_policy, caller_id_number,
			number_format, tech_prefix, prefixes, codecs, ping_seconds, ai_agent_ref, ai_time_policy, ai_failover_extension)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::text[]::cidr[], $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
			$25, $26, $27, $28)`
	// Clocks are set back now and then, updated_at is not: W3 tells by it what is out of date.
	const update = `
		UPDATE edgvoip.sip_trunks
		   SET store_id = $3, name = $4, provider = $5, description = $6, host = $7, port = $8, protocol = $9, proxy = $10, max_channels = $11,
		       priority = $12, status = $13, source_addresses = $14::text[]::cidr[], register = $15, username = $16, password_sealed = $17,
		       password_key_id = $18, caller_id_policy = $19, caller_id_number = $20, number_format = $21, tech_prefix = $22, prefixes = $23,
		       codecs = $24, ping_seconds = $25, ai_agent_ref = $26, ai_time_policy = $27, ai_failover_extension = $28,
		       updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
		 WHERE tenant_id = $1 AND id = $2`
	query := insert
	if stored != nil {
		query = update
	}
	if _, err := tx.ExecContext(ctx, query, r.TenantID, r.ID, nullID(r.StoreID), r.Name.String(), r.Provider.String(), r.Description.String(),
		r.Host.String(), r.Port, string(r.Protocol), r.Proxy.String(), r.MaxChannels, r.Priority, string(r.Status),
		pq.StringArray(blocks(r.Sources)), r.Register, nullable(r.PasswordSet(), r.Username.Reveal().String()), r.Password.Data,
		nullable(r.PasswordSet(), r.Password.KeyID), string(r.CallerID), nullable(r.CallerIDNumber != (fstext.E164{}), r.CallerIDNumber.String()),
		string(r.NumberFormat), r.TechPrefix.String(), textArray(r.Prefixes), textArray(r.Codecs.Names()), r.PingSeconds,
		nullable(r.AIAgentRef != "", r.AIAgentRef), nullable(r.AITimePolicy != nil, string(r.AITimePolicy)),
		nullable(r.Failover != (fstext.Extension{}), r.Failover.String())); err != nil {
		return fmt.Errorf("save trunk: %w", err)
	}
	if stored != nil && rangesText(stored.Ranges) == rangesText(r.Ranges) {
		return nil
	}
	return saveRanges(ctx, tx, r)
}

// saveRanges gives a trunk its DID ranges and no others.
func saveRanges(ctx context.Context, tx *txn, r trunk.Record) error {
	// One at a time: two who put ranges that overlap beside each other would each wait for the other.
	const turn = `SELECT pg_advisory_xact_lock(hashtextextended('edgvoip.sip_trunk_did_ranges', 0))`
	if _, err := tx.ExecContext(ctx, turn); err != nil {
		return fmt.Errorf("lock did ranges: %w", err)
	}
	const remove = `DELETE FROM edgvoip.sip_trunk_did_ranges WHERE tenant_id = $1 AND trunk_id = $2`
	if _, err := tx.ExecContext(ctx, remove, r.TenantID, r.ID); err != nil {
		return fmt.Errorf("remove did ranges: %w", err)
	}
	first, last := make(pq.Int64Array, len(r.Ranges)), make(pq.Int64Array, len(r.Ranges))
	for i, d := range r.Ranges {
		first[i], last[i] = d.First.Int(), d.Last.Int()
	}
	const insert = `
		INSERT INTO edgvoip.sip_trunk_did_ranges (tenant_id, trunk_id, first_number, last_number)
		SELECT $1, $2, d.first, d.last FROM unnest($3::bigint[], $4::bigint[]) AS d (first, last)`
	if _, err := tx.ExecContext(ctx, insert, r.TenantID, r.ID, first, last); err != nil {
		return fmt.Errorf("insert did ranges: %w", err)
	}
	return nil
}

// tellOfTrunk writes the audit row and the event of a change.
func tellOfTrunk(ctx context.Context, tx *txn, stored *trunk.Record, r trunk.Record, actor string) (trunk.Effect, error) {
	effect, kind := trunk.EffectUpdated, webhook.TrunkUpdated
	after := trunkForAudit(r)
	var before map[string]any
	switch {
	case stored == nil:
		effect, kind = trunk.EffectCreated, webhook.TrunkCreated
	case r.Status == trunk.StatusDeleted:
		effect, kind = trunk.EffectDeleted, webhook.TrunkDeleted
	default:
		after["usernameChanged"] = stored.Username != r.Username
		after["passwordChanged"] = !bytes.Equal(stored.Password.Data, r.Password.Data)
	}
	if stored != nil {
		before = trunkForAudit(*stored)
	}
	if err := audit(ctx, tx, r.TenantID, actor, string(kind), r.ID, before, after); err != nil {
		return "", err
	}
	event, err := webhook.NewTrunkEvent(kind, r)
	if err != nil {
		return "", err
	}
	return effect, addEvents(ctx, tx, []webhook.Event{event})
}

// trunkForAudit is what the audit log says of a trunk: nothing of what we log in with.
func trunkForAudit(r trunk.Record) map[string]any {
	m := map[string]any{
		"name": r.Name.String(), "provider": r.Provider.String(), "description": r.Description.String(), "storeId": idForAudit(r.StoreID),
		"host": r.Host.String(), "port": r.Port, "protocol": string(r.Protocol), "proxy": r.Proxy.String(), "maxChannels": r.MaxChannels,
		"priority": r.Priority, "status": string(r.Status), "sourceAddresses": blocks(r.Sources), "register": r.Register,
		"passwordSet": r.PasswordSet(), "callerIdPolicy": string(r.CallerID), "callerIdNumber": r.CallerIDNumber.String(),
		"numberFormat": string(r.NumberFormat), "techPrefix": r.TechPrefix.String(), "prefixes": textArray(r.Prefixes),
		"codecs": textArray(r.Codecs.Names()), "pingSeconds": r.PingSeconds, "aiAgentRef": r.AIAgentRef,
		"aiFailoverExtension": r.Failover.String(), "didRanges": rangesText(r.Ranges),
	}
	if r.AITimePolicy != nil {
		m["aiTimePolicy"] = json.RawMessage(r.AITimePolicy)
	}
	return m
}

func rangesText(ranges []trunk.Range) string {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.String()
	}
	return strings.Join(texts, ",")
}

func blocks(list []netip.Prefix) []string {
	s := make([]string, len(list))
	for i, p := range list {
		s[i] = p.String()
	}
	return s
}

// textArray is a list that is not null to the database, or to a reader of JSON.
func textArray(list []string) pq.StringArray { return append(pq.StringArray{}, list...) }

// TrunkNodes implements trunk.Registry.
func (d *DB) TrunkNodes(ctx context.Context, tenant, id uuid.UUID) ([]trunk.NodeState, error) {
	if _, err := d.TrunkByID(ctx, tenant, id); err != nil {
		return nil, err
	}
	const query = `
		SELECT n.name, n.status = 'active' AS active, g.seen_at,
		       CASE WHEN k.status = 'active' AND t.status = 'active' THEN k.gateway_revision ELSE 0 END AS wanted,
		       coalesce(g.applied_revision, 0) AS applied, coalesce(g.registration, '') AS registration, coalesce(g.ping, '') AS ping,
		       j.id IS NOT NULL AS waiting, coalesce(nullif(g.error, ''), j.last_error, '') AS error
		  FROM edgvoip.sip_trunks k
		  JOIN edgvoip.tenants t ON t.id = k.tenant_id
		 CROSS JOIN edgvoip.switch_nodes n
		  LEFT JOIN edgvoip.trunk_gateways g ON g.tenant_id = k.tenant_id AND g.trunk_id = k.id AND g.node_id = n.id
		  LEFT JOIN LATERAL (
		       SELECT o.id, o.last_error FROM edgvoip.jobs o
		        WHERE o.tenant_id = k.tenant_id AND o.subject = ANY ($3) AND o.node_id = n.id AND o.state <> 'done'
		          -- A job that was given up is no more than its part that nothing later has done: a job makes of the gateway what it is
		          -- to be then, as the patrol does, and the lists of addresses are always read whole.
		          AND NOT (o.state = 'dead'
		              AND (o.payload->>'gateway' = 'keep' OR k.gateway_revision = g.applied_revision OR EXISTS (
		                  SELECT FROM edgvoip.jobs l
		                   WHERE l.tenant_id = o.tenant_id AND l.subject = ANY ($3) AND l.node_id = n.id AND l.id > o.id AND l.state = 'done'
		                     AND l.payload->>'gateway' <> 'keep'))
		              AND (o.payload->>'acl' = 'false' OR EXISTS (
		                  SELECT FROM edgvoip.jobs l
		                   WHERE l.tenant_id = o.tenant_id AND l.subject = ANY ($3) AND l.node_id = n.id AND l.id > o.id AND l.state = 'done'
		                     AND l.payload->>'acl' = 'true')))
		        ORDER BY o.id LIMIT 1) j ON true
		 WHERE k.tenant_id = $1 AND k.id = $2
		 ORDER BY n.name`
	type row struct {
		Name         string       `db:"name"`
		Active       bool         `db:"active"`
		SeenAt       sql.NullTime `db:"seen_at"`
		Wanted       int64        `db:"wanted"`
		Applied      int64        `db:"applied"`
		Registration string       `db:"registration"`
		Ping         string       `db:"ping"`
		Waiting      bool         `db:"waiting"`
		Error        string       `db:"error"`
	}
	rows, err := list[row](ctx, d, query, tenant, id, pq.StringArray(node.Subjects(id.String())))
	if err != nil {
		return nil, fmt.Errorf("select switches of trunk: %w", err)
	}
	states := make([]trunk.NodeState, len(rows))
	for i, r := range rows {
		states[i] = trunk.NodeState{
			Node: r.Name, Active: r.Active, Wanted: r.Wanted, Applied: r.Applied, Converged: r.Applied == r.Wanted && !r.Waiting,
			Registration: r.Registration, Ping: r.Ping, Error: r.Error, SeenAt: r.SeenAt.Time,
		}
	}
	return states, nil
}
