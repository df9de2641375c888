// Package settingstest holds what the tests of each process's settings share.
package settingstest

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// row is a line of a table of docs/settings.md: the setting and its default.
var row = regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([^|]+) \\|")

// Documented checks that a document has a row for each setting of a process, T, with its default, and of the settings
// whose names have one of the prefixes none that the process does not have.
func Documented[T any](t *testing.T, path string, prefixes ...string) {
	t.Helper()
	doc, err := os.ReadFile(path) //nolint:gosec // a test names it
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(doc), -1) {
		rows[m[1]] = m[2]
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[T]()) {
		if f.Anonymous {
			continue
		}
		name, byDefault := f.Tag.Get("env"), f.Tag.Get("envDefault")
		text, ok := rows[name]
		if !ok || byDefault != "" && !strings.Contains(text, "`"+byDefault+"`") || byDefault == "" && !strings.HasPrefix(text, "none") {
			t.Errorf("%s with default %q is documented as %q", name, byDefault, text)
		}
		delete(rows, name)
	}
	for name := range rows {
		for _, prefix := range prefixes {
			if strings.HasPrefix(name, prefix) {
				t.Errorf("%s is documented and does not exist", name)
			}
		}
	}
}

// Refused checks that a process that is started with a wrong setting ends with a sentence that names it and keeps
// secrets, which are called s3cret in it, to itself. Each of the list is a setting and the changes, as KEY=value, that
// make it wrong.
func Refused(t *testing.T, start func(changes ...string) error, list [][]string) {
	t.Helper()
	for _, wrong := range list {
		setting, changes := wrong[0], wrong[1:]
		err := start(changes...)
		if err == nil || !strings.Contains(err.Error(), setting) {
			t.Errorf("%v: %v, want a sentence that names %s", changes, err, setting)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: the error shows a secret: %v", changes, err)
		}
	}
}
