package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/webhook"
)

var webhookGroup = group{
	name: "webhook",
	usage: `integration-api webhook manages where W3 takes a tenant's events, and the events. Commands:

  set TENANT URL           send the tenant's events under this base URL; the same again changes nothing
  show TENANT              where they are sent
  pause TENANT             send nothing; events wait
  resume TENANT            send again
  remove TENANT            forget where they are sent; events wait
  list TENANT              the tenant's events, the newest first: -state, -limit, -json
  inspect TENANT EVENT     one event, its body, and each attempt to send it
  replay TENANT EVENT...   send events again that were given up, or all with -all
  discard TENANT EVENT...  give up for good what was given up

A tenant is named by its slug, an event by its number.
`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"set": parseWebhookSet, "show": parseWebhookShow, "remove": parseWebhookRemove, "list": parseWebhookList,
		"inspect": parseWebhookInspect, "replay": parseWebhookReplay, "discard": parseWebhookDiscard,
		"pause":  func(f *flag.FlagSet, args []string) (task, error) { return parseWebhookActive(f, args, false) },
		"resume": func(f *flag.FlagSet, args []string) (task, error) { return parseWebhookActive(f, args, true) },
	},
}

// changeEndpoint changes where a tenant's events are sent.
func (t tools) changeEndpoint(ctx context.Context, tenant uuid.UUID, c webhook.Change) error {
	_, err := webhook.NewProvisioner(t.db, t.allowHTTP).Put(ctx, tenant, c, t.actor)
	return err
}

func parseWebhookSet(flags *flag.FlagSet, args []string) (task, error) {
	a, err := arguments(flags, args, "TENANT", "URL")
	if err != nil {
		return nil, err
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.changeEndpoint(ctx, tenant, webhook.Change{BaseURL: &a[1]})
	}), nil
}

func parseWebhookActive(flags *flag.FlagSet, args []string, active bool) (task, error) {
	return tenantTask(flags, args, "TENANT", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.changeEndpoint(ctx, tenant, webhook.Change{Active: &active})
	})
}

func parseWebhookShow(flags *flag.FlagSet, args []string) (task, error) {
	return tenantTask(flags, args, "TENANT", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		e, err := t.db.Endpoint(ctx, tenant)
		if err != nil {
			return err
		}
		status := "paused"
		if e.Active {
			status = "active"
		}
		return printTable(t.out, [][]string{{"URL", "STATUS", "CHANGED"}, {e.BaseURL.String(), status, at(e.UpdatedAt)}})
	})
}

func parseWebhookRemove(flags *flag.FlagSet, args []string) (task, error) {
	return tenantTask(flags, args, "TENANT", func(ctx context.Context, t tools, tenant uuid.UUID) error {
		return t.db.RemoveEndpoint(ctx, tenant, t.actor)
	})
}

func parseWebhookList(flags *flag.FlagSet, args []string) (task, error) {
	state := flags.String("state", "", "pending, leased, delivered, dead or discarded; all if not given")
	limit := flags.Int("limit", 100, "at most so many")
	asJSON := flags.Bool("json", false, "print JSON")
	a, err := arguments(flags, args, "TENANT")
	switch {
	case err != nil:
		return nil, err
	case *limit < 1 || *limit > 100000:
		return nil, errors.New("-limit is not between 1 and 100000")
	case *state != "" && !slices.Contains(webhook.States, webhook.State(*state)):
		return nil, errors.New("-state is one of pending, leased, delivered, dead, discarded")
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error {
		events, err := t.db.Events(ctx, tenant, webhook.Filter{State: webhook.State(*state), Limit: *limit})
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(t.out, printedEvents(events))
		}
		rows := [][]string{{"EVENT", "KIND", "STATE", "ATTEMPTS", "CREATED", "DUE", "SUBJECT", "LAST ERROR"}}
		for _, e := range events {
			due := "-"
			if e.FinishedAt.IsZero() {
				due = at(e.DueAt)
			}
			rows = append(rows, []string{
				strconv.FormatInt(e.ID, 10), string(e.Kind), string(e.State), strconv.Itoa(e.Attempts), at(e.CreatedAt), due, e.Subject.String(),
				cmp.Or(oneLine(e.LastError), "-"),
			})
		}
		return printTable(t.out, rows)
	}), nil
}

// printedEvent is an event as it is printed in a list.
type printedEvent struct {
	ID        int64         `json:"eventId"`
	Key       string        `json:"key"`
	Kind      webhook.Kind  `json:"kind"`
	Subject   string        `json:"subject"`
	State     webhook.State `json:"state"`
	Attempts  int           `json:"attempts"`
	Created   string        `json:"created"`
	LastError string        `json:"lastError,omitempty"`
}

func printedEvents(events []webhook.Delivery) []printedEvent {
	list := make([]printedEvent, len(events))
	for i, e := range events {
		list[i] = printedEvent{e.ID, e.Key.String(), e.Kind, e.Subject.String(), e.State, e.Attempts, at(e.CreatedAt), e.LastError}
	}
	return list
}

func parseWebhookInspect(flags *flag.FlagSet, args []string) (task, error) {
	slug, ids, err := eventArguments(flags, args)
	if err == nil && len(ids) != 1 {
		err = errors.New("it takes one EVENT")
	}
	return ofTenant(slug, func(ctx context.Context, t tools, tenant uuid.UUID) error {
		e, attempts, err := t.db.EventAttempts(ctx, tenant, ids[0])
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(t.out, "event    %d\nkey      %s\nkind     %s\nsubject  %s\nstate    %s\ncreated  %s\nbody     %s\n\n",
			e.ID, e.Key, e.Kind, e.Subject, e.State, at(e.CreatedAt), oneLine(string(e.Payload))); err != nil {
			return err
		}
		rows := [][]string{{"ATTEMPT", "AT", "TOOK", "STATUS", "ERROR"}}
		for _, a := range attempts {
			status := "-"
			if a.Status != 0 {
				status = strconv.Itoa(a.Status)
			}
			rows = append(rows, []string{strconv.Itoa(a.Number), at(a.At), a.Duration.String(), status, cmp.Or(oneLine(a.Error), "-")})
		}
		return printTable(t.out, rows)
	}), err
}

func parseWebhookReplay(flags *flag.FlagSet, args []string) (task, error) {
	all := flags.Bool("all", false, "all that were given up")
	slug, ids, err := eventArguments(flags, args)
	if err == nil && *all == (len(ids) > 0) {
		err = errors.New("name events, or give -all")
	}
	return ofTenant(slug, func(ctx context.Context, t tools, tenant uuid.UUID) error {
		n, err := replayed(ctx, t, tenant, ids)
		_, printed := fmt.Fprintln(t.out, n)
		return errors.Join(err, printed)
	}), err
}

// replayed makes dead events due again, those that are named or all, and returns how many. A named one that is not dead
// is an error.
func replayed(ctx context.Context, t tools, tenant uuid.UUID, ids []int64) (n int, err error) {
	if len(ids) == 0 {
		return t.db.ReplayEvents(ctx, tenant, nil, t.actor)
	}
	// Whichever of a subject's is made due first is in front.
	for _, id := range slices.Compact(slices.Sorted(slices.Values(ids))) {
		if err := t.db.ReplayEvent(ctx, tenant, id, t.actor); err != nil {
			return n, fmt.Errorf("event %d: %w", id, err)
		}
		n++
	}
	return n, nil
}

func parseWebhookDiscard(flags *flag.FlagSet, args []string) (task, error) {
	slug, ids, err := eventArguments(flags, args)
	if err == nil && len(ids) == 0 {
		err = errors.New("EVENT is missing")
	}
	return ofTenant(slug, func(ctx context.Context, t tools, tenant uuid.UUID) error {
		for _, id := range ids {
			if err := t.db.DiscardEvent(ctx, tenant, id, t.actor); err != nil {
				return fmt.Errorf("event %d: %w", id, err)
			}
		}
		return nil
	}), err
}

// eventArguments reads "TENANT EVENT... options".
func eventArguments(flags *flag.FlagSet, args []string) (slug string, ids []int64, err error) {
	n := 0
	for n < len(args) && !strings.HasPrefix(args[n], "-") {
		n++
	}
	if _, err := arguments(flags, args[n:]); err != nil {
		return "", nil, err
	}
	if n == 0 {
		return "", nil, errors.New("TENANT is missing")
	}
	for _, arg := range args[1:n] {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return "", nil, errors.New("an event is named by its number")
		}
		ids = append(ids, id)
	}
	return args[0], ids, nil
}
