package postgres_test

import (
	"fmt"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// A lookup that goes to PostgreSQL, beside 1 000 and beside 1 000 000 extensions in 1 000 domains: the second may take
// at most one and a half times the first (docs/performance.md). Each lookup is for another extension, so nothing but
// the server's own buffers helps.
func BenchmarkColdLookup(b *testing.B) {
	for _, extensions := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("extensions=%d", extensions), func(b *testing.B) {
			dsn, db := scene(b)
			const domains = 1_000
			// The trigger that keeps names works row by row; here both tables are filled in one go.
			exec1(b, db, `ALTER TABLE edgvoip.sip_extensions DISABLE TRIGGER keep_sip_names`)
			exec1(b, db, `INSERT INTO edgvoip.sip_domains (tenant_id, id, realm)
				SELECT $1, gen_random_uuid(), 'd' || n || '.example' FROM generate_series(1, $2) AS n`, storetest.TenantID("tenant-a"), domains)
			exec1(b, db, `INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash,
					ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
				SELECT d.tenant_id, gen_random_uuid(), d.id, n::text, n::text, 'Ext ' || n, '$argon2id$', decode(repeat('00', 60), 'hex'), decode(repeat('00', 92), 'hex'), 'test'
				  FROM edgvoip.sip_domains d, generate_series(1000, 999 + $1::int) AS n WHERE d.realm LIKE 'd%'`, extensions/domains)
			exec1(b, db, `INSERT INTO edgvoip.sip_names SELECT e.tenant_id, e.domain_id, e.extension, e.id FROM edgvoip.sip_extensions e ON CONFLICT DO NOTHING`)
			exec1(b, db, `VACUUM ANALYZE edgvoip.sip_extensions, edgvoip.sip_names, edgvoip.sip_domains`)
			// Cold is what xmlcurl has not seen; a server in use has its indexes in memory.
			exec1(b, db, `CREATE EXTENSION pg_prewarm`)
			exec1(b, db, `SELECT pg_prewarm(c.oid) FROM pg_class c WHERE relnamespace = 'edgvoip'::regnamespace AND relname ~ '^sip_(extensions|names|domains)'`)
			store, _ := open(b, dsn, "edgvoip_xmlcurl")
			names := make([]fstext.Username, extensions/domains)
			for i := range names {
				names[i] = storetest.Username(fmt.Sprint(1000 + i))
			}
			realms := make([]fstext.Realm, domains)
			for i := range realms {
				realms[i] = storetest.Realm(fmt.Sprintf("d%d.example", i+1))
			}
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += 7919 // a prime: visits all, in no order that helps
				if _, _, err := store.Extension(b.Context(), realms[n%domains], names[n/domains%len(names)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
