package readmodel

import (
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// CreateBeside is what a snapshot is written to before it takes its place.
var CreateBeside = createBeside

// Write writes a snapshot as Save does.
var Write = (*Model).write

// Fill keeps so many extensions of a domain, as if they had been read just now.
func (m *Model) Fill(domain uuid.UUID, n int) {
	for i := range n {
		k := extensionKey{domain, strconv.Itoa(i)}
		m.extensions.put(k, m.names.hash(k.domain, k.name), record(strings.Repeat("x", 200)), m.seq.Load(), m.epoch.Load())
	}
}

// Trusted counts the extensions that are kept, and those of them that are answered without asking.
func (m *Model) Trusted() (kept, trusted int) {
	for _, e := range m.extensions.items.All() {
		if kept++; m.undoubted(e.epoch) && m.usable(e.epoch) {
			trusted++
		}
	}
	return kept, trusted
}
