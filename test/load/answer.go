package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// answer is an HTTP response as far as it is looked at. Its texts last until the next request of the same client.
type answer struct {
	status int
	body   []byte
}

var (
	endOfHead     = []byte("\r\n\r\n")
	statusPrefix  = []byte("HTTP/1.1 ")
	contentLength = []byte("\r\nContent-Length: ")
)

// errNotHTTP means that the head of a response is none that our server writes.
var errNotHTTP = errors.New("answer does not begin with HTTP/1.1, a status and a Content-Length")

// parseAnswer reads a response that may not have come in full yet: complete tells whether it has. Error: errNotHTTP.
func parseAnswer(b []byte) (a answer, complete bool, err error) {
	head, body, found := bytes.Cut(b, endOfHead)
	if !found {
		return answer{}, false, nil
	}
	at := bytes.Index(head, contentLength)
	if at < 0 || len(head) < len(statusPrefix)+3 || !bytes.HasPrefix(head, statusPrefix) {
		return answer{}, false, errNotHTTP
	}
	digits := head[at+len(contentLength):]
	if i := bytes.IndexByte(digits, '\r'); i >= 0 {
		digits = digits[:i]
	}
	length, err1 := strconv.Atoi(string(digits))
	status, err2 := strconv.Atoi(string(head[len(statusPrefix) : len(statusPrefix)+3]))
	if err1 != nil || err2 != nil || length < 0 {
		return answer{}, false, errNotHTTP
	}
	if len(body) < length {
		return answer{}, false, nil
	}
	return answer{status, body[:length]}, true, nil
}

// check tells whether an answer is the right one. The error says what was asked and answered, without the secrets of
// either.
func (q *question) check(a answer) error {
	body := string(a.body)
	wrong := ""
	switch {
	case a.status != 200:
		wrong = "is no success"
	case body == "":
		wrong = "is empty"
	}
	for _, want := range q.wants {
		if wrong == "" && !strings.Contains(body, want) {
			wrong = "lacks " + want
		}
	}
	for _, ban := range q.bans {
		if wrong == "" && strings.Contains(body, ban) {
			wrong = "holds " + ban
		}
	}
	if wrong == "" {
		return nil
	}
	return fmt.Errorf("wrong answer to %s: it %s: %d %s", asked(q.body), redact(wrong), a.status, redact(clip(strings.TrimSpace(body))))
}

var hash = regexp.MustCompile(`(a1-hash" value=")[0-9A-Fa-f]*`)

// redact cuts what a password could be guessed from or replaced by.
func redact(s string) string { return hash.ReplaceAllString(s, "$1…") }

// shown bounds what is shown of an answer: any of our documents.
const shown = 8 << 10

func clip(s string) string {
	if len(s) > shown {
		return s[:shown] + "…"
	}
	return s
}
