package main

import (
	"bytes"
	"database/sql"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// Questions of the operator at 3 a.m., on a database, with the rights of xmlcurl.
func TestExplain(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	db, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	storetest.Build(storetest.SQL{TB: t, DB: db})
	if _, err := db.ExecContext(t.Context(), `UPDATE edgvoip.tenants SET timezone = 'Europe/Rome'`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE edgvoip.sip_trunks SET ai_agent_ref = 'reception', ai_time_policy = $1 WHERE id = $2`,
		`{"weekly":{"fri":[{"from":"09:00","to":"18:00"}]},"holidays":["12-25"]}`, storetest.TrunkID("tenant-b", "first")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url) SELECT tenant_id, 'https://w3.example/b' FROM edgvoip.sip_trunks WHERE id = $1`, storetest.TrunkID("tenant-b", "first")); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `
		INSERT INTO edgvoip.ai_breakers (bridge, gateway, open_until) VALUES
		  ('pbx1 127.0.0.1:5090', 'https://w3.example/b', '2099-01-01T10:00:00Z'), ('pbx2 127.0.0.1:5090', 'https://w3.example/b', now())`); err != nil {
		t.Fatal(err)
	}
	env := []string{"DATABASE_URL=" + url} // what switches present is no concern of an operator's question
	for _, tc := range []struct {
		args string
		want []string
		err  string
	}{
		{"-to +390612345778 -from +393331234567 -at 2026-12-18T10:00+01:00", []string{"fri 09:00-18:00, open: true", "10:00 Fri CET", "next change at 2026-12-18 18:00", "route    agent", "ai-bridge pbx1 127.0.0.1:5090", "until 2099-01-01T10:00:00Z", "X-edgvoip-Trunk"}, ""},
		{"-to +390612345778 -from +393331234567 -at 2026-12-25T09:00", []string{"holiday 2026-12-25, open: false", "route    extension: agent off"}, ""},
		{"-to 0612345678 -from +393331234567 -trunk " + storetest.TrunkID("tenant-a", "first").String(), []string{"is +390612345678", "agent    none", "extension 1000"}, ""},
		{"-to 1002 -from 1001@tenant-a.example", []string{"extension 1001 of tenant-a.example, by its credentials", "sofia/internal/1002%"}, ""},
		{"-to 0612345678 -from +393331234567", nil, "-to is not a DID"},
		{"-to +390699999999 -from +393331234567", nil, "-to is a DID of no active trunk"},
		{"-to 1002 -from 9999@tenant-a.example", nil, "-from is not an extension"},
		{"-to 1002 -from ${x}@tenant-a.example", nil, "-from "},
		{"-to 1 -from 1 -trunk " + storetest.TrunkID("nobody", "first").String(), nil, "-trunk is not an active trunk"},
		{"-to 1 -from 1 -trunk x", nil, "-trunk is not an id"},
		{"-to 1 -from 1 -at tomorrow", nil, "-at is not a time"},
		{"-from 1", nil, "needs -to and -from"},
	} {
		var out, problems bytes.Buffer
		err := run(t.Context(), append([]string{"explain"}, strings.Fields(tc.args)...), env, &out, &problems)
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %q", tc.args, err, tc.err)
		}
		if strings.Contains(out.String(), "pbx2") {
			t.Errorf("%s: a breaker is believed whose time is over:\n%s", tc.args, out.String())
		}
		for _, want := range tc.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: no %q in\n%s", tc.args, want, out.String())
			}
		}
	}
}
