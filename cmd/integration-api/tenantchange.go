package main

import (
	"context"
	"errors"
	"flag"
	"strconv"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// parseTenantSet reads what to change of a tenant; only options that are given do.
func parseTenantSet(flags *flag.FlagSet, args []string) (task, error) {
	name := flags.String("name", "", "what people call it")
	country := flags.String("country", "", "ISO 3166-1 alpha-2: how numbers dialled in national form are read, and which call for help")
	timezone := flags.String("timezone", "", "IANA: that of time policies without one of their own")
	record := flags.String("record-calls", "", "which calls are recorded: none, inbound, outbound, external (both), all")
	days := flags.Int("cdr-days", 0, "how many days call records are kept; 0 is for ever")
	recordingDays := flags.Int("recording-days", 0, "how many days recordings are kept; 0 is as long as the records")
	a, err := arguments(flags, args, "SLUG")
	if err != nil {
		return nil, err
	}
	var patch directory.TenantPatch
	var policy cdr.PolicyPatch
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "name":
			patch.Name = name
		case "country":
			patch.Country = country
		case "timezone":
			patch.Timezone = timezone
		case "record-calls":
			policy.RecordCalls = record
		case "cdr-days":
			policy.CDRDays = days
		case "recording-days":
			policy.RecordingDays = recordingDays
		}
	})
	if flags.NFlag() == 0 {
		return nil, errors.New("nothing to change; tenant set -help lists the options")
	}
	change, err := patch.Change()
	if err != nil {
		return nil, err
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error {
		_, _, err := t.db.ChangeTenant(ctx, tenant, change, policy, t.actor)
		return optionNamed(err)
	}), nil
}

// domainsShown bounds what is listed of a tenant.
const domainsShown = 1000

func parseTenantDomains(flags *flag.FlagSet, args []string) (task, error) {
	return tenantTask(flags, args, "SLUG", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		domains, err := t.db.ListDomains(ctx, tenant, "", domainsShown)
		if err != nil {
			return err
		}
		rows := [][]string{{"REALM", "ID", "NAME", "EXTENSIONS", "CREATED"}}
		for _, d := range domains {
			rows = append(rows, []string{d.Realm.String(), d.ID.String(), d.Name, strconv.Itoa(d.Extensions), at(d.CreatedAt)})
		}
		return printTable(t.out, rows)
	})
}

func parseTenantDelete(flags *flag.FlagSet, args []string) (task, error) {
	return tenantTask(flags, args, "SLUG", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.db.DeleteTenant(ctx, tenant, t.actor)
	})
}

func parseDeleteDomain(flags *flag.FlagSet, args []string) (task, error) {
	a, err := arguments(flags, args, "SLUG", "REALM")
	if err != nil {
		return nil, err
	}
	realm, err := fstext.NewRealm(a[1])
	if err != nil {
		return nil, err
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.db.DeleteDomain(ctx, tenant, realm, t.actor)
	}), nil
}
