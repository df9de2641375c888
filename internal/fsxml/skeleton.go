package fsxml

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/beevik/etree"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// Skeleton is a <configuration> element from one of our own files, with places to fill: an attribute value of the form
// {name} is a value, and an element <slot name="name"/> is where other elements go. A Skeleton is checked when it is
// parsed and does not change afterwards, so it is safe for concurrent use.
type Skeleton struct {
	root *etree.Element
	// Name is the file that FreeSWITCH asks for, such as sofia.conf.
	Name string
}

// Fill are the values and slots for a skeleton. A parameter whose value is empty is left out.
type Fill struct {
	Values map[string]fstext.Text
	Slots  map[string]func(*Document) error
}

var (
	skeletonName  = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
	skeletonPlace = regexp.MustCompile(`^\{([a-z0-9-]+)\}$`)
)

// ParseSkeleton reads a file that holds one <configuration name="…">. Comments explain the file to its readers and are
// not kept.
func ParseSkeleton(b []byte) (*Skeleton, error) {
	doc := etree.NewDocument()
	if err := doc.ReadFromBytes(b); err != nil {
		return nil, fmt.Errorf("skeleton: %w", err)
	}
	root := doc.Root()
	if root == nil || root.Tag != "configuration" || root.SelectAttrValue("name", "") == "" {
		return nil, errors.New("skeleton: not a configuration with a name")
	}
	if err := checkSkeleton(root); err != nil {
		return nil, err
	}
	return &Skeleton{root: root, Name: root.SelectAttrValue("name", "")}, nil
}

func checkSkeleton(e *etree.Element) error {
	if !skeletonName.MatchString(e.FullTag()) {
		return fmt.Errorf("skeleton: element name %q", e.FullTag())
	}
	for _, a := range e.Attr {
		if !skeletonName.MatchString(a.FullKey()) {
			return fmt.Errorf("skeleton: attribute name %q", a.FullKey())
		}
		if _, err := fstext.NewText(a.Value); err != nil {
			return fmt.Errorf("skeleton: value of %s: %w", a.FullKey(), err)
		}
	}
	for _, c := range e.ChildElements() {
		if err := checkSkeleton(c); err != nil {
			return err
		}
	}
	return nil
}

// WriteSkeleton writes a skeleton with its places filled. An error means that a place has nothing to fill it, or is a
// slot's own.
func (d *Document) WriteSkeleton(s *Skeleton, f Fill) error { return d.skeleton(s.root, f) }

func (d *Document) skeleton(e *etree.Element, f Fill) error {
	if e.Tag == "slot" {
		write, ok := f.Slots[e.SelectAttrValue("name", "")]
		if !ok {
			return fmt.Errorf("skeleton: slot %q has nothing to fill it", e.SelectAttrValue("name", ""))
		}
		return write(d)
	}
	attrs := make([]Attr, 0, len(e.Attr))
	for _, a := range e.Attr {
		value, err := fstext.NewText(a.Value)
		if err != nil {
			return fmt.Errorf("skeleton: value of %s: %w", a.Key, err)
		}
		if m := skeletonPlace.FindStringSubmatch(a.Value); m != nil {
			filled, ok := f.Values[m[1]]
			if !ok {
				return fmt.Errorf("skeleton: place %q has nothing to fill it", m[1])
			}
			if filled == (fstext.Text{}) {
				return nil
			}
			value = filled
		}
		attrs = append(attrs, Attr{name(a.Key), value})
	}
	if len(e.ChildElements()) == 0 {
		d.Leaf(name(e.Tag), attrs...)
		return nil
	}
	d.Open(name(e.Tag), attrs...)
	for _, c := range e.ChildElements() {
		if err := d.skeleton(c, f); err != nil {
			return err
		}
	}
	d.Close()
	return nil
}
