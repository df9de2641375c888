package api_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
)

var (
	documented = regexp.MustCompile(`(?m)^  (/\S+):$|^    (get|put|post|patch|delete):$|^\w+:$`)
	parameter  = regexp.MustCompile(`\{(\w+)\}`)
)

// operations returns the methods of each path below another that the document has.
func operations(t *testing.T, s *scene, below string) map[string][]string {
	t.Helper()
	a := s.send(t, request{method: http.MethodGet, target: "/openapi.yaml", header: http.Header{}})
	all, path := map[string][]string{}, ""
	for _, m := range documented.FindAllStringSubmatch(a.body, -1) {
		if m[2] == "" {
			path = m[1] // none of another part of the document
		} else if strings.HasPrefix(path, below+"/") {
			all[path] = append(all[path], strings.ToUpper(m[2]))
		}
	}
	return all
}

// methodsAt returns the methods of all paths that a target is of, in order: some is of two, as a name stands where
// others have an id.
func methodsAt(paths map[string][]string, target string) []string {
	var all []string
	for path, methods := range paths {
		if regexp.MustCompile("^" + parameter.ReplaceAllString(path, "[^/]+") + "$").MatchString(target) {
			all = append(all, methods...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Every path says which methods it has to whoever tries another, after he was let in; and what is no path is 404 for
// all.
func TestMethodNotAllowed(t *testing.T) {
	t.Parallel()
	s := start(t)
	w, o := s.tenant(t, "shop"), s.operator(t, "anna", 0)
	want := refusal(t, s)
	try := func(method, target string) answer {
		if path, ours := strings.CutPrefix(target, api.BasePath); ours {
			return w.do(t, method, path, "")
		}
		return o.do(t, method, strings.TrimPrefix(target, api.AdminPath), "")
	}
	paths := operations(t, s, "/api/v1")
	if len(paths) < 30 {
		t.Fatalf("the document has %d paths", len(paths))
	}
	for path := range paths {
		target := parameter.ReplaceAllString(path, uuid.NewString())
		methods := methodsAt(paths, target)
		allow := strings.Join(methods, ", ")
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions} {
			if slices.Contains(methods, method) {
				continue
			}
			a := try(method, target)
			if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != allow || method != http.MethodHead && a.code(t) != "method_not_allowed" {
				t.Errorf("%s %s: %d, Allow: %q, want 405 with %q", method, path, a.status, a.header.Get("Allow"), allow)
			}
			if a := s.send(t, request{method: method, target: target, header: http.Header{}}); a.status != http.StatusUnauthorized || method != http.MethodHead && face(a) != want {
				t.Errorf("%s %s without credentials: %d %s", method, path, a.status, a.body)
			}
		}
		if a := try(http.MethodPut, target+"/no/where/at/all"); a.status != http.StatusNotFound || a.header.Get("Allow") != "" {
			t.Errorf("behind %s: %d %s", path, a.status, a.body)
		}
	}
	for _, target := range []string{api.BasePath + "/nowhere", api.AdminPath + "/nowhere", api.BasePath + "/extensions//stores"} {
		if a := try(http.MethodGet, target); a.status != http.StatusNotFound || a.header.Get("Allow") != "" {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}
