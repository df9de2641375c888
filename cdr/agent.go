package cdr

import (
	"regexp"
	"strings"
)

// How the dialplan says that an agent failed (dialplan/agent.go): with FreeSWITCH's cause and, where ai-bridge could still say why,
// its Reason as it came (RFC 3326). ai-bridge gives one cause for all its faults, which FreeSWITCH then takes for its own: a leg with
// another cause was ended by the switch, and a Reason beside it is an earlier leg's.
var (
	agentFailed  = regexp.MustCompile(`^(.*; agent failed: )([A-Z0-9_]*)( .*)?$`)
	bridgeReason = regexp.MustCompile(`^Q\.850 ?;cause=41 ?;text="?([a-z_]+)"?$`)
)

const bridgeCause = "NORMAL_TEMPORARY_FAILURE"

// agentFaults are ai-bridge's words for what goes wrong with an agent. A telephone or a carrier gives other texts.
var agentFaults = map[string]bool{
	"bad_request": true, "bad_media": true, "unknown_trunk": true, "not_ready": true, "no_secret": true, "gateway_forbidden": true,
	"draining": true, "limit": true, "tenant_limit": true, "breaker_open": true, "session_failed": true, "session_late": true,
	"session_refused": true, "session_unusable": true, "channel_failed": true, "connect_late": true, "peer_lost": true, "agent_failed": true,
	"agent_silent": true, "caller_silent": true, "channel_lost": true, "transfer_failed": true, "switch_failed": true,
	"session_timer_expired": true, "no_ack": true, "internal": true,
}

// routeReason returns why a call was routed so, for people: of an agent that failed, ai-bridge's outcome rather than the cause
// that stands for all of them.
func routeReason(s string) string {
	failed := agentFailed.FindStringSubmatch(s)
	if failed == nil {
		return s
	}
	why := failed[2]
	if bridge := bridgeReason.FindStringSubmatch(strings.TrimSpace(failed[3])); why == bridgeCause && bridge != nil && agentFaults[bridge[1]] {
		why = bridge[1]
	}
	return failed[1] + why
}
