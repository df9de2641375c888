package cdr

import (
	"regexp"
	"strings"
)

// How the dialplan says that an agent failed (dialplan/agent.go): with FreeSWITCH's cause and, where ai-bridge could still say why,
// its Reason as it came (RFC 3326).
var (
	agentFailed  = regexp.MustCompile(`^(.*; agent failed: )([A-Z0-9_]*)( .*)?$`)
	bridgeReason = regexp.MustCompile(`;text="?([a-z_]+)"?$`)
)

// routeReason returns why a call was routed so, for people: of an agent that failed, ai-bridge's outcome rather than the cause
// that stands for all of them.
func routeReason(s string) string {
	failed := agentFailed.FindStringSubmatch(s)
	if failed == nil {
		return s
	}
	why := failed[2]
	if bridge := bridgeReason.FindStringSubmatch(strings.TrimSpace(failed[3])); bridge != nil {
		why = bridge[1]
	}
	return failed[1] + why
}
