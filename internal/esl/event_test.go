package esl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseEvent(t *testing.T) {
	t.Parallel()
	got, err := parseEvent("Event-Subclass: sofia%3A%3Aregister\nEvent-Name: CUSTOM\nEvent-Sequence: 18446744073709551615\n" +
		"contact: %22%22%20%3Csip%3A1001%40127.0.0.1%3A5060%3E\nplus: a+b\nbroken: bad%zz%20\nhalf: 50%\nempty: _undef_\n" +
		"Name with (brackets) and è: x\nvariable_foo: lower\nvariable_Foo: upper\nvariable_foo: again\nContent-Length: 11\n\n" +
		"two\nlines%20")
	if err != nil {
		t.Fatal(err)
	}
	want := Event{
		Name: "CUSTOM", Subclass: "sofia::register", Sequence: 1<<64 - 1,
		Headers: []Header{
			{"Event-Subclass", "sofia::register"},
			{"Event-Name", "CUSTOM"},
			{"Event-Sequence", "18446744073709551615"},
			{"contact", `"" <sip:1001@127.0.0.1:5060>`},
			{"plus", "a+b"},
			{"broken", "bad%zz%20"},
			{"half", "50%"},
			{"empty", ""},
			{"Name with (brackets) and è", "x"},
			{"variable_foo", "lower"},
			{"variable_Foo", "upper"},
			{"variable_foo", "again"},
			{"Content-Length", "11"},
		},
		Body: "two\nlines%20",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, value := range map[string]string{"variable_foo": "lower", "variable_Foo": "upper", "variable_FOO": "", "nothing": ""} {
		if v := got.Get(name); v != value {
			t.Errorf("%s is %q, want %q", name, v, value)
		}
	}
}

func TestParseEventRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "\n\nEvent-Name: HEARTBEAT\n", "Event-Subclass: x\n\n", "Event-Name HEARTBEAT\n\n", "Event-Name: HEARTBEAT\nbare\n\n"} {
		if e, err := parseEvent(text); err == nil {
			t.Errorf("%q is %+v", text, e)
		}
	}
}

// Law: reading an event does not crash; what is read was in it, and has a name.
func FuzzParseEvent(f *testing.F) {
	f.Add("Event-Name: HEARTBEAT\nEvent-Sequence: 7\n\nbody")
	f.Add("Event-Name: %43USTOM\nEvent-Subclass: bad%zz\n: \n\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseEvent(text)
		if err != nil {
			return
		}
		total := len(e.Body)
		for _, h := range e.Headers {
			total += len(h.Name) + len(h.Value)
		}
		if total > len(text) || !strings.HasSuffix(text, e.Body) {
			t.Errorf("%+v was read from %q", e, text)
		}
		if e.Name == "" || e.Name != e.Get("Event-Name") {
			t.Errorf("%q is the name of %q", e.Name, text)
		}
	})
}
