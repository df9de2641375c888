// Command integration-api is the door of W3 and of operators: it makes the switches obey, manages them, makes keys,
// migrates the database and seeds demo tenants; see integration-api help. Its settings are in docs/settings.md.
package main

import (
	"context"
	"os"

	"github.com/edgvoip/edgvoip/internal/entry"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(entry.Run("integration-api", func(ctx context.Context) error {
		return run(ctx, os.Args[1:], os.Environ(), streams{os.Stdin, os.Stdout, os.Stderr})
	}))
}
