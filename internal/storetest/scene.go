// Package storetest holds what tests of several packages share: a scene of two tenants, and the contract that every
// store passes on it.
package storetest

import (
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/numbering"
	"github.com/edgvoip/edgvoip/schedule"
	"github.com/edgvoip/edgvoip/trunk"
)

// Must returns v, or fails on an error. It is for values that a test is written with.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Realm makes a realm that a test is written with.
func Realm(s string) fstext.Realm { return Must(fstext.NewRealm(s)) }

// Username makes a SIP username that a test is written with.
func Username(s string) fstext.Username { return Must(fstext.NewUsername(s)) }

// Number makes an extension's number that a test is written with.
func Number(s string) fstext.Extension { return Must(fstext.NewExtension(s)) }

// E164 makes a public number that a test is written with.
func E164(s string) fstext.E164 { return Must(fstext.NewE164(s)) }

// keyFile is a key ring for tests.
const keyFile = "test MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"

// Keys returns the key ring that seals the scene.
func Keys() *secret.KeyRing { return Must(secret.ParseKeyRing([]byte(keyFile))) }

// id returns a fixed id, so that golden files stay the same.
func id(s string) uuid.UUID { return uuid.NewSHA1(uuid.Nil, []byte(s)) }

// TenantID is the id of a tenant of the scene by its slug.
func TenantID(slug string) uuid.UUID { return id("tenant " + slug) }

// DomainID is the id of a domain of the scene by its realm.
func DomainID(realm string) uuid.UUID { return id("domain " + realm) }

// ExtensionID is the id of an extension of the scene.
func ExtensionID(realm, number string) uuid.UUID { return id("extension " + number + "@" + realm) }

// TrunkID is the id of a trunk of the scene.
func TrunkID(slug, name string) uuid.UUID { return id("trunk " + name + " of " + slug) }

// Tenant returns a tenant of the scene.
func Tenant(slug, country string, active bool) directory.Tenant {
	return directory.Tenant{
		ID: TenantID(slug), Slug: Must(fstext.NewSlug(slug)), Name: Must(fstext.NewDisplayName("Tenant " + slug)),
		Country: Must(numbering.NewCountry(country)), Active: active,
		RecordCalls: directory.RecordNone,
	}
}

// Extension returns an extension with password pw<number>, sealed under Keys.
func Extension(slug, realm, number, username string) directory.Extension {
	e := directory.Extension{
		ID: ExtensionID(realm, number), TenantID: TenantID(slug), DomainID: DomainID(realm), Realm: Realm(realm),
		Number: Number(number), Username: Username(username), Name: Must(fstext.NewDisplayName("Ext " + number)),
		Transport: directory.TransportAny, Codecs: Must(fstext.NewCodecs([]string{"OPUS", "PCMA", "PCMU"})),
		MaxCalls: 2, Active: true,
	}
	seal(&e, "pw"+number)
	return e
}

// seal gives an extension a password.
func seal(e *directory.Extension, password string) {
	user, realm, keys := e.Username.String(), e.Realm.String(), Keys()
	e.HA1MD5 = keys.Seal([]byte(secret.HA1MD5(user, realm, password)), directory.CredentialOwner(e.TenantID, e.Username, e.Realm, directory.MD5))
	e.HA1SHA256 = keys.Seal([]byte(secret.HA1SHA256(user, realm, password)), directory.CredentialOwner(e.TenantID, e.Username, e.Realm, directory.SHA256))
}

// Trunk returns a trunk of the scene to a carrier on 127.0.0.1.
func Trunk(slug, name string, priority, port int, callerID string) trunk.Trunk {
	return trunk.Trunk{
		ID: TrunkID(slug, name), TenantID: TenantID(slug), Name: Must(fstext.NewDisplayName(name)),
		Host: Must(fstext.NewHost("127.0.0.1")), Port: port, Protocol: trunk.ProtocolUDP, MaxChannels: 30, Priority: priority,
		CallerID: trunk.CallerIDTrunk, CallerIDNumber: E164(callerID), Failover: Number("1000"), NumberFormat: trunk.NumberPlus, Revision: 1,
		Hours: schedule.ReadHours("", "UTC"),
	}
}

// Sink is what a scene is put into.
type Sink interface {
	AddDomain(d directory.Domain)
	AddExtension(e directory.Extension)
	AddTrunk(t trunk.Trunk, dids ...trunk.Range)
}

// Scene returns a store in memory that holds the scene.
func Scene(tb testing.TB) *memstore.Store {
	tb.Helper()
	s := &memstore.Store{}
	Build(s)
	return s
}

// Build puts the scene into an empty store: two tenants with the same numbers, one that is suspended, and an extension
// for each case.
//
//	tenant-a  IT  tenant-a.example: 1000, 1001, 1002, 1003 (log-in "anna.rossi"), 1004 (suspended), 1005 (TLS only), 1006 (own caller id)
//	              branch.tenant-a.example: 1001, 2001
//	              trunks first (DIDs +390612345600 to …699) and second
//	tenant-b  IT  tenant-b.example: 1000, 1001, 1002; trunk first (DIDs +390612345700 to …799)
//	tenant-c  DE  tenant-c.example: 1000; suspended
func Build(s Sink) {
	domain := func(t directory.Tenant, realm string) {
		s.AddDomain(directory.Domain{ID: DomainID(realm), Realm: Realm(realm), Tenant: t, Active: true})
	}
	a, b, c := Tenant("tenant-a", "IT", true), Tenant("tenant-b", "IT", true), Tenant("tenant-c", "DE", false)
	domain(a, "tenant-a.example")
	domain(a, "branch.tenant-a.example")
	domain(b, "tenant-b.example")
	domain(c, "tenant-c.example")
	for _, n := range []string{"1000", "1001", "1002"} {
		s.AddExtension(Extension("tenant-a", "tenant-a.example", n, n))
		s.AddExtension(Extension("tenant-b", "tenant-b.example", n, n))
	}
	s.AddExtension(Extension("tenant-a", "tenant-a.example", "1003", "Anna.Rossi"))
	suspended := Extension("tenant-a", "tenant-a.example", "1004", "1004")
	suspended.Active = false
	s.AddExtension(suspended)
	tlsOnly := Extension("tenant-a", "tenant-a.example", "1005", "1005")
	tlsOnly.Transport = directory.TransportTLS
	s.AddExtension(tlsOnly)
	own := Extension("tenant-a", "tenant-a.example", "1006", "1006")
	own.CallerID, own.MaxCalls = E164("+390612345606"), 0
	s.AddExtension(own)
	s.AddExtension(Extension("tenant-a", "branch.tenant-a.example", "1001", "1001"))
	s.AddExtension(Extension("tenant-a", "branch.tenant-a.example", "2001", "2001"))
	s.AddExtension(Extension("tenant-c", "tenant-c.example", "1000", "1000"))
	s.AddTrunk(Trunk("tenant-a", "first", 10, 5090, "+390612345600"), trunk.Range{First: E164("+390612345600"), Last: E164("+390612345699")})
	s.AddTrunk(Trunk("tenant-a", "second", 20, 5091, "+390612345600"))
	s.AddTrunk(Trunk("tenant-b", "first", 10, 5092, "+390612345700"), trunk.Range{First: E164("+390612345700"), Last: E164("+390612345799")})
}
