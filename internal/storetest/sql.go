package storetest

import (
	"database/sql"
	"testing"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/trunk"
)

// SQL is a Sink that writes a scene straight into the tables of schema.sql, over a connection that may write them. An
// error ends the test.
type SQL struct {
	TB testing.TB
	DB *sql.DB
}

var _ Sink = SQL{}

// Exec runs a statement.
func (s SQL) Exec(statement string, args ...any) {
	s.TB.Helper()
	if _, err := s.DB.ExecContext(s.TB.Context(), statement, args...); err != nil {
		s.TB.Fatalf("%s: %v", statement, err)
	}
}

// AddDomain implements Sink. The tenant is written with its first domain.
func (s SQL) AddDomain(d directory.Domain) {
	s.TB.Helper()
	t := d.Tenant
	s.Exec(`INSERT INTO edgvoip.tenants (id, slug, name, country, status, record_calls) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		t.ID, t.Slug.String(), t.Name.String(), t.Country.String(), status(t.Active, "suspended"), string(t.RecordCalls))
	// The order of domains is that of their creation; within one transaction now() would be the same for all.
	s.Exec(`INSERT INTO edgvoip.sip_domains (tenant_id, id, realm, status, created_at) VALUES ($1, $2, $3, $4, clock_timestamp())`,
		t.ID, d.ID, d.Realm.String(), status(d.Active, "disabled"))
}

// AddExtension implements Sink.
func (s SQL) AddExtension(e directory.Extension) {
	s.TB.Helper()
	s.Exec(`INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, transport, allowed_codecs,
			max_concurrent_calls, outbound_caller_id, status, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, string_to_array($8, ','), $9, nullif($10, ''), $11, '$argon2id$', $12, $13, $14)`,
		e.TenantID, e.ID, e.DomainID, e.Number.String(), e.Username.String(), e.Name.String(), string(e.Transport), e.Codecs.Text().String(),
		e.MaxCalls, e.CallerID.String(), status(e.Active, "suspended"), e.HA1MD5.Data, e.HA1SHA256.Data, e.HA1MD5.KeyID)
}

// AddTrunk implements Sink.
func (s SQL) AddTrunk(t trunk.Trunk, dids ...trunk.Range) {
	s.TB.Helper()
	policy, _ := t.Hours.Stored()
	s.Exec(`INSERT INTO edgvoip.sip_trunks (tenant_id, id, name, host, port, max_channels, priority, caller_id_number, ai_failover_extension,
			ai_agent_ref, ai_time_policy)
		VALUES ($1, $2, $3, $4, $5, $6, $7, nullif($8, ''), nullif($9, ''), nullif($10, ''), nullif($11, '')::jsonb)`,
		t.TenantID, t.ID, t.Name.String(), t.Host.String(), t.Port, t.MaxChannels, t.Priority, t.CallerIDNumber.String(), t.Failover.String(),
		t.AIAgentRef, policy)
	for _, r := range dids {
		s.Exec(`INSERT INTO edgvoip.sip_trunk_did_ranges (tenant_id, trunk_id, first_number, last_number) VALUES ($1, $2, $3, $4)`,
			t.TenantID, t.ID, r.First.Int(), r.Last.Int())
	}
}

func status(active bool, otherwise string) string {
	if active {
		return "active"
	}
	return otherwise
}
