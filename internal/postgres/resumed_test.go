package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
	"github.com/edgvoip/edgvoip/webhook"
)

// blocked waits until so many transactions of the database wait for others' rows or turns, or until done.
func blocked(t *testing.T, look *sql.DB, transactions int, done <-chan error) error {
	t.Helper()
	for {
		var wait int
		const query = `
			SELECT count(*) FROM pg_stat_activity
			 WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple', 'advisory')`
		if err := look.QueryRowContext(t.Context(), query).Scan(&wait); err != nil {
			t.Fatal(err)
		}
		if wait >= transactions {
			return nil
		}
		select {
		case err := <-done:
			return errors.Join(errors.New("it did not wait"), err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// drain does what waits for a switch, and returns how much that was.
func drain(t *testing.T, db *postgres.DB, n node.Node) (jobs int) {
	t.Helper()
	for ; ; jobs++ {
		j, err := db.ClaimJob(t.Context(), n.ID, time.Minute)
		if errors.Is(err, node.ErrNoJob) {
			return jobs
		}
		if err == nil {
			err = db.FinishJob(t.Context(), j, nil, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A switch that learns a user again when his suspended tenant is resumed hears of a password that changed meanwhile, however the two
// changes overlap: who registers with the old one before it is committed is dropped after that.
func TestPasswordWhileTenantIsResumed(t *testing.T) {
	t.Parallel()
	const password = `UPDATE edgvoip.sip_extensions SET ha1_md5_sealed = ha1_md5_sealed || '\x00' WHERE id = $1`
	const resume = `UPDATE edgvoip.tenants SET status = 'active' WHERE id = $1`
	extension, tenant := storetest.ExtensionID("tenant-a.example", "1001"), storetest.TenantID("tenant-a")
	for name, changes := range map[string][2]string{"resumed later": {password, resume}, "resumed first": {resume, password}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, look, nodes := fleet(t, "fs1")
			exec1(t, look, `UPDATE edgvoip.tenants SET status = 'suspended' WHERE id = $1`, tenant)
			drain(t, db, nodes[0])
			subject := map[string]any{password: extension, resume: tenant}
			tx, err := look.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			if _, err := tx.ExecContext(t.Context(), changes[0], subject[changes[0]]); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := look.ExecContext(context.WithoutCancel(t.Context()), changes[1], subject[changes[1]])
				done <- err
			}()
			if err := blocked(t, look, 1, done); err != nil {
				t.Error(err)
				done <- nil
			}
			drain(t, db, nodes[0])
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if n := drain(t, db, nodes[0]); n == 0 {
				t.Error("the switch is told nothing after both changes")
			}
		})
	}
}

// Whoever changes an extension waits for a change of its tenant before he holds the extension: who deletes the tenant goes on from the
// tenant to the extensions, and they would wait for each other.
func TestExtensionWaitsForTenant(t *testing.T) {
	t.Parallel()
	extension, tenant := storetest.ExtensionID("tenant-a.example", "1001"), storetest.TenantID("tenant-a")
	for name, change := range map[string]func(context.Context, *postgres.DB) error{
		"put": func(ctx context.Context, db *postgres.DB) error {
			e, err := db.ExtensionByID(ctx, tenant, extension)
			if err == nil {
				e.MaxCalls++
				_, _, err = db.PutExtension(ctx, e, "test")
			}
			return err
		},
		"change": func(ctx context.Context, db *postgres.DB) error {
			no := false
			_, _, err := db.ChangeExtension(ctx, tenant, extension, directory.ExtensionChange{Active: &no}, "test")
			return err
		},
		"delete": func(ctx context.Context, db *postgres.DB) error {
			_, err := db.DeleteExtension(ctx, tenant, extension, "test")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, look, _ := fleet(t, "fs1")
			tx, err := look.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			if _, err := tx.ExecContext(t.Context(), `SELECT FROM edgvoip.tenants WHERE id = $1 FOR UPDATE`, tenant); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- change(context.WithoutCancel(t.Context()), db) }()
			if err := blocked(t, look, 1, done); err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(t.Context(), `SELECT FROM edgvoip.sip_extensions WHERE tenant_id = $1 FOR UPDATE NOWAIT`, tenant); err != nil {
				t.Error(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever changes an extension while another waits to change its tenant comes after him. If he went ahead, a tenant whose extensions are
// changed all the time could neither be suspended nor deleted.
func TestTenantHasItsTurn(t *testing.T) {
	t.Parallel()
	tenant := storetest.TenantID("tenant-a")
	for name, change := range map[string]func(context.Context, *postgres.DB) error{
		"suspended": func(ctx context.Context, db *postgres.DB) error {
			_, err := db.SetTenantStatus(ctx, tenant, false, "operator")
			return err
		},
		"deleted": func(ctx context.Context, db *postgres.DB) error {
			if err := db.DeleteTenant(ctx, tenant, "operator"); !errors.Is(err, directory.ErrTenantActive) {
				return errors.Join(errors.New("an active tenant is deleted"), err)
			}
			return nil
		},
		"webhook": func(ctx context.Context, db *postgres.DB) error {
			_, err := db.ChangeEndpoint(ctx, tenant, func(*webhook.Endpoint) (webhook.Endpoint, error) {
				return webhook.Endpoint{}, directory.ErrDeleted
			}, "operator")
			if errors.Is(err, directory.ErrDeleted) {
				return nil
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn, look := scene(t)
			db, _ := open(t, dsn, "edgvoip_api")
			ctx := context.WithoutCancel(t.Context())
			rename := directory.ExtensionChange{Name: new(storetest.Must(fstext.NewDisplayName("Later")))}
			changed, later := make(chan error, 1), make(chan error, 1)
			_, _, err := db.Once(ctx, integration.Claim{TenantID: tenant}, func(w directory.Writer) (a integration.Answer, err error) {
				if _, _, err = w.ChangeExtension(ctx, tenant, storetest.ExtensionID("tenant-a.example", "1001"), rename, "test"); err != nil {
					return a, err
				}
				go func() { changed <- change(ctx, db) }()
				if err := blocked(t, look, 1, changed); err != nil {
					return a, err
				}
				go func() {
					_, _, err := db.ChangeExtension(ctx, tenant, storetest.ExtensionID("tenant-a.example", "1003"), rename, "test")
					later <- err
				}()
				return a, blocked(t, look, 2, later)
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(<-changed, <-later); err != nil {
				t.Error(err)
			}
		})
	}
}
