package esl

import "testing"

// An event of which the switch did not say which one it is names none.
func TestEventOfRegistration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"Event-Name: CUSTOM\nCore-UUID: a\nEvent-Sequence: 7\n": "a/7", "Event-Name: CUSTOM\nCore-UUID: a\n": "", "Event-Name: CUSTOM\nEvent-Sequence: 7\n": "", "Event-Name: CUSTOM\n": "",
	} {
		e, err := parseEvent(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := NewRegistration(e).Event; got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
