package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// tools are what the commands of a group work with.
type tools struct {
	db    *postgres.DB
	keys  *secret.KeyRing
	out   io.Writer
	actor string // who the audit log names
	in    io.Reader

	allowHTTP bool // endpoints of plain HTTP may be given
}

func (t tools) issuer() *integration.Issuer { return integration.NewIssuer(t.db, t.keys, time.Now) }

// tenant returns the tenant of a slug.
func (t tools) tenant(ctx context.Context, slug string) (directory.TenantRecord, error) {
	all, err := t.db.Tenants(ctx)
	if err != nil {
		return directory.TenantRecord{}, err
	}
	i := slices.IndexFunc(all, func(r directory.TenantRecord) bool { return r.Slug.String() == slug })
	if i < 0 {
		return directory.TenantRecord{}, directory.ErrUnknownTenant
	}
	return all[i], nil
}

// task does its work on the database, after its arguments have been read.
type task func(context.Context, tools) error

// ofTenant is a task about the tenant of a slug.
func ofTenant(slug string, do func(ctx context.Context, t tools, tenant uuid.UUID) error) task {
	return func(ctx context.Context, t tools) error {
		tenant, err := t.tenant(ctx, slug)
		if err != nil {
			return err
		}
		return do(ctx, t, tenant.ID)
	}
}

// tenantTask reads "TENANT options", where usage may call the tenant something else.
func tenantTask(flags *flag.FlagSet, args []string, called string, do func(ctx context.Context, t tools, tenant uuid.UUID) error) (task, error) {
	a, err := arguments(flags, args, called)
	if err != nil {
		return nil, err
	}
	return ofTenant(a[0], do), nil
}

// tenantIDTask reads "TENANT ID options".
func tenantIDTask(flags *flag.FlagSet, args []string, do func(ctx context.Context, t tools, tenant, id uuid.UUID) error) (task, error) {
	a, err := arguments(flags, args, "TENANT", "ID")
	if err != nil {
		return nil, err
	}
	id, err := uuid.Parse(a[1])
	if err != nil {
		return nil, errors.New("ID is not a UUID")
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error { return do(ctx, t, tenant, id) }), nil
}

// group is commands about one thing.
type group struct {
	name, usage string
	commands    map[string]func(*flag.FlagSet, []string) (task, error)
}

// groups are the commands about tenants, their credentials, trunks and webhooks, operators, and what all of them did.
var groups = []group{tenantGroup, secretGroup, operatorGroup, trunkGroup, webhookGroup, auditGroup}

// run runs one command of the group.
func (g group) run(ctx context.Context, args, environ []string, std streams) error {
	if len(args) == 0 {
		_, _ = io.WriteString(std.err, g.usage)
		return fmt.Errorf("%s: no command", g.name)
	}
	command, args := args[0], args[1:]
	parse := g.commands[command]
	switch {
	case parse != nil:
	case slices.Contains([]string{"help", "-h", "-help", "--help"}, command):
		_, err := io.WriteString(std.out, g.usage)
		return err
	default:
		_, _ = io.WriteString(std.err, g.usage)
		return fmt.Errorf("%s: unknown command %q", g.name, command)
	}
	name := g.name + " " + command
	do, err := parse(newFlags(name, std), args)
	if err != nil {
		return commandError(name, err)
	}
	return withSettings(environ, std, func(s settings, log *slog.Logger) error {
		db, keys, err := openAPI(s, log)
		if err != nil {
			return err
		}
		t := tools{db: db, keys: keys, out: std.out, actor: commandActor(environ), in: std.in, allowHTTP: s.WebhookAllowHTTP}
		err = correlated(ctx, func(ctx context.Context) error { return commandError(name, do(ctx, t)) })
		return errors.Join(err, db.Close())
	})
}

// commandError says which command failed, and names a field as the operator does.
func commandError(command string, err error) error {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	if f, ok := errors.AsType[*invalid.FieldError](err); ok && f.Name != "slug" && f.Name != "baseUrl" {
		return fmt.Errorf("%s: -%s: %s", command, f.Name, f.Reason)
	}
	return fmt.Errorf("%s: %w", command, err)
}

// arguments reads "A B options": as many arguments as have names.
func arguments(flags *flag.FlagSet, args []string, names ...string) ([]string, error) {
	n := 0
	for n < len(names) && n < len(args) && !strings.HasPrefix(args[n], "-") {
		n++
	}
	if err := flags.Parse(args[n:]); err != nil {
		return nil, err
	}
	switch {
	case n < len(names):
		return nil, fmt.Errorf("%s is missing", names[n])
	case flags.NArg() > 0:
		return nil, fmt.Errorf("there is more than %s", strings.Join(append(names, "options"), ", "))
	}
	return args[:n], nil
}

var tenantGroup = group{
	name: "tenant",
	usage: `integration-api tenant manages tenants. Commands:

  add SLUG            create a tenant: -name, -country, -timezone, -id (W3's tenantId); the same again changes
                      nothing, another one is refused
  list                the tenants
  suspend SLUG        refuse its phones, calls and requests
  resume SLUG         let it work again
  set SLUG            change it: -name, -country, -timezone; say which calls are recorded and how long that is
                      kept: -record-calls, -cdr-days, -recording-days
  domains SLUG        its domains
  delete SLUG         delete it for good, if it is suspended: its extensions, domains, trunks and credentials end;
                      its call records stay as long as it keeps them
  delete-domain SLUG REALM
                      delete a domain without extensions: its realm is free

`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"add": parseTenantAdd, "list": parseTenantList, "set": parseTenantSet,
		"domains": parseTenantDomains, "delete": parseTenantDelete, "delete-domain": parseDeleteDomain,
		"suspend": func(f *flag.FlagSet, args []string) (task, error) { return parseTenantActive(f, args, false) },
		"resume":  func(f *flag.FlagSet, args []string) (task, error) { return parseTenantActive(f, args, true) },
	},
}

func parseTenantAdd(flags *flag.FlagSet, args []string) (task, error) {
	name := flags.String("name", "", "what people call it; the slug if not given")
	country := flags.String("country", "", "ISO 3166-1 alpha-2: how numbers dialled in national form are read")
	timezone := flags.String("timezone", "", "IANA; UTC if not given")
	id := flags.String("id", "", "W3's tenantId; made up if not given")
	a, err := arguments(flags, args, "SLUG")
	if err != nil {
		return nil, err
	}
	spec := directory.TenantSpec{Slug: a[0], Name: *name, Country: *country, Timezone: *timezone}
	if *id != "" {
		if spec.ID, err = uuid.Parse(*id); err != nil {
			return nil, errors.New("-id is not a UUID")
		}
	}
	return func(ctx context.Context, t tools) error {
		tenant, err := directory.NewProvisioner(t.db, t.keys, secret.NewHasher(1)).PutTenant(ctx, spec, t.actor)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(t.out, tenant.ID)
		return err
	}, nil
}

func parseTenantList(flags *flag.FlagSet, args []string) (task, error) {
	_, err := arguments(flags, args)
	return func(ctx context.Context, t tools) error {
		all, err := t.db.Tenants(ctx)
		if err != nil {
			return err
		}
		rows := [][]string{{"SLUG", "ID", "NAME", "COUNTRY", "TIMEZONE", "STATUS"}}
		for _, r := range all {
			status := "suspended"
			if r.Active {
				status = "active"
			}
			rows = append(rows, []string{r.Slug.String(), r.ID.String(), r.Name.String(), r.Country.String(), r.Timezone, status})
		}
		return printTable(t.out, rows)
	}, err
}

func parseTenantActive(flags *flag.FlagSet, args []string, active bool) (task, error) {
	return tenantTask(flags, args, "SLUG", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		_, err := t.db.SetTenantStatus(ctx, tenant, active, t.actor)
		return err
	})
}
