package esl_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fakefs"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// sent returns the api commands that a switch got.
func (s *scene) sent() []string {
	var all []string
	for _, line := range s.fake.Received() {
		if command, ok := strings.CutPrefix(line, "api "); ok {
			all = append(all, strings.TrimSpace(command))
		}
	}
	return all
}

// script answers commands by their beginning, the longest that fits.
func script(replies map[string]string) func(*fakefs.Conn, string) string {
	return func(_ *fakefs.Conn, line string) string {
		best := "-ERR command not found\n"
		longest := -1
		for command, reply := range replies {
			if strings.HasPrefix(line, command) && len(command) > longest {
				best, longest = reply, len(command)
			}
		}
		return best
	}
}

func TestTypedCommands(t *testing.T) {
	t.Parallel()
	const flushed = "+OK flushing all registrations matching specified call_id\n"
	s := newScene(t)
	s.fake.OnAPI(script(map[string]string{
		"xml_flush_cache ":        "+OK cleared 0 entries\n",
		"sofia profile internal ": flushed,
		"sofia profile nosuch ":   "Invalid Profile [nosuch]",
	}))
	for _, tc := range []struct {
		name string
		run  func(context.Context) error
		want []string // sent
		err  string
	}{
		{
			name: "user", run: func(ctx context.Context) error { return s.FlushUser(ctx, "tenant-a.example", "1001") },
			want: []string{"xml_flush_cache id 1001 tenant-a.example", "xml_flush_cache number-alias 1001 tenant-a.example"},
		},
		{
			name: "registration", run: func(ctx context.Context) error {
				return s.FlushRegistration(ctx, "internal", "1001~tls", "tenant-a.example")
			},
			want: []string{"sofia profile internal flush_inbound_reg 1001~tls@tenant-a.example"},
		},
		{
			name: "registrations of a realm", run: func(ctx context.Context) error { return s.FlushRegistrations(ctx, "internal", "tenant-a.example") },
			want: []string{"sofia profile internal flush_inbound_reg @tenant-a.example"},
		},
		{
			name: "registration at a forged host",
			run: func(ctx context.Context) error {
				return s.FlushRegistration(ctx, "internal", "1001", "[2001:db8::1]:5070")
			},
			want: []string{"sofia profile internal flush_inbound_reg 1001@[2001:db8::1]:5070"},
		},
		{
			name: "registration on an unknown profile",
			run:  func(ctx context.Context) error { return s.FlushRegistration(ctx, "nosuch", "1001", "tenant-a.example") },
			want: []string{"sofia profile nosuch flush_inbound_reg 1001@tenant-a.example"}, err: `the switch refuses sofia: "Invalid Profile [nosuch]"`,
		},
	} {
		// One after the other, to tell whose commands they are.
		before := len(s.sent())
		err := tc.run(t.Context())
		if got := s.sent()[before:]; !slices.Equal(got, tc.want) {
			t.Errorf("%s: sent %q, want %q", tc.name, got, tc.want)
		}
		if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
			t.Errorf("%s: error is %v, want %s", tc.name, err, tc.err)
		}
	}
}

// No argument can be more, or other, than the switch is to take it for, and the error says which is wrong.
func TestArgumentsAreChecked(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const realm, user, profile = "tenant-a.example", "1001", "internal"
	commands := map[string]func(string) error{
		"command":    func(v string) error { _, err := s.API(t.Context(), v); return err },
		"argument 2": func(v string) error { _, err := s.API(t.Context(), "echo", "x", v); return err },
		"realm":      func(v string) error { return s.FlushUser(t.Context(), v, user) },
		"user":       func(v string) error { return s.FlushUser(t.Context(), realm, v) },
		"profile":    func(v string) error { return s.FlushRegistration(t.Context(), v, user, realm) },
		"user ":      func(v string) error { return s.FlushRegistration(t.Context(), profile, v, realm) },
		"host":       func(v string) error { return s.FlushRegistration(t.Context(), profile, user, v) },
		"profile ":   func(v string) error { return s.FlushRegistrations(t.Context(), v, realm) },
		"realm ":     func(v string) error { return s.FlushRegistrations(t.Context(), profile, v) },
	}
	hostile := []string{
		"", "a b", "a\n\napi shutdown", "a\r\n\r\napi shutdown", "a\nb", "a\rb", "a\x00b", "a\tb", "a\x7f", "\xff", "a'b", `a\b`, `a\sb`, "${system(x)}",
		"$x", "`x`", "^^:a:b", "unload-mod_event_socket", "RELOAD.MOD_Event_Socket", "<!x", "ARRAY::a|:b",
	}
	for name, run := range commands {
		for _, value := range hostile {
			err := run(value)
			field, ok := errors.AsType[*invalid.FieldError](err)
			if !ok || field.Name != strings.TrimSpace(name) {
				t.Errorf("%s %q: error is %v", name, value, err)
			} else if len(value) > 3 && strings.Contains(err.Error(), value) {
				t.Errorf("%s %q is repeated: %v", name, value, err)
			}
		}
	}
	for name, values := range map[string][]string{
		"command":  {"Status", "status x", "-status", "sofia;", "status\n"},
		"realm":    {"a@b", "a_b", "-a", "a..b", "10.0.0.1", "a%b"},
		"user":     {"a@b", "~tls", "-a", "a%b", "a*", "è", strings.Repeat("1", 81)},
		"profile":  {"a@b", "-a", "*", strings.Repeat("1", 65)},
		"profile ": {"reboot now"}, "user ": {"@"}, "host": {"@", "a_b", "a%b"}, "realm ": {"@"},
	} {
		for _, value := range values {
			if err := commands[name](value); err == nil || !strings.HasPrefix(err.Error(), strings.TrimSpace(name)+": ") {
				t.Errorf("%s %q: error is %v", name, value, err)
			}
		}
	}
	if sent := s.sent(); len(sent) > 0 {
		t.Errorf("sent %q", sent)
	}
}

func TestRegistrations(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const profile = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<profile>\n  <profile-info>\n    <name>x</name>\n"
	s.fake.OnAPI(script(map[string]string{
		// As the switch lists them: again for TLS, with aliases and gateways between.
		"sofia xmlstatus": "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<profiles>\n" +
			"<profile>\n<name>internal</name>\n<type>profile</type>\n<data>sip:mod_sofia@127.0.0.1:5060</data>\n<state>RUNNING (0)</state>\n</profile>\n" +
			"<profile>\n<name>internal</name>\n<type>profile</type>\n<data>sip:mod_sofia@127.0.0.1:5061</data>\n<state>RUNNING (0) (TLS)</state>\n</profile>\n" +
			"<gateway>\n<name>carrier</name>\n<type>gateway</type>\n<data>sip:x@y</data>\n<state>NOREG</state>\n</gateway>\n\n" +
			"<alias>\n<name>tenant-a.example</name>\n<type>alias</type>\n<data>internal</data>\n<state>ALIASED</state>\n</alias>\n" +
			"<profile>\n<name>external</name>\n<type>profile</type>\n<data>sip:mod_sofia@127.0.0.1:5080</data>\n<state>RUNNING (0)</state>\n</profile>\n" +
			"</profiles>\n",
		"sofia xmlstatus profile internal": profile + "    <registrations>1234</registrations>\n  </profile-info>\n</profile>\n",
		"sofia xmlstatus profile external": profile + "    <registrations>5</registrations>\n  </profile-info>\n</profile>\n",
	}))
	if n, err := s.Registrations(t.Context()); n != 1239 || err != nil {
		t.Errorf("%d registrations, %v", n, err)
	}
	if sent := s.sent(); len(sent) != 3 {
		t.Errorf("sent %q", sent)
	}
	s.fake.OnAPI(script(map[string]string{"sofia xmlstatus": "<profiles>\n<profile>\n<name>internal</name>\n</profile>\n</profiles>", "sofia xmlstatus profile": "Invalid Profile!\n"}))
	if n, err := s.Registrations(t.Context()); err == nil {
		t.Errorf("%d registrations of a profile that is gone", n)
	}
	s.fake.OnAPI(script(nil))
	if n, err := s.Registrations(t.Context()); err == nil {
		t.Errorf("%d registrations without mod_sofia", n)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.fake.OnAPI(script(map[string]string{
		`json {"command":"status","data":""}`: `{"command":"status","data":"","status":"success","response":{"systemStatus":"ready","uptime":{"years":1,"days":2,` +
			`"hours":3,"minutes":4,"seconds":5,"milliseconds":6,"microseconds":7},"version":"1.11.1-release  64bit","sessions":{"count":{"total":9,` +
			`"active":2,"peak":3,"peak5Min":2,"limit":1000},"rate":{"current":0,"max":30,"peak":1,"peak5Min":0}},"idleCPU":{"used":0,"allowed":99.36666666666666}}}` + "\n",
	}))
	want := esl.Status{
		Ready: true, Version: "1.11.1-release  64bit", Sessions: 2, MaxSessions: 1000,
		Uptime: (367*24+3)*time.Hour + 4*time.Minute + 5*time.Second + 6*time.Millisecond + 7*time.Microsecond,
	}
	if got, err := s.Status(t.Context()); got != want || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, reply := range []string{"+OK", "{}", `{"status":"error"}`, `{"response":{"uptime":{"days":"many"},"systemStatus":"ready"}}`, "-ERR Parse error.\n"} {
		s.fake.OnAPI(func(*fakefs.Conn, string) string { return reply })
		_, err := s.Status(t.Context())
		if _, ok := errors.AsType[*esl.CommandError](err); !ok {
			t.Errorf("%s: error is %v", reply, err)
		}
	}
}

// What a switch remembered is told when it forgets.
func TestEmptyCache(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for reply, want := range map[string]int{"+OK cleared 0 entries\n": 0, "+OK cleared 1 entry\n": 1, "+OK cleared 12 entries\n": 12, "+OK\n": -1, "-ERR no\n": -1} {
		s.fake.OnAPI(script(map[string]string{"xml_flush_cache": reply}))
		n, err := s.EmptyCache(t.Context())
		if err != nil {
			n = -1
		}
		if n != want {
			t.Errorf("%q is read as %d, %v; want %d", reply, n, err, want)
		}
	}
}
