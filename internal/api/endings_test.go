package api_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

// expect sends and wants a status and texts in the answer.
func (o operator) expect(t *testing.T, method, path, body string, status int, want ...string) answer {
	t.Helper()
	a := o.do(t, method, path, body)
	if a.status != status {
		t.Errorf("%s %s %s: %d %s, want %d", method, path, body, a.status, a.body, status)
	}
	for _, text := range want {
		if !strings.Contains(a.body, text) {
			t.Errorf("%s %s %s: %s has no %s", method, path, body, a.body, text)
		}
	}
	return a
}

// A tenant that is there is not made again with something else; it is changed, and who looks it up hears of it.
func TestTenantCorrected(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	const spec = `{"slug":"shop","name":"Shop","country":"IT","timezone":"Europe/Rome"}`
	made := anna.expect(t, http.MethodPost, "/tenants", spec, 200, `"timezone":"Europe/Rome"`)
	path := "/tenants/" + made.json(t)["tenantId"].(string)
	before := contents(t, s)
	if again := anna.expect(t, http.MethodPost, "/tenants", spec, 200); again.body != made.body {
		t.Errorf("again: %s", again.body)
	}
	for body, fields := range map[string][]string{
		`{"slug":"shop","name":"Mall","country":"IT"}`:                            {"name"},
		`{"slug":"shop","name":"Shop","country":"DE"}`:                            {"country"},
		`{"slug":"shop","name":"Mall","country":"DE","timezone":"Europe/Berlin"}`: {"name", "country", "timezone"},
	} {
		a := anna.expect(t, http.MethodPost, "/tenants", body, 409, `"code":"tenant_exists"`)
		for _, f := range []string{"name", "country", "timezone"} {
			if strings.Contains(a.body, `"field":"`+f+`"`) != strings.Contains(fmt.Sprint(fields), f) {
				t.Errorf("%s: %s, want %v", body, a.body, fields)
			}
		}
	}
	for body, field := range map[string]string{
		`{"name":"${x}"}`: "name", `{"name":""}`: "name", `{"country":"Italy"}`: "country", `{"country":"DE","timezone":"Rome"}`: "timezone", `{"timezone":"Local"}`: "timezone",
		`{"timezone":""}`: "timezone", `{"name":"Mall","cdrDays":-1}`: "cdrDays", `{"name":"Mall","status":"deleted"}`: "status", `{"slug":"mall"}`: "slug",
	} {
		anna.expect(t, http.MethodPatch, path, body, 422, `"field":"`+field+`"`)
	}
	if contents(t, s) != before {
		t.Error("what was refused was written")
	}
	changes := `SELECT count(*) FROM edgvoip.changes WHERE subject = 'tenant' AND tenant_id::text = $1`
	told := one[int](t, s, changes, made.json(t)["tenantId"])
	anna.expect(t, http.MethodPatch, path, `{"name":"Mall","country":"DE","timezone":"Europe/Berlin","cdrDays":30}`, 200,
		`"name":"Mall"`, `"country":"DE"`, `"timezone":"Europe/Berlin"`, `"cdrDays":30`, `"status":"active"`)
	if one[int](t, s, changes, made.json(t)["tenantId"]) <= told {
		t.Error("who looks the tenant up hears of nothing")
	}
	anna.expect(t, http.MethodGet, "/tenants", "", 200, `"name":"Mall"`, `"country":"DE"`, `"timezone":"Europe/Berlin"`)
	before = contents(t, s)
	anna.expect(t, http.MethodPatch, path, `{"name":"Mall","country":"DE"}`, 200)
	if contents(t, s) != before {
		t.Error("the same again was written")
	}
	last := anna.expect(t, http.MethodGet, "/audit?limit=1&action=tenant.updated", "", 200, `"operator:anna"`, `"country":"IT"`, `"country":"DE"`)
	if strings.Contains(last.body, "status") {
		t.Errorf("the audit log has what did not change: %s", last.body)
	}
	anna.expect(t, http.MethodPatch, "/tenants/"+uuid.NewString(), `{"name":"x"}`, 404)
}

// A tenant does not move to a country where one of its extensions would call for help.
func TestCountryWithExtensions(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna, w := s.operator(t, "anna", 0), s.tenant(t, "shop")
	id := w.post(t, w.spec("999")).id(t)
	path := "/tenants/" + w.tenant.String()
	anna.expect(t, http.MethodPatch, path, `{"country":"GB"}`, 422, `"field":"country"`)
	w.do(t, http.MethodDelete, "/extensions/"+id, "")
	anna.expect(t, http.MethodPatch, path, `{"country":"GB"}`, 200, `"country":"GB"`)
}

// The zone is part of what W3 is told of trunks, so it is told of them anew; the switches have nothing to do.
func TestTimezoneOfTrunks(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	c.expect(t, http.MethodPut, "/nodes/fs1", `{"address":"192.0.2.1:8021","password":"s3cret"}`, 200)
	if a := c.create(t, fullTrunk()); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	jobs := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`)
	c.expect(t, http.MethodPatch, "/tenants/"+c.w.tenant.String(), `{"timezone":"Europe/Berlin"}`, 200)
	if got := one[string](t, s, `SELECT payload::jsonb->>'timezone' FROM edgvoip.webhook_events WHERE kind = 'trunk.updated'`); got != "Europe/Berlin" {
		t.Errorf("W3 is told of %q", got)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`); n != jobs {
		t.Errorf("%d jobs for switches, were %d", n, jobs)
	}
	if a := c.w.do(t, http.MethodGet, "/trunks", ""); !strings.Contains(a.body, "Europe/Berlin") {
		t.Errorf("%s", a.body)
	}
	c.expect(t, http.MethodPatch, "/tenants/"+c.w.tenant.String(), `{"timezone":"Europe/Berlin","name":"Mall"}`, 200)
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.webhook_events WHERE kind = 'trunk.updated'`); n != 1 {
		t.Errorf("W3 is told %d times", n)
	}
}

// A domain without extensions ends: its realm is free, and nobody finds it any more.
func TestDomainDeleted(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna, w, other := s.operator(t, "anna", 0), s.tenant(t, "shop"), s.tenant(t, "mall")
	anna.expect(t, http.MethodPut, "/nodes/fs1", `{"address":"192.0.2.1:8021","password":"s3cret"}`, 200)
	id := w.post(t, w.spec("1001")).id(t)
	path := "/tenants/" + w.tenant.String() + "/domains"
	anna.expect(t, http.MethodGet, path, "", 200, `"sipRealm":"shop.example"`, `"extensions":1`)
	anna.expect(t, http.MethodDelete, path+"/shop.example", "", 409, `"code":"domain_in_use"`)
	anna.expect(t, http.MethodDelete, "/tenants/"+other.tenant.String()+"/domains/shop.example", "", 404)
	anna.expect(t, http.MethodDelete, path+"/Shop!", "", 422, `"field":"path.realm"`)
	if a := other.do(t, http.MethodPost, "/extensions", other.spec("1001", "sipRealm", "shop.example")); a.code(t) != "realm_taken" {
		t.Errorf("%d %s", a.status, a.body)
	}
	w.do(t, http.MethodDelete, "/extensions/"+id, "")
	anna.expect(t, http.MethodDelete, path+"/shop.example", "", 204)
	anna.expect(t, http.MethodDelete, path+"/shop.example", "", 404)
	anna.expect(t, http.MethodGet, path, "", 200, `"items":[]`)
	if _, err := s.store.Domain(t.Context(), storetest.Realm("shop.example")); !errors.Is(err, directory.ErrUnknownDomain) {
		t.Errorf("looked up: %v", err)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs WHERE kind = 'switch.domain' AND payload->>'realm' = 'shop.example'`); n != 1 {
		t.Errorf("%d switches are told", n)
	}
	anna.expect(t, http.MethodGet, "/audit?action=domain.deleted", "", 200, `"operator:anna"`, `"shop.example"`)
	other.post(t, other.spec("1001", "sipRealm", "shop.example"))
}

// Of a tenant that is deleted nothing answers, and what it had can be another's; nothing of the others changes.
func TestTenantDeleted(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, other := s.carrier(t, "shop"), s.tenant(t, "mall")
	w, path := c.w, "/tenants/"+c.w.tenant.String()
	c.expect(t, http.MethodPut, "/nodes/fs1", `{"address":"192.0.2.1:8021","password":"s3cret"}`, 200)
	c.expect(t, http.MethodPut, path+"/webhook-endpoint", `{"baseUrl":"https://w3.example"}`, 200)
	id := w.post(t, w.spec("1001")).id(t)
	w.do(t, http.MethodPut, "/extensions/"+id+"/stores", `{"storeIds":["`+uuid.NewString()+`"]}`)
	if a := c.create(t, fullTrunk("register", false, "username", nil, "password", nil)); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	other.post(t, other.spec("1001"))
	others := func() string {
		return one[string](t, s, `SELECT concat((SELECT t::text FROM edgvoip.tenants t WHERE slug = 'mall'), (SELECT d::text FROM edgvoip.sip_domains d WHERE realm = 'mall.example'),
			(SELECT e::text FROM edgvoip.sip_extensions e WHERE tenant_id = $1), (SELECT string_agg(x::text, ' ') FROM edgvoip.integration_secrets x WHERE tenant_id = $1 AND expires_at IS NULL))`, other.tenant)
	}
	kept := others()

	c.expect(t, http.MethodDelete, path, "", 409, `"code":"tenant_active"`)
	c.expect(t, http.MethodPatch, path, `{"status":"suspended"}`, 200)
	exec(t, s, `INSERT INTO edgvoip.cdr (tenant_id, call_id, "from", "to", direction, start_time, disposition, raw)
		VALUES ($1, gen_random_uuid(), '1', '2', 'internal', now(), 'answered', '{}')`, w.tenant)
	c.expect(t, http.MethodDelete, path, "", 422, `cdrDays`)
	c.expect(t, http.MethodPatch, path, `{"cdrDays":30}`, 200)
	c.expect(t, http.MethodDelete, path, "", 204)
	c.expect(t, http.MethodDelete, path, "", 404)

	nothingAnswers(t, s, w)
	// The switches were asked to forget all of it when it was suspended, not one by one.
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs WHERE tenant_id = $1 AND kind = 'switch.user'`, w.tenant); n != 0 {
		t.Errorf("%d jobs about extensions", n)
	}
	if others() != kept {
		t.Errorf("another tenant changed:\n%s\nwas\n%s", others(), kept)
	}
	if a := w.do(t, http.MethodGet, "/domains", ""); a.status != http.StatusUnauthorized {
		t.Errorf("its credentials: %d %s", a.status, a.body)
	}
	for _, r := range [][3]string{
		{http.MethodPatch, path, `{"status":"active"}`},
		{http.MethodGet, path + "/secrets", ""},
		{http.MethodPost, path + "/secrets", ""},
		{http.MethodPost, path + "/secrets/rotate", `{"overlapSeconds":0}`},
		{http.MethodGet, path + "/domains", ""},
		{http.MethodPost, path + "/trunks", mustJSON(t, leastTrunk("trunkId", uuid.NewString()))},
		{http.MethodPut, path + "/webhook-endpoint", `{"baseUrl":"https://w3.example"}`},
	} {
		c.expect(t, r[0], r[1], r[2], 404)
	}
	actions := one[string](t, s, `SELECT string_agg(action, ' ' ORDER BY id) FROM edgvoip.audit_log WHERE tenant_id = $1 AND correlation_id = (
		SELECT correlation_id FROM edgvoip.audit_log WHERE action = 'tenant.deleted') AND actor = 'operator:of-shop'`, w.tenant)
	if actions != "extension.deleted extension.deleted domain.deleted trunk.deleted secret.revoked tenant.deleted" {
		t.Errorf("the audit log has %s", actions)
	}
	// What it had is free, but for its id.
	c.expect(t, http.MethodPost, "/tenants", `{"tenantId":"`+w.tenant.String()+`","slug":"shop","name":"Shop","country":"IT"}`, 409)
	again := s.tenant(t, "shop")
	again.post(t, again.spec("1001"))
	if a := (carrier{c.operator, again}).create(t, leastTrunk("trunkId", uuid.NewString(), "didRanges", fullTrunk()["didRanges"])); a.status != http.StatusCreated {
		t.Errorf("its numbers: %d %s", a.status, a.body)
	}
}

// nothingAnswers checks that no lookup finds anything of a tenant's that had extension 1001 and fullTrunk.
func nothingAnswers(t *testing.T, s *scene, w w3) {
	t.Helper()
	ctx, realm, name := t.Context(), storetest.Realm(w.realm()), storetest.Username("1001")
	if _, err := s.store.Domain(ctx, realm); !errors.Is(err, directory.ErrUnknownDomain) {
		t.Errorf("domain: %v", err)
	}
	if _, _, err := s.store.Extension(ctx, realm, name); !errors.Is(err, directory.ErrUnknownDomain) {
		t.Errorf("extension: %v", err)
	}
	if _, _, err := s.store.TenantExtension(ctx, w.tenant, uuid.Nil, name); !errors.Is(err, directory.ErrUnknownExtension) {
		t.Errorf("extension of the tenant: %v", err)
	}
	if _, err := s.store.InboundTrunk(ctx, storetest.E164("+390612345601")); !errors.Is(err, trunk.ErrUnknownDID) {
		t.Errorf("number: %v", err)
	}
	if list, err := s.store.TenantTrunks(ctx, w.tenant); len(list) > 0 {
		t.Errorf("trunks: %v, %v", list, err)
	}
	if list, err := s.store.TenantDomains(ctx, w.tenant); len(list) > 0 || err != nil {
		t.Errorf("domains: %v, %v", list, err)
	}
	if list, err := s.store.CarrierCountries(ctx, netip.MustParseAddr("192.0.2.7")); len(list) > 0 || err != nil {
		t.Errorf("carriers: %v, %v", list, err)
	}
	if list, err := s.store.Carriers(ctx, []uuid.UUID{w.tenant}); len(list) > 0 || err != nil {
		t.Errorf("carriers: %v, %v", list, err)
	}
	realms, err := s.store.Realms(ctx, "", 10)
	if err != nil || strings.Contains(fmt.Sprint(realms), w.realm()) {
		t.Errorf("realms: %v, %v", realms, err)
	}
	names, err := s.store.Names(ctx, readmodel.Name{}, 10)
	if err != nil || strings.Contains(fmt.Sprint(names), w.tenant.String()) {
		t.Errorf("names: %v, %v", names, err)
	}
	for what, query := range map[string]string{
		"hashes":    `SELECT count(*) FROM edgvoip.sip_extensions WHERE tenant_id = $1 AND (status <> 'deleted' OR length(ha1_md5_sealed) + length(ha1_sha256_sealed) > 0 OR password_hash <> '$argon2id$')`,
		"stores":    `SELECT count(*) FROM edgvoip.voip_extension_store_access WHERE tenant_id = $1`,
		"endpoints": `SELECT count(*) FROM edgvoip.webhook_endpoints WHERE tenant_id = $1`,
		"events":    `SELECT count(*) FROM edgvoip.webhook_events WHERE tenant_id = $1 AND state <> 'discarded'`,
		"secrets":   `SELECT count(*) FROM edgvoip.integration_secrets WHERE tenant_id = $1 AND expires_at IS NULL`,
	} {
		if n := one[int](t, s, query, w.tenant); n != 0 {
			t.Errorf("%d %s are left", n, what)
		}
	}
}

// Whoever provisions while a tenant or a domain is deleted leaves nothing behind that answers, or takes a realm.
func TestDeletedMeanwhile(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	for round := range 6 {
		w := s.tenant(t, fmt.Sprintf("shop%d", round))
		w.post(t, w.spec("1000"))
		path := "/tenants/" + w.tenant.String()
		var writers sync.WaitGroup
		for i := range 4 {
			realm := fmt.Sprintf("r%d.%s", i%2, w.realm())
			writers.Go(func() {
				for n := range 4 {
					r := w.sign(http.MethodPost, "/extensions", w.spec(fmt.Sprint(1001+10*i+n), "sipRealm", realm, "domainId", nil))
					if a, err := s.try(t.Context(), r); err != nil || a.status == http.StatusInternalServerError {
						t.Errorf("%d %s, %v", a.status, a.body, err)
					}
				}
			})
		}
		anna.expect(t, http.MethodPatch, path, `{"status":"suspended"}`, 200)
		if a := anna.do(t, http.MethodDelete, path, ""); a.status != http.StatusNoContent && a.status != http.StatusServiceUnavailable {
			t.Errorf("%d %s", a.status, a.body)
		} else if a.status == http.StatusServiceUnavailable {
			writers.Wait()
			anna.expect(t, http.MethodDelete, path, "", 204)
		}
		writers.Wait()
		if n := one[int](t, s, `SELECT (SELECT count(*) FROM edgvoip.sip_domains WHERE tenant_id = $1 AND status <> 'deleted')
			+ (SELECT count(*) FROM edgvoip.sip_extensions WHERE tenant_id = $1 AND status <> 'deleted') + (SELECT count(*) FROM edgvoip.sip_names WHERE tenant_id = $1)`, w.tenant); n != 0 {
			t.Errorf("round %d: %d rows are left", round, n)
		}
	}
}
