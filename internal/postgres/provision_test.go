package postgres_test

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lib/pq"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/storetest"
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

// Of two with the same key the second has no effect and the first's answer, whatever its own write comes to; with the key of another
// request it is refused.
func TestKeyIsTakenMeanwhile(t *testing.T) {
	t.Parallel()
	dsn, look := scene(t)
	db, _ := open(t, dsn, "edgvoip_api")
	tenant, anna := storetest.TenantID("tenant-a"), storetest.ExtensionID("tenant-a.example", "1003")
	answerOf := func(s string) integration.Answer { return integration.Answer{Status: 201, Body: []byte(s)} }
	state := func() (s string) {
		t.Helper()
		const query = `
			SELECT (SELECT display_name || updated_at FROM edgvoip.sip_extensions WHERE id = $1)
			       || (SELECT count(*) FROM edgvoip.audit_log) || (SELECT count(*) FROM edgvoip.changes)`
		if err := look.QueryRowContext(t.Context(), query, anna).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	rename := func(w directory.Writer, name string) error {
		_, _, err := w.ChangeExtension(t.Context(), tenant, anna, directory.ExtensionChange{Name: new(storetest.Must(fstext.NewDisplayName(name)))}, "test")
		return err
	}
	for name, tc := range map[string]struct {
		digest byte
		write  func(directory.Writer) error
		want   error
	}{
		"it wrote too":                 {'a', func(w directory.Writer) error { return rename(w, "Second") }, nil},
		"it failed":                    {'a', func(directory.Writer) error { return directory.ErrDeleted }, nil},
		"it is another, and wrote too": {'b', func(w directory.Writer) error { return rename(w, "Second") }, integration.ErrKeyReused},
		"it is another, and failed":    {'b', func(directory.Writer) error { return directory.ErrDeleted }, integration.ErrKeyReused},
	} {
		claim := integration.Claim{TenantID: tenant, Key: name, Digests: [][]byte{bytes.Repeat([]byte{'a'}, 32)}}
		second := claim
		second.Digests = [][]byte{bytes.Repeat([]byte{tc.digest}, 32)}
		var before string
		got, replayed, err := db.Once(t.Context(), second, func(w directory.Writer) (integration.Answer, error) {
			if _, _, err := db.Once(t.Context(), claim, func(w directory.Writer) (integration.Answer, error) {
				return answerOf(`"first"`), rename(w, "First "+name)
			}); err != nil {
				t.Errorf("%s: the first: %v", name, err)
			}
			before = state()
			return answerOf(`"second"`), tc.write(w)
		})
		if !errors.Is(err, tc.want) || tc.want == nil && (err != nil || !replayed || string(got.Body) != `"first"`) {
			t.Errorf("%s: %s, replayed %v, %v", name, got.Body, replayed, err)
		}
		if now := state(); now != before {
			t.Errorf("%s: it had an effect: %s, before %s", name, now, before)
		}
	}
}

// A key that is taken ahead keeps a second write from beginning, and is free again after an error.
func TestKeyIsTakenAhead(t *testing.T) {
	t.Parallel()
	dsn, _ := scene(t)
	db, _ := open(t, dsn, "edgvoip_api")
	claim := integration.Claim{TenantID: storetest.TenantID("tenant-a"), Key: "k", Digests: [][]byte{bytes.Repeat([]byte{'a'}, 32)}, Ahead: true}
	failed := errors.New("failed")
	var running, writes atomic.Int64
	once := func(err error) (integration.Answer, bool, error) {
		return db.Once(t.Context(), claim, func(directory.Writer) (integration.Answer, error) {
			if running.Add(1) > 1 {
				t.Error("two write at once")
			}
			writes.Add(1)
			defer running.Add(-1)
			runtime.Gosched()
			return integration.Answer{Status: 200, Body: []byte(`"done"`)}, err
		})
	}
	if _, _, err := once(failed); !errors.Is(err, failed) {
		t.Errorf("an error is %v", err)
	}
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			if a, _, err := once(nil); err != nil || string(a.Body) != `"done"` {
				t.Errorf("%s, %v", a.Body, err)
			}
		})
	}
	group.Wait()
	if n := writes.Load(); n != 2 {
		t.Errorf("%d writes, want the one that failed and one more", n)
	}
}
