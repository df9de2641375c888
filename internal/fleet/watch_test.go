package fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fleet"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

func seen(address, credentials string) esl.Registration {
	user, host, _ := strings.Cut(address, "@")
	authUser, authRealm, _ := strings.Cut(credentials, "@")
	return esl.Registration{
		Profile: "internal", User: user, Host: host, AuthUser: authUser, AuthRealm: authRealm, CallID: "call-1", Agent: "phone", IP: "192.0.2.7", Port: "5070",
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	store := storetest.Scene(t)
	for _, tc := range []struct{ address, credentials, want string }{
		{"1001@tenant-a.example", "1001@tenant-a.example", ""},
		{"1001~tls@tenant-a.example", "1001@tenant-a.example", ""},
		{"1001~wss@tenant-a.example", "1001@tenant-a.example", ""},
		{"1001@TENANT-A.example", "1001@tenant-a.example", ""},
		{"1003@tenant-a.example", "Anna.Rossi@tenant-a.example", ""},
		{"1003~tls@tenant-a.example", "anna.rossi@tenant-a.example", ""},
		{"anna.rossi@tenant-a.example", "Anna.Rossi@tenant-a.example", ""},
		{"1002@tenant-a.example", "1001@tenant-a.example", "foreign_address"},
		{"1001@tenant-b.example", "1001@tenant-a.example", "foreign_address"},
		{"1001~tls@tenant-b.example", "1001@tenant-a.example", "foreign_address"},
		{"1001@branch.tenant-a.example", "1001@tenant-a.example", "foreign_address"},
		{"1001~sip@tenant-a.example", "1001@tenant-a.example", "foreign_address"},
		{"1001~tls~tls@tenant-a.example", "1001@tenant-a.example", "foreign_address"},
		{"@tenant-a.example", "1001@tenant-a.example", "foreign_address"},
		{"1001@", "1001@tenant-a.example", "foreign_address"},
		{"1004@tenant-a.example", "1004@tenant-a.example", "suspended"},
		{"1000@tenant-c.example", "1000@tenant-c.example", "suspended"},
		{"1000@tenant-a.example", "1004@tenant-a.example", "foreign_address"},
		{"1999@tenant-a.example", "1999@tenant-a.example", "unknown_account"},
		{"1001@tenant-z.example", "1001@tenant-z.example", "unknown_account"},
		{"1001@tenant-a.example", "@", "unknown_account"},
		{"1001@tenant-a.example", "10 01@tenant-a.example", "unknown_account"},
		{"1001@tenant-a.example", "1001@tenant a", "unknown_account"},
	} {
		v, err := fleet.Judge(t.Context(), store, seen(tc.address, tc.credentials))
		if err != nil || v.Reason() != tc.want {
			t.Errorf("%s with credentials of %s: %q, %v, want %q", tc.address, tc.credentials, v.Reason(), err, tc.want)
		}
	}
	if _, err := fleet.Judge(t.Context(), &flaky{Directory: store, failures: 1}, seen("1001@tenant-a.example", "1001@tenant-a.example")); err == nil {
		t.Error("a store that fails has judged")
	}
}

// A registration whose address is not its credentials' own is dropped at once, counted, and told of.
func TestWatch(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.options.Directory = &flaky{Directory: s.db, failures: 1} // while it is away, registrations wait
	s.put(t, "fs1", "fs1:8021", false)
	// What was registered before we came.
	s.at("fs1:8021").registers(seen("1001@tenant-a.example", "1001@tenant-a.example"), seen("1002@tenant-b.example", "1002@tenant-a.example"))
	s.run(t)
	c := s.expectConnected(t, "fs1:8021")
	c.handlers.Registered(seen("1003~tls@tenant-a.example", "anna.rossi@tenant-a.example"))
	c.handlers.Registered(seen("1001~wss@tenant-b.example", "1001@tenant-a.example"))
	c.handlers.Registered(seen("1001@tenant-a.example", "ghost@tenant-a.example"))
	want := []string{
		"drop 1002@tenant-b.example on internal", "drop 1001~wss@tenant-b.example on internal", "drop 1001@tenant-a.example on internal",
	}
	var told []string
	eventually(t, func() error {
		told = append(told, s.at("fs1:8021").takes()...)
		if diff := cmp.Diff(want, told); diff != "" {
			return errors.New(diff)
		}
		return s.idle(t)
	})
	if err := s.expectDropped(`edgvoip_registrations_dropped_total{node="fs1",reason="foreign_address"} 2`,
		`edgvoip_registrations_dropped_total{node="fs1",reason="unknown_account"} 1`); err != nil {
		t.Error(err)
	}
	for _, text := range []string{`"address":"1001~wss@tenant-b.example"`, `"auth_user":"1001","auth_realm":"tenant-a.example"`, `"phone":"192.0.2.7:5070"`, `"sip_call_id":"call-1"`} {
		if !strings.Contains(s.log.String(), text) {
			t.Errorf("the log does not say %s", text)
		}
	}
	jobs, err := s.db.Jobs(t.Context(), node.Filter{States: []node.State{node.Done}})
	if err != nil || len(jobs) != 3 || jobs[0].TenantID != storetest.TenantID("tenant-a") {
		t.Errorf("%+v, %v", jobs, err)
	}
}

// A registration of which nobody told is found all the same.
func TestPatrol(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.options.Patrol = 20 * time.Millisecond
	s.put(t, "fs1", "fs1:8021", false)
	s.run(t)
	s.expectConnected(t, "fs1:8021")
	s.at("fs1:8021").registers(seen("1001@tenant-a.example", "1001@tenant-a.example"), seen("1001@tenant-b.example", "1001@tenant-a.example"))
	eventually(t, func() error {
		if told := s.at("fs1:8021").takes(); !slices.Contains(told, "drop 1001@tenant-b.example on internal") {
			return fmt.Errorf("told %q", told)
		}
		return nil
	})
}

// What a phone writes can neither be stored as it is nor name anything else to the switch.
func TestHostileRegistrations(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	s.run(t)
	c := s.expectConnected(t, "fs1:8021")
	for _, address := range []string{
		"1001@tenant-b.example reboot", "x y@tenant-b.example", "@tenant-b.example", "1001@", "1001@a\x00b", "1001@\xff\xfe", "1001@x@tenant-b.example",
		"1001@'", "1001@$${domain}", "1001@" + strings.Repeat("x", 300), "1001@a\nb",
	} {
		c.handlers.Registered(seen(address, "1001@tenant-a.example"))
	}
	eventually(t, func() error {
		return s.expectDropped(`edgvoip_registrations_dropped_total{node="fs1",reason="unnameable"} 11`)
	})
	if told := s.at("fs1:8021").takes(); len(told) > 0 {
		t.Errorf("the switch was told %q", told)
	}
	all, err := s.db.Jobs(t.Context(), node.Filter{States: []node.State{node.Pending, node.Leased, node.Done, node.Dead}})
	if err != nil || len(all) > 0 {
		t.Errorf("jobs that nobody can do: %+v, %v", all, err)
	}
	if n := strings.Count(s.log.String(), `"msg":"registration cannot be named, and stays"`); n != 11 || strings.Contains(s.log.String(), `"msg":"registration dropped"`) {
		t.Errorf("%d of them in the log", n)
	}
}

// A registration counts as dropped once it is, and not before.
func TestDropFailsAtFirst(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	var tries int
	var early error
	s.at("fs1:8021").answers(func(string) error {
		if tries++; tries == 1 {
			return &esl.CommandError{Command: "sofia", Reply: "Invalid Profile [internal]"}
		}
		if strings.Contains(s.log.String(), `"msg":"registration dropped"`) {
			early = errors.New("the log says that it was dropped")
		} else {
			early = s.expectDropped()
		}
		return nil
	})
	s.run(t)
	s.expectConnected(t, "fs1:8021").handlers.Registered(seen("1001@tenant-b.example", "1001@tenant-a.example"))
	eventually(t, func() error {
		return s.expectDropped(`edgvoip_registrations_dropped_total{node="fs1",reason="foreign_address"} 1`)
	})
	if early != nil {
		t.Errorf("before it was dropped: %v", early)
	}
	if !strings.Contains(s.log.String(), `"msg":"registration not dropped yet"`) {
		t.Error("the log does not say that it was not dropped")
	}
}

// expectDropped compares what is counted as dropped.
func (s *site) expectDropped(want ...string) error {
	const name = "edgvoip_registrations_dropped_total"
	if len(want) == 0 {
		if n, err := testutil.GatherAndCount(s.registry, name); n != 0 || err != nil {
			return fmt.Errorf("%d, %w", n, err)
		}
		return nil
	}
	return testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP edgvoip_registrations_dropped_total Registrations that may not stay and were dropped, by reason: foreign_address, unknown_account, suspended; or could not be: unnameable.
# TYPE edgvoip_registrations_dropped_total counter
`+strings.Join(want, "\n")+"\n"), name)
}
