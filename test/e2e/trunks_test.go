package e2e_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/trunk"
)

// TestTrunks is what a change of a trunk does to a switch, its registrations and its calls.
func TestTrunks(t *testing.T) {
	s := newScene(t, sceneOptions{})
	api := s.startAPI(t)
	api.node(t, "add", "fs1", "-address", s.eslAddress(), "-password-file", api.passwordFile)
	api.expectUp(t)
	first, second := s.trunk(t, tenantA, 1), s.trunk(t, tenantA, 2)
	registeringTrunks(t, s, api)
	renderedTrunks(t, s, first)
	askedCarriers(t, s, second)
}

// line is a trunk of tenant A to a carrier of its own.
type line struct {
	id        uuid.UUID
	registrar *registrar
	carrier   *phone
}

// addTrunk adds a trunk to a carrier at which it registers, tried before the scene's own.
func (s *scene) addTrunk(t *testing.T, name string) line {
	t.Helper()
	l := line{id: uuid.New(), registrar: &registrar{user: "acct-" + name, realm: "127.0.0.1", password: "secret-" + name}}
	port := freePort(t)
	l.carrier = newPhone(t, s.external, login{}, onPort(port), withRegistrar(l.registrar))
	tenant := uuid.MustParse(s.id(t, `SELECT id FROM edgvoip.tenants WHERE slug = $1 AND $2 = ''`, ""))
	sealed := s.keys.Seal([]byte(l.registrar.password), trunk.PasswordOwner(tenant, l.id))
	s.exec(t, `INSERT INTO edgvoip.sip_trunks (tenant_id, id, name, host, port, priority, register, username, password_sealed, password_key_id, caller_id_number,
			source_addresses)
		VALUES ($1, $2, $3, '127.0.0.1', $4, 1, true, $5, $6, $7, '+390612345600', '{127.0.0.5/32}')`,
		tenant, l.id, name, port, l.registrar.user, sealed.Data, sealed.KeyID)
	return l
}

// setPassword changes the password, at the carrier too unless it is told otherwise.
func (s *scene) setPassword(t *testing.T, l line, password string) {
	t.Helper()
	tenant := uuid.MustParse(s.id(t, `SELECT id FROM edgvoip.tenants WHERE slug = $1 AND $2 = ''`, ""))
	sealed := s.keys.Seal([]byte(password), trunk.PasswordOwner(tenant, l.id))
	s.exec(t, `UPDATE edgvoip.sip_trunks SET password_sealed = $2, password_key_id = $3 WHERE id = $1`, l.id, sealed.Data, sealed.KeyID)
}

// expectGateway waits until the database tells this of a trunk's gateway: revision, registration, answer to OPTIONS and
// error.
func (s *scene) expectGateway(t *testing.T, id uuid.UUID, want string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		var got string
		if err := s.db.QueryRowContext(t.Context(), `SELECT coalesce(string_agg(concat_ws('/', applied_revision, registration, ping, error), ';'), '')
			FROM edgvoip.trunk_gateways WHERE trunk_id = $1`, id).Scan(&got); err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("gateway is %q, want %q", got, want)
		}
		return nil
	})
}

func registeringTrunks(t *testing.T, s *scene, api *api) {
	t.Helper()
	started := time.Now()
	changed, other := s.addTrunk(t, "changed"), s.addTrunk(t, "other")
	s.exec(t, `UPDATE edgvoip.sip_trunks SET priority = 2 WHERE id = $1`, other.id)
	s.expectHeard(t)
	t.Run("a trunk that is created registers and carries a call", func(t *testing.T) {
		s.begin(t)
		for _, l := range []line{other, changed} {
			s.expectGateway(t, l.id, "1/REGED//")
			if got := l.registrar.take(); !slices.Equal(got, []string{"registered"}) {
				t.Errorf("the carrier saw %q", got)
			}
		}
		note("two trunks were registered after %v", time.Since(started).Round(time.Millisecond))
		api.expectMetric(t, `edgvoip_node_gateways{node="fs1",state="REGED"}`, "2")
		s.expectIdle(t)
		a := s.phoneA(t, "1001")
		c := a.dial(t, "+390255551234")
		expectStatus(t, c, 200)
		talking(t, c, changed.carrier.expectCall(t))
	})
	t.Run("a new password registers anew, beside a call and another registration", func(t *testing.T) {
		s.begin(t)
		a := s.phoneA(t, "1001")
		c := a.dial(t, "+390255551234")
		expectStatus(t, c, 200)
		there := changed.carrier.expectCall(t)
		talking(t, c, there)
		started := time.Now()
		changed.registrar.set("another-secret")
		s.setPassword(t, changed, "another-secret")
		s.expectGateway(t, changed.id, "2/REGED//")
		note("a new password was registered after %v", time.Since(started).Round(time.Millisecond))
		s.expectIdle(t)
		// The old registration is taken back with the old password, which no longer counts.
		if got := changed.registrar.take(); got[len(got)-1] != "registered" || slices.Contains(got[:len(got)-1], "registered") {
			t.Errorf("the carrier saw %q", got)
		}
		if got := other.registrar.take(); len(got) != 0 {
			t.Errorf("the other carrier saw %q", got)
		}
		there.media.hears(t, a.mark, 50)
		c.media.hears(t, changed.carrier.mark, 50)
		select {
		case <-there.ended:
			t.Fatal("the call ended")
		default:
		}
		c.hangup(t)
		expectEnd(t, there)
	})
	t.Run("a registration is taken back before the next is made", func(t *testing.T) {
		s.begin(t)
		s.exec(t, `UPDATE edgvoip.sip_trunks SET ping_seconds = 3600 WHERE id = $1`, changed.id)
		s.expectGateway(t, changed.id, "3/REGED/UP/")
		if got := changed.registrar.take(); !slices.Equal(got, []string{"unregistered", "registered"}) {
			t.Errorf("the carrier saw %q", got)
		}
	})
	t.Run("what FreeSWITCH does not read asks nothing of it", func(t *testing.T) {
		s.begin(t)
		var before, after int
		count := func(n *int) {
			t.Helper()
			if err := s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.jobs`).Scan(n); err != nil {
				t.Fatal(err)
			}
		}
		s.expectIdle(t)
		count(&before)
		s.exec(t, `UPDATE edgvoip.sip_trunks SET description = 'a carrier', name = 'Another', provider = 'somebody' WHERE id = $1`, changed.id)
		if count(&after); after != before {
			t.Errorf("%d jobs", after-before)
		}
	})
	t.Run("a wrong password is told of", func(t *testing.T) {
		s.begin(t)
		s.setPassword(t, changed, "wrong")
		s.expectGateway(t, changed.id, "4/FAIL_WAIT/DOWN/the carrier answered 403 Test")
		if got := changed.registrar.take(); !slices.Equal(got, []string{"unregistered", "refused"}) {
			t.Errorf("the carrier saw %q", got)
		}
		s.setPassword(t, changed, "another-secret")
		s.expectGateway(t, changed.id, "5/REGED/UP/")
	})
	t.Run("what a disabled switch missed it is told when it is back", func(t *testing.T) {
		s.begin(t)
		changed.registrar.take()
		api.node(t, "disable", "fs1")
		api.expectMetric(t, `edgvoip_node_up{node="fs1"}`, "")
		s.exec(t, `UPDATE edgvoip.sip_trunks SET ping_seconds = 0 WHERE id = $1`, changed.id)
		api.node(t, "enable", "fs1")
		s.expectGateway(t, changed.id, "6/REGED//")
		if got := changed.registrar.take(); !slices.Equal(got, []string{"unregistered", "registered"}) {
			t.Errorf("the carrier saw %q", got)
		}
		if got := other.registrar.take(); len(got) != 0 {
			t.Errorf("the other carrier saw %q", got)
		}
	})
	t.Run("a disabled trunk is gone, and its carrier is not let in", func(t *testing.T) {
		s.begin(t)
		for _, l := range []line{changed, other} {
			if got := strings.TrimSpace(s.esl.api("acl 127.0.0.5 trunks")); got != "true" {
				t.Errorf("before: %s", got)
			}
			l.registrar.take()
			s.exec(t, `UPDATE edgvoip.sip_trunks SET status = 'disabled' WHERE id = $1`, l.id)
			s.expectGateway(t, l.id, "0///")
			eventually(t, 5*time.Second, func() error {
				if got := l.registrar.take(); !slices.Equal(got, []string{"unregistered"}) {
					return fmt.Errorf("the carrier saw %q", got)
				}
				return nil
			})
			if got := s.esl.api("sofia xmlstatus gateway"); strings.Contains(got, l.id.String()) {
				t.Errorf("the switch still has the gateway:\n%s", got)
			}
		}
		eventually(t, 10*time.Second, func() error {
			if got := strings.TrimSpace(s.esl.api("acl 127.0.0.5 trunks")); got != "false" {
				return errors.New("its carrier's address is let in: " + got)
			}
			return nil
		})
		s.expectIdle(t)
	})
}

func renderedTrunks(t *testing.T, s *scene, first uuid.UUID) {
	t.Helper()
	t.Run("a call goes to the proxy, in the carrier's form, with its codecs", func(t *testing.T) {
		s.begin(t)
		proxy := newPhone(t, s.external, login{}, onPort(freePort(t)))
		_, port, _ := strings.Cut(proxy.local, ":")
		s.change(t, `UPDATE edgvoip.sip_trunks SET host = $2, proxy = $3, number_format = $4, tech_prefix = $5, codecs = string_to_array($6, ',') WHERE id = $1`,
			[]any{first, "carrier.example", "127.0.0.1:" + port, "zeros", "77#", "PCMA"}, []any{first, "127.0.0.1", "", "plus", "", ""})
		s.expectGateway(t, first, "2/NOREG//")
		c := s.phoneA(t, "1001").dial(t, "+390255551234")
		expectStatus(t, c, 200)
		invite := proxy.expectCall(t).invite
		if got := invite.requestURI(); !strings.HasPrefix(got, "sip:77%2300390255551234@carrier.example") {
			t.Errorf("the carrier is asked for %q", got)
		}
		if strings.Contains(invite.body, "PCMU") || !strings.Contains(invite.body, "PCMA") {
			t.Errorf("offered:\n%s", invite.body)
		}
	})
	t.Run("a number goes over the trunk that carries it", func(t *testing.T) {
		s.begin(t)
		s.change(t, `UPDATE edgvoip.sip_trunks SET prefixes = string_to_array($2, ',') WHERE id = $1`, []any{first, "44,4930"}, []any{first, ""})
		carrier := s.carrierPhone(t)
		a := s.phoneA(t, "1001")
		expectStatus(t, a.dial(t, "+390255551234"), 200)
		carrier.expectCall(t)
		if s.lookups.last(first.String()) {
			t.Error("a trunk is tried that does not carry the number")
		}
	})
}

func askedCarriers(t *testing.T, s *scene, second uuid.UUID) {
	t.Helper()
	t.Run("a carrier that is asked is up, and down when it refuses", func(t *testing.T) {
		s.begin(t)
		carrier := s.carrierPhone(t, withRegistrar(&registrar{}))
		s.change(t, `UPDATE edgvoip.sip_trunks SET ping_seconds = $2 WHERE id = $1`, []any{second, 5}, []any{second, 0})
		s.expectGateway(t, second, "2/NOREG/UP/")
		carrier.registrar.refuse(503)
		s.expectGateway(t, second, "2/NOREG/DOWN/the carrier answered 503 Test")
		carrier.registrar.refuse(0)
		s.expectGateway(t, second, "2/NOREG/UP/")
	})
}
