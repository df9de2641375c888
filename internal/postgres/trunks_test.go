package postgres_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/trunk"
)

// carriers is a database with two tenants, in the role of the API, and a look into its tables.
type carriers struct {
	dsn      string
	db       *postgres.DB
	rows     *sql.DB
	p        *trunk.Provisioner
	one, two uuid.UUID
}

func newCarriers(t *testing.T) carriers {
	t.Helper()
	dsn := testdb.New(t)
	c := carriers{dsn: dsn, rows: raw(t, dsn)}
	c.db, _ = open(t, dsn, "edgvoip_api")
	c.p = trunk.NewProvisioner(c.db, storetest.Keys())
	tenants := directory.NewProvisioner(c.db, storetest.Keys(), secret.NewHasher(1))
	one, err1 := tenants.PutTenant(t.Context(), tenantSpec("one"), "test")
	two, err2 := tenants.PutTenant(t.Context(), tenantSpec("two"), "test")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	c.one, c.two = one.ID, two.ID
	return c
}

// text is the one value of a query.
func (c carriers) text(t *testing.T, query string) string {
	t.Helper()
	var s sql.NullString
	if err := c.rows.QueryRowContext(t.Context(), query).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s.String
}

func (c carriers) everything(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, table := range []string{"sip_trunks", "sip_trunk_did_ranges", "audit_log", "webhook_events", "jobs", "changes"} {
		b.WriteString(c.text(t, `SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM edgvoip.`+table+` x`))
	}
	return b.String()
}

func trunkSpec(tenant uuid.UUID, dids ...trunk.DIDRange) trunk.Spec {
	return trunk.Spec{TenantID: tenant, Name: "Carrier", Host: "192.0.2.1", DIDRanges: dids}
}

// xmlcurl reads all that calls need of a trunk, as it was written.
func TestTrunkIsReadWhole(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	standIn := extensionSpec(c.one)
	standIn.Extension = "1000"
	if _, err := directory.NewProvisioner(c.db, storetest.Keys(), secret.NewHasher(1)).PutExtension(t.Context(), standIn, "test"); err != nil {
		t.Fatal(err)
	}
	spec := trunk.Spec{
		TenantID: c.one, StoreID: uuid.New(), Name: "Carrier", Provider: "Example", Description: "Contract 7", Host: "sip.carrier.example", Port: 5061,
		Protocol: "tls", Proxy: "[2001:db8::1]:5062", MaxChannels: 12, Priority: 20, SourceAddresses: []string{"192.0.2.0/24", "2001:db8::/32"}, Register: true,
		Username: "acct", Password: "s3cr$t", CallerIDPolicy: "withheld", CallerIDNumber: "+390612345600", NumberFormat: "zeros", TechPrefix: "77#",
		Prefixes: []string{"44", "39"}, Codecs: []string{"pcma", "G729"}, PingSeconds: 30, AIAgentRef: "agent-9", AITimePolicy: json.RawMessage(`{"weekly":{"mon":[{"from":"09:00","to":"18:00"}]}}`),
		AIFailoverExtension: "1000", DIDRanges: []trunk.DIDRange{{First: "0612345600", Last: "0612345699"}, {First: "+390612345500"}},
	}
	r, effect, err := c.p.Create(t.Context(), uuid.New(), spec, "test")
	if err != nil || effect != trunk.EffectCreated {
		t.Fatal(effect, err)
	}
	// A change of the gateway, so that the revision is not the first.
	if r, _, err = c.p.Change(t.Context(), c.one, r.ID, trunk.Change{PingSeconds: new(60)}, "test"); err != nil || r.Revision != 2 || r.PingSeconds != 60 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, v := range []reflect.Value{reflect.ValueOf(r), reflect.ValueOf(r.Trunk)} {
		for field, value := range v.Fields() {
			if value.IsZero() {
				t.Errorf("the test gives no %s", field.Name)
			}
		}
	}
	reader, _ := open(t, c.dsn, "edgvoip_xmlcurl")
	all, err := reader.ActiveTrunks(t.Context())
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], r.Trunk) {
		t.Errorf("read %+v, %v; want %+v", all, err, r.Trunk)
	}
	found, err := reader.InboundTrunk(t.Context(), storetest.E164("+390612345650"))
	if err != nil || !reflect.DeepEqual(found, r.Trunk) {
		t.Errorf("read %+v, %v; want %+v", found, err, r.Trunk)
	}
	carriers, err := reader.Carriers(t.Context(), nil)
	if err != nil || len(carriers) != 1 || !reflect.DeepEqual(carriers[0].Trunk, r.Trunk) || !reflect.DeepEqual(carriers[0].DIDs, r.Ranges) {
		t.Errorf("read %+v, %v; want %+v", carriers, err, r)
	}
	again, err := c.p.Get(t.Context(), c.one, r.ID)
	if err != nil || !again.Equal(r) {
		t.Errorf("read %+v, %v; want %+v", again, err, r)
	}
	list, err := c.p.List(t.Context(), c.one, trunk.Filter{Limit: 10})
	if err != nil || len(list) != 1 || !list[0].Equal(r) {
		t.Errorf("listed %+v, %v; want %+v", list, err, r)
	}
}

// The row, its numbers, the audit row, the event and the jobs are one: if one of them cannot be written, none is.
func TestTrunkIsOneTransaction(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	exec1(t, c.rows, `INSERT INTO edgvoip.switch_nodes (id, name, address, password_sealed, password_key_id) VALUES (gen_random_uuid(), 'fs1', '127.0.0.1:1', '', '')`)
	id := uuid.New()
	spec := trunkSpec(c.one, trunk.DIDRange{First: "+390612345600"})
	if _, _, err := c.p.Create(t.Context(), id, spec, "test"); err != nil {
		t.Fatal(err)
	}
	exec1(t, c.rows, `CREATE FUNCTION edgvoip.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'fault'; END $$`)
	before := c.everything(t)
	for _, table := range []string{"webhook_events", "audit_log", "sip_trunk_did_ranges", "jobs"} {
		exec1(t, c.rows, `CREATE TRIGGER fail BEFORE INSERT ON edgvoip.`+table+` FOR EACH ROW EXECUTE FUNCTION edgvoip.fail()`)
		_, _, err1 := c.p.Create(t.Context(), uuid.New(), trunkSpec(c.one, trunk.DIDRange{First: "+390612345601"}), "test")
		_, _, err2 := c.p.Change(t.Context(), c.one, id, trunk.Change{Host: new("192.0.2.2"), DIDRanges: []trunk.DIDRange{{First: "+390612345602"}}}, "test")
		if err1 == nil || err2 == nil || c.everything(t) != before {
			t.Errorf("without %s: %v, %v; rows changed: %v", table, err1, err2, c.everything(t) != before)
		}
		if table == "sip_trunk_did_ranges" {
			exec1(t, c.rows, `DROP TRIGGER fail ON edgvoip.sip_trunk_did_ranges`)
			continue // deleting adds no numbers
		}
		if _, _, err := c.p.Delete(t.Context(), c.one, id, "test"); err == nil || c.everything(t) != before {
			t.Errorf("deleting without %s: %v; rows changed: %v", table, err, c.everything(t) != before)
		}
		exec1(t, c.rows, `DROP TRIGGER fail ON edgvoip.`+table)
	}
	if _, effect, err := c.p.Delete(t.Context(), c.one, id, "test"); err != nil || effect != trunk.EffectDeleted {
		t.Errorf("at last: %v, %v", effect, err)
	}
}

// A password that is not given, or given as it is, keeps its seal; another one is sealed anew, and opens.
func TestTrunkKeepsSeal(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	id := uuid.New()
	spec := trunkSpec(c.one)
	spec.Register, spec.Username, spec.Password = true, "acct", "s3cr$t"
	if _, _, err := c.p.Create(t.Context(), id, spec, "test"); err != nil {
		t.Fatal(err)
	}
	const seal = `SELECT encode(password_sealed, 'hex') || password_key_id || gateway_revision FROM edgvoip.sip_trunks`
	first := c.text(t, seal)
	for name, change := range map[string]trunk.Change{
		"nothing": {}, "description": {Description: new("x")}, "the same password": {Password: new("s3cr$t")},
		"the same credentials": {Username: new("acct"), Password: new("s3cr$t"), Register: new(true)},
	} {
		if _, _, err := c.p.Change(t.Context(), c.one, id, change, "test"); err != nil || c.text(t, seal) != first {
			t.Errorf("%s: %v; another seal: %v", name, err, c.text(t, seal) != first)
		}
	}
	// Put knows of no description.
	if _, err := c.p.Put(t.Context(), id, spec, "test"); err != nil || c.text(t, seal) != first {
		t.Errorf("put: %v; another seal: %v", err, c.text(t, seal) != first)
	}
	r, effect, err := c.p.Change(t.Context(), c.one, id, trunk.Change{Password: new("another")}, "test")
	if err != nil || effect != trunk.EffectUpdated || c.text(t, seal) == first {
		t.Errorf("another password: %v, %v", effect, err)
	}
	if plain, err := storetest.Keys().Open(r.Password, trunk.PasswordOwner(c.one, id)); err != nil || string(plain) != "another" {
		t.Errorf("it opens as %q, %v", plain, err)
	}
	for _, s := range []string{"s3cr$t", "another"} {
		if strings.Contains(c.everything(t), s) {
			t.Errorf("%s is in the database", s)
		}
	}
}

// No number belongs to two trunks, of one tenant or of two, and a refused change leaves the numbers as they were.
func TestTrunkOverlap(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	number := func(n int) string { return fmt.Sprintf("+39061234%04d", n) }
	span := func(first, last int) trunk.DIDRange { return trunk.DIDRange{First: number(first), Last: number(last)} }
	held := uuid.New()
	if _, _, err := c.p.Create(t.Context(), held, trunkSpec(c.one, span(100, 199), span(300, 399)), "test"); err != nil {
		t.Fatal(err)
	}
	mine := map[uuid.UUID]uuid.UUID{c.one: uuid.New(), c.two: uuid.New()}
	for tenant, id := range mine {
		if _, _, err := c.p.Create(t.Context(), id, trunkSpec(tenant), "test"); err != nil {
			t.Fatal(err)
		}
	}
	for name, tc := range map[string]struct {
		asked trunk.DIDRange
		taken bool
	}{
		"the same": {span(100, 199), true}, "inside": {span(150, 160), true}, "around": {span(50, 250), true}, "around both": {span(0, 999), true},
		"over the beginning": {span(90, 100), true}, "over the end": {span(199, 210), true}, "one number": {span(150, 150), true},
		"first number": {trunk.DIDRange{First: number(100)}, true}, "last number": {trunk.DIDRange{First: number(199)}, true},
		"as it is dialled": {trunk.DIDRange{First: "0612340150"}, true}, "from abroad": {trunk.DIDRange{First: "00390612340150"}, true},
		"before": {span(90, 99), false}, "after": {span(200, 210), false}, "between": {span(200, 299), false},
		"longer": {trunk.DIDRange{First: "+3906123401000", Last: "+3906123401999"}, false}, "shorter": {trunk.DIDRange{First: "+39061234010"}, false},
	} {
		for tenant, id := range mine {
			before := c.everything(t)
			_, _, err := c.p.Change(t.Context(), tenant, id, trunk.Change{DIDRanges: []trunk.DIDRange{tc.asked}, Description: new(name)}, "test")
			if tc.taken && (!errors.Is(err, trunk.ErrDIDTaken) || c.everything(t) != before) || !tc.taken && err != nil {
				t.Errorf("%s: %v; rows changed: %v", name, err, c.everything(t) != before)
			}
			if err != nil && (strings.Contains(err.Error(), c.one.String()) || strings.Contains(err.Error(), held.String()) || strings.Contains(err.Error(), "0612")) {
				t.Errorf("%s: the error tells whose: %v", name, err)
			}
			if _, _, err := c.p.Change(t.Context(), tenant, id, trunk.Change{DIDRanges: []trunk.DIDRange{}}, "test"); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A trunk may move its own numbers, and gives free what it had.
	if _, _, err := c.p.Change(t.Context(), c.one, held, trunk.Change{DIDRanges: []trunk.DIDRange{span(150, 350)}}, "test"); err != nil {
		t.Errorf("numbers that overlap what the trunk itself had: %v", err)
	}
	if _, _, err := c.p.Delete(t.Context(), c.one, held, "test"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.p.Change(t.Context(), c.two, mine[c.two], trunk.Change{DIDRanges: []trunk.DIDRange{span(0, 999)}}, "test"); err != nil {
		t.Errorf("numbers of a deleted trunk: %v", err)
	}
	if found, err := c.db.InboundTrunk(t.Context(), storetest.E164(number(150))); err != nil || found.ID != mine[c.two] {
		t.Errorf("a call to it goes to %v, %v", found.ID, err)
	}
}

// Of many that want overlapping numbers at once exactly one has them, and the others are told so, rather than that they
// waited for each other.
func TestTrunkOverlapAtOnce(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	for round := range 5 {
		first := trunk.DIDRange{First: fmt.Sprintf("+3906123%d000", round), Last: fmt.Sprintf("+3906123%d499", round)}
		last := trunk.DIDRange{First: fmt.Sprintf("+3906123%d400", round), Last: fmt.Sprintf("+3906123%d999", round)}
		results := make(chan error, 8)
		var wg sync.WaitGroup
		for i := range cap(results) {
			wg.Go(func() {
				tenant, asked := c.one, first
				if i%2 == 1 {
					tenant, asked = c.two, last
				}
				_, _, err := c.p.Create(t.Context(), uuid.New(), trunkSpec(tenant, asked), "test")
				results <- err
			})
		}
		wg.Wait()
		close(results)
		won := 0
		for err := range results {
			if err == nil {
				won++
			} else if !errors.Is(err, trunk.ErrDIDTaken) {
				t.Errorf("one of many: %v", err)
			}
		}
		if won != 1 {
			t.Errorf("%d have the numbers", won)
		}
	}
}

// Two who want each other's numbers at once are both refused, rather than that they wait for each other.
func TestTrunkSwapAtOnce(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	tenants, ids := []uuid.UUID{c.one, c.two}, []uuid.UUID{uuid.New(), uuid.New()}
	numbers := []trunk.DIDRange{{First: "+390612345600", Last: "+390612345699"}, {First: "+390612345700", Last: "+390612345799"}}
	for i, id := range ids {
		if _, _, err := c.p.Create(t.Context(), id, trunkSpec(tenants[i], numbers[i]), "test"); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		var wg sync.WaitGroup
		errs := make([]error, len(ids))
		for i, id := range ids {
			wg.Go(func() {
				_, _, errs[i] = c.p.Change(t.Context(), tenants[i], id, trunk.Change{DIDRanges: []trunk.DIDRange{numbers[1-i]}}, "test")
			})
		}
		wg.Wait()
		for _, err := range errs {
			if !errors.Is(err, trunk.ErrDIDTaken) {
				t.Fatalf("one of two: %v", err)
			}
		}
	}
}

// Many who create the trunk of one id at once create one; of two tenants, one has it.
func TestTrunkRace(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	id := uuid.New()
	type result struct {
		effect trunk.Effect
		err    error
	}
	results := make(chan result, 8)
	var wg sync.WaitGroup
	for i := range cap(results) {
		tenant := c.one
		if i%4 == 3 {
			tenant = c.two
		}
		wg.Go(func() {
			_, effect, err := c.p.Create(t.Context(), id, trunkSpec(tenant), "test")
			results <- result{effect, err}
		})
	}
	wg.Wait()
	close(results)
	count := map[result]int{}
	for r := range results {
		if errors.Is(r.err, trunk.ErrIDTaken) {
			r.err = trunk.ErrIDTaken
		}
		count[r]++
	}
	taken, created, unchanged := count[result{"", trunk.ErrIDTaken}], count[result{trunk.EffectCreated, nil}], count[result{trunk.EffectUnchanged, nil}]
	if created != 1 || taken+created+unchanged != cap(results) || taken != 2 && taken != 6 {
		t.Errorf("at once: %v", count)
	}
	if got := c.text(t, `SELECT (SELECT count(*) FROM edgvoip.sip_trunks) || ' ' || (SELECT count(*) FROM edgvoip.webhook_events) || ' ' ||
		(SELECT count(*) FROM edgvoip.audit_log WHERE action = 'trunk.created')`); got != "1 1 1" {
		t.Errorf("trunks, events and audit rows: %s", got)
	}
}

// Two changes of different fields at once are both there in the end, and W3 hears of both in order.
func TestTrunkChangesAtOnce(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	id := uuid.New()
	if _, _, err := c.p.Create(t.Context(), id, trunkSpec(c.one), "test"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 16)
	for i := range cap(results) / 2 {
		wg.Go(func() {
			_, _, err := c.p.Change(t.Context(), c.one, id, trunk.Change{DIDRanges: []trunk.DIDRange{{First: fmt.Sprintf("+3906123456%02d", i)}}}, "test")
			results <- err
		})
		wg.Go(func() {
			_, _, err := c.p.Change(t.Context(), c.one, id, trunk.Change{Description: new(fmt.Sprint(i))}, "test")
			results <- err
		})
	}
	wg.Wait()
	close(results)
	for err := range results {
		if err != nil {
			t.Errorf("one of many: %v", err)
		}
	}
	if got := c.text(t, `SELECT count(*) || ' ' || count(*) FILTER (WHERE at <= last) FROM
		(SELECT at, lag(at) OVER (ORDER BY id) AS last FROM (SELECT id, (payload::jsonb->>'updatedAt')::timestamptz AS at FROM edgvoip.webhook_events) e) e`); got != "17 0" {
		t.Errorf("events, and those that are no later than the one before: %s", got)
	}
	r, err := c.p.Get(t.Context(), c.one, id)
	if err != nil || len(r.Ranges) != 1 || r.Description.String() == "" {
		t.Errorf("in the end: %+v, %v", r, err)
	}
	last := c.text(t, `SELECT payload::jsonb->'didRanges'->0->>'first' FROM edgvoip.webhook_events ORDER BY id DESC LIMIT 1`)
	if last != r.Ranges[0].First.String() {
		t.Errorf("W3 knows %s, the trunk has %s", last, r.Ranges[0].First)
	}
}

// The largest time policy is kept, and read again as what was written, though the database spells it longer.
func TestTrunkTimePolicy(t *testing.T) {
	t.Parallel()
	c := newCarriers(t)
	id := uuid.New()
	const day = `{"date":"2%03d-01-01","windows":[{"from":"00:00","to":"00:01"},{"from":"01:00","to":"01:01"},{"from":"02:00","to":"02:01"}]}`
	var days []string
	for i := range 125 {
		days = append(days, fmt.Sprintf(day, i))
	}
	policy := []byte(`{"exceptions":[` + strings.Join(days, ",") + `]}`)
	if len(policy) > 16<<10 || len(policy) < 15500 {
		t.Fatalf("%d bytes", len(policy))
	}
	spec := trunkSpec(c.one)
	spec.AITimePolicy = policy
	if _, _, err := c.p.Create(t.Context(), id, spec, "test"); err != nil {
		t.Fatal(err)
	}
	before := c.everything(t)
	_, effect, err := c.p.Create(t.Context(), id, spec, "test")
	if err != nil || effect != trunk.EffectUnchanged || c.everything(t) != before {
		t.Errorf("again: %v, %v", effect, err)
	}
	for _, tc := range []struct {
		policy string
		want   trunk.Effect
	}{
		{`{"weekly": {"mon": [{"to": "18:00", "from": "09:00"}]}, "mode": "windows"}`, trunk.EffectUpdated},
		{`{"mode":"windows","weekly":{"mon":[{"from":"09:00","to":"18:0\u0030"}]}}`, trunk.EffectUnchanged},
		{`{"mode":"always"}`, trunk.EffectUpdated},
		{`null`, trunk.EffectUpdated},
		{`null`, trunk.EffectUnchanged},
	} {
		if _, effect, err := c.p.Change(t.Context(), c.one, id, trunk.Change{AITimePolicy: json.RawMessage(tc.policy)}, "test"); err != nil || effect != tc.want {
			t.Errorf("%s: %v, %v; want %v", tc.policy, effect, err, tc.want)
		}
	}
}
