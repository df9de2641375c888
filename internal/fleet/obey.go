package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/node"
)

// errUnnameable means that a registration cannot be named in a command. Its address is then no address of ours either,
// and nobody calls it.
var errUnnameable = errors.New("the registration's address cannot be named to the switch")

// obey makes the switch do a task.
func (m *member) obey(ctx context.Context, task any) error {
	switch t := task.(type) {
	case node.User:
		return m.forgetUser(ctx, t)
	case node.Domain:
		return m.forgetDomain(ctx, t)
	case node.Registration:
		return m.dropRegistration(ctx, t)
	case node.Trunk:
		return m.gateways.obey(ctx, t)
	default:
		return fmt.Errorf("%w: nobody knows how to do a %T", node.ErrPayload, task)
	}
}

// forgetUser first forgets the cached user, also on a switch that is not said to cache: as long as he is in the cache
// he can register again.
func (m *member) forgetUser(ctx context.Context, u node.User) error {
	for _, name := range cachedNames(u) {
		if err := m.sw.FlushUser(ctx, u.Realm.String(), name); err != nil {
			return fmt.Errorf("flush user: %w", err)
		}
	}
	if !u.Revoked || u.Settle {
		return nil
	}
	e := directory.Extension{Number: u.Number}
	for _, d := range []directory.Device{directory.DevicePlain, directory.DeviceTLS, directory.DeviceBrowser} {
		if err := m.sw.FlushRegistration(ctx, directory.ProfileInternal, e.StoredUser(d).String(), u.Realm.String()); err != nil {
			return fmt.Errorf("flush registration: %w", err)
		}
	}
	return nil
}

// echoPauses are how long after each other a switch that caches is told again what it was told to forget. It may have
// asked an xmlcurl that had not yet heard of the change, and have kept the old truth once more (node.SecondRound); most
// hear within milliseconds, and nearly all before the last of these. The second round is what may be relied on; this
// makes it quicker.
var echoPauses = []time.Duration{
	20 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 50 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 400 * time.Millisecond,
}

// maxEchoes bounds the echoes at a time. Of many changes at once, the rest leave it to the second round.
const maxEchoes = 64

// echo is one task that is being repeated.
type echo struct{ stop context.CancelFunc }

// startEcho repeats, in the background, what a switch that caches was just told to forget. A later change of the same
// user begins anew.
func (m *member) startEcho(ctx context.Context, task any) {
	again, ok := node.SecondRound(task)
	if !ok || !m.node.CachesUsers {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if before := m.echoes[again]; before != nil {
		before.stop()
	} else if len(m.echoes) >= maxEchoes {
		return
	}
	ctx, stop := context.WithCancel(ctx)
	e := &echo{stop}
	m.echoes[again] = e
	m.echoing.Go(func() {
		defer stop()
		m.repeat(ctx, again)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.echoes[again] == e {
			delete(m.echoes, again)
		}
	})
}

func (m *member) repeat(ctx context.Context, task any) {
	for _, d := range echoPauses {
		background.Pause(ctx, d)
		if ctx.Err() != nil || m.obey(ctx, task) != nil {
			return // the second round does it
		}
	}
}

// cachedNames are the names under which a user can be in a switch's cache: it keeps an entry for each name that was
// asked for, to the letter. Other letter cases of the username are refused (directory.admit) and so never kept for a
// phone that registers.
func cachedNames(u node.User) []string {
	names := []string{u.Number.String(), u.Username.String(), u.Username.Fold().String()}
	slices.Sort(names)
	return slices.Compact(names)
}

// forgetDomain forgets everybody who is cached, since a switch cannot be asked to forget by domain, and every
// registration of the domain.
func (m *member) forgetDomain(ctx context.Context, d node.Domain) error {
	if err := m.sw.FlushUsers(ctx); err != nil {
		return fmt.Errorf("flush users: %w", err)
	}
	if d.Settle {
		return nil
	}
	if err := m.sw.FlushRegistrations(ctx, directory.ProfileInternal, d.Realm.String()); err != nil {
		return fmt.Errorf("flush registrations: %w", err)
	}
	return nil
}

// nameable tells whether a registration can be named in a command.
func nameable(r node.Registration) bool {
	return esl.CheckRegistration(r.Profile, r.User, r.Realm) == nil
}

// dropRegistration drops a registration by its address. Not by its Call-ID: that is the phone's text, and the switch
// also takes it for a domain (sofia_reg.c, sofia_reg_expire_call_id), so that a Call-ID of "@other.example" would drop
// every phone there. An address has one registration (docs/decisions/0005-registrations-by-device.md).
func (m *member) dropRegistration(ctx context.Context, r node.Registration) error {
	if !nameable(r) {
		return errUnnameable
	}
	if err := m.sw.FlushRegistration(ctx, r.Profile, r.User, r.Realm); err != nil {
		return fmt.Errorf("flush registration: %w", err)
	}
	return nil
}
