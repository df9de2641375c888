package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// database is one that was made for the measurement.
type database struct {
	name, url string
	admin     *postgres.DB // of the server, not of this database
}

// createDatabase makes a database with this version's schema and a population.
func createDatabase(ctx context.Context, admin *postgres.DB, server string, p population, keys *secret.KeyRing, log *slog.Logger) (*database, error) {
	d := &database{name: "edgvoip_load_" + strings.ToLower(rand.Text()[:16]), admin: admin}
	var err error
	if d.url, err = withDatabase(server, d.name); err != nil {
		return nil, err
	}
	if _, err := admin.Pool().ExecContext(ctx, "CREATE DATABASE "+d.name); err != nil {
		return nil, fmt.Errorf("create database: %w", err)
	}
	if err := d.fill(ctx, p, keys, log); err != nil {
		return nil, errors.Join(err, d.drop(ctx))
	}
	return d, nil
}

// drop drops the database, even if ctx has ended.
func (d *database) drop(ctx context.Context) error {
	query := "DROP DATABASE " + d.name + " WITH (FORCE)"
	if _, err := d.admin.Pool().ExecContext(context.WithoutCancel(ctx), query); err != nil { //nolint:gosec // a name of our own making
		return fmt.Errorf("drop database: %w", err)
	}
	return nil
}

// transactions counts the transactions in the database since it was made, and with them the lookups: each statement of
// xmlcurl is a transaction.
func (d *database) transactions(ctx context.Context) (n int64, err error) {
	const query = `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1`
	if err := d.admin.Pool().QueryRowContext(ctx, query, d.name).Scan(&n); err != nil {
		return 0, fmt.Errorf("statistics of the database: %w", err)
	}
	return n, nil
}

func (d *database) fill(ctx context.Context, p population, keys *secret.KeyRing, log *slog.Logger) error {
	db, err := postgres.Open(postgres.Options{URL: d.url, Application: "edgvoip-load", MaxConns: 2}, log)
	if err != nil {
		return err
	}
	if _, err = db.Migrate(ctx); err == nil {
		err = fill(ctx, db.Pool(), p, keys)
	}
	if err == nil {
		_, err = db.Pool().ExecContext(ctx, `VACUUM ANALYZE`)
	}
	if err != nil {
		err = fmt.Errorf("fill the database: %w", err)
	}
	return errors.Join(err, db.Close())
}

// fill writes the rows of a population in one transaction. Triggers, and with them foreign keys and the change feed,
// stay out of it: a million rows would take minutes, and nobody reads the database yet.
func fill(ctx context.Context, db *sql.DB, p population, keys *secret.KeyRing) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	if _, err := tx.ExecContext(ctx, `SET LOCAL session_replication_role = replica`); err != nil {
		return err
	}
	if err := fillTenants(ctx, tx, p); err != nil {
		return err
	}
	if err := fillExtensions(ctx, tx, p, keys); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO edgvoip.sip_names (tenant_id, domain_id, name, extension_id)
		SELECT tenant_id, domain_id, extension, id FROM edgvoip.sip_extensions`); err != nil {
		return err
	}
	return tx.Commit()
}

func fillTenants(ctx context.Context, tx *sql.Tx, p population) error {
	for _, table := range []struct {
		columns string
		row     func(tenant int) []any
	}{
		{`tenants (id, slug, name, country)`, func(t int) []any { return []any{tenantID(t), slug(t), slug(t), "IT"} }},
		{`sip_domains (tenant_id, id, realm)`, func(t int) []any { return []any{tenantID(t), domainID(t), realm(t)} }},
		// The captured calls of carriers come from 127.0.0.1.
		{`sip_trunks (tenant_id, id, name, host, caller_id_number, ai_failover_extension)`, func(t int) []any {
			return []any{tenantID(t), trunkID(t), "Carrier", "127.0.0.1", fmt.Sprint("+", did(t*perTenant)), number(t * perTenant)}
		}},
		{`sip_trunk_did_ranges (tenant_id, trunk_id, first_number, last_number)`, func(t int) []any {
			return []any{tenantID(t), trunkID(t), did(t * perTenant), did((t+1)*perTenant - 1)}
		}},
	} {
		if err := copyRows(ctx, tx, table.columns, p.tenants(), func(t int) ([]any, error) { return table.row(t), nil }); err != nil {
			return err
		}
	}
	return nil
}

func fillExtensions(ctx context.Context, tx *sql.Tx, p population, keys *secret.KeyRing) error {
	const columns = `sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash,
		ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)`
	return copyRows(ctx, tx, columns, p.extensions, func(e int) ([]any, error) {
		tenant, user, host := tenantOf(e), number(e), realm(tenantOf(e))
		username, err1 := fstext.NewUsername(user)
		domain, err2 := fstext.NewRealm(host)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		seal := func(ha1 string, alg directory.HashAlgorithm) secret.Sealed {
			return keys.Seal([]byte(ha1), directory.CredentialOwner(tenantID(tenant), username, domain, alg))
		}
		md5 := seal(secret.HA1MD5(user, host, password(e)), directory.MD5)
		sha256 := seal(secret.HA1SHA256(user, host, password(e)), directory.SHA256)
		// Nobody provisions these again, which is all that the password's own hash is for.
		return []any{tenantID(tenant), extensionID(e), domainID(tenant), user, user, "Ext " + user, "$argon2id$", md5.Data, sha256.Data, md5.KeyID}, nil
	})
}

// copyRows writes n rows with COPY. table is the name of a table of ours and its columns.
func copyRows(ctx context.Context, tx *sql.Tx, table string, n int, row func(i int) ([]any, error)) (err error) {
	stmt, err := tx.PrepareContext(ctx, `COPY edgvoip.`+table+` FROM STDIN`)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	for i := range n {
		values, err := row(i)
		if err != nil {
			return err
		}
		if _, err := stmt.ExecContext(ctx, values...); err != nil {
			return err
		}
	}
	_, err = stmt.ExecContext(ctx) // the end
	return err
}

// withDatabase returns the connection string with another database, in the form that it came in.
func withDatabase(dsn, name string) (string, error) {
	if !strings.Contains(dsn, "://") {
		return dsn + " dbname=" + name, nil // of a name that is there twice, the last value counts
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", errors.New("TEST_DATABASE_URL is not a valid URL") // the error would repeat it
	}
	u.Path = "/" + name
	return u.String(), nil
}
