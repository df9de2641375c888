package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/caarlos0/env/v11"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
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
	DatabaseURL      string `env:"DATABASE_URL"`
	DatabaseRole     string `env:"DATABASE_ROLE" envDefault:"edgvoip_api"`
	DatabaseMaxConns int    `env:"DATABASE_MAX_CONNS" envDefault:"10"`
	SecretKeysFile   string `env:"SECRET_KEYS_FILE"`
	LogFormat        string `env:"LOG_FORMAT" envDefault:"auto"`
	LogLevel         string `env:"LOG_LEVEL" envDefault:"info"`
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
		return keygen(args, stdout, stderr)
	case "migrate", "seed":
	default:
		_, _ = io.WriteString(stderr, usage)
		return errors.New("unknown command")
	}
	s, err := env.ParseAsWithOptions[settings](env.Options{Environment: env.ToMap(environ)})
	if err != nil {
		return errors.New("DATABASE_MAX_CONNS is not a number")
	}
	if s.DatabaseURL == "" {
		return errors.New("DATABASE_URL is not set")
	}
	log, err := telemetry.NewLogger(stderr, s.LogFormat, s.LogLevel)
	if err != nil {
		return err
	}
	if command == "migrate" {
		return migrate(ctx, args, s, log)
	}
	return seed(ctx, args, s, log, stderr)
}

func keygen(args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("keygen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	id := flags.String("id", "k1", "name of the key, kept beside everything sealed with it")
	if err := flags.Parse(args); err != nil {
		return err
	}
	line, err := secret.NewKeyLine(*id)
	if err != nil {
		return fmt.Errorf("-id: %w", err)
	}
	_, err = io.WriteString(stdout, line)
	return err
}

// open connects to the database. Migrations run as the login itself, which owns the schema, and take as long as they take.
func open(s settings, log *slog.Logger, role string) (*postgres.DB, error) {
	return postgres.Open(postgres.Options{
		URL: s.DatabaseURL, Role: role, Application: "edgvoip-integration-api", MaxConns: s.DatabaseMaxConns,
	}, log)
}

func migrate(ctx context.Context, args []string, s settings, log *slog.Logger) error {
	if len(args) > 0 {
		return errors.New("migrate takes no arguments")
	}
	db, err := open(s, log, "")
	if err != nil {
		return err
	}
	n, err := db.Migrate(ctx)
	if err == nil {
		log.InfoContext(ctx, "database is up to date", "steps", n)
	}
	return errors.Join(err, db.Close())
}
