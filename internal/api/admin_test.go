package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/api"
)

// operator is somebody with a token.
type operator struct {
	s     *scene
	token string
}

func (s *scene) operator(t *testing.T, name string, lifetime time.Duration) operator {
	t.Helper()
	token, err := s.issuer.AddOperator(t.Context(), name, lifetime, "test")
	if err != nil {
		t.Fatal(err)
	}
	return operator{s, token}
}

func (o operator) do(t *testing.T, method, path, body string) answer {
	t.Helper()
	r := request{method: method, target: api.AdminPath + path, body: body, header: http.Header{"Authorization": {"Bearer " + o.token}}}
	if body != "" {
		r.header.Set("Content-Type", "application/json")
	}
	return o.s.send(t, r)
}

// An operator makes a tenant and its credentials, which are good at once, rotates and ends them; and everything he did
// is in the audit log, by his name.
func TestOperator(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	id := uuid.New()
	made := anna.do(t, http.MethodPost, "/tenants", `{"tenantId":"`+id.String()+`","slug":"shop","name":"Shop","country":"IT","timezone":"Europe/Rome"}`)
	if made.status != http.StatusOK || made.json(t)["tenantId"] != id.String() || made.json(t)["status"] != "active" {
		t.Fatalf("%d %s", made.status, made.body)
	}
	if again := anna.do(t, http.MethodPost, "/tenants", `{"tenantId":"`+id.String()+`","slug":"shop","name":"Shop","country":"IT"}`); again.body != made.body {
		t.Errorf("again: %d %s", again.status, again.body)
	}
	for _, body := range []string{
		`{"tenantId":"` + uuid.NewString() + `","slug":"shop","name":"Shop","country":"IT"}`, `{"tenantId":"` + id.String() + `","slug":"other","name":"Shop","country":"IT"}`,
	} {
		if a := anna.do(t, http.MethodPost, "/tenants", body); a.status != http.StatusConflict || a.code(t) != "tenant_id_taken" {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	for body, field := range map[string]string{
		`{"slug":"public","name":"x","country":"IT"}`: "slug", `{"slug":"mall","name":"${x}","country":"IT"}`: "name", `{"slug":"mall","name":"x","country":"Italy"}`: "country",
		`{"slug":"mall","name":"x","country":"IT","timezone":"Rome"}`: "timezone", `{"slug":"mall","name":"x"}`: "country",
	} {
		if a := anna.do(t, http.MethodPost, "/tenants", body); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	path := "/tenants/" + id.String()
	newSecret := func(path, body string) w3 {
		t.Helper()
		a := anna.do(t, http.MethodPost, path, body)
		var n api.NewSecret
		if err := json.Unmarshal([]byte(a.body), &n); err != nil || a.status != http.StatusCreated || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		return w3{s, id, "shop", integration.Issued{ID: n.ID, Bearer: n.Bearer, HMAC: n.HMACSecret}}
	}
	works := func(who w3, want bool) {
		t.Helper()
		if a := who.do(t, http.MethodGet, "/domains", ""); (a.status == http.StatusOK) != want || !want && a.status != http.StatusUnauthorized {
			t.Errorf("%d %s, want let in: %v", a.status, a.body, want)
		}
	}
	first := newSecret(path+"/secrets", "")
	works(first, true)
	second := newSecret(path+"/secrets/rotate", `{"overlapSeconds":3600}`)
	works(first, true)
	works(second, true)
	third := newSecret(path+"/secrets/rotate", `{"overlapSeconds":0}`)
	works(first, false) // its hour is over as well
	works(second, false)
	works(third, true)
	if a := anna.do(t, http.MethodDelete, path+"/secrets/"+first.secret.ID.String(), ""); a.status != http.StatusNoContent || a.body != "" {
		t.Errorf("revoked: %d %s", a.status, a.body)
	}
	list := anna.do(t, http.MethodGet, path+"/secrets", "")
	if n := strings.Count(list.body, `"valid":true`); n != 1 || strings.Count(list.body, "secretId") != 3 || strings.Contains(list.body, "ev") && strings.Contains(list.body, "evs_") {
		t.Errorf("%d valid: %s", n, list.body)
	}
	if a := anna.do(t, http.MethodPatch, path, `{"status":"suspended"}`); a.status != http.StatusOK || a.json(t)["status"] != "suspended" {
		t.Errorf("suspended: %d %s", a.status, a.body)
	}
	works(third, false)
	if a := anna.do(t, http.MethodGet, "/tenants", ""); !strings.Contains(a.body, `"status":"suspended"`) || !strings.Contains(a.body, "Europe/Rome") {
		t.Errorf("tenants: %s", a.body)
	}
	log := anna.do(t, http.MethodGet, "/audit?actor=operator:anna&tenantId="+id.String(), "")
	var actions []string
	var entries struct{ Items []api.AuditEntry }
	if err := json.Unmarshal([]byte(log.body), &entries); err != nil {
		t.Fatalf("%s: %v", log.body, err)
	}
	for _, e := range entries.Items {
		actions = append(actions, e.Action)
		if e.CorrelationID == "" {
			t.Errorf("%s has no id of its request", e.Action)
		}
	}
	if want := []string{"tenant.updated", "secret.revoked", "secret.rotated", "secret.rotated", "secret.created", "tenant.created"}; !slices.Equal(actions, want) {
		t.Errorf("audit log: %v, want %v", actions, want)
	}
	for _, who := range []w3{first, second, third} {
		if strings.Contains(log.body+s.log.String()+contents(t, s), who.secret.Bearer) || strings.Contains(log.body+s.log.String()+contents(t, s), who.secret.HMAC) {
			t.Error("credentials are in the audit log, the log or the database")
		}
	}
	for _, r := range [][3]string{
		{http.MethodPatch, "", `{"status":"active"}`},
		{http.MethodGet, "/secrets", ""},
		{http.MethodPost, "/secrets", ""},
		{http.MethodPost, "/secrets/rotate", `{"overlapSeconds":1}`},
		{http.MethodDelete, "/secrets/" + third.secret.ID.String(), ""},
	} {
		if a := anna.do(t, r[0], "/tenants/"+uuid.NewString()+r[1], r[2]); a.status != http.StatusNotFound || a.code(t) != "not_found" {
			t.Errorf("%v of nobody: %d %s", r, a.status, a.body)
		}
	}
}

// The doors are apart: an operator's token opens no tenant's, a tenant's no operator's, and an ended one none.
func TestOperatorsDoor(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	want := refusal(t, s)
	anna, bob, carl := s.operator(t, "anna", 0), s.operator(t, "bob", time.Hour), s.operator(t, "carl", 0)
	if err := s.store.RevokeOperator(t.Context(), "carl", "test"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/tenants", "/nodes", "/audit"} {
		for _, o := range []operator{anna, bob} {
			if a := o.do(t, http.MethodGet, path, ""); a.status != http.StatusOK {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
		for who, o := range map[string]operator{"revoked": carl, "a tenant": {s, w.secret.Bearer}, "nobody": {s, ""}, "somebody": {s, "evo_x"}} {
			if a := o.do(t, http.MethodGet, path, ""); face(a) != want {
				t.Errorf("%s at %s:\n%s", who, path, face(a))
			}
		}
		signed := w.sign(http.MethodGet, "/domains", "")
		signed.target = api.AdminPath + path
		if a := s.send(t, signed); face(a) != want {
			t.Errorf("a signed request at %s:\n%s", path, face(a))
		}
	}
	mixed := w
	mixed.secret.Bearer = anna.token
	if a := mixed.do(t, http.MethodGet, "/domains", ""); face(a) != want {
		t.Errorf("an operator at W3's door:\n%s", face(a))
	}
	s.skew.Store(int64(2 * time.Hour))
	if a := bob.do(t, http.MethodGet, "/tenants", ""); face(a) != want {
		t.Errorf("an expired token:\n%s", face(a))
	}
	if _, err := s.issuer.AddOperator(t.Context(), "anna", 0, "test"); err == nil {
		t.Error("two tokens of one name")
	}
	if again := s.operator(t, "carl", 0); again.do(t, http.MethodGet, "/tenants", "").status != http.StatusOK {
		t.Error("a name that is free again has no token")
	}
}

func TestAuditPages(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	id := w.post(t, w.spec("1001")).id(t)
	for i := range 7 {
		w.do(t, http.MethodPatch, "/extensions/"+id, fmt.Sprintf(`{"maxConcurrentCalls":%d}`, 10+i))
	}
	anna := s.operator(t, "anna", 0)
	read := func(query string, limit int) (ids []int64) {
		t.Helper()
		for cursor := ""; ; {
			a := anna.do(t, http.MethodGet, fmt.Sprintf("/audit?limit=%d&cursor=%s%s", limit, cursor, query), "")
			var page struct {
				Items      []api.AuditEntry
				NextCursor string
			}
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK {
				t.Fatalf("%d %s: %v", a.status, a.body, err)
			}
			for _, e := range page.Items {
				ids = append(ids, e.ID)
			}
			if cursor = page.NextCursor; cursor == "" {
				return ids
			}
		}
	}
	all := read("", 500)
	if !slices.IsSortedFunc(all, func(a, b int64) int { return int(b - a) }) || len(all) != 12 {
		t.Errorf("all: %v", all)
	}
	for limit := 1; limit <= len(all); limit++ {
		if got := read("", limit); !slices.Equal(got, all) {
			t.Errorf("by %d: %v, want %v", limit, got, all)
		}
	}
	for query, want := range map[string]int{
		"&subjectId=" + id: 8, "&action=extension.updated": 7, "&tenantId=" + w.tenant.String(): 11, "&tenantId=" + uuid.NewString(): 0,
		"&actor=w3:" + w.tenant.String() + "/" + w.secret.ID.String(): 9,
	} {
		if got := read(query, 3); len(got) != want {
			t.Errorf("%s: %d rows, want %d", query, len(got), want)
		}
	}
	oneRequest := one[string](t, s, `SELECT correlation_id FROM edgvoip.audit_log WHERE id = $1`, all[1])
	exec(t, s, `UPDATE edgvoip.audit_log SET at = '2026-01-01T00:00:00Z'::timestamptz + id * interval '1 hour'`)
	hour := func(i int) string {
		return time.Date(2026, 1, 1, int(all[i]), 0, 0, 0, time.UTC).Format(time.RFC3339)
	}
	for query, want := range map[string][]int64{
		"&correlationId=" + oneRequest: all[1:2], "&correlationId=nobody": nil, "&from=" + hour(2): all[:3], "&to=" + hour(2): all[3:],
		"&from=" + hour(4) + "&to=" + hour(1): all[2:5], "&from=" + hour(4) + "&to=" + hour(1) + "&actor=nobody": nil,
	} {
		if got := read(query, 2); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	last := anna.do(t, http.MethodGet, "/audit?limit=1&action=extension.updated", "")
	if !strings.Contains(last.body, `"maxConcurrentCalls":15`) || !strings.Contains(last.body, `"maxConcurrentCalls":16`) {
		t.Errorf("before and after: %s", last.body)
	}
	for _, query := range []string{"?tenantId=x", "?subjectId=x", "?cursor=x", "?cursor=YQ", "?from=x", "?to=yesterday", "?from=" + hour(1) + "&to=" + hour(1)} {
		if a := anna.do(t, http.MethodGet, "/audit"+query, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	exec(t, s, `INSERT INTO edgvoip.switch_nodes (id, name, address, password_sealed, password_key_id) VALUES (gen_random_uuid(), 'fs1', '192.0.2.1:8021', 'hunter2', 'k')`)
	w.do(t, http.MethodDelete, "/extensions/"+w.post(t, w.spec("1001")).id(t), "")
	a := s.operator(t, "anna", 0).do(t, http.MethodGet, "/nodes", "")
	for _, want := range []string{`"name":"fs1"`, `"address":"192.0.2.1:8021"`, `"status":"active"`, `"pending":1`, `"failed":0`} {
		if !strings.Contains(a.body, want) {
			t.Errorf("%s has no %s", a.body, want)
		}
	}
	if strings.Contains(a.body, "hunter2") {
		t.Errorf("%s shows a password", a.body)
	}
}
