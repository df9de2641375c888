package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/node"
)

const nodeUsage = `integration-api node manages the switches. Commands:

  add NAME      add a switch: -address HOST:PORT of its event socket, -password-file FILE; the same again changes nothing
  set NAME      change it: -address, -password-file, -caches-users=true|false
  enable NAME   connect to it, tell it what waits, and then of changes, as after add
  disable NAME  leave it alone: what changes ask of it waits until it is enabled
  remove NAME   forget it; with -force also if it was not told everything, and may run still with users who are suspended
  list          the switches
  status        how they are: connects to each
  jobs          what they have to do: -node NAME, -state STATE, -limit N
  retry         have jobs that were given up tried again: numbers of jobs, -node NAME, or -all

A password is read from a file; "-" is the standard input. list, status and jobs take -json. A running serve takes changes up
by itself.
`

// nodeTools are what the commands work with.
type nodeTools struct {
	db   *postgres.DB
	keys *secret.KeyRing
	log  *slog.Logger
	std  streams

	actor string // who the audit log names
}

func (t nodeTools) provisioner() *node.Provisioner { return node.NewProvisioner(t.db, t.keys) }

// nodeCommand does its work on the database, after its arguments have been read.
type nodeCommand func(context.Context, nodeTools) error

// nodes runs one of the commands above.
func nodes(ctx context.Context, args, environ []string, std streams) error {
	if len(args) == 0 {
		_, _ = io.WriteString(std.err, nodeUsage)
		return errors.New("node: no command")
	}
	parse := map[string]func([]string, streams) (nodeCommand, error){
		"add": parseNodeAdd, "set": parseNodeSet, "enable": parseNodeEnable, "disable": parseNodeDisable, "remove": parseNodeRemove,
		"list": parseNodeList, "status": parseNodeStatus, "jobs": parseNodeJobs, "retry": parseNodeRetry,
	}[args[0]]
	switch {
	case parse != nil:
	case slices.Contains([]string{"help", "-h", "-help", "--help"}, args[0]):
		_, err := io.WriteString(std.out, nodeUsage)
		return err
	default:
		_, _ = io.WriteString(std.err, nodeUsage)
		return fmt.Errorf("node: unknown command %q", args[0])
	}
	do, err := parse(args[1:], std)
	if err != nil {
		return nodeError(args[0], err)
	}
	return withSettings(environ, std, func(s settings, log *slog.Logger) error {
		db, keys, err := openAPI(s, log)
		if err != nil {
			return err
		}
		t := nodeTools{db, keys, log, std, commandActor(environ)}
		err = correlated(ctx, func(ctx context.Context) error { return nodeError(args[0], do(ctx, t)) })
		return errors.Join(err, db.Close())
	})
}

// nodeError says which command failed, and names a field as the operator does.
func nodeError(command string, err error) error {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	if f, ok := errors.AsType[*invalid.FieldError](err); ok {
		option, ok := map[string]string{"name": "NAME", "address": "-address", "password": "-password-file"}[f.Name]
		if ok {
			return fmt.Errorf("node %s: %s: %s", command, option, f.Reason)
		}
	}
	return fmt.Errorf("node %s: %w", command, err)
}

// nodeFlags reads "NAME options".
func nodeFlags(args []string, flags *flag.FlagSet) (name string, err error) {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	if err := flags.Parse(args); err != nil {
		return "", err
	}
	switch {
	case flags.NArg() > 0:
		return "", errors.New("options come after one NAME")
	case name == "":
		return "", errors.New("NAME of the switch is missing")
	}
	return name, nil
}

// isSet tells whether an option was given.
func isSet(flags *flag.FlagSet, name string) (set bool) {
	flags.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// maxPasswordFile bounds what is read of a file that may be the wrong one.
const maxPasswordFile = 4 << 10

// readPassword reads a password file: its first line.
func readPassword(file string, stdin io.Reader) (string, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the operator names the file
		if err != nil {
			return "", fmt.Errorf("-password-file: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPasswordFile))
	if err != nil {
		return "", fmt.Errorf("-password-file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// nodeOptions are those of add and set.
type nodeOptions struct {
	flags                 *flag.FlagSet
	name                  string
	address, passwordFile *string
	cachesUsers           *bool
}

func parseNodeOptions(command string, args []string, std streams) (nodeOptions, error) {
	o := nodeOptions{flags: newFlags("node "+command, std)}
	o.address = o.flags.String("address", "", "host:port of the event socket")
	o.passwordFile = o.flags.String("password-file", "", "file that holds the event socket's password; - is the standard input")
	o.cachesUsers = o.flags.Bool("caches-users", false, "xmlcurl lets the switch cache users (SWITCH_CACHES_USERS), so it must be told of every change")
	var err error
	o.name, err = nodeFlags(args, o.flags)
	return o, err
}

func parseNodeAdd(args []string, std streams) (nodeCommand, error) {
	o, err := parseNodeOptions("add", args, std)
	switch {
	case err != nil:
		return nil, err
	case *o.address == "":
		return nil, errors.New("-address is missing")
	case *o.passwordFile == "":
		return nil, errors.New("-password-file is missing")
	}
	return func(ctx context.Context, t nodeTools) error {
		password, err := readPassword(*o.passwordFile, t.std.in)
		if err != nil {
			return err
		}
		_, err = t.provisioner().Put(ctx, node.Spec{Name: o.name, Address: *o.address, Password: password, CachesUsers: *o.cachesUsers}, t.actor)
		return err
	}, nil
}

func parseNodeSet(args []string, std streams) (nodeCommand, error) {
	o, err := parseNodeOptions("set", args, std)
	if err != nil {
		return nil, err
	}
	if o.flags.NFlag() == 0 {
		return nil, errors.New("nothing to change: -address, -password-file or -caches-users")
	}
	return func(ctx context.Context, t nodeTools) error {
		var c node.Change
		if isSet(o.flags, "address") {
			c.Address = o.address
		}
		if isSet(o.flags, "caches-users") {
			c.CachesUsers = o.cachesUsers
		}
		if isSet(o.flags, "password-file") {
			password, err := readPassword(*o.passwordFile, t.std.in)
			if err != nil {
				return err
			}
			c.Password = &password
		}
		_, err := t.provisioner().Change(ctx, o.name, c, t.actor)
		return err
	}, nil
}

func parseNodeEnable(args []string, std streams) (nodeCommand, error) {
	return parseNodeActive("enable", true, args, std)
}

func parseNodeDisable(args []string, std streams) (nodeCommand, error) {
	return parseNodeActive("disable", false, args, std)
}

func parseNodeActive(command string, active bool, args []string, std streams) (nodeCommand, error) {
	name, err := nodeFlags(args, newFlags("node "+command, std))
	return func(ctx context.Context, t nodeTools) error {
		_, err := t.provisioner().Change(ctx, name, node.Change{Active: &active}, t.actor)
		return err
	}, err
}

func parseNodeRemove(args []string, std streams) (nodeCommand, error) {
	flags := newFlags("node remove", std)
	force := flags.Bool("force", false, "forget what it was not told, too: the switch is gone")
	name, err := nodeFlags(args, flags)
	return func(ctx context.Context, t nodeTools) error {
		err := t.provisioner().Remove(ctx, name, *force, t.actor)
		if _, ok := errors.AsType[*node.JobsLeftError](err); ok {
			return fmt.Errorf("%w; -force forgets them", err)
		}
		return err
	}, err
}

// parseNodeJobs reads the filter of jobs.
func parseNodeJobs(args []string, std streams) (nodeCommand, error) {
	flags := newFlags("node jobs", std)
	name := flags.String("node", "", "only those of one switch")
	state := flags.String("state", "", "pending, leased, done or dead; all but done if not given")
	limit := flags.Int("limit", 100, "at most so many")
	asJSON := flags.Bool("json", false, "print JSON")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	f := node.Filter{Node: *name, Limit: *limit}
	switch s := node.State(*state); {
	case flags.NArg() > 0:
		return nil, errors.New("it takes no arguments but options")
	case *limit < 1 || *limit > 100000:
		return nil, errors.New("-limit is not between 1 and 100000")
	case s == "":
	case slices.Contains([]node.State{node.Pending, node.Leased, node.Done, node.Dead}, s):
		f.States = []node.State{s}
	default:
		return nil, errors.New("-state is one of pending, leased, done, dead")
	}
	return func(ctx context.Context, t nodeTools) error { return t.printJobs(ctx, f, *asJSON) }, nil
}

// parseNodeRetry reads which jobs to replay.
func parseNodeRetry(args []string, std streams) (nodeCommand, error) {
	flags := newFlags("node retry", std)
	name := flags.String("node", "", "those of one switch")
	all := flags.Bool("all", false, "all")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	var ids []int64
	for _, arg := range flags.Args() {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil {
			return nil, errors.New("a job is named by its number")
		}
		ids = append(ids, id)
	}
	if *all && (*name != "" || len(ids) > 0) || !*all && *name == "" && len(ids) == 0 {
		return nil, errors.New("say which: numbers of jobs, -node NAME, or -all")
	}
	return func(ctx context.Context, t nodeTools) error {
		n, err := t.db.ReplayJobs(ctx, *name, ids, t.actor)
		if err == nil {
			_, err = fmt.Fprintf(t.std.out, "%d to be tried again\n", n)
		}
		return err
	}, nil
}
