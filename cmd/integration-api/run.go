package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	common "github.com/edgvoip/edgvoip/internal/settings"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

const usage = `integration-api, the door of W3 and of operators. Commands:

  keygen -id ID        print a line for SECRET_KEYS_FILE with a fresh key
  migrate              bring the database schema to this version
  seed                 create demo tenants; seed -help lists the options
  version              print the version
  help                 print this

Settings come from the environment, see docs/settings.md.
`

// settings are read from the environment. docs/settings.md describes each; a test keeps the two together.
type settings struct {
	common.Common

	DatabaseRole string `env:"DATABASE_ROLE" envDefault:"edgvoip_api"`
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		_, _ = io.WriteString(stderr, usage)
		return errors.New("no command")
	}
	command, args := args[0], args[1:]
	switch command {
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(stdout, usage)
		return err
	case "version":
		_, err := fmt.Fprintln(stdout, version)
		return err
	case "keygen":
		err := keygen(args, stdout, stderr)
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	case "migrate":
		if len(args) > 0 {
			return errors.New("migrate takes no arguments")
		}
		return withSettings(environ, stderr, func(s settings, log *slog.Logger) error { return migrate(ctx, s, log) })
	case "seed":
		o, err := parseSeed(args, stderr)
		if errors.Is(err, flag.ErrHelp) {
			return nil
		} else if err != nil {
			return err
		}
		return withSettings(environ, stderr, func(s settings, log *slog.Logger) error { return seed(ctx, o, s, log) })
	default:
		_, _ = io.WriteString(stderr, usage)
		return fmt.Errorf("unknown command %q", command)
	}
}

// withSettings reads and checks the settings for a command that works on the database.
func withSettings(environ []string, stderr io.Writer, f func(settings, *slog.Logger) error) error {
	s, err := common.Parse[settings](environ)
	if err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	log, err := telemetry.NewLogger(stderr, s.LogFormat, s.LogLevel)
	if err != nil {
		return err
	}
	return f(s, log)
}

func keygen(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("keygen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	id := flags.String("id", "k1", "name of the key, kept beside everything sealed with it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("keygen takes no arguments but options")
	}
	line, err := secret.NewKeyLine(*id)
	if err != nil {
		return fmt.Errorf("-id: %w", err)
	}
	_, err = io.WriteString(stdout, line)
	return err
}

// statementTimeout bounds what is not a migration, which takes as long as it takes.
const statementTimeout = 30 * time.Second

// migrate runs as the login itself, which owns the schema.
func migrate(ctx context.Context, s settings, log *slog.Logger) error {
	db, err := open(s, log, "", 0)
	if err != nil {
		return err
	}
	n, err := db.Migrate(ctx)
	if err == nil {
		log.InfoContext(ctx, "database is up to date", "steps", n)
	}
	return errors.Join(err, db.Close())
}

func open(s settings, log *slog.Logger, role string, timeout time.Duration) (*postgres.DB, error) {
	return postgres.Open(postgres.Options{
		URL: s.DatabaseURL, Role: role, Application: "edgvoip-integration-api", MaxConns: s.DatabaseMaxConns, StatementTimeout: timeout,
	}, log)
}
