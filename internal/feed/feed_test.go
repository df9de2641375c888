package feed_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgvoip/edgvoip/internal/feed"
)

// history is a database as far as a follower can see it: transactions that take numbers in any order, and what is left of them
// when they are over.
type history struct {
	rows   []feed.Change // in the order in which they were committed
	open   []*transaction
	nextID int64
	nextTx uint64
	lastTx uint64 // the highest ever given
	given  map[feed.Mark]bool
	serial int
	kept   int // of rows, those that were there when others were pruned: no failover loses them and not that
	// pages are given before reads fail; negative for no end.
	pages int
}

// transaction is one that is not over, with what it has written.
type transaction struct {
	tx   uint64
	rows []feed.Change
}

var errAway = errors.New("server is away")

func mark(c feed.Change) feed.Mark { return feed.Mark{ID: c.ID, Tx: c.Tx} }

// Changes implements feed.Source.
func (h *history) Changes(_ context.Context, after, late feed.Mark, missing []feed.Span, limit int) (feed.Page, error) {
	if h.pages == 0 {
		return feed.Page{}, errAway
	}
	h.pages--
	p := feed.Page{Oldest: h.nextTx, Next: h.nextTx, MarkFound: h.has(after) && (late == feed.Mark{} || h.has(late))}
	for _, t := range h.open {
		p.Oldest = min(p.Oldest, t.tx)
	}
	newer := 0
	for _, c := range slices.SortedFunc(slices.Values(h.rows), func(a, b feed.Change) int { return cmp.Compare(a.ID, b.ID) }) {
		p.Head = mark(c)
		if c.ID > after.ID {
			newer++
		}
		appeared := slices.ContainsFunc(missing, func(s feed.Span) bool { return s.First <= c.ID && c.ID <= s.Last })
		if appeared || c.ID > after.ID && newer <= limit {
			p.Changes = append(p.Changes, c)
		}
	}
	return p, nil
}

// PruneChanges implements feed.Source.
func (*history) PruneChanges(context.Context, time.Duration) (int, error) { return 0, nil }

// ListenForChanges implements feed.Source.
func (*history) ListenForChanges(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

func (h *history) has(m feed.Mark) bool {
	return slices.ContainsFunc(h.rows, func(c feed.Change) bool { return mark(c) == m })
}

func (h *history) begin() *transaction {
	t := &transaction{tx: h.nextTx}
	h.lastTx = max(h.lastTx, h.nextTx)
	h.nextTx++
	h.open = append(h.open, t)
	return t
}

// write makes a transaction take the next number.
func (h *history) write(t *transaction) {
	for h.given[feed.Mark{ID: h.nextID, Tx: t.tx}] {
		h.nextID++
	}
	h.serial++
	c := feed.Change{ID: h.nextID, Tx: t.tx, Subject: feed.SubjectExtension, Names: []string{strconv.Itoa(h.serial)}}
	h.given[mark(c)] = true
	h.nextID++
	t.rows = append(t.rows, c)
}

func (h *history) commit(t *transaction) {
	h.rows = append(h.rows, t.rows...)
	h.rollback(t)
}

func (h *history) rollback(t *transaction) {
	h.open = slices.DeleteFunc(h.open, func(o *transaction) bool { return o == t })
}

// failover loses the last transactions that were committed, and all that are open. Numbers go on after the last that is left.
func (h *history) failover(transactions int) (lost []feed.Change) {
	h.open = nil
	for range transactions {
		if len(h.rows) == h.kept {
			break
		}
		last := h.rows[len(h.rows)-1].Tx
		for len(h.rows) > h.kept && h.rows[len(h.rows)-1].Tx == last {
			lost = append(lost, h.rows[len(h.rows)-1])
			h.rows = h.rows[:len(h.rows)-1]
		}
	}
	h.nextID, h.nextTx = 1, 700
	for _, c := range h.rows {
		h.nextID, h.nextTx = max(h.nextID, c.ID+1), max(h.nextTx, c.Tx+1)
	}
	return lost
}

// oldest returns rows with the lowest numbers, never the newest of all.
func (h *history) oldest(n int) []feed.Change {
	sorted := slices.SortedFunc(slices.Values(h.rows), func(a, b feed.Change) int { return cmp.Compare(a.ID, b.ID) })
	return sorted[:max(0, min(n, len(sorted)-1))]
}

func (h *history) remove(rows []feed.Change) {
	h.rows = slices.DeleteFunc(h.rows, func(c feed.Change) bool {
		return slices.ContainsFunc(rows, func(r feed.Change) bool { return mark(r) == mark(c) })
	})
	h.kept = len(h.rows)
}

// debtor is a reader that knows what it must still be told of.
type debtor struct {
	owed    map[string]bool
	forgets int
}

// Apply implements feed.Reader.
func (d *debtor) Apply(changes []feed.Change) {
	for _, c := range changes {
		delete(d.owed, c.Names[0])
	}
}

// Forget implements feed.Reader.
func (d *debtor) Forget() {
	clear(d.owed)
	d.forgets++
}

// Synced implements feed.Reader.
func (*debtor) Synced(time.Time) {}

// Behind implements feed.Reader.
func (*debtor) Behind(time.Duration) {}

// machine is a history, somebody who follows it, and whom he tells.
type machine struct {
	*history
	*debtor
	follower *feed.Follower
	// allowed is how often everything may be forgotten.
	allowed int
	// heard is the number up to which the follower said that it had told of all.
	heard int64
}

func newMachine() *machine {
	m := &machine{history: &history{nextID: 1, nextTx: 700, given: map[feed.Mark]bool{}, pages: -1}, debtor: &debtor{owed: map[string]bool{}}}
	m.follow(feed.Position{})
	return m
}

// follow begins anew, as another process would.
func (m *machine) follow(from feed.Position) {
	m.follower = feed.New(feed.Options{
		Source: m.history, Reader: m.debtor, Timeout: time.Minute, From: from, Log: slog.New(slog.DiscardHandler),
		Metrics: feed.Metrics{Heard: func(id int64) { m.heard = id }},
	})
	if from.Mark == (feed.Mark{}) {
		m.lose()
	}
}

// lose allows everything to be forgotten because the place in the list is not known, or not there any more: at once, when the
// transactions that are open then are over, and the same again where the list is empty and its first row comes.
func (m *machine) lose() {
	m.allowed += 2
	if len(m.rows) == 0 {
		m.allowed += 2
	}
}

func (m *machine) commit(t *transaction) {
	for _, c := range t.rows {
		m.owed[c.Names[0]] = true
	}
	m.history.commit(t)
}

func (m *machine) failover(transactions int) {
	lost := m.history.failover(transactions)
	m.lose()
	found := m.has(m.follower.Position().Mark)
	for _, c := range lost {
		if m.owed[c.Names[0]] {
			delete(m.owed, c.Names[0])
		} else if !found {
			m.owed["loss of "+c.Names[0]] = true // of which only Forget can tell
		}
	}
}

// prune removes old rows, but not those that somebody who is still in time has not read: they are kept for an hour.
func (m *machine) prune(n int) {
	rows, at := m.oldest(n), m.follower.Position()
	away := at.Mark == (feed.Mark{}) || slices.ContainsFunc(rows, func(c feed.Change) bool { return mark(c) == at.Mark })
	unread := slices.ContainsFunc(rows, func(c feed.Change) bool { return m.owed[c.Names[0]] })
	if unread && !away {
		return
	}
	// Also where the mark stays: what is removed may be the row that came late, as nothing is new enough here to be kept.
	m.lose()
	m.remove(rows)
}

// check tells what is wrong after a read that did not fail.
func (m *machine) check(t *rapid.T) {
	at := m.follower.Position()
	if at.Mark != (feed.Mark{}) && len(m.owed) > 0 {
		t.Errorf("never told of %v", m.owed)
	}
	if m.forgets > m.allowed {
		t.Errorf("%d times told to forget everything, want at most %d", m.forgets, m.allowed)
	}
	for _, tx := range m.open {
		if i := slices.IndexFunc(tx.rows, func(c feed.Change) bool { return c.ID <= m.heard }); i >= 0 {
			t.Errorf("all is heard up to %d, and %d is not committed", m.heard, tx.rows[i].ID)
		}
	}
	if future := func(g feed.Gap) bool { return g.Until > m.nextTx }; len(m.open) == 0 && len(at.Gaps) > 0 && !slices.ContainsFunc(at.Gaps, future) {
		t.Errorf("all transactions are over, and still looking for %+v", at.Gaps)
	}
}

// steps are what happens next, as often as it is in the list.
var steps = []string{
	"begin", "begin", "begin", "begin", "write", "write", "write", "commit", "commit", "commit", "rollback",
	"read", "read", "read", "read fails", "process restarts", "prune", "failover",
}

func (m *machine) step(t *rapid.T) {
	step := rapid.SampledFrom(steps).Draw(t, "step")
	var tx *transaction
	if len(m.open) > 0 {
		tx = m.open[rapid.IntRange(0, len(m.open)-1).Draw(t, "transaction")]
	} else if step == "write" || step == "commit" || step == "rollback" {
		step = "begin"
	}
	switch step {
	case "begin":
		m.write(m.begin())
	case "write":
		for range rapid.IntRange(1, 3).Draw(t, "rows") {
			m.write(tx)
		}
	case "commit":
		m.commit(tx)
	case "rollback":
		m.rollback(tx)
	case "read":
		if err := m.follower.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.check(t)
	case "read fails":
		m.pages = rapid.IntRange(0, 2).Draw(t, "pages before it fails")
		err := m.follower.Read(t.Context())
		m.pages = -1
		if err == nil {
			m.check(t)
		} else if !errors.Is(err, errAway) {
			t.Fatal(err)
		}
	case "process restarts":
		m.follow(m.follower.Position())
	case "prune":
		m.prune(rapid.IntRange(1, 10).Draw(t, "rows"))
	case "failover":
		if rapid.IntRange(0, 2).Draw(t, "failover") == 0 {
			m.failover(rapid.IntRange(0, 3).Draw(t, "transactions lost"))
		}
	}
}

// Whatever commits in whatever order, is rolled back, lost or pruned, and whenever reads fail or the process is another: after a
// read the reader has been told of each change, or to forget everything after it, and that no more often than it must be.
func TestEveryChangeIsTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			m.step(t)
		}
		for len(m.open) > 0 {
			m.commit(m.open[0])
		}
		m.nextTx = max(m.nextTx, m.lastTx+1) // what the history before a failover had begun
		for range 2 {
			if err := m.follower.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		m.check(t)
		if len(m.owed) > 0 {
			t.Errorf("never told of %v", m.owed)
		}
		if at := m.follower.Position(); m.heard != at.Mark.ID || len(at.Gaps) > 0 {
			t.Errorf("all is heard up to %d, want %+v", m.heard, at)
		}
	})
}

// A number that is taken first may be committed last: the reader is told of it then, and nobody looks for it any longer.
func TestOutOfOrder(t *testing.T) {
	t.Parallel()
	m := newMachine()
	read := func(gaps ...feed.Span) {
		t.Helper()
		if err := m.follower.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []feed.Span
		for _, g := range m.follower.Position().Gaps {
			got = append(got, g.Span)
		}
		if len(m.owed) > 0 || !slices.Equal(got, gaps) {
			t.Errorf("owed %v, looking for %v; want nothing and %v", m.owed, got, gaps)
		}
	}
	first := m.begin()
	m.write(first)
	m.commit(first)
	read()
	var tx [6]*transaction // which take the numbers from 2 on
	for i := range tx {
		tx[i] = m.begin()
		m.write(tx[i])
	}
	m.commit(tx[5])
	read(feed.Span{First: 2, Last: 6})
	m.commit(tx[2])
	read(feed.Span{First: 2, Last: 3}, feed.Span{First: 5, Last: 6})
	m.commit(tx[0])
	m.commit(tx[4])
	read(feed.Span{First: 3, Last: 3}, feed.Span{First: 5, Last: 5})
	m.rollback(tx[1])
	// As long as anybody is open who could hold number 3, it is looked for.
	read(feed.Span{First: 3, Last: 3}, feed.Span{First: 5, Last: 5})
	m.commit(tx[3])
	read()
	if m.forgets != 1 {
		t.Errorf("everything forgotten %d times, want once, at the start", m.forgets)
	}
}

// Who begins with an empty list, and is away until its first rows are gone again, has missed them.
func TestFirstRowsArePruned(t *testing.T) {
	t.Parallel()
	m := newMachine()
	if err := m.follower.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		tx := m.begin()
		m.write(tx)
		m.commit(tx)
	}
	m.remove(m.oldest(2))
	if err := m.follower.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(m.owed) > 0 {
		t.Errorf("never told of %v", m.owed)
	}
}

// What was told of late can be lost by a failover that keeps what is newer by number: it must be forgotten again.
func TestFailoverLosesWhatCameLate(t *testing.T) {
	t.Parallel()
	m := newMachine()
	read := func() {
		t.Helper()
		if err := m.follower.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Who begins with an empty list begins again with its first row.
	earlier := m.begin()
	m.write(earlier)
	m.commit(earlier)
	read()
	first, second := m.begin(), m.begin()
	m.write(first)
	m.write(second)
	m.commit(second)
	read()
	m.commit(first)
	read()
	before := m.forgets
	m.history.failover(1)
	read()
	if m.forgets == before {
		t.Error("what was told of is not true any more, and is believed")
	}
}
