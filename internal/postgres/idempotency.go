package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
)

// Answered returns the answer that is kept under a claim's key. Error: integration.ErrKeyReused.
func (d *DB) Answered(ctx context.Context, c integration.Claim) (a integration.Answer, found bool, err error) {
	if c.Key == "" {
		return a, false, nil
	}
	row, err := get[answerRow](ctx, d, answerQuery, c.TenantID, c.Key)
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	} else if err != nil {
		return a, false, fmt.Errorf("select answer: %w", err)
	}
	a, err = row.answer(c)
	return a, err == nil, err
}

// Once runs a write and keeps its answer under the claim's key, in one transaction. If an answer is there already, it is
// returned and nothing is written; while another process is at it, this one waits for it. An error keeps nothing: the key
// is as if it had not been used. Errors: integration.ErrKeyReused, write's.
func (d *DB) Once(ctx context.Context, c integration.Claim, write func(directory.Writer) (integration.Answer, error)) (a integration.Answer, replayed bool, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		if c.Key != "" {
			mine, err := claim(ctx, tx, c)
			if err != nil {
				return err
			}
			if !mine {
				replayed = true
				var row answerRow
				if err := tx.GetContext(ctx, &row, answerQuery, c.TenantID, c.Key); err != nil {
					return fmt.Errorf("select answer: %w", err)
				}
				a, err = row.answer(c)
				return err
			}
		}
		if a, err = write(writer{tx}); err != nil || c.Key == "" {
			return err
		}
		const keep = `
			UPDATE edgvoip.idempotency_keys SET response_status = $3, response_body = $4 WHERE tenant_id = $1 AND key = $2`
		if _, err := tx.ExecContext(ctx, keep, c.TenantID, c.Key, a.Status, string(a.Body)); err != nil {
			return fmt.Errorf("keep answer: %w", err)
		}
		return nil
	})
	if err != nil {
		return integration.Answer{}, false, err
	}
	return a, replayed, nil
}

// claim takes a key for this transaction, waiting for another that is about to. It returns false if the key holds an
// answer. What it writes first is never seen: the answer takes its place before the commit.
func claim(ctx context.Context, tx *txn, c integration.Claim) (bool, error) {
	const query = `
		INSERT INTO edgvoip.idempotency_keys AS k (tenant_id, key, request_sha256, response_status, response_body, expires_at)
		VALUES ($1, $2, $3, 200, 'null', now() + make_interval(secs => $4))
		ON CONFLICT (tenant_id, key) DO UPDATE
		   SET request_sha256 = excluded.request_sha256, created_at = now(), expires_at = excluded.expires_at
		 WHERE k.expires_at <= now()`
	res, err := tx.ExecContext(ctx, query, c.TenantID, c.Key, c.Digests[0], integration.KeyLifetime.Seconds())
	if err != nil {
		return false, fmt.Errorf("claim key: %w", err)
	}
	n, err := res.RowsAffected()
	if err != nil {
		return false, fmt.Errorf("claim key: %w", err)
	}
	return n == 1, nil
}

// answerQuery reads an answerRow of tenant $1 and key $2.
const answerQuery = `
	SELECT request_sha256, response_status, response_body FROM edgvoip.idempotency_keys
	 WHERE tenant_id = $1 AND key = $2 AND expires_at > now()`

type answerRow struct {
	Digest []byte `db:"request_sha256"`
	Status int    `db:"response_status"`
	Body   []byte `db:"response_body"`
}

// answer returns what is kept, for a claim of its key. Error: integration.ErrKeyReused.
func (r answerRow) answer(c integration.Claim) (integration.Answer, error) {
	if !slices.ContainsFunc(c.Digests, func(d []byte) bool { return bytes.Equal(d, r.Digest) }) {
		return integration.Answer{}, integration.ErrKeyReused
	}
	return integration.Answer{Status: r.Status, Body: r.Body}, nil
}

// Prune removes signatures and answers whose time is over, and returns their number. Several processes may call it.
func (d *DB) Prune(ctx context.Context) (int64, error) {
	var total int64
	for _, query := range []string{
		`DELETE FROM edgvoip.seen_signatures WHERE expires_at < now()`,
		`DELETE FROM edgvoip.idempotency_keys WHERE expires_at < now()`,
	} {
		res, err := d.db.ExecContext(ctx, query)
		if err != nil {
			return total, fmt.Errorf("prune: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return total, fmt.Errorf("prune: %w", err)
		}
		total += n
	}
	return total, nil
}
