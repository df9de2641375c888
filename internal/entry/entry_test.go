package entry_test

import (
	"bytes"
	"testing"

	"github.com/edgvoip/edgvoip/internal/entry"
)

func TestWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		args           []string
		done, fails    bool
		stdout, stderr string
	}{
		{nil, false, false, "", ""},
		{[]string{"version"}, true, false, "v1\n", ""},
		{[]string{"help"}, true, false, "usage", ""},
		{[]string{"--help"}, true, false, "usage", ""},
		{[]string{"--nonsense"}, true, true, "", "usage"},
		{[]string{"version", "help"}, true, true, "", "usage"},
	} {
		var stdout, stderr bytes.Buffer
		done, err := entry.Words(tc.args, "usage", "v1", &stdout, &stderr)
		if done != tc.done || (err != nil) != tc.fails || stdout.String() != tc.stdout || stderr.String() != tc.stderr {
			t.Errorf("%v: %v, %v, printed %q and %q", tc.args, done, err, stdout.String(), stderr.String())
		}
	}
}
