package directory

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// Purpose is why FreeSWITCH looks something up.
type Purpose int

// The purposes, after the callers in FreeSWITCH (docs/freeswitch.md lists them all).
const (
	// PurposeAuth: a phone presents credentials. Lookup.Auth is set.
	PurposeAuth Purpose = iota + 1
	// PurposeUser: one user, for a call, voicemail, message counts, user_data, user_exists and the like.
	PurposeUser
	// PurposeGroup: the members of a group.
	PurposeGroup
	// PurposeDomain: whether a domain exists, and its settings.
	PurposeDomain
	// PurposeEveryone: all users of a domain, for dial-by-name and voicemail to all.
	PurposeEveryone
	// PurposeGateways: gateways that belong to users. We have none: trunks are in sofia.conf.
	PurposeGateways
	// PurposeNetworkList: addresses that stand for users. We have none: an address proves nothing about a person.
	PurposeNetworkList
	// PurposeForbidden: log-ins that a user of ours never has (verto, event socket, XML-RPC, RTMP, skinny) and answers
	// to challenges of others (reverse-auth-lookup), for which we would have to know a password.
	PurposeForbidden
)

// Lookup is one question about the directory.
type Lookup struct {
	Purpose Purpose
	// Realm is set for every purpose but PurposeGateways, where it may be empty.
	Realm fstext.Realm
	// User is set for PurposeAuth and PurposeUser.
	User fstext.Username
	// Group is set for PurposeGroup. It is what a caller wrote, only ever compared.
	Group string
	Auth  Auth
}

// Auth is what a phone claims when it presents credentials. Its texts are the phone's own and are only compared, never
// rendered.
type Auth struct {
	Method   string // REGISTER, INVITE, SUBSCRIBE, …
	Profile  string // the SIP profile it came in on
	Username string // of the Authorization header
	Realm    string // of the Authorization header
	To, From Address
	// ViaProtocol is the transport as FreeSWITCH names it.
	ViaProtocol string
	// Source is where the request came from; the zero value if that is unknown.
	Source netip.AddrPort
	// ContactUser is the user part of the Contact.
	ContactUser string
	// SHA256 tells that the response is as long as SHA-256 makes it; FreeSWITCH does not pass the algorithm on.
	SHA256 bool
}

// Address is a SIP address of record.
type Address struct{ User, Host string }

// Outcome says how a lookup ended; a closed set, fit for a metric.
type Outcome string

// The outcomes.
const (
	OutcomeFound         Outcome = "found"
	OutcomeUnknownDomain Outcome = "unknown_domain"
	OutcomeUnknownUser   Outcome = "unknown_user"
	OutcomeRefused       Outcome = "refused"
)

// Answer is a document for FreeSWITCH and what to tell the operator about it.
type Answer struct {
	Document []byte
	Outcome  Outcome
	// Reason says why nobody was found or somebody was refused; constant texts, fit for a log.
	Reason string
}

// Directory answers lookups. It is safe for concurrent use.
type Directory struct {
	store    Store
	keys     *secret.KeyRing
	cacheFor func() time.Duration
}

// New returns a directory that reads from a store and opens credentials with a key ring.
//
// cacheFor is asked for each user how long the switch may keep him: zero for not at all, and nil for never. The switch
// then authenticates the user without asking, so that nobody checks who registers what, where from, and over which
// transport (docs/decisions/0013-users-cached-by-a-switch.md).
func New(store Store, keys *secret.KeyRing, cacheFor func() time.Duration) *Directory {
	if cacheFor == nil {
		cacheFor = func() time.Duration { return 0 }
	}
	return &Directory{store: store, keys: keys, cacheFor: cacheFor}
}

// MaxCacheFor is the longest that a switch can keep a user: beyond it, the milliseconds overflow (switch_xml.c,
// switch_xml_locate_user_merged) and nothing is kept.
const MaxCacheFor = 2147483 * time.Millisecond

// maxLegs is the number of legs that one dial string can have (switch_ivr_originate.c, MAX_PEERS). A larger group is
// not dialled in part.
const maxLegs = 128

// maxEveryone bounds the users in one document, as fsxml bounds its size.
const maxEveryone = 20000

// defaultGroup is the one group there is: everyone.
const defaultGroup = "default"

// Answer answers a lookup. An error means that the answer is not known (the store or a sealed credential failed) and
// nothing may be said to FreeSWITCH; refusals and unknown names are answers.
func (d *Directory) Answer(ctx context.Context, l Lookup) (Answer, error) {
	switch l.Purpose {
	case PurposeAuth, PurposeUser:
		return d.user(ctx, l)
	case PurposeGroup, PurposeEveryone:
		return d.members(ctx, l)
	case PurposeDomain, PurposeNetworkList, PurposeForbidden:
		return d.domain(ctx, l)
	case PurposeGateways:
		doc, err := fsxml.New(fsxml.SectionDirectory).Bytes()
		return Answer{Document: doc, Outcome: OutcomeFound}, err
	default:
		return Answer{}, fmt.Errorf("directory lookup without a purpose (%d)", l.Purpose)
	}
}

func unknownDomain() Answer {
	return Answer{Document: fsxml.NotFound(), Outcome: OutcomeUnknownDomain, Reason: "no such domain"}
}

// nobody is the refusal: the domain without the user. FreeSWITCH then looks no further, neither in other bindings nor
// on its disk.
func nobody(realm fstext.Realm, o Outcome, reason string) (Answer, error) {
	doc := fsxml.New(fsxml.SectionDirectory)
	doc.Leaf("domain", fsxml.A("name", realm.Text()))
	b, err := doc.Bytes()
	return Answer{Document: b, Outcome: o, Reason: reason}, err
}

func (d *Directory) domain(ctx context.Context, l Lookup) (Answer, error) {
	dom, err := d.store.Domain(ctx, l.Realm)
	switch {
	case errors.Is(err, ErrUnknownDomain):
		return unknownDomain(), nil
	case err != nil:
		return Answer{}, fmt.Errorf("domain: %w", err)
	case l.Purpose == PurposeForbidden:
		return nobody(dom.Realm, OutcomeRefused, "purpose not offered")
	case !dom.Usable():
		return nobody(dom.Realm, OutcomeRefused, "domain or tenant not active")
	default:
		return nobody(dom.Realm, OutcomeFound, "")
	}
}

func (d *Directory) user(ctx context.Context, l Lookup) (Answer, error) {
	dom, ext, err := d.store.Extension(ctx, l.Realm, l.User)
	switch {
	case errors.Is(err, ErrUnknownDomain):
		return unknownDomain(), nil
	case errors.Is(err, ErrUnknownExtension):
		return nobody(dom.Realm, OutcomeUnknownUser, "no such extension")
	case err != nil:
		return Answer{}, fmt.Errorf("extension: %w", err)
	case !dom.Usable():
		return nobody(dom.Realm, OutcomeRefused, "domain or tenant not active")
	case !ext.Active:
		return nobody(dom.Realm, OutcomeRefused, "extension suspended")
	}
	u := user{Extension: ext, tenant: dom.Tenant}
	if l.Purpose == PurposeAuth {
		transport, reason := admit(ext, l)
		if reason != "" {
			return nobody(dom.Realm, OutcomeRefused, reason)
		}
		u.auth, u.transport = &l.Auth, transport
	}
	alg, sealed := MD5, ext.HA1MD5
	if l.Auth.SHA256 {
		alg, sealed = SHA256, ext.HA1SHA256
	}
	plain, err := d.keys.Open(sealed, CredentialOwner(ext.TenantID, ext.Username, ext.Realm, alg))
	if err != nil {
		return Answer{}, fmt.Errorf("credential of extension %s: %w", ext.ID, err)
	}
	if u.ha1, err = fstext.NewHash(string(plain)); err != nil {
		return Answer{}, fmt.Errorf("credential of extension %s: %w", ext.ID, err)
	}
	u.cacheFor = d.cacheFor()
	doc := fsxml.New(fsxml.SectionDirectory)
	doc.Open("domain", fsxml.A("name", dom.Realm.Text()))
	doc.Open("users")
	u.write(doc)
	b, err := doc.Bytes()
	return Answer{Document: b, Outcome: OutcomeFound}, err
}

// admit checks that somebody who presents credentials speaks for himself. FreeSWITCH checks the password and nothing
// else: it ties neither the address that is registered nor the caller's to the credentials (sofia_reg.c,
// sofia_reg_parse_auth), so without these checks one tenant's user could register another's address and take its calls.
// It returns the transport he uses; the reason is empty when all is well.
func admit(e Extension, l Lookup) (Transport, string) {
	a := l.Auth
	transport, known := usedTransport(a.ViaProtocol)
	own := func(addr Address) bool {
		user, err := fstext.NewUsername(addr.User)
		return err == nil && addr.Host == e.Realm.String() && (user == e.Number.Username() || user.Same(e.Username))
	}
	switch {
	case a.Profile != ProfileInternal:
		return "", "not on the profile for phones"
	case a.Realm != e.Realm.String() || a.Username != e.Username.String():
		// Both are part of A1 to the letter, so nothing else can succeed; say so before opening the credential.
		return "", "not the name and realm of the account (the realm is lower case)"
	case !own(a.From):
		return "", "From is not an address of the account"
	case a.Method == "REGISTER" && !own(a.To):
		return "", "registers an address that is not the account's"
	case a.To.Host != e.Realm.String():
		// Messages, subscriptions and some kinds of INVITE (sofia.c, Call-Info) are served by the switch itself, by To,
		// with no dialplan that could keep tenants apart.
		return "", "To is not in the account's domain"
	case a.Method != "REGISTER" && a.Method != "INVITE" && !isUsername(a.To.User):
		// "sip+1002+other.example" names a user of another domain (sofia_presence.c).
		return "", "To is not an account"
	case a.Method == "REGISTER" && !a.Source.Addr().Is4():
		// The Contact that we store for a phone cannot hold an IPv6 address (sofia_reg.c takes its brackets for
		// quotes).
		return "", "registration not from an IPv4 address"
	case !known || !e.Transport.allows(transport):
		return "", "transport not allowed for the account"
	default:
		return transport, ""
	}
}

func isUsername(s string) bool {
	_, err := fstext.NewUsername(s)
	return err == nil
}

// contact is where the switch will call a phone: where its registration came from, over the same transport, and never
// what the phone wrote in Contact or Path, which can be a carrier's address or anybody's. Only the user part is the
// phone's own, if it is plain: browsers answer to no other.
func contact(e Extension, a Auth, used Transport) fstext.Text {
	user, err := fstext.NewUsername(a.ContactUser)
	if err != nil {
		user = e.Username
	}
	address, port := fstext.Addr(a.Source.Addr()), fstext.Int(int(a.Source.Port()))
	return fstext.Join(
		fstext.Const("<sip:"), user.Text(), fstext.Const("@"), address, fstext.Const(":"), port, fstext.Const(";transport="), used.text(),
		// The same once more, URL-encoded, as the route of the whole dialog: a phone behind address translation and a
		// browser answer with a Contact that cannot be reached.
		fstext.Const(";fs_nat=yes;fs_path=sip%3A"), user.Text(), fstext.Const("%40"), address, fstext.Const("%3A"), port,
		fstext.Const("%3Btransport%3D"), used.text(), fstext.Const(">"),
	)
}

func (d *Directory) members(ctx context.Context, l Lookup) (Answer, error) {
	limit := maxEveryone
	if l.Purpose == PurposeGroup {
		limit = maxLegs
	}
	dom, exts, err := d.store.Extensions(ctx, l.Realm, limit+1)
	switch {
	case errors.Is(err, ErrUnknownDomain):
		return unknownDomain(), nil
	case err != nil:
		return Answer{}, fmt.Errorf("extensions: %w", err)
	case !dom.Usable():
		return nobody(dom.Realm, OutcomeRefused, "domain or tenant not active")
	case l.Purpose == PurposeGroup && !strings.EqualFold(l.Group, defaultGroup):
		return nobody(dom.Realm, OutcomeUnknownUser, "no such group")
	case len(exts) > limit, l.Purpose == PurposeGroup && legs(exts) > maxLegs:
		return nobody(dom.Realm, OutcomeRefused, tooMany)
	}
	doc := fsxml.New(fsxml.SectionDirectory)
	doc.Open("domain", fsxml.A("name", dom.Realm.Text()))
	doc.Open("groups")
	doc.Open("group", fsxml.A("name", fstext.Const(defaultGroup)))
	doc.Open("users")
	for _, e := range exts {
		u := user{Extension: e, tenant: dom.Tenant}
		u.writeMember(doc)
	}
	b, err := doc.Bytes()
	if errors.Is(err, fsxml.ErrTooLarge) {
		return nobody(dom.Realm, OutcomeRefused, tooMany)
	}
	return Answer{Document: b, Outcome: OutcomeFound}, err
}

const tooMany = "more users than one document or dial string may hold"

// legs is the number of legs that ring all of a group.
func legs(exts []Extension) (n int) {
	for _, e := range exts {
		n += e.Legs()
	}
	return n
}
