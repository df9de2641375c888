// Package entry is what the programs under cmd begin and end with. It knows nothing of what they do.
package entry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Run runs a program and returns what its process ends with: 1 if it failed, after its error was written to the
// standard error. ctx ends with the first signal to end; a second one ends the process at once.
func Run(name string, run func(ctx context.Context) error) (code int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if err := run(ctx); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, name+":", err) // if nobody can read it, nobody can be told
		return 1
	}
	return 0
}

// Words answers the arguments of a server, which takes none but version and help. done is true if there were any, and
// the program is to return err.
func Words(args []string, usage, version string, stdout, stderr io.Writer) (done bool, err error) {
	switch {
	case len(args) == 0:
		return false, nil
	case len(args) == 1 && args[0] == "version":
		_, err = fmt.Fprintln(stdout, version)
	case len(args) == 1 && (args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help"):
		_, err = io.WriteString(stdout, usage)
	default:
		_, _ = io.WriteString(stderr, usage)
		err = errors.New("unknown argument")
	}
	return true, err
}
