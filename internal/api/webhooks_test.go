package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/webhook"
)

// An operator says where a tenant's events go, looks at them, and has those sent again or not that were given up; by
// his name in the audit log.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	shop, mall := s.tenant(t, "shop"), s.tenant(t, "mall")
	path := "/tenants/" + shop.tenant.String()
	do := func(method, path, body string, want int) answer {
		t.Helper()
		a := anna.do(t, method, path, body)
		if a.status != want {
			t.Errorf("%s %s: %d %s, want %d", method, path, a.status, a.body, want)
		}
		if strings.Contains(a.body, "evs_") || strings.Contains(a.body, "s3cret") {
			t.Errorf("%s %s shows a secret: %s", method, path, a.body)
		}
		return a
	}
	endpoint := path + "/webhook-endpoint"
	if a := do(http.MethodGet, endpoint, "", 404); a.code(t) != "not_found" {
		t.Errorf("%s", a.body)
	}
	made := do(http.MethodPut, endpoint, `{"baseUrl":"https://W3.example/base/"}`, 200)
	if m := made.json(t); m["baseUrl"] != "https://w3.example/base" || m["status"] != "active" {
		t.Errorf("%s", made.body)
	}
	if again := do(http.MethodPut, endpoint, `{"baseUrl":"https://w3.example/base"}`, 200); again.body != made.body {
		t.Errorf("again: %s, was %s", again.body, made.body)
	}
	if m := do(http.MethodPut, endpoint, `{"baseUrl":"https://w3.example","status":"paused"}`, 200).json(t); m["status"] != "paused" || m["baseUrl"] != "https://w3.example" {
		t.Errorf("%v", m)
	}
	for _, url := range []string{"http://w3.example", "https://user:s3cret@w3.example", "https://w3.example?x=1", "https://w3.example#x", "gopher://w3.example", "", "https://${x}.example"} {
		if a := do(http.MethodPut, endpoint, `{"baseUrl":"`+url+`"}`, 422); !strings.Contains(a.body, `"field":"baseUrl"`) {
			t.Errorf("%s: %s", url, a.body)
		}
	}
	do(http.MethodPut, endpoint, `{"baseUrl":"https://w3.example","status":"gone"}`, 422)
	do(http.MethodPut, "/tenants/"+uuid.NewString()+"/webhook-endpoint", `{"baseUrl":"https://w3.example"}`, 404)
	if m := do(http.MethodGet, endpoint, "", 200).json(t); m["baseUrl"] != "https://w3.example" {
		t.Errorf("%v", m)
	}

	for _, who := range []w3{shop, mall} {
		if _, err := s.raw.ExecContext(t.Context(), `INSERT INTO edgvoip.webhook_events (tenant_id, key, kind, subject, payload, state, attempts, last_error, first_attempt_at, finished_at)
			SELECT $1, gen_random_uuid(), 'trunk.updated', gen_random_uuid(), '{"n":1}', 'dead', 2, 'answered 400', now(), now() FROM generate_series(1, 3)`, who.tenant); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.raw.ExecContext(t.Context(), `INSERT INTO edgvoip.webhook_attempts (tenant_id, event_id, attempt, duration_ms, status, error)
		SELECT tenant_id, id, 2, 20, 400, 'answered 400' FROM edgvoip.webhook_events`); err != nil {
		t.Fatal(err)
	}
	events := path + "/webhook-events"
	first := do(http.MethodGet, events+"?state=dead&limit=2", "", 200)
	if n := strings.Count(first.body, `"eventId"`); n != 2 || strings.Contains(first.body, `"body"`) {
		t.Errorf("%d events: %s", n, first.body)
	}
	cursor, _ := first.json(t)["nextCursor"].(string)
	if last := do(http.MethodGet, events+"?state=dead&limit=2&cursor="+cursor, "", 200); strings.Count(last.body, `"eventId":1,`) != 1 || strings.Contains(last.body, "nextCursor") {
		t.Errorf("%s", last.body)
	}
	do(http.MethodGet, events+"?cursor=x", "", 422)
	do(http.MethodGet, events+"?state=gone", "", 422)
	do(http.MethodGet, "/tenants/"+uuid.NewString()+"/webhook-events", "", 404)
	one := do(http.MethodGet, events+"/1", "", 200)
	if !strings.Contains(one.body, `"body":{"n":1}`) || !strings.Contains(one.body, `"log":[{"attempt":2,`) || !strings.Contains(one.body, `"durationMs":20,"status":400,"error":"answered 400"`) {
		t.Errorf("%s", one.body)
	}
	// Another tenant's are not there.
	for _, step := range []struct{ method, path string }{{http.MethodGet, "/4"}, {http.MethodPost, "/4/replay"}, {http.MethodPost, "/4/discard"}} {
		if a := do(step.method, events+step.path, "", 404); a.code(t) != "not_found" {
			t.Errorf("%s", a.body)
		}
	}
	do(http.MethodPost, events+"/1/replay", "", 204)
	do(http.MethodPost, events+"/2/discard", "", 204)
	for _, step := range []string{"/1/replay", "/1/discard", "/2/replay"} {
		if a := do(http.MethodPost, events+step, "", 409); a.code(t) != "event_not_dead" {
			t.Errorf("%s: %s", step, a.body)
		}
	}
	do(http.MethodPost, events+"/x/replay", "", 422)
	if m := do(http.MethodPost, events+"/replay", "", 200).json(t); m["replayed"] != 1.0 {
		t.Errorf("replayed %v", m)
	}
	if a := do(http.MethodGet, events+"?state=pending", "", 200); strings.Count(a.body, `"dueAt"`) != 2 || strings.Contains(a.body, "firstAttemptAt") {
		t.Errorf("%s", a.body)
	}
	do(http.MethodDelete, endpoint, "", 204)
	do(http.MethodDelete, endpoint, "", 404)
	log := do(http.MethodGet, "/audit?tenantId="+shop.tenant.String()+"&actor=operator:anna", "", 200).body
	for action, n := range map[string]int{
		"webhook_endpoint.created": 1, "webhook_endpoint.updated": 1, "webhook_endpoint.removed": 1, "webhook_events.replayed": 2, "webhook_event.discarded": 1,
	} {
		if got := strings.Count(log, `"`+action+`"`); got != n {
			t.Errorf("%s is in the audit log %d times, want %d", action, got, n)
		}
	}
	// Nothing of this is for W3.
	for _, r := range []request{shop.sign(http.MethodGet, "/webhook-endpoint", ""), {method: http.MethodGet, target: "/api/v1/admin" + endpoint, header: http.Header{"Authorization": {"Bearer " + shop.secret.Bearer}}}} {
		if a := s.send(t, r); a.status != http.StatusNotFound && a.status != http.StatusUnauthorized {
			t.Errorf("%s %s: %d", r.method, r.target, a.status)
		}
	}
}

// Every text as a base URL, as its host or in its path is refused by the name of the field and not shown, or is a URL
// that reads the same again.
func TestHostileBaseURL(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	path := "/tenants/" + s.tenant(t, "shop").tenant.String() + "/webhook-endpoint"
	taken := 0
	for _, text := range hostile {
		for _, url := range []string{text, "https://" + text, "https://w3.example/" + text, "https://w3.example" + text, "https://" + text + "@w3.example"} {
			a := anna.do(t, http.MethodPut, path, `{"baseUrl":`+mustJSON(t, url)+`}`)
			if a.status == http.StatusOK {
				taken++
				base, _ := a.json(t)["baseUrl"].(string)
				again, err := webhook.ParseBaseURL(base)
				if err != nil || again.String() != base || strings.ContainsAny(base, " $\\\"'<>{}|^`@\r\n\t\x00") {
					t.Errorf("%q became %q, %v", url, base, err)
				}
				continue
			}
			if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"baseUrl"`) {
				t.Errorf("%q: %d %s", url, a.status, a.body)
			}
			if len(text) > 5 && text != "x-pre-process" && text != "public" && strings.Contains(a.body, strings.Trim(mustJSON(t, text), `"`)) {
				t.Errorf("the answer repeats %q: %s", url, a.body)
			}
		}
	}
	if taken == 0 || taken > 60 {
		t.Errorf("%d were taken", taken)
	}
}
