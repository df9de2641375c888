package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
)

// notHere answers what is no operation: 405 with Allow if its path takes other methods, or else 404. It comes last,
// behind authentication.
func (a *API) notHere(c *fiber.Ctx) error {
	allow := allowed(a.huma.OpenAPI().Paths, c.Path())
	if len(allow) == 0 {
		return newProblem(codeNotFound)
	}
	p := newProblem(codeMethodNotAllowed)
	p.allow = allow
	return p
}

// allowed returns the methods that the operations of a path have, in order.
func allowed(items map[string]*huma.PathItem, path string) []string {
	var methods []string
	for template, item := range items {
		if !fits(template, path) {
			continue
		}
		for method, op := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodPut: item.Put, http.MethodPost: item.Post, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
		} {
			if op != nil {
				methods = append(methods, method)
			}
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods)
}

// fits tells whether a path is of a template, as the router would: a parameter is one part that is not empty, letters
// may be of either case, and a slash may follow.
func fits(template, path string) bool {
	want, got := strings.Split(template, "/"), strings.Split(strings.TrimSuffix(path, "/"), "/")
	return slices.EqualFunc(want, got, func(want, got string) bool {
		return strings.HasPrefix(want, "{") && got != "" || strings.EqualFold(want, got)
	})
}
