package fleet

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/node"
)

// Switch is a connection to a switch, as far as the fleet needs one. A command that fails because the switch is away says
// so, see down. Implementations are safe for concurrent use.
type Switch interface {
	// Run connects, and connects again, until ctx ends.
	Run(ctx context.Context) error
	// Up tells whether there is a connection now.
	Up() bool
	// FlushUser forgets a cached user, by one name.
	FlushUser(ctx context.Context, realm, user string) error
	// FlushUsers forgets all cached users.
	FlushUsers(ctx context.Context) error
	// FlushRegistration drops the registrations of a stored user of a realm on a profile; with no user, of everybody there.
	FlushRegistration(ctx context.Context, profile, user, realm string) error
	// Registrations counts registrations.
	Registrations(ctx context.Context) (int, error)
	// ListRegistrations returns the registrations of a profile.
	ListRegistrations(ctx context.Context, profile string) ([]Seen, error)
	// ListGateways returns the gateways of the carriers' profile, those that are being removed too, but not their revisions.
	ListGateways(ctx context.Context) ([]Gateway, error)
	// Gateway returns the gateway of a trunk; ok is false if there is none, or it is being removed.
	Gateway(ctx context.Context, trunk uuid.UUID) (l Gateway, ok bool, err error)
	// RemoveGateway makes the switch remove the gateway of a trunk, which takes it some time; Handlers.Gateway tells when it
	// has. LoadGateway makes it load one that it does not have; that there is one afterwards Gateway tells. Neither touches
	// a call or another gateway.
	RemoveGateway(ctx context.Context, trunk uuid.UUID) error
	LoadGateway(ctx context.Context, trunk uuid.UUID) error
	// ReadAddresses makes the switch read the lists of carriers' addresses anew.
	ReadAddresses(ctx context.Context) error
}

// Handlers are what a connection tells of.
type Handlers struct {
	// Connected is called after each connection, and whenever registrations may have been missed, before anything that
	// is seen afterwards.
	Connected func(ctx context.Context) error
	// Registered is called for each registration. It does not block.
	Registered func(Seen)
	// Gateway is called for each change of a gateway. It does not block.
	Gateway func(GatewayEvent)
	// HungUp is called with the headers of the event of each channel that ends. It does not block.
	HungUp func(event map[string]string)
}

// Connect makes the connection to a switch, which does nothing until it is run.
type Connect func(n node.Node, password string, h Handlers) (Switch, error)

// down tells whether an error means that the switch is away.
func down(err error) bool { return unsent(err) || errors.Is(err, esl.ErrLost) }

// unsent tells whether a command failed because the switch was away already. Not so a command that it was lost over: that
// may be the very command which it does not answer.
func unsent(err error) bool { return errors.Is(err, esl.ErrDown) }

// maxReconnect is the longest wait before the next attempt to reach a switch that is away: its jobs wait as long.
const maxReconnect = 3 * time.Second

// Switches returns how real switches are connected to: over their event sockets.
func Switches(metrics *esl.Metrics, log *slog.Logger) Connect {
	return func(n node.Node, password string, h Handlers) (Switch, error) {
		client, err := esl.New(esl.Options{
			Node:   esl.Node{Name: n.Name, Address: n.Address, Password: password},
			Events: []string{eventRegister, eventGatewayState, eventGatewayDelete, eventHangup},
			Handle: func(_ context.Context, e esl.Event) {
				switch strings.TrimSpace(e.Name + " " + e.Subclass) {
				case eventRegister:
					h.Registered(registered(e))
				case eventGatewayState, eventGatewayDelete:
					h.Gateway(gatewayEvent(e))
				case eventHangup:
					h.HungUp(hungUp(e))
				}
			},
			Resync:     func(ctx context.Context, _ *esl.Client) error { return h.Connected(ctx) },
			Metrics:    metrics,
			Log:        log,
			MaxBackoff: maxReconnect,
		})
		if err != nil {
			return nil, err
		}
		return eventSocket{client}, nil
	}
}

const (
	eventRegister      = "CUSTOM sofia::register"
	eventGatewayState  = "CUSTOM sofia::gateway_state"
	eventGatewayDelete = "CUSTOM sofia::gateway_delete"
)

// registered reads the event of a registration. Its names are the switch's: "from" is the address that is kept, whatever
// From said (sofia_reg.c, sofia_reg_handle_register_token).
func registered(e esl.Event) Seen {
	return Seen{
		Profile: e.Get("profile-name"), User: e.Get("from-user"), Host: e.Get("from-host"), AuthUser: e.Get("username"), AuthRealm: e.Get("realm"),
		CallID: e.Get("call-id"), Agent: e.Get("user-agent"), IP: e.Get("network-ip"), Port: e.Get("network-port"),
	}
}

// eventSocket is a Switch by its event socket.
type eventSocket struct{ client *esl.Client }

func (s eventSocket) Run(ctx context.Context) error { return s.client.Run(ctx) }

func (s eventSocket) Up() bool { return s.client.Up() }

// FlushUser forgets a user under both keys: phones are looked up by id, and commands can ask by alias.
func (s eventSocket) FlushUser(ctx context.Context, realm, user string) error {
	if err := s.client.FlushUser(ctx, realm, user); err != nil {
		return err
	}
	return s.succeed(ctx, "xml_flush_cache", "number-alias", user, realm)
}

func (s eventSocket) FlushUsers(ctx context.Context) error { return s.succeed(ctx, "xml_flush_cache") }

// FlushRegistration also takes hosts that are no realm of anybody, which esl.Client's own does not: a forged registration
// can have one.
func (s eventSocket) FlushRegistration(ctx context.Context, profile, user, realm string) error {
	return s.succeed(ctx, "sofia", "profile", profile, "flush_inbound_reg", user+"@"+realm)
}

func (s eventSocket) Registrations(ctx context.Context) (int, error) {
	return s.client.Registrations(ctx)
}

func (s eventSocket) ListRegistrations(ctx context.Context, profile string) ([]Seen, error) {
	answer, err := s.client.API(ctx, "sofia", "xmlstatus", "profile", profile, "reg")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(answer, "<profile>") {
		return nil, &esl.CommandError{Command: "sofia", Reply: strings.TrimSpace(answer)}
	}
	return parseRegistrations(profile, answer), nil
}

// succeed runs a command that says +OK when it has done what it was asked.
func (s eventSocket) succeed(ctx context.Context, command string, args ...string) error {
	answer, err := s.client.API(ctx, command, args...)
	if err == nil && !strings.HasPrefix(answer, "+OK") {
		return &esl.CommandError{Command: command, Reply: strings.TrimSpace(answer)}
	}
	return err
}

// parseRegistrations reads the answer to "sofia xmlstatus profile … reg". It goes by lines and not by XML, since the
// switch writes what phones wrote as it is (mod_sofia.c, show_reg_callback_xml): a Call-ID can break the document, but it
// holds no line break, so it cannot leave its line.
func parseRegistrations(profile, answer string) []Seen {
	var list []Seen
	inside := false
	for line := range strings.SplitSeq(answer, "\n") {
		switch line {
		case "    <registration>":
			list, inside = append(list, Seen{Profile: profile}), true
			continue
		case "    </registration>":
			inside = false
			continue
		}
		if !inside {
			continue
		}
		if name, value, ok := element(line); ok {
			list[len(list)-1].set(name, value)
		}
	}
	return list
}

// element reads a line that holds one element.
func element(line string) (name, value string, ok bool) {
	line, ok = strings.CutPrefix(line, "        <")
	if !ok {
		return "", "", false
	}
	if name, value, ok = strings.Cut(line, ">"); !ok {
		return "", "", false
	}
	value, ok = strings.CutSuffix(value, "</"+name+">")
	return name, value, ok
}

func (s *Seen) set(name, value string) {
	switch name {
	case "call-id":
		s.CallID = value
	case "user":
		if i := strings.LastIndexByte(value, '@'); i >= 0 {
			s.User, s.Host = value[:i], value[i+1:]
		}
	case "agent":
		s.Agent = value
	case "network-ip":
		s.IP = value
	case "network-port":
		s.Port = value
	case "sip-auth-user":
		s.AuthUser = value
		if decoded, err := url.PathUnescape(value); err == nil {
			s.AuthUser = decoded
		}
	case "sip-auth-realm":
		s.AuthRealm = value
	}
}
