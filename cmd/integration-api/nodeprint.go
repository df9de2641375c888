package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/node"
)

// parsePrint reads the options of a command that only prints.
func parsePrint(command string, args []string, std streams) (asJSON bool, err error) {
	flags := newFlags("node "+command, std)
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	if err := flags.Parse(args); err != nil {
		return false, err
	}
	if flags.NArg() > 0 {
		return false, errors.New("it takes no arguments but options")
	}
	return asJSON, nil
}

func parseNodeList(args []string, std streams) (nodeCommand, error) {
	asJSON, err := parsePrint("list", args, std)
	return func(ctx context.Context, t nodeTools) error { return t.printList(ctx, asJSON) }, err
}

func parseNodeStatus(args []string, std streams) (nodeCommand, error) {
	asJSON, err := parsePrint("status", args, std)
	return func(ctx context.Context, t nodeTools) error { return t.printStatus(ctx, asJSON) }, err
}

// listedNode is a switch as it is printed.
type listedNode struct {
	Name        string `json:"name"`
	Address     string `json:"address"`
	Status      string `json:"status"`
	CachesUsers bool   `json:"cachesUsers"`
}

func listed(n node.Node) listedNode {
	l := listedNode{Name: n.Name, Address: n.Address, Status: "active", CachesUsers: n.CachesUsers}
	if !n.Active {
		l.Status = "disabled"
	}
	return l
}

func (t nodeTools) printList(ctx context.Context, asJSON bool) error {
	all, err := t.provisioner().List(ctx)
	if err != nil {
		return err
	}
	list := make([]listedNode, len(all))
	for i, n := range all {
		list[i] = listed(n)
	}
	if asJSON {
		return printJSON(t.std.out, list)
	}
	rows := [][]string{{"NAME", "ADDRESS", "STATUS", "CACHES USERS"}}
	for _, n := range list {
		rows = append(rows, []string{n.Name, n.Address, n.Status, yesNo(n.CachesUsers)})
	}
	return printTable(t.std.out, rows)
}

// nodeStatus is how a switch is, as it is printed.
type nodeStatus struct {
	listedNode

	Up            bool   `json:"up"`
	Version       string `json:"version,omitempty"`
	UptimeSeconds int64  `json:"uptimeSeconds"`
	Sessions      int    `json:"sessions"`
	Registrations int    `json:"registrations"`
	PendingJobs   int    `json:"pendingJobs"`
	// OldestJobSeconds is the age of the oldest pending job.
	OldestJobSeconds int64 `json:"oldestJobSeconds"`
	DeadJobs         int   `json:"deadJobs"`
}

func (t nodeTools) printStatus(ctx context.Context, asJSON bool) error {
	list, err := t.status(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(t.std.out, list)
	}
	rows := [][]string{{"NAME", "STATUS", "UPTIME", "SESSIONS", "REGISTRATIONS", "PENDING JOBS", "OLDEST", "DEAD JOBS", "VERSION"}}
	for _, n := range list {
		row := []string{n.Name, "down", "-", "-", "-", strconv.Itoa(n.PendingJobs), "-", strconv.Itoa(n.DeadJobs), "-"}
		switch {
		case n.Up:
			row[1], row[2], row[8] = "up", (time.Duration(n.UptimeSeconds) * time.Second).String(), cmp.Or(n.Version, "-")
			row[3], row[4] = strconv.Itoa(n.Sessions), strconv.Itoa(n.Registrations)
		case n.Status != "active":
			row[1] = n.Status
		}
		if n.PendingJobs > 0 {
			row[6] = (time.Duration(n.OldestJobSeconds) * time.Second).String()
		}
		rows = append(rows, row)
	}
	return printTable(t.std.out, rows)
}

// status asks the database and every active switch.
func (t nodeTools) status(ctx context.Context) ([]nodeStatus, error) {
	all, err := t.provisioner().List(ctx)
	if err != nil {
		return nil, err
	}
	backlogs, err := t.db.Backlogs(ctx)
	if err != nil {
		return nil, err
	}
	of := map[uuid.UUID]node.Backlog{}
	for _, b := range backlogs {
		of[b.NodeID] = b
	}
	list := make([]nodeStatus, len(all))
	var asking sync.WaitGroup
	for i, n := range all {
		b := of[n.ID]
		list[i] = nodeStatus{listedNode: listed(n), PendingJobs: b.Pending, DeadJobs: b.Dead}
		if b.Pending > 0 {
			list[i].OldestJobSeconds = int64(time.Since(b.Oldest).Seconds())
		}
		if n.Active {
			asking.Go(func() {
				if err := t.ask(ctx, n, &list[i]); err != nil {
					t.log.WarnContext(ctx, "no answer from the switch", "node", n.Name, "error", err)
				}
			})
		}
	}
	asking.Wait()
	return list, nil
}

// askTimeout bounds the question to one switch.
const askTimeout = 5 * time.Second

// ask connects to a switch and asks it how it is. Why a connection does not come about is in the log.
func (t nodeTools) ask(ctx context.Context, n node.Node, s *nodeStatus) error {
	password, err := node.Password(n, t.keys)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	failure := context.DeadlineExceeded
	client, err := esl.New(esl.Options{
		Node: esl.Node{Name: n.Name, Address: n.Address, Password: password}, Log: t.log.With(slog.String("command", "status")),
		Resync: func(ctx context.Context, c *esl.Client) error {
			failure = answer(ctx, c, s)
			cancel()
			return failure
		},
	})
	if err != nil {
		return err
	}
	return errors.Join(client.Run(ctx), failure)
}

func answer(ctx context.Context, c *esl.Client, s *nodeStatus) error {
	status, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if s.Registrations, err = c.Registrations(ctx); err != nil {
		return err
	}
	s.Up, s.Version, s.UptimeSeconds, s.Sessions = true, status.Version, int64(status.Uptime.Seconds()), status.Sessions
	return nil
}

// printedJob is a job as it is printed.
type printedJob struct {
	ID            int64           `json:"id"`
	Node          string          `json:"node"`
	Kind          node.Kind       `json:"kind"`
	State         node.State      `json:"state"`
	Attempts      int             `json:"attempts"`
	Created       time.Time       `json:"created"`
	Due           *time.Time      `json:"due,omitempty"`
	Finished      *time.Time      `json:"finished,omitempty"`
	TenantID      uuid.UUID       `json:"tenantId"`
	Subject       string          `json:"subject"`
	Task          json.RawMessage `json:"task"`
	CorrelationID string          `json:"correlationId,omitempty"`
	LastError     string          `json:"lastError,omitempty"`
}

func (t nodeTools) printJobs(ctx context.Context, f node.Filter, asJSON bool) error {
	all, err := t.provisioner().List(ctx)
	if err != nil {
		return err
	}
	names := map[uuid.UUID]string{}
	for _, n := range all {
		names[n.ID] = n.Name
	}
	jobs, err := t.db.Jobs(ctx, f)
	if err != nil {
		return err
	}
	list := make([]printedJob, len(jobs))
	for i, j := range jobs {
		list[i] = printedJob{
			ID: j.ID, Node: names[j.NodeID], Kind: j.Kind, State: j.State, Attempts: j.Attempts, Created: j.CreatedAt, TenantID: j.TenantID,
			Subject: j.Subject, Task: j.Payload, CorrelationID: j.CorrelationID, LastError: j.LastError,
		}
		if j.FinishedAt.IsZero() {
			list[i].Due = &j.DueAt
		} else {
			list[i].Finished = &j.FinishedAt
		}
	}
	if asJSON {
		return printJSON(t.std.out, list)
	}
	rows := [][]string{{"JOB", "NODE", "KIND", "STATE", "ATTEMPTS", "CREATED", "SUBJECT", "LAST ERROR"}}
	for _, j := range list {
		rows = append(rows, []string{
			strconv.FormatInt(j.ID, 10), j.Node, string(j.Kind), string(j.State), strconv.Itoa(j.Attempts),
			j.Created.UTC().Format(time.RFC3339), oneLine(j.Subject), cmp.Or(oneLine(j.LastError), "-"),
		})
	}
	return printTable(t.std.out, rows)
}

// oneLine keeps a table a table, and a terminal safe from what phones wrote.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printTable prints rows with their columns aligned.
func printTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		if _, err := fmt.Fprintln(t, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}
