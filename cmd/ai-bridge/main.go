// Command ai-bridge takes calls from FreeSWITCH on the same machine and connects them to W3's AI voice agents. Its
// settings are in docs/settings.md, the contract with W3's voice gateway in docs/ai-gateway.md.
package main

import (
	"context"
	"os"

	"github.com/edgvoip/edgvoip/internal/entry"
)

// version is set by the build.
var version = "dev"

func main() {
	os.Exit(entry.Run("ai-bridge", func(ctx context.Context) error { return run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr) }))
}
