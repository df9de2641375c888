package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/test/w3client"
)

// guide is docs/integration.md.
func guide(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "integration.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// needTools skips a test of which a tool is not there.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not in PATH", tool)
		}
	}
}

var fence = regexp.MustCompile("(?ms)^```(sh|json)\n(.*?)^```$")

// What docs/integration.md tells W3's developers to type works as it stands there, and is answered in the form that is
// shown.
func TestGuide(t *testing.T) {
	t.Parallel()
	needTools(t, "bash", "curl", "openssl")
	i := install(t)
	d := openDoor(t, i)
	const mark = "\n--- end of block ---\n"
	script := "set -euo pipefail\n"
	var shown []string // for each block of commands its answer, or nothing
	for _, m := range fence.FindAllStringSubmatch(guide(t), -1) {
		if m[1] == "json" {
			shown[len(shown)-1] = m[2]
			continue
		}
		script += m[2] + "printf %s '" + mark + "'\n"
		shown = append(shown, "")
	}
	if len(shown) < 10 {
		t.Fatalf("%d blocks of commands", len(shown))
	}
	const example = "https://pbx.example:8443"
	if strings.Count(script, example) != 1 {
		t.Fatalf("%s is not there once", example)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-c", strings.Replace(script, example, "https://"+*d.addr.Load(), 1))
	cmd.Dir = t.TempDir()
	cmd.Env = slices.Concat(d.env, []string{"PATH=" + filepath.Dir(d.program) + ":" + os.Getenv("PATH"), "CURL_CA_BUNDLE=" + d.certFile})
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, &stderr)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), mark), mark)
	if len(answers) != len(shown) {
		t.Fatalf("%d answers to %d blocks:\n%s", len(answers), len(shown), out)
	}
	for n, want := range shown {
		if want == "" {
			continue
		}
		if got := form(t, answers[n]); !reflect.DeepEqual(got, form(t, want)) {
			t.Errorf("answered %s\nshown %s", answers[n], want)
		}
	}
}

// form is a JSON text with the values of what differs from time to time left out.
func form(t *testing.T, text string) any {
	t.Helper()
	for _, changing := range []string{`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, `\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z`} {
		text = regexp.MustCompile(changing).ReplaceAllString(text, "changing")
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if m, ok := v.(map[string]any); ok {
		delete(m, "nodes") // there are none here
		if _, ok := m["requestId"]; ok {
			m["requestId"] = "changing"
		}
	}
	return v
}

// The guide has the codes that the API has, with their statuses, and says of each what to do.
func TestGuideHasAllCodes(t *testing.T) {
	t.Parallel()
	// The document is kept equal to the code by a test of package api.
	document, err := os.ReadFile(filepath.Join("..", "..", "docs", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^ *\\| (\\d{3} \\| `[a-z_]+`) \\| (.+) \\|$")
	codes := func(text string) (found []string) {
		for _, m := range row.FindAllStringSubmatch(text, -1) {
			found = append(found, m[1])
		}
		slices.Sort(found)
		return found
	}
	want := codes(string(document))
	if got := codes(guide(t)); len(want) < 15 || !slices.Equal(got, want) {
		t.Errorf("the guide has %q, want %q", got, want)
	}
}

// badRoad stands before the door and loses two of eight: the first request, and the answer to the second.
func badRoad(t *testing.T, d *door) (address string, lost *atomic.Int64) {
	t.Helper()
	target := &url.URL{Scheme: "https", Host: "127.0.0.1"}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: d.client.Transport}
	var n atomic.Int64
	lost = &atomic.Int64{}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) % 8 {
		case 1: // the request is lost
			lost.Add(1)
			panic(http.ErrAbortHandler)
		case 2: // the answer is lost
			lost.Add(1)
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL, lost
}

// The example in JavaScript provisions, on a bad road too.
func TestNodeExample(t *testing.T) {
	t.Parallel()
	needTools(t, "node")
	i := install(t)
	tenant := strings.TrimSpace(i.command(t, "tenant", "add", "shop", "-country", "IT"))
	secret := credentials(t, i.command(t, "secret", "add", "shop"))
	d := openDoor(t, i)
	road, lost := badRoad(t, d)
	run := func(fields, hmac string) (map[string]any, error) {
		cmd := exec.CommandContext(t.Context(), "node", filepath.Join("..", "..", "test", "w3client", "w3.mjs"), fields)
		cmd.Env = append(os.Environ(), "EDGVOIP_URL="+road, "TENANT_ID="+tenant, "BEARER_TOKEN="+secret["BEARER_TOKEN"], "HMAC_SECRET="+hmac,
			"NODE_EXTRA_CA_CERTS="+d.certFile)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		var answer map[string]any
		if json.Unmarshal(out, &answer) != nil {
			t.Fatalf("%v\n%s\n%s", err, out, &stderr)
		}
		return answer, err
	}
	const fields = `{"sipRealm":"shop.example","extension":"1001","sipPassword":"a long random text","displayName":"Nicolò Rossi"}`
	first, err := run(fields, secret["HMAC_SECRET"])
	if err != nil || first["success"] != true || first["wsEndpoint"] != "wss://shop.example:8443" || lost.Load() != 2 {
		t.Errorf("provisioned: %v %v, %d lost", first, err, lost.Load())
	}
	if again, err := run(fields, secret["HMAC_SECRET"]); err != nil || again["edgvoipExtensionId"] != first["edgvoipExtensionId"] {
		t.Errorf("again: %v %v, want %v", again, err, first)
	}
	if refused, err := run(fields, "evs_x"); err == nil || refused["code"] != "unauthenticated" {
		t.Errorf("a wrong secret: %v %v", refused, err)
	}
	if refused, err := run(`{"sipRealm":"shop.example","extension":"x","sipPassword":"a long random text"}`, secret["HMAC_SECRET"]); err == nil || refused["code"] != "invalid" {
		t.Errorf("a wrong field: %v %v", refused, err)
	}
	created := w3client.Request{Method: http.MethodGet, Path: "/extensions"}
	if a, err := d.w3(secret).Do(t.Context(), created); err != nil || strings.Count(string(a.Body), `"displayName":"Nicolò Rossi"`) != 1 {
		t.Errorf("there are %s, %v", a.Body, err)
	}
}

// mockw3 gets everything provisioned, on a bad road too, and says how.
func TestMockW3(t *testing.T) {
	t.Parallel()
	i := install(t)
	d := openDoor(t, i)
	type tenant struct {
		TenantID   uuid.UUID        `json:"tenantId"`
		Bearer     string           `json:"bearerToken"`
		HMAC       string           `json:"hmacSecret"`
		Extensions []map[string]any `json:"extensions,omitempty"`
		Generate   map[string]any   `json:"generate,omitempty"`
	}
	var tenants []tenant
	for _, slug := range []string{"shop", "mall"} {
		id := uuid.MustParse(strings.TrimSpace(i.command(t, "tenant", "add", slug, "-country", "IT")))
		secret := credentials(t, i.command(t, "secret", "add", slug))
		tenants = append(tenants, tenant{TenantID: id, Bearer: secret["BEARER_TOKEN"], HMAC: secret["HMAC_SECRET"]})
	}
	tenants[0].Extensions = []map[string]any{{"sipRealm": "shop.example", "extension": "1001", "sipPassword": "a long random text", "transport": "WSS"}}
	tenants[1].Generate = map[string]any{"sipRealm": "mall.example", "first": 2000, "count": 20}
	b, err := json.Marshal(map[string]any{"tenants": tenants})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "w3.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	road, _ := badRoad(t, d)
	out, err := exec.CommandContext(t.Context(), "go", "run", "../../test/mockw3", "-url", road, "-ca", d.certFile, "-clients", "2", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "21 extensions") || !strings.Contains(string(out), w3client.NoAnswer) {
		t.Errorf("%v\n%s", err, out)
	}
	if n := rows(t, i.dsn)["sip_extensions"]; n != 21 {
		t.Errorf("%d extensions, want 21", n)
	}
	t.Logf("mockw3 printed\n%s", out)
}
