package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// An operator asks where a call would go, at any instant, through what the API itself has written.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := start(t, func(o *api.Options) { o.Agents = fstext.Const("127.0.0.1:5090") })
	c := s.carrier(t, "shop")
	if a := c.create(t, fullTrunk()); a.status != http.StatusOK && a.status != http.StatusCreated {
		t.Fatal(a.status, a.body)
	}
	ask := func(values ...string) answer {
		q := url.Values{}
		for i := 0; i < len(values); i += 2 {
			q.Set(values[i], values[i+1])
		}
		return c.do(t, http.MethodGet, "/explain?"+q.Encode(), "")
	}
	const did, caller = "+390612345601", "+393331234567"
	for at, kind := range map[string]string{"2026-11-23T10:00:00+01:00": "agent", "2026-11-23T18:00:00+01:00": "extension"} {
		a := ask("to", did, "from", caller, "at", at)
		if a.status != http.StatusOK || a.json(t)["kind"] != kind || !strings.Contains(a.body, "agent-9") || !strings.Contains(a.body, `<context name=\"public\">`) {
			t.Errorf("at %s: %d %s, want %s", at, a.status, a.body, kind)
		}
	}
	if a := ask("to", did, "from", caller); !strings.Contains(a.body, `"subject":"breaker","text":"closed now`) {
		t.Errorf("without a breaker that is open: %s", a.body)
	}
	const unreachable = "the tenant has no W3 endpoint: agent cannot be reached"
	if a := ask("to", did, "from", caller); !strings.Contains(a.body, unreachable) {
		t.Errorf("without an endpoint: %d %s", a.status, a.body)
	}
	// Events wait for a paused one, calls do not.
	exec(t, s, `INSERT INTO edgvoip.webhook_endpoints (tenant_id, base_url, status) VALUES ($1, 'https://w3.example', 'paused')`, c.w.tenant)
	if a := ask("to", did, "from", caller); strings.Contains(a.body, unreachable) {
		t.Errorf("with an endpoint: %d %s", a.status, a.body)
	}
	if a := ask("to", "0612345601", "from", caller, "trunk", trunkID); a.status != http.StatusOK {
		t.Errorf("now, on a trunk: %d %s", a.status, a.body)
	}
	for field, values := range map[string][]string{
		"query.to": {"to", "+390699999999", "from", caller}, "query.from": {"to", did, "from", "9@" + did}, "query.at": {"to", did, "from", caller, "at", "noon"},
		"query.trunk": {"to", did, "from", caller, "trunk", uuid.NewString()},
	} {
		if a := ask(values...); a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", field, a.status, a.body)
		}
	}
	for _, values := range [][]string{{"to", did}, {"from", caller}, {"to", "\x00", "from", "\x00"}, {"to", "${system(id)}", "from", "a${x}@b"}} {
		if a := ask(values...); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%q: %d %s", values, a.status, a.body)
		}
	}
	if a := c.w.do(t, http.MethodGet, "/explain?to=1&from=1", ""); a.status != http.StatusNotFound {
		t.Errorf("W3 asks: %d %s", a.status, a.body)
	}
}
