package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/esl"
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
	// Failure is what the carrier answered to a registration that failed; empty if that is not what happened.
	Failure string
}

// stateNone is the state of a gateway that does not register.
const stateNone = "NOREG"

// gatewayStates are the switch's own words for the state of a registration (mod_sofia.h, reg_state_t).
var gatewayStates = []string{
	"UNREGED", "TRYING", "REGISTER", "REGED", "UNREGISTER", "FAILED", "FAIL_WAIT", "EXPIRED", stateNone, "DOWN", "TIMEOUT",
}

// known keeps a word to a closed set.
func known(set []string, word string) string {
	if slices.Contains(set, word) {
		return word
	}
	return ""
}

// gatewayEvent reads an event about a gateway. A gateway that is no trunk's has the zero UUID.
func gatewayEvent(e esl.Event) GatewayEvent {
	id, _ := uuid.Parse(e.Get("Gateway")) // without an error there is the zero UUID
	l := GatewayEvent{Gateway: newGateway(id, e.Get("State"), e.Get("Ping-Status")), Removed: "CUSTOM "+e.Subclass == eventGatewayDelete}
	if status, err := strconv.Atoi(e.Get("Status")); err == nil && status >= 300 {
		l.Failure = strings.TrimSpace(fmt.Sprintf("the carrier answered %d %s", status, printable(e.Get("Phrase"))))
	}
	return l
}

func newGateway(id uuid.UUID, state, ping string) Gateway {
	return Gateway{Trunk: id, State: known(gatewayStates, state), Ping: known([]string{"UP", "DOWN"}, ping)}
}

func (s eventSocket) ListGateways(ctx context.Context) ([]Gateway, error) {
	answer, err := s.client.API(ctx, "sofia", "xmlstatus", "gateway")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(answer, "<gateways>") {
		return nil, &esl.CommandError{Command: "sofia", Reply: strings.TrimSpace(answer)}
	}
	return parseGateways(answer), nil
}

// Gateway asks for the gateway and for the revision in a variable of it.
func (s eventSocket) Gateway(ctx context.Context, id uuid.UUID) (Gateway, bool, error) {
	answer, err := s.client.API(ctx, "sofia", "xmlstatus", "gateway", id.String())
	if err != nil {
		return Gateway{}, false, err
	}
	list := parseGateways(answer)
	if len(list) != 1 || list[0].Trunk != id {
		return Gateway{}, false, nil
	}
	list[0].Revision, err = s.gatewayRevision(ctx, id)
	return list[0], err == nil, err
}

// gatewayRevision returns 0 for a gateway without the variable: the switch then prints nothing.
func (s eventSocket) gatewayRevision(ctx context.Context, id uuid.UUID) (int64, error) {
	answer, err := s.client.API(ctx, "sofia_gateway_data", id.String(), "ovar", trunk.VarRevision)
	if refusal, ok := errors.AsType[*esl.CommandError](err); ok && strings.HasPrefix(refusal.Reply, "-ERR no reply") {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.TrimSpace(answer), 10, 64)
	if err != nil {
		return 0, &esl.CommandError{Command: "sofia_gateway_data", Reply: strings.TrimSpace(answer)}
	}
	return n, nil
}

func (s eventSocket) RemoveGateway(ctx context.Context, id uuid.UUID) error {
	err := s.succeed(ctx, "sofia", "profile", directory.ProfileExternal, "killgw", id.String())
	if refusal, ok := errors.AsType[*esl.CommandError](err); ok && strings.HasPrefix(refusal.Reply, "-ERR no such gateway") {
		return nil
	}
	return err
}

// LoadGateway uses startgw and not rescan, which would read the settings of the profile too, and warn of every other gateway
// that it is there already.
func (s eventSocket) LoadGateway(ctx context.Context, id uuid.UUID) error {
	return s.report(ctx, "sofia", "profile", directory.ProfileExternal, "startgw", id.String())
}

func (s eventSocket) ReadAddresses(ctx context.Context) error { return s.report(ctx, "reloadacl") }

// report runs a command that says what it does before it says +OK.
func (s eventSocket) report(ctx context.Context, command string, args ...string) error {
	answer, err := s.client.API(ctx, command, args...)
	if err == nil && !strings.Contains(answer, "+OK") {
		return &esl.CommandError{Command: command, Reply: strings.TrimSpace(answer)}
	}
	return err
}

// parseGateways reads the answer to "sofia xmlstatus gateway", of the carriers' profile and of trunks. It goes by lines, as
// parseRegistrations does and for the same reason: the switch writes values as they are.
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
