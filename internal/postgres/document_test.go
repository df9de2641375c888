package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
)

// Documents that come at the same time share statements: each is told what became of it alone. One that the database
// does not take costs nobody else his, and of two that are the same, one is added.
func TestKeepDocumentsTogether(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const many = 200
	added, errs := make([]bool, many), make([]error, many)
	posted := func(i int) cdr.Posted {
		p := cdr.Posted{Source: cdr.SourcePost, Sender: "test", ContentType: "application/json", Body: fmt.Appendf(nil, "{\"\x00:%d}", i/2)}
		if i%10 == 0 {
			p.Sender = strings.Repeat("x", 261) // longer than the column allows
		}
		return p
	}
	// A lock that all have to wait for, so that they wait together.
	release := l.lockDocuments()
	var posters sync.WaitGroup
	for i := range many {
		posters.Go(func() { added[i], errs[i] = l.db.KeepDocument(l.Context(), posted(i)) })
	}
	release()
	posters.Wait()
	for i := range many {
		switch {
		case i%10 == 0 && errs[i] == nil:
			t.Errorf("%d: a sender of 261 bytes is taken", i)
		case i%10 != 0 && errs[i] != nil:
			t.Errorf("%d: %v", i, errs[i])
		case i%10 == 1 && !added[i]:
			t.Errorf("%d is a duplicate, of one that was refused", i)
		case i%10 != 0 && i%2 == 0 && added[i] == added[i+1]:
			t.Errorf("%d and %d are the same, added: %v", i, i+1, added[i])
		}
	}
	l.want("documents", `SELECT count(*) FROM edgvoip.cdr_documents`, fmt.Sprint(many/2))
	l.want("documents as they came", `SELECT count(*) FROM edgvoip.cdr_documents WHERE body = '\x7b22003a377d'`, "1")
}

// Whoever's time is over is told so, and what he sent is neither lost on the others nor written from memory that is his
// again.
func TestKeepDocumentInTime(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	release := l.lockDocuments()
	body := []byte("{1}")
	ctx, cancel := context.WithTimeout(l.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.db.KeepDocument(ctx, cdr.Posted{Source: cdr.SourcePost, Body: body}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an answer while the database is busy: %v", err)
	}
	copy(body, "{2}")
	release()
	if added, err := l.db.KeepDocument(l.Context(), cdr.Posted{Source: cdr.SourcePost, Body: []byte("{3}")}); !added || err != nil {
		t.Errorf("the next: %v %v", added, err)
	}
	l.want("documents that nobody sent", `SELECT count(*) FROM edgvoip.cdr_documents WHERE body = '{2}'`, "0")
}

// lockDocuments keeps everybody from writing documents until the function that it returns is called.
func (l ledger) lockDocuments() (release func()) {
	l.Helper()
	tx, err := l.look.BeginTx(l.Context(), nil)
	if err == nil {
		_, err = tx.ExecContext(l.Context(), `LOCK TABLE edgvoip.cdr_documents`)
	}
	if err != nil {
		l.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			l.Error(err)
		}
	}
}
