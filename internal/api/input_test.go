package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// hostile is text that FreeSWITCH, XML, SQL, a shell, a header or a reader of logs could take for more than text.
var hostile = []string{
	"${system(touch /pwned)}", "$${default_password}", "%[system(id)]", `a\b`, "\\n", "a\"/><param name=\"password\" value=\"x\"/>", "<!--#exec cmd=\"id\"-->",
	"<X-PRE-PROCESS cmd=\"exec\" data=\"id\"/>", "x-pre-process cmd=set", "x-pre-process", "ARRAY::a|:b", "<![CDATA[x]]>", "<?xml version=\"1.0\"?>", "]]>", "&amp;&lt;", "a,loopback/9196", "[leg=1]user/1",
	"{origination_caller_id_number=112}x", "^^;a=b", "a|b", "1001~wss", "a;b=c", "1001@other.example", "sip:1001@other.example;gw=x", "'; DROP TABLE edgvoip.tenants; --", "\x00", "a\x00b",
	"a\r\nInjected: header", "a\nb", "\t", "a\x1b[31mred", "\u202eevil", "\u2028", "\u00a0", "\ufeffx", "\u200bx", "a\u0301", strings.Repeat("a", 65), strings.Repeat("9", 5000), "", " ", " a ",
	"../../etc/passwd", "null", "true", "-1", "1e9", "NaN", "0x41", "{}", "[]", "Tenant.EXAMPLE", "1a.example", "public", "default", "*98", "911", "112", "+1", "１００１", "éclair",
}

// Every text in every field is refused by the name of the field, or stored as it is and harmless; and is never shown to
// who should not see it.
func TestHostileText(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	fields := []string{
		"tenantId", "domainId", "domainName", "sipRealm", "extension", "sipUsername", "sipPassword", "displayName", "transport", "allowedCodecs", "maxConcurrentCalls",
		"outboundCallerNumber", "w3ExtensionId",
	}
	number := 2000
	for _, field := range fields {
		for _, text := range hostile {
			number++
			var value any = text
			if field == "allowedCodecs" {
				value = []string{text}
			}
			a := w.do(t, http.MethodPost, "/extensions", w.spec(fmt.Sprint(number), field, value))
			if a.status/100 == 2 {
				harmless(t, w, a.id(t), field, text)
				continue
			}
			var p api.Problem
			if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != http.StatusUnprocessableEntity || len(p.Errors) == 0 ||
				!slices.ContainsFunc(p.Errors, func(f api.FieldError) bool { return strings.HasPrefix(f.Field, field) }) {
				t.Errorf("%s %q: %d %s", field, text, a.status, a.body)
			}
			if len(text) > 5 && text != "x-pre-process" && text != "public" && strings.Contains(a.body, strings.Trim(mustJSON(t, text), `"`)) {
				t.Errorf("%s: the answer repeats %q: %s", field, text, a.body)
			}
			if len(text) > 8 && field == "sipPassword" && strings.Contains(s.log.String(), text) {
				t.Errorf("the log shows %q", text)
			}
		}
	}
}

// harmless looks at what became of a text that was taken.
func harmless(t *testing.T, w w3, id, field, text string) {
	t.Helper()
	got := w.do(t, http.MethodGet, "/extensions/"+id, "").json(t)
	for name, v := range got {
		if s, ok := v.(string); ok {
			if what, bad := fstext.Hazard(s); bad || strings.ContainsAny(s, "$\\") {
				t.Errorf("%s %q: %s is %q, with %s", field, text, name, s, what)
			}
		}
	}
	if want := any(text); field != "sipPassword" && field != "transport" && field != "allowedCodecs" && text != "" && !reflect.DeepEqual(got[field], want) {
		t.Errorf("%s %q became %v", field, text, got[field])
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A body that is not exactly one object of known names and right types is refused, and not shown again.
func TestBodies(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	state := contents(t, s)
	for body, want := range map[string]int{
		`{`:        400,
		`nothing`:  400,
		`{} {}`:    400,
		`{"a":1,}`: 400,
		`{"sipPassword":"hunter2hunter2","sipPassword":"hunter2hunter3"}`: 400,
		"{\"displayName\":\"hunter2\xff\"}":                               400,
		`{"displayName":"hunter2\ud800"}`:                                 400,
		strings.Repeat(`{"a":`, 50) + `1` + strings.Repeat(`}`, 50):       400,
		`[]`:                           422,
		`7`:                            422,
		`null`:                         422,
		`"hunter2"`:                    422,
		w.spec("1001", "hunter2", "x"): 422,
		w.spec("1001", "hunter2\nhunter2 hunter2", "x"):           422,
		w.spec("1001", "sipPassword", 7):                          422,
		w.spec("1001", "sipPassword", nil):                        422,
		w.spec("1001", "sipPassword", []string{"hunter2hunter2"}): 422,
		w.spec("1001", "allowedCodecs", "hunter2"):                422,
		w.spec("1001", "allowedCodecs", []any{7}):                 422,
		w.spec("1001", "maxConcurrentCalls", "hunter2"):           422,
		w.spec("1001", "maxConcurrentCalls", 1.5):                 422,
		w.spec("1001", "maxConcurrentCalls", 1e30):                422,
		w.spec("1001", "tenantId", "hunter2"):                     422,
		w.spec("1001", "displayName", strings.Repeat("x", 70000)): 413,
	} {
		a := w.do(t, http.MethodPost, "/extensions", body)
		if a.status != want || a.header.Get("Content-Type") != "application/problem+json" || a.code(t) == "" {
			t.Errorf("%.80s: %d %s, want %d", body, a.status, a.body, want)
		}
		if strings.Contains(strings.ReplaceAll(a.body, `"field":"hunter2"`, ""), "hunter") {
			t.Errorf("%.80s: the answer repeats it: %s", body, a.body)
		}
	}
	if a := w.do(t, http.MethodPost, "/extensions", ""); a.status != http.StatusBadRequest {
		t.Errorf("no body: %d %s", a.status, a.body)
	}
	for header, value := range map[string]string{"Content-Type": "application/xml", "Content-Encoding": "gzip"} {
		if a := w.do(t, http.MethodPost, "/extensions", w.spec("1001"), header, value); a.status != http.StatusUnsupportedMediaType || a.code(t) != "unsupported_media_type" {
			t.Errorf("%s %s: %d %s", header, value, a.status, a.body)
		}
	}
	if a := w.do(t, http.MethodGet, "/extensions", `{}`); a.status != http.StatusBadRequest || a.code(t) != "malformed" {
		t.Errorf("a body to read with: %d %s", a.status, a.body)
	}
	if contents(t, s) != state {
		t.Error("something was written")
	}
	if strings.Contains(s.log.String(), "hunter2") {
		t.Error("the log shows what was refused")
	}
}

func TestParameters(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	for path, field := range map[string]string{
		"/extensions?limit=0": "query.limit", "/extensions?limit=501": "query.limit", "/extensions?limit=x": "query.limit",
		"/extensions?cursor=x": "query.cursor", "/extensions?cursor=" + strings.Repeat("A", 513): "query.cursor", "/extensions?cursor=YXxi": "query.cursor",
		"/extensions?cursor=AHww": "query.cursor", "/extensions?status=gone": "query.status", "/extensions?colour=blue": "query.colour",
		"/extensions?cursor=%00": "query.cursor", "/domains?cursor=a%ffb": "query.cursor", "/extensions?%00=%00": "query.?",
		"/extensions/hunter2": "path.id", "/extensions/hunter2/stores": "path.id", "/domains?cursor=YXxi": "query.cursor",
	} {
		a := w.do(t, http.MethodGet, path, "")
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"`+field+`"`) || strings.Contains(a.body, "hunter2") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, r := range [][2]string{{http.MethodGet, "/nowhere"}, {http.MethodGet, "/extensions/" + uuid.NewString() + "/x"}, {http.MethodDelete, "/domains"}, {http.MethodPut, "/extensions"}} {
		if a := w.do(t, r[0], r[1], ""); a.status != http.StatusNotFound && a.status != http.StatusMethodNotAllowed || a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%v: %d %s", r, a.status, a.body)
		}
	}
}

// A list that is read page by page holds everything once, in order, whatever the size of the pages and whoever writes
// meanwhile.
func TestPages(t *testing.T) {
	t.Parallel()
	s := start(t)
	w, other := s.tenant(t, "shop"), s.tenant(t, "mall")
	w.post(t, w.spec("1000"))
	other.post(t, other.spec("1000"))
	// Straight into the table: this is about reading.
	const more = `INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
		SELECT tenant_id, gen_random_uuid(), domain_id, n::text, n::text, 'x', password_hash, '', '', '' FROM edgvoip.sip_extensions e, generate_series($2::int, $3::int, 2) n
		 WHERE e.tenant_id = $1 AND e.extension = '1000'`
	exec(t, s, more, w.tenant, 1002, 1044)
	read := func(limit int, each func(page int)) []string {
		t.Helper()
		var numbers []string
		cursor := ""
		for n := 0; ; n++ {
			a := w.do(t, http.MethodGet, fmt.Sprintf("/extensions?limit=%d&cursor=%s", limit, cursor), "")
			var page struct {
				Items      []struct{ Extension string }
				NextCursor string
			}
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || a.status != http.StatusOK || len(page.Items) > limit {
				t.Fatalf("%d %s: %v", a.status, a.body, err)
			}
			for _, e := range page.Items {
				numbers = append(numbers, e.Extension)
			}
			if page.NextCursor == "" {
				return numbers
			}
			if len(page.Items) != limit {
				t.Errorf("%d entries on a page that is not the last, want %d", len(page.Items), limit)
			}
			cursor = page.NextCursor
			each(n)
		}
	}
	all := read(500, func(int) {})
	if len(all) != 23 || !slices.IsSorted(all) {
		t.Fatalf("all: %v", all)
	}
	for _, limit := range []int{1, 2, 3, 7, 22, 23, 24} {
		if got := read(limit, func(int) {}); !slices.Equal(got, all) {
			t.Errorf("by %d: %v, want %v", limit, got, all)
		}
	}
	got := read(4, func(page int) { exec(t, s, more, w.tenant, 1001+page*2, 1001+page*2) })
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		t.Errorf("while others write: %v", got)
	}
	for _, number := range all {
		if !slices.Contains(got, number) {
			t.Errorf("while others write, %s is missing: %v", number, got)
		}
	}
	if a := w.do(t, http.MethodGet, "/extensions?sipRealm=nowhere.example", ""); strings.TrimSpace(a.body) != `{"items":[]}` {
		t.Errorf("of no realm: %s", a.body)
	}
	exec(t, s, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE extension = '1002'`)
	exec(t, s, `UPDATE edgvoip.sip_extensions SET status = 'deleted' WHERE extension = '1004'`)
	for status, want := range map[string]string{"suspended": "1002", "deleted": "1004"} {
		if a := w.do(t, http.MethodGet, "/extensions?status="+status, ""); strings.Count(a.body, `"extension":`) != 1 || !strings.Contains(a.body, `"extension":"`+want+`"`) {
			t.Errorf("%s: %s", status, a.body)
		}
	}
	for _, realm := range []string{"b.example", "a.example", "c.example"} {
		w.post(t, w.spec("1000", "sipRealm", realm, "domainId", nil))
	}
	var realms []string
	for cursor := ""; ; {
		var page struct {
			Items []struct {
				SIPRealm   string `json:"sipRealm"`
				Extensions int
			}
			NextCursor string
		}
		a := w.do(t, http.MethodGet, "/domains?limit=1&cursor="+cursor, "")
		if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(page.Items) != 1 {
			t.Fatalf("%d %s: %v", a.status, a.body, err)
		}
		realms = append(realms, page.Items[0].SIPRealm)
		if cursor = page.NextCursor; cursor == "" {
			break
		}
	}
	if !slices.Equal(realms, []string{"a.example", "b.example", "c.example", "shop.example"}) {
		t.Errorf("domains: %v", realms)
	}
}
