package api_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/edgvoip/edgvoip/internal/testdb"
)

// wire is a road to the database on which somebody listens.
type wire struct {
	mu      sync.Mutex
	queries []string // that were run, in order
}

// newWire returns a wire to the server of a connection string, and the connection string through it.
func newWire(t testing.TB, dsn string) (*wire, string) {
	t.Helper()
	w := &wire{}
	return w, testdb.Wire(t, dsn, w.carry)
}

// heard returns the queries that were run since it was called last, in order of their texts: a request may run some at
// once.
func (w *wire) heard() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	queries := w.queries
	w.queries = nil
	slices.Sort(queries)
	return queries
}

// carry carries one connection until either side ends.
func (w *wire) carry(client, server net.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		defer func() { _ = errors.Join(server.Close(), client.Close()) }()
		_, _ = io.Copy(client, server)
	})
	both.Go(func() {
		defer func() { _ = errors.Join(server.Close(), client.Close()) }()
		w.listen(server, client)
	})
	both.Wait()
}

// listen carries what a client says, and writes down the queries that it has run.
func (w *wire) listen(server io.Writer, client io.Reader) {
	texts := map[string]string{} // by the name of a prepared statement
	running := ""
	for head := make([]byte, 4); ; {
		// The first message has no type: it says who is there.
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		body := make([]byte, int(binary.BigEndian.Uint32(head[len(head)-4:]))-4)
		if _, err := io.ReadFull(client, body); err != nil {
			return
		}
		if len(head) == 5 {
			parts := bytes.SplitN(body, []byte{0}, 3)
			switch head[0] {
			case 'P': // of a statement: name, text
				texts[string(parts[0])] = string(parts[1])
			case 'B': // of a run: portal, name of a statement
				running = texts[string(parts[1])]
			case 'E':
				w.note(running)
			case 'Q':
				w.note(string(parts[0]))
			}
		}
		if _, err := server.Write(append(bytes.Clone(head), body...)); err != nil {
			return
		}
		head = make([]byte, 5)
	}
}

func (w *wire) note(query string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, query)
}
