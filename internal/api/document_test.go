package api_test

import (
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/golden"
)

// The committed document is what the code says.
func TestDocument(t *testing.T) {
	t.Parallel()
	s := start(t)
	a := s.send(t, request{method: http.MethodGet, target: "/openapi.yaml", header: http.Header{}})
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("%d %v", a.status, a.header)
	}
	golden.Check(t, filepath.Join("..", "..", "docs", "openapi.yaml"), []byte(a.body))
	if !strings.HasPrefix(a.body, "components:") || !strings.Contains(a.body, "openapi: 3.1.0") {
		t.Errorf("%.200s", a.body)
	}
}

// The page to browse the document loads nothing but what this server has.
func TestPage(t *testing.T) {
	t.Parallel()
	s := start(t)
	page := s.send(t, request{method: http.MethodGet, target: "/docs/", header: http.Header{}})
	if page.status != http.StatusOK || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html") ||
		!strings.Contains(page.header.Get("Content-Security-Policy"), "default-src 'self'") {
		t.Fatalf("%d %v", page.status, page.header)
	}
	found := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.body, -1)
	if len(found) < 4 || !strings.Contains(page.body, "/openapi.yaml") {
		t.Errorf("the page loads %v", found)
	}
	for _, f := range found {
		if !strings.HasPrefix(f[1], "/docs/") {
			t.Errorf("the page loads %s", f[1])
			continue
		}
		if a := s.send(t, request{method: http.MethodGet, target: f[1], header: http.Header{}}); a.status != http.StatusOK || len(a.body) < 100 {
			t.Errorf("%s: %d, %d bytes", f[1], a.status, len(a.body))
		}
	}
}
