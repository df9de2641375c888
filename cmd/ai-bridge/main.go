// Command ai-bridge takes calls from FreeSWITCH on the same machine and connects them to W3's AI voice agents. Its settings are in
// docs/settings.md, the contract with W3's voice gateway in docs/ai-gateway.md.
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
	if err := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "ai-bridge:", err)
		stop()
		os.Exit(1)
	}
}
