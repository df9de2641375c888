// Package numbering reads numbers as people dial them: the country's rules, international form, emergency numbers.
//
// It stands over nyaruka/phonenumbers (the metadata of libphonenumber), which on its own reads too much: "911" becomes
// +1911 and an extension a subscriber. So callers look for extensions and emergency numbers first, and Normalise takes
// only numbers that are valid in their plan.
package numbering

import (
	"errors"
	"slices"
	"strings"

	"github.com/maypok86/otter/v2"
	"github.com/nyaruka/phonenumbers"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// Errors of this package.
var (
	ErrUnknownCountry = errors.New("country is not an ISO 3166-1 alpha-2 code with a numbering plan")
	ErrNotANumber     = errors.New("not a valid number of the public network")
)

// Country is an ISO 3166-1 alpha-2 code that has a numbering plan. The zero value has none: only numbers in
// international form are understood, and no emergency number but everywhereEmergency.
type Country struct{ code string }

// NewCountry accepts two upper-case letters. Error: ErrUnknownCountry.
func NewCountry(code string) (Country, error) {
	if !phonenumbers.GetSupportedRegions()[code] {
		return Country{}, ErrUnknownCountry
	}
	return Country{code}, nil
}

func (c Country) String() string { return c.code }

// normalised remembers what libphonenumber made of numbers, as it takes some 20 µs a number and the same are dialled again
// and again. The zero number stands for ErrNotANumber.
var normalised = otter.Must(&otter.Options[question, fstext.E164]{MaximumSize: 65_536})

type question struct{ region, dialled string }

// own is the question in memory of its own: what was dialled may lie in a whole request.
func (q question) own() question { return question{q.region, strings.Clone(q.dialled)} }

// Normalise returns a dialled number in international form: +…, 00… and the country's own international prefix, or
// national. Error: ErrNotANumber.
func Normalise(c Country, dialled fstext.Dialled) (fstext.E164, error) {
	if e := read(c, dialled.String()); e != (fstext.E164{}) {
		return e, nil
	}
	q := question{c.code, dialled.String()}
	e, known := normalised.GetIfPresent(q)
	if !known {
		e = normalise(c, q.dialled)
		normalised.Set(q.own(), e)
	}
	if e == (fstext.E164{}) {
		return fstext.E164{}, ErrNotANumber
	}
	return e, nil
}

// normalise asks libphonenumber. It returns the zero number for what is none.
func normalise(c Country, s string) fstext.E164 {
	if strings.ContainsAny(s, "*#") {
		return fstext.E164{}
	}
	region := c.code
	if region == "" {
		region = "ZZ" // libphonenumber's "unknown": only +… is read
	}
	n, err := phonenumbers.Parse(s, region)
	if err != nil || !phonenumbers.IsValidNumber(n) {
		return fstext.E164{}
	}
	e, err := fstext.NewE164(phonenumbers.Format(n, phonenumbers.E164))
	if err != nil {
		return fstext.E164{}
	}
	return e
}

// everywhereEmergency are numbers that reach help from any mobile network (3GPP TS 22.101, 10.1.1), and so are what a
// visitor dials wherever he is. An extension cannot have one of them.
var everywhereEmergency = []string{"112", "911"}

// Emergency tells whether a dialled number calls for help in the country.
func Emergency(c Country, dialled string) bool {
	if len(dialled) < 2 || len(dialled) > 6 {
		return false // no emergency number anywhere is longer, and the look-up below costs microseconds
	}
	if !digitsOnly(dialled) {
		return false // libphonenumber would look past a star or a hash, which make it another number
	}
	if slices.Contains(everywhereEmergency, dialled) {
		return true
	}
	if c.code == "" {
		return false
	}
	q := question{c.code, dialled}
	help, known := emergencies.GetIfPresent(q)
	if !known {
		help = phonenumbers.IsEmergencyNumber(dialled, c.code)
		emergencies.Set(q.own(), help)
	}
	return help
}

// emergencies remembers what Emergency found: libphonenumber takes a microsecond, and every call of a phone is asked
// about.
var emergencies = otter.Must(&otter.Options[question, bool]{MaximumSize: 16_384})

// National returns the digits of a number without its country's code: those that stand at the end of it in every form
// in which it is dialled or shown. It returns all digits of a number that belongs to no country's plan.
func National(e fstext.E164) string {
	n, err := phonenumbers.Parse(e.String(), "ZZ")
	if err != nil {
		return strings.TrimPrefix(e.String(), "+")
	}
	return phonenumbers.GetNationalSignificantNumber(n)
}
