package postgres

import (
	"context"
	"fmt"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/edgvoip/edgvoip/migrations"
)

// versionTable keeps which steps were applied. It is goose's own and stands outside the schema, which one step creates.
const versionTable = "edgvoip_migrations"

// alone makes several processes that make partitions wait for each other: none finds a table that another has just made.
const alone = ` FROM pg_advisory_xact_lock(hashtext('edgvoip.ensure_cdr_partitions'))`

// Migrate brings the schema to the newest version and the CDR partitions a year ahead. It may run in several processes
// at once: one works, the others wait. It returns the number of steps applied. The login must own the schema or be
// allowed to create it and two roles.
func (d *DB) Migrate(ctx context.Context) (int, error) {
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectPostgres, d.db.DB, migrations.Files,
		goose.WithTableName(versionTable), goose.WithSessionLocker(locker))
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	done, err := p.Up(ctx)
	if err != nil {
		return 0, fmt.Errorf("migrate: %w", err)
	}
	if _, err := d.db.ExecContext(ctx, `SELECT edgvoip.ensure_cdr_partitions(now()::date, 12)`+alone); err != nil {
		return 0, fmt.Errorf("cdr partitions: %w", err)
	}
	return len(done), nil
}
