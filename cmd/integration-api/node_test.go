package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// An operator's day with switches, none of which is there.
func TestNodeCommands(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.command(t, "seed", "-tenants", "1", "-extensions", "3")
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("s3cret-of-fs1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	away := closedPort(t)
	i.command(t, "node", "add", "fs1", "-address", away, "-password-file", password)
	i.command(t, "node", "add", "fs1", "-address", away, "-password-file", password)
	if _, err := i.try(t, "s3cret-of-fs2\n", "node", "add", "fs2", "-address", "127.0.0.1:2", "-password-file", "-", "-caches-users"); err != nil {
		t.Fatal(err)
	}
	i.command(t, "node", "set", "fs2", "-address", away, "-caches-users=false")
	i.command(t, "node", "disable", "fs2")
	want := fmt.Sprintf("NAME  %-*s  STATUS    CACHES USERS\n", len(away), "ADDRESS") +
		"fs1   " + away + "  active    no\n" +
		"fs2   " + away + "  disabled  no\n"
	if diff := cmp.Diff(want, i.command(t, "node", "list")); diff != "" {
		t.Error(diff)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(i.command(t, "node", "list", "-json")), &list); err != nil || len(list) != 2 || list[1]["status"] != "disabled" {
		t.Errorf("%v, %v", list, err)
	}
	i.exec(t, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE extension IN ('1000', '1001')`)
	i.exec(t, `UPDATE edgvoip.jobs SET state = 'dead', last_error = 'no' || chr(10) || 'way' WHERE id = (SELECT min(id) FROM edgvoip.jobs WHERE node_id = (SELECT id FROM edgvoip.switch_nodes WHERE name = 'fs1'))`)
	jobs := i.command(t, "node", "jobs", "-node", "fs1")
	for _, text := range []string{"switch.user", "dead", "pending", "no?way"} {
		if !strings.Contains(jobs, text) {
			t.Errorf("jobs do not show %q:\n%s", text, jobs)
		}
	}
	var status []map[string]any
	if err := json.Unmarshal([]byte(i.command(t, "node", "status", "-json")), &status); err != nil {
		t.Fatal(err)
	}
	if s := status[0]; len(status) != 2 || s["up"] != false || s["pendingJobs"] != 1.0 || s["deadJobs"] != 1.0 {
		t.Errorf("status %v", status)
	}
	if out := i.command(t, "node", "retry", "-all"); out != "1 to be tried again\n" {
		t.Errorf("retry printed %q", out)
	}
	i.command(t, "node", "enable", "fs2")
	if _, err := i.try(t, "", "node", "remove", "fs1"); err == nil || !strings.Contains(err.Error(), "2 jobs are pending and 0 were given up; -force") {
		t.Errorf("removed with jobs: %v", err)
	}
	i.command(t, "node", "remove", "fs1", "-force")
	// What the other was not told while it was disabled is left.
	if out := i.command(t, "node", "jobs", "-json"); strings.Contains(out, `"fs1"`) || strings.Count(out, `"node": "fs2"`) != 2 {
		t.Errorf("jobs when a switch is removed: %s", out)
	}
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"NAME", []string{"add", "FS1", "-address", away, "-password-file", password}},
		{"-address", []string{"add", "fs3", "-address", "nowhere", "-password-file", password}},
		{"-password-file", []string{"add", "fs3", "-address", away, "-password-file", password + "-gone"}},
		{"-password-file", []string{"set", "fs2", "-password-file", "-"}}, // there is nothing to read
		{"unknown node", []string{"remove", "fs1"}},
		{"unknown node", []string{"disable", "fs1"}},
	} {
		_, err := i.try(t, "", append([]string{"node"}, tc.args...)...)
		if err == nil || !strings.Contains(err.Error(), "node "+tc.args[0]+": ") || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
	}
	if text := i.everything(t); strings.Contains(text, "s3cret") {
		t.Error("a password is in the database")
	}
}

func (i installation) exec(t *testing.T, query string) {
	t.Helper()
	db, err := sql.Open("postgres", i.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query); err != nil {
		t.Fatal(err)
	}
}

// everything returns all that is kept of switches.
func (i installation) everything(t *testing.T) (text string) {
	t.Helper()
	db, err := sql.Open("postgres", i.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const query = `SELECT concat((SELECT string_agg(n::text || encode(n.password_sealed, 'escape'), ' ') FROM edgvoip.switch_nodes n), (SELECT string_agg(a::text, ' ') FROM edgvoip.audit_log a))`
	if err := db.QueryRowContext(t.Context(), query).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// closedPort returns an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
