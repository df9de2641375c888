package numbering

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/nyaruka/phonenumbers"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// plan is how the numbers of a country, or of a service that has a country's code, are dialled: libphonenumber's metadata, made
// ready to read a number in a tenth of a microsecond where libphonenumber takes some twenty. It is read-only.
//
// It reads what plain rules make of a number, which is nearly all that is dialled: an international prefix, a national one that is
// always the same, or none. A number to which more applies (a carrier's code, a prefix that others take the place of) it leaves to
// libphonenumber, and so it does with all that it finds wrong. That the two agree is tested for every country.
type plan struct {
	country       string // its ISO 3166-1 code; 001 for a service
	code          string // what its numbers begin with abroad, in digits
	international prefix
	national      prefix
	// types tells by an automaton whether a number matches the general pattern, its first, and the patterns of the types, and
	// lengths which lengths those may have, by pattern.
	types   *automaton
	lengths []lengths
	// leading, if it is not nil, tells from their first digits which numbers of the code are this country's.
	leading *automaton
}

// general is the bit of the general pattern.
const general = 1

// read returns what plain rules make of a number that was dialled in a country, in international form. The zero value means that
// they do not tell.
func read(c Country, dialled string) fstext.E164 {
	if digits, ok := strings.CutPrefix(dialled, "+"); ok {
		return readInternational(digits)
	}
	p := planOf(c)
	if p == nil || !digitsOnly(dialled) {
		return fstext.E164{}
	}
	rest, cut, plain := p.international.cut(dialled)
	switch {
	case !plain:
		return fstext.E164{}
	case cut:
		return readInternational(rest)
	}
	rest, cut, plain = p.cutCode(dialled)
	switch {
	case !plain:
		return fstext.E164{}
	case cut:
		return plansOf(p.code).main().number(rest)
	}
	return p.number(dialled)
}

// planOf returns the plan of a country, or nil.
func planOf(c Country) *plan {
	all := plansOf(strconv.Itoa(phonenumbers.GetCountryCodeForRegion(c.code)))
	if i := slices.IndexFunc(all, func(p *plan) bool { return p.country == c.code }); i >= 0 {
		return all[i]
	}
	return nil
}

// readInternational reads a number that begins with a country's code.
func readInternational(digits string) fstext.E164 {
	for n := 1; n <= 3 && n < len(digits); n++ {
		if s := plansOf(digits[:n]); s != nil && digitsOnly(digits) {
			return s.main().number(digits[n:])
		}
	}
	return fstext.E164{}
}

// cutCode takes away the country's own code, which some people dial without a prefix before it, and then the national prefix.
func (p *plan) cutCode(dialled string) (rest string, cut, plain bool) {
	if rest, cut = strings.CutPrefix(dialled, p.code); !cut {
		return dialled, false, true
	}
	if rest, plain = p.withoutPrefix(rest); !plain {
		return dialled, false, false
	}
	cut = !p.viable(dialled) && p.viable(rest)
	// From what is too long for the country libphonenumber takes the code away whatever is left.
	return rest, cut, cut || len(dialled) <= p.lengths[0].longest()
}

// withoutPrefix takes the national prefix away, unless that spoils a number.
func (p *plan) withoutPrefix(digits string) (rest string, plain bool) {
	rest, cut, plain := p.national.cut(digits)
	if cut && p.viable(digits) && !p.viable(rest) {
		return digits, true
	}
	return rest, plain
}

func (p *plan) viable(digits string) bool { return p.types.read(digits)&general != 0 }

// number returns the number of these digits after the country's code, with or without the national prefix.
func (p *plan) number(digits string) fstext.E164 {
	rest, plain := p.withoutPrefix(digits)
	// libphonenumber leaves the prefix where what is left has no length of the country's numbers.
	if !plain || !p.lengths[0].has(len(rest)) || !plansOf(p.code).valid(rest) {
		return fstext.E164{}
	}
	e, err := fstext.NewE164("+" + p.code + rest)
	if err != nil {
		return fstext.E164{}
	}
	return e
}

// valid tells whether one of the countries that share a code has the number.
func (s sharing) valid(digits string) bool {
	for _, p := range s {
		switch {
		case p.leading != nil && p.leading.begins(digits):
			return p.valid(digits)
		case p.leading == nil && p.valid(digits):
			return true
		}
	}
	return false
}

// valid tells whether the digits are a number of any type.
func (p *plan) valid(digits string) bool {
	matched := p.types.read(digits)
	for i, l := range p.lengths {
		if !l.has(len(digits)) {
			matched &^= 1 << i
		}
	}
	return matched&general != 0 && matched != general
}

// prefix is what is dialled before a number. The zero value is none.
type prefix struct {
	digits string
	// pattern tells, where it is not always the same, whether there is one; and odd that it takes more to know.
	pattern *automaton
	odd     bool
}

// newPrefix reads a pattern of the metadata.
func newPrefix(pattern string) prefix {
	if pattern == "" || digitsOnly(pattern) {
		return prefix{digits: pattern}
	}
	a, err := newAutomaton(pattern)
	return prefix{pattern: a, odd: err != nil}
}

// cut takes the prefix away if it is there. plain is false if that takes more than to leave out digits that are always the same.
func (p prefix) cut(dialled string) (rest string, cut, plain bool) {
	switch {
	case p.odd, p.pattern != nil && p.pattern.begins(dialled):
		return dialled, false, false
	case p.digits != "":
		rest, cut = strings.CutPrefix(dialled, p.digits)
		return rest, cut, true
	default:
		return dialled, false, true
	}
}

// lengths are numbers of digits, a bit each.
type lengths uint32

// anyLength is what a type has of which the metadata tells no lengths: the pattern says it all.
const anyLength = ^lengths(0)

// lengthsOf reads a list of the metadata. The entry -1 says that there is no number of the type.
func lengthsOf(list []int32) (l lengths) {
	for _, n := range list {
		if n >= 0 {
			l |= 1 << n
		}
	}
	return l
}

func (l lengths) has(n int) bool { return l>>n&1 != 0 }

func (l lengths) longest() int { return bits.Len32(uint32(l)) - 1 }

func digitsOnly(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
