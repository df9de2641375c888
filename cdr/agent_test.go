package cdr_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// A record says why an agent failed in ai-bridge's words, where it had any.
func TestWhyAnAgentFailed(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"agent on: no time policy":                                                                            "agent on: no time policy",
		"agent on: x; agent failed: MEDIA_TIMEOUT ":                                                           "agent on: x; agent failed: MEDIA_TIMEOUT",
		"agent on: x; agent failed: MEDIA_TIMEOUT":                                                            "agent on: x; agent failed: MEDIA_TIMEOUT",
		"agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41":                                  "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text="breaker_open"`:              "agent on: x; agent failed: breaker_open",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850 ;cause=41 ;text="session_late"`:            "agent on: x; agent failed: session_late",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text="<script>alert(1)</script>"`: "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
	} {
		b, err := json.Marshal(map[string]any{
			"variables": map[string]string{"uuid": uuid.NewString(), "start_uepoch": "1790000000000000", "end_uepoch": "1790000001000000", "edgvoip_reason": reason},
		})
		if err != nil {
			t.Fatal(err)
		}
		d, err := cdr.Parse(b)
		if err != nil || d.Leg().Reason != want {
			t.Errorf("%s: %q, %v", reason, d.Leg().Reason, err)
		}
	}
}
