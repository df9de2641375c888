package trunk

import (
	"slices"
	"strings"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// Carries tells whether the trunk carries calls to a number, by its prefixes.
func (t Trunk) Carries(n fstext.E164) bool {
	digits := strings.TrimPrefix(n.String(), "+")
	return len(t.Prefixes) == 0 || slices.ContainsFunc(t.Prefixes, func(p string) bool { return strings.HasPrefix(digits, p) })
}

// Called returns a number as the carrier wants it called, for the user part of a SIP URI.
func (t Trunk) Called(n fstext.E164) fstext.Text {
	switch t.NumberFormat {
	case NumberDigits:
		return t.Prefixed(n.Digits())
	case NumberZeros:
		return t.Prefixed(fstext.Join(fstext.Const("00"), n.Digits()))
	default:
		return t.Prefixed(n.Text())
	}
}

// Prefixed puts the tech prefix before what is called. A hash would end the user part of a SIP URI, and is escaped (RFC
// 3261, 25.1); an operator writes it as it is.
func (t Trunk) Prefixed(called fstext.Text) fstext.Text {
	parts := make([]fstext.Text, 0, 8)
	rest := t.TechPrefix
	for {
		before, after, found := rest.Cut('#')
		parts = append(parts, before)
		if !found {
			return fstext.Join(append(parts, called)...)
		}
		parts, rest = append(parts, fstext.Const("%23")), after
	}
}
