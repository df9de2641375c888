package postgres_test

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// crowd writes call records of four months, a few of which concern the number 393331112222.
func (l ledger) crowd(many int) {
	l.Helper()
	exec1(l, l.look, `SELECT edgvoip.ensure_cdr_partitions((now() - interval '3 months')::date, 4)`)
	exec1(l, l.look, `
		INSERT INTO edgvoip.cdr (tenant_id, call_id, start_time, "from", "to", answered_by, transferred_to, direction, disposition, raw)
		SELECT CASE n % 10 WHEN 0 THEN $2::uuid ELSE $1::uuid END, md5(n::text)::uuid, date_trunc('second', now()) - n % 80 * interval '1 day',
		       CASE n % 1000 WHEN 7 THEN '+393331112222' WHEN 57 THEN '393331112222' ELSE '1' || n END,
		       CASE n % 1000 WHEN 17 THEN '+393331112222' ELSE '+442' || n END,
		       CASE n % 1000 WHEN 17 THEN '+393331112222' WHEN 27 THEN '393331112222' WHEN 7 THEN '393331112222' ELSE '' END,
		       CASE n % 1000 WHEN 37 THEN '+393331112222' ELSE '' END,
		       CASE n % 2 WHEN 0 THEN 'inbound' ELSE 'outbound' END, CASE n % 4 WHEN 3 THEN 'busy' ELSE 'answered' END, '{}'
		  FROM generate_series(1, $3::int) AS n`, tenantA, storetest.TenantID("tenant-b"), many)
	exec1(l, l.look, `ANALYZE edgvoip.cdr`)
}

// A number is found wherever it stands in a record, once, newest first, page by page, with the other filters and
// without.
func TestCallsOfNumber(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.crowd(20_000)
	for name, f := range map[string]cdr.Filter{
		"alone":             {Number: "+393331112222"},
		"without plus":      {Number: "393331112222"},
		"with a direction":  {Number: "393331112222", Direction: cdr.Outbound},
		"with an end":       {Number: "393331112222", Disposition: cdr.Busy},
		"in a time":         {Number: "+393331112222", From: time.Now().Add(-40 * 24 * time.Hour), To: time.Now().Add(-20 * 24 * time.Hour)},
		"none, as nobody's": {Number: "393331112223"},
		"none of a store":   {Number: "393331112222", StoreID: uuid.New()},
		"only a plus":       {Number: "+", From: time.Now().Add(-36 * time.Hour)},
		"nothing but times": {From: time.Now().Add(-36 * time.Hour)},
	} {
		all, err := l.db.Calls(t.Context(), tenantA, withLimit(f, 100_000))
		if err != nil {
			t.Fatal(err)
		}
		var want int
		if err := l.look.QueryRowContext(t.Context(), `
			SELECT count(*) FROM edgvoip.cdr WHERE tenant_id = $1 AND ($2 IN ('', '+') OR ltrim($2, '+') IN (ltrim("from", '+'), ltrim("to", '+'), ltrim(answered_by, '+'), ltrim(transferred_to, '+')))
			   AND ($3 = '' OR direction = $3) AND ($4 = '' OR disposition = $4) AND ($5::uuid IS NULL OR store_id = $5)
			   AND ($6::timestamptz IS NULL OR start_time >= $6) AND ($7::timestamptz IS NULL OR start_time < $7)`,
			tenantA, f.Number, string(f.Direction), string(f.Disposition), orNull(f.StoreID), orNull(f.From), orNull(f.To)).Scan(&want); err != nil {
			t.Fatal(err)
		}
		if len(all) != want || (want == 0) != strings.HasPrefix(name, "none") {
			t.Errorf("%s: %d calls, want %d", name, len(all), want)
		}
		if !slices.IsSortedFunc(all, func(a, b cdr.Record) int {
			return cmp.Or(b.Start.Compare(a.Start), strings.Compare(b.ID.String(), a.ID.String()))
		}) {
			t.Errorf("%s: not the newest first", name)
		}
		if paged := l.pages(withLimit(f, 7)); !slices.Equal(paged, all) {
			t.Errorf("%s: %d calls by pages, %d at once", name, len(paged), len(all))
		}
	}
}

func withLimit(f cdr.Filter, limit int) cdr.Filter {
	f.Limit = limit
	return f
}

func orNull[T comparable](v T) any {
	if v == *new(T) {
		return nil
	}
	return v
}

// pages reads all calls page by page.
func (l ledger) pages(f cdr.Filter) []cdr.Record {
	l.Helper()
	var all []cdr.Record
	for {
		page, err := l.db.Calls(l.Context(), tenantA, f)
		if err != nil {
			l.Fatal(err)
		}
		if all = append(all, page...); len(page) < f.Limit {
			return all
		}
		last := page[len(page)-1]
		f.Before.Start, f.Before.ID = last.Start, last.ID
	}
}

// Among many calls those of a number are found by an index of each place where it may stand, and nothing else is read.
func TestPlanOfCallsOfNumber(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	l.crowd(50_000)
	query, args := postgres.CallsQuery(tenantA, cdr.Filter{Number: "+393331112222", Limit: 10})
	// As text, which explain takes no parameters for.
	for i := len(args); i > 0; i-- {
		query = strings.ReplaceAll(query, fmt.Sprintf("$%d", i), literal(args[i-1]))
	}
	plan := explain(t, l.look, query)
	// An empty partition has no index worth a look.
	if strings.Contains(plan, "Rows Removed by Filter") || regexp.MustCompile(`Seq Scan on \w+ \w+ \(actual rows=[1-9]`).MatchString(plan) {
		t.Errorf("rows are read that are not wanted:\n%s", plan)
	}
	for _, place := range []string{`"from"`, `"to"`, "answered_by", "transferred_to"} {
		if !regexp.MustCompile(`Index Cond: .*ltrim\(` + place + `, `).MatchString(plan) {
			t.Errorf("no index of %s:\n%s", place, plan)
		}
	}
}

func literal(v any) string {
	switch v := v.(type) {
	case int:
		return fmt.Sprint(v)
	case string:
		return "'" + v + "'"
	case uuid.UUID:
		return "'" + v.String() + "'::uuid"
	}
	return "NULL"
}
