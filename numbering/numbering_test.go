package numbering_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
)

func country(tb testing.TB, code string) numbering.Country {
	tb.Helper()
	c, err := numbering.NewCountry(code)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func dialled(tb testing.TB, s string) fstext.Dialled {
	tb.Helper()
	d, err := fstext.NewDialled(s)
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

func TestNormalise(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ country, in, want string }{
		{"IT", "+390612345678", "+390612345678"},
		{"IT", "0612345678", "+390612345678"}, // Italy keeps its zero
		{"IT", "3331234567", "+393331234567"},
		{"IT", "00442079460958", "+442079460958"},
		{"DE", "030123456", "+4930123456"},
		{"DE", "004930123456", "+4930123456"},
		{"US", "2125550123", "+12125550123"},
		{"US", "12125550123", "+12125550123"},
		{"US", "01144207946" + "0958", "+442079460958"},
		{"US", "911", ""},
		{"DE", "112", ""},
		{"IT", "1001", ""},
		{"IT", "*97", ""},
		{"IT", "#31#0612345678", ""},
		{"IT", "+999123456789", ""},
		{"IT", "12345678901234567890", ""},
	} {
		got, err := numbering.Normalise(country(t, tc.country), dialled(t, tc.in))
		if got.String() != tc.want || (err == nil) != (tc.want != "") || err != nil && !errors.Is(err, numbering.ErrNotANumber) {
			t.Errorf("%s in %s is %q, %v; want %q", tc.in, tc.country, got, err, tc.want)
		}
	}
	if got, err := numbering.Normalise(numbering.Country{}, dialled(t, "+390612345678")); err != nil || got.String() != "+390612345678" {
		t.Errorf("international form without a country is %q, %v", got, err)
	}
	if got, err := numbering.Normalise(numbering.Country{}, dialled(t, "0612345678")); err == nil {
		t.Errorf("national form without a country is %q", got)
	}
}

func TestEmergency(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		country, in string
		want        bool
	}{
		{"IT", "112", true},
		{"IT", "118", true},
		{"IT", "115", true},
		{"IT", "911", true},
		{"DE", "110", true},
		{"DE", "118", false},
		{"GB", "999", true},
		{"US", "911", true},
		{"US", "112", true},
		{"US", "999", false},
		{"IT", "1001", false},
		{"IT", "0612345678", false},
		{"IT", "", false},
		{"IT", "1", false},
		{"US", "9111", false},
		{"IT", "*118", false},
		{"IT", "112#", false},
		{"IT", "1*18", false},
		{"IT", "+112", false},
		{"IT", "${x}", false},
	} {
		if got := numbering.Emergency(country(t, tc.country), tc.in); got != tc.want {
			t.Errorf("%s in %s calls for help: %v, want %v", tc.in, tc.country, got, tc.want)
		}
	}
	if numbering.Emergency(numbering.Country{}, "118") || !numbering.Emergency(numbering.Country{}, "112") {
		t.Error("without a country only the numbers that work everywhere call for help")
	}
}

func TestCountries(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "it", "ITA", "XX", "ZZ", "001"} {
		if _, err := numbering.NewCountry(bad); !errors.Is(err, numbering.ErrUnknownCountry) {
			t.Errorf("country %q accepted", bad)
		}
	}
}

// Laws: a number in international form is its own, in every country; nothing that calls for help or is a feature code
// is a number.
func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"0612345678", "+390612345678", "112", "*97", "00442079460958", "1001", "+1", "911"} {
		f.Add(s, "IT")
		f.Add(s, "US")
	}
	f.Fuzz(func(t *testing.T, s, code string) {
		d, err := fstext.NewDialled(s)
		if err != nil {
			return
		}
		c, err := numbering.NewCountry(code)
		if err != nil {
			c = numbering.Country{}
		}
		n, err := numbering.Normalise(c, d)
		if err != nil {
			return
		}
		if strings.ContainsAny(s, "*#") || numbering.Emergency(c, s) {
			t.Errorf("%s in %s became a number: %s", s, code, n)
		}
		for _, other := range []numbering.Country{{}, c, country(t, "DE")} {
			d, err := fstext.NewDialled(n.String())
			if err != nil {
				t.Fatalf("%s cannot be dialled: %v", n, err)
			}
			if again, err := numbering.Normalise(other, d); err != nil || again != n {
				t.Errorf("%s in %s is %s, but that is %s in %s (%v)", s, code, n, again, other, err)
			}
		}
	})
}

// A guess at a national number is what the rules make of it; at anything else it may be wrong, but is a number or
// nothing.
func TestGuess(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ country, in, want string }{
		{"IT", "0612345678", "+390612345678"},
		{"IT", "3331234567", "+393331234567"},
		{"DE", "030123456", "+4930123456"},
		{"GB", "02079460958", "+442079460958"},
		{"US", "2125550123", "+12125550123"},
		{"US", "12125550123", "+12125550123"},
		{"IT", "*97", ""},
		{"IT", "+390612345678", ""},
		{"IT", "12345678901234567890", ""},
	} {
		got := numbering.Guess(country(t, tc.country), dialled(t, tc.in))
		if got.String() != tc.want {
			t.Errorf("%s in %s is guessed %q, want %q", tc.in, tc.country, got, tc.want)
		}
		if normal, err := numbering.Normalise(country(t, tc.country), dialled(t, tc.in)); err == nil && tc.want != "" && normal != got {
			t.Errorf("%s in %s is guessed %q and is %q", tc.in, tc.country, got, normal)
		}
	}
	if got := numbering.Guess(numbering.Country{}, dialled(t, "0612345678")); got != (fstext.E164{}) {
		t.Errorf("guessed %q without a country", got)
	}
}
