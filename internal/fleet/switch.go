package fleet

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/node"
)

// Switch is a connection to a switch, as far as the fleet needs one. A command that fails because the switch is away
// says so, see down. Implementations are safe for concurrent use.
type Switch interface {
	// Run connects, and connects again, until ctx ends.
	Run(ctx context.Context) error
	// Up tells whether there is a connection now.
	Up() bool
	// FlushUser forgets a cached user, by one name of his.
	FlushUser(ctx context.Context, realm, user string) error
	// FlushUsers forgets all cached users.
	FlushUsers(ctx context.Context) error
	// EmptyCache is FlushUsers that returns how many entries there were.
	EmptyCache(ctx context.Context) (int, error)
	// FlushRegistration drops the registrations of a stored user at a host on a profile, FlushRegistrations those of
	// everybody in a realm.
	FlushRegistration(ctx context.Context, profile, user, host string) error
	FlushRegistrations(ctx context.Context, profile, realm string) error
	// Registrations counts registrations.
	Registrations(ctx context.Context) (int, error)
	// ListRegistrations returns the registrations of a profile.
	ListRegistrations(ctx context.Context, profile string) ([]esl.Registration, error)
	// ListGateways returns the gateways of the carriers' profile, those that are being removed too, but not their
	// revisions.
	ListGateways(ctx context.Context) ([]esl.Gateway, error)
	// Gateway returns the gateway of a trunk; ok is false if there is none, or it is being removed.
	Gateway(ctx context.Context, trunk uuid.UUID) (g esl.Gateway, ok bool, err error)
	// RemoveGateway makes the switch remove the gateway of a trunk, which takes it some time; Handlers.Gateway tells
	// when it has. LoadGateway makes it load one that it does not have; that there is one afterwards Gateway tells.
	// Neither touches a call or another gateway.
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
	Registered func(esl.Registration)
	// Gateway is called for each change of a gateway. It does not block.
	Gateway func(esl.GatewayEvent)
	// HungUp is called with the headers of the event of each channel that ends. It does not block.
	HungUp func(event map[string]string)
}

// Connect makes the connection to a switch, which does nothing until it is run.
type Connect func(n node.Node, password string, h Handlers) (Switch, error)

// down tells whether an error means that the switch is away.
func down(err error) bool { return unsent(err) || errors.Is(err, esl.ErrLost) }

// unsent tells whether a command failed because the switch was away already. Not so a command that it was lost over:
// that may be the very command which it does not answer.
func unsent(err error) bool { return errors.Is(err, esl.ErrDown) }

// maxReconnect is the longest wait before the next attempt to reach a switch that is away: its jobs wait as long.
const maxReconnect = 3 * time.Second

// Switches returns how real switches are connected to: over their event sockets.
func Switches(metrics *esl.Metrics, log *slog.Logger) Connect {
	return func(n node.Node, password string, h Handlers) (Switch, error) {
		client, err := esl.New(esl.Options{
			Node:   esl.Node{Name: n.Name, Address: n.Address, Password: password},
			Events: []string{esl.Registered, esl.GatewayChanged, esl.GatewayDeleted, eventHangup},
			Handle: func(_ context.Context, e esl.Event) {
				switch strings.TrimSpace(e.Name + " " + e.Subclass) {
				case esl.Registered:
					h.Registered(esl.NewRegistration(e))
				case esl.GatewayChanged, esl.GatewayDeleted:
					h.Gateway(esl.NewGatewayEvent(e))
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
		return client, nil
	}
}
