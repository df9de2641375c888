package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// carrier is an operator with a tenant whose trunks he manages.
type carrier struct {
	operator

	w w3
}

func (s *scene) carrier(t *testing.T, slug string) carrier {
	t.Helper()
	c := carrier{s.operator(t, "of-"+slug, 0), s.tenant(t, slug)}
	c.w.post(t, c.w.spec("1000")) // who stands in for fullTrunk's agent
	return c
}

func (c carrier) path() string { return "/tenants/" + c.w.tenant.String() + "/trunks" }

// trunkID is the one trunk that most tests need.
const trunkID = "7d5b1a52-0d7b-4a4e-9f43-0a2a7d0b5c01"

// fullTrunk is a body with every field; changes are pairs of name and value, nil takes a field out.
func fullTrunk(changes ...any) map[string]any {
	m := map[string]any{
		"trunkId": trunkID, "storeId": "c0a4c1de-2f5f-4c3a-bb6e-0f9d3a1b7c20", "name": "Carrier", "provider": "Example Telecom", "description": "Contract 7",
		"host": "sip.carrier.example", "port": 5070, "protocol": "tls", "proxy": "edge.carrier.example:5061", "maxChannels": 12, "priority": 20,
		"status": "active", "sourceAddresses": []any{"192.0.2.0/24", "2001:db8::/32"}, "register": true, "username": "acct-7", "password": "s3cr$t-hunter2",
		"callerIdPolicy": "extension", "callerIdNumber": "+390612345600", "numberFormat": "zeros", "techPrefix": "77#", "prefixes": []any{"39", "4412"},
		"codecs": []any{"PCMA", "G729"}, "pingSeconds": 30, "aiAgentRef": "agent-9", "aiTimePolicy": map[string]any{"weekly": map[string]any{"mon": []any{map[string]any{"from": "09:00", "to": "18:00"}}}, "timezone": "Europe/Rome"},
		"aiFailoverExtension": "1000", "didRanges": []any{map[string]any{"first": "+390612345600", "last": "+390612345699"}},
	}
	for i := 0; i < len(changes); i += 2 {
		name, ok := changes[i].(string)
		if !ok {
			panic("a name is a text")
		}
		if m[name] = changes[i+1]; changes[i+1] == nil {
			delete(m, name)
		}
	}
	return m
}

// leastTrunk is a body with nothing but what must be there.
func leastTrunk(changes ...any) map[string]any {
	m := fullTrunk(changes...)
	for name := range m {
		if name != "name" && name != "host" && !slices.Contains(changes, any(name)) {
			delete(m, name)
		}
	}
	return m
}

func (c carrier) create(t *testing.T, trunk map[string]any) answer {
	t.Helper()
	return c.do(t, http.MethodPost, c.path(), mustJSON(t, trunk))
}

// trunkRows is everything that a request about trunks may write.
func trunkRows(t *testing.T, s *scene) string {
	t.Helper()
	all := contents(t, s)
	for _, table := range []string{"sip_trunks", "sip_trunk_did_ranges", "webhook_events"} {
		all += table + "\n" + one[string](t, s, `SELECT coalesce(string_agg(x::text, E'\n' ORDER BY x::text), '') FROM edgvoip.`+table+` x`) + "\n"
	}
	return all
}

// A trunk is stored as it was asked for, told to W3 and to the switches, once; and its password is nowhere.
func TestCreateTrunk(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	exec(t, s, `UPDATE edgvoip.tenants SET timezone = 'Europe/Rome'`)
	s.node(t, "fs1", "active")
	made := c.create(t, fullTrunk())
	if made.status != http.StatusCreated {
		t.Fatalf("%d %s\n%s", made.status, made.body, s.log)
	}
	want := fullTrunk("password", nil, "passwordSet", true, "tenantId", c.w.tenant.String(), "gatewayRevision", 1.0, "port", 5070.0, "maxChannels", 12.0,
		"priority", 20.0, "pingSeconds", 30.0)
	got := made.json(t)
	for _, name := range []string{"createdAt", "updatedAt"} {
		if got[name] == nil {
			t.Errorf("no %s", name)
		}
		delete(got, name)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("made\n%v, want\n%v", got, want)
	}
	if a := c.do(t, http.MethodGet, c.path()+"/"+trunkID, ""); a.status != http.StatusOK || a.body != made.body {
		t.Errorf("get: %d %s", a.status, a.body)
	}
	before := trunkRows(t, s)
	if again := c.create(t, fullTrunk()); again.status != http.StatusOK || again.body != made.body || trunkRows(t, s) != before {
		t.Errorf("again: %d %s; rows changed: %v", again.status, again.body, trunkRows(t, s) != before)
	}
	for _, another := range []map[string]any{fullTrunk("name", "Another"), fullTrunk("password", "another"), fullTrunk("status", "disabled"), fullTrunk("didRanges", nil)} {
		if a := c.create(t, another); a.status != http.StatusConflict || a.code(t) != "trunk_exists" || trunkRows(t, s) != before {
			t.Errorf("another trunk of the same id: %d %s", a.status, a.body)
		}
	}
	var event map[string]any
	payload := one[string](t, s, `SELECT payload FROM edgvoip.webhook_events WHERE tenant_id = $1 AND kind = 'trunk.created' AND subject = $2 AND correlation_id = $3`,
		c.w.tenant, trunkID, made.header.Get("X-Request-Id"))
	if err := json.Unmarshal([]byte(payload), &event); err != nil {
		t.Fatal(err)
	}
	wantEvent := map[string]any{"event": "trunk.created", "edgvoipTrunkId": trunkID, "occurredAt": event["updatedAt"], "timezone": "Europe/Rome"}
	for _, name := range []string{
		"tenantId", "storeId", "name", "provider", "host", "port", "protocol", "maxChannels", "status", "didRanges", "aiAgentRef", "aiTimePolicy", "aiFailoverExtension",
	} {
		wantEvent[name] = want[name]
	}
	wantEvent["createdAt"], wantEvent["updatedAt"] = made.json(t)["createdAt"], made.json(t)["updatedAt"]
	if !reflect.DeepEqual(event, wantEvent) {
		t.Errorf("event\n%v, want\n%v", event, wantEvent)
	}
	own := c.w.do(t, http.MethodGet, "/trunks/"+trunkID, "").json(t)
	delete(wantEvent, "event")
	delete(wantEvent, "occurredAt")
	if !reflect.DeepEqual(own, wantEvent) {
		t.Errorf("W3 reads\n%v, want\n%v", own, wantEvent)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'trunk.created' AND subject_id = $1 AND actor = 'operator:of-shop'`, trunkID); n != 1 {
		t.Errorf("%d audit rows", n)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs WHERE kind = 'switch.trunk' AND subject = $1`, trunkID); n != 1 {
		t.Errorf("%d jobs", n)
	}
	all := trunkRows(t, s) + s.log.String()
	if strings.Contains(all, "hunter2") || strings.Contains(one[string](t, s, `SELECT string_agg(a::text, '') FROM edgvoip.audit_log a`)+payload+s.log.String(), "acct-7") {
		t.Error("what we log in with is in the database, the audit log, the event or the log")
	}
}

// Only what must be there must be there.
func TestLeastTrunk(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	made := c.create(t, map[string]any{"name": "Carrier", "host": "192.0.2.1", "aiTimePolicy": nil, "port": nil, "storeId": nil, "codecs": nil})
	if made.status != http.StatusCreated {
		t.Fatalf("%d %s", made.status, made.body)
	}
	got := made.json(t)
	for name, want := range map[string]any{
		"port": 5060.0, "protocol": "udp", "proxy": "", "maxChannels": 30.0, "priority": 100.0, "status": "active", "sourceAddresses": []any{}, "register": false,
		"passwordSet": false, "callerIdPolicy": "trunk", "numberFormat": "plus", "techPrefix": "", "prefixes": []any{}, "codecs": []any{}, "pingSeconds": 0.0,
		"didRanges": []any{}, "storeId": nil, "username": nil, "aiTimePolicy": nil, "aiAgentRef": nil, "aiFailoverExtension": nil, "callerIdNumber": nil,
	} {
		if !reflect.DeepEqual(got[name], want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	// A carrier with numbers, of whom nobody knows where he calls from.
	named := map[string]any{"name": "Named", "host": "sip.carrier.example", "didRanges": []any{map[string]any{"first": "+390612345999"}}}
	if a := c.create(t, named); a.status != http.StatusCreated || !strings.Contains(a.body, `"warnings":["the carrier's calls are refused`) || strings.Contains(made.body, "warnings") {
		t.Errorf("a carrier that cannot call: %d %s", a.status, a.body)
	}
	for _, field := range []string{"name", "host"} {
		if a := c.create(t, leastTrunk(field, nil)); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"`+field+`"`) {
			t.Errorf("without %s: %d %s", field, a.status, a.body)
		}
	}
}

// A change is made of exactly what is given, told once, and told to switches only if they see it. Once more it is none.
func TestChangeTrunk(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	s.node(t, "fs1", "active")
	if made := c.create(t, fullTrunk()); made.status != http.StatusCreated {
		t.Fatalf("%d %s", made.status, made.body)
	}
	path := c.path() + "/" + trunkID
	sealed := func() string {
		return one[string](t, s, `SELECT password_key_id || encode(password_sealed, 'hex') FROM edgvoip.sip_trunks`)
	}
	revision := func() int { return one[int](t, s, `SELECT gateway_revision FROM edgvoip.sip_trunks`) }
	for _, tc := range []struct {
		body      string
		want      map[string]any
		jobs, rev int
		password  bool // whether the seal is another one
	}{
		{`{"description":"Contract 8"}`, map[string]any{"description": "Contract 8"}, 0, 0, false},
		{`{"name":"Second"}`, map[string]any{"name": "Second"}, 0, 0, false},
		{`{"provider":""}`, map[string]any{"provider": ""}, 0, 0, false},
		{`{"storeId":"00000000-0000-0000-0000-000000000000"}`, map[string]any{"storeId": nil}, 0, 0, false},
		{`{"host":"192.0.2.7"}`, map[string]any{"host": "192.0.2.7"}, 1, 1, false},
		{`{"port":5080}`, map[string]any{"port": 5080.0}, 1, 1, false},
		{`{"protocol":"tcp"}`, map[string]any{"protocol": "tcp"}, 1, 1, false},
		{`{"proxy":"[2001:DB8::1]:5060"}`, map[string]any{"proxy": "[2001:db8::1]:5060"}, 1, 1, false},
		{`{"proxy":""}`, map[string]any{"proxy": ""}, 1, 1, false},
		{`{"maxChannels":0,"priority":1}`, map[string]any{"maxChannels": 0.0, "priority": 1.0}, 0, 0, false},
		{`{"sourceAddresses":[]}`, map[string]any{"sourceAddresses": []any{}}, 1, 0, false},
		{`{"username":"acct-8"}`, map[string]any{"username": "acct-8"}, 1, 1, false},
		{`{"password":"another"}`, map[string]any{"passwordSet": true}, 1, 1, true},
		{`{"password":"another","description":"Contract 9"}`, map[string]any{"description": "Contract 9"}, 0, 0, false},
		{`{"register":false}`, map[string]any{"register": false, "passwordSet": true}, 1, 1, false},
		{`{"register":true}`, map[string]any{"register": true}, 1, 1, false},
		{`{"callerIdPolicy":"withheld","callerIdNumber":""}`, map[string]any{"callerIdPolicy": "withheld", "callerIdNumber": nil}, 0, 0, false},
		{`{"numberFormat":"digits","techPrefix":"","prefixes":["44","39","44"]}`, map[string]any{"numberFormat": "digits", "techPrefix": "", "prefixes": []any{"39", "44"}}, 0, 0, false},
		{`{"codecs":["opus","pcma"]}`, map[string]any{"codecs": []any{"OPUS", "PCMA"}}, 0, 0, false},
		{`{"codecs":[]}`, map[string]any{"codecs": []any{}}, 0, 0, false},
		{`{"pingSeconds":0}`, map[string]any{"pingSeconds": 0.0}, 1, 1, false},
		{`{"aiAgentRef":"agent-10","aiTimePolicy":{"weekly":{},"mode":"never"}}`, map[string]any{"aiAgentRef": "agent-10", "aiTimePolicy": map[string]any{"mode": "never", "weekly": map[string]any{}}}, 0, 0, false},
		{`{"aiAgentRef":"","aiTimePolicy":null,"aiFailoverExtension":""}`, map[string]any{"aiAgentRef": nil, "aiTimePolicy": nil, "aiFailoverExtension": nil}, 0, 0, false},
		{
			`{"didRanges":[{"first":"+390612345710"},{"first":"0612345700","last":"0612345709"}]}`,
			map[string]any{"didRanges": []any{
				map[string]any{"first": "+390612345700", "last": "+390612345709"}, map[string]any{"first": "+390612345710", "last": "+390612345710"},
			}},
			0, 0, false,
		},
		{`{"didRanges":[]}`, map[string]any{"didRanges": []any{}}, 0, 0, false},
		{`{"status":"disabled"}`, map[string]any{"status": "disabled"}, 1, 1, false},
		{`{"port":5090}`, map[string]any{"port": 5090.0}, 0, 1, false},
		{`{"status":"active"}`, map[string]any{"status": "active"}, 1, 1, false},
		{`{"register":false,"username":""}`, map[string]any{"register": false, "username": nil, "passwordSet": false}, 1, 1, false},
	} {
		jobs, rev, state := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`), revision(), ""
		if c.do(t, http.MethodGet, path, "").json(t)["passwordSet"] == true {
			state = sealed()
		}
		a := c.do(t, http.MethodPatch, path, tc.body)
		if a.status != http.StatusOK {
			t.Errorf("%s: %d %s", tc.body, a.status, a.body)
			continue
		}
		for name, want := range tc.want {
			if got := a.json(t)[name]; !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s is %v, want %v", tc.body, name, got, want)
			}
		}
		if got := c.do(t, http.MethodGet, path, ""); got.body != a.body {
			t.Errorf("%s: answered %s, is %s", tc.body, a.body, got.body)
		}
		if n, r := one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`)-jobs, revision()-rev; n != tc.jobs || r != tc.rev {
			t.Errorf("%s: %d jobs and %d revisions more, want %d and %d", tc.body, n, r, tc.jobs, tc.rev)
		}
		if a.json(t)["passwordSet"] == true && (sealed() != state) != tc.password {
			t.Errorf("%s: another seal: %v", tc.body, sealed() != state)
		}
		id := a.header.Get("X-Request-Id")
		audits := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'trunk.updated' AND correlation_id = $1`, id)
		events := one[int](t, s, `SELECT count(*) FROM edgvoip.webhook_events WHERE kind = 'trunk.updated' AND correlation_id = $1`, id)
		if audits != 1 || events != 1 {
			t.Errorf("%s: %d audit rows, %d events", tc.body, audits, events)
		}
		rows := trunkRows(t, s)
		if again := c.do(t, http.MethodPatch, path, tc.body); again.body != a.body || trunkRows(t, s) != rows {
			t.Errorf("%s again: %s, and rows changed: %v", tc.body, again.body, trunkRows(t, s) != rows)
		}
	}
	if n := one[int](t, s, `SELECT count(*) FROM (SELECT at, lag(at) OVER (ORDER BY id) AS last FROM
		(SELECT id, (payload::jsonb->>'updatedAt')::timestamptz AS at FROM edgvoip.webhook_events) e) e WHERE at <= last`); n != 0 {
		t.Errorf("%d events are no later than the one before", n)
	}
}

// badTrunks are values that a field does not take.
var badTrunks = map[string][]any{
	"trunkId": {"x", 7}, "storeId": {"x", 7}, "name": {"", " a", "a\nb", "${x}", strings.Repeat("a", 65), 7},
	"provider": {"${x}", "a\tb", "\u202ea", strings.Repeat("é", 65)}, "description": {"a\\b", "a\nb", strings.Repeat("a", 257)},
	"host": {"", "a;b", "a b", "192.0.2.1:5060", "[::1]", "fe80::1%eth0", strings.Repeat("a", 254)}, "port": {0, -1, 65536, "5060", 1.5},
	"protocol": {"ws", "UDP", "udp;x"}, "proxy": {"a b", "host:", "host:0", "host:65536", "host:x", ":5060", "a;lr", "sip:host"},
	"maxChannels": {-1, 100001}, "priority": {-1, 1000001}, "status": {"deleted", "suspended", "x"},
	"sourceAddresses": {[]any{"192.0.2.1"}, []any{"192.0.2.1/24"}, []any{"0.0.0.0/0"}, []any{""}, "192.0.2.0/24", slices.Repeat([]any{"192.0.2.0/24"}, 257)},
	"username":        {"a b", "a\"b", "a${b}", strings.Repeat("a", 129)}, "password": {"a b", "a\\b", "a${b}", "é", strings.Repeat("a", 129)},
	"callerIdPolicy": {"any"}, "callerIdNumber": {"06", "0612345678", "+0612345678", "+39061234567890123"}, "numberFormat": {"e164"},
	"techPrefix": {"a", "+1", strings.Repeat("1", 17)}, "prefixes": {[]any{""}, []any{"+39"}, []any{"039"}, []any{strings.Repeat("1", 16)}, []any{"3 9"}, "39"},
	"codecs": {[]any{"MP3"}, []any{"PCMA", "pcma"}, []any{""}, []any{"PCMA,PCMU"}}, "pingSeconds": {-1, 4, 3601},
	"aiAgentRef": {strings.Repeat("a", 129), "a\nb", "${x}"}, "aiFailoverExtension": {"1", "10a0", "1234567890123"},
	"aiTimePolicy": {
		"text", 7,
		[]any{},
		true,
		map[string]any{"a": strings.Repeat("x", 16<<10)},
		map[string]any{"a": "\x00"},
		map[string]any{"\x00": "a"},
		map[string]any{"a": 1e30},
	},
	"didRanges": {
		[]any{map[string]any{"first": "+39061"}},
		[]any{map[string]any{"first": ""}},
		[]any{map[string]any{}},
		[]any{map[string]any{"first": "112"}},
		[]any{map[string]any{"first": "+390612345699", "last": "+390612345600"}},
		[]any{map[string]any{"first": "+39061234560", "last": "+390612345699"}},
		[]any{map[string]any{"first": "+390612345600", "last": "+390612345650"}, map[string]any{"first": "+390612345650"}},
		[]any{map[string]any{"first": "*98"}},
		[]any{map[string]any{"first": "${x}"}},
		[]any{"+390612345600"},
		"+390612345600",
	},
}

// A bad value is refused by its name, and nothing changes; of a change neither the rest of it.
func TestBadTrunks(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	if made := c.create(t, fullTrunk()); made.status != http.StatusCreated {
		t.Fatalf("%d %s", made.status, made.body)
	}
	state := trunkRows(t, s)
	refused := func(a answer, field string) {
		t.Helper()
		var p api.Problem
		if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != http.StatusUnprocessableEntity || p.Code != "invalid" || len(p.Errors) == 0 ||
			!strings.HasPrefix(p.Errors[0].Field, field) {
			t.Errorf("%s: %d %s", field, a.status, a.body)
		}
	}
	for field, values := range badTrunks {
		for _, value := range values {
			body := fullTrunk(field, value, "trunkId", uuid.NewString(), "didRanges", nil)
			body[field] = value
			refused(c.create(t, body), field)
			if field != "trunkId" {
				refused(c.do(t, http.MethodPatch, c.path()+"/"+trunkID, mustJSON(t, map[string]any{"description": "Good", field: value})), field)
			}
		}
	}
	for body, field := range map[string]string{
		`{"username":""}`: "register", `{"password":""}`: "password", `{"username":"","register":false,"password":"x"}`: "password",
		`{"didRanges":[{"first":"+390612345600"},{"first":"+390612345600"}]}`: "didRanges", `{"trunkId":"` + uuid.NewString() + `"}`: "trunkId", `{"colour":"blue"}`: "colour",
	} {
		refused(c.do(t, http.MethodPatch, c.path()+"/"+trunkID, body), field)
	}
	for _, body := range []map[string]any{leastTrunk("register", true), leastTrunk("username", "x"), leastTrunk("password", "x")} {
		body["host"] = "192.0.2.1"
		if a := c.create(t, body); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, "password") {
			t.Errorf("%v: %d %s", body, a.status, a.body)
		}
	}
	if trunkRows(t, s) != state {
		t.Error("what was refused changed something")
	}
}

// Every text in every field is refused by the name of the field, or stored and harmless.
func TestHostileTrunks(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	for _, field := range slices.Sorted(maps.Keys(badTrunks)) {
		for _, text := range hostile {
			var value any = text
			switch field {
			case "sourceAddresses", "prefixes", "codecs":
				value = []any{text}
			case "didRanges":
				value = []any{map[string]any{"first": text}}
			case "aiTimePolicy":
				value = map[string]any{"text": text}
			}
			body := fullTrunk("trunkId", nil, "didRanges", nil)
			body[field] = value
			a := c.create(t, body)
			if a.status/100 == 2 {
				for name, v := range a.json(t) {
					if text, ok := v.(string); ok && (strings.ContainsAny(text, "$\\") || !utf8Plain(text)) {
						t.Errorf("%s %q: %s is %q", field, value, name, text)
					}
				}
				continue
			}
			named := field
			if field == "username" && text == "" {
				named = "password" // which is then alone
			}
			if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"`+named) {
				t.Errorf("%s %q: %d %s", field, text, a.status, a.body)
			}
			if len(text) > 7 && text != "x-pre-process" && strings.Contains(a.body, strings.Trim(mustJSON(t, text), `"`)) {
				t.Errorf("%s: the answer repeats %q: %s", field, text, a.body)
			}
			if len(text) > 8 && field == "password" && strings.Contains(s.log.String(), text) {
				t.Errorf("the log shows %q", text)
			}
		}
	}
	// What was taken is what can be read again, by us and by a switch.
	if a := c.do(t, http.MethodGet, c.path()+"?limit=500", ""); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// utf8Plain tells whether FreeSWITCH takes a text as nothing but text.
func utf8Plain(s string) bool {
	_, bad := fstext.Hazard(s)
	return !bad
}

// What belongs to another tenant is not there, in no way and on no route.
func TestCrossTenantTrunks(t *testing.T) {
	t.Parallel()
	s := start(t)
	shop, mall := s.carrier(t, "shop"), s.carrier(t, "mall")
	if made := shop.create(t, fullTrunk()); made.status != http.StatusCreated {
		t.Fatalf("%d %s", made.status, made.body)
	}
	gone := shop.create(t, leastTrunk("host", "192.0.2.1")).json(t)["trunkId"].(string)
	shop.do(t, http.MethodDelete, shop.path()+"/"+gone, "")
	state := trunkRows(t, s)
	for _, tc := range [][3]string{
		{http.MethodGet, "", ""},
		{http.MethodPatch, "", `{"name":"Mine"}`},
		{http.MethodPatch, "", `{}`},
		{http.MethodDelete, "", ""},
		{http.MethodGet, "/status", ""},
	} {
		nobody := face(mall.do(t, tc[0], mall.path()+"/"+uuid.NewString()+tc[1], tc[2]))
		if !strings.HasPrefix(nobody, "Not Found\n") {
			t.Errorf("%v of nobody:\n%s", tc, nobody)
		}
		for _, path := range []string{mall.path() + "/" + trunkID, mall.path() + "/" + gone, mall.path() + "/" + strings.ToUpper(trunkID), "/tenants/" + uuid.NewString() + "/trunks/" + trunkID} {
			if got := face(mall.do(t, tc[0], path+tc[1], tc[2])); got != nobody {
				t.Errorf("%v of another tenant:\n%s", tc, got)
			}
		}
	}
	for id, want := range map[string]string{trunkID: "Not Found\n", gone: "Not Found\n"} {
		if got := face(mall.w.do(t, http.MethodGet, "/trunks/"+id, "")); !strings.HasPrefix(got, want) {
			t.Errorf("W3's route:\n%s", got)
		}
	}
	for _, a := range []answer{
		mall.do(t, http.MethodGet, mall.path(), ""), mall.do(t, http.MethodGet, mall.path()+"?status=deleted", ""), mall.w.do(t, http.MethodGet, "/trunks", ""),
		mall.w.do(t, http.MethodGet, "/trunks?status=deleted", ""),
	} {
		if strings.TrimSpace(a.body) != `{"items":[]}` {
			t.Errorf("listed: %d %s", a.status, a.body)
		}
	}
	for name, tc := range map[string]struct {
		body map[string]any
		code string
	}{
		"id": {fullTrunk("didRanges", nil), "trunk_exists"}, "number": {fullTrunk("trunkId", nil, "didRanges", []any{map[string]any{"first": "+390612345650"}}), "did_taken"},
	} {
		if a := mall.create(t, tc.body); a.status != http.StatusConflict || a.code(t) != tc.code || strings.Contains(a.body, shop.w.tenant.String()) || strings.Contains(a.body, "shop") {
			t.Errorf("%s of another tenant: %d %s", name, a.status, a.body)
		}
	}
	for _, r := range [][2]string{{http.MethodGet, ""}, {http.MethodPost, mustJSON(t, leastTrunk())}} {
		if a := mall.do(t, r[0], "/tenants/"+uuid.NewString()+"/trunks", r[1]); a.status != http.StatusNotFound {
			t.Errorf("of no tenant: %d %s", a.status, a.body)
		}
	}
	if trunkRows(t, s) != state {
		t.Error("one tenant changed what is another's")
	}
	want := refusal(t, s)
	for _, path := range []string{shop.path(), shop.path() + "/" + trunkID, shop.path() + "/" + trunkID + "/status"} {
		if a := (operator{s, shop.w.secret.Bearer}).do(t, http.MethodGet, path, ""); face(a) != want {
			t.Errorf("a tenant at the operators' door:\n%s", face(a))
		}
	}
}

// A deleted trunk stays deleted, its numbers are free, and nothing is left of what we logged in with.
func TestDeleteTrunk(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	s.node(t, "fs1", "active")
	c.create(t, fullTrunk())
	path := c.path() + "/" + trunkID
	first := c.do(t, http.MethodDelete, path, "")
	if first.status != http.StatusNoContent {
		t.Fatalf("%d %s", first.status, first.body)
	}
	state := trunkRows(t, s)
	if again := c.do(t, http.MethodDelete, path, ""); again.status != http.StatusNoContent || trunkRows(t, s) != state {
		t.Errorf("again: %d %s", again.status, again.body)
	}
	for _, a := range []answer{c.do(t, http.MethodPatch, path, `{"status":"active"}`), c.do(t, http.MethodPatch, path, `{}`), c.create(t, fullTrunk())} {
		if a.status != http.StatusConflict || a.code(t) != "trunk_deleted" {
			t.Errorf("change of a deleted one: %d %s", a.status, a.body)
		}
	}
	if got := c.do(t, http.MethodGet, path, "").json(t); got["status"] != "deleted" || got["passwordSet"] != false || got["username"] != nil || len(got["didRanges"].([]any)) != 0 {
		t.Errorf("a deleted one is %v", got)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.sip_trunks WHERE password_sealed IS NULL AND password_key_id IS NULL AND username IS NULL`); n != 1 {
		t.Error("something is left of what we logged in with")
	}
	if got := one[string](t, s, `SELECT string_agg(kind || ' ' || (payload::jsonb->>'status') || ' ' || jsonb_array_length(payload::jsonb->'didRanges'), ', ' ORDER BY id) FROM edgvoip.webhook_events`); got != "trunk.created active 1, trunk.deleted deleted 0" {
		t.Errorf("events: %s", got)
	}
	if got := one[string](t, s, `SELECT payload->>'gateway' FROM edgvoip.jobs ORDER BY id DESC LIMIT 1`); got != "remove" {
		t.Errorf("the switch is to %s its gateway", got)
	}
	if a := c.create(t, fullTrunk("trunkId", nil)); a.status != http.StatusCreated {
		t.Errorf("the numbers again: %d %s", a.status, a.body)
	}
	for query, want := range map[string]int{"": 1, "?status=active": 1, "?status=deleted": 1, "?status=disabled": 0} {
		if a := c.do(t, http.MethodGet, c.path()+query, ""); strings.Count(a.body, `"trunkId":`) != want {
			t.Errorf("%q: %s", query, a.body)
		}
	}
}

// A list that is read page by page holds every trunk once, for operators and for W3.
func TestTrunkPages(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	var want []string
	for i := range 5 {
		want = append(want, c.create(t, leastTrunk("name", fmt.Sprint("Carrier ", i))).json(t)["trunkId"].(string))
	}
	slices.Sort(want)
	for name, get := range map[string]func(string) answer{
		"trunkId":        func(query string) answer { return c.do(t, http.MethodGet, c.path()+query, "") },
		"edgvoipTrunkId": func(query string) answer { return c.w.do(t, http.MethodGet, "/trunks"+query, "") },
	} {
		for _, limit := range []int{1, 2, 4, 5, 6} {
			var got []string
			for cursor := ""; ; {
				page := get(fmt.Sprintf("?limit=%d&cursor=%s", limit, cursor)).json(t)
				for _, item := range page["items"].([]any) {
					got = append(got, item.(map[string]any)[name].(string))
				}
				if cursor, _ = page["nextCursor"].(string); cursor == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %v, want %v", name, limit, got, want)
			}
		}
		for _, query := range []string{"?cursor=x", "?cursor=YXxi", "?cursor=YQ", "?limit=0", "?status=gone", "?colour=blue"} {
			if a := get(query); a.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: %d %s", query, a.status, a.body)
			}
		}
	}
}

// The state of a trunk is told of each switch: what it should have, what it has, and why not.
func TestTrunkStatus(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	for _, name := range []string{"fs1", "fs2", "fs3"} {
		s.node(t, name, map[bool]string{true: "disabled", false: "active"}[name == "fs3"])
	}
	c.create(t, fullTrunk())
	path := c.path() + "/" + trunkID
	look := func(want string) {
		t.Helper()
		a := c.do(t, http.MethodGet, path+"/status", "")
		m := a.json(t)
		for _, n := range m["nodes"].([]any) {
			delete(n.(map[string]any), "seenAt")
		}
		var w map[string]any
		if err := json.Unmarshal([]byte(want), &w); err != nil {
			t.Fatal(err)
		}
		if a.status != http.StatusOK || !reflect.DeepEqual(m, w) {
			t.Errorf("%d %s\nwant %s", a.status, a.body, want)
		}
	}
	const fs3 = `{"node":"fs3","status":"disabled","wantedRevision":1,"appliedRevision":0,"converged":false}`
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"active","wantedRevision":1,"appliedRevision":0,"converged":false},
		{"node":"fs2","status":"active","wantedRevision":1,"appliedRevision":0,"converged":false},` + fs3 + `]}`)
	// As the switches' own jobs will do it.
	applied := func(node string, revision int, registration, ping, text string) {
		exec(t, s, `INSERT INTO edgvoip.trunk_gateways (tenant_id, trunk_id, node_id, applied_revision, registration, ping, error)
			SELECT $1, $2, id, $4, $5, $6, $7 FROM edgvoip.switch_nodes WHERE name = $3
			ON CONFLICT (tenant_id, trunk_id, node_id) DO UPDATE SET applied_revision = excluded.applied_revision, registration = excluded.registration, ping = excluded.ping, error = excluded.error`,
			c.w.tenant, trunkID, node, revision, registration, ping, text)
	}
	jobs := func(state, text, node string) {
		exec(t, s, `UPDATE edgvoip.jobs SET state = $1, last_error = nullif($2, '') WHERE node_id = (SELECT id FROM edgvoip.switch_nodes WHERE name = $3)`, state, text, node)
	}
	applied("fs1", 1, "REGED", "UP", "")
	jobs("done", "", "fs1")
	jobs("dead", "no such profile", "fs2")
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"active","wantedRevision":1,"appliedRevision":1,"converged":true,"registration":"REGED","ping":"UP"},
		{"node":"fs2","status":"active","wantedRevision":1,"appliedRevision":0,"converged":false,"error":"no such profile"},` + fs3 + `]}`)
	applied("fs2", 1, "FAIL_WAIT", "", "403 Forbidden")
	jobs("done", "", "fs2")
	look(`{"converged":true,"nodes":[{"node":"fs1","status":"active","wantedRevision":1,"appliedRevision":1,"converged":true,"registration":"REGED","ping":"UP"},
		{"node":"fs2","status":"active","wantedRevision":1,"appliedRevision":1,"converged":true,"registration":"FAIL_WAIT","error":"403 Forbidden"},` + fs3 + `]}`)
	// Other addresses of the carrier change no gateway, but are still to be read.
	c.do(t, http.MethodPatch, path, `{"sourceAddresses":["198.51.100.0/24"]}`)
	jobs("done", "", "fs2")
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"active","wantedRevision":1,"appliedRevision":1,"converged":false,"registration":"REGED","ping":"UP"},
		{"node":"fs2","status":"active","wantedRevision":1,"appliedRevision":1,"converged":true,"registration":"FAIL_WAIT","error":"403 Forbidden"},` + fs3 + `]}`)
	jobs("done", "", "fs1")
	exec(t, s, `UPDATE edgvoip.tenants SET status = 'suspended'`)
	jobs("done", "", "fs1")
	jobs("done", "", "fs2")
	applied("fs1", 0, "", "", "")
	look(`{"converged":false,"nodes":[{"node":"fs1","status":"active","wantedRevision":0,"appliedRevision":0,"converged":true},
		{"node":"fs2","status":"active","wantedRevision":0,"appliedRevision":1,"converged":false,"registration":"FAIL_WAIT","error":"403 Forbidden"},` +
		`{"node":"fs3","status":"disabled","wantedRevision":0,"appliedRevision":0,"converged":true}]}`)
}
