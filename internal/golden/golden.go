// Package golden compares what a program made with a file in testdata, byte for byte. Only tests may import it.
//
// When a difference is intended, the tests of that package rewrite their files with the flag -update; the change is
// then reviewed as a diff of those files:
//
//	go test ./internal/xmlcurl -update
package golden

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files with what the tests got")

// Check compares got with the file at path, which is relative to the directory of the tested package, and fails the
// test where they differ; the test goes on, so that one run shows every difference. With -update it writes the file
// instead, and the directories above it.
func Check(t testing.TB, path string, got []byte) {
	t.Helper()
	want, err := os.ReadFile(path) //nolint:gosec // The path is the test's own.
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		t.Errorf("read golden file: %v", err)
		return
	}
	if !missing && bytes.Equal(got, want) {
		return
	}
	if *update {
		write(t, path, got)
		return
	}
	if missing {
		t.Errorf("golden file %s does not exist; -update makes it, with:\n%s", path, got)
		return
	}
	t.Errorf("%s differs (-want +got); -update accepts what the test got:\n%s", path, cmp.Diff(string(want), string(got)))
}

func write(t testing.TB, path string, got []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Errorf("update golden file: %v", err)
		return
	}
	// Readable by all, as every file of the source tree.
	if err := os.WriteFile(path, got, 0o644); err != nil { //nolint:gosec // See above.
		t.Errorf("update golden file: %v", err)
	}
}
