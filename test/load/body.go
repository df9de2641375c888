package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// slot is a place in a captured body that each request fills anew.
type slot int

const (
	slotRealm slot = iota
	slotContext
	slotUser    // who registers or calls
	slotDialled // what is called
	slotCount
)

// values are what the slots are filled with, as they stand in a body: percent-encoded.
type values [slotCount]string

// template is a captured body cut at its slots: texts[0], slots[0], texts[1] and so on.
type template struct {
	texts [][]byte
	slots []slot
}

// token is a text in a captured body that stands for a slot.
type token struct {
	text string
	slot slot
}

// readTemplate reads a captured body and cuts it at each token. Of two tokens at one place the first in the list
// counts.
func readTemplate(dir, name string, tokens ...token) (template, error) {
	body, err := os.ReadFile(filepath.Join(dir, name+".form")) //nolint:gosec // the caller names the directory
	if err != nil {
		return template{}, fmt.Errorf("-captured: %w", err)
	}
	t, err := newTemplate(string(body), tokens...)
	if err != nil {
		return template{}, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func newTemplate(body string, tokens ...token) (template, error) {
	var t template
	found := map[slot]bool{}
	last := 0
	for i := 0; i < len(body); i++ {
		for _, k := range tokens {
			if strings.HasPrefix(body[i:], k.text) && standsAlone(body, i, i+len(k.text)) {
				t.texts = append(t.texts, []byte(body[last:i]))
				t.slots = append(t.slots, k.slot)
				found[k.slot] = true
				last = i + len(k.text)
				i = last - 1
				break
			}
		}
	}
	t.texts = append(t.texts, []byte(body[last:]))
	for _, k := range tokens {
		if !found[k.slot] {
			return template{}, fmt.Errorf("captured body does not hold %q", k.text)
		}
	}
	return t, nil
}

// standsAlone tells whether body[from:to] is no part of a longer word or number. What stands before it may be an
// escape: the 1001 of "%401001" is one.
func standsAlone(body string, from, to int) bool {
	if to < len(body) && isAlphanumeric(body[to]) {
		return false
	}
	return from == 0 || !isAlphanumeric(body[from-1]) || from >= 3 && body[from-3] == '%'
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// render appends the body with its slots filled.
func (t template) render(to []byte, v *values) []byte {
	for i, s := range t.slots {
		to = append(to, t.texts[i]...)
		to = append(to, v[s]...)
	}
	return append(to, t.texts[len(t.slots)]...)
}

// asked tells a body's question in a few words: the fields that the answer depends on.
func asked(body []byte) string {
	var b strings.Builder
	for field := range bytes.SplitSeq(body, []byte("&")) {
		name, value, _ := bytes.Cut(field, []byte("="))
		switch string(name) {
		case "section", "action", "user", "domain", "Hunt-Context", "Hunt-Destination-Number", "variable_user_name", "variable_domain_name":
			fmt.Fprintf(&b, "%s=%s ", name, value)
		}
	}
	return strings.TrimSpace(b.String())
}
