package fsxml_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/beevik/etree"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
)

func TestDocument(t *testing.T) {
	t.Parallel()
	d := fsxml.New(fsxml.SectionDirectory)
	d.Open("domain", fsxml.A("name", fstext.Const("a.example")))
	d.Open("params")
	d.Param("p", fstext.Const(`a&b<c>"d"`))
	d.Close()
	d.Variable("v", fstext.Const("s3cr$t"))
	d.Action("respond", fstext.Const("403 "), fstext.Const("Forbidden"))
	d.Action("answer")
	d.Leaf("x")
	got, err := d.Bytes()
	const want = `<document type="freeswitch/xml">
<section name="directory">
<domain name="a.example">
<params>
<param name="p" value="a&amp;b&lt;c&gt;&quot;d&quot;"/>
</params>
<variable name="v" value="s3cr&#36;t"/>
<action application="respond" data="403 Forbidden"/>
<action application="answer"/>
<x/>
</domain>
</section>
</document>
`
	if err != nil || string(got) != want {
		t.Errorf("document is %v\n%s\nwant\n%s", err, got, want)
	}
}

// Two harmless texts that make a directive together are caught when they are written.
func TestJoinedDirective(t *testing.T) {
	t.Parallel()
	d := fsxml.New(fsxml.SectionDirectory)
	d.Param("p", fstext.Join(fstext.Const("X-pre-"), fstext.Const("process")))
	d.Param("q", fstext.Const("fine"))
	if b, err := d.Bytes(); !errors.Is(err, fsxml.ErrHazard) || b != nil {
		t.Errorf("document sent: %s, %v", b, err)
	}
}

func TestNestingIsBounded(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("a bottomless document")
		}
	}()
	d := fsxml.New(fsxml.SectionDirectory)
	for range 100 {
		d.Open("x")
	}
}

func TestSkeletons(t *testing.T) {
	t.Parallel()
	const good = `<!-- why --><configuration name="x.conf"><a v="{place}"/><b/><slot name="s"/></configuration>`
	sk, err := fsxml.ParseSkeleton([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	fill := fsxml.Fill{
		Values: map[string]fstext.Text{"place": fstext.Const("filled")},
		Slots:  map[string]func(*fsxml.Document) error{"s": func(d *fsxml.Document) error { d.Leaf("c"); return nil }},
	}
	write := func(f fsxml.Fill) (string, error) {
		d := fsxml.New(fsxml.SectionConfiguration)
		if err := d.WriteSkeleton(sk, f); err != nil {
			return "", err
		}
		b, err := d.Bytes()
		return string(b), err
	}
	got, err := write(fill)
	if err != nil || !strings.Contains(got, "<a v=\"filled\"/>\n<b/>\n<c/>") || strings.Contains(got, "why") {
		t.Errorf("filled skeleton is %v\n%s", err, got)
	}
	fill.Values["place"] = fstext.Text{}
	if got, err = write(fill); err != nil || strings.Contains(got, "<a") {
		t.Errorf("an empty value leaves its element out: %v\n%s", err, got)
	}
	for _, f := range []fsxml.Fill{{Slots: fill.Slots}, {Values: fill.Values}} {
		if got, err := write(f); err == nil {
			t.Errorf("a place without a value was written:\n%s", got)
		}
	}
	for _, bad := range []string{
		"", "<x/>", "<configuration/>", `<configuration name="x.conf"><a v="$${x}"/></configuration>`,
		`<configuration name="x.conf"><X-PRE-PROCESS cmd="exec"/></configuration>`, `<configuration name="x.conf"><a v="X-Pre-Process"/></configuration>`,
	} {
		if _, err := fsxml.ParseSkeleton([]byte(bad)); err == nil {
			t.Errorf("skeleton accepted: %s", bad)
		}
	}
}

// Law: a value that is accepted comes back from the document as it was, whatever it is, on a line of its own that the
// pre-processor leaves alone; and one that is not accepted sends nothing.
func FuzzValueRoundTrip(f *testing.F) {
	for _, s := range []string{"plain", `"quoted" & <marked>`, "s3cr$t", "$${x}", "<!", "]]>", "&#36;", "a\u00a0b", "'", "</document>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := fstext.NewText(s)
		if err != nil {
			c, err := fstext.NewCredential(s)
			if err != nil {
				return
			}
			text = c.Reveal()
		}
		d := fsxml.New(fsxml.SectionDirectory)
		d.Param("p", text)
		b, err := d.Bytes()
		if err != nil {
			t.Fatalf("constructor let %q through: %v", s, err)
		}
		doc := etree.NewDocument()
		if err := doc.ReadFromBytes(b); err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, b)
		}
		if got := doc.FindElement("//param").SelectAttrValue("value", ""); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
		if n := strings.Count(string(b), "\n"); n != 5 {
			t.Errorf("%d lines, want 5:\n%s", n, b)
		}
		if strings.ContainsAny(string(b), "$\r\x00") {
			t.Errorf("something for the pre-processor:\n%s", b)
		}
	})
}

// The answer to a lookup of a user, built as it is served and as a tree: the reason for docs/decisions/0003.
func BenchmarkWrite(b *testing.B) {
	values := make([]fstext.Text, 12)
	for i := range values {
		values[i] = fstext.Const("sofia/internal/1001%tenant-a.example")
	}
	b.Run("document", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := fsxml.New(fsxml.SectionDirectory)
			d.Open("domain", fsxml.A("name", values[0]))
			for _, v := range values {
				d.Param("p", v)
			}
			if _, err := d.Bytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("tree", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			doc := etree.NewDocument()
			doc.WriteSettings = etree.WriteSettings{CanonicalAttrVal: true, CanonicalText: true}
			sec := doc.CreateElement("document").CreateElement("section")
			dom := sec.CreateElement("domain")
			dom.CreateAttr("name", values[0].String())
			for _, v := range values {
				p := dom.CreateElement("param")
				p.CreateAttr("name", "p")
				p.CreateAttr("value", v.String())
				dom.CreateText("\n")
			}
			if _, err := doc.WriteToBytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
