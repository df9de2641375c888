// Testcount runs go test and ends in one plain line that says what ran: "123 passed, 0 failed, 2 skipped". Before it
// come the output of every failed test and build, the reason of every skipped test, and what tests measured: those
// attributes of theirs whose key is "figure" (testing.T.Attr).
//
//	testcount [argument of go test]...
//
// It fails when anything failed, and also when nothing ran: a run that tests nothing must not look like success.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

func main() {
	// go test is told to stop by the same signal, and its end is ours.
	signal.Ignore(syscall.SIGINT)
	if err := run(context.Background(), ".", os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, errTests) {
			fmt.Fprintln(os.Stderr, "testcount:", err)
		}
		os.Exit(1)
	}
}

// errTests says that the count, which was written already, is not one of success.
var errTests = errors.New("tests failed, or none ran")

// run tests the packages that args name, seen from the directory dir.
func run(ctx context.Context, dir string, args []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...) //nolint:gosec // Arguments of go test.
	cmd.Dir = dir
	cmd.Stderr = stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c := newCount()
	readErr := c.read(events, stdout)
	waitErr := cmd.Wait()
	if readErr != nil {
		return readErr
	}
	return c.report(stdout, waitErr)
}

// event is one line of go test -json; see go doc cmd/test2json. Build events carry ImportPath instead of Package.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Elapsed     float64
	Output      string
	FailedBuild string
	Key, Value  string // of an attribute
}

// result is what became of one test, or of a package as a whole (test is empty).
type result struct {
	pkg, test string
	action    string // The last of run, pass, fail, skip; empty for a package that started.
	output    strings.Builder
	figures   []string
	parent    bool // Has subtests; then these are counted, not the test around them.
	failedSub bool // Has a failed subtest or, for a package, a failed test.
}

type count struct {
	results []*result
	byName  map[string]*result
	builds  map[string]*strings.Builder // By import path: the compiler's words.
	order   []string                    // Of builds.
}

func newCount() *count {
	return &count{byName: map[string]*result{}, builds: map[string]*strings.Builder{}}
}

// read takes events until the end and writes a line for each package that is done.
func (c *count) read(events io.Reader, progress io.Writer) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				// The go command may say something in plain text; it is for the reader.
				e = event{Action: "build-output", Output: string(line)}
			}
			c.add(e, progress)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the output of go test: %w", err)
		}
	}
}

func (c *count) add(e event, progress io.Writer) {
	switch e.Action {
	case "build-output", "build-fail":
		if c.builds[e.ImportPath] == nil {
			c.builds[e.ImportPath] = &strings.Builder{}
			c.order = append(c.order, e.ImportPath)
		}
		c.builds[e.ImportPath].WriteString(e.Output)
		return
	}
	r := c.result(e.Package, e.Test)
	switch e.Action {
	case "output":
		r.output.WriteString(e.Output)
	case "attr":
		if e.Key == "figure" {
			r.figures = append(r.figures, e.Value)
		}
	case "run":
		r.action = e.Action
		// Only what stands before the last slash can be a parent that ran.
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
			c.result(e.Package, e.Test[:i]).parent = true
		}
	case "pass", "fail", "skip":
		r.action = e.Action
		if e.Action == "fail" {
			c.markAbove(e.Package, e.Test)
		}
		if e.Test == "" && e.Action != "skip" {
			fmt.Fprintf(progress, "%s\t%s\t%.1fs\n", e.Action, e.Package, e.Elapsed)
		}
	}
}

func (c *count) result(pkg, test string) *result {
	key := pkg + " " + test
	r := c.byName[key]
	if r == nil {
		r = &result{pkg: pkg, test: test}
		c.byName[key] = r
		c.results = append(c.results, r)
	}
	return r
}

// markAbove tells the tests around a failed one, and its package, that the failure has a name.
func (c *count) markAbove(pkg, test string) {
	for test != "" {
		i := max(strings.LastIndexByte(test, '/'), 0)
		test = test[:i]
		c.result(pkg, test).failedSub = true
	}
}

// report writes failures, skips and the count. runErr is how the go command ended.
func (c *count) report(w io.Writer, runErr error) error {
	// A test or package without an end was cut off: by a panic, a time-out, a signal.
	for _, r := range slices.Backward(c.results) {
		if r.action == "run" || r.action == "" && r.test == "" {
			r.action = "fail"
			r.output.WriteString("did not finish\n")
			c.markAbove(r.pkg, r.test)
		}
	}

	var passed, failed int
	var skipped []*result
	for _, r := range c.results {
		switch {
		case r.action == "fail" && !r.failedSub:
			failed++
			fmt.Fprintf(w, "\nFAILED %s\n%s", r.name(), indent(r.output.String()))
		case r.action == "fail":
			// Counted by the name of what failed inside; but a panic, for one, is told in the output of what is around
			// it.
			if output := indent(r.output.String()); output != "" {
				fmt.Fprintf(w, "\nOutput of %s\n%s", r.name(), output)
			}
		case r.test == "" || r.parent:
		case r.action == "pass":
			passed++
		case r.action == "skip":
			skipped = append(skipped, r)
		}
	}
	for _, path := range c.order {
		fmt.Fprintf(w, "\nBuild of %s\n%s", path, indent(c.builds[path].String()))
	}
	c.reportFigures(w)
	for i, r := range skipped {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "SKIPPED %s: %s\n", r.name(), reason(r.output.String()))
	}
	if runErr != nil && failed == 0 {
		failed++
		fmt.Fprintf(w, "\nFAILED go test: %v\n", runErr)
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", passed, failed, len(skipped))
	if failed > 0 || passed == 0 {
		return errTests
	}
	return nil
}

// reportFigures writes what tests measured.
func (c *count) reportFigures(w io.Writer) {
	for _, r := range c.results {
		for i, figure := range r.figures {
			if i == 0 {
				fmt.Fprintf(w, "\nMEASURED %s\n", r.name())
			}
			fmt.Fprintf(w, "    %s\n", figure)
		}
	}
}

func (r *result) name() string {
	return strings.TrimSpace(r.pkg + " " + r.test)
}

// indent sets output apart, without what go test says about its own progress.
func indent(output string) string {
	var b strings.Builder
	for line := range strings.Lines(output) {
		line = strings.TrimSuffix(line, "\n")
		if !chatter.MatchString(line) {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}

var chatter = regexp.MustCompile(`^\s*(=== |--- (PASS|FAIL|SKIP): |PASS$|FAIL$|FAIL\t|exit status \d+$|$)`)

// reason is the first thing that a skipped test said for itself.
func reason(output string) string {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		// file_test.go:12: reason
		if _, after, ok := strings.Cut(line, ": "); ok && strings.Contains(line, ".go:") {
			return after
		}
		return line
	}
	return "no reason given"
}
