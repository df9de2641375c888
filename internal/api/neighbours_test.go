package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/api"
)

// Two tenants behind one address: the wrong credentials of one are its own loss, and health is open to both. Strangers
// are bounded as an address.
func TestNeighbours(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := start(t, func(o *api.Options) {
		o.Limits = api.Limits{PerAddress: 1, BurstAddress: 100, PerTenant: 1, BurstTenant: 1000}
		o.Now = func() time.Time { return now }
	})
	shop, mall := s.tenant(t, "shop"), s.tenant(t, "mall")
	want := refusal(t, s) // costs ten
	replay := shop.sign(http.MethodGet, "/domains", "")
	if a := s.send(t, replay); a.status != http.StatusOK {
		t.Fatalf("at first: %d %s", a.status, a.body)
	}
	wrong := shop
	wrong.secret.HMAC = mall.secret.HMAC
	late := shop.signAt(stamp(now.Add(-time.Hour)), http.MethodGet, "/domains", "")
	unsigned := shop.sign(http.MethodGet, "/domains", "")
	unsigned.header.Del("X-Signature")
	attempts := []request{replay, late, unsigned}
	refused := 0
	for i := range 12 {
		r := wrong.sign(http.MethodGet, "/domains", "")
		if i < len(attempts) {
			r = attempts[i]
		}
		switch a := s.send(t, r); a.status {
		case http.StatusUnauthorized:
			if refused++; face(a) != want {
				t.Errorf("refused:\n%s", face(a))
			}
		case http.StatusTooManyRequests:
			if a.code(t) != "rate_limited" || a.header.Get("Retry-After") != "1" {
				t.Errorf("limited: %v %s", a.header, a.body)
			}
		default:
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if refused != 10 {
		t.Errorf("%d refusals of a known token, want as many as its hundred allows", refused)
	}
	if a := mall.do(t, http.MethodGet, "/domains", ""); a.status != http.StatusOK {
		t.Errorf("the neighbour: %d %s", a.status, a.body)
	}
	if n := s.counter(t, "integration_rate_limited_total", "scope", "credentials"); n != 2 {
		t.Errorf("%v limited by credentials, want 2", n)
	}
	for range 20 {
		s.send(t, request{method: http.MethodGet, target: api.BasePath + "/domains", header: http.Header{"Authorization": {"Bearer evb_stranger"}}})
	}
	if a := mall.do(t, http.MethodGet, "/domains", ""); a.status != http.StatusTooManyRequests {
		t.Errorf("after a stranger: %d %s", a.status, a.body)
	}
	for i := range 101 {
		if a := healthOf(t, s); (a.status == http.StatusOK) != (i < 100) {
			t.Errorf("health, %d: %d %s", i, a.status, a.body)
		}
	}
	if a := s.send(t, request{method: http.MethodPost, target: api.BasePath + "/health", header: http.Header{}}); a.status != http.StatusTooManyRequests {
		t.Errorf("POST by the door of health: %d %s", a.status, a.body)
	}
}

// An operator's ended token costs itself, an unknown one the address.
func TestOperatorsNeighbours(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := start(t, func(o *api.Options) {
		o.Limits = api.Limits{PerAddress: 1, BurstAddress: 100}
		o.Now = func() time.Time { return now }
	})
	ended, good := s.operator(t, "anna", 0), s.operator(t, "bruno", 0)
	if err := s.store.RevokeOperator(t.Context(), "anna", "test"); err != nil {
		t.Fatal(err)
	}
	ask := func(o operator) int { return o.do(t, http.MethodGet, "/nodes", "").status }
	for i := range 12 {
		if got := ask(ended); got != http.StatusUnauthorized && i < 10 || got != http.StatusTooManyRequests && i >= 10 {
			t.Errorf("ended token, %d: %d", i, got)
		}
	}
	if got := ask(good); got != http.StatusOK {
		t.Errorf("a colleague: %d", got)
	}
	for range 10 {
		ask(operator{s, "evo_stranger"})
	}
	if got := ask(good); got != http.StatusTooManyRequests {
		t.Errorf("after a stranger: %d", got)
	}
}
