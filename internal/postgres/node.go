package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/node"
)

var _ node.Registry = (*DB)(nil)

// nobodysTenant is the tenant of what belongs to none.
var nobodysTenant uuid.UUID

const nodeColumns = `id, name, address, password_sealed, password_key_id, caches_users, status = 'active' AS active`

type nodeRow struct {
	ID          uuid.UUID `db:"id"`
	Name        string    `db:"name"`
	Address     string    `db:"address"`
	Password    []byte    `db:"password_sealed"`
	PasswordKey string    `db:"password_key_id"`
	CachesUsers bool      `db:"caches_users"`
	Active      bool      `db:"active"`
}

func (r nodeRow) node() node.Node {
	return node.Node{
		ID: r.ID, Name: r.Name, Address: r.Address, Password: secret.Sealed{KeyID: r.PasswordKey, Data: r.Password},
		CachesUsers: r.CachesUsers, Active: r.Active,
	}
}

// Nodes implements node.Registry.
func (d *DB) Nodes(ctx context.Context) ([]node.Node, error) {
	rows, err := list[nodeRow](ctx, d, `SELECT `+nodeColumns+` FROM edgvoip.switch_nodes ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("select nodes: %w", err)
	}
	nodes := make([]node.Node, len(rows))
	for i, r := range rows {
		nodes[i] = r.node()
	}
	return nodes, nil
}

// ChangeNode implements node.Registry.
func (d *DB) ChangeNode(ctx context.Context, name string, change func(*node.Node) (node.Node, error), actor string) (node.Node, error) {
	changed, err := d.changeNode(ctx, name, change, actor)
	if isConstraint(err, "switch_nodes_name_key") {
		// Somebody else added it between our look and our insert: now there is one to lock.
		return d.changeNode(ctx, name, change, actor)
	}
	return changed, err
}

func (d *DB) changeNode(ctx context.Context, name string, change func(*node.Node) (node.Node, error), actor string) (changed node.Node, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		stored, err := lockNode(ctx, tx, name)
		if err != nil {
			return err
		}
		if changed, err = change(stored); err != nil {
			return err
		}
		switch {
		case stored == nil:
			if err := insertNode(ctx, tx, changed); err != nil {
				return err
			}
			return audit(ctx, tx, nobodysTenant, actor, "node.created", changed.ID, nil, nodeForAudit(changed))
		case stored.Equal(changed):
			return nil
		default:
			if err := updateNode(ctx, tx, changed); err != nil {
				return err
			}
			after := nodeForAudit(changed)
			after["passwordChanged"] = !bytes.Equal(stored.Password.Data, changed.Password.Data)
			return audit(ctx, tx, nobodysTenant, actor, "node.updated", changed.ID, nodeForAudit(*stored), after)
		}
	})
	return changed, err
}

// lockNode returns the switch of a name, locked, or nil.
func lockNode(ctx context.Context, tx *txn, name string) (*node.Node, error) {
	var row nodeRow
	err := tx.GetContext(ctx, &row, `SELECT `+nodeColumns+` FROM edgvoip.switch_nodes WHERE name = $1 FOR UPDATE`, name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer
	} else if err != nil {
		return nil, fmt.Errorf("lock node: %w", err)
	}
	n := row.node()
	return &n, nil
}

func insertNode(ctx context.Context, tx *txn, n node.Node) error {
	const query = `
		INSERT INTO edgvoip.switch_nodes (id, name, address, password_sealed, password_key_id, caches_users, status)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	if _, err := tx.ExecContext(ctx, query, n.ID, n.Name, n.Address, n.Password.Data, n.Password.KeyID, n.CachesUsers, nodeStatus(n)); err != nil {
		return fmt.Errorf("insert node: %w", err)
	}
	return nil
}

func updateNode(ctx context.Context, tx *txn, n node.Node) error {
	const query = `
		UPDATE edgvoip.switch_nodes
		   SET address = $2, password_sealed = $3, password_key_id = $4, caches_users = $5, status = $6, updated_at = now()
		 WHERE id = $1`
	if _, err := tx.ExecContext(ctx, query, n.ID, n.Address, n.Password.Data, n.Password.KeyID, n.CachesUsers, nodeStatus(n)); err != nil {
		return fmt.Errorf("update node: %w", err)
	}
	return nil
}

func nodeStatus(n node.Node) string {
	if n.Active {
		return "active"
	}
	return "disabled"
}

// nodeForAudit is what the audit log says of a switch.
func nodeForAudit(n node.Node) map[string]any {
	return map[string]any{"name": n.Name, "address": n.Address, "cachesUsers": n.CachesUsers, "status": nodeStatus(n)}
}

// RemoveNode implements node.Registry. The lock on the switch comes before the jobs, as in the trigger that writes them: what is
// asked of the switch meanwhile is counted, or refused by its foreign key when the switch is gone.
func (d *DB) RemoveNode(ctx context.Context, name string, force bool, actor string) error {
	return d.inTx(ctx, func(tx *txn) error {
		stored, err := lockNode(ctx, tx, name)
		if err != nil {
			return err
		}
		if stored == nil {
			return node.ErrUnknownNode
		}
		left, err := jobsLeft(ctx, tx, stored.ID)
		if err != nil {
			return err
		}
		var after map[string]any
		switch {
		case left == (node.JobsLeftError{}):
		case !force:
			return &left
		default:
			after = map[string]any{"pendingJobsForgotten": left.Pending, "deadJobsForgotten": left.Dead}
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM edgvoip.switch_nodes WHERE id = $1`, stored.ID); err != nil {
			return fmt.Errorf("delete node: %w", err)
		}
		return audit(ctx, tx, nobodysTenant, actor, "node.removed", stored.ID, nodeForAudit(*stored), after)
	})
}

// jobsLeft counts what a switch was asked to do and has not done.
func jobsLeft(ctx context.Context, tx *txn, id uuid.UUID) (left node.JobsLeftError, err error) {
	// The condition is that of jobs_open_idx.
	const query = `
		SELECT count(*) FILTER (WHERE state <> 'dead'), count(*) FILTER (WHERE state = 'dead')
		  FROM edgvoip.jobs WHERE node_id = $1 AND state <> 'done'`
	if err := tx.QueryRowxContext(ctx, query, id).Scan(&left.Pending, &left.Dead); err != nil {
		return left, fmt.Errorf("count jobs: %w", err)
	}
	return left, nil
}
