package xmlcurl_test

import (
	"net/http"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/edgvoip/edgvoip/internal/storetest"
)

// A captured request from its bytes to the bytes of its answer, everything but the network: fiber's routing,
// credentials, the form, the decision and the document, from a store in memory. docs/performance.md has the numbers to
// stay under.
func BenchmarkLookup(b *testing.B) {
	for _, bc := range []struct{ name, body string }{
		{"directory", captured(b, bodyRegister)},
		{"dialplan", captured(b, bodyCall)},
		{"dialplan-did", captured(b, bodyCarrier)},
		{"dialplan-public", captured(b, bodyCall, "Hunt-Destination-Number=+393331234567")},
		{"configuration-sofia", captured(b, "configuration-sofia-config_sofia")},
	} {
		b.Run(bc.name, func(b *testing.B) {
			s, _ := newServer(b, storetest.Scene(b))
			handler := s.App().Handler()
			auth := request(b, http.MethodPost, "/xml", "").Header.Get("Authorization")
			var ctx fasthttp.RequestCtx
			b.ReportAllocs()
			for b.Loop() {
				ctx.Request.Reset()
				ctx.Response.Reset()
				ctx.Request.Header.SetMethod(http.MethodPost)
				ctx.Request.SetRequestURI("/xml")
				ctx.Request.Header.SetContentType("application/x-www-form-urlencoded")
				ctx.Request.Header.Set("Authorization", auth)
				ctx.Request.SetBodyString(bc.body)
				handler(&ctx)
			}
			if code := ctx.Response.StatusCode(); code != http.StatusOK {
				b.Fatalf("status %d", code)
			}
		})
	}
}
