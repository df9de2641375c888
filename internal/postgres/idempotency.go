package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

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

// errAnswered means that somebody else's answer is kept under a key.
var errAnswered = errors.New("answered meanwhile")

// Once runs a write and keeps its answer under the claim's key, in one transaction. If an answer is there already, it is
// returned and nothing is written. Who comes with the same key meanwhile writes too, waits when he keeps his answer if not before, and
// all that he did is undone; or he waits before he writes, if the claim says so. An error keeps nothing: the key is as if it had not been
// used. Errors: integration.ErrKeyReused, write's.
func (d *DB) Once(ctx context.Context, c integration.Claim, write func(directory.Writer) (integration.Answer, error)) (a integration.Answer, replayed bool, err error) {
	err = d.inTx(ctx, func(tx *txn) error {
		if c.Ahead {
			// Its time is over, so the answer takes its place before anybody sees it.
			if err := keep(ctx, tx, c, integration.Answer{Status: 200, Body: []byte("null")}, 0); err != nil {
				return err
			}
		}
		if a, err = write(writer{tx}); err != nil || c.Key == "" {
			return err
		}
		return keep(ctx, tx, c, a, integration.KeyLifetime)
	})
	if err == nil {
		return a, false, nil
	}
	// What was in the way may be what another did with the same key.
	if kept, found, again := d.Answered(ctx, c); found || errors.Is(again, integration.ErrKeyReused) {
		return kept, found, again
	}
	return integration.Answer{}, false, err
}

// keep keeps an answer under a key, waiting for another that is about to. Error: errAnswered if the key holds an answer whose time is
// not over.
func keep(ctx context.Context, tx *txn, c integration.Claim, a integration.Answer, lifetime time.Duration) error {
	const query = `
		INSERT INTO edgvoip.idempotency_keys AS k (tenant_id, key, request_sha256, response_status, response_body, expires_at)
		VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
		ON CONFLICT (tenant_id, key) DO UPDATE
		   SET request_sha256 = excluded.request_sha256, response_status = excluded.response_status, response_body = excluded.response_body,
		       created_at = now(), expires_at = excluded.expires_at
		 WHERE k.expires_at <= now()`
	res, err := tx.ExecContext(ctx, query, c.TenantID, c.Key, c.Digests[0], a.Status, string(a.Body), lifetime.Seconds())
	if err != nil {
		return fmt.Errorf("keep answer: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return fmt.Errorf("keep answer: %w", err)
	} else if n == 0 {
		return unavailable{errAnswered}
	}
	return nil
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
