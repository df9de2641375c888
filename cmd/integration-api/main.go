// Command integration-api is the door of W3 and of operators: it makes the switches obey, manages them, makes keys, migrates
// the database and seeds demo tenants; see integration-api help. Its settings are in docs/settings.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := run(ctx, os.Args[1:], os.Environ(), streams{os.Stdin, os.Stdout, os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, "integration-api:", err)
		stop()
		os.Exit(1)
	}
}
