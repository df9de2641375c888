package fstext

import (
	"slices"
	"strings"
)

// Codecs is a list of codecs in order of preference, as FreeSWITCH writes it. The zero value is empty.
type Codecs struct{ list Text }

// NewCodecs accepts 1 to 16 names of codecs that a switch may speak, without repetition. Names are in upper case. It is
// for what is stored; see ParseCodecs.
func NewCodecs(names []string) (Codecs, error) {
	if len(names) == 0 || len(names) > 16 {
		return Codecs{}, unsafeText("a codec list has 1 to 16 codecs")
	}
	for i, n := range names {
		if !slices.Contains(codecs, n) {
			return Codecs{}, unsafeText("codecs are %s", strings.Join(codecs, ", "))
		}
		if slices.Contains(names[:i], n) {
			return Codecs{}, unsafeText("codec %s is in the list twice", n)
		}
	}
	return Codecs{Text{strings.Join(names, ",")}}, nil
}

// ParseCodecs reads a list as people write it: names in any letter case. One at least is audio that every switch of
// ours speaks: with nothing else in common, a call has no way to be heard.
func ParseCodecs(names []string) (Codecs, error) {
	upper := make([]string, len(names))
	for i, n := range names {
		upper[i] = strings.ToUpper(n)
	}
	c, err := NewCodecs(upper)
	if err == nil && !slices.ContainsFunc(upper, func(n string) bool { return slices.Contains(spoken, n) }) {
		return Codecs{}, unsafeText("a codec list has one at least of %s", strings.Join(spoken, ", "))
	}
	return c, err
}

// spoken is the audio that the core and the modules of freeswitch-conf/ speak.
var spoken = []string{"OPUS", "G722", "PCMA", "PCMU", "GSM"}

// codecs are those, and G729, VP8 and H264, which need a module that not every package has.
var codecs = []string{"OPUS", "G722", "PCMA", "PCMU", "G729", "GSM", "VP8", "H264"}

// Names returns the codecs one by one; nil if there are none.
func (c Codecs) Names() []string {
	if c == (Codecs{}) {
		return nil
	}
	return strings.Split(c.list.String(), ",")
}

// Text returns the list joined by commas.
func (c Codecs) Text() Text { return c.list }
