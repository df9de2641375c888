package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/lib/pq"
)

// unavailable is a fault of the server that passes: whoever asks again a little later may have his answer. Its method
// is how those know it that do not know this package.
type unavailable struct{ error }

// Unavailable says that it passes.
func (unavailable) Unavailable() bool { return true }

// Unwrap returns the server's own error.
func (u unavailable) Unwrap() error { return u.error }

// passing are the classes of SQLSTATE that say nothing of the statement, but of the server and its other clients:
// connection exception, transaction rollback (deadlock, serialization), insufficient resources (too many connections),
// operator intervention (statement timeout, restart).
var passing = []string{"08", "40", "53", "57"}

// faulty marks an error of the server that passes as unavailable. Others, and nil, are returned as they are.
func faulty(err error) error {
	if pe, ok := errors.AsType[*pq.Error](err); ok && slices.Contains(passing, string(pe.Code.Class())) {
		return unavailable{err}
	}
	return err
}

// conflictAttempts is how often a transaction is tried that others are in the way of.
const conflictAttempts = 5

// repeated is inTx for what several do to the same rows at the same time. Locks are taken in one order as far as is
// known beforehand of what; a call that turns out to be another's, or related to another, is locked later, and two who
// do so may wait for each other. The server then ends one of them, with an SQLSTATE of class 40, and nothing of that
// one is done: f runs again, and must begin anew.
func (d *DB) repeated(ctx context.Context, f func(*txn) error) (err error) {
	for range conflictAttempts {
		err = d.inTx(ctx, f)
		if pe, ok := errors.AsType[*pq.Error](err); !ok || pe.Code.Class() != "40" {
			return err
		}
	}
	return err
}
