// Command xmlcurl answers FreeSWITCH's mod_xml_curl: directory, dialplan and configuration, one question at a time,
// from PostgreSQL. Its settings are in docs/settings.md.
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
		fmt.Fprintln(os.Stderr, "xmlcurl:", err)
		stop()
		os.Exit(1)
	}
}
