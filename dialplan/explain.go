package dialplan

import (
	"fmt"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/trunk"
)

// Step is one thing that a decision went by, for people.
type Step struct {
	// Subject is what it is about: caller, tenant, did, trunk, agent, hours, callee, route.
	Subject string
	// Text is what was found.
	Text string
}

// Explain tells how a route came about from the facts about a call, in order. It repeats what Decide looked at, and
// decides nothing itself. Numbers and names of the call are in it: it is for operators, not for logs.
func Explain(c Call, f Facts, r Route) []Step {
	var steps []Step
	add := func(subject, format string, args ...any) {
		steps = append(steps, Step{subject, fmt.Sprintf(format, args...)})
	}
	add("caller", "%s", f.explainCaller(c))
	if slug := r.tenant.Slug.String(); slug != "" {
		add("tenant", "%s, zone of its country %s", slug, r.tenant.Country)
	}
	switch {
	case f.emergency != (fstext.Dialled{}):
		add("number", "%s calls for help in %s", f.emergency, f.tenant.Country)
	case f.number != (fstext.E164{}):
		add("number", "%q is %s", c.Destination, f.number)
	}
	if f.inbound != nil {
		add("trunk", "%s (%s) brought the call", f.inbound.Name, f.inbound.ID)
		explainAgent(add, c, *f.inbound)
	}
	if f.callee != nil {
		add("callee", "extension %s of %s, active: %t", f.callee.Number, f.callee.Realm, f.callee.Active)
	}
	for i, a := range r.attempts {
		add("trunk", "attempt %d: %s (%s), number %s, caller id %s", i+1, a.trunk.Name, a.trunk.ID, a.number, a.callerID)
	}
	add("route", "%s", strings.TrimSuffix(string(r.Kind)+": "+r.explainReason(), ": "))
	return steps
}

func (r Route) explainReason() string {
	if r.Reason != "" {
		return r.Reason
	}
	return r.reason.String()
}

func (f Facts) explainCaller(c Call) string {
	switch f.who.origin {
	case originPhone:
		if f.caller == nil {
			return fmt.Sprintf("%s@%s is not an extension", f.who.user, f.who.realm)
		}
		return fmt.Sprintf("extension %s of %s, by its credentials; active: %t", f.caller.Number, f.caller.Realm, f.caller.Active)
	case originCarrier:
		return fmt.Sprintf("address %s on the carriers' profile; a carrier's: %t", c.Source, f.known)
	case originGuest:
		return "the far side of a call with a carrier, handed on by an extension"
	default:
		return "nobody: " + f.stranger
	}
}

func explainAgent(add func(subject, format string, args ...any), c Call, t trunk.Trunk) {
	if t.AIAgentRef == "" {
		add("agent", "none: calls go to the extension that stands in")
		return
	}
	hours := t.Hours.At(c.At)
	add("agent", "%s", t.AIAgentRef)
	add("hours", "%s is %s on the wall: %s, open: %t", c.At.UTC().Format(time.RFC3339), hours.Local.Format("2006-01-02 15:04 Mon MST"), hours.Rule, hours.Open)
	if next, ok := t.Hours.Next(c.At); ok {
		add("hours", "next change at %s", next.In(hours.Local.Location()).Format("2006-01-02 15:04 Mon MST"))
	}
}
