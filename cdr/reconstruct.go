package cdr

import (
	"strings"

	"github.com/google/uuid"
)

// variablePrefix is what an event writes before the name of a channel's variable.
const variablePrefix = "variable_"

// SightedLeg returns the channel and the tenant of an event CHANNEL_HANGUP_COMPLETE, given as its headers, or false for a
// channel that is none of ours.
func SightedLeg(event map[string]string) (leg, tenant uuid.UUID, ok bool) {
	leg, err1 := uuid.Parse(event["Unique-ID"])
	tenant, err2 := uuid.Parse(event[variablePrefix+"edgvoip_tenant_id"])
	return leg, tenant, err1 == nil && err2 == nil
}

// Reconstruct makes the document of a channel from its event CHANNEL_HANGUP_COMPLETE, given as its headers. The event tells
// of the newest profile only, so where a channel was transferred it knows the last number and not the first.
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
