// Package fstext holds the types of text that FreeSWITCH may read.
//
// FreeSWITCH expands ${…} in what it executes, pre-processes every document it fetches line by line before any XML rule
// applies, and takes commas, braces and slashes in dial strings as syntax. No escaping at the edge of a document covers
// all of these, so text is made safe once, when it enters: each type here has one constructor that refuses what
// FreeSWITCH could interpret, and renderers take nothing but these types. Package fsxml checks again when it writes.
//
// The zero value of each type is empty text, which is safe. All types are immutable and comparable.
package fstext

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// ErrUnsafe is what every constructor's error wraps. The errors say what is wrong and never repeat the text, which may
// be a secret or an attack on the log.
var ErrUnsafe = errors.New("text not allowed")

func unsafeText(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsafe}, args...)...)
}

// Text is any text that passed a constructor of this package, or was put together from such text.
type Text struct{ s string }

// String returns the text as FreeSWITCH is to see it.
func (t Text) String() string { return t.s }

// literal has no name outside this package, so only untyped constants convert to it: Const cannot be handed a variable.
type literal string

// Const returns text written in our own source. It is the only way to unchecked text.
func Const(s literal) Text { return Text{string(s)} }

// NewText accepts plain text with no type of its own: no dollar sign, no backslash, nothing that Hazard knows.
func NewText(s string) (Text, error) {
	if strings.ContainsAny(s, "$\\") {
		return Text{}, unsafeText("text has no dollar sign or backslash")
	}
	if what, bad := Hazard(s); bad {
		return Text{}, unsafeText("text has %s", what)
	}
	return Text{s}, nil
}

// Join puts texts together without a separator.
func Join(parts ...Text) Text {
	n := 0
	for _, p := range parts {
		n += len(p.s)
	}
	var b strings.Builder
	b.Grow(n)
	for _, p := range parts {
		b.WriteString(p.s)
	}
	return Text{b.String()}
}

// Cut returns what stands before and after the first of a character.
func (t Text) Cut(at byte) (before, after Text, found bool) {
	i := strings.IndexByte(t.s, at)
	if i < 0 {
		return t, Text{}, false
	}
	return Text{t.s[:i]}, Text{t.s[i+1:]}, true
}

// Int returns a decimal number.
func Int(n int) Text { return Text{strconv.Itoa(n)} }

// Bool returns true or false, as FreeSWITCH spells them.
func Bool(b bool) Text { return Text{strconv.FormatBool(b)} }

// ID returns a UUID in its usual form.
func ID(id uuid.UUID) Text { return Text{id.String()} }

// Addr returns an IP address.
func Addr(a netip.Addr) Text { return Text{a.WithZone("").String()} }

// Prefix returns an address block in CIDR form.
func Prefix(p netip.Prefix) Text { return Text{p.String()} }

// Realm is a SIP domain: the name phones are challenged with. Lower case, at most 253 bytes, and never beginning with a
// digit: FreeSWITCH joins user and domain without a separator in its cache key (switch_xml.c,
// switch_xml_locate_user_cache).
type Realm struct{ s string }

// NewRealm accepts a host name (RFC 1123 labels) in lower case.
func NewRealm(s string) (Realm, error) {
	switch {
	case s == "" || len(s) > 253:
		return Realm{}, unsafeText("a realm has 1 to 253 characters")
	case s[0] < 'a' || s[0] > 'z':
		return Realm{}, unsafeText("a realm begins with a letter a to z")
	case !validHostName(s) || strings.ToLower(s) != s:
		return Realm{}, unsafeText("a realm is a host name of lower-case letters, digits, hyphens and dots")
	}
	if _, bad := Hazard(s); bad {
		return Realm{}, unsafeText("a realm has no FreeSWITCH directive")
	}
	return Realm{s}, nil
}

// ParseRealm reads a realm that a switch or a phone wrote, in any letter case.
func ParseRealm(s string) (Realm, error) {
	if isLower(s) {
		return NewRealm(s)
	}
	return NewRealm(strings.ToLower(s))
}

func (r Realm) String() string { return r.s }

// Text returns the realm as text.
func (r Realm) Text() Text { return Text(r) }

func isLower(s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' || s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// validHostName tells whether s is made of dot-separated RFC 1123 labels.
func validHostName(s string) bool {
	label := 0
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			label++
		case c == '-':
			if label == 0 || i+1 == len(s) || s[i+1] == '.' {
				return false
			}
			label++
		case c == '.':
			if label == 0 || i+1 == len(s) {
				return false
			}
			label = 0
		default:
			return false
		}
		if label > 63 {
			return false
		}
	}
	return label > 0
}

// Host is where a carrier is reached: a host name or an IP address, without a port.
type Host struct{ s string }

// NewHost accepts a host name or an IPv4 or IPv6 address (without brackets or zone).
func NewHost(s string) (Host, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return Host{}, unsafeText("a host address has no zone")
		}
		return Host{a.String()}, nil
	}
	if len(s) > 253 || !validHostName(s) {
		return Host{}, unsafeText("a host is a host name or an IP address")
	}
	if _, bad := Hazard(s); bad {
		return Host{}, unsafeText("a host has no FreeSWITCH directive")
	}
	return Host{strings.ToLower(s)}, nil
}

func (h Host) String() string { return h.s }

// Addr returns the host's address, if it is one.
func (h Host) Addr() (netip.Addr, bool) {
	a, err := netip.ParseAddr(h.s)
	return a, err == nil
}

// Text returns the host as a SIP URI writes it: IPv6 in brackets (RFC 3261, 25.1).
func (h Host) Text() Text {
	if strings.Contains(h.s, ":") {
		return Text{"[" + h.s + "]"}
	}
	return Text(h)
}

// Username is what a phone logs in with. It keeps its case, which is part of the digest A1, but is compared without.
type Username struct{ s string }

// NewUsername accepts 1 to 64 letters, digits, dots, hyphens and underscores, beginning with a letter or digit.
func NewUsername(s string) (Username, error) {
	if s == "" || len(s) > 64 {
		return Username{}, unsafeText("a SIP username has 1 to 64 characters")
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '.' && c != '-' && c != '_') {
			return Username{}, unsafeText("a SIP username is made of letters, digits, dots, hyphens and underscores, and begins with a letter or digit")
		}
	}
	if _, bad := Hazard(s); bad {
		return Username{}, unsafeText("a SIP username has no FreeSWITCH directive")
	}
	return Username{s}, nil
}

func (u Username) String() string { return u.s }

// Text returns the username as text.
func (u Username) Text() Text { return Text(u) }

// Fold returns the form under which the username is compared and looked up.
func (u Username) Fold() Username {
	if isLower(u.s) {
		return u
	}
	return Username{strings.ToLower(u.s)}
}

// Same tells whether two usernames name the same account.
func (u Username) Same(v Username) bool { return strings.EqualFold(u.s, v.s) }

// Extension is an internal number.
type Extension struct{ s string }

// NewExtension accepts 2 to 12 digits.
func NewExtension(s string) (Extension, error) {
	if len(s) < 2 || len(s) > 12 || !allDigits(s) {
		return Extension{}, unsafeText("an extension has 2 to 12 digits")
	}
	return Extension{s}, nil
}

func (e Extension) String() string { return e.s }

// Text returns the number as text.
func (e Extension) Text() Text { return Text(e) }

// Username returns the extension's number in its role as a name of the account.
func (e Extension) Username() Username { return Username(e) }

func allDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// Dialled is a number as a caller dialled it: digits, star and hash, with an optional leading plus sign.
type Dialled struct{ s string }

// NewDialled accepts 1 to 32 of 0-9, * and #, after an optional plus sign.
func NewDialled(s string) (Dialled, error) {
	digits := strings.TrimPrefix(s, "+")
	if digits == "" || len(digits) > 32 {
		return Dialled{}, unsafeText("a dialled number has 1 to 32 digits")
	}
	for i := range len(digits) {
		if c := digits[i]; (c < '0' || c > '9') && c != '*' && c != '#' {
			return Dialled{}, unsafeText("a dialled number is made of digits, stars and hashes after an optional plus sign")
		}
	}
	return Dialled{s}, nil
}

func (d Dialled) String() string { return d.s }

// Text returns the number as text.
func (d Dialled) Text() Text { return Text(d) }

// E164 is a public number in international form, with its plus sign (ITU-T E.164).
type E164 struct{ s string }

// NewE164 accepts a plus sign and 7 to 15 digits of which the first is not 0.
func NewE164(s string) (E164, error) {
	if len(s) < 8 || len(s) > 16 || s[0] != '+' || s[1] == '0' || !allDigits(s[1:]) {
		return E164{}, unsafeText("a public number is a plus sign and 7 to 15 digits, the first not 0")
	}
	return E164{s}, nil
}

func (e E164) String() string { return e.s }

// Text returns the number as text, with its plus sign.
func (e E164) Text() Text { return Text(e) }

// Digits returns the number as text, without its plus sign.
func (e E164) Digits() Text { return Text{strings.TrimPrefix(e.s, "+")} }

// Int returns the digits as a number, which orders and compares numbers of one length. The zero value gives 0.
func (e E164) Int() int64 {
	n, _ := strconv.ParseInt(strings.TrimPrefix(e.s, "+"), 10, 64)
	return n
}

// Slug is a short name that we choose: a tenant's, which is also its dialplan context.
type Slug struct{ s string }

// NewSlug accepts 2 to 63 lower-case letters, digits and hyphens, beginning with a letter; names of contexts that
// FreeSWITCH itself knows are refused.
func NewSlug(s string) (Slug, error) {
	if len(s) < 2 || len(s) > 63 || s[0] < 'a' || s[0] > 'z' {
		return Slug{}, unsafeText("a slug has 2 to 63 characters and begins with a letter a to z")
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return Slug{}, unsafeText("a slug is made of lower-case letters, digits and hyphens")
		}
	}
	if s == "public" || s == "default" || s == "global" || s == "nobody" {
		return Slug{}, unsafeText("this slug is reserved")
	}
	if _, bad := Hazard(s); bad {
		return Slug{}, unsafeText("a slug has no FreeSWITCH directive")
	}
	return Slug{s}, nil
}

func (s Slug) String() string { return s.s }

// Text returns the slug as text.
func (s Slug) Text() Text { return Text(s) }

// DisplayName is the name of a person, trunk or tenant as people read it.
type DisplayName struct{ s string }

// nameSyntax is what FreeSWITCH, a SIP header or a dial string takes as syntax: expansion ($ \ and the % of %[…]),
// quoting (" `), markup (< >), variable lists ({ } [ ]), separators (|), delimiter changes (^) and our own marker in
// stored registrations (~).
const nameSyntax = "$\\%\"`<>{}[]|^~"

// NewDisplayName accepts 1 to 64 printable characters other than those with a meaning to FreeSWITCH, without space at
// either end.
func NewDisplayName(s string) (DisplayName, error) {
	switch {
	case s == "" || !utf8.ValidString(s) || utf8.RuneCountInString(s) > 64:
		return DisplayName{}, unsafeText("a name has 1 to 64 characters of UTF-8")
	case strings.TrimSpace(s) != s:
		return DisplayName{}, unsafeText("a name has no space at its ends")
	case strings.ContainsAny(s, nameSyntax):
		return DisplayName{}, unsafeText("a name has none of %s", nameSyntax)
	}
	for _, r := range s {
		// IsPrint takes only the plain space and leaves out control, format and bidirectional characters.
		if !unicode.IsPrint(r) {
			return DisplayName{}, unsafeText("a name has only printable characters")
		}
	}
	if _, bad := Hazard(s); bad {
		return DisplayName{}, unsafeText("a name has no FreeSWITCH directive")
	}
	return DisplayName{s}, nil
}

func (d DisplayName) String() string { return d.s }

// Text returns the name as text.
func (d DisplayName) Text() Text { return Text(d) }

// Credential is a name or password that a carrier gave us. It may hold a dollar sign, which fsxml writes so that the
// pre-processor does not see it, but nothing else that FreeSWITCH interprets in a gateway's parameters. It prints as a
// placeholder.
type Credential struct{ s string }

// NewCredential accepts 1 to 128 printable ASCII characters other than " \ < > and space, and no dollar sign before a
// brace or another.
func NewCredential(s string) (Credential, error) {
	if s == "" || len(s) > 128 {
		return Credential{}, unsafeText("a credential has 1 to 128 characters")
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || strings.IndexByte("\"\\<>", c) >= 0 {
			return Credential{}, unsafeText("a credential is made of printable ASCII characters other than space, quotes, backslash, < and >")
		}
	}
	if strings.Contains(s, "${") || strings.Contains(s, "$$") {
		return Credential{}, unsafeText("a credential has no ${ or $$")
	}
	if _, bad := Hazard(s); bad {
		return Credential{}, unsafeText("a credential has no FreeSWITCH directive")
	}
	return Credential{s}, nil
}

// String hides the credential from logs and errors.
func (Credential) String() string { return "[hidden]" }

// GoString hides the credential from %#v.
func (Credential) GoString() string { return "[hidden]" }

// Reveal returns the credential itself, to be rendered or sealed.
func (c Credential) Reveal() Text { return Text(c) }

// Hash is a digest in lower-case hexadecimal: a digest A1, for instance. It is a secret and prints as a placeholder.
type Hash struct{ s string }

// NewHash accepts the 32 or 64 digits of MD5 or SHA-256.
func NewHash(s string) (Hash, error) {
	if len(s) != 32 && len(s) != 64 {
		return Hash{}, unsafeText("a hash has 32 or 64 digits")
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return Hash{}, unsafeText("a hash is made of lower-case hexadecimal digits")
		}
	}
	return Hash{s}, nil
}

// String hides the hash from logs and errors.
func (Hash) String() string { return "[hidden]" }

// GoString hides the hash from %#v.
func (Hash) GoString() string { return "[hidden]" }

// Reveal returns the hash itself, to be rendered or sealed.
func (h Hash) Reveal() Text { return Text(h) }

// Hazard reports the first thing in s that FreeSWITCH's pre-processor or its re-serialiser would act on, however well
// the XML around it is written: a control character, the keyword of a pre-processor line, a "<!" (which ends escaping
// when a user element is written out again), or bytes that are not UTF-8. See the reference in docs/freeswitch.md.
func Hazard(s string) (what string, found bool) {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			return "a control character", true
		case c == '<' && i+1 < len(s) && s[i+1] == '!':
			return "the sequence <!", true
		case c == '<' && i+1 < len(s) && s[i+1] == '?':
			return "the sequence <?", true
		case (c == 'x' || c == 'X') && len(s)-i >= len(preProcess) && strings.EqualFold(s[i:i+len(preProcess)], preProcess):
			return "the keyword " + preProcess, true
		case c == 'A' && strings.HasPrefix(s[i:], "ARRAY::"):
			return "the list marker ARRAY::", true
		}
	}
	if !utf8.ValidString(s) {
		return "bytes that are not UTF-8", true
	}
	return "", false
}

const preProcess = "x-pre-process"
