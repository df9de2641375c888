package main

import (
	"context"
	"flag"
	"fmt"
	"time"
)

var operatorGroup = group{
	name: "operator",
	usage: `integration-api operator manages the tokens of operators, for /api/v1/admin. Commands:

  add NAME     make a token, and print it this once: -lifetime, without end if not given
  list         the operators
  revoke NAME  end a token at once

`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"add": parseOperatorAdd, "list": parseOperatorList, "revoke": parseOperatorRevoke,
	},
}

func parseOperatorAdd(flags *flag.FlagSet, args []string) (task, error) {
	lifetime := flags.Duration("lifetime", 0, "how long the token is valid; 0 is until it is revoked")
	a, err := arguments(flags, args, "NAME")
	return func(ctx context.Context, t tools) error {
		token, err := t.issuer().AddOperator(ctx, a[0], *lifetime, t.actor)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(t.out, token)
		return err
	}, err
}

func parseOperatorList(flags *flag.FlagSet, args []string) (task, error) {
	_, err := arguments(flags, args)
	return func(ctx context.Context, t tools) error {
		all, err := t.db.Operators(ctx)
		if err != nil {
			return err
		}
		rows := [][]string{{"NAME", "VALID", "CREATED", "EXPIRES", "REVOKED"}}
		for _, o := range all {
			rows = append(rows, []string{o.Name, yesNo(o.Valid(time.Now())), at(o.CreatedAt), at(o.ExpiresAt), at(o.RevokedAt)})
		}
		return printTable(t.out, rows)
	}, err
}

func parseOperatorRevoke(flags *flag.FlagSet, args []string) (task, error) {
	a, err := arguments(flags, args, "NAME")
	return func(ctx context.Context, t tools) error { return t.db.RevokeOperator(ctx, a[0], t.actor) }, err
}
