package postgres

import (
	"errors"
	"slices"

	"github.com/lib/pq"
)

// unavailable is a fault of the server that passes: whoever asks again a little later may have his answer. Its method is
// how those know it that do not know this package.
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
