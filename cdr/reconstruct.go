package cdr

import (
	"strings"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
)

// variablePrefix is what an event writes before the name of a channel's variable.
const variablePrefix = "variable_"

// NewSighting makes a sighting of an event CHANNEL_HANGUP_COMPLETE, given as its headers, or returns false for a
// channel that is none of a tenant's. What nobody may read is left out, and so are headers as they came, as from a
// document.
func NewSighting(node uuid.UUID, event map[string]string) (Sighting, bool) {
	leg, err := uuid.Parse(event["Unique-ID"])
	if _, ours := event[variablePrefix+directory.VarTenantID]; err != nil || !ours {
		return Sighting{}, false
	}
	s := Sighting{LegID: leg, NodeID: node, Event: map[string]string{}}
	for name, value := range event {
		if !isSecretive(name) && !isHeader(strings.TrimPrefix(name, variablePrefix)) {
			s.Event[storable(name)] = storable(value)
		}
	}
	return s, true
}

// storable takes out what PostgreSQL cannot keep in a text.
func storable(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
}

// Reconstruct makes the document of a channel from its event CHANNEL_HANGUP_COMPLETE, given as its headers. The event
// tells of the newest profile only, so where a channel was transferred it knows the last number and not the first.
func Reconstruct(event map[string]string) (Document, error) {
	variables := map[string]any{}
	for name, value := range event {
		if name, ok := strings.CutPrefix(name, variablePrefix); ok {
			// As in a document, whose values are encoded.
			variables[name] = strings.ReplaceAll(value, "%", "%25")
		}
	}
	if _, ok := variables["uuid"]; !ok {
		variables["uuid"] = event["Unique-ID"]
	}
	if cause := event["Hangup-Cause"]; cause != "" && variables["hangup_cause"] == nil {
		variables["hangup_cause"] = cause
	}
	return parse(map[string]any{
		"edgvoip_reconstructed": true,
		"channel_data":          map[string]any{"direction": event["Call-Direction"]},
		"variables":             variables,
		"callflow": []any{map[string]any{
			"caller_profile": map[string]any{
				"caller_id_number": event["Caller-Caller-ID-Number"], "destination_number": event["Caller-Destination-Number"],
			},
			"times": map[string]any{
				"created_time": event["Caller-Channel-Created-Time"], "answered_time": event["Caller-Channel-Answered-Time"],
				"hangup_time": event["Caller-Channel-Hangup-Time"], "profile_created_time": event["Caller-Profile-Created-Time"],
			},
		}},
	})
}
