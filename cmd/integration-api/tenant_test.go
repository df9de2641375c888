package main

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
)

// An operator makes a tenant and credentials on the command line, and W3 provisions with them.
func TestTenantCommands(t *testing.T) {
	t.Parallel()
	i := install(t)
	id := uuid.NewString()
	if out := i.command(t, "tenant", "add", "shop", "-name", "The Shop", "-country", "IT", "-timezone", "Europe/Rome", "-id", id); out != id+"\n" {
		t.Errorf("add printed %q", out)
	}
	i.command(t, "tenant", "add", "shop", "-name", "The Shop", "-country", "IT", "-id", id)
	i.command(t, "tenant", "add", "mall", "-country", "DE")
	i.command(t, "tenant", "suspend", "mall")
	list := i.command(t, "tenant", "list")
	if want := `(?s)^SLUG .*\nmall +\S+ +mall +DE +UTC +suspended\nshop +` + id + ` +The Shop +IT +Europe/Rome +active\n$`; !regexp.MustCompile(want).MatchString(list) {
		t.Errorf("list printed\n%s", list)
	}
	i.command(t, "tenant", "resume", "mall")
	if out := i.command(t, "tenant", "list"); strings.Contains(out, "suspended") {
		t.Errorf("list printed\n%s", out)
	}
	i.command(t, "tenant", "set", "shop", "-record-calls", "external", "-cdr-days", "365", "-recording-days", "30")
	i.command(t, "tenant", "set", "mall", "-name", "The Mall", "-country", "AT", "-timezone", "Europe/Vienna")
	if out := i.command(t, "tenant", "list"); !regexp.MustCompile(`mall +\S+ +The Mall +AT +Europe/Vienna +active`).MatchString(out) {
		t.Errorf("list printed\n%s", out)
	}
	i.command(t, "tenant", "add", "gone", "-country", "DE")
	i.exec(t, `INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) SELECT id, gen_random_uuid(), r FROM edgvoip.tenants, unnest(ARRAY['gone.example', 'old.example']) r WHERE slug = 'gone'`)
	i.command(t, "tenant", "delete-domain", "gone", "old.example")
	if out := i.command(t, "tenant", "domains", "gone"); !regexp.MustCompile(`(?s)^REALM .*\ngone.example +\S+ +0 +\S+Z\n$`).MatchString(out) {
		t.Errorf("domains printed\n%s", out)
	}
	i.command(t, "tenant", "suspend", "gone")
	i.command(t, "tenant", "delete", "gone")
	if out := i.command(t, "tenant", "list"); strings.Contains(out, "gone") {
		t.Errorf("list printed\n%s", out)
	}
	first, second := credentials(t, i.command(t, "secret", "add", "shop")), credentials(t, i.command(t, "secret", "rotate", "shop", "-overlap", "1h"))
	i.command(t, "secret", "revoke", "shop", first["SECRET_ID"])
	secrets := i.command(t, "secret", "list", "shop")
	for id, valid := range map[string]string{first["SECRET_ID"]: "no", second["SECRET_ID"]: "yes"} {
		if !regexp.MustCompile(id + ` +` + valid + ` `).MatchString(secrets) {
			t.Errorf("%s is not shown as valid: %s\n%s", id, valid, secrets)
		}
	}
	token := strings.TrimSpace(i.command(t, "operator", "add", "anna", "-lifetime", "1h"))
	i.command(t, "operator", "add", "bob")
	i.command(t, "operator", "revoke", "bob")
	if out := i.command(t, "operator", "list"); !regexp.MustCompile(`anna +yes `).MatchString(out) || !regexp.MustCompile(`bob +no `).MatchString(out) || strings.Contains(out, token) {
		t.Errorf("operators:\n%s", out)
	}
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"SLUG", []string{"tenant", "add"}},
		{"options", []string{"tenant", "list", "x"}},
		{"slug", []string{"tenant", "add", "public", "-country", "IT"}},
		{"-country", []string{"tenant", "add", "x1"}},
		{"-id", []string{"tenant", "add", "x1", "-country", "IT", "-id", "x"}},
		{"another id", []string{"tenant", "add", "shop", "-country", "IT", "-id", uuid.NewString()}},
		{"another name, country", []string{"tenant", "add", "shop", "-name", "Shop", "-country", "DE"}},
		{"another timezone", []string{"tenant", "add", "shop", "-country", "IT", "-timezone", "UTC"}},
		{"unknown tenant", []string{"tenant", "suspend", "nobody"}},
		{"unknown tenant", []string{"tenant", "delete", "gone"}},
		{"not suspended", []string{"tenant", "delete", "shop"}},
		{"unknown SIP domain", []string{"tenant", "delete-domain", "shop", "shop.example"}},
		{"REALM is missing", []string{"tenant", "delete-domain", "shop"}},
		{"-name", []string{"tenant", "set", "shop", "-name", "${x}"}},
		{"-country", []string{"tenant", "set", "shop", "-country", "Italy"}},
		{"-timezone", []string{"tenant", "set", "shop", "-timezone", "Rome"}},
		{"nothing to change", []string{"tenant", "set", "shop"}},
		{"-record-calls: is one of", []string{"tenant", "set", "shop", "-record-calls", "some"}},
		{"-cdr-days: is 0", []string{"tenant", "set", "shop", "-cdr-days", "-1"}},
		{"-recording-days: is 0", []string{"tenant", "set", "shop", "-recording-days", "40000"}},
		{"unknown tenant", []string{"secret", "add", "nobody"}},
		{"-overlap", []string{"secret", "rotate", "shop", "-overlap", "-1h"}},
		{"unknown secret", []string{"secret", "revoke", "shop", uuid.NewString()}},
		{"UUID", []string{"secret", "revoke", "shop", "x"}},
		{"ID is missing", []string{"secret", "revoke", "shop"}},
		{"-name", []string{"operator", "add", "Anna"}},
		{"has a token", []string{"operator", "add", "anna"}},
		{"unknown operator", []string{"operator", "revoke", "carl"}},
		{"no command", []string{"operator"}},
		{"unknown command", []string{"secret", "show"}},
	} {
		if _, err := i.try(t, "", tc.args...); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), tc.args[0]) {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
	provision(t, i, id, second, token)
}

// credentials reads what add and rotate print.
func credentials(t *testing.T, out string) map[string]string {
	t.Helper()
	m := map[string]string{}
	for line := range strings.Lines(out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		m[name] = value
	}
	if len(m) != 3 || m["SECRET_ID"] == "" || m["BEARER_TOKEN"] == "" || m["HMAC_SECRET"] == "" {
		t.Fatalf("printed %q", out)
	}
	return m
}

// provision runs the process, and sends what W3 and an operator would.
func provision(t *testing.T, i installation, tenant string, secret map[string]string, token string) {
	t.Helper()
	_, base, stop := serving(t, i)
	send := func(method, path, body string, header map[string]string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range header {
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	body := `{"tenantId":"` + tenant + `","sipRealm":"shop.example","extension":"1001","sipPassword":"long enough"}`
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	status, answer := send(http.MethodPost, "/api/v1/integration/extensions", body, map[string]string{
		"Authorization": "Bearer " + secret["BEARER_TOKEN"], "Content-Type": "application/json", "X-Timestamp": stamp,
		"X-Signature": integration.Sign(secret["HMAC_SECRET"], stamp, http.MethodPost, "/api/v1/integration/extensions", []byte(body)),
	})
	if status != http.StatusCreated || !strings.Contains(answer, `"wsEndpoint":"wss://shop.example:8443"`) {
		t.Errorf("provisioned: %d %s", status, answer)
	}
	if status, answer := send(http.MethodGet, "/api/v1/admin/tenants", "", map[string]string{"Authorization": "Bearer " + token}); status != http.StatusOK || !strings.Contains(answer, "shop") {
		t.Errorf("operator: %d %s", status, answer)
	}
	for path, want := range map[string]int{"/api/v1/integration/health": 200, "/docs/": 200, "/healthz": 200, "/metrics": 404, "/readyz": 404} {
		if status, answer := send(http.MethodGet, path, "", nil); status != want {
			t.Errorf("%s: %d %s", path, status, answer)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
}
