package httpd_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gofiber/fiber/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// Each way that a request can end has its status, tells the client no more than it may know, and the log what happened.
func TestRequests(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		path   string
		status int
		body   string // in the answer
		log    string // in the one line; empty means no line
	}{
		{"/healthz", 200, "ok", ""},
		{"/readyz", 503, "internal error", `"level":"ERROR"`},
		{"/metrics", 200, "", ""},
		{"/fine", 200, "fine", `"colour":"blue"`},
		{"/refused", 418, "no tea", `"level":"WARN"`},
		{"/fault", 500, "internal error", "the disk is on fire"},
		{"/panic", 500, "internal error", "goroutine"},
		{"/late", 500, "internal error", context.DeadlineExceeded.Error()},
		{"/nowhere/s3cret", 404, "not found", `"status":404`},
	} {
		t.Run(tc.path, func(t *testing.T) {
			t.Parallel()
			var lines strings.Builder
			log, err := telemetry.NewLogger(&lines, telemetry.FormatJSON, "info")
			if err != nil {
				t.Fatal(err)
			}
			s := httpd.New(httpd.Options{
				Name: "test", BodyLimit: 1 << 10, RequestTimeout: 20 * time.Millisecond, Registry: prometheus.NewRegistry(), Log: log,
				Ready: func(context.Context) error { return errors.New("the database is away") },
			})
			s.Handle(http.MethodGet, "/fine", func(c *fiber.Ctx) error {
				httpd.EventOf(c).Add("colour", "blue")
				return c.SendString("fine")
			})
			s.Handle(http.MethodGet, "/refused", func(*fiber.Ctx) error { return &httpd.Error{Status: http.StatusTeapot, Reason: "no tea"} })
			s.Handle(http.MethodGet, "/fault", func(*fiber.Ctx) error { return errors.New("the disk is on fire") })
			s.Handle(http.MethodGet, "/panic", func(*fiber.Ctx) error { panic("argh") })
			s.Handle(http.MethodGet, "/late", func(c *fiber.Ctx) error {
				<-c.UserContext().Done()
				return c.UserContext().Err()
			})
			resp, err := s.App().Test(httptest.NewRequestWithContext(t.Context(), http.MethodGet, tc.path, nil), -1)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			b, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			body := string(b)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.body) {
				t.Errorf("%d %s, want %d with %s", resp.StatusCode, body, tc.status, tc.body)
			}
			for _, inside := range []string{"fire", "argh", "goroutine", "s3cret", "away"} {
				if strings.Contains(body, inside) {
					t.Errorf("the client is told %s: %s", inside, body)
				}
			}
			id := resp.Header.Get("X-Request-Id")
			switch n := strings.Count(lines.String(), "\n"); {
			case tc.log == "" && n != 0:
				t.Errorf("logged: %s", lines.String())
			case tc.log != "" && (n != 1 || !strings.Contains(lines.String(), tc.log) || !strings.Contains(lines.String(), id)):
				t.Errorf("logged, want one line with %s and %s: %s", tc.log, id, lines.String())
			}
		})
	}
}

// A link to a recording is good for whoever has its signature: no part of that is in the log, however the link is
// written.
func TestSignaturesAreNotLogged(t *testing.T) {
	t.Parallel()
	const id, signature = "6f1f45e0-7b12-4d2e-8a3c-0242ac120002", "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF"
	for _, path := range []string{
		"/recordings/" + id + "/" + id + "/1795233712/" + signature, "//Recordings/" + signature, "/recordings/%30" + signature[1:], "/x" + signature[:60],
		"/recordings/" + strings.ReplaceAll(signature, "0", "%30"),
	} {
		var lines strings.Builder
		log, err := telemetry.NewLogger(&lines, telemetry.FormatJSON, "info")
		if err != nil {
			t.Fatal(err)
		}
		s := httpd.New(httpd.Options{Name: "test", BodyLimit: 1 << 10, RequestTimeout: time.Second, Registry: prometheus.NewRegistry(), Log: log})
		resp, err := s.App().Test(httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil), -1)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if text := lines.String(); !strings.Contains(text, `"path":"/`) || strings.Contains(text, signature[8:16]) {
			t.Errorf("%s: %s", path, text)
		}
	}
}
