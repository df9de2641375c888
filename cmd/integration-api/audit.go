package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
)

var auditGroup = group{
	name: "audit",
	usage: `integration-api audit shows what was done. Commands:

  list  the audit log, the newest first: -tenant SLUG, -subject ID, -actor, -action, -correlation ID, -since, -until,
        -limit N, -json

-since and -until are a time (2026-01-31T08:00:00Z) or how long ago that was (90m).
`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){"list": parseAuditList},
}

func parseAuditList(flags *flag.FlagSet, args []string) (task, error) {
	tenant := flags.String("tenant", "", "only of the tenant of this slug")
	subject := flags.String("subject", "", "only about what has this id")
	actor := flags.String("actor", "", "only by him, as he is listed")
	action := flags.String("action", "", "only this, as it is listed")
	correlation := flags.String("correlation", "", "only what the request or command of this id did")
	since := flags.String("since", "", "only then or later")
	until := flags.String("until", "", "only before")
	limit := flags.Int("limit", 100, "at most so many")
	asJSON := flags.Bool("json", false, "print JSON, which has before and after")
	if _, err := arguments(flags, args); err != nil {
		return nil, err
	}
	f := integration.AuditFilter{Actor: *actor, Action: *action, CorrelationID: *correlation, Limit: *limit}
	if *limit < 1 || *limit > 100000 {
		return nil, errors.New("-limit is not between 1 and 100000")
	}
	var err error
	if *subject != "" {
		if f.SubjectID, err = uuid.Parse(*subject); err != nil {
			return nil, errors.New("-subject is not a UUID")
		}
	}
	var ok bool
	if f.From, ok = instant(*since, time.Now()); !ok {
		return nil, errors.New("-since is neither a time nor how long ago")
	}
	if f.To, ok = instant(*until, time.Now()); !ok {
		return nil, errors.New("-until is neither a time nor how long ago")
	}
	return func(ctx context.Context, t tools) error {
		if *tenant != "" {
			r, err := t.tenant(ctx, *tenant)
			if err != nil {
				return err
			}
			f.TenantID = r.ID
		}
		entries, err := t.db.AuditLog(ctx, f)
		if err != nil {
			return err
		}
		return t.printAudit(entries, *asJSON)
	}, nil
}

// instant reads a time, or how long before now it was; nothing is no time.
func instant(s string, now time.Time) (at time.Time, ok bool) {
	if s == "" {
		return at, true
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), true
	}
	at, err := time.Parse(time.RFC3339, s)
	return at, err == nil
}

// printedEntry is a row of the audit log as it is printed.
type printedEntry struct {
	ID            int64           `json:"id"`
	At            time.Time       `json:"at"`
	Actor         string          `json:"actor"`
	Action        string          `json:"action"`
	TenantID      string          `json:"tenantId,omitempty"`
	SubjectID     uuid.UUID       `json:"subjectId"`
	CorrelationID string          `json:"correlationId,omitempty"`
	Before        json.RawMessage `json:"before,omitempty"`
	After         json.RawMessage `json:"after,omitempty"`
}

func (t tools) printAudit(entries []integration.AuditEntry, asJSON bool) error {
	list := make([]printedEntry, len(entries))
	rows := [][]string{{"ID", "AT", "ACTOR", "ACTION", "TENANT", "SUBJECT", "CORRELATION"}}
	for i, e := range entries {
		p := printedEntry{
			ID: e.ID, At: e.At.UTC(), Actor: e.Actor, Action: e.Action, SubjectID: e.SubjectID, CorrelationID: e.CorrelationID,
			Before: e.Before, After: e.After,
		}
		if e.TenantID != uuid.Nil {
			p.TenantID = e.TenantID.String()
		}
		list[i] = p
		rows = append(rows, []string{
			strconv.FormatInt(p.ID, 10), at(p.At), oneLine(p.Actor), p.Action, cmp.Or(p.TenantID, "-"), p.SubjectID.String(),
			cmp.Or(oneLine(p.CorrelationID), "-"),
		})
	}
	if asJSON {
		return printJSON(t.out, list)
	}
	return printTable(t.out, rows)
}
