package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/trunk"
)

func tenantSpec(slug string) directory.TenantSpec {
	return directory.TenantSpec{Slug: slug, Name: "Tenant", Country: "IT"}
}

func extensionSpec(tenant uuid.UUID) directory.ExtensionSpec {
	return directory.ExtensionSpec{
		TenantID: tenant, Realm: "shop.example", Extension: "1001", SIPUsername: "anna", SIPPassword: "a plain password", DisplayName: "Anna",
		AllowedCodecs: []string{"PCMA"}, MaxConcurrentCalls: 2,
	}
}

// Provisioning in the role of the API: the same again changes nothing, a change is written with one audit row, and the
// password is nowhere.
func TestProvisionExtension(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	db, _ := open(t, dsn, "edgvoip_api")
	look := raw(t, dsn)
	p := directory.NewProvisioner(db, storetest.Keys(), secret.NewHasher(2))
	tenant, err := p.PutTenant(t.Context(), tenantSpec("shop"), "test")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.PutTenant(t.Context(), tenantSpec("shop"), "test"); err != nil || again.ID != tenant.ID {
		t.Errorf("tenant again is %v, %v", again.ID, err)
	}
	snapshot := func() string {
		var s string
		if err := look.QueryRowContext(t.Context(), `SELECT string_agg(e::text, ' ') FROM edgvoip.sip_extensions e`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	audits := func() (n int) {
		if err := look.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.audit_log WHERE action LIKE 'extension.%'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	spec := extensionSpec(tenant.ID)
	first, err := p.PutExtension(t.Context(), spec, "test")
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot()
	if again, err := p.PutExtension(t.Context(), spec, "test"); err != nil || again.ID != first.ID || snapshot() != before || audits() != 1 {
		t.Errorf("the same again: id %v, %v, %d audit rows\n%s\n%s", again.ID, err, audits(), before, snapshot())
	}
	spec.SIPPassword = "another password"
	if again, err := p.PutExtension(t.Context(), spec, "test"); err != nil || again.ID != first.ID || snapshot() == before || audits() != 2 {
		t.Errorf("a new password: id %v, %v, %d audit rows", again.ID, err, audits())
	}
	_, stored, err := db.Extension(t.Context(), storetest.Realm("shop.example"), storetest.Username("anna"))
	if err != nil {
		t.Fatal(err)
	}
	ha1, err := storetest.Keys().Open(stored.HA1MD5, directory.CredentialOwner(tenant.ID, stored.Username, stored.Realm, directory.MD5))
	if err != nil || string(ha1) != secret.HA1MD5("anna", "shop.example", "another password") {
		t.Errorf("stored A1 is not that of the new password: %v", err)
	}
	var everything strings.Builder
	for _, table := range []string{"tenants", "sip_domains", "sip_extensions", "sip_names", "audit_log", "jobs", "changes"} {
		var s string
		if err := look.QueryRowContext(t.Context(), `SELECT coalesce(string_agg(x::text, ' '), '') FROM edgvoip.`+table+` x`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		everything.WriteString(s)
	}
	for _, s := range []string{"a plain password", "another password", string(ha1)} {
		if strings.Contains(everything.String(), s) {
			t.Errorf("%q is in the database", s)
		}
	}
	var auditText string
	if err := look.QueryRowContext(t.Context(), `SELECT string_agg(a::text, ' ') FROM edgvoip.audit_log a`).Scan(&auditText); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(auditText, "argon2") {
		t.Errorf("the audit log holds a hash: %s", auditText)
	}
}

func TestProvisionConflicts(t *testing.T) {
	t.Parallel()
	db, _ := open(t, testdb.New(t), "edgvoip_api")
	p := directory.NewProvisioner(db, storetest.Keys(), secret.NewHasher(2))
	one, err1 := p.PutTenant(t.Context(), tenantSpec("one"), "test")
	two, err2 := p.PutTenant(t.Context(), tenantSpec("two"), "test")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := p.PutExtension(t.Context(), extensionSpec(one.ID), "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.PutExtension(t.Context(), extensionSpec(two.ID), "test"); !errors.Is(err, directory.ErrRealmTaken) {
		t.Errorf("realm of another tenant: %v", err)
	}
	if _, err := p.PutExtension(t.Context(), extensionSpec(uuid.New()), "test"); !errors.Is(err, directory.ErrUnknownTenant) {
		t.Errorf("nobody's extension: %v", err)
	}
	for name, change := range map[string]func(*directory.ExtensionSpec){
		"username of another":               func(s *directory.ExtensionSpec) { s.Extension = "1002" },
		"username of another, in capitals":  func(s *directory.ExtensionSpec) { s.Extension, s.SIPUsername = "1002", "ANNA" },
		"username that is another's number": func(s *directory.ExtensionSpec) { s.Extension, s.SIPUsername = "1002", "1001" },
	} {
		spec := extensionSpec(one.ID)
		change(&spec)
		if _, err := p.PutExtension(t.Context(), spec, "test"); !errors.Is(err, directory.ErrNameTaken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for field, change := range map[string]func(*directory.ExtensionSpec){
		"sipRealm":             func(s *directory.ExtensionSpec) { s.Realm = "shop.example&x=" },
		"extension":            func(s *directory.ExtensionSpec) { s.Extension = "112" },
		"sipUsername":          func(s *directory.ExtensionSpec) { s.SIPUsername = "a,b" },
		"displayName":          func(s *directory.ExtensionSpec) { s.DisplayName = "${system(id)}" },
		"transport":            func(s *directory.ExtensionSpec) { s.Transport = "sctp" },
		"allowedCodecs":        func(s *directory.ExtensionSpec) { s.AllowedCodecs = []string{"PCMA", "PCMA"} },
		"maxConcurrentCalls":   func(s *directory.ExtensionSpec) { s.MaxConcurrentCalls = -1 },
		"outboundCallerNumber": func(s *directory.ExtensionSpec) { s.OutboundCallerNumber = "0612345678" },
		"sipPassword":          func(s *directory.ExtensionSpec) { s.SIPPassword = "short" },
	} {
		spec := extensionSpec(one.ID)
		change(&spec)
		var bad *invalid.FieldError
		if _, err := p.PutExtension(t.Context(), spec, "test"); !errors.As(err, &bad) || bad.Name != field {
			t.Errorf("%s: %v", field, err)
		} else if strings.Contains(bad.Error(), "system(id)") || strings.Contains(bad.Error(), "short") && field == "sipPassword" {
			t.Errorf("%s: the error repeats the value: %v", field, err)
		}
	}
}

// Many at once for the same number and the same new domain are one extension.
func TestProvisionRace(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	db, _ := open(t, dsn, "edgvoip_api")
	p := directory.NewProvisioner(db, storetest.Keys(), secret.NewHasher(4))
	tenant, err := p.PutTenant(t.Context(), tenantSpec("race"), "test")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make(chan error, 8)
	for range cap(results) {
		wg.Go(func() {
			_, err := p.PutExtension(t.Context(), extensionSpec(tenant.ID), "test")
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
	var extensions, domains int
	if err := raw(t, dsn).QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM edgvoip.sip_extensions), (SELECT count(*) FROM edgvoip.sip_domains)`).Scan(&extensions, &domains); err != nil || extensions != 1 || domains != 1 {
		t.Errorf("%d extensions, %d domains, %v; want one of each", extensions, domains, err)
	}
}

func TestProvisionTrunk(t *testing.T) {
	t.Parallel()
	db, _ := open(t, testdb.New(t), "edgvoip_api")
	tenants := directory.NewProvisioner(db, storetest.Keys(), secret.NewHasher(1))
	tenant, err := tenants.PutTenant(t.Context(), tenantSpec("shop"), "test")
	if err != nil {
		t.Fatal(err)
	}
	p, id := trunk.NewProvisioner(db, storetest.Keys()), uuid.New()
	spec := trunk.Spec{
		TenantID: tenant.ID, Name: "Carrier", Host: "sip.carrier.example", Username: "acct", Password: "s3cr$t", MaxChannels: 5,
		SourceAddresses: []string{"192.0.2.0/24"}, DIDRanges: []trunk.DIDRange{{First: "+390612345600", Last: "+390612345699"}},
	}
	for range 2 {
		if _, err := p.Put(t.Context(), id, spec, "test"); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := db.TenantTrunks(t.Context(), tenant.ID)
	if err != nil || len(stored) != 1 {
		t.Fatalf("%d trunks, %v", len(stored), err)
	}
	if plain, err := storetest.Keys().Open(stored[0].Password, trunk.PasswordOwner(tenant.ID, id)); err != nil || string(plain) != "s3cr$t" {
		t.Errorf("password is %q, %v", plain, err)
	}
	if _, err := p.Put(t.Context(), uuid.New(), spec, "test"); !errors.Is(err, trunk.ErrDIDTaken) {
		t.Errorf("the same numbers for another trunk: %v", err)
	}
	for field, change := range map[string]func(*trunk.Spec){
		"name": func(s *trunk.Spec) { s.Name = "a\nb" }, "host": func(s *trunk.Spec) { s.Host = "a;b" }, "port": func(s *trunk.Spec) { s.Port = 70000 },
		"protocol": func(s *trunk.Spec) { s.Protocol = "ws" }, "maxChannels": func(s *trunk.Spec) { s.MaxChannels = -1 }, "priority": func(s *trunk.Spec) { s.Priority = -1 },
		"password": func(s *trunk.Spec) { s.Password = "" }, "username": func(s *trunk.Spec) { s.Username = "a b" }, "callerIdPolicy": func(s *trunk.Spec) { s.CallerIDPolicy = "any" },
		"callerIdNumber": func(s *trunk.Spec) { s.CallerIDNumber = "06" }, "sourceAddresses": func(s *trunk.Spec) { s.SourceAddresses = []string{"0.0.0.0/0"} },
		"aiFailoverExtension": func(s *trunk.Spec) { s.AIFailoverExtension = "x" }, "didRanges": func(s *trunk.Spec) { s.DIDRanges = []trunk.DIDRange{{First: "+390612345699", Last: "+390612345600"}} },
		"provider": func(s *trunk.Spec) { s.Provider = "${x}" },
	} {
		bad := spec
		change(&bad)
		var f *invalid.FieldError
		if _, err := p.Put(t.Context(), id, bad, "test"); !errors.As(err, &f) || f.Name != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

// What an operator did stays: a repeated write lifts no suspension, and a deleted domain gives its realm free without
// coming back.
func TestProvisionKeepsStatus(t *testing.T) {
	t.Parallel()
	dsn := testdb.New(t)
	db, _ := open(t, dsn, "edgvoip_api")
	rows := raw(t, dsn)
	p, trunks := directory.NewProvisioner(db, storetest.Keys(), secret.NewHasher(2)), trunk.NewProvisioner(db, storetest.Keys())
	one, err1 := p.PutTenant(t.Context(), tenantSpec("one"), "test")
	two, err2 := p.PutTenant(t.Context(), tenantSpec("two"), "test")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	id := uuid.New()
	spec := trunk.Spec{TenantID: one.ID, Name: "Carrier", Host: "192.0.2.1"}
	write := func() {
		t.Helper()
		_, err1 := p.PutExtension(t.Context(), extensionSpec(one.ID), "test")
		_, err2 := trunks.Put(t.Context(), id, spec, "test")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
	}
	write()
	exec1(t, rows, `UPDATE edgvoip.sip_extensions SET status = 'suspended'`)
	exec1(t, rows, `UPDATE edgvoip.sip_trunks SET status = 'disabled'`)
	write()
	_, e, err := db.Extension(t.Context(), storetest.Realm("shop.example"), storetest.Username("1001"))
	if err != nil || e.Active {
		t.Errorf("suspended extension after a repeated write: active %v, %v", e.Active, err)
	}
	if list, err := db.TenantTrunks(t.Context(), one.ID); err != nil || len(list) != 0 {
		t.Errorf("%d trunks active after a repeated write, %v", len(list), err)
	}
	spec.TenantID = two.ID
	if _, err := trunks.Put(t.Context(), id, spec, "test"); !errors.Is(err, trunk.ErrIDTaken) {
		t.Errorf("another tenant's trunk id: %v", err)
	}
	spec.TenantID = uuid.New()
	if _, err := trunks.Put(t.Context(), uuid.New(), spec, "test"); !errors.Is(err, trunk.ErrUnknownTenant) {
		t.Errorf("nobody's trunk: %v", err)
	}
	exec1(t, rows, `UPDATE edgvoip.sip_domains SET status = 'deleted'`)
	if _, err := p.PutExtension(t.Context(), extensionSpec(two.ID), "test"); err != nil {
		t.Errorf("the realm of a deleted domain: %v", err)
	}
	if dom, _, err := db.Extension(t.Context(), storetest.Realm("shop.example"), storetest.Username("1001")); err != nil || dom.Tenant.ID != two.ID {
		t.Errorf("the realm belongs to %v, %v; want the second tenant", dom.Tenant.ID, err)
	}
}
