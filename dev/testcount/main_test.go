package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	t.Parallel()
	const head = "package x\n\nimport \"testing\"\n\n"
	for _, test := range []struct {
		name, source string
		wantFail     bool
		wantLast     string
		want         []string
	}{
		{
			name: "subtests count, not the test around them",
			source: head + `func TestA(t *testing.T) { t.Run("b", func(t *testing.T) {}); t.Run("c/d", func(t *testing.T) {}) }
func TestE(t *testing.T) {}`,
			wantLast: "3 passed, 0 failed, 0 skipped",
		},
		{
			name: "skip with its reason",
			source: head + `func TestA(t *testing.T) { t.Log(); t.Run("b", func(t *testing.T) { t.Skip("no switch: install one") }) }
func TestE(t *testing.T) {}`,
			wantLast: "1 passed, 0 failed, 1 skipped",
			want:     []string{"SKIPPED example TestA/b: no switch: install one"},
		},
		{
			name:     "what was measured",
			source:   head + `func TestA(t *testing.T) { t.Attr("figure", "3 ms"); t.Attr("other", "4 ms"); t.Log("5 ms") }`,
			wantLast: "1 passed, 0 failed, 0 skipped",
			want:     []string{"MEASURED example TestA\n    3 ms\n"},
		},
		{
			name:     "failure in a subtest is one failure",
			source:   head + `func TestA(t *testing.T) { t.Run("b", func(t *testing.T) { t.Error("broken pipe") }); t.Run("c", func(t *testing.T) {}) }`,
			wantFail: true,
			wantLast: "1 passed, 1 failed, 0 skipped",
			want:     []string{"FAILED example TestA/b", "broken pipe"},
		},
		{
			name:     "failure beside passing subtests",
			source:   head + `func TestA(t *testing.T) { t.Run("b", func(t *testing.T) {}); t.Error("after") }`,
			wantFail: true,
			wantLast: "1 passed, 1 failed, 0 skipped",
			want:     []string{"FAILED example TestA\n", "after"},
		},
		{
			name:     "panic",
			source:   head + `func TestA(t *testing.T) { panic("out of cheese") }`,
			wantFail: true,
			wantLast: "0 passed, 1 failed, 0 skipped",
			want:     []string{"out of cheese"},
		},
		{
			name:     "exit in the middle",
			source:   "package x\n\nimport (\"os\"; \"testing\")\n\nfunc TestA(t *testing.T) { os.Exit(0) }",
			wantFail: true,
			wantLast: "0 passed, 1 failed, 0 skipped",
		},
		{
			name:     "failure outside every test",
			source:   "package x\n\nimport (\"os\"; \"testing\")\n\nfunc TestA(t *testing.T) {}\nfunc TestMain(m *testing.M) { m.Run(); println(\"leak\"); os.Exit(3) }",
			wantFail: true,
			wantLast: "1 passed, 1 failed, 0 skipped",
			want:     []string{"FAILED example\n", "leak"},
		},
		{
			name:     "does not compile",
			source:   head + `func TestA(t *testing.T) { undefined() }`,
			wantFail: true,
			wantLast: "0 passed, 1 failed, 0 skipped",
			want:     []string{"undefined: undefined"},
		},
		{
			name:     "does not parse",
			source:   head + `func TestA(t *testing.T) {`,
			wantFail: true,
			wantLast: "0 passed, 1 failed, 0 skipped",
			want:     []string{"expected '}'"},
		},
		{
			name:     "nothing to run",
			source:   head + `func helper(t *testing.T) {}`,
			wantFail: true,
			wantLast: "0 passed, 0 failed, 0 skipped",
		},
		{
			name:     "everything skipped",
			source:   head + `func TestA(t *testing.T) { t.SkipNow() }`,
			wantFail: true,
			wantLast: "0 passed, 0 failed, 1 skipped",
			want:     []string{"SKIPPED example TestA: no reason given"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module example\n\ngo 1.26\n")
			write(t, filepath.Join(dir, "x_test.go"), test.source)
			var out strings.Builder
			err := run(t.Context(), dir, []string{"./..."}, &out, &out)
			if got := errors.Is(err, errTests); got != test.wantFail || err != nil && !got {
				t.Errorf("got error %v, want a failure: %t", err, test.wantFail)
			}
			lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
			if last := lines[len(lines)-1]; last != test.wantLast {
				t.Errorf("got last line %q, want %q", last, test.wantLast)
			}
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			if t.Failed() {
				t.Log(out.String())
			}
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
