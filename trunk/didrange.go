package trunk

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
)

// DIDRange is a range of numbers of one length, both ends in it, as it is asked for: in E.164 form, or as they are
// dialled in the tenant's country. Without a Last it is the one number First.
type DIDRange struct{ First, Last string }

// Range is a DIDRange that was read.
type Range struct{ First, Last fstext.E164 }

// ParseDIDRange reads a range as people write it: a number, or two with a hyphen between them.
func ParseDIDRange(s string) DIDRange {
	first, last, _ := strings.Cut(s, "-")
	return DIDRange{strings.TrimSpace(first), strings.TrimSpace(last)}
}

// String writes a range as ParseDIDRange reads it.
func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// maxRanges is how many DID ranges a trunk may have.
const maxRanges = 1000

// parseRanges returns ranges in order of number; nil if there are none.
func parseRanges(country numbering.Country, list []DIDRange) ([]Range, error) {
	if len(list) > maxRanges {
		return nil, fmt.Errorf("a trunk has at most %d ranges", maxRanges)
	}
	var ranges []Range
	for _, d := range list {
		first, err1 := parseDID(country, d.First)
		last, err2 := parseDID(country, cmp.Or(d.Last, d.First))
		if err := cmp.Or(err1, err2); err != nil {
			return nil, err
		}
		if len(first.String()) != len(last.String()) || first.Int() > last.Int() {
			return nil, errors.New("a range goes from a number up to one of the same length")
		}
		ranges = append(ranges, Range{first, last})
	}
	slices.SortFunc(ranges, func(a, b Range) int { return cmp.Compare(a.First.Int(), b.First.Int()) })
	for i := 1; i < len(ranges); i++ {
		if ranges[i].First.Int() <= ranges[i-1].Last.Int() {
			return nil, errors.New("holds a number twice")
		}
	}
	return ranges, nil
}

// parseDID takes a number with its plus sign as it is, as carriers have numbers that no plan knows, and reads others as
// they are dialled in the country.
func parseDID(country numbering.Country, s string) (fstext.E164, error) {
	if strings.HasPrefix(s, "+") {
		return fstext.NewE164(s)
	}
	dialled, err := fstext.NewDialled(s)
	if err != nil {
		return fstext.E164{}, err
	}
	return numbering.Normalise(country, dialled)
}
