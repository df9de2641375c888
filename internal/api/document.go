package api

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gofiber/fiber/v2"
	"github.com/gofiber/fiber/v2/middleware/adaptor"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"
)

// version of the contract, not of the program.
const version = "1.0.0"

// config is huma's, without what it would load from elsewhere or add to answers.
func config() huma.Config {
	c := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "edgvoip integration API", Version: version, Description: description()},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"bearer":    {Type: "http", Scheme: "bearer", Description: "The tenant's bearer token."},
					"timestamp": {Type: "apiKey", In: "header", Name: headerTimestamp, Description: "Unix seconds, decimals allowed, at most 300 s from our clock."},
					"signature": {
						Type: "apiKey", In: "header", Name: headerSignature,
						Description: "HMAC-SHA256 in lower-case hexadecimal, with the tenant's signing secret, over X-Timestamp, method, path with query and body, one after the other.",
					},
					"operator": {Type: "http", Scheme: "bearer", Description: "An operator's token."},
				},
			},
			Tags: []*huma.Tag{
				{Name: "integration", Description: "W3 provisions extensions."},
				{Name: "admin", Description: "Operators manage tenants."},
				{Name: "webhooks", Description: "What W3 is told."},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	return c
}

// description is the text at the head of the document, with the catalogue of problems.
func description() string {
	var b strings.Builder
	b.WriteString(`W3 owns tenants, domains and extensions, and provisions them here.

Each request but GET /health carries three headers: Authorization: Bearer and the token, X-Timestamp, and X-Signature. A
signature is good once: two equal requests need different timestamps, for which decimals of a second are allowed.

A write may carry Idempotency-Key. Its answer is kept for 24 hours, in the transaction of the write; an answer that is no
success is not kept.

Every answer that is no success is a problem (RFC 9457). Its code is one of:

| status | code | meaning |
|---|---|---|
`)
	codes := make([]Code, 0, len(kinds))
	for c := range kinds {
		codes = append(codes, c)
	}
	slices.SortFunc(codes, func(x, y Code) int {
		if d := kinds[x].status - kinds[y].status; d != 0 {
			return d
		}
		return strings.Compare(string(x), string(y))
	})
	for _, c := range codes {
		fmt.Fprintf(&b, "| %d | `%s` | %s |\n", kinds[c].status, c, kinds[c].detail)
	}
	return b.String()
}

// docsPath is where the document can be browsed.
const docsPath = "/docs"

// docsPolicy lets the page load nothing from elsewhere. The page brings its start-up script in line.
const docsPolicy = "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

// registerDocs serves the document and a page to browse it, which needs nothing but this server.
func (a *API) registerDocs(app *fiber.App) {
	// Once: it takes a processor some milliseconds, and everybody may ask.
	document := sync.OnceValues(a.Document)
	app.Get("/openapi.yaml", a.limitAddress, func(c *fiber.Ctx) error {
		document, err := document()
		if err != nil {
			return err
		}
		c.Set(fiber.HeaderContentType, "application/yaml")
		return c.Send(document)
	})
	page := adaptor.HTTPHandler(v5emb.NewHandlerWithConfig(swgui.Config{
		Title: "edgvoip integration API", SwaggerJSON: "/openapi.yaml", BasePath: docsPath + "/",
	}))
	handler := func(c *fiber.Ctx) error {
		err := page(c)
		c.Set("Content-Security-Policy", docsPolicy)
		c.Set(fiber.HeaderXContentTypeOptions, "nosniff")
		return err
	}
	app.Get(docsPath, a.limitAddress, handler)
	app.Get(docsPath+"/*", a.limitAddress, handler)
}

// Document returns the OpenAPI 3.1 document, as YAML. The API must be on a server.
func (a *API) Document() ([]byte, error) {
	b, err := a.huma.OpenAPI().YAML()
	if err != nil {
		return nil, fmt.Errorf("openapi: %w", err)
	}
	return b, nil
}
