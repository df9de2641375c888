package schedule

import "time"

// Hours are somebody's hours as they are stored: a policy, the zone that holds where it names none, and what they say.
// The zero value has no policy and is always open. Hours are not changed after they were made.
type Hours struct {
	text, zone string
	policy     Policy
	unreadable bool
}

// ReadHours reads a stored policy. No text is no policy, which is always open; one that cannot be read is never open.
func ReadHours(text, zone string) Hours {
	h := Hours{text: text, zone: zone}
	if text == "" {
		return h
	}
	var err error
	h.policy, err = Parse([]byte(text), zone)
	h.unreadable = err != nil
	return h
}

// Stored returns what the hours were read from.
func (h Hours) Stored() (text, zone string) { return h.text, h.zone }

// Equal tells whether two hours are stored alike.
func (h Hours) Equal(other Hours) bool { return h.text == other.text && h.zone == other.zone }

// Rules that are not a policy's own.
const (
	ruleNoPolicy   = "no time policy"
	ruleUnreadable = "time policy cannot be read"
)

// At tells whether an instant is in the hours, and why.
func (h Hours) At(t time.Time) State {
	switch {
	case h.unreadable:
		return State{Rule: ruleUnreadable, Local: t.UTC()}
	case h.text == "":
		local := t.UTC()
		if zone, err := LoadZone(h.zone); err == nil {
			local = t.In(zone)
		}
		return State{Open: true, Rule: ruleNoPolicy, Local: local}
	default:
		return h.policy.At(t)
	}
}

// Next returns the first instant after t at which the hours begin or end; ok is false if they never do.
func (h Hours) Next(t time.Time) (next time.Time, ok bool) { return h.policy.Next(t) }
