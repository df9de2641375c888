package numbering

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/nyaruka/phonenumbers"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// agree tells of a number that a plan reads otherwise than libphonenumber does, and whether the plan reads it at all.
func agree(t *testing.T, c Country, dialled string) (taken bool) {
	t.Helper()
	got := read(c, dialled)
	if got == (fstext.E164{}) {
		return false
	}
	if want := normalise(c, dialled); got != want {
		t.Errorf("%s in %s is %s by the plan and %q by libphonenumber", dialled, c, got, want)
	}
	return true
}

// dialledForms are the ways in which a number of a country's code can be dialled, right and wrong.
func dialledForms(c Country, code, digits string) []string {
	p := planOf(c)
	return []string{
		"+" + code + digits, "00" + code + digits, "011" + code + digits, code + digits, digits, "0" + digits, "1" + digits, "8" + digits,
		p.national.digits + digits, p.international.digits + code + digits, p.international.digits + "0" + digits,
		code + p.national.digits + digits, "+" + code + p.national.digits + digits,
	}
}

// numbersOf returns numbers that a plan's patterns take, each with some that are nearly such: a random way through the automaton.
func numbersOf(p *plan, r *rand.Rand, n int) (all []string) {
	for range n {
		var b strings.Builder
		for state := uint16(initial); b.Len() < 17; {
			if p.types.matched[state]&^general != 0 && r.IntN(3) > 0 {
				break
			}
			var ways []int
			for digit, then := range p.types.next[state] {
				if then != stuck {
					ways = append(ways, digit)
				}
			}
			if len(ways) == 0 {
				break
			}
			digit := ways[r.IntN(len(ways))]
			state = p.types.next[state][digit]
			b.WriteString(strconv.Itoa(digit))
		}
		number := []byte(b.String())
		all = append(all, string(number))
		if len(number) > 0 {
			number[r.IntN(len(number))] = byte('0' + r.IntN(10))
			all = append(all, string(number), string(number[1:]), string(number)+"7")
		}
	}
	return all
}

// beyondPlain are the codes whose numbers are never read by plain rules: Argentina's, Madagascar's, San Marino's, Norfolk Island's and Japan's.
var beyondPlain = []string{"54", "261", "378", "672", "81"}

// TestPlansAgree holds the plan of every country and service against libphonenumber, which it stands for, and sees to it that
// it is asked for few numbers.
func TestPlansAgree(t *testing.T) {
	t.Parallel()
	for _, code := range slices.Sorted(maps.Keys(allPlans())) {
		all := plansOf(code)
		if len(all) == 0 {
			t.Errorf("code %s has no plan", code)
		}
		for _, p := range all {
			t.Run(code+p.country, func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(1, uint64(len(p.types.next))))
				home, abroad := Country{p.country}, Country{"DE"}
				if p.country == phonenumbers.REGION_CODE_FOR_NON_GEO_ENTITY {
					home = Country{"US"}
				}
				valid, taken := 0, 0
				for _, digits := range numbersOf(p, r, 8) {
					for _, c := range []Country{home, abroad} {
						for _, dialled := range dialledForms(c, p.code, digits) {
							agree(t, c, dialled)
						}
					}
					if normalise(abroad, "+"+code+digits) != (fstext.E164{}) {
						if valid++; agree(t, abroad, "+"+code+digits) {
							taken++
						}
					}
				}
				if taken*5 < valid*4 && !slices.Contains(beyondPlain, code) {
					t.Errorf("the plan reads %d of %d numbers", taken, valid)
				}
			})
		}
	}
}

// TestPlansAgreeOnLengths holds the plans against libphonenumber where it goes by how long a number is: Canada has numbers of
// seven digits, which are too short for the country's prefix to be taken from before them, and Saint Helena longer ones than
// Tristan da Cunha, which shares its code and whose numbers begin like it.
func TestPlansAgreeOnLengths(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ country, dialled string }{
		{"CA", "+113101234"}, {"DE", "00113101234"}, {"PR", "13101234"}, {"TA", "29016"}, {"TA", "29088"},
	} {
		if got := normalise(Country{tc.country}, tc.dialled); got != (fstext.E164{}) {
			t.Errorf("%s in %s is %s by libphonenumber: it is no example any more", tc.dialled, tc.country, got)
		}
		agree(t, Country{tc.country}, tc.dialled)
	}
}

// Laws: what a plan reads, libphonenumber reads the same.
func FuzzPlan(f *testing.F) {
	for _, s := range []string{"0612345678", "+390612345678", "00442079460958", "393331234567", "12125550123", "01142", "8005551234", "+54911", "0039"} {
		f.Add(s, "IT")
		f.Add(s, "US")
		f.Add(s, "AR")
	}
	f.Add("015387389107", "IL") // after a carrier's code
	f.Add("0018007016901", "TH")
	f.Fuzz(func(t *testing.T, dialled, code string) {
		d, err := fstext.NewDialled(dialled)
		if err != nil {
			return
		}
		c, err := NewCountry(code)
		if err != nil {
			c = Country{}
		}
		agree(t, c, d.String())
	})
}
