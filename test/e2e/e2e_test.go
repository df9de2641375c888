// Package e2e_test runs edgvoip against a real FreeSWITCH: a database, xmlcurl and a switch with the project's own
// freeswitch-conf, phones and carriers played by SIPp (test/sipp) and, where a phone must misbehave or its audio must
// be told apart, by a small SIP client of its own.
//
// It runs with EDGVOIP_E2E=1, freeswitch and sipp in PATH, and TEST_DATABASE_URL naming a PostgreSQL superuser: "make
// e2e". When it fails, the logs of that run are kept and their place is printed. EDGVOIP_E2E_LOOKUPS=directory keeps
// every question of the switch and its answer.
package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

var removeAtExit []string

func TestMain(m *testing.M) {
	code := m.Run()
	results.print()
	for _, dir := range removeAtExit {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// results are what became of the cases, in order.
var results table

type table struct {
	mu    sync.Mutex
	lines []string
}

// begin begins a case, which is a subtest: it notes what becomes of it, and ends the calls that are still up, so that
// no case is counted against the limits of the next.
func (s *scene) begin(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		outcome := "pass"
		switch {
		case t.Failed():
			outcome = "FAIL"
		case t.Skipped():
			outcome = "skip"
		}
		_, name, _ := strings.Cut(t.Name(), "/")
		results.mu.Lock()
		defer results.mu.Unlock()
		results.lines = append(results.lines, outcome+"  "+strings.ReplaceAll(name, "_", " "))
	})
	t.Cleanup(func() {
		s.esl.api("hupall")
		s.idle(t)
	})
}

func (r *table) print() {
	if len(r.lines) == 0 {
		return
	}
	fmt.Println("\nEnd to end:")
	for _, line := range r.lines {
		fmt.Println("  " + line)
	}
	fmt.Println()
}
