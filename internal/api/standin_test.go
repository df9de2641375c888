package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Nobody is named to stand in for an agent who is not there to be called: neither a number that was mistyped, nor
// another tenant's, nor one that is suspended or deleted. What a trunk has already may stay: it can be changed in all
// else when its extension is gone.
func TestFailoverExtension(t *testing.T) {
	t.Parallel()
	s := start(t)
	c, other := s.carrier(t, "shop"), s.carrier(t, "mall")
	other.w.post(t, other.w.spec("2000"))
	c.w.post(t, c.w.spec("1001"))
	suspended := c.w.post(t, c.w.spec("1002")).json(t)["edgvoipExtensionId"].(string) //nolint:forcetypeassert // a test
	if a := c.w.do(t, http.MethodPatch, "/extensions/"+suspended, `{"status":"suspended"}`); a.status != http.StatusOK {
		t.Fatal(a.status, a.body)
	}
	if made := c.create(t, fullTrunk()); made.status != http.StatusCreated {
		t.Fatal(made.status, made.body)
	}
	state := trunkRows(t, s)
	for _, number := range []string{"1999", "2000", "1002"} {
		for name, a := range map[string]answer{
			"created": c.create(t, fullTrunk("trunkId", uuid.NewString(), "didRanges", nil, "aiFailoverExtension", number)),
			"without an agent": c.create(t, fullTrunk("trunkId", uuid.NewString(), "didRanges", nil, "aiAgentRef", nil, "aiTimePolicy", nil,
				"aiFailoverExtension", number)),
			"changed": c.do(t, http.MethodPatch, c.path()+"/"+trunkID, `{"name":"X","aiFailoverExtension":"`+number+`"}`),
		} {
			if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"aiFailoverExtension"`) || strings.Contains(a.body, number) {
				t.Errorf("%s, %s: %d %s", number, name, a.status, a.body)
			}
		}
	}
	if trunkRows(t, s) != state {
		t.Error("what was refused changed something")
	}
	if a := c.do(t, http.MethodPatch, c.path()+"/"+trunkID, `{"aiFailoverExtension":"1001"}`); a.status != http.StatusOK {
		t.Errorf("another one: %d %s", a.status, a.body)
	}
	exec(t, s, `UPDATE edgvoip.sip_extensions SET status = 'deleted' WHERE tenant_id = $1 AND extension = '1001'`, c.w.tenant)
	for body, want := range map[string]int{
		`{"name":"Renamed"}`: http.StatusOK, `{"aiFailoverExtension":"1001"}`: http.StatusOK, `{"aiAgentRef":"agent-10"}`: http.StatusUnprocessableEntity,
		`{"aiAgentRef":"","aiTimePolicy":null}`: http.StatusOK,
	} {
		if a := c.do(t, http.MethodPatch, c.path()+"/"+trunkID, body); a.status != want {
			t.Errorf("%s when the extension is gone: %d %s", body, a.status, a.body)
		}
	}
}
