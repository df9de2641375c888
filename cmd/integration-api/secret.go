package main

import (
	"context"
	"errors"
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
	a, err := arguments(flags, args, "TENANT")
	return func(ctx context.Context, t tools) error {
		tenant, err := t.tenant(ctx, a[0])
		if err != nil {
			return err
		}
		return t.show(t.issuer().Add(ctx, tenant.ID, t.actor))
	}, err
}

func parseSecretRotate(flags *flag.FlagSet, args []string) (task, error) {
	overlap := flags.Duration("overlap", 24*time.Hour, "how long the others live on")
	a, err := arguments(flags, args, "TENANT")
	return func(ctx context.Context, t tools) error {
		tenant, err := t.tenant(ctx, a[0])
		if err != nil {
			return err
		}
		return t.show(t.issuer().Rotate(ctx, tenant.ID, *overlap, t.actor))
	}, err
}

func parseSecretList(flags *flag.FlagSet, args []string) (task, error) {
	a, err := arguments(flags, args, "TENANT")
	return func(ctx context.Context, t tools) error {
		tenant, err := t.tenant(ctx, a[0])
		if err != nil {
			return err
		}
		secrets, err := t.db.Secrets(ctx, tenant.ID)
		if err != nil {
			return err
		}
		rows := [][]string{{"ID", "VALID", "CREATED", "EXPIRES", "LAST USED"}}
		for _, s := range secrets {
			rows = append(rows, []string{s.ID.String(), yesNo(s.Valid(time.Now())), at(s.CreatedAt), at(s.ExpiresAt), at(s.LastUsedAt)})
		}
		return printTable(t.out, rows)
	}, err
}

func parseSecretRevoke(flags *flag.FlagSet, args []string) (task, error) {
	a, err := arguments(flags, args, "TENANT", "ID")
	if err != nil {
		return nil, err
	}
	id, err := uuid.Parse(a[1])
	if err != nil {
		return nil, errors.New("ID is not a UUID")
	}
	return func(ctx context.Context, t tools) error {
		tenant, err := t.tenant(ctx, a[0])
		if err != nil {
			return err
		}
		return t.issuer().Revoke(ctx, tenant.ID, id, t.actor)
	}, nil
}

// at prints a time, or that there is none.
func at(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}
