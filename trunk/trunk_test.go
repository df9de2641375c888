package trunk_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

func gateway(t trunk.Trunk) (string, error) {
	doc := fsxml.New(fsxml.SectionConfiguration)
	if err := t.WriteGateway(doc, storetest.Keys()); err != nil {
		return "", err
	}
	b, err := doc.Bytes()
	return string(b), err
}

func TestGateway(t *testing.T) {
	t.Parallel()
	k := storetest.Trunk("tenant-a", "first", 10, 5090, "+390612345600")
	doc, err := gateway(k)
	if err != nil || !strings.Contains(doc, `<param name="register" value="false"/>`) || strings.Contains(doc, "password") {
		t.Errorf("gateway by address: %v\n%s", err, doc)
	}
	k.Register, k.Protocol = true, trunk.ProtocolTLS
	if k.Username, err = fstext.NewCredential("acct"); err != nil {
		t.Fatal(err)
	}
	k.Password = storetest.Keys().Seal([]byte("s3cr$t"), trunk.PasswordOwner(k.TenantID, k.ID))
	doc, err = gateway(k)
	for _, want := range []string{
		`name="` + k.ID.String() + `"`, `name="register" value="true"`, `name="username" value="acct"`, `name="password" value="s3cr&#36;t"`,
		`name="register-transport" value="tls"`, `name="context" value="public"`,
	} {
		if err != nil || !strings.Contains(doc, want) {
			t.Errorf("gateway that registers: %v, no %s in\n%s", err, want, doc)
		}
	}
	k.Password = storetest.Keys().Seal([]byte("s3cr$t"), trunk.PasswordOwner(storetest.TenantID("tenant-b"), k.ID))
	if doc, err := gateway(k); !errors.Is(err, secret.ErrTampered) {
		t.Errorf("password of another tenant: %v\n%s", err, doc)
	}
	k.Password = storetest.Keys().Seal([]byte("a${system(id)}"), trunk.PasswordOwner(k.TenantID, k.ID))
	if doc, err := gateway(k); !errors.Is(err, fstext.ErrUnsafe) || strings.Contains(err.Error(), "system") {
		t.Errorf("password that FreeSWITCH would expand: %v\n%s", err, doc)
	}
}

func TestSourceAddresses(t *testing.T) {
	t.Parallel()
	k := storetest.Trunk("tenant-a", "first", 10, 5090, "+390612345600")
	for _, tc := range []struct {
		host    string
		sources []netip.Prefix
		from    string
		want    bool
	}{
		{"192.0.2.1", nil, "192.0.2.1", true},
		{"192.0.2.1", nil, "::ffff:192.0.2.1", true},
		{"192.0.2.1", nil, "192.0.2.2", false},
		{"192.0.2.1", []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, "198.51.100.7", true},
		{"192.0.2.1", []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, "192.0.2.1", false},
		{"sip.carrier.example", nil, "192.0.2.1", false},
		{"2001:db8::1", nil, "2001:db8::1", true},
	} {
		k.Host, k.Sources = storetest.Must(fstext.NewHost(tc.host)), tc.sources
		if got := k.CallsFrom(netip.MustParseAddr(tc.from)); got != tc.want {
			t.Errorf("%s with %v calls from %s: %v, want %v", tc.host, tc.sources, tc.from, got, tc.want)
		}
	}
}
