// Package fsxml writes the documents that FreeSWITCH reads. It is the only place that writes XML, and the second wall
// behind the types of package fstext:
//
//   - element and attribute names are constants;
//   - every value is checked once more (fstext.Hazard), and a document that fails is not sent;
//   - every element stands on a line of its own, because the pre-processor drops and rewrites whole lines;
//   - "$" is written as a numeric reference, which the pre-processor does not recognise and the XML parser restores;
//   - there are no comments, CDATA sections, processing instructions or declarations: FreeSWITCH runs what it finds there.
//
// See docs/freeswitch.md for what FreeSWITCH does with a document, and docs/decisions/0003-xml-writer.md for why hot
// answers are not built as a tree.
package fsxml

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// ErrHazard is returned by Bytes when a value holds something that FreeSWITCH would act on. It means that a constructor
// of package fstext has a gap; nothing must be sent.
var ErrHazard = errors.New("document holds text that FreeSWITCH would act on")

// ErrTooLarge is returned by Bytes for a document that FreeSWITCH would drop.
var ErrTooLarge = errors.New("document is larger than FreeSWITCH reads")

// maxBytes is the largest document: what freeswitch-conf/ allows (response-max-bytes), less a margin.
const maxBytes = 16<<20 - 4096

// name keeps element and attribute names constants: only untyped constants convert to it outside this package.
type name string

// Attr is one attribute of an element.
type Attr struct {
	key   name
	value fstext.Text
}

// A returns an attribute.
func A(key name, value fstext.Text) Attr { return Attr{key, value} }

// Section names the kinds of document that FreeSWITCH asks for (switch_xml.c, switch_xml_parse_section_string).
type Section string

// The sections.
const (
	SectionDirectory     Section = "directory"
	SectionDialplan      Section = "dialplan"
	SectionConfiguration Section = "configuration"
	SectionLanguages     Section = "languages"
	SectionPhrases       Section = "phrases"
	SectionChatplan      Section = "chatplan"
	SectionChannels      Section = "channels"
)

// maxDepth bounds the nesting of elements; the deepest document, a user in a group, has seven.
const maxDepth = 12

// Document is one answer in the making: <document type="freeswitch/xml"> around one section. Elements are written in
// order; Bytes closes what is open. A Document belongs to one goroutine. The zero value is not usable, see New.
type Document struct {
	buf   []byte
	open  [maxDepth]name
	depth int
	err   error
}

// buffers are the bytes of documents that were released.
var buffers = sync.Pool{New: func() any { return new([usualBytes]byte) }}

// usualBytes is what most documents fit in.
const usualBytes = 4096

// Release gives the bytes of a document back, to be written anew. Whoever calls it must be the last to hold them. Bytes
// that are never released are the garbage collector's.
func Release(b []byte) {
	if cap(b) == usualBytes {
		buffers.Put((*[usualBytes]byte)(b[:usualBytes]))
	}
}

// New returns a document with its section open.
func New(s Section) *Document {
	d := &Document{buf: buffers.Get().(*[usualBytes]byte)[:0]} //nolint:forcetypeassert // nothing else is put there
	d.Open("document", A("type", fstext.Const("freeswitch/xml")))
	d.buf = append(d.buf, `<section name="`...)
	d.buf = append(d.buf, s...)
	d.buf = append(d.buf, "\">\n"...)
	d.push("section")
	return d
}

func (d *Document) push(tag name) {
	if d.depth == maxDepth {
		panic("fsxml: document nested deeper than any that FreeSWITCH reads")
	}
	d.open[d.depth] = tag
	d.depth++
}

// Open begins an element that has children; Close ends it.
func (d *Document) Open(tag name, attrs ...Attr) {
	d.tag(tag, attrs)
	d.buf = append(d.buf, ">\n"...)
	d.push(tag)
}

// Close ends the element opened last. Closing more than was opened panics.
func (d *Document) Close() {
	d.depth--
	d.buf = append(d.buf, "</"...)
	d.buf = append(d.buf, d.open[d.depth]...)
	d.buf = append(d.buf, ">\n"...)
}

// Leaf writes an element without children.
func (d *Document) Leaf(tag name, attrs ...Attr) {
	d.tag(tag, attrs)
	d.buf = append(d.buf, "/>\n"...)
}

// Param writes <param name="key" value="value"/>.
func (d *Document) Param(key name, value fstext.Text) { d.pair("param", key, value) }

// Variable writes <variable name="key" value="value"/>.
func (d *Document) Variable(key name, value fstext.Text) { d.pair("variable", key, value) }

// Action writes <action application="app" data="data"/>; with no data the attribute is left out.
func (d *Document) Action(app name, data ...fstext.Text) {
	d.buf = append(d.buf, `<action application="`...)
	d.buf = append(d.buf, app...)
	d.buf = append(d.buf, '"')
	if len(data) > 0 {
		d.buf = append(d.buf, ` data="`...)
		for _, t := range data {
			d.value(t)
		}
		d.buf = append(d.buf, '"')
	}
	d.buf = append(d.buf, "/>\n"...)
}

func (d *Document) pair(tag, key name, value fstext.Text) {
	d.buf = append(d.buf, '<')
	d.buf = append(d.buf, tag...)
	d.buf = append(d.buf, ` name="`...)
	d.buf = append(d.buf, key...)
	d.buf = append(d.buf, `" value="`...)
	d.value(value)
	d.buf = append(d.buf, "\"/>\n"...)
}

func (d *Document) tag(tag name, attrs []Attr) {
	d.buf = append(d.buf, '<')
	d.buf = append(d.buf, tag...)
	for _, a := range attrs {
		d.buf = append(d.buf, ' ')
		d.buf = append(d.buf, a.key...)
		d.buf = append(d.buf, `="`...)
		d.value(a.value)
		d.buf = append(d.buf, '"')
	}
}

// value writes text inside a double-quoted attribute.
func (d *Document) value(t fstext.Text) {
	s := t.String()
	if plain(s) {
		d.buf = append(d.buf, s...)
		return
	}
	if what, found := fstext.Hazard(s); found && d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrHazard, what)
	}
	for {
		i := strings.IndexAny(s, `&<>"$`)
		if i < 0 {
			d.buf = append(d.buf, s...)
			return
		}
		d.buf = append(d.buf, s[:i]...)
		d.buf = append(d.buf, escapes[s[i]]...)
		s = s[i+1:]
	}
}

// escapes are what stands for the characters that a value cannot hold as they are.
var escapes = [...]string{'&': "&amp;", '<': "&lt;", '>': "&gt;", '"': "&quot;", '$': "&#36;"}

// special are the bytes that plain looks at: those that are escaped, and those that can begin what fstext.Hazard finds.
var special = func() (t [256]bool) {
	for c := range t {
		t[c] = c < ' ' || c >= 0x7f || strings.IndexByte(`&<>"$xXA`, byte(c)) >= 0
	}
	return t
}()

// plain tells whether a text is written as it is, which most are. False may also mean that it is not sure.
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !special[c] {
			continue
		}
		// An x is harmless unless x-pre-process follows, an A unless ARRAY:: does.
		next := byte(0)
		if i+1 < len(s) {
			next = s[i+1]
		}
		if (c == 'x' || c == 'X') && next != '-' || c == 'A' && next != 'R' {
			continue
		}
		return false
	}
	return true
}

// Bytes closes what is still open and returns the document. The error wraps ErrHazard or is ErrTooLarge; the bytes are
// then nil. Nothing may be written to the document afterwards.
func (d *Document) Bytes() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	for d.depth > 0 {
		d.Close()
	}
	if len(d.buf) > maxBytes {
		return nil, ErrTooLarge
	}
	return d.buf, nil
}

// NotFound is the answer that sends FreeSWITCH on to its next binding and then to its own files
// (mod_xml_curl.c, switch_xml.c: switch_xml_locate).
func NotFound() []byte {
	return []byte(`<document type="freeswitch/xml">
<section name="result">
<result status="not found"/>
</section>
</document>
`)
}
