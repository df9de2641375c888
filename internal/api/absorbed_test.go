package api_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// A call that turned out to be a part of another is in no list and no export; asked for by its id it says which call it
// was a part of, and its recording is that call's.
func TestAbsorbedCall(t *testing.T) {
	t.Parallel()
	s, dir := startWithRecordings(t)
	w := s.tenant(t, "tenant-a")
	root := w.recorded(t, dir, "sound")
	middle := uuid.New()
	leg := func(id, parent uuid.UUID) {
		begin := time.Now().Add(-40 * time.Second)
		body, err := json.Marshal(map[string]any{
			"channel_data": map[string]string{"direction": "outbound"}, "variables": map[string]string{
				"uuid": id.String(), "edgvoip_tenant_id": w.tenant.String(), "originating_leg_uuid": parent.String(), "dialed_user": "1002",
				"start_uepoch": strconv.FormatInt(begin.UnixMicro(), 10), "answer_uepoch": strconv.FormatInt(begin.UnixMicro(), 10),
				"end_uepoch": strconv.FormatInt(begin.Add(5*time.Second).UnixMicro(), 10),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.KeepDocument(t.Context(), cdr.Posted{Source: cdr.SourceSweep, Body: body}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.raw.ExecContext(t.Context(), `UPDATE edgvoip.cdr_documents SET received_at = now() - interval '25 h'`); err != nil {
			t.Fatal(err)
		}
		if n, err := s.store.ReadDocuments(t.Context(), 10); err != nil || n.Recorded != 1 {
			t.Fatalf("%+v %v", n, err)
		}
	}
	leg(uuid.New(), middle)
	if ids, _ := w.list(t, ""); len(ids) != 2 {
		t.Fatalf("before: %v", ids)
	}
	leg(middle, root)
	if ids, _ := w.list(t, ""); len(ids) != 1 || ids[0] != root.String() {
		t.Errorf("listed: %v, want %s", ids, root)
	}
	if got := w.do(t, http.MethodGet, "/cdrs.csv", "").body; strings.Contains(got, middle.String()) || !strings.Contains(got, root.String()) {
		t.Errorf("exported:\n%s", got)
	}
	got := w.do(t, http.MethodGet, "/cdrs/"+middle.String(), "").json(t)
	if got["absorbedBy"] != root.String() || got["billsec"] != 0.0 || got["answeredBy"] != nil || len(got["legs"].([]any)) != 0 {
		t.Errorf("asked for: %v", got)
	}
	whole := w.do(t, http.MethodGet, "/cdrs/"+root.String(), "").json(t)
	if whole["answeredBy"] != "1002" || whole["absorbedBy"] != nil || len(whole["legs"].([]any)) != 3 {
		t.Errorf("the call that goes on: %v", whole)
	}
	if link := w.link(t, middle); !strings.Contains(link, root.String()) {
		t.Errorf("the recording is %s, not that of the call", link)
	}
}
