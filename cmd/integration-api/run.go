package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/telemetry"
)

const usage = `integration-api, the door of W3 and of operators. Commands:

  serve                answer W3 and operators, and make the switches obey
  tenant COMMAND       manage tenants; tenant help lists the commands
  secret COMMAND       manage the credentials with which W3 speaks for a tenant
  operator COMMAND     manage the tokens of operators
  trunk COMMAND        manage the trunks of tenants
  webhook COMMAND      manage where W3 takes events, and the events
  node COMMAND         manage the switches
  audit list           what was done, by whom and when; audit list -help lists the options
  cdr COMMAND          send call records that a switch has kept, and see to those that cannot be read
  keygen -id ID        print a line for SECRET_KEYS_FILE with a fresh key
  migrate              bring the database schema to this version
  seed                 create demo tenants; seed -help lists the options
  version              print the version
  help                 print this

Settings come from the environment, see docs/settings.md.
`

// streams are where a command reads from and writes to.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run runs one command. It returns when the command is done, or for serve when ctx ends.
func run(ctx context.Context, args, environ []string, std streams) error {
	if len(args) == 0 {
		_, _ = io.WriteString(std.err, usage)
		return errors.New("no command")
	}
	command, args := args[0], args[1:]
	err := dispatch(ctx, command, args, environ, std)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func dispatch(ctx context.Context, command string, args, environ []string, std streams) error {
	switch command {
	case "help", "-h", "-help", "--help":
		_, err := io.WriteString(std.out, usage)
		return err
	case "version":
		_, err := fmt.Fprintln(std.out, version)
		return err
	case "keygen":
		return keygen(args, std)
	case "migrate":
		if len(args) > 0 {
			return errors.New("migrate takes no arguments")
		}
		return withSettings(environ, std, func(s settings, log *slog.Logger) error { return migrate(ctx, s, log) })
	case "seed":
		o, err := parseSeed(args, std.err)
		if err != nil {
			return err
		}
		return withSettings(environ, std, func(s settings, log *slog.Logger) error {
			return correlated(ctx, func(ctx context.Context) error { return seed(ctx, o, s, log, commandActor(environ)) })
		})
	case "cdr":
		return cdrs(ctx, args, environ, std)
	case "node":
		return nodes(ctx, args, environ, std)
	case "serve":
		if len(args) > 0 {
			return errors.New("serve takes no arguments")
		}
		return withSettings(environ, std, func(s settings, log *slog.Logger) error { return serve(ctx, s, log) })
	default:
		if i := slices.IndexFunc(groups, func(g group) bool { return g.name == command }); i >= 0 {
			return groups[i].run(ctx, args, environ, std)
		}
		_, _ = io.WriteString(std.err, usage)
		return fmt.Errorf("unknown command %q", command)
	}
}

// withSettings reads and checks the settings for a command that works on the database.
func withSettings(environ []string, std streams, f func(settings, *slog.Logger) error) error {
	s, err := readSettings(environ)
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(std.err, s.LogFormat, s.LogLevel)
	if err != nil {
		return err
	}
	return f(s, log)
}

func keygen(args []string, std streams) error {
	flags := newFlags("keygen", std)
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
	_, err = io.WriteString(std.out, line)
	return err
}

// newFlags returns an empty set of options. Parsing it gives flag.ErrHelp after -help.
func newFlags(name string, std streams) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(std.err)
	return flags
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

// openAPI opens the database as the commands other than migrate do, and the key ring.
func openAPI(s settings, log *slog.Logger) (*postgres.DB, *secret.KeyRing, error) {
	if err := s.CheckKeys(); err != nil {
		return nil, nil, err
	}
	keys, err := secret.LoadKeyRing(s.SecretKeysFile)
	if err != nil {
		return nil, nil, fmt.Errorf("SECRET_KEYS_FILE: %w", err)
	}
	db, err := open(s, log, s.DatabaseRole, statementTimeout)
	return db, keys, err
}
