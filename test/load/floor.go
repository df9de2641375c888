package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/gofiber/fiber/v2"

	"github.com/edgvoip/edgvoip/internal/entry"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
)

// floorTimeout is the bound on a request that cmd/xmlcurl has by default.
const floorTimeout = 1500 * time.Millisecond

// floor is the fastest that an answer can be: xmlcurl's HTTP server, set up as cmd/xmlcurl sets it up, with everything
// that is done for any request and nothing that is done for a lookup. It answers a constant document.
func floor(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("floor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	file := flags.String("document", "", "file that holds the answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	document, err := os.ReadFile(*file)
	if err != nil {
		return fmt.Errorf("-document: %w", err)
	}
	log, err := telemetry.NewLogger(stderr, telemetry.FormatJSON, "info")
	if err != nil {
		return err
	}
	server := httpd.New(httpd.Options{
		Name: "floor", BodyLimit: xmlcurl.BodyLimit, RequestTimeout: floorTimeout,
		Ready: func(context.Context) error { return nil }, Registry: telemetry.NewRegistry(), Log: log,
	})
	server.Handle(fiber.MethodPost, "/xml", func(c *fiber.Ctx) error {
		httpd.EventOf(c).Level = slog.LevelDebug
		c.Set(fiber.HeaderContentType, "text/xml; charset=utf-8")
		return c.Send(document)
	})
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer entry.CollectRarely()() // as cmd/xmlcurl does: otherwise it would not be one
	log.InfoContext(ctx, "listening", "addr", l.Addr().String())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return errors.Join(server.Shutdown(context.WithoutCancel(ctx)), <-failed)
	}
}
