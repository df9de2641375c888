package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
)

var secretGroup = group{
	name: "secret",
	usage: `integration-api secret manages the credentials with which W3 speaks for a tenant. Commands:

  add TENANT        make credentials, and print them this once
  rotate TENANT     the same; the others end after -overlap
  list TENANT       the credentials, without what is secret
  revoke TENANT ID  end credentials at once

A tenant is named by its slug.
`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"add": parseSecretAdd, "rotate": parseSecretRotate, "list": parseSecretList, "revoke": parseSecretRevoke,
	},
}

// show prints new credentials, in a form that a shell can read.
func (t tools) show(i integration.Issued, err error) error {
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "SECRET_ID=%s\nBEARER_TOKEN=%s\nHMAC_SECRET=%s\n", i.ID, i.Bearer, i.HMAC)
	return err
}

func parseSecretAdd(flags *flag.FlagSet, args []string) (task, error) {
	return tenantTask(flags, args, "TENANT", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.show(t.issuer().Add(ctx, tenant, t.actor))
	})
}

func parseSecretRotate(flags *flag.FlagSet, args []string) (task, error) {
	overlap := flags.Duration("overlap", 24*time.Hour, "how long the others live on")
	return tenantTask(flags, args, "TENANT", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.show(t.issuer().Rotate(ctx, tenant, *overlap, t.actor))
	})
}

func parseSecretList(flags *flag.FlagSet, args []string) (task, error) {
	return tenantTask(flags, args, "TENANT", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		secrets, err := t.db.Secrets(ctx, tenant)
		if err != nil {
			return err
		}
		rows := [][]string{{"ID", "VALID", "CREATED", "EXPIRES", "LAST USED"}}
		for _, s := range secrets {
			rows = append(rows, []string{s.ID.String(), yesNo(s.Valid(time.Now())), at(s.CreatedAt), at(s.ExpiresAt), at(s.LastUsedAt)})
		}
		return printTable(t.out, rows)
	})
}

func parseSecretRevoke(flags *flag.FlagSet, args []string) (task, error) {
	return tenantIDTask(flags, args, func(ctx context.Context, t tools, tenant, id uuid.UUID) error {
		return t.issuer().Revoke(ctx, tenant, id, t.actor)
	})
}

// at prints a time, or that there is none.
func at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
