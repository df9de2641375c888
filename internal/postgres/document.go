package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/cdr"
)

// Bounds on the documents that are written by one statement, and on the statements that write at the same time.
const (
	documentsAtOnce     = 32
	documentBytesAtOnce = 4 << 20
	documentWriters     = 3
)

// KeepDocument stores a document as it came, before anybody reads it, and returns when that is committed. It returns
// false for one that is there already.
func (d *DB) KeepDocument(ctx context.Context, p cdr.Posted) (added bool, err error) {
	// Whoever posts may be told that his time is over while his document is being written, and use its memory anew.
	own, _ := bodies.Get().(*bytes.Buffer)
	if own == nil {
		own = &bytes.Buffer{}
	}
	own.Write(p.Body)
	p.Body = own.Bytes()
	return d.documents.keep(ctx, &posting{Posted: p, own: own, sum: sha256.Sum256(p.Body), done: make(chan struct{})})
}

// bodies are buffers of documents that are written: without them, taking documents is mostly collecting their garbage.
var bodies sync.Pool

// largestReused bounds a buffer that is kept for another document.
const largestReused = 256 << 10

// posting is a document on its way into the database.
type posting struct {
	cdr.Posted
	own *bytes.Buffer // has the body
	sum [sha256.Size]byte
	// Closed when added and err say what became of it.
	done  chan struct{}
	added bool
	err   error
}

// documentWriter writes documents. One that comes alone is written at once; those that come while others are being
// written wait for these and share a statement, as a statement and its commit cost the server more than a row.
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
		// Nobody else has it any more.
		if p.own.Cap() <= largestReused {
			p.own.Reset()
			bodies.Put(p.own)
		}
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

// settle writes documents and notes what became of each. If the database does not take one of them, the others are
// written without it.
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
	stmt, err := w.db.prepared(ctx, insertDocuments)
	if err != nil {
		return faulty(err)
	}
	var added [][]byte
	if err := stmt.SelectContext(ctx, &added, columnsOf(batch)...); err != nil {
		return faulty(err)
	}
	for i, p := range batch {
		// Of two that are the same, one is added.
		twice := i > 0 && batch[i-1].sum == p.sum
		p.added = !twice && slices.ContainsFunc(added, func(sum []byte) bool { return bytes.Equal(sum, p.sum[:]) })
	}
	return nil
}

// insertDocuments writes documents that are given as an array a column, so that one statement writes however many there
// are.
const insertDocuments = `
	INSERT INTO edgvoip.cdr_documents (sha256, leg_id, source, sender, content_type, body)
	SELECT unnest($1::bytea[]), unnest($2::uuid[]), unnest($3::text[]), unnest($4::text[]), unnest($5::text[]), unnest($6::bytea[])
	ON CONFLICT (sha256) DO NOTHING RETURNING sha256`

func columnsOf(batch []*posting) []any {
	n := len(batch)
	sums, bodies, legs := make([][]byte, n), make([][]byte, n), make([]string, n)
	sources, senders, types := make(pq.StringArray, n), make(pq.StringArray, n), make(pq.StringArray, n)
	for i, p := range batch {
		sums[i], bodies[i], legs[i] = p.sum[:], p.Body, "NULL"
		if p.LegID != uuid.Nil {
			legs[i] = p.LegID.String()
		}
		sources[i], senders[i], types[i] = p.Source, p.Sender, p.ContentType
	}
	return []any{binaryArray(sums), "{" + strings.Join(legs, ",") + "}", sources, senders, types, binaryArray(bodies)}
}

// byteaOID is the type of bytea (pg_type.dat).
const byteaOID = 17

// binaryArray writes a bytea[] as the server reads it on a connection with binary parameters (arrayfuncs.c,
// array_recv): text would be twice as long, and driver and server would have to make it and read it.
func binaryArray(list [][]byte) []byte {
	size := 20
	for _, b := range list {
		size += 4 + len(b)
	}
	out := make([]byte, 0, size)
	// Dimensions, whether there are nulls, type, length, first index.
	for _, n := range []uint32{1, 0, byteaOID, uint32(len(list)), 1} { //nolint:gosec // of a batch, which is small
		out = binary.BigEndian.AppendUint32(out, n)
	}
	for _, b := range list {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(b))), b...) //nolint:gosec // of a request, which is bounded
	}
	return out
}
