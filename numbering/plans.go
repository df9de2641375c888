package numbering

import (
	"strconv"
	"sync"

	"github.com/nyaruka/phonenumbers"
)

// sharing are the plans of the countries that share a code, the main one first; it has one at least.
type sharing []*plan

func (s sharing) main() *plan { return s[0] }

// allPlans makes the plans of a code when a number of it is read for the first time, which takes some milliseconds.
var allPlans = sync.OnceValue(func() map[string]func() sharing {
	collection, err := phonenumbers.MetadataCollection()
	if err != nil {
		return nil // then libphonenumber has stopped the process already; without plans it reads every number itself
	}
	byCode := map[string]map[string]*phonenumbers.PhoneMetadata{}
	for _, m := range collection.GetMetadata() {
		code := strconv.Itoa(int(m.GetCountryCode()))
		if byCode[code] == nil {
			byCode[code] = map[string]*phonenumbers.PhoneMetadata{}
		}
		byCode[code][m.GetId()] = m
	}
	all := map[string]func() sharing{}
	for code, countries := range byCode {
		all[code] = sync.OnceValue(func() sharing { return newSharing(code, countries) })
	}
	return all
})

// plansOf returns the plans of a country's code; nil if there is no such code or it cannot be planned for.
func plansOf(code string) sharing {
	if plans := allPlans()[code]; plans != nil {
		return plans()
	}
	return nil
}

func newSharing(code string, countries map[string]*phonenumbers.PhoneMetadata) (all sharing) {
	n, _ := strconv.Atoi(code)
	for _, country := range phonenumbers.GetRegionCodesForCountryCode(n) {
		m := countries[country]
		if m == nil {
			return nil
		}
		p, err := newPlan(m)
		if err != nil {
			return nil
		}
		all = append(all, p)
	}
	return all
}

func newPlan(m *phonenumbers.PhoneMetadata) (p *plan, err error) {
	p = &plan{
		country: m.GetId(), code: strconv.Itoa(int(m.GetCountryCode())),
		international: newPrefix(m.GetInternationalPrefix()), national: newPrefix(m.GetNationalPrefixForParsing()),
	}
	descriptions := []*phonenumbers.PhoneNumberDesc{
		m.GetGeneralDesc(), m.GetPremiumRate(), m.GetTollFree(), m.GetSharedCost(), m.GetVoip(), m.GetPersonalNumber(), m.GetPager(),
		m.GetUan(), m.GetVoicemail(), m.GetFixedLine(),
	}
	if !m.GetSameMobileAndFixedLinePattern() {
		descriptions = append(descriptions, m.GetMobile())
	}
	patterns := make([]string, len(descriptions))
	for i, d := range descriptions {
		patterns[i] = d.GetNationalNumberPattern()
		l := anyLength
		if list := d.GetPossibleLength(); len(list) > 0 {
			l = lengthsOf(list)
		}
		p.lengths = append(p.lengths, l)
	}
	if p.types, err = newAutomaton(patterns...); err != nil {
		return nil, err
	}
	if m.GetLeadingDigits() != "" {
		p.leading, err = newAutomaton(m.GetLeadingDigits())
	}
	return p, err
}
