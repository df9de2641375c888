package esl

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
)

// Event is something that happened on the switch. Its zero value is no event.
type Event struct {
	// Name is that of the kind: HEARTBEAT, CUSTOM.
	Name string
	// Subclass is the kind of a CUSTOM event: sofia::register. Other events have none.
	Subclass string
	// Sequence is the number that the switch gave the event, out of all its events since it started: numbers grow, with
	// gaps for what was not subscribed to, and begin anew with the process. An event without a number has 0.
	Sequence uint64
	// Headers are in the order of the switch, which puts its own before those that others handed it.
	Headers []Header
	// Body is what follows the headers of some kinds of events, or nothing.
	Body string
}

// Header is one line of an event, its value decoded. A value that is not encoded as the switch should have is left as
// it came.
type Header struct{ Name, Value string }

// Get returns the first value with a name, spelled exactly as the switch does, or nothing. The first is also the one
// that the switch itself would take: an account's variables come after the facts and cannot hide them.
func (e Event) Get(name string) string {
	for _, h := range e.Headers {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// parseEvent reads the body of a text/event-plain frame (switch_event.c, switch_event_serialize): lines of "Name:
// value", values encoded, names not; a blank line; the event's own body.
func parseEvent(text string) (Event, error) {
	var e Event
	for text != "" {
		line, rest, _ := strings.Cut(text, "\n")
		text = rest
		if line == "" {
			e.Body = text
			break
		}
		name, value, found := strings.Cut(line, ": ")
		if !found {
			return Event{}, errors.New("a line of an event has no colon")
		}
		e.Headers = append(e.Headers, Header{Name: name, Value: unescape(value)})
	}
	e.Name, e.Subclass = e.Get("Event-Name"), e.Get("Event-Subclass")
	if e.Name == "" {
		return Event{}, errors.New("an event has no name")
	}
	e.Sequence, _ = strconv.ParseUint(e.Get("Event-Sequence"), 10, 64)
	return e, nil
}

// unescape decodes a value. A plus sign stands for itself; _undef_ is how the switch writes an empty value.
func unescape(value string) string {
	if value == "_undef_" {
		return ""
	}
	if decoded, err := url.PathUnescape(value); err == nil {
		return decoded
	}
	return value
}
