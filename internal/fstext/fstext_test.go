package fstext_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// constructors are all ways from a string to text.
var constructors = map[string]func(string) (fstext.Text, error){
	"text":      fstext.NewText,
	"realm":     func(s string) (fstext.Text, error) { v, err := fstext.NewRealm(s); return v.Text(), err },
	"any realm": func(s string) (fstext.Text, error) { v, err := fstext.ParseRealm(s); return v.Text(), err },
	"host":      func(s string) (fstext.Text, error) { v, err := fstext.NewHost(s); return v.Text(), err },
	"username":  func(s string) (fstext.Text, error) { v, err := fstext.NewUsername(s); return v.Text(), err },
	"extension": func(s string) (fstext.Text, error) { v, err := fstext.NewExtension(s); return v.Text(), err },
	"dialled":   func(s string) (fstext.Text, error) { v, err := fstext.NewDialled(s); return v.Text(), err },
	"e164":      func(s string) (fstext.Text, error) { v, err := fstext.NewE164(s); return v.Text(), err },
	"slug":      func(s string) (fstext.Text, error) { v, err := fstext.NewSlug(s); return v.Text(), err },
	"name":      func(s string) (fstext.Text, error) { v, err := fstext.NewDisplayName(s); return v.Text(), err },
	"credential": func(s string) (fstext.Text, error) {
		v, err := fstext.NewCredential(s)
		return v.Reveal(), err
	},
	"hash": func(s string) (fstext.Text, error) { v, err := fstext.NewHash(s); return v.Reveal(), err },
}

func TestConstructors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind string
		good []string
		bad  []string
	}{
		{
			"realm",
			[]string{"tenant-a.example", "a", "a1.b-2.c"},
			[]string{"", "Tenant.example", "1a.example", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "a/b", "a@b", "a:5060", "a&b=c", "a%b", "ü.example", strings.Repeat("a", 254), strings.Repeat("a", 64) + ".b", "x-pre-process.example"},
		},
		{"any realm", []string{"Tenant-A.EXAMPLE"}, []string{"Ünder.example", "1A", "X-Pre-Process"}},
		{"host", []string{"sip.carrier.example", "192.0.2.1", "2001:db8::1"}, []string{"", "carrier:5060", "a b", "fe80::1%eth0", "[::1]", "a/b", "user@host", "sip.x-PRE-process.example"}},
		{"username", []string{"1001", "anna.rossi", "A_b-c"}, []string{"", ".a", "a~tls", "a@b", "a,b", "a b", "a%b", "a/b", "${a}", "é", strings.Repeat("a", 65), "x-pre-process", "aX-PRE-PROCESSb"}},
		{"extension", []string{"10", "1001", "123456789012"}, []string{"", "1", "1234567890123", "10a", "+10", "*97"}},
		{"dialled", []string{"112", "+393331234567", "*97", "#31#0612345678"}, []string{"", "+", "1+1", "1001,1", "1001;x", "1001@h", "sip:1", "1 2", strings.Repeat("1", 33)}},
		{"e164", []string{"+390612345678", "+1234567"}, []string{"", "+", "390612345678", "+0123456789", "+12345", "+1234567890123456", "+39 06"}},
		{"slug", []string{"tenant-a", "ab"}, []string{"", "a", "public", "default", "global", "nobody", "Tenant", "1a", "a_b", "a.b", "x-pre-process"}},
		{
			"name",
			[]string{"Anna", "O'Brien, Zoë", "張偉", "A & B; c/o", "x"},
			[]string{
				"", " a", "a ", "a\tb", "a\nb", "a\x00b", "a\x7f", "${x}", "$${x}", `a\b`, `a"b`, "a<b", "a>b", "a{b", "a]b", "a|b", "a^b", "a%b", "a`b",
				"X-PRE-PROCESS", "x-Pre-Process cmd", "ARRAY::a", "a\u202eb", "a\u2028b", "a\u00a0b", "a\xff", "\xc3", strings.Repeat("a", 65),
			},
		},
		{"credential", []string{"s3cr$t!", "a@b:c;d,e"}, []string{"", "a b", "${a}", "$$a", `a"b`, `a\b`, "a<b", "a>b", "é", "x-pre-process", strings.Repeat("a", 129)}},
		{"hash", []string{strings.Repeat("0f", 16), strings.Repeat("0f", 32)}, []string{"", "0f", strings.Repeat("0F", 16), strings.Repeat("0g", 16)}},
		{"text", []string{"", "any text, of <any> sort"}, []string{"$", `\`, "a\nb", "<!", "<?", "x-pre-process", "\xff"}},
	} {
		for _, s := range tc.good {
			if got, err := constructors[tc.kind](s); err != nil || got == (fstext.Text{}) && s != "" {
				t.Errorf("%s %q refused: %v", tc.kind, s, err)
			}
		}
		for _, s := range tc.bad {
			got, err := constructors[tc.kind](s)
			if !errors.Is(err, fstext.ErrUnsafe) || got != (fstext.Text{}) {
				t.Errorf("%s %q accepted: %q, %v", tc.kind, s, got, err)
			}
			if err != nil && len(s) > 3 && strings.Contains(err.Error(), s) && s != strings.ToLower("x-pre-process") {
				t.Errorf("%s: the error repeats the value %q: %v", tc.kind, s, err)
			}
		}
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	host, err := fstext.NewHost("2001:db8::1")
	if err != nil || host.Text().String() != "[2001:db8::1]" {
		t.Errorf("IPv6 host in a URI is %q, %v", host.Text(), err)
	}
	number, err := fstext.NewE164("+390612345678")
	if err != nil || number.Int() != 390612345678 {
		t.Errorf("number is %d, %v", number.Int(), err)
	}
	if back, err := fstext.NewE164("+" + strconv.FormatInt(number.Int(), 10)); err != nil || back != number {
		t.Errorf("back from a number: %v, %v", back, err)
	}
	user, err := fstext.NewUsername("Anna.Rossi")
	if err != nil || user.Fold().String() != "anna.rossi" || !user.Same(user.Fold()) {
		t.Errorf("folded username is %q, %v", user.Fold(), err)
	}
}

// Secrets hide themselves from every way of printing.
func TestSecretsHide(t *testing.T) {
	t.Parallel()
	c, err := fstext.NewCredential("hunter2hunter2")
	if err != nil {
		t.Fatal(err)
	}
	h, err := fstext.NewHash(strings.Repeat("ab", 16))
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(format+format, c, h); strings.Contains(got, "hunter2") || strings.Contains(got, "abab") {
			t.Errorf("%s prints %s", format, got)
		}
	}
}

// Law: what any constructor lets through holds nothing that FreeSWITCH would act on, and, but for a credential, no
// dollar sign or backslash.
func FuzzConstructors(f *testing.F) {
	for _, s := range []string{"tenant-a.example", "1001", "Anna <!x", "${system(id)}", "$${x}", "<X-PRE-PROCESS cmd=\"exec\"", "a\x00b", "ARRAY::a|:b", "+390612345678"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for kind, make := range constructors {
			text, err := make(s)
			if err != nil {
				if text != (fstext.Text{}) {
					t.Errorf("%s: text beside an error", kind)
				}
				continue
			}
			if what, found := fstext.Hazard(text.String()); found {
				t.Errorf("%s lets %q through: %s", kind, s, what)
			}
			if kind != "credential" && strings.ContainsAny(text.String(), `$\`) {
				t.Errorf("%s lets %q through", kind, s)
			}
			if again, err := make(text.String()); kind != "host" && (err != nil || again != text) {
				t.Errorf("%s: %q does not make itself again: %q, %v", kind, text, again, err)
			}
		}
	})
}
