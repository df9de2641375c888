package postgres_test

import (
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/testdb"
)

// ai-bridge's role reads the trunks that have an agent and work, with the secrets that have not ended, and nothing
// else.
func TestAITrunks(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	look := raw(t, dsn)
	const rows = `
		INSERT INTO edgvoip.tenants (id, slug, name, country, status) VALUES
		  ('a0000000-0000-4000-8000-000000000001', 'one', 'One', 'IT', 'active'),
		  ('a0000000-0000-4000-8000-000000000002', 'two', 'Two', 'IT', 'active'),
		  ('a0000000-0000-4000-8000-000000000003', 'gone', 'Gone', 'IT', 'suspended'),
		  ('a0000000-0000-4000-8000-000000000004', 'paused', 'Paused', 'IT', 'active');
		INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url, status)
		  SELECT id, 'https://w3.example/' || slug, CASE slug WHEN 'paused' THEN 'paused' ELSE 'active' END FROM edgvoip.tenants;
		INSERT INTO edgvoip.sip_trunks (tenant_id, id, store_id, name, host, status, ai_agent_ref) VALUES
		  ('a0000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000001', 'c0000000-0000-4000-8000-000000000001', 'x', 'sip.example', 'active', 'anna'),
		  ('a0000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000002', NULL, 'no agent', 'sip.example', 'active', NULL),
		  ('a0000000-0000-4000-8000-000000000001', 'b0000000-0000-4000-8000-000000000003', NULL, 'disabled', 'sip.example', 'disabled', 'anna'),
		  ('a0000000-0000-4000-8000-000000000002', 'b0000000-0000-4000-8000-000000000004', NULL, 'no secret', 'sip.example', 'active', 'bruno'),
		  ('a0000000-0000-4000-8000-000000000003', 'b0000000-0000-4000-8000-000000000005', NULL, 'suspended', 'sip.example', 'active', 'anna'),
		  ('a0000000-0000-4000-8000-000000000004', 'b0000000-0000-4000-8000-000000000006', NULL, 'paused', 'sip.example', 'active', 'anna');
		INSERT INTO edgvoip.integration_secrets (tenant_id, id, hmac_secret_sealed, hmac_secret_key_id, bearer_token_sha256, created_at, expires_at)
		  SELECT 'a0000000-0000-4000-8000-000000000001', ('d0000000-0000-4000-8000-00000000000' || n)::uuid, 'sealed', 'k1',
		         sha256(n::text::bytea), now() - n * interval '1 day', CASE n WHEN 2 THEN now() + interval '1 day' WHEN 3 THEN now() END
		    FROM generate_series(1, 3) n`
	exec1(t, look, rows)
	db, lines := open(t, dsn, "edgvoip_ai_bridge")
	got, err := db.AITrunks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 {
		t.Fatalf("%d trunks: %+v", len(got), got)
	}
	// Events wait where an endpoint is paused; calls do not.
	if paused := got[2]; paused.Gateway.String() != "https://w3.example/paused" {
		t.Errorf("the third is %+v", paused)
	}
	one := got[0]
	if one.ID != uuid.MustParse("b0000000-0000-4000-8000-000000000001") || one.AgentRef != "anna" || one.Gateway.String() != "https://w3.example/one" ||
		one.StoreID != uuid.MustParse("c0000000-0000-4000-8000-000000000001") || len(one.Secrets) != 2 || one.Secrets[0].HMAC.KeyID != "k1" ||
		!one.Secrets[0].ExpiresAt.IsZero() || one.Secrets[1].ExpiresAt.IsZero() || one.Secrets[0].TenantID != one.TenantID {
		t.Errorf("the first is %+v", one)
	}
	if two := got[1]; two.AgentRef != "bruno" || two.StoreID != uuid.Nil || len(two.Secrets) != 0 {
		t.Errorf("the second is %+v", two)
	}
	// What came into the table around the API cannot be asked.
	exec1(t, look, `UPDATE edgvoip.webhook_endpoints SET base_url = 'https://x@w3.example/?q' WHERE base_url LIKE '%/one'`)
	if got, err = db.AITrunks(t.Context()); err != nil || len(got) != 2 || lines.String() == "" {
		t.Errorf("%d trunks, %v; the log says %q", len(got), err, lines)
	}
	for _, query := range []string{
		`SELECT bearer_token_sha256 FROM edgvoip.integration_secrets`, `SELECT password_sealed FROM edgvoip.sip_trunks`, `SELECT * FROM edgvoip.sip_extensions`,
		`SELECT slug FROM edgvoip.tenants`, `SELECT * FROM edgvoip.cdr`, `SELECT * FROM edgvoip.webhook_events`,
		`UPDATE edgvoip.integration_secrets SET expires_at = now()`, `DELETE FROM edgvoip.webhook_endpoints`,
	} {
		tx, err := look.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		exec := func(q string) error {
			_, err := tx.ExecContext(t.Context(), q)
			return err
		}
		if err := exec(`SET LOCAL ROLE edgvoip_ai_bridge`); err != nil {
			t.Fatal(err)
		}
		if err := exec(query); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v", query, err)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// An explanation, which xmlcurl gives too, tells whether the tenant has an endpoint, and no more of it.
func TestHasEndpoint(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	look := raw(t, dsn)
	with, without := uuid.New(), uuid.New()
	exec1(t, look, `INSERT INTO edgvoip.tenants (id, slug, name, country) VALUES ($1, 'with', 'With', 'IT'), ($2, 'without', 'Without', 'IT')`, with, without)
	exec1(t, look, `INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url, status) VALUES ($1, 'https://w3.example', 'paused')`, with)
	for _, role := range []string{"edgvoip_xmlcurl", "edgvoip_api"} {
		db, _ := open(t, dsn, role)
		for tenant, want := range map[uuid.UUID]bool{with: true, without: false} {
			if got, err := db.HasEndpoint(t.Context(), tenant); got != want || err != nil {
				t.Errorf("%s: %t, %v; want %t", role, got, err, want)
			}
		}
	}
	xmlcurl, err := look.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := xmlcurl.ExecContext(t.Context(), `SET LOCAL ROLE edgvoip_xmlcurl`); err != nil {
		t.Fatal(err)
	}
	if _, err := xmlcurl.ExecContext(t.Context(), `SELECT base_url FROM edgvoip.webhook_endpoints`); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("xmlcurl reads where W3 is: %v", err)
	}
	if err := xmlcurl.Rollback(); err != nil {
		t.Fatal(err)
	}
}
