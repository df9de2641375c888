package main

import (
	"database/sql"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// A transaction that is open when a process starts makes it distrust everything a second time, once it is over. That
// takes nothing out of the snapshot, whenever the process ends, be it that all was preloaded or asked for.
func TestSnapshotWithTransactionOpenAtStart(t *testing.T) {
	t.Parallel()
	list := questions(t)
	for name, preload := range map[string]bool{"asked for": false, "preloaded": true} {
		for when, over := range map[string]bool{"open": false, "over": true} {
			t.Run(name+", "+when, func(t *testing.T) {
				t.Parallel()
				direct := testdb.New(t)
				populateTables(t, direct)
				w, dsn := newWire(t, direct)
				env := []string{"DATABASE_URL=" + dsn, "XMLCURL_SNAPSHOT_FILE=" + filepath.Join(t.TempDir(), "snapshot")}
				foreign := openTransaction(t, direct)

				first := start(t, append(env, "XMLCURL_PRELOAD="+strconv.FormatBool(preload))...)
				if preload {
					first.until("all is read", func() bool { return strings.Contains(first.log.String(), `"msg":"preloaded"`) })
				} else {
					first.answers(list)
				}
				distrusted := first.distrusted()
				if over {
					if err := foreign.Rollback(); err != nil {
						t.Fatal(err)
					}
					first.until("all is distrusted again", func() bool { return first.distrusted() > distrusted })
				}
				w.set(refusing)
				first.answers(list)
				first.end()

				second := start(t, env...)
				second.answers(list)
				second.refusesUnknown()
				w.set(passing)
				spareOf(0).change(t, direct)
				second.until("it follows again", func() bool { return second.age() < 3 })
				second.answers(list)
			})
		}
	}
}

// openTransaction returns a transaction that has a number, as one has that writes.
func openTransaction(t *testing.T, dsn string) *sql.Tx {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback(); _ = db.Close() })
	if _, err := tx.ExecContext(t.Context(), `SELECT pg_current_xact_id()`); err != nil {
		t.Fatal(err)
	}
	return tx
}

// A failover that loses the history in which an extension was made takes it away also where it was only asked for, and
// not read with all others: at once while there is a database, and when that goes away again.
func TestFailoverLosesWhatWasAskedFor(t *testing.T) {
	t.Parallel()
	direct := testdb.New(t)
	populateTables(t, direct)
	w, dsn := newWire(t, direct)
	x := start(t, "DATABASE_URL="+dsn, "XMLCURL_CHANGES_INTERVAL=100ms")
	realm := realmOf(tenants[0].slug)
	late := registration(t, realm, "1999")
	db, err := sql.Open("postgres", direct)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1) // what is set of a session stays
	tables := storetest.SQL{TB: t, DB: db}
	heard := func() float64 { return x.metric("xmlcurl_change_lag_seconds_count") }
	before := heard()
	tables.AddExtension(storetest.Extension(tenants[0].slug, realm, "1999", "1999"))
	has := func() bool {
		status, doc := x.lookup(late)
		if status != http.StatusOK {
			t.Fatalf("%d: %s", status, doc)
		}
		return strings.Contains(doc, "a1-hash")
	}
	x.until("it is heard of", func() bool { return heard() > before })
	x.until("it is there", has)

	// The history after a mark is gone, as on a server that was promoted before it got it.
	tables.Exec(`SET session_replication_role = replica`) // no triggers
	tables.Exec(`WITH gone AS (DELETE FROM edgvoip.sip_extensions WHERE extension = '1999' RETURNING id)
		DELETE FROM edgvoip.sip_names WHERE extension_id IN (SELECT id FROM gone)`)
	tables.Exec(`DELETE FROM edgvoip.changes WHERE '1999' = ANY (names)`)
	x.until("it is gone", func() bool { return !has() })
	w.set(refusing)
	x.until("the data grow old", func() bool { return x.age() > 2 })
	if status, doc := x.lookup(late); status != http.StatusServiceUnavailable {
		t.Errorf("without the database: %d, want 503\n%s", status, doc)
	}
}
