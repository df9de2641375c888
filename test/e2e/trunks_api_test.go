package e2e_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/webhook"
)

// TestTrunksOverAPI is an operator who manages a trunk over HTTPS: what its carrier, the switch and W3 see of that.
func TestTrunksOverAPI(t *testing.T) {
	s := newScene(t, sceneOptions{})
	o := s.newOffice(t)
	o.start(t)
	r := &registrar{user: "acct", realm: "127.0.0.1", password: "first-password"}
	port := freePort(t)
	carrier := newPhone(t, s.external, login{}, onPort(port), withRegistrar(r))
	var id string
	t.Run("a trunk that an operator creates registers on the switch and carries a call", func(t *testing.T) {
		s.begin(t)
		begun := time.Now()
		answer := o.order(t, http.StatusCreated, http.MethodPost, "/trunks", map[string]any{
			"name": "Carrier", "host": "127.0.0.1", "port": port, "priority": 1, "register": true, "username": "acct", "password": "first-password",
			"callerIdNumber": "+390612345600",
		})
		id, _ = answer["trunkId"].(string)
		o.expectTrunk(t, id, "1/1/REGED/")
		note("POST of a trunk: it was registered after %v", time.Since(begun).Round(time.Millisecond))
		if got := r.take(); !slices.Equal(got, []string{"registered"}) {
			t.Errorf("the carrier saw %q", got)
		}
		c := s.phoneA(t, "1001").dial(t, "+390255551234")
		expectStatus(t, c, 200)
		talking(t, c, carrier.expectCall(t))
	})
	t.Run("a new password over the API registers anew with it", func(t *testing.T) {
		s.begin(t)
		r.set("second-password")
		o.order(t, http.StatusOK, http.MethodPatch, "/trunks/"+id, map[string]any{"password": "second-password"})
		o.expectTrunk(t, id, "2/2/REGED/")
		if got := r.take(); len(got) == 0 || got[len(got)-1] != "registered" || slices.Contains(got[:len(got)-1], "registered") {
			t.Errorf("the carrier saw %q", got)
		}
	})
	t.Run("a new description over the API is nothing to the carrier", func(t *testing.T) {
		s.begin(t)
		o.order(t, http.StatusOK, http.MethodPatch, "/trunks/"+id, map[string]any{"description": "the good one", "provider": "Somebody"})
		o.expectTrunk(t, id, "2/2/REGED/")
		// What the carrier would see by now: a change after it that it does see.
		o.order(t, http.StatusOK, http.MethodPatch, "/trunks/"+id, map[string]any{"pingSeconds": 3600})
		o.expectTrunk(t, id, "3/3/REGED/UP")
		if got := r.take(); !slices.Equal(got, []string{"unregistered", "registered"}) && !slices.Equal(got, []string{"unregistered", "registered", "asked"}) {
			t.Errorf("the carrier saw %q", got)
		}
	})
	t.Run("a trunk that is deleted over the API is gone", func(t *testing.T) {
		s.begin(t)
		o.order(t, http.StatusNoContent, http.MethodDelete, "/trunks/"+id, nil)
		o.expectTrunk(t, id, "0/0//")
		s.expectHeard(t)
		if got := s.esl.api("sofia xmlstatus gateway"); strings.Contains(got, id) {
			t.Errorf("the switch still has the gateway:\n%s", got)
		}
		eventually(t, answerTime, func() error {
			if got := r.take(); !slices.Contains(got, "unregistered") || slices.Contains(got, "registered") {
				return fmt.Errorf("the carrier saw %q", got)
			}
			return nil
		})
		expectStatus(t, s.phoneA(t, "1001").dial(t, "+390255551234"), 503)
		carrier.expectSilence(t)
	})
	t.Run("W3 hears of a trunk's life in order", func(t *testing.T) {
		s.begin(t)
		want := []string{"trunk.created active ", "trunk.updated active ", "trunk.updated active Somebody", "trunk.updated active Somebody", "trunk.deleted deleted Somebody"}
		var events []webhook.TrunkEvent
		eventually(t, answerTime, func() error {
			if events = o.w3.trunk(t, id); len(events) < len(want) {
				return errors.New("W3 has not heard of all")
			}
			return nil
		})
		var got []string
		for _, e := range events {
			got = append(got, fmt.Sprintf("%s %s %s", e.Event, e.Status, e.Provider))
		}
		if !slices.Equal(got, want) {
			t.Errorf("W3 heard %q, want %q", got, want)
		}
		o.w3.expectHonest(t)
	})
}

// expectTrunk waits until the API says this of a trunk on the switch: wanted and applied revision, registration, answer
// to OPTIONS.
func (o *office) expectTrunk(t *testing.T, id, want string) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		answer := o.order(t, http.StatusOK, http.MethodGet, "/trunks/"+id+"/status", nil)
		nodes, _ := answer["nodes"].([]any)
		if len(nodes) != 1 || answer["converged"] != true {
			return fmt.Errorf("status %v", answer)
		}
		n, _ := nodes[0].(map[string]any)
		text := func(name string) string {
			s, _ := n[name].(string)
			return s
		}
		if got := fmt.Sprintf("%v/%v/%s/%s", n["wantedRevision"], n["appliedRevision"], text("registration"), text("ping")); got != want || text("error") != "" {
			return fmt.Errorf("%s is %q %v, want %q", id, got, n, want)
		}
		return nil
	})
}
