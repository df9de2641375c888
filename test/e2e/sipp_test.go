package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sipp is one run of SIPp with a scenario of test/sipp.
type sipp struct {
	scenario string
	remote   int      // port of the switch
	port     int      // its own
	forever  bool     // answers calls until the test ends, instead of one
	lines    []string // of the CSV
	args     []string

	process *process
	out     bytes.Buffer
	errors  string
}

// startSIPp starts SIPp; it is stopped when the test ends.
func (s *scene) startSIPp(t *testing.T, run sipp) *sipp {
	t.Helper()
	dir, err := os.MkdirTemp(s.dir, "sipp-")
	if err != nil {
		t.Fatal(err)
	}
	scenario, err := filepath.Abs("../sipp/" + run.scenario)
	if err != nil {
		t.Fatal(err)
	}
	run.errors = filepath.Join(dir, "errors")
	// A second of A-law that is not silence, for the scenarios that talk.
	if err := os.WriteFile(filepath.Join(dir, "audio.alaw"), bytes.Repeat([]byte{0x55, 0xd5, 0x34, 0xb4}, 2000), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{
		"127.0.0.1:" + strconv.Itoa(run.remote), "-sf", scenario, "-i", "127.0.0.1", "-p", strconv.Itoa(run.port),
		"-mi", "127.0.0.1", "-mp", strconv.Itoa(freePort(t)), "-nostdin", "-trace_err", "-error_file", run.errors,
	}
	if !run.forever {
		args = append(args, "-m", "1", "-timeout", "40", "-timeout_error")
	}
	if run.lines != nil {
		csv := filepath.Join(dir, "data.csv")
		if err := os.WriteFile(csv, []byte("SEQUENTIAL\n"+strings.Join(run.lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-inf", csv)
	}
	cmd := exec.CommandContext(t.Context(), "sipp", append(args, run.args...)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &run.out, &run.out, append(os.Environ(), "TERM=dumb")
	run.process = start(t, "sipp "+run.scenario, cmd)
	return &run
}

// wait fails the test unless every call of the run went as its scenario says.
func (r *sipp) wait(t *testing.T) {
	t.Helper()
	select {
	case <-r.process.done:
		if r.process.err != nil {
			problems, _ := os.ReadFile(r.errors)
			t.Fatalf("sipp %s: %v\n%s\n%s", r.scenario, r.process.err, problems, r.out.String())
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("sipp %s does not end", r.scenario)
	}
}

// sipp runs SIPp to its end.
func (s *scene) sipp(t *testing.T, run sipp) {
	t.Helper()
	s.startSIPp(t, run).wait(t)
}

// sippAccount is the beginning of a CSV line: an account of tenant A. SIPp takes the whole header keyword from the CSV.
func sippAccount(user, password string) string {
	return user + ";" + realmA + ";[authentication username=" + user + " password=" + password + "]"
}

func sippUser(user string) string { return sippAccount(user, "pw"+user) }

// sippRegisters registers a phone that SIPp plays on a port, and unregisters it when the test ends.
func (s *scene) sippRegisters(t *testing.T, user string, port int) {
	t.Helper()
	s.sipp(t, sipp{scenario: "register.xml", remote: s.internal, port: port, lines: []string{sippUser(user)}, args: []string{"-key", "expires", "300"}})
	t.Cleanup(func() {
		newPhone(t, s.internal, login{user: user, realm: realmA, password: "pw" + user}).register(t, func(r *request) {
			r.contact, r.headers = "*", []string{"Expires: 0"}
		})
	})
}
