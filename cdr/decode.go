package cdr

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"strings"
)

// Errors about a document that cannot be read. None repeats what is in it.
var (
	errEmpty    = errors.New("the document is empty")
	errEncoding = errors.New("the document is neither JSON nor an encoding of it that FreeSWITCH has")
	errJSON     = errors.New("the document is not one whole JSON object")
	errLeg      = errors.New("the document names no channel")
	errStart    = errors.New("the document has no time of start")
)

// Decode returns the JSON of a body as mod_json_cdr posts or spools it: plain, as the form field cdr, in base64, or
// either of these without the field's name (mod_json_cdr.c, process_cdr). It goes by what the body is, as its content
// type may be another's, and puts right what is no JSON: numbers such as nan, which FreeSWITCH writes, and control
// characters.
func Decode(body []byte) ([]byte, error) {
	text, err := decode(body)
	if err == nil && !json.Valid(text) {
		return nil, errJSON
	}
	return text, err
}

// decode is Decode for who looks himself whether it is JSON.
func decode(body []byte) ([]byte, error) {
	text := bytes.TrimSpace(body)
	if len(text) == 0 {
		return nil, errEmpty
	}
	if text[0] != '{' {
		text, _ = bytes.CutPrefix(text, []byte("cdr="))
		var err error
		if text, err = unwrap(text); err != nil {
			return nil, err
		}
	}
	return repair(text), nil
}

func unwrap(text []byte) ([]byte, error) {
	if bytes.HasPrefix(text, []byte("{")) {
		return text, nil
	}
	if plain, err := url.PathUnescape(string(text)); err == nil && strings.HasPrefix(strings.TrimSpace(plain), "{") {
		return []byte(strings.TrimSpace(plain)), nil
	}
	// Not escaped for a form, so that a plus sign means itself.
	plain, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil {
		plain, err = base64.RawStdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	}
	if plain = bytes.TrimSpace(plain); err == nil && bytes.HasPrefix(plain, []byte("{")) {
		return plain, nil
	}
	return nil, errEncoding
}

// repair replaces words outside of texts that are no JSON by null, control characters by spaces and NUL, however it is
// written, by nothing: PostgreSQL has none.
func repair(text []byte) []byte {
	out := make([]byte, 0, len(text)+16)
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			end := endOfText(text, i)
			out = appendText(out, text[i:end])
			i = end
		case isWord(c):
			end := i
			for end < len(text) && isWord(text[end]) {
				end++
			}
			if word := text[i:end]; json.Valid(word) {
				out = append(out, word...)
			} else {
				out = append(out, "null"...)
			}
			i = end
		case c < ' ':
			out = append(out, ' ')
			i++
		default:
			out = append(out, c)
			i++
		}
	}
	return out
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'
}

// endOfText returns where the text that begins at i ends, behind its second quotation mark.
func endOfText(text []byte, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func appendText(out, text []byte) []byte {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && bytes.HasPrefix(text[i:], []byte(`\u0000`)):
			i += len(`\u0000`) - 1
		case c == '\\' && i+1 < len(text):
			out = append(out, c, text[i+1])
			i++
		case c < ' ':
			out = append(out, ' ')
		default:
			out = append(out, c)
		}
	}
	return out
}
