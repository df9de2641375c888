package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/trunk"
)

// seedOptions say what the demo is made of.
type seedOptions struct {
	tenants, extensions int
	trunks              addresses
}

// addresses is a flag that may be given several times.
type addresses []string

func (a *addresses) String() string { return strings.Join(*a, ",") }

func (a *addresses) Set(s string) error {
	if _, _, err := net.SplitHostPort(s); err != nil {
		return errors.New("not host:port")
	}
	*a = append(*a, s)
	return nil
}

// The demo's numbers: 100 DIDs of Rome a tenant, extensions from 1000, and the limits that one name allows: tenants are
// called tenant-a to tenant-zz.
const (
	firstDID        = 390612345600
	didsPerTenant   = 100
	firstExtension  = 1000
	maxTenants      = 26 + 26*26
	maxExtensions   = 900000
	demoMaxCalls    = 2
	demoMaxChannels = 30
)

// parseSeed reads the arguments of seed. Error: flag.ErrHelp after -help.
func parseSeed(args []string, stderr io.Writer) (seedOptions, error) {
	var o seedOptions
	flags := flag.NewFlagSet("seed", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.tenants, "tenants", 2, "number of tenants: tenant-a.example, tenant-b.example, …")
	flags.IntVar(&o.extensions, "extensions", 10, "extensions of each, from 1000, with password pw<extension>")
	flags.Var(&o.trunks, "trunk", "host:port of a carrier of each tenant, in order of preference; the first has the DIDs (repeatable; default 127.0.0.1:5070)")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, errors.New("seed takes no arguments but options")
	case o.tenants < 1 || o.tenants > maxTenants:
		return o, fmt.Errorf("-tenants is not between 1 and %d", maxTenants)
	case o.extensions < 1 || o.extensions > maxExtensions:
		return o, fmt.Errorf("-extensions is not between 1 and %d", maxExtensions)
	}
	if len(o.trunks) == 0 {
		o.trunks = addresses{"127.0.0.1:5070"}
	}
	return o, nil
}

func seed(ctx context.Context, o seedOptions, s settings, log *slog.Logger, actor string) error {
	db, keys, err := openAPI(s, log)
	if err != nil {
		return err
	}
	seeder := seeder{
		extensions: directory.NewProvisioner(db, keys, secret.NewHasher(runtime.NumCPU())),
		trunks:     trunk.NewProvisioner(db, keys),
		actor:      actor,
	}
	for n := range o.tenants {
		if err = seeder.tenant(ctx, n, o); err != nil {
			break
		}
	}
	if err == nil {
		log.InfoContext(ctx, "seeded", "tenants", o.tenants, "extensions_each", o.extensions, "trunks_each", len(o.trunks))
	}
	return errors.Join(err, db.Close())
}

type seeder struct {
	extensions *directory.Provisioner
	trunks     *trunk.Provisioner
	actor      string // who the audit log names
}

// tenantName returns a, b, …, z, aa, ab and so on up to zz.
func tenantName(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	if n < len(letters) {
		return letters[n : n+1]
	}
	first, second := n/len(letters)-1, n%len(letters)
	return letters[first:first+1] + letters[second:second+1]
}

// tenant creates one tenant with all that belongs to it, or finds it as it is. Every id follows from the tenant's, so a
// second seed meets the first.
func (s seeder) tenant(ctx context.Context, n int, o seedOptions) error {
	slug := "tenant-" + tenantName(n)
	t, err := s.extensions.PutTenant(ctx, directory.TenantSpec{Slug: slug, Name: "Tenant " + strings.ToUpper(tenantName(n)), Country: "IT", Timezone: "Europe/Rome"}, s.actor)
	if err != nil {
		return fmt.Errorf("%s: %w", slug, err)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU() * 2)
	for i := range o.extensions {
		number := strconv.Itoa(firstExtension + i)
		group.Go(func() error {
			_, err := s.extensions.PutExtension(gctx, directory.ExtensionSpec{
				TenantID: t.ID, Realm: slug + ".example", Extension: number, SIPPassword: "pw" + number,
				DisplayName: "Ext " + number, MaxConcurrentCalls: demoMaxCalls,
			}, s.actor)
			if err != nil {
				return fmt.Errorf("%s: extension %s: %w", slug, number, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return s.carriers(ctx, t.Tenant, n, o)
}

func (s seeder) carriers(ctx context.Context, t directory.Tenant, n int, o seedOptions) error {
	first := firstDID + n*didsPerTenant
	did := func(i int) string { return "+" + strconv.Itoa(first+i) }
	for i, address := range o.trunks {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("-trunk: %w", err)
		}
		number, err := strconv.Atoi(port)
		if err != nil {
			return errors.New("-trunk: port is not a number")
		}
		spec := trunk.Spec{
			TenantID: t.ID, Name: "Carrier " + strconv.Itoa(i+1), Provider: "demo", Host: host, Port: number,
			MaxChannels: demoMaxChannels, Priority: 10 * (i + 1), CallerIDNumber: did(0), AIFailoverExtension: strconv.Itoa(firstExtension),
		}
		if i == 0 {
			spec.DIDRanges = []trunk.DIDRange{{First: did(0), Last: did(didsPerTenant - 1)}}
		}
		if _, err := s.trunks.Put(ctx, uuid.NewSHA1(t.ID, []byte(spec.Name)), spec, s.actor); err != nil {
			return fmt.Errorf("%s: %s: %w", t.Slug, spec.Name, err)
		}
	}
	return nil
}
