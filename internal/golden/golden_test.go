package golden_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/golden"
)

// The subtests follow one file through its life; they share the flag -update and so do not run in parallel.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "case", "want.xml")
	for _, test := range []struct {
		name     string
		update   bool
		got      string
		wantFail []string
	}{
		{name: "missing file", got: "one\n", wantFail: []string{"does not exist", "-update", "one\n"}},
		{name: "update makes it", update: true, got: "one\ntwo\n"},
		{name: "equal", got: "one\ntwo\n"},
		{name: "different", got: "one\n2\n", wantFail: []string{"want.xml", "two", "2", "-update"}},
		{name: "only the last newline differs", got: "one\ntwo", wantFail: []string{"want.xml"}},
		{name: "update rewrites it", update: true, got: "one\n2\n"},
		{name: "equal to the rewritten file", got: "one\n2\n"},
		{name: "update makes it empty", update: true, got: ""},
		{name: "empty is not missing", got: ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			setUpdate(t, test.update)
			r := &recorder{TB: t}
			golden.Check(r, path, []byte(test.got))
			if got, want := len(r.failures) > 0, len(test.wantFail) > 0; got != want {
				t.Fatalf("failed: %t, want %t: %q", got, want, r.failures)
			}
			for _, want := range test.wantFail {
				if !strings.Contains(r.failures[0], want) {
					t.Errorf("the failure does not mention %q:\n%s", want, r.failures[0])
				}
			}
		})
	}
}

func TestCheckReportsAFileThatCannotBeWritten(t *testing.T) {
	setUpdate(t, true)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	golden.Check(r, filepath.Join(file, "below a file"), []byte("x"))
	if len(r.failures) != 1 {
		t.Errorf("got failures %q, want one", r.failures)
	}
}

func setUpdate(t *testing.T, on bool) {
	t.Helper()
	before := flag.Lookup("update").Value.String()
	set := func(value string) {
		if err := flag.Set("update", value); err != nil {
			t.Fatal(err)
		}
	}
	set(fmt.Sprint(on))
	t.Cleanup(func() { set(before) })
}

// recorder keeps failures instead of failing.
type recorder struct {
	testing.TB
	failures []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
