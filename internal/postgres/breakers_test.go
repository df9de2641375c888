package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/aisession"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// Each ai-bridge says which gateways it leaves alone and takes back only what it said itself; tenants hear of their own
// gateway, for as long as it is so; and nobody writes or reads more than that.
func TestOpenBreakers(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	look := raw(t, dsn)
	one, two := uuid.MustParse("a0000000-0000-4000-8000-000000000001"), uuid.MustParse("a0000000-0000-4000-8000-000000000002")
	exec1(t, look, `
		INSERT INTO edgvoip.tenants (id, slug, name, country, status) VALUES
		  ('a0000000-0000-4000-8000-000000000001', 'one', 'One', 'IT', 'active'), ('a0000000-0000-4000-8000-000000000002', 'two', 'Two', 'IT', 'active');
		INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url) SELECT id, 'https://w3.example/' || slug FROM edgvoip.tenants;
		INSERT INTO edgvoip.ai_breakers VALUES ('long gone', 'https://w3.example/one', now() - interval '2 days')`)
	bridge, _ := open(t, dsn, "edgvoip_ai_bridge")
	explain, _ := open(t, dsn, "edgvoip_xmlcurl")
	expect := func(when string, tenant uuid.UUID, want ...string) {
		t.Helper()
		got, err := explain.OpenBreakers(t.Context(), tenant)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %v, %v, want %v", when, got, err, want)
		}
		for i, b := range got {
			if left := time.Until(b.Until); b.Bridge != want[i] || left <= 0 || left > time.Hour+time.Minute {
				t.Errorf("%s: %v, want %s", when, b, want[i])
			}
		}
	}
	note := func(name string, list ...aisession.OpenBreaker) {
		t.Helper()
		if err := bridge.NoteBreakers(t.Context(), name, list); err != nil {
			t.Fatal(err)
		}
	}
	expect("before", one)
	note("pbx1", aisession.OpenBreaker{Gateway: "https://w3.example/one", Pause: time.Hour}, aisession.OpenBreaker{Gateway: "https://w3.example/two", Pause: -time.Second})
	note("pbx2", aisession.OpenBreaker{Gateway: "https://w3.example/one", Pause: time.Hour})
	expect("two bridges", one, "pbx1", "pbx2")
	expect("its time is over", two)
	note("pbx1")
	expect("one took it back", one, "pbx2")
	var n int
	if err := look.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.ai_breakers`).Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
	for _, role := range []string{"edgvoip_xmlcurl", "edgvoip_api"} {
		for _, query := range []string{`SELECT * FROM edgvoip.ai_breakers`, `DELETE FROM edgvoip.ai_breakers`} {
			tx, err := look.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(t.Context(), `SET LOCAL ROLE `+role); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(t.Context(), query); err == nil || !strings.Contains(err.Error(), "permission denied") {
				t.Errorf("%s: %s: %v", role, query, err)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
