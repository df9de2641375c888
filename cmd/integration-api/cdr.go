package main

import (
	"context"
	"errors"
	"flag"
	"strconv"

	"github.com/edgvoip/edgvoip/cdr"
)

var cdrGroup = group{
	name: "cdr",
	usage: `integration-api cdr works on call records. Commands:

  sweep DIR    send the call records that a switch has kept in files; sweep -help lists the options
  documents    list documents that made no call record: -state unreadable or unassigned
  show ID      print such a document as it came
  retry ID     read it once more
  discard ID   remove it, for good

`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"documents": parseDocuments, "show": parseShowDocument,
		"retry": func(f *flag.FlagSet, args []string) (task, error) {
			return parseDocument(f, args, func(ctx context.Context, t tools, id int64) error { return t.db.RetryDocument(ctx, id, t.actor) })
		},
		"discard": func(f *flag.FlagSet, args []string) (task, error) {
			return parseDocument(f, args, func(ctx context.Context, t tools, id int64) error { return t.db.DiscardDocument(ctx, id, t.actor) })
		},
	},
}

// cdrs runs a command about call records. A switch that sweeps has no database.
func cdrs(ctx context.Context, args, environ []string, std streams) error {
	if len(args) > 0 && args[0] == "sweep" {
		return commandError("cdr sweep", sweep(ctx, args[1:], environ, std))
	}
	return cdrGroup.run(ctx, args, environ, std)
}

// documentsShown is how many documents are listed.
const documentsShown = 1000

func parseDocuments(flags *flag.FlagSet, args []string) (task, error) {
	state := flags.String("state", string(cdr.DocumentUnreadable), "unreadable or unassigned")
	if _, err := arguments(flags, args); err != nil {
		return nil, err
	}
	if s := cdr.DocumentState(*state); s != cdr.DocumentUnreadable && s != cdr.DocumentUnassigned {
		return nil, errors.New("-state is unreadable or unassigned")
	}
	return func(ctx context.Context, t tools) error {
		docs, err := t.db.KeptDocuments(ctx, cdr.DocumentState(*state), 0, documentsShown)
		if err != nil {
			return err
		}
		rows := [][]string{{"ID", "LEG", "SOURCE", "SENDER", "BYTES", "RECEIVED", "REASON"}}
		for _, d := range docs {
			rows = append(rows, []string{strconv.FormatInt(d.ID, 10), d.LegID.String(), d.Source, d.Sender, strconv.Itoa(d.Size), at(d.ReceivedAt), d.Error})
		}
		return printTable(t.out, rows)
	}, nil
}

func parseShowDocument(flags *flag.FlagSet, args []string) (task, error) {
	return parseDocument(flags, args, func(ctx context.Context, t tools, id int64) error {
		d, err := t.db.KeptDocument(ctx, id)
		if err != nil {
			return err
		}
		_, err = t.out.Write(d.Body)
		return err
	})
}

func parseDocument(flags *flag.FlagSet, args []string, do func(context.Context, tools, int64) error) (task, error) {
	a, err := arguments(flags, args, "ID")
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseInt(a[0], 10, 64)
	if err != nil {
		return nil, errors.New("ID is not a number")
	}
	return func(ctx context.Context, t tools) error { return do(ctx, t, id) }, nil
}
