package main

import (
	"database/sql"
	"testing"

	"github.com/edgvoip/edgvoip/internal/testdb"
)

// What an operator compares with the list of changes: a change that may still be committed holds it back.
func TestHeard(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	populateTables(t, dsn)
	x := start(t, "DATABASE_URL="+dsn, "XMLCURL_CHANGES_INTERVAL=100ms")
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	last := func() (id float64) {
		if err := db.QueryRowContext(t.Context(), `SELECT max(id) FROM edgvoip.changes`).Scan(&id); err != nil {
			t.Fatal(err)
		}
		return id
	}
	heard := func() float64 { return x.metric("xmlcurl_change_heard") }
	x.until("all is heard of", func() bool { return heard() == last() })

	const rename = `UPDATE edgvoip.tenants SET name = name || '.' WHERE slug = $1`
	before, applied := last(), x.metric("xmlcurl_change_lag_seconds_count")
	tx := openTransaction(t, dsn)
	if _, err := tx.ExecContext(t.Context(), rename, tenants[0].slug); err != nil {
		t.Fatal(err)
	}
	execute(t, dsn, rename, tenants[1].slug)
	x.until("the change of another tenant is heard of", func() bool { return x.metric("xmlcurl_change_lag_seconds_count") > applied })
	if got := heard(); got != before {
		t.Errorf("all is heard up to %.0f, and what comes after %.0f is not committed", got, before)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	x.until("both are heard of", func() bool { return heard() == last() && last() == before+2 })
}
