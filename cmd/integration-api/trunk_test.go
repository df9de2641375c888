package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// An operator's day with trunks.
func TestTrunkCommands(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.command(t, "tenant", "add", "shop", "-country", "IT")
	i.command(t, "tenant", "add", "mall", "-country", "IT")
	i.exec(t, `INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) SELECT id, id, 'shop.example' FROM edgvoip.tenants WHERE slug = 'shop'`)
	i.exec(t, `INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
		SELECT tenant_id, gen_random_uuid(), id, '1000', '1000', 'Desk', '$argon2id$', '', '', 'k' FROM edgvoip.sip_domains`)
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	password, policy := file("password", "hunter2-of-acct\n"), file("policy", `{"weekly": {"mon": [{"from": "09:00", "to": "18:00"}]}}`)
	id := uuid.NewString()
	create := []string{
		"trunk", "create", "shop", "-id", id, "-name", "First", "-provider", "Example", "-description", "Contract 7", "-host", "sip.carrier.example", "-port", "5061",
		"-protocol", "tls", "-proxy", "edge.carrier.example", "-max-channels", "12", "-priority", "20", "-source-addresses", "192.0.2.0/24, 198.51.100.0/24",
		"-register", "-username", "acct", "-password-file", password, "-caller-id-policy", "extension", "-caller-id-number", "+390612345600", "-number-format", "digits",
		"-tech-prefix", "77#", "-prefixes", "39,44", "-codecs", "pcma,g729", "-ping-seconds", "30", "-ai-agent-ref", "agent-9", "-ai-time-policy-file", policy,
		"-ai-failover-extension", "1000", "-did-ranges", "0612345600-0612345699,+390612345710", "-store-id", "c0a4c1de-2f5f-4c3a-bb6e-0f9d3a1b7c20",
	}
	for range 2 {
		if out := i.command(t, create...); out != id+"\n" {
			t.Errorf("create printed %q", out)
		}
	}
	var shown map[string]any
	show := func() string {
		t.Helper()
		shown = nil
		out := i.command(t, "trunk", "show", "shop", id)
		if err := json.Unmarshal([]byte(out), &shown); err != nil {
			t.Fatal(err)
		}
		return out
	}
	first := show()
	for _, want := range []string{
		`"name": "First"`, `"description": "Contract 7"`, `"port": 5061`, `"protocol": "tls"`, `"proxy": "edge.carrier.example"`, `"maxChannels": 12`, `"priority": 20`,
		`"192.0.2.0/24"`, `"198.51.100.0/24"`, `"register": true`, `"username": "acct"`, `"passwordSet": true`, `"callerIdPolicy": "extension"`, `"numberFormat": "digits"`,
		`"techPrefix": "77#"`, `"39"`, `"PCMA"`, `"pingSeconds": 30`, `"aiAgentRef": "agent-9"`, `"18:00"`, `"aiFailoverExtension": "1000"`,
		`"first": "+390612345600"`, `"last": "+390612345699"`, `"first": "+390612345710"`, `"storeId": "c0a4c1de-2f5f-4c3a-bb6e-0f9d3a1b7c20"`, `"status": "active"`,
	} {
		if !strings.Contains(first, want) {
			t.Errorf("show has no %s:\n%s", want, first)
		}
	}
	// What is not given stays.
	i.command(t, "trunk", "set", "shop", id, "-description", "Contract 7")
	if again := show(); again != first {
		t.Errorf("a change of nothing:\n%s", again)
	}
	i.command(t, "trunk", "set", "shop", id, "-codecs", "", "-did-ranges", "0612345600", "-status", "disabled", "-register=false", "-ai-time-policy-file", file("none", "null"), "-store-id", uuid.Nil.String())
	second := show()
	if len(shown["codecs"].([]any)) != 0 || len(shown["didRanges"].([]any)) != 1 || shown["status"] != "disabled" || shown["register"] != false || shown["passwordSet"] != true ||
		shown["aiTimePolicy"] != nil || shown["storeId"] != nil || shown["name"] != "First" || shown["port"] != 5061.0 || len(shown["prefixes"].([]any)) != 2 {
		t.Errorf("changed:\n%s", second)
	}
	if _, err := i.try(t, "hunter2-again\n", "trunk", "set", "shop", id, "-password-file", "-", "-status", "active"); err != nil {
		t.Error(err)
	}
	other := strings.TrimSpace(i.command(t, "trunk", "create", "mall", "-name", "Second", "-host", "2001:db8::1", "-status", "disabled"))
	i.exec(t, `INSERT INTO edgvoip.switch_nodes (id, name, address, password_sealed, password_key_id) VALUES (gen_random_uuid(), 'fs1', '127.0.0.1:1', '', '')`)
	i.exec(t, `INSERT INTO edgvoip.trunk_gateways (tenant_id, trunk_id, node_id, applied_revision, registration, error)
		SELECT k.tenant_id, k.id, n.id, k.gateway_revision, 'REGED', 'no' || chr(10) || 'way' FROM edgvoip.sip_trunks k, edgvoip.switch_nodes n WHERE k.name = 'First'`)
	for want, args := range map[string][]string{
		`^ID .*\n` + id + ` +First +active +sip\.carrier\.example:5061 +tls +no +12 +20 +\+390612345600\n$`: {"list", "shop"},
		`^ID .*\n` + other + ` +Second +disabled +\[2001:db8::1\]:5060 +udp +no +30 +100 +-\n$`:             {"list", "mall", "-status", "disabled"},
		`^ID .*\n$`: {"list", "mall", "-status", "active"},
		`(?s)^\[\n  \{.*"trunkId": "` + id + `".*\]\n`:                           {"list", "shop", "-json"},
		`^NODE .*\nfs1 +active +(\d+) +(\d+) +yes +REGED +- +20\S+Z +no\?way\n$`: {"status", "shop", id},
		`(?s)"converged": true.*"registration": "REGED"`:                         {"status", "shop", id, "-json"},
	} {
		if out := i.command(t, append([]string{"trunk"}, args...)...); !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("%v printed\n%swant %s", args, out, want)
		}
	}
	i.command(t, "trunk", "delete", "shop", id)
	i.command(t, "trunk", "delete", "shop", id)
	if show(); shown["status"] != "deleted" || shown["passwordSet"] != false {
		t.Errorf("deleted: %v", shown)
	}
	if text := i.everything(t); strings.Contains(text, "hunter2") || !strings.Contains(text, commandActor(i.env)) {
		t.Errorf("the audit log holds\n%s", text)
	}
}

func TestTrunkCommandsRefuse(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.command(t, "tenant", "add", "shop", "-country", "IT")
	i.command(t, "tenant", "add", "mall", "-country", "IT")
	id := strings.TrimSpace(i.command(t, "trunk", "create", "shop", "-name", "First", "-host", "192.0.2.1", "-did-ranges", "0612345600"))
	gone := strings.TrimSpace(i.command(t, "trunk", "create", "shop", "-name", "Gone", "-host", "192.0.2.1"))
	i.command(t, "trunk", "delete", "shop", gone)
	before := i.command(t, "trunk", "show", "shop", id)
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"TENANT", []string{"create"}},
		{"unknown tenant", []string{"create", "nobody", "-name", "x", "-host", "192.0.2.1"}},
		{"-name: ", []string{"create", "shop", "-host", "192.0.2.1"}},
		{"-host: ", []string{"create", "shop", "-name", "x"}},
		{"-id", []string{"create", "shop", "-name", "x", "-host", "192.0.2.1", "-id", "x"}},
		{"belongs to another trunk", []string{"create", "shop", "-name", "x", "-host", "192.0.2.1", "-id", id}},
		{"belongs to another trunk", []string{"create", "mall", "-name", "First", "-host", "192.0.2.1", "-id", id}},
		{"already belongs", []string{"create", "mall", "-name", "x", "-host", "192.0.2.1", "-did-ranges", "+390612345600"}},
		{"-status", []string{"create", "shop", "-name", "x", "-host", "192.0.2.1", "-status", "deleted"}},
		{"-status: ", []string{"set", "shop", id, "-status", "deleted"}},
		{"-store-id", []string{"set", "shop", id, "-store-id", "x"}},
		{"-did-ranges: ", []string{"set", "shop", id, "-did-ranges", "0612345699-0612345600"}},
		{"-caller-id-number: ", []string{"set", "shop", id, "-caller-id-number", "06"}},
		{"-ai-failover-extension: ", []string{"set", "shop", id, "-ai-failover-extension", "x"}},
		{"-ai-failover-extension: is not an active extension", []string{"set", "shop", id, "-ai-failover-extension", "1999"}},
		{"-ai-time-policy-file: ", []string{"set", "shop", id, "-ai-time-policy-file", "-"}}, // there is nothing to read
		{"-password-file: ", []string{"set", "shop", id, "-username", "x"}},
		{"-password-file: ", []string{"set", "shop", id, "-password-file", "/nowhere"}},
		{"-register: ", []string{"set", "shop", id, "-register"}},
		{"nothing to change", []string{"set", "shop", id}},
		{"unknown trunk", []string{"set", "mall", id, "-name", "Mine"}},
		{"unknown trunk", []string{"show", "mall", id}},
		{"unknown trunk", []string{"status", "mall", id}},
		{"unknown trunk", []string{"delete", "mall", id}},
		{"deleted", []string{"set", "shop", gone, "-name", "Back"}},
		{"ID is missing", []string{"show", "shop"}},
		{"UUID", []string{"show", "shop", "x"}},
		{"-status", []string{"list", "shop", "-status", "x"}},
		{"-password", []string{"set", "shop", id, "-password", "hunter2"}},
		{"unknown command", []string{"add"}},
	} {
		_, err := i.try(t, "", append([]string{"trunk"}, tc.args...)...)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.HasPrefix(err.Error(), "trunk") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
	if after := i.command(t, "trunk", "show", "shop", id); after != before {
		t.Errorf("what was refused changed something:\n%s", after)
	}
}
