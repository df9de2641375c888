package trunk

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// NumberFormat is how a carrier wants called numbers.
type NumberFormat string

// The formats, of +39 06 1234567.
const (
	NumberPlus   NumberFormat = "plus"   // +39061234567
	NumberDigits NumberFormat = "digits" // 39061234567
	NumberZeros  NumberFormat = "zeros"  // 0039061234567
)

// ParseNumberFormat accepts the names above.
func ParseNumberFormat(s string) (NumberFormat, error) {
	switch f := NumberFormat(s); f {
	case NumberPlus, NumberDigits, NumberZeros:
		return f, nil
	default:
		return "", errors.New("number format is one of plus, digits, zeros")
	}
}

// ParseProxy accepts a host or host:port, an IPv6 address in brackets before a port, and returns it as a SIP URI writes
// it; nothing gives nothing.
func ParseProxy(s string) (fstext.Text, error) {
	if s == "" {
		return fstext.Text{}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		// No port: the whole of it is the host.
		if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
			s = s[1 : len(s)-1]
		}
		h, err := fstext.NewHost(s)
		return h.Text(), err
	}
	h, err := fstext.NewHost(host)
	if err != nil {
		return fstext.Text{}, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return fstext.Text{}, errors.New("the port is not between 1 and 65535")
	}
	return fstext.Join(h.Text(), fstext.Const(":"), fstext.Int(int(n))), nil
}

// ParseTechPrefix accepts up to 16 digits, stars and hashes.
func ParseTechPrefix(s string) (fstext.Text, error) {
	if len(s) > 16 || strings.Trim(s, "0123456789*#") != "" {
		return fstext.Text{}, errors.New("a tech prefix is up to 16 digits, stars and hashes")
	}
	return fstext.NewText(s)
}

// maxPrefixes is how many prefixes a trunk may have.
const maxPrefixes = 256

// ParsePrefixes accepts up to 256 beginnings of E.164 numbers without the plus sign, 1 to 15 digits each, and returns
// them in order, each once; nil if there are none.
func ParsePrefixes(list []string) ([]string, error) {
	if len(list) > maxPrefixes {
		return nil, fmt.Errorf("a trunk has at most %d prefixes", maxPrefixes)
	}
	for _, p := range list {
		if p == "" || len(p) > 15 || p[0] == '0' || strings.Trim(p, "0123456789") != "" {
			return nil, errors.New("a prefix is 1 to 15 digits, the first not 0, without a plus sign")
		}
	}
	sorted := slices.Clone(list)
	slices.Sort(sorted)
	if sorted = slices.Compact(sorted); len(sorted) == 0 {
		return nil, nil
	}
	return sorted, nil
}

// ReadCodecs reads a list of codecs that is stored, which may be empty.
func ReadCodecs(names []string) (fstext.Codecs, error) {
	if len(names) == 0 {
		return fstext.Codecs{}, nil
	}
	return fstext.NewCodecs(names)
}

// parseCodecs accepts a list of codecs, which may be empty, in any letter case; see fstext.ParseCodecs.
func parseCodecs(names []string) (fstext.Codecs, error) {
	if len(names) == 0 {
		return fstext.Codecs{}, nil
	}
	return fstext.ParseCodecs(names)
}

// ParseAIAgentRef accepts up to 128 characters of plain text.
func ParseAIAgentRef(s string) (string, error) {
	t, err := parsePlain(s, 128)
	return t.String(), err
}

// ParseProvider accepts up to 64 characters of plain text.
func ParseProvider(s string) (fstext.Text, error) { return parsePlain(s, 64) }

// ParseDescription accepts up to 256 characters of plain text.
func ParseDescription(s string) (fstext.Text, error) { return parsePlain(s, 256) }

// parsePlain accepts printable characters, which FreeSWITCH takes as nothing else.
func parsePlain(s string, longest int) (fstext.Text, error) {
	if utf8.RuneCountInString(s) > longest {
		return fstext.Text{}, fmt.Errorf("has more than %d characters", longest)
	}
	for _, r := range s {
		// IsPrint leaves out characters of format, which make a text look like another one.
		if !unicode.IsPrint(r) {
			return fstext.Text{}, errors.New("has characters that do not print")
		}
	}
	return fstext.NewText(s)
}

// parseSources accepts address blocks in CIDR form, without host bits and no larger than /8; nil if there are none.
func parseSources(list []string) ([]netip.Prefix, error) {
	var sources []netip.Prefix
	if len(list) > maxSources {
		return nil, fmt.Errorf("a carrier has at most %d address blocks", maxSources)
	}
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil || p != p.Masked():
			return nil, errors.New("is not a list of address blocks in CIDR form without host bits")
		case p.Bits() < 8:
			return nil, errors.New("holds a block larger than /8: a carrier does not call from everywhere")
		}
		sources = append(sources, p)
	}
	return sources, nil
}

// maxSources is how many address blocks a carrier may have.
const maxSources = 256
