package api_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
)

// What the contract says of POST: fields, actions, answer.
func TestPost(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	first := w.post(t, w.spec("1001"))
	m := first.json(t)
	want := map[string]any{"success": true, "edgvoipExtensionId": first.id(t), "status": "provisioned", "wsEndpoint": "wss://shop.example:8443"}
	if first.status != http.StatusCreated || !reflect.DeepEqual(m, want) || first.header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %v %s, want %v", first.status, m, first.header, want)
	}
	row := one[string](t, s, `SELECT (d.tenant_id, d.realm, d.w3_domain_id, d.name, e.extension, e.sip_username, e.display_name, e.transport, e.allowed_codecs, e.max_concurrent_calls, e.status)::text
		FROM edgvoip.sip_extensions e JOIN edgvoip.sip_domains d ON d.id = e.domain_id WHERE e.id = $1`, first.id(t))
	if want := `(` + w.tenant.String() + `,shop.example,` + uuid.NewSHA1(w.tenant, []byte("domain")).String() + `,"Shop shop",1001,user1001,"Anna 1001",wss,"{OPUS,PCMA}",3,active)`; row != want {
		t.Errorf("stored %s, want %s", row, want)
	}
	before := contents(t, s)
	again := w.post(t, w.spec("1001"))
	if again.status != http.StatusOK || again.body != first.body || contents(t, s) != before {
		t.Errorf("the same again: %d %s, want %s; rows changed: %v", again.status, again.body, first.body, contents(t, s) != before)
	}
	changed := w.post(t, w.spec("1001", "displayName", "Anna Rossi", "domainName", "Another shop"))
	if changed.status != http.StatusOK || changed.id(t) != first.id(t) {
		t.Errorf("a change: %d %s", changed.status, changed.body)
	}
	if got := w.do(t, http.MethodGet, "/extensions/"+first.id(t), "").json(t); got["displayName"] != "Anna Rossi" || got["domainName"] != "Another shop" {
		t.Errorf("after a change: %v", got)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action LIKE 'extension.%'`); n != 2 {
		t.Errorf("%d audit rows of one creation and one change", n)
	}
	for _, secret := range []string{"correct horse battery", w.secret.Bearer, w.secret.HMAC} {
		if strings.Contains(contents(t, s), secret) || strings.Contains(s.log.String(), secret) {
			t.Errorf("%s is in the database or in the log", secret)
		}
	}
}

// Only what must be there must be there.
func TestPostLeast(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	body, err := json.Marshal(map[string]any{
		"tenantId": w.tenant, "sipRealm": "shop.example", "extension": "1001", "sipPassword": "long enough", "domainName": nil, "maxConcurrentCalls": nil,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := w.do(t, http.MethodGet, "/extensions/"+w.post(t, string(body)).id(t), "").json(t)
	for name, want := range map[string]any{
		"sipUsername": "1001", "displayName": "1001", "transport": "any", "maxConcurrentCalls": 2.0, "status": "active",
		"allowedCodecs": []any{"OPUS", "G722", "PCMA", "PCMU"}, "domainId": nil, "domainName": nil,
	} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	for _, field := range []string{"tenantId", "sipRealm", "extension", "sipPassword"} {
		var m map[string]any
		if err := json.Unmarshal(body, &m); err != nil {
			t.Fatal(err)
		}
		delete(m, field)
		without, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		a := w.do(t, http.MethodPost, "/extensions", string(without))
		if a.status != http.StatusUnprocessableEntity || a.code(t) != "invalid" || !strings.Contains(a.body, `"errors":[{"field":"`+field+`","message":"is missing"}]`) {
			t.Errorf("without %s: %d %s", field, a.status, a.body)
		}
	}
}

func TestPatch(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	s.node(t, "fs1", "active")
	id := w.post(t, w.spec("1001")).id(t)
	path := "/extensions/" + id
	for _, tc := range []struct {
		body string
		want map[string]any
		jobs int
	}{
		{`{"displayName":"Anna Rossi"}`, map[string]any{"displayName": "Anna Rossi"}, 0},
		{`{"allowedCodecs":["g722","opus"]}`, map[string]any{"allowedCodecs": []any{"G722", "OPUS"}}, 0},
		{`{"maxConcurrentCalls":0}`, map[string]any{"maxConcurrentCalls": 0.0}, 0},
		{`{"outboundCallerNumber":"+390612345678"}`, map[string]any{"outboundCallerNumber": "+390612345678"}, 0},
		{`{"outboundCallerNumber":""}`, map[string]any{"outboundCallerNumber": nil}, 0},
		{`{"status":"suspended","displayName":"Anna","maxConcurrentCalls":5}`, map[string]any{"status": "suspended", "displayName": "Anna", "maxConcurrentCalls": 5.0}, 1},
		{`{"status":"active"}`, map[string]any{"status": "active"}, 0},
		{`{"transport":"TLS"}`, map[string]any{"transport": "tls"}, 1},
		{`{"sipPassword":"another password"}`, nil, 1},
	} {
		before := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`)
		a := w.do(t, http.MethodPatch, path, tc.body)
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", tc.body, a.status, a.body)
			continue
		}
		for name, want := range tc.want {
			if got := a.json(t)[name]; !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s is %v, want %v", tc.body, name, got, want)
			}
		}
		if got := w.do(t, http.MethodGet, path, ""); got.body != a.body {
			t.Errorf("%s: answered %s, is %s", tc.body, a.body, got.body)
		}
		if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`) - before; n != tc.jobs {
			t.Errorf("%s: %d jobs, want %d", tc.body, n, tc.jobs)
		}
		if n := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'extension.updated' AND correlation_id = $1`, a.header.Get("X-Request-Id")); n != 1 {
			t.Errorf("%s: %d audit rows with its id", tc.body, n)
		}
		if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs WHERE correlation_id = $1`, a.header.Get("X-Request-Id")); n != tc.jobs {
			t.Errorf("%s: %d jobs with its id, want %d", tc.body, n, tc.jobs)
		}
		state := contents(t, s)
		if again := w.do(t, http.MethodPatch, path, tc.body); again.body != a.body || contents(t, s) != state {
			t.Errorf("%s again: %s, and rows changed: %v", tc.body, again.body, contents(t, s) != state)
		}
	}
	state := contents(t, s)
	for body, field := range map[string]string{
		`{"displayName":"Good","status":"gone"}`: "status", `{"displayName":"Good","status":"deleted"}`: "status",
		`{"displayName":"Good","maxConcurrentCalls":1001}`: "maxConcurrentCalls", `{"displayName":"Good","allowedCodecs":[]}`: "allowedCodecs",
		`{"displayName":"Good","allowedCodecs":["mp3"]}`: "allowedCodecs", `{"displayName":""}`: "displayName", `{"sipRealm":"x.example"}`: "sipRealm",
		`{"displayName":"Good","sipPassword":"short"}`: "sipPassword", `{"displayName":"Good","transport":"carrier pigeon"}`: "transport",
		`{"displayName":7}`: "displayName", `{"displayname":"Good"}`: "displayname", `{"maxConcurrentCalls":1.5}`: "maxConcurrentCalls",
	} {
		a := w.do(t, http.MethodPatch, path, body)
		errs, _ := a.json(t)["errors"].([]any)
		if a.status != http.StatusUnprocessableEntity || a.code(t) != "invalid" || len(errs) != 1 || !reflect.DeepEqual(errs[0].(map[string]any)["field"], any(field)) && field != "allowedCodecs" {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if contents(t, s) != state {
		t.Error("a refused change changed something")
	}
}

// A change is known to be in force when every switch says so.
func TestConvergence(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	for _, name := range []string{"fs1", "fs2", "fs3"} {
		s.node(t, name, "active")
	}
	path := "/extensions/" + w.post(t, w.spec("1001")).id(t)
	look := func(want string) {
		t.Helper()
		a := w.do(t, http.MethodGet, path+"/convergence", "")
		got := regexp.MustCompile(`,"since":"[^"]*"`).ReplaceAllString(strings.TrimSpace(a.body), "")
		if a.status != http.StatusOK || got != want {
			t.Errorf("%d %s, want %s", a.status, got, want)
		}
	}
	look(`{"converged":true,"nodes":[{"node":"fs1","status":"done"},{"node":"fs2","status":"done"},{"node":"fs3","status":"done"}]}`)
	w.do(t, http.MethodPatch, path, `{"status":"suspended"}`)
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"pending"},{"node":"fs2","status":"pending"},{"node":"fs3","status":"pending"}]}`)
	const on = `WHERE node_id = (SELECT id FROM edgvoip.switch_nodes WHERE name = $1)`
	exec(t, s, `UPDATE edgvoip.jobs SET state = 'done', finished_at = now() `+on, "fs1")
	exec(t, s, `UPDATE edgvoip.jobs SET state = 'dead', last_error = 'hidden' `+on, "fs2")
	exec(t, s, `UPDATE edgvoip.switch_nodes SET status = 'disabled' WHERE name = 'fs3'`)
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"done"},{"node":"fs2","status":"failed"},{"node":"fs3","status":"disabled"}]}`)
	exec(t, s, `UPDATE edgvoip.jobs SET state = 'done', finished_at = now() `+on, "fs2")
	look(`{"converged":true,"nodes":[{"node":"fs1","status":"done"},{"node":"fs2","status":"done"},{"node":"fs3","status":"disabled"}]}`)
	// It was told before it was disabled, and cannot be told of what is changed since.
	exec(t, s, `UPDATE edgvoip.jobs SET state = 'done', finished_at = now() `+on, "fs3")
	look(`{"converged":true,"nodes":[{"node":"fs1","status":"done"},{"node":"fs2","status":"done"},{"node":"fs3","status":"disabled"}]}`)
	w.do(t, http.MethodPatch, path, `{"sipPassword":"another password"}`)
	exec(t, s, `UPDATE edgvoip.switch_nodes SET status = 'active' WHERE name = 'fs3'`)
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"pending"},{"node":"fs2","status":"pending"},{"node":"fs3","status":"pending"}]}`)
}

// A deleted extension stays deleted, keeps nothing of its password, and its number is free.
func TestDelete(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	s.node(t, "fs1", "active")
	id := w.post(t, w.spec("1001")).id(t)
	path := "/extensions/" + id
	w.do(t, http.MethodPut, path+"/stores", `{"storeIds":["`+uuid.NewString()+`"]}`)
	first := w.do(t, http.MethodDelete, path, "")
	if want := `{"success":true,"edgvoipExtensionId":"` + id + `","status":"deleted"}`; first.status != http.StatusOK || strings.TrimSpace(first.body) != want {
		t.Errorf("%d %s, want %s", first.status, first.body, want)
	}
	state := contents(t, s)
	if again := w.do(t, http.MethodDelete, path, ""); again.status != http.StatusOK || again.body != first.body || contents(t, s) != state {
		t.Errorf("again: %d %s", again.status, again.body)
	}
	for _, a := range []answer{w.do(t, http.MethodPatch, path, `{"status":"active"}`), w.do(t, http.MethodPut, path+"/stores", `{"storeIds":[]}`)} {
		if a.status != http.StatusConflict || a.code(t) != "extension_deleted" {
			t.Errorf("change of a deleted one: %d %s", a.status, a.body)
		}
	}
	if a := w.do(t, http.MethodGet, path, ""); a.status != http.StatusOK || a.json(t)["status"] != "deleted" {
		t.Errorf("look at a deleted one: %d %s", a.status, a.body)
	}
	if left := one[string](t, s, `SELECT password_hash || '|' || encode(ha1_md5_sealed, 'hex') || '|' || encode(ha1_sha256_sealed, 'hex') || '|' || ha1_key_id
		FROM edgvoip.sip_extensions WHERE id = $1`, id); left != "$argon2id$|||" {
		t.Errorf("left of the password: %s", left)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs WHERE subject = $1 AND (payload->>'revoked')::boolean`, id); n != 1 {
		t.Errorf("%d jobs to drop the registration", n)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.voip_extension_store_access`); n != 0 {
		t.Errorf("%d stores have access", n)
	}
	second := w.post(t, w.spec("1001"))
	if second.status != http.StatusCreated || second.id(t) == id {
		t.Errorf("the number again: %d %s", second.status, second.body)
	}
	if got := w.do(t, http.MethodGet, path, "").json(t)["status"]; got != "deleted" {
		t.Errorf("the first one is %v again", got)
	}
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	s := start(t)
	w, other := s.tenant(t, "shop"), s.tenant(t, "mall")
	w.post(t, w.spec("1001"))
	other.post(t, other.spec("1001"))
	state := contents(t, s)
	for name, tc := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"realm of another tenant":   {w.spec("1002", "sipRealm", other.realm()), 409, "realm_taken"},
		"another domainId":          {w.spec("1002", "domainId", uuid.New()), 409, "domain_mismatch"},
		"username of another":       {w.spec("1002", "sipUsername", "USER1001"), 409, "name_taken"},
		"username another's number": {w.spec("1002", "sipUsername", "1001"), 409, "name_taken"},
		"number another's username": {w.spec("1003", "sipUsername", "user1001"), 409, "name_taken"},
		"another tenant":            {w.spec("1002", "tenantId", other.tenant), 403, "tenant_mismatch"},
		"nobody's tenant":           {w.spec("1002", "tenantId", uuid.New()), 403, "tenant_mismatch"},
	} {
		a := w.do(t, http.MethodPost, "/extensions", tc.body)
		if a.status != tc.status || a.code(t) != tc.code || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %s", name, a.status, a.body, a.header)
		}
	}
	if contents(t, s) != state {
		t.Error("a conflict changed something")
	}
}

func TestStores(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	path := "/extensions/" + w.post(t, w.spec("1001")).id(t) + "/stores"
	if a := w.do(t, http.MethodGet, path, ""); a.status != http.StatusOK || strings.TrimSpace(a.body) != `{"storeIds":[]}` {
		t.Errorf("none: %d %s", a.status, a.body)
	}
	const one, two, three = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002", "f0000000-0000-4000-8000-000000000003"
	for _, tc := range [][2]string{
		{`{"storeIds":["` + three + `","` + one + `","` + three + `"]}`, `{"storeIds":["` + one + `","` + three + `"]}`},
		{`{"storeIds":["` + two + `","` + three + `"]}`, `{"storeIds":["` + two + `","` + three + `"]}`},
		{`{"storeIds":[]}`, `{"storeIds":[]}`},
	} {
		a := w.do(t, http.MethodPut, path, tc[0])
		if got := w.do(t, http.MethodGet, path, ""); a.status != http.StatusOK || strings.TrimSpace(a.body) != tc[1] || got.body != a.body {
			t.Errorf("%s: %d %s, is %s", tc[0], a.status, a.body, got.body)
		}
	}
	for _, body := range []string{`{}`, `{"storeIds":["x"]}`, `{"storeIds":"` + one + `"}`, `{"storeIds":[7]}`, `{"storeIds":["` + one + `"],"x":1}`} {
		if a := w.do(t, http.MethodPut, path, body); a.status != http.StatusUnprocessableEntity || a.code(t) != "invalid" {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
}

// Health is open to everybody, and true.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := start(t)
	get := func() answer {
		t.Helper()
		return s.send(t, request{method: http.MethodGet, target: api.BasePath + "/health", header: http.Header{}})
	}
	if a := get(); a.status != 200 || strings.TrimSpace(a.body) != `{"status":"ok","lastSyncW3":null,"domainsActive":0,"extensionsRegistered":0,"sipCoreStatus":"up"}` {
		t.Errorf("at first: %d %s", a.status, a.body)
	}
	w := s.tenant(t, "shop")
	w.post(t, w.spec("1001"))
	w.post(t, w.spec("1001", "sipRealm", "second.shop.example", "domainId", nil))
	s.core.registered.Store(7)
	s.core.status.Store(api.CoreDegraded)
	m := get().json(t)
	if m["status"] != "degraded" || m["lastSyncW3"] == nil || m["domainsActive"] != 2.0 || m["extensionsRegistered"] != 7.0 || m["sipCoreStatus"] != "degraded" {
		t.Errorf("later: %v", m)
	}
	exec(t, s, `ALTER TABLE edgvoip.sip_domains RENAME TO away`)
	if a := get(); a.status != http.StatusServiceUnavailable || a.json(t)["status"] != "down" {
		t.Errorf("without a database: %d %s", a.status, a.body)
	}
}
