package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/internal/invalid"
	common "github.com/edgvoip/edgvoip/internal/settings"
)

// explainTimeout bounds one question, asked by somebody who waits.
const explainTimeout = 10 * time.Second

// explain tells where a call would go, and why, with the document that FreeSWITCH would get.
func explain(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	asked, err := readAsked(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	// No switch asks here, so nothing of how switches are let in is needed.
	s, err := common.Parse[settings](environ)
	if err == nil {
		err = s.Check()
	}
	if err != nil {
		return err
	}
	w, err := s.switchSettings()
	if err != nil {
		return err
	}
	asked.Agents, asked.Recordings = w.Agents, w.Recordings
	db, err := s.open(slog.New(slog.DiscardHandler), 1, explainTimeout)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, explainTimeout)
	defer cancel()
	e, err := dialplan.Ask(ctx, db, asked)
	if err := errors.Join(err, db.Close()); err != nil {
		if bad, ok := errors.AsType[*invalid.FieldError](err); ok {
			return fmt.Errorf("-%s %s", bad.Name, bad.Reason)
		}
		return err
	}
	for _, step := range e.Steps {
		if _, err := fmt.Fprintf(stdout, "%-8s %s\n", step.Subject, step.Text); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(stdout, "\n%s", e.Document)
	return err
}

// timeForms are how an instant is given: with its offset, or in UTC.
var timeForms = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04"}

func readAsked(args []string, stderr io.Writer) (dialplan.Asked, error) {
	flags := flag.NewFlagSet("xmlcurl explain", flag.ContinueOnError)
	flags.SetOutput(stderr)
	a := dialplan.Asked{At: time.Now()}
	flags.StringVar(&a.To, "to", "", "what is dialled; mandatory")
	flags.StringVar(&a.From, "from", "", "who calls: number@realm for an extension, else a number outside; mandatory")
	at := flags.String("at", "", "when, as 2026-12-25T10:00+01:00, or without an offset in UTC; now if not given")
	trunk := flags.String("trunk", "", "id of the trunk that brings a call from outside; that of the DID if not given")
	if err := flags.Parse(args); err != nil {
		return a, err
	}
	switch {
	case flags.NArg() > 0:
		return a, errors.New("explain takes options only, see -help")
	case a.To == "" || a.From == "":
		return a, errors.New("explain needs -to and -from")
	}
	if *trunk != "" {
		id, err := uuid.Parse(*trunk)
		if err != nil {
			return a, errors.New("-trunk is not an id")
		}
		a.Trunk = id
	}
	if *at == "" {
		return a, nil
	}
	for _, form := range timeForms {
		if t, err := time.Parse(form, *at); err == nil {
			a.At = t
			return a, nil
		}
	}
	return a, errors.New("-at is not a time like 2026-12-25T10:00+01:00")
}
