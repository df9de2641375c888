package esl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/percipia/eslgo"
	"github.com/percipia/eslgo/command"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// CommandError is a refusal: the switch replied, and the reply is not success.
type CommandError struct {
	Command string // without arguments
	Reply   string // as the switch wrote it, without space around; it may repeat arguments
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("the switch refuses %s: %.200q", e.Command, e.Reply)
}

// API runs a command of the switch and returns what it printed, which is never empty. It waits for the commands before
// it: one that takes long, as originate does, has no place here. Each argument is one word that the switch takes for
// itself; others are refused with an *invalid.FieldError. A reply that begins with -ERR or -USAGE is a *CommandError,
// as is -ERR no reply, which the switch says for a command that prints nothing. Further errors: ErrDown, ErrLost, that
// of ctx. A caller whose ctx ends gets its error at once; the command runs on.
func (c *Client) API(ctx context.Context, name string, args ...string) (string, error) {
	return c.run(ctx, c.commands, name, args)
}

// run runs a command over one of the connections.
func (c *Client) run(ctx context.Context, over *place, name string, args []string) (string, error) {
	if err := checkWords(name, args); err != nil {
		return "", err
	}
	began := time.Now()
	out, err := c.api(ctx, over, name, args)
	c.opts.Metrics.commanded(c.opts.Node.Name, err, time.Since(began))
	return out, err
}

func (c *Client) api(ctx context.Context, over *place, name string, args []string) (string, error) {
	l := over.link()
	if l == nil {
		return "", ErrDown
	}
	r, err := l.send(ctx, command.API{Command: name, Arguments: strings.Join(args, " ")})
	if err != nil {
		return "", err
	}
	out := string(r.Body)
	// A command that we may not run is refused like one of the event socket's own.
	if r.Headers.Get("Content-Type") == eslgo.TypeReply {
		out = r.Headers.Get("Reply-Text")
	}
	if reply := strings.TrimSpace(out); reply == "" || strings.HasPrefix(reply, "-ERR") || strings.HasPrefix(reply, "-USAGE") {
		return "", &CommandError{Command: name, Reply: reply}
	}
	return out, nil
}

// sofia runs a command of the SIP profiles that says +OK when it has done what it was asked. Not all failures begin
// with -ERR: an unknown profile is answered with "Invalid Profile".
func (c *Client) sofia(ctx context.Context, args ...string) error {
	const name = "sofia"
	out, err := c.API(ctx, name, args...)
	return succeeded(name, out, err)
}

func succeeded(name, out string, err error) error {
	if err == nil && !strings.HasPrefix(out, "+OK") {
		return &CommandError{Command: name, Reply: strings.TrimSpace(out)}
	}
	return err
}

// flushCache goes over the connection for events, past the commands that wait for their turn. Those that ask a SIP
// profile wait for its database, in naps of a tenth of a second while phones register (switch_core_db.c,
// switch_core_db_exec), and as long as a user is in the cache he can register again. It only touches the switch's
// memory, so it holds up no event.
func (c *Client) flushCache(ctx context.Context, args ...string) error {
	const name = "xml_flush_cache"
	out, err := c.run(ctx, c.events, name, args)
	return succeeded(name, out, err)
}

var commandName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// wordSyntax is what the switch takes for the end of an argument, for quotes or for an escape
// (switch_utils.c, switch_separate_string), and what expands variables.
const wordSyntax = " '\\$`"

// eventSocket is what no argument may contain: mod_event_socket takes any command in whose text it finds its own name
// and "unload" or "reload" for the command to unload or reload itself (mod_event_socket.c, parse_command).
const eventSocket = "mod_event_socket"

func checkWords(name string, args []string) error {
	if !commandName.MatchString(name) {
		return invalidArgument("command", "is not the name of a command")
	}
	for i, arg := range args {
		if err := checkWord("argument "+strconv.Itoa(i+1), arg); err != nil {
			return err
		}
	}
	return nil
}

func checkWord(name, word string) error {
	switch {
	case word == "":
		return invalidArgument(name, "is empty")
	case strings.ContainsAny(word, wordSyntax):
		return invalidArgument(name, "has a space, quote, backslash or dollar sign")
	case strings.HasPrefix(word, "^^"):
		return invalidArgument(name, "begins with ^^, which chooses another separator")
	case strings.Contains(strings.ToLower(word), eventSocket):
		return invalidArgument(name, "names the event socket's module")
	}
	if what, bad := fstext.Hazard(word); bad {
		return invalidArgument(name, "has "+what)
	}
	return nil
}

// FlushUser makes the switch forget the directory's answer about a user, who is looked up anew at the next request:
// under both keys, as phones are looked up by id, and commands can ask by alias. Realm and user are as in the lookup,
// letter case included. It is no error if nothing was remembered. It waits for none of the commands that are sent by
// API.
func (c *Client) FlushUser(ctx context.Context, realm, user string) error {
	if err := checkRealm("realm", realm); err != nil {
		return err
	}
	// With no user the switch would forget everybody.
	if err := checkUser("user", user); err != nil {
		return err
	}
	if err := c.flushCache(ctx, "id", user, realm); err != nil {
		return err
	}
	return c.flushCache(ctx, "number-alias", user, realm)
}

// FlushUsers makes the switch forget the directory's answers about everybody, and waits for as little as FlushUser.
func (c *Client) FlushUsers(ctx context.Context) error { return c.flushCache(ctx) }

// EmptyCache is FlushUsers that returns how many answers were remembered. A user can be remembered under several keys.
func (c *Client) EmptyCache(ctx context.Context) (int, error) {
	const name = "xml_flush_cache"
	out, err := c.run(ctx, c.events, name, nil)
	if err := succeeded(name, out, err); err != nil {
		return 0, err
	}
	found := clearedCount.FindStringSubmatch(out)
	if found == nil {
		return 0, &CommandError{Command: name, Reply: strings.TrimSpace(out)}
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		return 0, fmt.Errorf("answers that were remembered: %w", err)
	}
	return n, nil
}

var clearedCount = regexp.MustCompile(`^\+OK cleared (\d+) entr`)

// FlushRegistration drops the registrations of an address of record, as if they had expired. User and host are as the
// switch stores them, letter case included: the phones of an extension on TLS are another user than those on UDP.
// Either may be a forger's: the host need be no realm of anybody. It is no error if there is none.
func (c *Client) FlushRegistration(ctx context.Context, profile, user, host string) error {
	if err := CheckRegistration(profile, user, host); err != nil {
		return err
	}
	return c.sofia(ctx, "profile", profile, "flush_inbound_reg", user+"@"+host)
}

// CheckRegistration tells, by an *invalid.FieldError, why FlushRegistration refuses its arguments; nil if it does not.
func CheckRegistration(profile, user, host string) error {
	if err := checkProfile("profile", profile); err != nil {
		return err
	}
	if !storedUserSyntax.MatchString(user) {
		return invalidArgument("user", "is not 1 to 128 letters, digits, dots, hyphens, plus signs, underscores and tildes")
	}
	if !storedHostSyntax.MatchString(host) {
		return invalidArgument("host", "is not 1 to 253 letters, digits, dots, colons, hyphens and square brackets")
	}
	if err := checkWord("user", user); err != nil {
		return err
	}
	return checkWord("host", host)
}

// FlushRegistrations drops the registrations of everybody in a realm. It is no error if there is none.
func (c *Client) FlushRegistrations(ctx context.Context, profile, realm string) error {
	if err := checkProfile("profile", profile); err != nil {
		return err
	}
	if err := checkRealm("realm", realm); err != nil {
		return err
	}
	return c.sofia(ctx, "profile", profile, "flush_inbound_reg", "@"+realm)
}

// HangUp ends a channel as rejected. It is no error if there is none.
func (c *Client) HangUp(ctx context.Context, channel uuid.UUID) error {
	_, err := c.API(ctx, "uuid_kill", channel.String(), "CALL_REJECTED")
	if e, ok := errors.AsType[*CommandError](err); ok && strings.HasPrefix(e.Reply, "-ERR No such channel") {
		return nil
	}
	return err
}

// Registrations counts the phones that are registered, over all SIP profiles. It asks each profile for its number: show
// registrations, which reads another table, counts those that were dropped until they would have expired.
func (c *Client) Registrations(ctx context.Context) (int, error) {
	profiles, err := c.profiles(ctx)
	if err != nil {
		return 0, err
	}
	total := 0
	for _, profile := range profiles {
		status, err := c.API(ctx, "sofia", "xmlstatus", "profile", profile)
		if err != nil {
			return 0, err
		}
		found := registrationCount.FindStringSubmatch(status)
		if found == nil {
			return 0, &CommandError{Command: "sofia", Reply: strings.TrimSpace(status)}
		}
		n, err := strconv.Atoi(found[1])
		if err != nil {
			return 0, fmt.Errorf("registrations of profile %s: %w", profile, err)
		}
		total += n
	}
	return total, nil
}

var registrationCount = regexp.MustCompile(`<registrations>(\d+)</registrations>`)

// profiles lists the SIP profiles that run. The switch lists each again for TLS and for WebSocket, and aliases and
// gateways besides.
func (c *Client) profiles(ctx context.Context) ([]string, error) {
	list, err := c.API(ctx, "sofia", "xmlstatus")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, found := range listedProfile.FindAllStringSubmatch(list, -1) {
		if name := found[1]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

var listedProfile = regexp.MustCompile(`<profile>\s*<name>(.*)</name>`)

// Status is how a switch is.
type Status struct {
	// Ready tells whether the core has started and takes calls.
	Ready   bool
	Version string
	Uptime  time.Duration // of the process
	// Sessions is the number of channels that are up: two for a call between two phones.
	Sessions int
	// MaxSessions is how many there may be.
	MaxSessions int
}

// Status asks the switch how it is.
func (c *Client) Status(ctx context.Context) (Status, error) {
	out, err := c.API(ctx, "json", `{"command":"status","data":""}`)
	if err != nil {
		return Status{}, err
	}
	var reply struct {
		Response struct {
			SystemStatus string                   `json:"systemStatus"`
			Version      string                   `json:"version"`
			Uptime       map[string]time.Duration `json:"uptime"` // numbers of the units below
			Sessions     struct {
				Count struct{ Active, Limit int } `json:"count"`
			} `json:"sessions"`
		} `json:"response"`
	}
	if err := json.Unmarshal([]byte(out), &reply); err != nil || reply.Response.SystemStatus == "" {
		return Status{}, &CommandError{Command: "json", Reply: strings.TrimSpace(out)}
	}
	r := reply.Response
	s := Status{
		Ready: r.SystemStatus == "ready", Version: r.Version,
		Sessions: r.Sessions.Count.Active, MaxSessions: r.Sessions.Count.Limit,
	}
	for unit, n := range r.Uptime {
		s.Uptime += n * uptimeUnits[unit]
	}
	return s, nil
}

// uptimeUnits are those that the switch splits its uptime into (switch_core.c, switch_core_measure_time).
var uptimeUnits = map[string]time.Duration{
	"years": 365 * 24 * time.Hour, "days": 24 * time.Hour, "hours": time.Hour, "minutes": time.Minute, "seconds": time.Second,
	"milliseconds": time.Millisecond, "microseconds": time.Microsecond,
}

// What the arguments of commands are made of. A user may be one of those that an extension's phones are stored under.
var (
	userSyntax = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~-]{0,79}$`)
	// A stored user and a host may be a forger's.
	storedUserSyntax = regexp.MustCompile(`^[A-Za-z0-9._~+-]{1,128}$`)
	storedHostSyntax = regexp.MustCompile(`^[A-Za-z0-9.:\[\]-]{1,253}$`)
	profileSyntax    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

func checkRealm(name, realm string) error {
	if _, err := fstext.ParseRealm(realm); err != nil {
		return invalid.Because(name, err)
	}
	return checkWord(name, realm)
}

func checkUser(name, user string) error {
	if !userSyntax.MatchString(user) {
		return invalidArgument(name, "is not 1 to 80 letters, digits, dots, hyphens, underscores and tildes")
	}
	return checkWord(name, user)
}

func checkProfile(name, profile string) error {
	if !profileSyntax.MatchString(profile) {
		return invalidArgument(name, "is not 1 to 64 letters, digits, dots, hyphens and underscores")
	}
	return checkWord(name, profile)
}
