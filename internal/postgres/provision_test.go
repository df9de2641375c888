package postgres_test

import (
	"slices"
	"testing"

	"github.com/lib/pq"
)

// What an extension does to its own names is told with it, once, whether it is new, has another name or is gone.
func TestExtensionIsToldOfOnce(t *testing.T) {
	t.Parallel()
	_, db := scene(t)
	told := func(change string) (names [][]string) {
		t.Helper()
		var last int64
		if err := db.QueryRowContext(t.Context(), `SELECT max(id) FROM edgvoip.changes`).Scan(&last); err != nil {
			t.Fatal(err)
		}
		exec1(t, db, change)
		rows, err := db.QueryContext(t.Context(), `SELECT names FROM edgvoip.changes WHERE id > $1 AND subject = 'extension' AND domain_id IS NOT NULL ORDER BY names`, last)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var n []string
			if err := rows.Scan((*pq.StringArray)(&n)); err != nil {
				t.Fatal(err)
			}
			names = append(names, n)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return names
	}
	const insert = `
		INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
		SELECT tenant_id, gen_random_uuid(), domain_id, '7001', 'Zoe', 'Zoe', password_hash, '', '', '' FROM edgvoip.sip_extensions WHERE extension = '1003'`
	for _, tc := range []struct {
		change string
		want   [][]string
	}{
		{insert, [][]string{{"7001", "zoe"}}},
		{`UPDATE edgvoip.sip_extensions SET sip_username = 'zora' WHERE extension = '7001'`, [][]string{{"7001", "zoe"}, {"7001", "zora"}}},
		{`UPDATE edgvoip.sip_extensions SET status = 'deleted' WHERE extension = '7001'`, [][]string{{"7001", "zora"}}},
		{`DELETE FROM edgvoip.sip_extensions WHERE extension = '7001'`, [][]string{{"7001", "zora"}}},
	} {
		if got := told(tc.change); !slices.EqualFunc(got, tc.want, slices.Equal[[]string]) {
			t.Errorf("%s\ntells %v, want %v", tc.change, got, tc.want)
		}
	}
}
