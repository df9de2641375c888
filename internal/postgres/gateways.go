package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/node"
)

// wantedGateways are the gateways that every switch is to have: those of active trunks of active tenants.
const wantedGateways = `
	SELECT k.id AS trunk_id, k.gateway_revision
	  FROM edgvoip.sip_trunks k
	  JOIN edgvoip.tenants t ON t.id = k.tenant_id
	 WHERE k.status = 'active' AND t.status = 'active'`

type gatewayRow struct {
	Trunk    uuid.UUID `db:"trunk_id"`
	Revision int64     `db:"gateway_revision"`
}

// Gateways returns the gateways that every switch is to have, in order of id.
func (d *DB) Gateways(ctx context.Context) ([]node.Gateway, error) {
	rows, err := list[gatewayRow](ctx, d, wantedGateways+` ORDER BY k.id`)
	if err != nil {
		return nil, fmt.Errorf("select gateways: %w", err)
	}
	gateways := make([]node.Gateway, len(rows))
	for i, r := range rows {
		gateways[i] = node.Gateway(r)
	}
	return gateways, nil
}

// Gateway returns the gateway of a trunk as every switch is to have it. Its revision is 0 if there is to be none.
func (d *DB) Gateway(ctx context.Context, trunk uuid.UUID) (node.Gateway, error) {
	row, err := get[gatewayRow](ctx, d, wantedGateways+` AND k.id = $1`, trunk)
	if errors.Is(err, sql.ErrNoRows) {
		return node.Gateway{Trunk: trunk}, nil
	} else if err != nil {
		return node.Gateway{}, fmt.Errorf("select gateway: %w", err)
	}
	return node.Gateway(row), nil
}

// noteGateways writes states, of the trunks that there still are. Whether a carrier is asked with OPTIONS the trunk
// says, since to a switch one that is not asked is always up.
const noteGateways = `
	INSERT INTO edgvoip.trunk_gateways AS g (tenant_id, trunk_id, node_id, applied_revision, registration, ping, error)
	SELECT k.tenant_id, k.id, n.id, coalesce(s.applied, 0), s.registration, CASE WHEN k.ping_seconds > 0 THEN s.ping ELSE '' END, s.error
	  FROM unnest($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[]) AS s (trunk_id, applied, registration, ping, error)
	  JOIN edgvoip.sip_trunks k ON k.id = s.trunk_id
	  JOIN edgvoip.switch_nodes n ON n.id = $1
	 ORDER BY k.tenant_id, k.id
	ON CONFLICT (tenant_id, trunk_id, node_id) DO UPDATE
	   SET applied_revision = CASE WHEN g.trunk_id = ANY ($7) THEN excluded.applied_revision ELSE g.applied_revision END,
	       registration = excluded.registration, ping = excluded.ping, seen_at = now(),
	       error = CASE WHEN excluded.error <> '' THEN excluded.error
	                    WHEN excluded.registration IN ('', 'REGED', 'NOREG') THEN '' ELSE g.error END`

// NoteGateways writes down what is known of gateways on a switch, each once. Trunks that are gone are passed over.
func (d *DB) NoteGateways(ctx context.Context, nodeID uuid.UUID, states []node.GatewayState) error {
	var trunks, known []string
	var applied []sql.NullInt64
	var registrations, pings, failures []string
	for _, s := range states {
		trunks, registrations = append(trunks, s.Trunk.String()), append(registrations, clipped(s.Registration))
		pings, failures = append(pings, clipped(s.Ping)), append(failures, clipped(s.Error))
		revision := sql.NullInt64{}
		if s.Applied != nil {
			known, revision = append(known, s.Trunk.String()), sql.NullInt64{Int64: *s.Applied, Valid: true}
		}
		applied = append(applied, revision)
	}
	if _, err := d.db.ExecContext(ctx, noteGateways, nodeID, pq.Array(trunks), pq.Array(applied), pq.Array(registrations), pq.Array(pings),
		pq.Array(failures), pq.Array(known)); err != nil {
		return fmt.Errorf("note gateways: %w", err)
	}
	return nil
}

// ForgetGateways writes down that a switch has no gateways but those that every switch is to have now. It asks that in
// the same statement: by a list that was read before, a gateway would be forgotten that has come meanwhile.
func (d *DB) ForgetGateways(ctx context.Context, nodeID uuid.UUID) error {
	const query = `
		UPDATE edgvoip.trunk_gateways g SET applied_revision = 0, registration = '', ping = '', error = '', seen_at = now()
		 WHERE g.node_id = $1 AND g.applied_revision <> 0
		   AND NOT EXISTS (SELECT FROM (` + wantedGateways + `) w WHERE w.trunk_id = g.trunk_id)`
	if _, err := d.db.ExecContext(ctx, query, nodeID); err != nil {
		return fmt.Errorf("forget gateways: %w", err)
	}
	return nil
}
