package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/trunk"
)

var trunkGroup = group{
	name: "trunk",
	usage: `integration-api trunk manages the trunks of tenants. Commands:

  create TENANT     create a trunk, and print its id: -name and -host at least; trunk create -help lists the options
  set TENANT ID     change what is given of it, and nothing else
  delete TENANT ID  delete it for good: its numbers are free
  list TENANT       the trunks: -status STATUS
  show TENANT ID    one trunk, as JSON, without its password
  status TENANT ID  what each switch has made of it

A tenant is named by its slug. Lists are written with commas. A password is read from a file; "-" is the standard input. list
and status take -json. W3 and a running serve hear of changes by themselves.
`,
	commands: map[string]func(*flag.FlagSet, []string) (task, error){
		"create": parseTrunkCreate, "set": parseTrunkSet, "delete": parseTrunkDelete, "list": parseTrunkList, "show": parseTrunkShow,
		"status": parseTrunkStatus,
	},
}

func (t tools) trunks() *trunk.Provisioner { return trunk.NewProvisioner(t.db, t.keys) }

// trunkOptions are those of create and set.
type trunkOptions struct {
	flags *flag.FlagSet
	// spec is filled by the flags, but for what spec reads from the others.
	spec                            trunk.Spec
	storeID, status                 string
	passwordFile, policyFile        string
	sources, prefixes, codecs, dids list
}

// list is a flag of texts with commas between them. An empty one is an empty list.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = list{}
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*l = append(*l, part)
		}
	}
	return nil
}

func newTrunkOptions(flags *flag.FlagSet) *trunkOptions {
	o := &trunkOptions{flags: flags}
	s := &o.spec
	flags.StringVar(&s.Name, "name", "", "what people call it")
	flags.StringVar(&s.Provider, "provider", "", "whose it is")
	flags.StringVar(&s.Description, "description", "", "for people")
	flags.StringVar(&o.storeID, "store-id", "", "W3's id of the store it belongs to")
	flags.StringVar(&s.Host, "host", "", "the carrier: a host name or an address")
	flags.IntVar(&s.Port, "port", 5060, "the carrier's port")
	flags.StringVar(&s.Protocol, "protocol", "udp", "udp, tcp or tls")
	flags.StringVar(&s.Proxy, "proxy", "", "host or host:port, where requests are sent in the place of the host")
	flags.IntVar(&s.MaxChannels, "max-channels", 30, "calls at the same time, both directions together; 0 means no limit")
	flags.IntVar(&s.Priority, "priority", 100, "calls out try the trunk with the lowest first")
	flags.StringVar(&o.status, "status", "active", "active or disabled")
	flags.Var(&o.sources, "source-addresses", "where the carrier calls from, in CIDR form; none means the host, if that is an address")
	flags.BoolVar(&s.Register, "register", false, "register at the carrier, which needs -username and -password-file")
	flags.StringVar(&s.Username, "username", "", "what we log in with at the carrier")
	flags.StringVar(&o.passwordFile, "password-file", "", "file that holds the password; - is the standard input")
	flags.StringVar(&s.CallerIDPolicy, "caller-id-policy", "trunk", "whose number calls out show: trunk, extension or withheld")
	flags.StringVar(&s.CallerIDNumber, "caller-id-number", "", "the trunk's number, in E.164 form")
	flags.StringVar(&s.NumberFormat, "number-format", "plus", "how the carrier wants called numbers: plus, digits or zeros")
	flags.StringVar(&s.TechPrefix, "tech-prefix", "", "put before every called number")
	flags.Var(&o.prefixes, "prefixes", "beginnings of the E.164 numbers that it carries, without the plus sign; none means all numbers")
	flags.Var(&o.codecs, "codecs", "in order of preference; none means what the switch offers")
	flags.IntVar(&s.PingSeconds, "ping-seconds", 0, "OPTIONS to the carrier every so many seconds; 0 means none")
	flags.StringVar(&s.AIAgentRef, "ai-agent-ref", "", "W3's agent that answers calls")
	flags.StringVar(&o.policyFile, "ai-time-policy-file", "", "file that holds a JSON object; - is the standard input; null takes it away")
	flags.StringVar(&s.AIFailoverExtension, "ai-failover-extension", "", "the extension that takes calls when no agent does")
	flags.Var(&o.dids, "did-ranges", "numbers, and ranges with a hyphen, in E.164 form or as they are dialled in the tenant's country")
	return o
}

// read returns the trunk that the options describe. An option that was not given has its default.
func (o *trunkOptions) read(in io.Reader) (s trunk.Spec, err error) {
	s = o.spec
	s.SourceAddresses, s.Prefixes, s.Codecs = o.sources, o.prefixes, o.codecs
	s.DIDRanges = make([]trunk.DIDRange, len(o.dids))
	for i, text := range o.dids {
		s.DIDRanges[i] = trunk.ParseDIDRange(text)
	}
	if o.storeID != "" {
		if s.StoreID, err = uuid.Parse(o.storeID); err != nil {
			return s, errors.New("-store-id is not a UUID")
		}
	}
	if o.passwordFile != "" {
		if s.Password, err = readPassword(o.passwordFile, in); err != nil {
			return s, err
		}
	}
	if o.policyFile != "" {
		s.AITimePolicy, err = readPolicy(o.policyFile, in)
	}
	return s, err
}

// maxPolicyFile bounds what is read of a file that may be the wrong one.
const maxPolicyFile = 64 << 10

func readPolicy(file string, in io.Reader) (json.RawMessage, error) {
	if file != "-" {
		f, err := os.Open(file) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, fmt.Errorf("-ai-time-policy-file: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxPolicyFile))
	if err != nil {
		return nil, fmt.Errorf("-ai-time-policy-file: %w", err)
	}
	if len(b) == 0 {
		return nil, errors.New("-ai-time-policy-file: there is nothing in it")
	}
	return b, nil
}

// change returns a change of those options that were given.
func (o *trunkOptions) change(s trunk.Spec) trunk.Change {
	c := trunk.Change{
		StoreID: ifSet(o, "store-id", &s.StoreID), Name: ifSet(o, "name", &s.Name), Provider: ifSet(o, "provider", &s.Provider),
		Description: ifSet(o, "description", &s.Description), Host: ifSet(o, "host", &s.Host), Port: ifSet(o, "port", &s.Port),
		Protocol: ifSet(o, "protocol", &s.Protocol), Proxy: ifSet(o, "proxy", &s.Proxy), MaxChannels: ifSet(o, "max-channels", &s.MaxChannels),
		Priority: ifSet(o, "priority", &s.Priority), Register: ifSet(o, "register", &s.Register), Username: ifSet(o, "username", &s.Username),
		Password: ifSet(o, "password-file", &s.Password), CallerIDPolicy: ifSet(o, "caller-id-policy", &s.CallerIDPolicy),
		CallerIDNumber: ifSet(o, "caller-id-number", &s.CallerIDNumber), NumberFormat: ifSet(o, "number-format", &s.NumberFormat),
		TechPrefix: ifSet(o, "tech-prefix", &s.TechPrefix), PingSeconds: ifSet(o, "ping-seconds", &s.PingSeconds),
		AIAgentRef: ifSet(o, "ai-agent-ref", &s.AIAgentRef), AITimePolicy: s.AITimePolicy,
		AIFailoverExtension: ifSet(o, "ai-failover-extension", &s.AIFailoverExtension), Status: ifSet(o, "status", &o.status),
		// A list that was not given is nil.
		SourceAddresses: s.SourceAddresses, Prefixes: s.Prefixes, Codecs: s.Codecs,
	}
	if isSet(o.flags, "did-ranges") {
		c.DIDRanges = s.DIDRanges
	}
	return c
}

// ifSet returns a value of an option that was given, and nil of another.
func ifSet[T any](o *trunkOptions, name string, value *T) *T {
	if isSet(o.flags, name) {
		return value
	}
	return nil
}

// optionNamed names a field as the operator does.
func optionNamed(err error) error {
	f, ok := errors.AsType[*invalid.FieldError](err)
	if !ok {
		return err
	}
	var name strings.Builder
	for i, r := range f.Name {
		// aiAgentRef is -ai-agent-ref.
		if i > 0 && unicode.IsUpper(r) {
			name.WriteByte('-')
		}
		name.WriteRune(unicode.ToLower(r))
	}
	if f.Name == "password" || f.Name == "aiTimePolicy" {
		name.WriteString("-file")
	}
	return &invalid.FieldError{Name: name.String(), Reason: f.Reason}
}

func parseTrunkCreate(flags *flag.FlagSet, args []string) (task, error) {
	id := flags.String("id", "", "its id, with which the same again creates it once; made up if not given")
	o := newTrunkOptions(flags)
	a, err := arguments(flags, args, "TENANT")
	if err != nil {
		return nil, err
	}
	made := uuid.New()
	if *id != "" {
		if made, err = uuid.Parse(*id); err != nil {
			return nil, errors.New("-id is not a UUID")
		}
	}
	switch trunk.Status(o.status) {
	case trunk.StatusActive:
	case trunk.StatusDisabled:
		o.spec.Disabled = true
	default:
		return nil, errors.New("-status is neither active nor disabled")
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error {
		spec, err := o.read(t.in)
		if err != nil {
			return err
		}
		spec.TenantID = tenant
		r, _, err := t.trunks().Create(ctx, made, spec, t.actor)
		if err != nil {
			return optionNamed(err)
		}
		_, err = fmt.Fprintln(t.out, r.ID)
		return err
	}), nil
}

func parseTrunkSet(flags *flag.FlagSet, args []string) (task, error) {
	o := newTrunkOptions(flags)
	do, err := tenantIDTask(flags, args, func(ctx context.Context, t tools, tenant, id uuid.UUID) error {
		spec, err := o.read(t.in)
		if err != nil {
			return err
		}
		_, _, err = t.trunks().Change(ctx, tenant, id, o.change(spec), t.actor)
		return optionNamed(err)
	})
	if err == nil && flags.NFlag() == 0 {
		return nil, errors.New("nothing to change; trunk set -help lists the options")
	}
	return do, err
}

func parseTrunkDelete(flags *flag.FlagSet, args []string) (task, error) {
	return tenantIDTask(flags, args, func(ctx context.Context, t tools, tenant, id uuid.UUID) error {
		_, _, err := t.trunks().Delete(ctx, tenant, id, t.actor)
		return err
	})
}

func parseTrunkShow(flags *flag.FlagSet, args []string) (task, error) {
	return tenantIDTask(flags, args, func(ctx context.Context, t tools, tenant, id uuid.UUID) error {
		r, err := t.trunks().Get(ctx, tenant, id)
		if err != nil {
			return err
		}
		return printJSON(t.out, api.TrunkOf(r))
	})
}

func parseTrunkList(flags *flag.FlagSet, args []string) (task, error) {
	status := flags.String("status", "", "active, disabled or deleted; all that are not deleted if not given")
	asJSON := flags.Bool("json", false, "print JSON")
	a, err := arguments(flags, args, "TENANT")
	if err != nil {
		return nil, err
	}
	switch trunk.Status(*status) {
	case "", trunk.StatusActive, trunk.StatusDisabled, trunk.StatusDeleted:
	default:
		return nil, errors.New("-status is one of active, disabled, deleted")
	}
	return ofTenant(a[0], func(ctx context.Context, t tools, tenant uuid.UUID) error {
		all, err := t.allTrunks(ctx, tenant, trunk.Status(*status))
		if err != nil {
			return err
		}
		if *asJSON {
			shown := make([]api.Trunk, len(all))
			for i, r := range all {
				shown[i] = api.TrunkOf(r)
			}
			return printJSON(t.out, shown)
		}
		return printTrunks(t.out, all)
	}), nil
}

// trunksAtOnce is how many trunks are read at a time.
const trunksAtOnce = 500

func (t tools) allTrunks(ctx context.Context, tenant uuid.UUID, status trunk.Status) ([]trunk.Record, error) {
	var all []trunk.Record
	for f := (trunk.Filter{Status: status, Limit: trunksAtOnce}); ; {
		page, err := t.trunks().List(ctx, tenant, f)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if len(page) < f.Limit {
			return all, nil
		}
		f.After = page[len(page)-1].ID
	}
}

func printTrunks(out io.Writer, all []trunk.Record) error {
	rows := [][]string{{"ID", "NAME", "STATUS", "HOST", "PROTOCOL", "REGISTER", "CHANNELS", "PRIORITY", "DID RANGES"}}
	for _, r := range all {
		dids := make([]string, len(r.Ranges))
		for i, d := range r.Ranges {
			dids[i] = d.String()
		}
		rows = append(rows, []string{
			r.ID.String(), r.Name.String(), string(r.Status), r.Host.Text().String() + ":" + strconv.Itoa(r.Port), string(r.Protocol), yesNo(r.Register),
			strconv.Itoa(r.MaxChannels), strconv.Itoa(r.Priority), orDash(strings.Join(dids, ",")),
		})
	}
	return printTable(out, rows)
}

func parseTrunkStatus(flags *flag.FlagSet, args []string) (task, error) {
	asJSON := flags.Bool("json", false, "print JSON")
	return tenantIDTask(flags, args, func(ctx context.Context, t tools, tenant, id uuid.UUID) error {
		states, err := t.trunks().Nodes(ctx, tenant, id)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(t.out, api.TrunkStatusOf(states))
		}
		rows := [][]string{{"NODE", "STATUS", "WANTED", "APPLIED", "CONVERGED", "REGISTRATION", "PING", "SEEN", "ERROR"}}
		for _, n := range api.TrunkStatusOf(states).Nodes {
			seen := time.Time{}
			if n.SeenAt != nil {
				seen = *n.SeenAt
			}
			rows = append(rows, []string{
				n.Node, n.Status, strconv.FormatInt(n.Wanted, 10), strconv.FormatInt(n.Applied, 10), yesNo(n.Converged), orDash(n.Registration),
				orDash(n.Ping), at(seen), orDash(n.Error),
			})
		}
		r, err := t.trunks().Get(ctx, tenant, id)
		if err != nil {
			return err
		}
		for _, w := range r.Warnings() {
			if _, err := fmt.Fprintln(t.out, "warning:", w); err != nil {
				return err
			}
		}
		return printTable(t.out, rows)
	})
}

// orDash is a cell of a table.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return oneLine(s)
}
