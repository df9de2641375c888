package readmodel_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/trunk"
)

// statements change each table that a lookup reads, in every way that SQL knows, one after the other. Foreign keys are
// gone, so that each changes its own table only; each changes the answer to some lookup.
var statements = map[string][]string{
	"tenants": {
		// Its domain is there already.
		`INSERT INTO edgvoip.tenants (id, slug, name, country) VALUES ('00000000-0000-0000-0000-0000000000aa', 'tenant-n', 'New', 'IT')`,
		`UPDATE edgvoip.tenants SET status = 'suspended' WHERE slug = 'tenant-a'`,
		`UPDATE edgvoip.tenants SET status = 'deleted' WHERE slug = 'tenant-b'`,
		`UPDATE edgvoip.tenants SET status = 'active'`,
		`UPDATE edgvoip.tenants SET country = 'DE', name = 'Anders' WHERE slug = 'tenant-a'`,
		`DELETE FROM edgvoip.tenants WHERE slug = 'tenant-b'`,
		`TRUNCATE edgvoip.tenants`,
	},
	"sip_domains": {
		`INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) SELECT id, gen_random_uuid(), 'late.example' FROM edgvoip.tenants WHERE slug = 'tenant-b'`,
		`UPDATE edgvoip.sip_domains SET status = 'disabled' WHERE realm = 'tenant-a.example'`,
		`UPDATE edgvoip.sip_domains SET status = 'deleted' WHERE realm = 'tenant-b.example'`,
		`UPDATE edgvoip.sip_domains SET status = 'active'`,
		`UPDATE edgvoip.sip_domains SET realm = 'other.example' WHERE realm = 'branch.tenant-a.example'`,
		`DELETE FROM edgvoip.sip_domains WHERE realm = 'tenant-a.example'`,
		`TRUNCATE edgvoip.sip_domains`,
	},
	"sip_extensions": {
		`INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
			SELECT tenant_id, gen_random_uuid(), id, '1077', 'Late.Comer', 'Late', '$argon2id$', '', '', 'k' FROM edgvoip.sip_domains WHERE realm = 'tenant-a.example'`,
		`UPDATE edgvoip.sip_extensions SET display_name = 'Somebody' WHERE extension = '1001'`,
		`UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE extension = '1002'`,
		`UPDATE edgvoip.sip_extensions SET extension = '1078', sip_username = 'Alias' WHERE extension = '1003'`,
		`UPDATE edgvoip.sip_extensions SET status = 'deleted' WHERE extension = '1005'`,
		`DELETE FROM edgvoip.sip_extensions WHERE extension = '1000'`,
		`TRUNCATE edgvoip.sip_extensions`,
	},
	"sip_names": {
		`INSERT INTO edgvoip.sip_names (tenant_id, domain_id, name, extension_id) SELECT tenant_id, domain_id, 'alias', id FROM edgvoip.sip_extensions WHERE extension = '1003'`,
		`UPDATE edgvoip.sip_names SET name = '1077' WHERE name = '1001'`,
		`UPDATE edgvoip.sip_names n SET extension_id = e.id FROM edgvoip.sip_extensions e WHERE e.extension = '1006' AND n.name = 'anna.rossi'`,
		`DELETE FROM edgvoip.sip_names WHERE name = '1002'`,
		`TRUNCATE edgvoip.sip_names`,
	},
	"sip_trunks": {
		`INSERT INTO edgvoip.sip_trunks (tenant_id, id, name, host, source_addresses)
			SELECT id, gen_random_uuid(), 'late', 'carrier.example', '{192.0.2.0/24}' FROM edgvoip.tenants WHERE slug = 'tenant-b'`,
		`UPDATE edgvoip.sip_trunks SET priority = 30 WHERE name = 'first'`,
		`UPDATE edgvoip.sip_trunks SET status = 'disabled' WHERE name = 'second'`,
		`UPDATE edgvoip.sip_trunks SET host = '192.0.2.9', ai_failover_extension = '1001' WHERE name = 'first'`,
		`DELETE FROM edgvoip.sip_trunks WHERE name = 'late'`,
		`TRUNCATE edgvoip.sip_trunks`,
	},
	"sip_trunk_did_ranges": {
		`INSERT INTO edgvoip.sip_trunk_did_ranges (tenant_id, trunk_id, first_number, last_number) SELECT tenant_id, id, 390612345800, 390612345800 FROM edgvoip.sip_trunks WHERE name = 'second'`,
		`UPDATE edgvoip.sip_trunk_did_ranges SET last_number = last_number - 50 WHERE first_number < last_number`,
		// To a trunk of another tenant.
		`UPDATE edgvoip.sip_trunk_did_ranges r SET tenant_id = k.tenant_id, trunk_id = k.id
			FROM edgvoip.sip_trunks k JOIN edgvoip.tenants t ON t.id = k.tenant_id WHERE r.first_number = 390612345600 AND k.name = 'first' AND t.slug = 'tenant-b'`,
		`DELETE FROM edgvoip.sip_trunk_did_ranges WHERE first_number = 390612345700`,
		`TRUNCATE edgvoip.sip_trunk_did_ranges`,
	},
}

// No writer can forget: after any statement on any table, once the feed was read, every lookup is answered as the
// database would answer it.
func TestEveryTable(t *testing.T) {
	t.Parallel()
	for table, list := range statements {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			store, db := tables(t)
			for _, statement := range list {
				m, follower := following(t, store)
				before := answers(t, m)
				db.Exec(statement)
				truth := answers(t, store)
				if len(differing(before, truth)) == 0 {
					t.Fatalf("changes no lookup: %s", statement)
				}
				if err := follower.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
				if diff := differing(truth, answers(t, m)); len(diff) > 0 {
					t.Errorf("not as in the database after %s: %q", statement, diff)
				}
				if err := m.Refresh(t.Context()); err != nil {
					t.Fatal(err)
				}
				if diff := differing(truth, answers(t, m)); len(diff) > 0 {
					t.Errorf("not as in the database, refreshed after %s: %q", statement, diff)
				}
			}
		})
	}
}

// What makes that so are the triggers: without them, answers stay as they were, as they come from memory.
func TestEveryTableWithoutTriggers(t *testing.T) {
	t.Parallel()
	for table, list := range statements {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			store, db := tables(t)
			db.Exec(`DO $$ DECLARE t regclass; n name; BEGIN
				FOR t, n IN SELECT tgrelid::regclass, tgname FROM pg_trigger WHERE tgfoid = 'edgvoip.tell_changes'::regproc LOOP
					EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', t, n);
				END LOOP; END $$`)
			for _, statement := range list {
				m, follower := following(t, store)
				before := answers(t, m)
				db.Exec(statement)
				if err := follower.Read(t.Context()); err != nil {
					t.Fatal(err)
				}
				if diff := differing(before, answers(t, m)); len(diff) > 0 {
					t.Errorf("not from memory after %s: %q", statement, diff)
				}
			}
		})
	}
}

// tables returns a database that holds the scene, as xmlcurl reads it and as a superuser writes it.
func tables(tb testing.TB) (*postgres.DB, storetest.SQL) {
	tb.Helper()
	dsn := testdb.New(tb)
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	w := storetest.SQL{TB: tb, DB: db}
	storetest.Build(w)
	w.Exec(`DO $$ DECLARE t regclass; n name; BEGIN
		FOR t, n IN SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'f' AND connamespace = 'edgvoip'::regnamespace AND conparentid = 0 LOOP
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', t, n);
		END LOOP; END $$`)
	w.Exec(`INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) VALUES ('00000000-0000-0000-0000-0000000000aa', gen_random_uuid(), 'new.example')`)
	store, err := postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_xmlcurl", StatementTimeout: 20 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store, w
}

// following returns a model that has read the feed, and what reads it.
func following(tb testing.TB, store *postgres.DB) (*readmodel.Model, *feed.Follower) {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	m := readmodel.New(readmodel.Options{
		Store: store, Bulk: store, MaxExtensions: 1000, MaxAge: time.Hour, LoadTimeout: 20 * time.Second, MaxLoads: 4, LiveFor: time.Hour, Log: log,
	})
	f := feed.New(feed.Options{Source: store, Reader: m, Interval: time.Hour, Timeout: 20 * time.Second, Log: log})
	// It distrusts everything once more when the transactions that are open now are over, those of other tests'
	// databases too.
	for deadline := time.Now().Add(2 * time.Minute); f.Position().Mark == (feed.Mark{}); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatal("some transaction in the cluster is not over in two minutes")
		}
		if err := f.Read(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
	if err := m.Refresh(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return m, f
}

// lookups is all that can be asked.
type lookups interface {
	directory.Store
	dialplan.Store
	trunk.Store
}

// differing returns the questions that two sets of answers answer differently.
func differing(a, b map[string]string) []string {
	var list []string
	for question, answer := range a {
		if b[question] != answer {
			list = append(list, question)
		}
	}
	for question := range b {
		if _, ok := a[question]; !ok {
			list = append(list, question)
		}
	}
	slices.Sort(list)
	return list
}

// answers asks for everything that the scene, or a statement above, has or could have, by every kind of lookup.
func answers(tb testing.TB, s lookups) map[string]string {
	tb.Helper()
	s = patient{s}
	all := map[string]string{}
	note := func(question string, err error, answer ...any) {
		switch {
		case err == nil:
			all[question] = fmt.Sprintf("%+v", answer)
		case errors.Is(err, directory.ErrUnknownDomain), errors.Is(err, directory.ErrUnknownExtension), errors.Is(err, trunk.ErrUnknownDID),
			errors.Is(err, directory.ErrUnknownTenant):
			all[question] = err.Error()
		default:
			tb.Fatalf("%s: %v", question, err)
		}
	}
	ctx := tb.Context()
	names := []string{"1000", "1001", "1002", "1003", "anna.rossi", "1005", "1006", "2001", "1077", "late.comer", "1078", "alias"}
	for _, realm := range []string{realmA, "branch.tenant-a.example", "tenant-b.example", "tenant-c.example", "new.example", "late.example", "other.example"} {
		d, err := s.Domain(ctx, storetest.Realm(realm))
		note("domain "+realm, err, d)
		if err == nil { // nobody asks for the trunks of a tenant that is deleted
			trunks, err := s.TenantTrunks(ctx, d.Tenant.ID)
			note("trunks of "+realm, err, trunks)
			owner, err := s.TrunkTenant(ctx, d.Tenant.ID)
			note("tenant of "+realm, err, owner)
		}
		_, list, err := s.Extensions(ctx, storetest.Realm(realm), 100)
		note("extensions of "+realm, err, list)
		for _, name := range names {
			d, e, err := s.Extension(ctx, storetest.Realm(realm), storetest.Username(name))
			note(name+"@"+realm, err, d, e)
		}
	}
	for _, tenant := range []uuid.UUID{storetest.TenantID("tenant-a"), storetest.TenantID("tenant-b"), storetest.TenantID("tenant-c")} {
		for _, name := range names {
			owner, e, err := s.TenantExtension(ctx, tenant, storetest.DomainID("branch.tenant-a.example"), storetest.Username(name))
			note(name+" of "+tenant.String(), err, owner, e)
		}
	}
	noteTrunks(ctx, s, note)
	return all
}

// patient asks again for a name that could not be asked for yet: while everything is in doubt, names that were not
// there before are asked for in the database a few at a time.
type patient struct{ lookups }

func (p patient) retry(ask func() error) {
	for errors.Is(ask(), readmodel.ErrBusy) {
		time.Sleep(10 * time.Millisecond)
	}
}

func (p patient) Domain(ctx context.Context, realm fstext.Realm) (d directory.Domain, err error) {
	p.retry(func() error { d, err = p.lookups.Domain(ctx, realm); return err })
	return d, err
}

func (p patient) Extension(ctx context.Context, realm fstext.Realm, name fstext.Username) (d directory.Domain, e directory.Extension, err error) {
	p.retry(func() error { d, e, err = p.lookups.Extension(ctx, realm, name); return err })
	return d, e, err
}

func (p patient) Extensions(ctx context.Context, realm fstext.Realm, limit int) (d directory.Domain, list []directory.Extension, err error) {
	p.retry(func() error { d, list, err = p.lookups.Extensions(ctx, realm, limit); return err })
	return d, list, err
}

func noteTrunks(ctx context.Context, s lookups, note func(question string, err error, answer ...any)) {
	list, err := s.ActiveTrunks(ctx)
	note("trunks", err, list)
	for _, number := range []string{"+390612345600", "+390612345699", "+390612345700", "+390612345799", "+390612345800"} {
		k, err := s.InboundTrunk(ctx, storetest.E164(number))
		note("trunk of "+number, err, k)
	}
	for _, addr := range []string{"127.0.0.1", "192.0.2.9", "192.0.2.10"} {
		countries, err := s.CarrierCountries(ctx, netip.MustParseAddr(addr))
		note("countries of "+addr, err, fmt.Sprint(countries))
	}
}

// A database that goes away while trunks have changed, or everything is in doubt, takes nothing with it: also in the
// seconds in which it still counts as there.
func TestGoneBeforeCarriersWereRead(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*readmodel.Model){
		"its trunks changed": func(m *readmodel.Model) {
			m.Apply([]feed.Change{{Subject: feed.SubjectTrunk, Tenant: storetest.TenantID("tenant-b")}})
		},
		"everything is in doubt": func(m *readmodel.Model) { m.Forget() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			m := model(t, s)
			s.away.Store(true)
			change(m)
			for _, number := range []string{"+390612345600", "+390612345700"} {
				if _, err := m.InboundTrunk(t.Context(), storetest.E164(number)); err != nil {
					t.Errorf("DID %s: %v", number, err)
				}
			}
			if list, err := m.TenantTrunks(t.Context(), storetest.TenantID("tenant-a")); err != nil || len(list) != 2 {
				t.Errorf("trunks of another tenant: %v, %v", list, err)
			}
			if list, err := m.CarrierCountries(t.Context(), netip.MustParseAddr("127.0.0.1")); err != nil || len(list) != 1 {
				t.Errorf("countries of the carrier: %v, %v", list, err)
			}
			if _, err := m.InboundTrunk(t.Context(), storetest.E164("+390699999999")); err == nil || errors.Is(err, trunk.ErrUnknownDID) {
				t.Errorf("unknown DID: %v", err)
			}
		})
	}
}

// Once the feed has reached the database again, so may everybody: what has changed must be read there.
func TestBackAfterOutage(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	outage(s, m)
	if _, err := extension(t, m, realmA, "1001"); err == nil {
		t.Fatal("not away")
	}
	s.away.Store(false)
	m.Apply([]feed.Change{{Subject: feed.SubjectTrunk, Tenant: storetest.TenantID("tenant-a")}})
	m.Synced(time.Now())
	if _, err := m.InboundTrunk(t.Context(), storetest.E164("+390612345600")); err != nil {
		t.Errorf("DID of a trunk that has changed: %v", err)
	}
	if _, err := extension(t, m, realmA, "1001"); err != nil {
		t.Errorf("extension: %v", err)
	}
}

// A public number that somebody dials is no extension, also in the seconds in which a database that has gone away, or
// silent, still counts as there.
func TestDialledNumberWhileGoingAway(t *testing.T) {
	t.Parallel()
	for name, goAway := range map[string]func(*source){
		"away": func(s *source) { s.away.Store(true) },
		"silent": func(s *source) {
			silence := func() { <-t.Context().Done() }
			s.hold.Store(&silence)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSource(t)
			m := model(t, s)
			if _, _, err := m.TenantExtension(t.Context(), storetest.TenantID("tenant-a"), uuid.Nil, storetest.Username("1001")); err != nil {
				t.Fatal(err)
			}
			goAway(s)
			for n := range 200 { // more than doubt allows
				number := storetest.Username(fmt.Sprintf("06123450%03d", n))
				if _, _, err := m.TenantExtension(t.Context(), storetest.TenantID("tenant-a"), uuid.Nil, number); !errors.Is(err, directory.ErrUnknownExtension) {
					t.Fatalf("number %d: %v", n, err)
				}
			}
		})
	}
}

// That a name does not exist is not remembered from before everything was distrusted.
func TestUnknownWhileForgetting(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	var once sync.Once
	hold := func() { once.Do(m.Forget) }
	s.hold.Store(&hold)
	if _, err := extension(t, m, realmA, "1077"); !errors.Is(err, directory.ErrUnknownExtension) {
		t.Fatal(err)
	}
	s.AddExtension(storetest.Extension("tenant-a", realmA, "1077", "1077"))
	if _, err := extension(t, m, realmA, "1077"); err != nil {
		t.Error(err)
	}
}
