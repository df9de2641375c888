package main

import (
	"bytes"
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

func TestCommands(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args []string
		env  []string
		want string // in the error; empty means none
	}{
		{[]string{"help"}, nil, ""},
		{[]string{"version"}, nil, ""},
		{[]string{"seed", "-help"}, nil, ""},
		{[]string{"keygen", "-help"}, nil, ""},
		{[]string{"node", "help"}, nil, ""},
		{[]string{"node", "add", "-help"}, nil, ""},
		{[]string{"node", "jobs", "-help"}, nil, ""},
		{[]string{"keygen", "extra"}, nil, "no arguments"},
		{[]string{"migrate"}, []string{"DATABASE_URL=x", "DATABASE_MAX_CONNS=0"}, "DATABASE_MAX_CONNS"},
		{[]string{"migrate"}, []string{"DATABASE_URL=x", "DATABASE_MAX_CONNS=99999"}, "DATABASE_MAX_CONNS"},
		{nil, nil, "no command"},
		{[]string{"nonsense"}, nil, "unknown command"},
		{[]string{"keygen", "-id", "a b"}, nil, "-id"},
		{[]string{"migrate"}, nil, "DATABASE_URL"},
		{[]string{"migrate", "x"}, []string{"DATABASE_URL=dbname=x"}, "no arguments"},
		{[]string{"migrate"}, []string{"DATABASE_URL=postgres://u:s3cret@h:port/d"}, "DATABASE_URL"},
		{[]string{"migrate"}, []string{"DATABASE_URL=x", "DATABASE_MAX_CONNS=s3cret"}, "DATABASE_MAX_CONNS"},
		{[]string{"migrate"}, []string{"DATABASE_URL=x", "LOG_LEVEL=loud"}, "LOG_LEVEL"},
		{[]string{"seed"}, []string{"DATABASE_URL=x"}, "SECRET_KEYS_FILE"},
		{[]string{"seed"}, []string{"DATABASE_URL=x", "SECRET_KEYS_FILE=/nowhere"}, "SECRET_KEYS_FILE"},
		{[]string{"seed", "-tenants", "0"}, []string{"DATABASE_URL=x"}, "-tenants"},
		{[]string{"seed", "-extensions", "0"}, []string{"DATABASE_URL=x"}, "-extensions"},
		{[]string{"seed", "-trunk", "nonsense"}, []string{"DATABASE_URL=x"}, "host:port"},
		{[]string{"seed", "x"}, []string{"DATABASE_URL=x"}, "no arguments"},
		{[]string{"serve", "x"}, []string{"DATABASE_URL=x"}, "no arguments"},
		{[]string{"serve"}, []string{"DATABASE_URL=x"}, "SECRET_KEYS_FILE"},
		{[]string{"serve"}, []string{"DATABASE_URL=x", "API_METRICS_ADDR=here"}, "API_METRICS_ADDR"},
		{[]string{"serve"}, []string{"DATABASE_URL=x", "API_SHUTDOWN_TIMEOUT=0s"}, "API_SHUTDOWN_TIMEOUT"},
		{[]string{"node"}, nil, "no command"},
		{[]string{"node", "dance"}, nil, "unknown command"},
		{[]string{"node", "add"}, nil, "NAME"},
		{[]string{"node", "add", "fs1"}, nil, "-address"},
		{[]string{"node", "add", "fs1", "-address", "h:1"}, nil, "-password-file"},
		{[]string{"node", "add", "fs1", "fs2"}, nil, "one NAME"},
		{[]string{"node", "add", "fs1", "-address", "h:1", "-password", "s3cret"}, nil, "-password"},
		{[]string{"node", "set", "fs1"}, nil, "nothing to change"},
		{[]string{"node", "enable"}, nil, "NAME"},
		{[]string{"node", "list", "x"}, nil, "no arguments"},
		{[]string{"node", "status", "x"}, nil, "no arguments"},
		{[]string{"node", "jobs", "x"}, nil, "no arguments"},
		{[]string{"node", "jobs", "-state", "odd"}, nil, "-state"},
		{[]string{"node", "jobs", "-limit", "0"}, nil, "-limit"},
		{[]string{"node", "retry"}, nil, "-all"},
		{[]string{"node", "retry", "-all", "7"}, nil, "-all"},
		{[]string{"node", "retry", "seven"}, nil, "number"},
		{[]string{"node", "list"}, nil, "DATABASE_URL"},
		{[]string{"node", "list"}, []string{"DATABASE_URL=x"}, "SECRET_KEYS_FILE"},
	} {
		err := run(t.Context(), tc.args, tc.env, streams{strings.NewReader(""), io.Discard, io.Discard})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v: %v, want %q", tc.args, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: the error shows a secret: %v", tc.args, err)
		}
	}
}

func TestKeygen(t *testing.T) {
	t.Parallel()
	var one, two bytes.Buffer
	for _, out := range []*bytes.Buffer{&one, &two} {
		if err := run(t.Context(), []string{"keygen", "-id", "k7"}, nil, streams{nil, out, io.Discard}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := secret.ParseKeyRing(one.Bytes()); err != nil || one.String() == two.String() || !strings.HasPrefix(one.String(), "k7 ") {
		t.Errorf("%q and %q: %v", one.String(), two.String(), err)
	}
}

// installation is a database and a key file, and the commands run on them.
type installation struct {
	dsn string
	env []string
}

func install(t *testing.T) installation {
	t.Helper()
	return installOn(t, testdb.Empty(t))
}

// installOn installs on an empty database.
func installOn(t *testing.T, dsn string) installation {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "keys")
	var line bytes.Buffer
	if err := run(t.Context(), []string{"keygen"}, nil, streams{nil, &line, io.Discard}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keys, line.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	i := installation{dsn, []string{"DATABASE_URL=" + dsn, "SECRET_KEYS_FILE=" + keys, "LOG_FORMAT=json"}}
	i.command(t, "migrate")
	return i
}

// command runs a command that succeeds, and returns what it printed.
func (i installation) command(t *testing.T, args ...string) string {
	t.Helper()
	out, err := i.try(t, "", args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return out
}

// try runs a command with something on its standard input.
func (i installation) try(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, i.env, streams{strings.NewReader(in), &out, t.Output()})
	return out.String(), err
}

// An empty database becomes a demo, and a second seed changes nothing.
func TestMigrateAndSeed(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.command(t, "seed", "-tenants", "2", "-extensions", "3", "-trunk", "127.0.0.1:5099", "-trunk", "127.0.0.1:5090")
	before := rows(t, i.dsn)
	i.command(t, "migrate")
	i.command(t, "seed", "-tenants", "2", "-extensions", "3", "-trunk", "127.0.0.1:5099", "-trunk", "127.0.0.1:5090")
	want := map[string]int{"tenants": 2, "sip_domains": 2, "sip_extensions": 6, "sip_names": 6, "sip_trunks": 4, "sip_trunk_did_ranges": 2}
	if after := rows(t, i.dsn); !reflect.DeepEqual(before, want) || !reflect.DeepEqual(after, want) {
		t.Errorf("rows are %v and then %v, want %v", before, after, want)
	}
}

func TestTenantNames(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 51: "az", 52: "ba", maxTenants - 1: "zz"} {
		if got := tenantName(n); got != want {
			t.Errorf("tenant %d is %s, want %s", n, got, want)
		}
	}
}

// rows counts what the demo is made of.
func rows(tb testing.TB, dsn string) map[string]int {
	tb.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	n := map[string]int{}
	for _, table := range []string{"tenants", "sip_domains", "sip_extensions", "sip_names", "sip_trunks", "sip_trunk_did_ranges"} {
		var count int
		if err := db.QueryRowContext(tb.Context(), `SELECT count(*) FROM edgvoip.`+table).Scan(&count); err != nil {
			tb.Fatal(err)
		}
		n[table] = count
	}
	return n
}
