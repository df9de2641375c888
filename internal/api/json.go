package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// jsonFormat is JSON as this API speaks it.
var jsonFormat = huma.Format{Marshal: encode, Unmarshal: decode}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// errJSON is all that is said of a body that is not taken. The library's own errors would show parts of it.
var errJSON = errors.New("not one JSON object of UTF-8 with each name once")

// decode reads one JSON value. It refuses what encoding/json would change in silence: bytes that are not UTF-8 and
// halves of surrogate pairs, of which it makes U+FFFD, and names that are there twice, of which it takes the last.
func decode(data []byte, v any) error {
	if !utf8.Valid(data) || !unambiguous(data) {
		return errJSON
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errJSON
	}
	return nil
}

// maxDepth is how deep a body may nest; ours are three deep.
const maxDepth = 8

func unambiguous(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if !value(d, maxDepth) {
		return false
	}
	_, err := d.Token()
	return errors.Is(err, io.EOF)
}

// value reads one value and tells whether it can be taken.
func value(d *json.Decoder, depth int) bool {
	token, err := d.Token()
	if err != nil || depth == 0 {
		return false
	}
	switch t := token.(type) {
	case string:
		return clean(t)
	case json.Delim:
		if t == '{' {
			return object(d, depth)
		}
		for d.More() {
			if !value(d, depth-1) {
				return false
			}
		}
		_, err := d.Token()
		return err == nil
	}
	return true
}

func object(d *json.Decoder, depth int) bool {
	seen := map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok || seen[name] || !clean(name) || !value(d, depth-1) {
			return false
		}
		seen[name] = true
	}
	_, err := d.Token()
	return err == nil
}

// clean tells whether a text is what was sent.
func clean(s string) bool { return !bytes.ContainsRune([]byte(s), utf8.RuneError) }
