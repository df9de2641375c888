package postgres

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/webhook"
)

var _ aisession.Store = (*DB)(nil)

// aiTrunkRow is a trunk with one of its tenant's secrets; those of a tenant without one are null.
type aiTrunkRow struct {
	Trunk           uuid.UUID      `db:"trunk_id"`
	Tenant          uuid.UUID      `db:"trunk_tenant"`
	Store           uuid.NullUUID  `db:"store_id"`
	Agent           string         `db:"ai_agent_ref"`
	BaseURL         string         `db:"base_url"`
	SecretID        uuid.NullUUID  `db:"id"`
	SecretHMAC      []byte         `db:"hmac_secret_sealed"`
	SecretHMACKey   sql.NullString `db:"hmac_secret_key_id"`
	SecretCreatedAt sql.NullTime   `db:"created_at"`
	SecretExpiresAt sql.NullTime   `db:"expires_at"`
}

// AITrunks implements aisession.Store. A trunk whose tenant has no endpoint is left out, and so is, and is logged, one
// whose endpoint cannot be read. A paused endpoint counts: what waits there are events, and a caller cannot wait.
func (d *DB) AITrunks(ctx context.Context) ([]aisession.Trunk, error) {
	const query = `
		SELECT k.id AS trunk_id, k.tenant_id AS trunk_tenant, k.store_id, k.ai_agent_ref, e.base_url,
		       s.id, s.hmac_secret_sealed, s.hmac_secret_key_id, s.created_at, s.expires_at
		  FROM edgvoip.sip_trunks k
		  JOIN edgvoip.tenants t ON t.id = k.tenant_id
		  JOIN edgvoip.webhook_endpoints e ON e.tenant_id = k.tenant_id
		  LEFT JOIN edgvoip.integration_secrets s ON s.tenant_id = k.tenant_id AND (s.expires_at IS NULL OR s.expires_at > now())
		 WHERE k.status = 'active' AND t.status = 'active' AND k.ai_agent_ref <> ''
		 ORDER BY k.tenant_id, k.id, s.created_at DESC, s.id`
	rows, err := list[aiTrunkRow](ctx, d, query)
	if err != nil {
		return nil, fmt.Errorf("select trunks with agents: %w", err)
	}
	var trunks []aisession.Trunk
	for _, r := range rows {
		if n := len(trunks); n == 0 || trunks[n-1].ID != r.Trunk {
			base, err := webhook.ParseBaseURL(r.BaseURL)
			if err != nil {
				d.log.WarnContext(ctx, "row left out", "table", "webhook_endpoints", "tenant_id", r.Tenant.String(), "error", err)
				continue
			}
			trunks = append(trunks, aisession.Trunk{ID: r.Trunk, TenantID: r.Tenant, StoreID: r.Store.UUID, AgentRef: r.Agent, Gateway: base})
		}
		if r.SecretID.Valid {
			one := &trunks[len(trunks)-1]
			one.Secrets = append(one.Secrets, secretRow{
				ID: r.SecretID.UUID, TenantID: r.Tenant, HMAC: r.SecretHMAC, HMACKey: r.SecretHMACKey.String,
				CreatedAt: r.SecretCreatedAt.Time, ExpiresAt: r.SecretExpiresAt,
			}.secret())
		}
	}
	return trunks, nil
}

// HasEndpoint implements dialplan.EndpointStore.
func (d *DB) HasEndpoint(ctx context.Context, tenant uuid.UUID) (bool, error) {
	has, err := get[bool](ctx, d, `SELECT EXISTS (SELECT FROM edgvoip.webhook_endpoints WHERE tenant_id = $1)`, tenant)
	if err != nil {
		return false, fmt.Errorf("select endpoint: %w", err)
	}
	return has, nil
}
