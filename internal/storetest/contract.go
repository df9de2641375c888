package storetest

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/trunk"
)

// store is what the contract covers.
type store interface {
	directory.Store
	dialplan.Store
	trunk.Store
}

// Contract checks a store that holds the scene.
func Contract(t *testing.T, s store) {
	t.Helper()
	t.Run("extension", func(t *testing.T) { extensionContract(t, s) })
	t.Run("extensions", func(t *testing.T) { extensionsContract(t, s) })
	t.Run("tenant extension", func(t *testing.T) { tenantExtensionContract(t, s) })
	t.Run("trunk tenant", func(t *testing.T) { trunkTenantContract(t, s) })
	t.Run("trunks", func(t *testing.T) { trunksContract(t, s) })
	t.Run("did", func(t *testing.T) { didContract(t, s) })
}

func extensionContract(t *testing.T, s store) {
	t.Helper()
	for _, tc := range []struct {
		realm, name string
		id          uuid.UUID
		err         error
	}{
		{"tenant-a.example", "1001", ExtensionID("tenant-a.example", "1001"), nil},
		{"tenant-b.example", "1001", ExtensionID("tenant-b.example", "1001"), nil},
		{"branch.tenant-a.example", "1001", ExtensionID("branch.tenant-a.example", "1001"), nil},
		{"tenant-a.example", "1003", ExtensionID("tenant-a.example", "1003"), nil},
		{"tenant-a.example", "Anna.Rossi", ExtensionID("tenant-a.example", "1003"), nil},
		{"tenant-a.example", "ANNA.rossi", ExtensionID("tenant-a.example", "1003"), nil},
		{"tenant-a.example", "1004", ExtensionID("tenant-a.example", "1004"), nil},
		{"tenant-c.example", "1000", ExtensionID("tenant-c.example", "1000"), nil},
		{"tenant-a.example", "2001", uuid.UUID{}, directory.ErrUnknownExtension},
		{"nobody.example", "1001", uuid.UUID{}, directory.ErrUnknownDomain},
	} {
		dom, ext, err := s.Extension(t.Context(), Realm(tc.realm), Username(tc.name))
		if !errors.Is(err, tc.err) || ext.ID != tc.id {
			t.Errorf("%s@%s is %v, %v; want %v, %v", tc.name, tc.realm, ext.ID, err, tc.id, tc.err)
		}
		if !errors.Is(err, directory.ErrUnknownDomain) && dom.Realm.String() != tc.realm {
			t.Errorf("domain of %s@%s is %s", tc.name, tc.realm, dom.Realm)
		}
	}
	dom, ext, err := s.Extension(t.Context(), Realm("tenant-a.example"), Username("1006"))
	if err != nil {
		t.Fatal(err)
	}
	want := Extension("tenant-a", "tenant-a.example", "1006", "1006")
	want.CallerID, want.MaxCalls = E164("+390612345606"), 0
	want.HA1MD5, want.HA1SHA256 = ext.HA1MD5, ext.HA1SHA256 // sealed anew each time; that they open is shown below
	opts := cmp.AllowUnexported(fstext.Realm{}, fstext.Extension{}, fstext.Username{}, fstext.DisplayName{}, fstext.E164{}, fstext.Text{}, fstext.Codecs{})
	if diff := cmp.Diff(want, ext, opts); diff != "" {
		t.Errorf("extension (-want +got)\n%s", diff)
	}
	if _, err := Keys().Open(ext.HA1SHA256, directory.CredentialOwner(ext.TenantID, ext.Username, ext.Realm, directory.SHA256)); err != nil {
		t.Errorf("credential does not open: %v", err)
	}
	if !dom.Usable() || dom.Tenant.Slug.String() != "tenant-a" || dom.Tenant.Country.String() != "IT" {
		t.Errorf("domain is %+v", dom)
	}
	if dom, err := s.Domain(t.Context(), Realm("tenant-c.example")); err != nil || dom.Usable() {
		t.Errorf("domain of a suspended tenant is usable: %+v, %v", dom, err)
	}
}

func extensionsContract(t *testing.T, s store) {
	t.Helper()
	list := func(limit int) []string {
		_, exts, err := s.Extensions(t.Context(), Realm("tenant-a.example"), limit)
		if err != nil {
			t.Fatal(err)
		}
		var numbers []string
		for _, e := range exts {
			numbers = append(numbers, e.Number.String())
		}
		return numbers
	}
	if diff := cmp.Diff([]string{"1000", "1001", "1002", "1003", "1005", "1006"}, list(100)); diff != "" {
		t.Errorf("active extensions (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"1000", "1001"}, list(2)); diff != "" {
		t.Errorf("first two (-want +got)\n%s", diff)
	}
	if _, _, err := s.Extensions(t.Context(), Realm("nobody.example"), 1); !errors.Is(err, directory.ErrUnknownDomain) {
		t.Errorf("extensions of nobody: %v", err)
	}
}

func tenantExtensionContract(t *testing.T, s store) {
	t.Helper()
	for _, tc := range []struct {
		tenant, near, name string
		want               uuid.UUID
	}{
		{"tenant-a", "tenant-a.example", "1001", ExtensionID("tenant-a.example", "1001")},
		{"tenant-a", "branch.tenant-a.example", "1001", ExtensionID("branch.tenant-a.example", "1001")},
		{"tenant-a", "", "1001", ExtensionID("tenant-a.example", "1001")},
		{"tenant-a", "tenant-a.example", "2001", ExtensionID("branch.tenant-a.example", "2001")},
		{"tenant-a", "tenant-b.example", "1001", ExtensionID("tenant-a.example", "1001")},
		{"tenant-b", "tenant-b.example", "2001", uuid.UUID{}},
		{"tenant-c", "tenant-c.example", "1000", uuid.UUID{}},
		{"tenant-z", "", "1000", uuid.UUID{}},
	} {
		var near uuid.UUID
		if tc.near != "" {
			near = DomainID(tc.near)
		}
		owner, ext, err := s.TenantExtension(t.Context(), TenantID(tc.tenant), near, Username(tc.name))
		if ext.ID != tc.want || (err == nil) != (tc.want != uuid.UUID{}) || err != nil && !errors.Is(err, directory.ErrUnknownExtension) {
			t.Errorf("%s of %s near %q is %v, %v; want %v", tc.name, tc.tenant, tc.near, ext.ID, err, tc.want)
		}
		if err == nil && owner.Slug.String() != tc.tenant {
			t.Errorf("%s of %s belongs to %s", tc.name, tc.tenant, owner.Slug)
		}
	}
}

func trunkTenantContract(t *testing.T, s store) {
	t.Helper()
	for slug, want := range map[string]directory.Tenant{
		"tenant-a": Tenant("tenant-a", "IT", true), "tenant-b": Tenant("tenant-b", "IT", true), "tenant-c": Tenant("tenant-c", "DE", false), "tenant-z": {},
	} {
		got, err := s.TrunkTenant(t.Context(), TenantID(slug))
		if got != want || (err == nil) != (want != directory.Tenant{}) || err != nil && !errors.Is(err, directory.ErrUnknownTenant) {
			t.Errorf("%s is %+v, %v; want %+v", slug, got, err, want)
		}
	}
}

func ids(list []trunk.Trunk) []uuid.UUID {
	var out []uuid.UUID
	for _, t := range list {
		out = append(out, t.ID)
	}
	return out
}

func trunksContract(t *testing.T, s store) {
	t.Helper()
	a1, a2 := TrunkID("tenant-a", "first"), TrunkID("tenant-a", "second")
	list, err := s.TenantTrunks(t.Context(), TenantID("tenant-a"))
	if diff := cmp.Diff([]uuid.UUID{a1, a2}, ids(list)); diff != "" || err != nil {
		t.Errorf("trunks of a tenant: %v (-want +got)\n%s", err, diff)
	}
	if len(list) > 0 {
		opts := cmp.AllowUnexported(fstext.Extension{}, fstext.Host{}, fstext.DisplayName{}, fstext.E164{}, fstext.Credential{}, fstext.Text{}, fstext.Codecs{})
		if diff := cmp.Diff(Trunk("tenant-a", "first", 10, 5090, "+390612345600"), list[0], opts); diff != "" {
			t.Errorf("trunk (-want +got)\n%s", diff)
		}
	}
	all, err := s.ActiveTrunks(t.Context())
	if err != nil || len(all) != 3 {
		t.Errorf("%d active trunks, %v; want 3", len(all), err)
	}
	for addr, want := range map[string]int{"127.0.0.1": 1, "::ffff:127.0.0.1": 1, "127.0.0.2": 0, "198.51.100.7": 0, "::1": 0} {
		countries, err := s.CarrierCountries(t.Context(), netip.MustParseAddr(addr))
		if err != nil || len(countries) != want || want == 1 && countries[0].String() != "IT" {
			t.Errorf("countries of %s are %v, %v; want %d", addr, countries, err, want)
		}
	}
}

func didContract(t *testing.T, s store) {
	t.Helper()
	for number, want := range map[string]uuid.UUID{
		"+390612345600": TrunkID("tenant-a", "first"), "+390612345650": TrunkID("tenant-a", "first"), "+390612345699": TrunkID("tenant-a", "first"),
		"+390612345700": TrunkID("tenant-b", "first"), "+390612345799": TrunkID("tenant-b", "first"),
		"+390612345599": {}, "+390612345800": {}, "+39061234565": {}, "+3906123456500": {}, "+1234567": {}, "+999999999999999": {},
	} {
		found, err := s.InboundTrunk(t.Context(), E164(number))
		if got := found.ID; got != want || (err == nil) != (want != uuid.UUID{}) || err != nil && !errors.Is(err, trunk.ErrUnknownDID) {
			t.Errorf("%s belongs to %v, %v; want %v", number, found.ID, err, want)
		}
	}
}
