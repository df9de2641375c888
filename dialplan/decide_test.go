package dialplan_test

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/golden"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

func phone(destination string) dialplan.Call {
	return dialplan.Call{
		Context: "tenant-a", Destination: destination, Profile: directory.ProfileInternal, Source: netip.MustParseAddr("192.0.2.7"),
		Authorized: true, User: "1001", Realm: "tenant-a.example",
	}
}

func route(tb testing.TB, s dialplan.Store, c dialplan.Call) (dialplan.Route, string) {
	tb.Helper()
	facts, err := dialplan.Gather(tb.Context(), s, c)
	if err != nil {
		tb.Fatal(err)
	}
	r := dialplan.Decide(c, facts)
	doc, err := r.XML()
	if err != nil {
		tb.Fatal(err)
	}
	return r, string(doc)
}

// The documents that make a call, whole: what FreeSWITCH will execute, in order.
func TestRoutes(t *testing.T) {
	t.Parallel()
	inbound := dialplan.Call{
		Context: trunk.ContextInbound, Destination: "+390612345678", Profile: directory.ProfileExternal, Source: netip.MustParseAddr("127.0.0.1"),
		CallerNumber: "+393331234567", CallerName: "Anna",
	}
	own := phone("+393331234567")
	own.User = "1006"
	withPolicy := func(p trunk.CallerIDPolicy, callerID fstext.E164, channels int) *memstore.Store {
		s := &memstore.Store{}
		storetest.Build(withoutTrunks{s})
		k := storetest.Trunk("tenant-a", "first", 10, 5090, "+390612345600")
		k.CallerID, k.CallerIDNumber, k.MaxChannels = p, callerID, channels
		s.AddTrunk(k)
		return s
	}
	main := storetest.E164("+390612345600")
	for _, tc := range []struct {
		name  string
		store *memstore.Store
		call  dialplan.Call
		kind  dialplan.Kind
	}{
		{"extension", storetest.Scene(t), phone("1002"), dialplan.KindExtension},
		{"did", storetest.Scene(t), inbound, dialplan.KindExtension},
		{"public-two-trunks", storetest.Scene(t), phone("+393331234567"), dialplan.KindPublic},
		{"emergency", storetest.Scene(t), phone("112"), dialplan.KindEmergency},
		{"echo", storetest.Scene(t), phone("9196"), dialplan.KindEcho},
		{"public-own-caller-id", withPolicy(trunk.CallerIDExtension, main, 30), own, dialplan.KindPublic},
		{"public-no-own-caller-id", withPolicy(trunk.CallerIDExtension, main, 30), phone("+393331234567"), dialplan.KindPublic},
		{"public-withheld", withPolicy(trunk.CallerIDWithheld, main, 30), phone("+393331234567"), dialplan.KindPublic},
		{"emergency-not-withheld", withPolicy(trunk.CallerIDWithheld, main, 30), phone("112"), dialplan.KindEmergency},
		{"public-no-number", withPolicy(trunk.CallerIDTrunk, fstext.E164{}, 30), phone("+393331234567"), dialplan.KindPublic},
		{"public-unlimited", withPolicy(trunk.CallerIDTrunk, main, 0), own, dialplan.KindPublic},
		{"public-no-trunk", func() *memstore.Store { s := &memstore.Store{}; storetest.Build(withoutTrunks{s}); return s }(), phone("+393331234567"), dialplan.KindRefused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r, doc := route(t, tc.store, tc.call)
			if r.Kind != tc.kind {
				t.Errorf("kind %s (%s), want %s", r.Kind, r.Reason, tc.kind)
			}
			golden.Check(t, filepath.Join("testdata", tc.name+".xml"), []byte(doc))
		})
	}
}

// withoutTrunks takes a scene but for its trunks.
type withoutTrunks struct{ *memstore.Store }

func (withoutTrunks) AddTrunk(trunk.Trunk, ...trunk.Range) {}

// An extension that has the number of the echo test is called, and the test is out of reach.
func TestExtensionBeforeFeatureCode(t *testing.T) {
	t.Parallel()
	s := storetest.Scene(t)
	s.AddExtension(storetest.Extension("tenant-a", "tenant-a.example", "9196", "9196"))
	if r, doc := route(t, s, phone("9196")); r.Kind != dialplan.KindExtension {
		t.Errorf("kind %s\n%s", r.Kind, doc)
	}
}

// Laws, for any call whatever: there is one route; it never names the other tenant; the same call has the same route;
// only an identity that the switch established, or a carrier's address, gets anything but a refusal.
func TestAnyCall(t *testing.T) {
	t.Parallel()
	s := storetest.Scene(t)
	pick := func(values ...string) *rapid.Generator[string] {
		return rapid.OneOf(rapid.SampledFrom(values), rapid.String())
	}
	numbers := pick("1000", "1001", "1002", "1004", "9196", "112", "+390612345678", "+390612345778", "0612345678", "+393331234567", "${x}", "1001,loopback/1", "")
	rapid.Check(t, func(rt *rapid.T) {
		c := dialplan.Call{
			Context:      pick("tenant-a", "public", "nobody", "global", "default").Draw(rt, "context"),
			Destination:  numbers.Draw(rt, "destination"),
			Profile:      pick(directory.ProfileInternal, directory.ProfileExternal).Draw(rt, "profile"),
			Authorized:   rapid.Bool().Draw(rt, "authorized"),
			User:         pick("1000", "1001", "anna.rossi", "1004").Draw(rt, "user"),
			Realm:        pick("tenant-a.example", "branch.tenant-a.example", "nobody.example").Draw(rt, "realm"),
			CallerNumber: pick("+393331234567", "anonymous").Draw(rt, "caller number"),
			CallerName:   pick("Anna", "${system(id)}", "a,b").Draw(rt, "caller name"),
			Outbound:     rapid.Bool().Draw(rt, "outbound"),
			Transferred:  rapid.Bool().Draw(rt, "transferred"),
			LegUser:      pick("", "1000").Draw(rt, "leg user"),
			LegRealm:     pick("", "tenant-a.example").Draw(rt, "leg realm"),
			LegTenant:    pick("", storetest.TenantID("tenant-a").String()).Draw(rt, "leg tenant"),
		}
		fromCarrier := rapid.Bool().Draw(rt, "from the carrier")
		if fromCarrier {
			c.Source = netip.MustParseAddr("127.0.0.1")
		}
		if strings.Contains(c.Destination, "3906123457") {
			return // the other tenant's DID, which the same carrier serves
		}
		r, doc := route(t, s, c)
		if _, again := route(t, s, c); again != doc {
			rt.Errorf("two routes for one call:\n%s\n%s", doc, again)
		}
		if strings.Contains(doc, "tenant-b") || strings.Contains(doc, storetest.TenantID("tenant-b").String()) {
			rt.Errorf("tenant-b in\n%s", doc)
		}
		if strings.Count(doc, "<extension ") != 1 || strings.ContainsAny(doc, "$") {
			rt.Errorf("document\n%s", doc)
		}
		known := c.Authorized && c.Profile == directory.ProfileInternal || c.Transferred && (c.LegUser != "" && c.Outbound || c.LegTenant != "") || fromCarrier && c.Profile == directory.ProfileExternal
		if !known && r.Kind != dialplan.KindRefused {
			rt.Errorf("%s for nobody:\n%+v\n%s", r.Kind, c, doc)
		}
		public := r.Kind == dialplan.KindPublic || r.Kind == dialplan.KindEmergency
		if public && !(c.Authorized || c.Outbound && c.LegUser != "") {
			rt.Errorf("a call to the public network for somebody who is not an extension:\n%+v\n%s", c, doc)
		}
	})
}
