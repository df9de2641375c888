package cdr_test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
)

// A record says why an agent failed in ai-bridge's words, where it had any.
func TestWhyAnAgentFailed(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"agent on: no time policy":                                                                 "agent on: no time policy",
		"agent on: x; agent failed: MEDIA_TIMEOUT ":                                                "agent on: x; agent failed: MEDIA_TIMEOUT",
		"agent on: x; agent failed: MEDIA_TIMEOUT":                                                 "agent on: x; agent failed: MEDIA_TIMEOUT",
		"agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41":                       "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text="breaker_open"`:   "agent on: x; agent failed: breaker_open",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850 ;cause=41 ;text="session_late"`: "agent on: x; agent failed: session_late",
		// What is left of another leg: a telephone's, a carrier's, an agent's that ended as it should, or one of a leg that the switch
		// itself ended.
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text="congestion"`:                "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=41;text="transferred"`:               "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE Q.850;cause=16;text="session_late"`:              "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
		`agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE SIP;cause=480;text="limit"`:                      "agent on: x; agent failed: NORMAL_TEMPORARY_FAILURE",
		`agent on: x; agent failed: MEDIA_TIMEOUT Q.850;cause=41;text="session_late"`:                         "agent on: x; agent failed: MEDIA_TIMEOUT",
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

// The words that the record takes for ai-bridge's are those that ai-bridge has for its faults.
func TestAgentFaults(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "../internal/aibridge/metrics.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "outcome" {
			word, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Error(err)
			}
			want = append(want, word)
		}
		return false
	})
	want = slices.DeleteFunc(want, func(word string) bool {
		return slices.Contains([]string{"caller_hung_up", "agent_hung_up", "transferred", "cancelled"}, word) // no faults
	})
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(cdr.AgentFaults))); diff != "" {
		t.Error(diff)
	}
}
