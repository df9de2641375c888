package api_test

import (
	"net/http"
	"strings"
	"testing"
)

// Codecs that the shipped switch lacks are taken beside one that it speaks, and not alone; what is stored so goes on.
func TestCodecsOfTheSwitch(t *testing.T) {
	t.Parallel()
	s := start(t)
	c := s.carrier(t, "shop")
	refused := func(a answer, field string) {
		t.Helper()
		if a.status != http.StatusUnprocessableEntity || !strings.Contains(a.body, `"field":"`+field+`"`) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	refused(c.w.do(t, http.MethodPost, "/extensions", c.w.spec("1001", "allowedCodecs", []string{"G729"})), "allowedCodecs")
	refused(c.w.do(t, http.MethodPost, "/extensions", c.w.spec("1001", "allowedCodecs", []string{"vp8", "h264"})), "allowedCodecs")
	id := c.w.post(t, c.w.spec("1001", "allowedCodecs", []string{"g729", "pcma", "vp8"})).id(t)
	refused(c.w.do(t, http.MethodPatch, "/extensions/"+id, `{"allowedCodecs":["G729"]}`), "allowedCodecs")
	refused(c.create(t, leastTrunk("codecs", []any{"G729"})), "codecs")
	if a := c.create(t, fullTrunk("codecs", []any{"G729", "PCMA"})); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	refused(c.do(t, http.MethodPatch, c.path()+"/"+trunkID, `{"codecs":["G729"]}`), "codecs")

	exec(t, s, `UPDATE edgvoip.sip_extensions SET allowed_codecs = '{G729}'`)
	exec(t, s, `UPDATE edgvoip.sip_trunks SET codecs = '{G729}'`)
	if a := c.w.do(t, http.MethodPatch, "/extensions/"+id, `{"displayName":"Anna"}`); a.status != http.StatusOK || !strings.Contains(a.body, `["G729"]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := c.do(t, http.MethodPatch, c.path()+"/"+trunkID, `{"name":"Another"}`); a.status != http.StatusOK || !strings.Contains(a.body, `["G729"]`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if list, err := s.store.TenantTrunks(t.Context(), c.w.tenant); err != nil || len(list) != 1 {
		t.Errorf("a lookup has %v, %v", list, err)
	}
}
