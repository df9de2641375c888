package e2e_test

import (
	"bufio"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/textproto"
	"regexp"
	"strconv"
	"strings"
)

// message is a SIP message as far as these tests need one: header lines are kept and sent as they are, so that a test
// can write what no SIP library would.
type message struct {
	start string
	lines []string
	body  string
}

func (m *message) bytes() []byte {
	return []byte(m.start + "\r\n" + strings.Join(m.lines, "\r\n") + "\r\n\r\n" + m.body)
}

// all returns the values of a header, in order.
func (m *message) all(name string) []string {
	var values []string
	for _, line := range m.lines {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(n), name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return values
}

// get returns the first value of a header, or nothing.
func (m *message) get(name string) string {
	if v := m.all(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// status is that of a response; 0 for a request.
func (m *message) status() int {
	rest, ok := strings.CutPrefix(m.start, "SIP/2.0 ")
	if !ok || len(rest) < 3 {
		return 0
	}
	n, _ := strconv.Atoi(rest[:3])
	return n
}

// method is that of a request, or of the request that a response answers.
func (m *message) method() string {
	if m.status() == 0 {
		method, _, _ := strings.Cut(m.start, " ")
		return method
	}
	_, method, _ := strings.Cut(m.get("CSeq"), " ")
	return method
}

// requestURI is that of a request.
func (m *message) requestURI() string {
	f := strings.Fields(m.start)
	if len(f) != 3 {
		return ""
	}
	return f[1]
}

var branchParam = regexp.MustCompile(`branch=([^;,\s]+)`)

func (m *message) branch() string {
	if found := branchParam.FindStringSubmatch(m.get("Via")); found != nil {
		return found[1]
	}
	return ""
}

var tagParam = regexp.MustCompile(`;tag=([^;>\s]+)`)

func tagOf(address string) string {
	if found := tagParam.FindStringSubmatch(address); found != nil {
		return found[1]
	}
	return ""
}

// uriOf returns what stands between the angle brackets of an address.
func uriOf(address string) string {
	if _, rest, ok := strings.Cut(address, "<"); ok {
		uri, _, _ := strings.Cut(rest, ">")
		return uri
	}
	uri, _, _ := strings.Cut(address, ";")
	return uri
}

// userOf returns the user part of a URI.
func userOf(uri string) string {
	_, rest, _ := strings.Cut(uri, ":")
	user, _, _ := strings.Cut(rest, "@")
	return user
}

// readMessage reads one message from a stream, or from a datagram in a reader of its own.
func readMessage(r *bufio.Reader) (*message, error) {
	lines := textproto.NewReader(r)
	var m message
	for m.start == "" { // empty lines between messages are keep-alives (RFC 5626, 4.4.1)
		line, err := lines.ReadLine()
		if err != nil {
			return nil, err
		}
		m.start = line
	}
	for {
		line, err := lines.ReadLine()
		if err != nil {
			return nil, err
		}
		if line == "" {
			break
		}
		m.lines = append(m.lines, line)
	}
	n, err := strconv.Atoi(m.get("Content-Length"))
	if m.get("Content-Length") != "" && (err != nil || n < 0 || n > 1<<16) {
		return nil, errors.New("bad Content-Length")
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	m.body = string(body)
	return &m, nil
}

// login is what a phone answers a challenge with.
type login struct {
	user, realm, password string
	algorithm             string // MD5 if empty
	// claimedRealm is written into the header as it is, instead of the realm of the challenge.
	claimedRealm string
}

// challenge is one WWW-Authenticate or Proxy-Authenticate header.
type challenge map[string]string

var challengeParam = regexp.MustCompile(`([a-z-]+)=(?:"([^"]*)"|([^",\s]+))`)

func challengesOf(m *message) []challenge {
	var found []challenge
	for _, value := range append(m.all("WWW-Authenticate"), m.all("Proxy-Authenticate")...) {
		c := challenge{}
		for _, p := range challengeParam.FindAllStringSubmatch(value, -1) {
			c[p[1]] = p[2] + p[3]
		}
		found = append(found, c)
	}
	return found
}

// authorization answers the challenge of the login's algorithm (RFC 2617, RFC 8760).
func (l login) authorization(response *message, method, uri string) (string, error) {
	want := l.algorithm
	if want == "" {
		want = "MD5"
	}
	for _, c := range challengesOf(response) {
		algorithm := c["algorithm"]
		if algorithm == "" {
			algorithm = "MD5"
		}
		if !strings.EqualFold(algorithm, want) {
			continue
		}
		hash := func(s string) string {
			if want == "SHA-256" {
				sum := sha256.Sum256([]byte(s))
				return hex.EncodeToString(sum[:])
			}
			sum := md5.Sum([]byte(s))
			return hex.EncodeToString(sum[:])
		}
		realm := c["realm"]
		if l.claimedRealm != "" {
			realm = l.claimedRealm
		}
		const cnonce, nc = "0a4f113b", "00000001"
		digest := hash(strings.Join([]string{
			hash(l.user + ":" + realm + ":" + l.password), c["nonce"], nc, cnonce, "auth", hash(method + ":" + uri),
		}, ":"))
		header := "Authorization"
		if response.status() == 407 {
			header = "Proxy-Authorization"
		}
		return fmt.Sprintf(`%s: Digest username="%s", realm="%s", nonce="%s", uri="%s", response="%s", algorithm=%s, cnonce="%s", qop=auth, nc=%s`,
			header, l.user, realm, c["nonce"], uri, digest, want, cnonce, nc), nil
	}
	return "", fmt.Errorf("no %s challenge in %q", want, response.start)
}
