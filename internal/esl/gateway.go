package esl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/trunk"
)

// Gateway is a trunk's gateway as a switch tells of it.
type Gateway struct {
	Trunk uuid.UUID
	// Revision is that of the document it was loaded from; 0 if the document had none.
	Revision int64
	// State is the state of its registration, one of gatewayStates; Ping is UP or DOWN.
	State, Ping string
}

// GatewayEvent is a change of a gateway.
type GatewayEvent struct {
	Gateway
	// Removed tells that the switch has removed it, and is done with that.
	Removed bool
	// Failure is what the carrier answered to a registration that failed, in its own words; empty if that is not what
	// happened.
	Failure string
}

// Kinds of events that tell of gateways; NewGatewayEvent reads them.
const (
	GatewayChanged = "CUSTOM sofia::gateway_state"
	GatewayDeleted = "CUSTOM sofia::gateway_delete"
)

// NoRegistration is the state of a gateway that does not register.
const NoRegistration = "NOREG"

// gatewayStates are the switch's own words for the state of a registration (mod_sofia.h, reg_state_t).
var gatewayStates = []string{
	"UNREGED", "TRYING", "REGISTER", "REGED", "UNREGISTER", "FAILED", "FAIL_WAIT", "EXPIRED", NoRegistration, "DOWN", "TIMEOUT",
}

// known keeps a word to a closed set.
func known(set []string, word string) string {
	if slices.Contains(set, word) {
		return word
	}
	return ""
}

// NewGatewayEvent reads an event about a gateway. A gateway that is no trunk's has the zero UUID.
func NewGatewayEvent(e Event) GatewayEvent {
	id, _ := uuid.Parse(e.Get("Gateway")) // without an error there is the zero UUID
	l := GatewayEvent{Gateway: newGateway(id, e.Get("State"), e.Get("Ping-Status")), Removed: "CUSTOM "+e.Subclass == GatewayDeleted}
	if status, err := strconv.Atoi(e.Get("Status")); err == nil && status >= 300 {
		l.Failure = strings.TrimSpace(fmt.Sprintf("the carrier answered %d %s", status, e.Get("Phrase")))
	}
	return l
}

func newGateway(id uuid.UUID, state, ping string) Gateway {
	return Gateway{Trunk: id, State: known(gatewayStates, state), Ping: known([]string{"UP", "DOWN"}, ping)}
}

// ListGateways returns the gateways of the carriers' profile, those that are being removed too, but not their
// revisions.
func (c *Client) ListGateways(ctx context.Context) ([]Gateway, error) {
	answer, err := c.API(ctx, "sofia", "xmlstatus", "gateway")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(answer, "<gateways>") {
		return nil, &CommandError{Command: "sofia", Reply: strings.TrimSpace(answer)}
	}
	return parseGateways(answer), nil
}

// Gateway returns the gateway of a trunk, with the revision that is in a variable of it; ok is false if there is none,
// or it is being removed.
func (c *Client) Gateway(ctx context.Context, id uuid.UUID) (g Gateway, ok bool, err error) {
	answer, err := c.API(ctx, "sofia", "xmlstatus", "gateway", id.String())
	if err != nil {
		return Gateway{}, false, err
	}
	list := parseGateways(answer)
	if len(list) != 1 || list[0].Trunk != id {
		return Gateway{}, false, nil
	}
	list[0].Revision, err = c.gatewayRevision(ctx, id)
	return list[0], err == nil, err
}

// gatewayRevision returns 0 for a gateway without the variable: the switch then prints nothing.
func (c *Client) gatewayRevision(ctx context.Context, id uuid.UUID) (int64, error) {
	answer, err := c.API(ctx, "sofia_gateway_data", id.String(), "ovar", trunk.VarRevision)
	if refusal, ok := errors.AsType[*CommandError](err); ok && strings.HasPrefix(refusal.Reply, "-ERR no reply") {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
	if err != nil {
		return 0, &CommandError{Command: "sofia_gateway_data", Reply: strings.TrimSpace(answer)}
	}
	return n, nil
}

// RemoveGateway makes the switch remove the gateway of a trunk, which takes it some time; an event tells when it has.
// It is no error if there is none.
func (c *Client) RemoveGateway(ctx context.Context, id uuid.UUID) error {
	err := c.sofia(ctx, "profile", directory.ProfileExternal, "killgw", id.String())
	if refusal, ok := errors.AsType[*CommandError](err); ok && strings.HasPrefix(refusal.Reply, "-ERR no such gateway") {
		return nil
	}
	return err
}

// LoadGateway makes the switch load the gateway of a trunk, which it does not have; that there is one afterwards
// Gateway tells. It uses startgw and not rescan, which would read the settings of the profile too, and warn of every
// other gateway that it is there already.
func (c *Client) LoadGateway(ctx context.Context, id uuid.UUID) error {
	return c.report(ctx, "sofia", "profile", directory.ProfileExternal, "startgw", id.String())
}

// ReadAddresses makes the switch read the lists of carriers' addresses anew.
func (c *Client) ReadAddresses(ctx context.Context) error { return c.report(ctx, "reloadacl") }

// report runs a command that says what it does before it says +OK.
func (c *Client) report(ctx context.Context, command string, args ...string) error {
	answer, err := c.API(ctx, command, args...)
	if err == nil && !strings.Contains(answer, "+OK") {
		return &CommandError{Command: command, Reply: strings.TrimSpace(answer)}
	}
	return err
}

// parseGateways reads the answer to "sofia xmlstatus gateway", of the carriers' profile and of trunks. It goes by
// lines, as parseRegistrations does and for the same reason: the switch writes values as they are.
func parseGateways(answer string) []Gateway {
	var list []Gateway
	var name, profile, state, ping string
	for text := range strings.SplitSeq(answer, "\n") {
		key, value, _ := strings.Cut(strings.TrimPrefix(text, "    <"), ">")
		value, _ = strings.CutSuffix(value, "</"+key+">")
		switch {
		case text == "  <gateway>":
			name, profile, state, ping = "", "", "", ""
		case text == "  </gateway>":
			if id, err := uuid.Parse(name); err == nil && profile == directory.ProfileExternal {
				list = append(list, newGateway(id, state, ping))
			}
		case key == "name":
			name = value
		case key == "profile":
			profile = value
		case key == "state":
			state = value
		case key == "status":
			ping = value
		}
	}
	return list
}
