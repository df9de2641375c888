package dialplan_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/golden"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/schedule"
	"github.com/edgvoip/edgvoip/trunk"
)

// The office is open on weekdays, in Rome.
const office = `{"weekly":{"mon":[{"from":"09:00","to":"18:00"}],"tue":[{"from":"09:00","to":"18:00"}]}}`

// withAgent is the scene with an agent on a trunk that brings the DIDs +390699000000 to …99.
func withAgent(tb testing.TB, policy, failover string) *memstore.Store {
	tb.Helper()
	s := storetest.Scene(tb)
	k := storetest.Trunk("tenant-a", "agents", 30, 5093, "+390699000000")
	k.AIAgentRef, k.Hours, k.Failover = "reception", schedule.ReadHours(policy, "Europe/Rome"), fstext.Extension{}
	if failover != "" {
		k.Failover = storetest.Number(failover)
	}
	s.AddTrunk(k, trunk.Range{First: storetest.E164("+390699000000"), Last: storetest.E164("+390699000099")})
	return s
}

// toReception is a carrier's call at 10:00 on a Monday in Rome.
func toReception() dialplan.Call {
	return dialplan.Call{
		Channel: "0ab5d8f0-36a8-4b34-9a5a-0d6f0d8f1a01", At: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC),
		Context: trunk.ContextInbound, Destination: "+390699000001", Profile: directory.ProfileExternal, Source: netip.MustParseAddr("127.0.0.1"),
		CallerNumber: "+393331234567", CallerName: "Anna", Agents: fstext.Const("127.0.0.1:5090"),
	}
}

func TestAgent(t *testing.T) {
	t.Parallel()
	inHours := toReception()
	night := toReception()
	night.At = night.At.Add(12 * time.Hour)
	noBridge := toReception()
	noBridge.Agents = fstext.Text{}
	noUUID := toReception()
	noUUID.Channel = "${system(id)}"
	for _, tc := range []struct {
		name, policy, failover string
		call                   dialplan.Call
		kind                   dialplan.Kind
		reason                 string
	}{
		{"agent", office, "1000", inHours, dialplan.KindAgent, "agent on: mon 09:00-18:00"},
		{"agent-no-failover", office, "", inHours, dialplan.KindAgent, "agent on: mon 09:00-18:00"},
		{"agent-failover-unknown", office, "1999", inHours, dialplan.KindAgent, "agent on: mon 09:00-18:00"},
		{"agent-failover-suspended", office, "1004", inHours, dialplan.KindAgent, "agent on: mon 09:00-18:00"},
		{"agent-always", "", "1000", night, dialplan.KindAgent, "agent on: no time policy"},
		{"agent-off", office, "1000", night, dialplan.KindExtension, "agent off: outside of windows"},
		{"agent-off-no-failover", office, "", night, dialplan.KindRefused, "agent off: outside of windows; trunk has no extension to take its calls"},
		{"agent-off-failover-unknown", office, "1999", night, dialplan.KindRefused, "agent off: outside of windows; extension that takes the trunk's calls does not exist"},
		{"agent-unreadable", `{"weekly":1}`, "1000", inHours, dialplan.KindExtension, "agent off: time policy cannot be read"},
		{"agent-no-bridge", office, "1000", noBridge, dialplan.KindExtension, "agent off: AI_BRIDGE_ADDR is not set"},
		{"agent-no-uuid", office, "1000", noUUID, dialplan.KindExtension, "agent off: the channel has no UUID"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, doc := route(t, withAgent(t, tc.policy, tc.failover), tc.call)
			if r.Kind != tc.kind || !strings.Contains(doc, `data="edgvoip_reason=`+tc.reason) {
				t.Errorf("kind %s (%s), want %s because of %q\n%s", r.Kind, r.Reason, tc.kind, tc.reason, doc)
			}
			golden.Check(t, filepath.Join("testdata", tc.name+".xml"), []byte(doc))
		})
	}
}

// Whatever the hours, the explanation is of the decision that the switch gets.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := withAgent(t, office, "1000")
	c := toReception()
	open := map[bool]int{}
	for i := range 1000 {
		c.At = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * 37 * time.Minute)
		facts, err := dialplan.Gather(t.Context(), s, c)
		if err != nil {
			t.Fatal(err)
		}
		r := dialplan.Decide(c, facts)
		isOpen := r.Kind == dialplan.KindAgent
		open[isOpen]++
		text := fmt.Sprint(dialplan.Explain(c, facts, r))
		for _, want := range []string{"agents", "reception", fmt.Sprintf("open: %t", isOpen), "{route " + string(r.Kind) + ": agent ", "next change at"} {
			if !strings.Contains(text, want) {
				t.Fatalf("at %s: no %q in %s", c.At, want, text)
			}
		}
	}
	if open[true] == 0 || open[false] == 0 {
		t.Errorf("decisions %v, want both", open)
	}
	facts, err := dialplan.Gather(t.Context(), s, phone("+393331234567"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(dialplan.Explain(phone("+393331234567"), facts, dialplan.Decide(phone("+393331234567"), facts)))
	if !strings.Contains(text, "extension 1001 of tenant-a.example, by its credentials") || !strings.Contains(text, "attempt 2: second") {
		t.Error(text)
	}
}

// An operator who asks is told plainly that nobody stands in for the agent, or that who does is not there any more.
func TestExplainNobodyStandsIn(t *testing.T) {
	t.Parallel()
	for failover, want := range map[string]string{
		"": "{callee none: the trunk has no failover extension}", "1999": "{callee none: failover extension 1999 of the trunk does not exist",
		"1004": "{callee extension 1004 of tenant-a.example, active: false}",
	} {
		f, err := dialplan.Gather(t.Context(), withAgent(t, office, failover), toReception())
		if text := fmt.Sprint(dialplan.Explain(toReception(), f, dialplan.Decide(toReception(), f))); err != nil || !strings.Contains(text, want) || !strings.Contains(text, "{tenant tenant-a,") {
			t.Errorf("failover %q: %v, %s; want %s", failover, err, text, want)
		}
	}
}

// A caller whom the agent hands to an extension reaches it, and if it cannot take the call, the one that stands in: he
// is not lost.
func TestHandedOver(t *testing.T) {
	t.Parallel()
	tenant := storetest.TenantID("tenant-a").String()
	for _, tc := range []struct {
		name, failover, to, trunk string
		kind                      dialplan.Kind
		reason                    string
	}{
		{"agent-hands-over", "1000", "1002", "agents", dialplan.KindExtension, ""},
		{"agent-hands-over-to-stand-in", "1000", "1000", "agents", dialplan.KindExtension, ""},
		{"agent-hands-over-to-nobody", "1000", "1999", "agents", dialplan.KindExtension, ""},
		{"agent-hands-over-to-suspended", "1000", "1004", "agents", dialplan.KindExtension, ""},
		{"agent-hands-over-without-stand-in", "", "1002", "agents", dialplan.KindExtension, ""},
		{"agent-hands-over-unknown-stand-in", "1999", "1002", "agents", dialplan.KindExtension, ""},
		{"agent-hands-over-in-vain", "1004", "1999", "agents", dialplan.KindRefused, "called extension is suspended"},
		{"agent-hands-over-trunk-gone", "1000", "1999", "gone", dialplan.KindRefused, "transferred to something that is not an extension of the tenant"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, c := withAgent(t, office, tc.failover), toReception()
			_, first := route(t, s, c)
			c.Context, c.Destination, c.Transferred, c.WithAgent = transferContext(t, first), tc.to, true, true
			c.LegTenant, c.LegTrunk = tenant, storetest.TrunkID("tenant-a", tc.trunk).String()
			r, doc := route(t, s, c)
			if r.Kind != tc.kind || r.Reason != tc.reason {
				t.Errorf("kind %s (%s), want %s (%s)\n%s", r.Kind, r.Reason, tc.kind, tc.reason, doc)
			}
			golden.Check(t, filepath.Join("testdata", tc.name+".xml"), []byte(doc))
		})
	}
}

// transferContext returns the context in which the switch looks for the route of a caller whom an agent hands over:
// what the first document sets, and without that the profile's.
func transferContext(tb testing.TB, doc string) string {
	tb.Helper()
	found := regexp.MustCompile(`data="force_transfer_context=([^"]*)"`).FindStringSubmatch(doc)
	if found == nil || found[1] == "" {
		return trunk.ContextInbound
	}
	return found[1]
}

// A tenant whose calls are recorded has those recorded that an agent takes, whether anybody stands in for him or not.
func TestAgentIsRecorded(t *testing.T) {
	t.Parallel()
	for _, failover := range []string{"1000", "1999", ""} {
		s := &memstore.Store{}
		storetest.Build(recorded{s})
		k := storetest.Trunk("tenant-a", "agents", 30, 5093, "+390699000000")
		k.AIAgentRef, k.Failover = "reception", fstext.Extension{}
		if failover != "" {
			k.Failover = storetest.Number(failover)
		}
		s.AddTrunk(k, trunk.Range{First: storetest.E164("+390699000000"), Last: storetest.E164("+390699000099")})
		c := toReception()
		c.Recordings = fstext.Const("/recordings")
		if r, doc := route(t, s, c); r.Kind != dialplan.KindAgent || !strings.Contains(doc, "execute_on_answer=record_session /recordings/") {
			t.Errorf("failover %q: kind %s (%s)\n%s", failover, r.Kind, r.Reason, doc)
		}
	}
}

// recorded puts a scene into a store in which all calls are recorded.
type recorded struct{ *memstore.Store }

func (s recorded) AddDomain(d directory.Domain) {
	d.Tenant.RecordCalls = directory.RecordAll
	s.Store.AddDomain(d)
}
