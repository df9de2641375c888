package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// An operator adds a switch, changes it, takes it out of service and forgets it, without its password being shown anywhere.
func TestNodesManaged(t *testing.T) {
	t.Parallel()
	s := start(t)
	anna := s.operator(t, "anna", 0)
	expect := func(method, path, body string, status int, want ...string) answer {
		t.Helper()
		a := anna.do(t, method, path, body)
		if a.status != status {
			t.Errorf("%s %s %s: %d %s", method, path, body, a.status, a.body)
		}
		for _, text := range want {
			if !strings.Contains(a.body, text) {
				t.Errorf("%s %s %s: %s has no %s", method, path, body, a.body, text)
			}
		}
		return a
	}
	const spec = `{"address":"192.0.2.1:8021","password":"s3cret-one","cachesUsers":true}`
	made := expect(http.MethodPut, "/nodes/fs1", spec, 200, `"name":"fs1"`, `"address":"192.0.2.1:8021"`, `"status":"active"`, `"cachesUsers":true`)
	if again := expect(http.MethodPut, "/nodes/fs1", spec, 200); again.body != made.body {
		t.Errorf("again: %s, want %s", again.body, made.body)
	}
	expect(http.MethodPatch, "/nodes/fs1", `{"status":"disabled"}`, 200, `"status":"disabled"`)
	expect(http.MethodPut, "/nodes/fs1", spec, 200, `"status":"disabled"`) // it stays out of service
	expect(http.MethodPatch, "/nodes/fs1", `{"address":"192.0.2.2:8021","password":"s3cret-two","cachesUsers":false,"status":"active"}`, 200,
		`"address":"192.0.2.2:8021"`, `"status":"active"`, `"cachesUsers":false`)
	id, err := uuid.Parse(made.json(t)["nodeId"].(string))
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.store.Nodes(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	if password, err := node.Password(all[0], storetest.Keys()); err != nil || password != "s3cret-two" {
		t.Errorf("the password is %q, %v", password, err)
	}
	expect(http.MethodGet, "/nodes/fs1", "", 200, `"connected":false`, `"registrations":0`, `"pending":0`)
	s.core.switches.Store(id, 7)
	expect(http.MethodGet, "/nodes/fs1", "", 200, `"connected":true`, `"registrations":7`)
	expect(http.MethodGet, "/nodes", "", 200, `"connected":true`, `"registrations":7`)

	before := contents(t, s)
	for _, tc := range []struct{ method, path, body, field string }{
		{http.MethodPut, "/nodes/FS1", spec, "path.name"},
		{http.MethodPut, "/nodes/fs2", `{"address":"nowhere","password":"s3cret"}`, "address"},
		{http.MethodPut, "/nodes/fs2", `{"address":"192.0.2.1:0","password":"s3cret"}`, "address"},
		{http.MethodPut, "/nodes/fs2", `{"address":"192.0.2.1:8021"}`, "password"},
		{http.MethodPut, "/nodes/fs2", `{"address":"192.0.2.1:8021","password":""}`, "password"},
		{http.MethodPut, "/nodes/fs2", `{"address":"192.0.2.1:8021","password":"s3cret\n\nexit"}`, "password"},
		{http.MethodPatch, "/nodes/fs1", `{"address":"192.0.2.9:8021","password":"s3cret three"}`, "password"},
		{http.MethodPatch, "/nodes/fs1", `{"status":"gone"}`, "status"},
		{http.MethodPatch, "/nodes/fs1", `{"name":"fs2"}`, "name"},
	} {
		expect(tc.method, tc.path, tc.body, 422, `"field":"`+tc.field+`"`)
	}
	for _, r := range [][3]string{{http.MethodGet, "/nodes/fs9", ""}, {http.MethodPatch, "/nodes/fs9", `{"status":"active"}`}, {http.MethodDelete, "/nodes/fs9", ""}} {
		if a := expect(r[0], r[1], r[2], 404); a.code(t) != "not_found" {
			t.Errorf("%v: %s", r, a.body)
		}
	}
	if contents(t, s) != before {
		t.Error("what was refused was written")
	}
	expect(http.MethodDelete, "/nodes/fs1", "", 204)
	expect(http.MethodGet, "/nodes/fs1", "", 404)

	var entries struct{ Items []api.AuditEntry }
	log := expect(http.MethodGet, "/audit?actor=operator:anna&subjectId="+id.String(), "", 200)
	if err := json.Unmarshal([]byte(log.body), &entries); err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range entries.Items {
		actions = append(actions, e.Action)
	}
	if want := []string{"node.removed", "node.updated", "node.updated", "node.created"}; !slices.Equal(actions, want) {
		t.Errorf("audit log: %v, want %v", actions, want)
	}
	if text := log.body + s.log.String() + contents(t, s); strings.Contains(text, "s3cret") {
		t.Error("a password is in the audit log, the log or the database")
	}
}

// What the switches still have to do is listed page by page, and what was given up is tried again when an operator says so.
func TestNodeJobs(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	anna := s.operator(t, "anna", 0)
	for _, name := range []string{"fs1", "fs2"} {
		if a := anna.do(t, http.MethodPut, "/nodes/"+name, `{"address":"192.0.2.1:8021","password":"s3cret"}`); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	for i := range 3 {
		w.do(t, http.MethodDelete, "/extensions/"+w.post(t, w.spec(fmt.Sprint(1001+i))).id(t), "")
	}
	read := func(query string) (jobs []api.Job) {
		t.Helper()
		for cursor := ""; ; {
			a := anna.do(t, http.MethodGet, "/jobs?limit=2&cursor="+cursor+query, "")
			var page struct {
				Items      []api.Job
				NextCursor string
			}
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK {
				t.Fatalf("%d %s: %v", a.status, a.body, err)
			}
			jobs = append(jobs, page.Items...)
			if cursor = page.NextCursor; cursor == "" {
				return jobs
			}
		}
	}
	all := read("")
	if len(all) != 6 || all[0].Node == all[1].Node || all[0].Kind != "switch.user" || all[0].CorrelationID == "" || len(read("&node=fs1")) != 3 || len(read("&state=dead")) != 0 {
		t.Fatalf("%+v", all)
	}
	exec(t, s, `UPDATE edgvoip.jobs SET state = 'dead', last_error = 'no way', finished_at = now()`)
	if dead := read("&state=dead"); len(dead) != 6 || dead[0].LastError != "no way" || dead[0].FinishedAt == nil {
		t.Errorf("%+v", dead)
	}
	for body, want := range map[string]string{`{"jobs":[` + fmt.Sprint(all[0].ID) + `]}`: `{"replayed":1}`, `{"jobs":[999999]}`: `{"replayed":0}`} {
		if a := anna.do(t, http.MethodPost, "/jobs/retry", body); a.status != http.StatusOK || strings.TrimSpace(a.body) != want {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	left := map[string]int{}
	for _, j := range read("&state=dead") {
		left[j.Node]++
	}
	if a := anna.do(t, http.MethodPost, "/jobs/retry", `{"node":"fs1"}`); strings.TrimSpace(a.body) != fmt.Sprintf(`{"replayed":%d}`, left["fs1"]) {
		t.Errorf("%d %s, want %d", a.status, a.body, left["fs1"])
	}
	for _, body := range []string{`{}`, `{"all":false}`, `{"all":true,"node":"fs1"}`, `{"all":true,"jobs":[1]}`, `{"jobs":[]}`} {
		if a := anna.do(t, http.MethodPost, "/jobs/retry", body); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}
	if a := anna.do(t, http.MethodPost, "/jobs/retry", `{"node":"fs9"}`); a.status != http.StatusNotFound {
		t.Errorf("of no switch: %d %s", a.status, a.body)
	}
	if a := anna.do(t, http.MethodPost, "/jobs/retry", `{"all":true}`); strings.TrimSpace(a.body) != fmt.Sprintf(`{"replayed":%d}`, left["fs2"]) {
		t.Errorf("%d %s, want %d", a.status, a.body, left["fs2"])
	}
	for _, query := range []string{"?state=odd", "?cursor=x", "?limit=0"} {
		if a := anna.do(t, http.MethodGet, "/jobs"+query, ""); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'node.jobs_replayed' AND actor = 'operator:anna'`); n != 3 {
		t.Errorf("%d rows of replays in the audit log", n)
	}
	// A switch that was not told everything is forgotten only by force.
	for _, query := range []string{"", "?force=false"} {
		anna.expect(t, http.MethodDelete, "/nodes/fs1"+query, "", 409, `"code":"node_has_jobs"`, `"field":"query.force"`, `3 jobs are pending and 0 were given up`)
	}
	anna.expect(t, http.MethodDelete, "/nodes/fs1?force=perhaps", "", 422)
	anna.expect(t, http.MethodDelete, "/nodes/fs1?force=true", "", 204)
}
