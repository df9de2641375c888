package e2e_test

import (
	"crypto/md5" // what SIP digest is made of
	"encoding/hex"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
)

// registrar is the part of a carrier at which the switch registers, and which it asks whether it is there.
type registrar struct {
	user, realm string

	mu       sync.Mutex
	password string
	refusal  int      // status of every answer to OPTIONS, if not 0
	events   []string // "registered", "unregistered", "refused", "asked", in order
}

func withRegistrar(r *registrar) phoneOption {
	return func(p *phone, _ *net.UDPAddr) { p.registrar = r }
}

// set changes the password that counts.
func (r *registrar) set(password string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.password = password
}

func (r *registrar) refuse(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refusal = status
}

// take returns what happened since the last time.
func (r *registrar) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

const registrarNonce = "5f1e2d3c4b5a69788796a5b4c3d2e1f0"

// answer answers REGISTER as a registrar with digest authentication does (RFC 2617 without qop), and OPTIONS.
func (r *registrar) answer(p *phone, m *message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch authorization := m.get("Authorization"); {
	case m.method() == "OPTIONS":
		r.events = append(r.events, "asked")
		p.reply(m, max(r.refusal, 200), token(), "")
	case authorization == "":
		r.challenge(p, m)
	case !r.correct(authorization):
		r.events = append(r.events, "refused")
		p.reply(m, 403, token(), "")
	case m.get("Expires") == "0" || strings.Contains(m.get("Contact"), "expires=0"):
		r.events = append(r.events, "unregistered")
		p.reply(m, 200, token(), "")
	default:
		r.events = append(r.events, "registered")
		p.reply(m, 200, token(), "")
	}
}

func (r *registrar) challenge(p *phone, m *message) {
	answer := &message{start: "SIP/2.0 401 Unauthorized"}
	for _, name := range []string{"Via", "From", "Call-ID", "CSeq"} {
		for _, v := range m.all(name) {
			answer.lines = append(answer.lines, name+": "+v)
		}
	}
	answer.lines = append(answer.lines, "To: "+m.get("To")+";tag="+token(),
		fmt.Sprintf("WWW-Authenticate: Digest realm=%q, nonce=%q, algorithm=MD5", r.realm, registrarNonce), "Content-Length: 0")
	p.write(answer)
}

var digestResponse, digestURI, digestUser = regexp.MustCompile(`response="([0-9a-f]{32})"`), regexp.MustCompile(`uri="([^"]*)"`), regexp.MustCompile(`username="([^"]*)"`)

func (r *registrar) correct(authorization string) bool {
	part := func(e *regexp.Regexp) string {
		if found := e.FindStringSubmatch(authorization); found != nil {
			return found[1]
		}
		return ""
	}
	a1 := sum(r.user + ":" + r.realm + ":" + r.password)
	return part(digestUser) == r.user && part(digestResponse) == sum(a1+":"+registrarNonce+":"+sum("REGISTER:"+part(digestURI)))
}

func sum(s string) string {
	m := md5.Sum([]byte(s))
	return hex.EncodeToString(m[:])
}
