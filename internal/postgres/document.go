package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
)

// Bounds on the documents that are written by one statement, and on the statements that write at the same time.
const (
	documentsAtOnce     = 32
	documentBytesAtOnce = 4 << 20
	documentWriters     = 2
)

// KeepDocument stores a document as it came, before anybody reads it, and returns when that is committed. It returns false for
// one that is there already.
func (d *DB) KeepDocument(ctx context.Context, p cdr.Posted) (added bool, err error) {
	// Whoever posts may be told that his time is over while his document is being written, and use its memory anew.
	p.Body = bytes.Clone(p.Body)
	return d.documents.keep(ctx, &posting{Posted: p, sum: sha256.Sum256(p.Body), done: make(chan struct{})})
}

// posting is a document on its way into the database.
type posting struct {
	cdr.Posted
	sum [sha256.Size]byte
	// Closed when added and err say what became of it.
	done  chan struct{}
	added bool
	err   error
}

// documentWriter writes documents. One that comes alone is written at once; those that come while others are being written
// wait for these and share a statement, as a statement and its commit cost the server more than a row.
type documentWriter struct {
	// db sends documents as bytes; the pool of everything else sends them as text of twice the length.
	db *DB

	mu      sync.Mutex
	waiting []*posting
	writers int
}

func (w *documentWriter) keep(ctx context.Context, p *posting) (bool, error) {
	w.mu.Lock()
	w.waiting = append(w.waiting, p)
	if w.writers < documentWriters {
		w.writers++
		go w.write(context.WithoutCancel(ctx))
	}
	w.mu.Unlock()
	select {
	case <-p.done:
		return p.added, p.err
	case <-ctx.Done():
		w.forget(p)
		return false, ctx.Err()
	}
}

// forget takes a document back that nobody waits for, unless it is being written.
func (w *documentWriter) forget(p *posting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = slices.DeleteFunc(w.waiting, func(other *posting) bool { return other == p })
}

// write writes until nothing waits.
func (w *documentWriter) write(ctx context.Context) {
	for batch := w.next(); len(batch) > 0; batch = w.next() {
		w.settle(ctx, batch)
		for _, p := range batch {
			close(p.done)
		}
	}
}

// next takes what is written next; nothing ends the writer.
func (w *documentWriter) next() []*posting {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, size := 0, 0
	for n < len(w.waiting) && n < documentsAtOnce && (n == 0 || size+len(w.waiting[n].Body) <= documentBytesAtOnce) {
		size += len(w.waiting[n].Body)
		n++
	}
	if n == 0 {
		w.writers--
	}
	batch := slices.Clone(w.waiting[:n])
	w.waiting = slices.Delete(w.waiting, 0, n)
	return batch
}

// settle writes documents and notes what became of each. If the database does not take one of them, the others are written
// without it.
func (w *documentWriter) settle(ctx context.Context, batch []*posting) {
	err := w.insert(ctx, batch)
	if err == nil {
		return
	}
	_, theirs := errors.AsType[*pq.Error](err)
	_, passes := errors.AsType[unavailable](err)
	if theirs && !passes && len(batch) > 1 {
		for _, p := range batch {
			w.settle(ctx, []*posting{p})
		}
		return
	}
	for _, p := range batch {
		p.err = fmt.Errorf("keep document: %w", err)
	}
}

// insert writes documents in one statement: all of them or, with an error, none.
func (w *documentWriter) insert(ctx context.Context, batch []*posting) error {
	// In one order, so that two that write the same documents do not wait for each other.
	slices.SortStableFunc(batch, func(a, b *posting) int { return bytes.Compare(a.sum[:], b.sum[:]) })
	args := make([]any, 0, postedColumns*len(batch))
	for _, p := range batch {
		args = append(args, p.sum[:], nullID(p.LegID), p.Source, p.Sender, p.ContentType, p.Body)
	}
	stmt, err := w.db.prepared(ctx, insertDocuments[len(batch)])
	if err != nil {
		return faulty(err)
	}
	var added [][]byte
	if err := stmt.SelectContext(ctx, &added, args...); err != nil {
		return faulty(err)
	}
	for i, p := range batch {
		// Of two that are the same, one is added.
		twice := i > 0 && batch[i-1].sum == p.sum
		p.added = !twice && slices.ContainsFunc(added, func(sum []byte) bool { return bytes.Equal(sum, p.sum[:]) })
	}
	return nil
}

const postedColumns = 6

// insertDocuments are the statements that write so many documents.
var insertDocuments = func() (list [documentsAtOnce + 1]string) {
	for n := 1; n <= documentsAtOnce; n++ {
		rows := make([]string, n)
		for i := range rows {
			columns := make([]string, postedColumns)
			for j := range columns {
				columns[j] = "$" + strconv.Itoa(i*postedColumns+j+1)
			}
			rows[i] = "(" + strings.Join(columns, ", ") + ")"
		}
		list[n] = `INSERT INTO edgvoip.cdr_documents (sha256, leg_id, source, sender, content_type, body) VALUES ` + strings.Join(rows, ", ") +
			` ON CONFLICT (sha256) DO NOTHING RETURNING sha256`
	}
	return list
}()
