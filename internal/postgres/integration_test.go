package postgres_test

import (
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// xmlcurl reads nothing of the integration API, and the API keeps no more rights on it than it needs.
func TestIntegrationRoles(t *testing.T) {
	t.Parallel()
	db := raw(t, testdb.New(t))
	for _, tc := range []struct {
		role, query string
		allowed     bool
	}{
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.seen_signatures`, false},
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.operator_tokens`, false},
		{"edgvoip_xmlcurl", `SELECT * FROM edgvoip.idempotency_keys`, false},
		{"edgvoip_api", `DELETE FROM edgvoip.seen_signatures`, true},
		{"edgvoip_api", `UPDATE edgvoip.seen_signatures SET expires_at = now()`, false},
		{"edgvoip_api", `UPDATE edgvoip.operator_tokens SET revoked_at = now()`, true},
		{"edgvoip_api", `DELETE FROM edgvoip.operator_tokens`, false},
	} {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.ExecContext(t.Context(), `SET LOCAL ROLE `+tc.role)
		if err == nil {
			_, err = tx.ExecContext(t.Context(), tc.query)
		}
		if (err == nil) != tc.allowed || err != nil && !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %s: %v, want allowed: %v", tc.role, tc.query, err, tc.allowed)
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
}

// A signature is remembered without waiting for the disk, and only it: the next transaction of the same connection
// waits.
func TestUseSignature(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	look := raw(t, dsn)
	exec1(t, look, `ALTER DATABASE `+databaseOf(t, dsn)+` SET synchronous_commit = 'on'`)
	exec1(t, look, `CREATE TABLE public.modes (mode text)`)
	exec1(t, look, `CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN INSERT INTO public.modes VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$`)
	for _, table := range []string{"seen_signatures", "tenants"} {
		// Deferred to the commit, whose mode it is about.
		exec1(t, look, `CREATE CONSTRAINT TRIGGER note AFTER INSERT ON edgvoip.`+table+` DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.note()`)
	}
	db, err := postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_api", MaxConns: 1, StatementTimeout: 5 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	tenant, signature := uuid.New(), sha256.Sum256([]byte("x"))
	for i, want := range []bool{true, false} {
		if fresh, err := db.UseSignature(t.Context(), tenant, uuid.New(), signature[:], time.Now().Add(time.Minute)); err != nil || fresh != want {
			t.Errorf("use %d: %v, %v", i+1, fresh, err)
		}
	}
	if fresh, err := db.UseSignature(t.Context(), uuid.New(), uuid.New(), signature[:], time.Now().Add(time.Minute)); err != nil || !fresh {
		t.Errorf("another tenant's: %v, %v", fresh, err)
	}
	if _, err := directory.NewProvisioner(db, storetest.Keys(), nil).PutTenant(t.Context(), tenantSpec("shop"), "test"); err != nil {
		t.Fatal(err)
	}
	var modes string
	if err := look.QueryRowContext(t.Context(), `SELECT string_agg(mode, ' ') FROM public.modes`).Scan(&modes); err != nil || modes != "off off on" {
		t.Errorf("commits were %s, %v; want off for signatures and on for a tenant", modes, err)
	}
}

func databaseOf(t *testing.T, dsn string) string {
	t.Helper()
	var name string
	if err := raw(t, dsn).QueryRowContext(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestCredentialsOfNobody(t *testing.T) {
	t.Parallel()
	db, _ := open(t, testdb.New(t), "edgvoip_api")
	i := integration.NewIssuer(db, storetest.Keys(), time.Now)
	if _, err := i.Add(t.Context(), uuid.New(), "test"); !errors.Is(err, directory.ErrUnknownTenant) {
		t.Errorf("secret of nobody: %v", err)
	}
	if err := i.Revoke(t.Context(), uuid.New(), uuid.New(), "test"); !errors.Is(err, integration.ErrUnknownSecret) {
		t.Errorf("secret that is not there: %v", err)
	}
	if err := db.RevokeOperator(t.Context(), "nobody", "test"); !errors.Is(err, integration.ErrUnknownOperator) {
		t.Errorf("operator who is not there: %v", err)
	}
	if _, err := db.SetTenantStatus(t.Context(), uuid.New(), true, "test"); !errors.Is(err, directory.ErrUnknownTenant) {
		t.Errorf("status of nobody: %v", err)
	}
}
