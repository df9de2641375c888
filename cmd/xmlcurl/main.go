// Command xmlcurl answers FreeSWITCH's mod_xml_curl: directory, dialplan and configuration, one question at a time,
// from PostgreSQL. Its settings are in docs/settings.md.
package main

import (
	"context"
	"os"

	"github.com/edgvoip/edgvoip/internal/entry"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(entry.Run("xmlcurl", func(ctx context.Context) error { return run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr) }))
}
