package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/background"
	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/node"
)

// clean makes what a phone wrote fit to be stored and logged.
func clean(s esl.Registration) esl.Registration {
	for _, f := range []*string{&s.Profile, &s.User, &s.Host, &s.AuthUser, &s.AuthRealm, &s.CallID, &s.Agent, &s.IP, &s.Port, &s.Event} {
		*f = printable(*f)
	}
	return s
}

// maxField bounds one field of a registration, in bytes.
const maxField = 256

func printable(s string) string {
	if len(s) > maxField {
		s = s[:maxField]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Reasons to drop a registration.
const (
	reasonForeign   = "foreign_address" // its address is not its credentials' own
	reasonUnknown   = "unknown_account" // its credentials are nobody's
	reasonSuspended = "suspended"       // the account, its domain or its tenant is not active
)

// reasonUnnameable counts what would be dropped for one of these reasons, but cannot be named to the switch.
const reasonUnnameable = "unnameable"

// verdict is what is to become of a registration.
type verdict struct {
	reason string    // empty: it may stay
	tenant uuid.UUID // that of the credentials; zero if they are nobody's
}

// judge decides about a registration. xmlcurl has decided the same when the phone registered, unless the switch did not
// ask it (a cached user) or it did not yet know of a change. An error means that nobody knows.
func judge(ctx context.Context, d Directory, s esl.Registration) (verdict, error) {
	realm, err1 := fstext.ParseRealm(s.AuthRealm)
	name, err2 := fstext.NewUsername(s.AuthUser)
	if err1 != nil || err2 != nil {
		return verdict{reason: reasonUnknown}, nil
	}
	dom, ext, err := d.Extension(ctx, realm, name)
	switch {
	case errors.Is(err, directory.ErrUnknownDomain), errors.Is(err, directory.ErrUnknownExtension):
		return verdict{reason: reasonUnknown, tenant: dom.Tenant.ID}, nil
	case err != nil:
		return verdict{}, fmt.Errorf("extension: %w", err)
	case !strings.EqualFold(s.Host, ext.Realm.String()) || !isOwn(ext, s.User):
		return verdict{reason: reasonForeign, tenant: ext.TenantID}, nil
	case !dom.Usable() || !ext.Active:
		return verdict{reason: reasonSuspended, tenant: ext.TenantID}, nil
	default:
		return verdict{}, nil
	}
}

// isOwn tells whether a registration stored under a user is of the extension, on a device of any kind.
func isOwn(e directory.Extension, stored string) bool {
	for _, d := range []directory.Device{directory.DevicePlain, directory.DeviceTLS, directory.DeviceBrowser} {
		if stored == e.StoredUser(d).String() {
			return true
		}
	}
	name, err := fstext.NewUsername(stored)
	return err == nil && name.Same(e.Username)
}

// watch judges every registration of a switch, in the order in which it hears of them. While the store is away they
// wait.
type watch struct {
	m *member

	mu      sync.Mutex
	waiting []esl.Registration
	missed  bool // more came than can wait: look at the switch itself
	wake    chan struct{}
}

// maxWaiting bounds the registrations that wait to be judged; more than any switch has.
const maxWaiting = 1 << 18

// retryPause is how long the watch waits when the store could not tell.
const retryPause = time.Second

func newWatch(m *member) *watch { return &watch{m: m, wake: make(chan struct{}, 1)} }

// add takes a registration to be judged. It does not block.
func (w *watch) add(s esl.Registration) { w.addAll([]esl.Registration{s}) }

func (w *watch) addAll(list []esl.Registration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiting)+len(list) > maxWaiting {
		w.waiting, w.missed = nil, true
	} else {
		for _, s := range list {
			w.waiting = append(w.waiting, clean(s))
		}
	}
	w.m.fleet.metrics.waiting.WithLabelValues(w.m.node.Name).Set(float64(len(w.waiting)))
	background.Poke(w.wake)
}

// next takes the first that waits. missed tells, once, that others were lost.
func (w *watch) next() (s esl.Registration, ok, missed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	missed, w.missed = w.missed, false
	if len(w.waiting) == 0 {
		return esl.Registration{}, false, missed
	}
	s, w.waiting = w.waiting[0], w.waiting[1:]
	w.m.fleet.metrics.waiting.WithLabelValues(w.m.node.Name).Set(float64(len(w.waiting)))
	return s, true, missed
}

// sweep looks at every registration that the switch has now.
func (w *watch) sweep(ctx context.Context) error {
	list, err := w.m.sw.ListRegistrations(ctx, directory.ProfileInternal)
	if err != nil {
		return fmt.Errorf("list registrations: %w", err)
	}
	w.addAll(list)
	return nil
}

// patrol sweeps now and then. Jobs and events leave nothing to find but what fell between them: a change, for instance,
// whose transaction began before the switch was added.
func (w *watch) patrol(ctx context.Context) {
	tick := time.NewTicker(w.m.fleet.opts.Patrol)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.sweep(ctx); err != nil && ctx.Err() == nil && !down(err) {
			w.m.log.WarnContext(ctx, "registrations cannot be listed", "error", err)
		}
	}
}

// run judges until ctx ends.
func (w *watch) run(ctx context.Context) {
	outage := background.NewOutage(w.m.log, "registrations cannot be checked")
	for ctx.Err() == nil {
		s, ok, missed := w.next()
		if missed {
			// If the switch is away now, its next connection begins with a sweep.
			if err := w.sweep(ctx); err != nil && !down(err) {
				w.m.log.ErrorContext(ctx, "registrations that were missed cannot be listed", "error", err)
			}
		}
		if !ok {
			select {
			case <-ctx.Done():
			case <-w.wake:
			}
			continue
		}
		for ctx.Err() == nil {
			err := w.check(ctx, s)
			outage.Note(ctx, err)
			if err == nil {
				break
			}
			background.Pause(ctx, retryPause)
		}
	}
}

// check judges a registration and drops it if it may not stay. An error means that it must be judged again.
func (w *watch) check(ctx context.Context, s esl.Registration) error {
	asking, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	v, err := judge(asking, w.m.fleet.opts.Directory, s)
	if err != nil || v.reason == "" {
		return err
	}
	return w.drop(ctx, s, v)
}

// drop drops a registration at once. The job is there for the record, and to be tried again if that fails; it is
// claimed from the beginning, so that it does not wait behind others. There is none for what cannot be named: it would
// be given up each time that the registration is seen.
func (w *watch) drop(ctx context.Context, s esl.Registration, v verdict) error {
	m := w.m
	ctx = telemetry.WithCorrelation(ctx, uuid.NewString())
	r := node.Registration{Profile: s.Profile, User: s.User, Realm: s.Host, CallID: s.CallID, Reason: v.reason, Event: s.Event}
	log := m.log.With("reason", v.reason, "address", s.User+"@"+s.Host, "auth_user", s.AuthUser, "auth_realm", s.AuthRealm,
		"phone", net.JoinHostPort(s.IP, s.Port), "user_agent", s.Agent, "sip_call_id", s.CallID)
	if !nameable(r) {
		m.fleet.metrics.dropped.WithLabelValues(m.node.Name, reasonUnnameable).Inc()
		log.WarnContext(ctx, "registration cannot be named, and stays")
		return nil
	}
	payload, err := json.Marshal(r)
	if err != nil {
		return err
	}
	adding, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	job, err := m.fleet.opts.Store.AddClaimedJob(adding, node.Job{
		TenantID: v.tenant, NodeID: m.node.ID, Kind: node.KindDropRegistration, Subject: "registration/" + s.User + "@" + s.Host,
		Payload: payload, CorrelationID: telemetry.Correlation(ctx),
	}, lease)
	if errors.Is(err, node.ErrSameJob) {
		return nil // another process heard of the same registration
	} else if err != nil {
		return err
	}
	if m.carryOut(ctx, job) {
		log.WarnContext(ctx, "registration dropped")
	} else {
		log.WarnContext(ctx, "registration not dropped yet")
	}
	return nil
}
