// Package deptest holds the rules of who may import whom, as a test over the whole module. It sees what a linter of
// single files cannot: a forbidden package that arrives through another one.
package deptest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/edgvoip/edgvoip/"

// goPackage is what go list tells of a package.
type goPackage struct {
	Dir, ImportPath                    string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
	Deps                               []string // Imports and theirs, to the end; without tests.

	name string // Import path without the module's.
}

// domain lists the packages that hold what the program is about. They must work, and be tested, without a network, a
// database or a switch.
var domain = []string{
	"directory", "dialplan", "trunk", "numbering", "schedule", "templates", "node", "integration", "webhook", "cdr", "aisession",
	"internal/fstext", "internal/fsxml", "internal/secret", "internal/invalid",
}

// technology lists the modules, by prefix of import path, that belong to the edges of the program. The standard
// library's net/http and database/sql are left to depguard, which sees direct imports only: harmless modules depend on
// parts of both.
var technology = []string{
	"github.com/gofiber/", "github.com/valyala/fasthttp", "github.com/jmoiron/sqlx", "github.com/lib/pq",
	"github.com/pressly/goose", "github.com/percipia/eslgo", "github.com/prometheus/",
}

// edges lists our own packages at the rim, which domain packages must not know.
var edges = []string{
	"internal/xmlcurl", "internal/api", "internal/httpd", "internal/postgres", "internal/readmodel", "internal/esl",
	"internal/fleet", "internal/feed", "internal/sender", "internal/ingest", "internal/records", "internal/aibridge", "internal/telemetry",
	"internal/background", "internal/settings", "internal/entry",
}

// testHelpers may be imported by tests and by each other only.
var testHelpers = []string{
	"internal/testdb", "internal/golden", "internal/memstore", "internal/storetest", "internal/settingstest", "internal/fakefs",
	"internal/freeport", "internal/testlog",
}

// leaves are imported by tests of every package, so they can import none of them.
var leaves = []string{"internal/testdb", "internal/golden", "internal/freeport", "internal/testlog"}

func TestDomainPackagesKnowNoTechnology(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if !within(p.name, domain) {
			continue
		}
		for _, dep := range p.Deps {
			if slices.ContainsFunc(technology, func(prefix string) bool { return strings.HasPrefix(dep, prefix) }) {
				t.Errorf("%s depends on %s, which belongs to the edges", p.name, dep)
			}
			if own, ok := strings.CutPrefix(dep, module); ok && within(own, edges) {
				t.Errorf("%s depends on %s: imports run from the edges to the domain", p.name, own)
			}
		}
	}
}

// Domain packages that speak of the same call do so through identifiers, not through each other.
func TestDomainPackagesKeepApart(t *testing.T) {
	t.Parallel()
	forbidden := map[string][]string{
		"directory": {"dialplan", "trunk"},
		"trunk":     {"directory", "dialplan"},
	}
	for _, p := range packages(t) {
		for _, dep := range p.Deps {
			if own, ok := strings.CutPrefix(dep, module); ok && within(own, forbidden[p.name]) {
				t.Errorf("%s depends on %s", p.name, own)
			}
		}
	}
}

func TestOnlyPostgresKnowsSQL(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if p.name == "internal/postgres" || p.name == "internal/testdb" {
			continue
		}
		for _, path := range p.Imports {
			if strings.HasPrefix(path, "github.com/jmoiron/sqlx") || strings.HasPrefix(path, "github.com/lib/pq") {
				t.Errorf("%s imports %s: all SQL is in internal/postgres", p.name, path)
			}
		}
	}
}

func TestNobodyImportsCommands(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, path := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			own, ok := strings.CutPrefix(path, module)
			// A command's external test package belongs to it.
			if ok && own != p.name && within(own, []string{"cmd", "dev"}) {
				t.Errorf("%s imports %s: commands are wiring, nobody builds on them", p.name, own)
			}
		}
	}
}

func TestTestHelpersStayInTests(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if within(p.name, testHelpers) {
			continue
		}
		for _, path := range p.Imports {
			if own, ok := strings.CutPrefix(path, module); ok && within(own, testHelpers) {
				t.Errorf("%s imports %s outside its tests", p.name, own)
			}
			if path == "testing" {
				t.Errorf("%s imports testing outside its tests", p.name)
			}
		}
	}
}

func TestLeavesImportNothingOfOurs(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		if !within(p.name, leaves) {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, module) {
				t.Errorf("%s depends on %s: a helper of every package's tests can know none of them", p.name, dep)
			}
		}
	}
}

func TestEveryPackageHasOneComment(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		files := p.GoFiles
		if len(files) == 0 {
			files = slices.Concat(p.TestGoFiles, p.XTestGoFiles)
		}
		var commented []string
		for _, file := range files {
			syntax, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Error(err)
				continue
			}
			if syntax.Doc != nil {
				commented = append(commented, file)
			}
		}
		if len(files) > 0 && len(commented) != 1 {
			t.Errorf("%s has %d package comments, want 1: %q", p.name, len(commented), commented)
		}
	}
}

// within says whether name is one of the roots or lies below one.
func within(name string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool {
		return name == root || strings.HasPrefix(name, root+"/")
	})
}

// packages lists every package of the module.
func packages(t *testing.T) []goPackage {
	t.Helper()
	list, err := listPackages()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// listPackages asks once for all tests of this binary. With -e go list goes on past packages that do not compile: those
// are the compiler's to report.
var listPackages = sync.OnceValues(func() ([]goPackage, error) {
	cmd := exec.CommandContext(context.Background(), "go", "list", "-e", "-json", module+"...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, &stderr)
	}
	var list []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the answer of go list: %w", err)
		}
		p.name = strings.TrimPrefix(p.ImportPath, module)
		list = append(list, p)
	}
})
