package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What a command did is in the audit log under who ran it, where, and an id that all of it has; and the log can be
// asked.
func TestAuditCommands(t *testing.T) {
	t.Parallel()
	i := install(t)
	me := commandActor(i.env)
	i.command(t, "tenant", "add", "shop", "-country", "IT")
	i.command(t, "secret", "rotate", "shop")
	i.command(t, "tenant", "suspend", "shop")
	i.command(t, "tenant", "delete", "shop")
	i.command(t, "seed", "-tenants", "1", "-extensions", "1")
	if _, err := i.try(t, "s3cret\n", "node", "add", "fs1", "-address", "127.0.0.1:2", "-password-file", "-"); err != nil {
		t.Fatal(err)
	}
	read := func(args ...string) (entries []printedEntry) {
		t.Helper()
		if err := json.Unmarshal([]byte(i.command(t, append([]string{"audit", "list", "-json"}, args...)...)), &entries); err != nil {
			t.Fatal(err)
		}
		return entries
	}
	all := read()
	byID := map[string][]string{}
	for _, e := range all {
		if e.Actor != me || e.CorrelationID == "" {
			t.Errorf("%s by %s under %q", e.Action, e.Actor, e.CorrelationID)
		}
		byID[e.CorrelationID] = append(byID[e.CorrelationID], e.Action)
	}
	if len(byID) != 6 { // one a command
		t.Errorf("%v", byID)
	}
	gone := read("-action", "tenant.deleted")
	if len(gone) != 1 {
		t.Fatalf("%v", gone)
	}
	if of := read("-correlation", gone[0].CorrelationID); len(of) != 2 || of[1].Action != "secret.revoked" {
		t.Errorf("%v", of)
	}
	if of := read("-subject", gone[0].TenantID); len(of) != 3 {
		t.Errorf("%v", of)
	}
	for args, want := range map[string]int{
		"-actor " + me: len(all), "-actor cli:nobody@nowhere": 0, "-since 1h": len(all), "-until 1h": 0, "-limit 2": 2,
		"-until " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): len(all), "-since " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339): 0,
	} {
		if got := read(strings.Fields(args)...); len(got) != want {
			t.Errorf("%s: %d rows, want %d", args, len(got), want)
		}
	}
	if len(read("-tenant", "tenant-a")) == 0 {
		t.Error("nothing of tenant-a")
	}
	if out := i.command(t, "audit", "list", "-limit", "1"); !regexp.MustCompile(`(?s)^ID .*\n\d+ +\S+Z +` + regexp.QuoteMeta(me) + ` +node.created +- +\S+ +\S+\n$`).MatchString(out) {
		t.Errorf("list printed\n%s", out)
	}
	_, err := i.try(t, "", "tenant", "delete", "tenant-a")
	if err == nil || !regexp.MustCompile(`not suspended \(correlation id [0-9a-f-]{36}\)$`).MatchString(err.Error()) {
		t.Errorf("%v", err)
	}
	for option, args := range map[string][]string{
		"-since": {"-since", "yesterday"}, "-until": {"-until", "-1h"}, "-limit": {"-limit", "0"}, "-subject": {"-subject", "x"}, "unknown tenant": {"-tenant", "nobody"},
	} {
		if _, err := i.try(t, "", append([]string{"audit", "list"}, args...)...); err == nil || !strings.Contains(err.Error(), option) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// Who root runs a command for is believed; who says of himself to be another is not.
func TestActor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		uid  int
		env  []string
		want string
	}{
		{0, nil, "cli:root@"},
		{0, []string{"SUDO_USER=anna"}, "cli:anna@"},
		{0, []string{"SUDO_USER=anna", "SUDO_USER="}, "cli:root@"},
		{0, []string{"SUDO_USER=an na@elsewhere:x\n" + strings.Repeat("a", 500)}, "cli:an?na?elsewhere?x?"},
		{4242424, []string{"SUDO_USER=anna"}, "cli:uid-4242424@"},
	} {
		got := actorOf(tc.uid, tc.env)
		if !strings.HasPrefix(got, tc.want) || len(got) > 128 || strings.Count(got, "@") != 1 {
			t.Errorf("%d %.40v: %s, want %s…", tc.uid, tc.env, got, tc.want)
		}
	}
}
