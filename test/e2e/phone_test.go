package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// answerTime is how long the switch may take to answer a request for good. A trunk that does not answer takes ten
// seconds.
const answerTime = 25 * time.Second

// phone is a SIP endpoint on a socket of its own: a telephone, or with no login a carrier or a stranger.
type phone struct {
	t         *testing.T
	login     login
	transport string // UDP, TCP or TLS
	server    string // host and port of the switch
	conn      net.Conn
	local     string  // host and port
	secure    bool    // offers SRTP
	mark      byte    // fills its audio
	hz        float64 // the tone that it plays instead; zero means none
	codecs    []codec
	callID    string // of its registrations
	cseq      int

	reading sync.WaitGroup
	writing sync.Mutex
	mu      sync.Mutex
	waiting map[string]chan *message // by branch
	calls   map[string]*call         // by Call-ID
	rings   chan *call
	// answer is how it treats calls: a status of 200 answers, others refuse; 180 rings for ever; 302 sends them to
	// redirect.
	answer   int
	redirect string // under mu
	// challenges makes a refusal with 401 or 407 ask for credentials; those that come are wrong.
	challenges bool
	// registrar answers REGISTER and OPTIONS; without one every one is answered with 200.
	registrar *registrar
}

// phoneOption changes a phone before it is used.
type phoneOption func(*phone, *net.UDPAddr)

func over(transport string) phoneOption {
	return func(p *phone, _ *net.UDPAddr) { p.transport = transport }
}

func answering(status int) phoneOption { return func(p *phone, _ *net.UDPAddr) { p.answer = status } }

func challenging(status int) phoneOption {
	return func(p *phone, _ *net.UDPAddr) { p.answer, p.challenges = status, true }
}

func from(ip string) phoneOption { return func(_ *phone, a *net.UDPAddr) { a.IP = net.ParseIP(ip) } }

func onPort(port int) phoneOption { return func(_ *phone, a *net.UDPAddr) { a.Port = port } }

func withCodecs(c ...codec) phoneOption { return func(p *phone, _ *net.UDPAddr) { p.codecs = c } }

// playing makes its audio a tone, for those who hear audio and not packets; it is for PCMU.
func playing(hz float64) phoneOption { return func(p *phone, _ *net.UDPAddr) { p.hz = hz } }

func withSRTP() phoneOption { return func(p *phone, _ *net.UDPAddr) { p.secure = true } }

func withAlgorithm(name string) phoneOption {
	return func(p *phone, _ *net.UDPAddr) { p.login.algorithm = name }
}

var marks = struct {
	sync.Mutex
	next byte
}{next: 0x21}

// newPhone opens a phone towards a port of the switch.
func newPhone(t *testing.T, port int, l login, options ...phoneOption) *phone {
	t.Helper()
	marks.Lock()
	marks.next++
	if marks.next >= 0x70 {
		marks.next = 0x21
	}
	p := &phone{
		t: t, login: l, transport: "UDP", server: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), mark: marks.next,
		callID: token(), waiting: map[string]chan *message{}, calls: map[string]*call{}, rings: make(chan *call, 64), answer: 200,
	}
	marks.Unlock()
	local := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	for _, o := range options {
		o(p, local)
	}
	var err error
	switch p.transport {
	case "UDP":
		var server *net.UDPAddr
		if server, err = net.ResolveUDPAddr("udp4", p.server); err == nil {
			var conn *net.UDPConn
			if conn, err = net.ListenUDP("udp4", local); err == nil {
				p.conn = &datagrams{conn, server}
			}
		}
	case "TCP":
		p.conn, err = (&net.Dialer{}).DialContext(t.Context(), "tcp4", p.server)
	case "TLS":
		// The certificate is the scene's own; what is tested here is the switch, not the phone's trust.
		p.conn, err = (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp4", p.server)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.local = p.conn.LocalAddr().String()
	p.reading.Go(p.read)
	t.Cleanup(p.close)
	return p
}

// redirectTo changes where a phone that redirects sends its calls.
func (p *phone) redirectTo(uri string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.redirect = uri
}

func (p *phone) close() {
	p.conn.Close()
	p.reading.Wait()
}

// datagrams makes an unconnected socket look connected: an ICMP error must not close it.
type datagrams struct {
	*net.UDPConn
	peer *net.UDPAddr
}

func (d *datagrams) Write(b []byte) (int, error) { return d.WriteToUDP(b, d.peer) }

func (p *phone) read() {
	if p.transport != "UDP" {
		r := bufio.NewReader(p.conn)
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			p.receive(m)
		}
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := p.conn.Read(buf)
		if err != nil {
			return
		}
		if m, err := readMessage(bufio.NewReader(bytes.NewReader(buf[:n]))); err == nil {
			p.receive(m)
		}
	}
}

func (p *phone) write(m *message) {
	p.writing.Lock()
	defer p.writing.Unlock()
	// A write that fails shows as a request that is never answered.
	_, _ = p.conn.Write(m.bytes())
}

func token() string {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		panic(err)
	}
	return hex.EncodeToString(b)
}

// receive is called for every message that arrives.
func (p *phone) receive(m *message) {
	if m.status() != 0 {
		p.mu.Lock()
		w, c := p.waiting[m.branch()], p.calls[m.get("Call-ID")]
		p.mu.Unlock()
		if w != nil {
			select {
			case w <- m:
			default: // repetitions that nobody waits for any more
			}
		} else if c != nil && m.method() == "INVITE" && m.status() >= 200 && m.status() < 300 {
			c.ack(m) // the switch did not get our ACK and repeats its answer
		}
		return
	}
	p.mu.Lock()
	c := p.calls[m.get("Call-ID")]
	p.mu.Unlock()
	switch m.method() {
	case "ACK":
	case "INVITE":
		switch {
		case c == nil, p.challenges && m.get("CSeq") != c.invite.get("CSeq"):
			p.ring(m)
		case tagOf(m.get("To")) != "" && c.media != nil: // a re-INVITE
			p.reply(m, 200, c.localTag, c.media.offer())
		}
	case "BYE":
		p.reply(m, 200, "", "")
		if c != nil {
			c.end()
		}
	case "CANCEL":
		p.reply(m, 200, "", "")
		if c != nil {
			p.reply(c.invite, 487, c.localTag, "")
			c.end()
		}
	case "NOTIFY":
		p.reply(m, 200, "", "")
		if c != nil && strings.HasPrefix(m.body, "SIP/2.0") {
			select {
			case c.notified <- strings.TrimSpace(m.body):
			default:
			}
		}
	case "REGISTER", "OPTIONS":
		if p.registrar != nil {
			p.registrar.answer(p, m)
			return
		}
		p.reply(m, 200, "", "")
	default:
		p.reply(m, 200, "", "")
	}
}

// ring takes an incoming call.
func (p *phone) ring(invite *message) {
	c := p.newCall(invite.get("Call-ID"))
	c.invite, c.localTag, c.remoteTag = invite, token(), tagOf(invite.get("From"))
	c.local, c.remote, c.target = invite.get("To"), invite.get("From"), uriOf(invite.get("Contact"))
	p.mu.Lock()
	p.calls[c.id] = c
	p.mu.Unlock()
	p.reply(invite, 100, "", "")
	switch p.answer {
	case 200:
		p.reply(invite, 180, c.localTag, "")
		c.media = p.newMedia(p.t)
		p.reply(invite, 200, c.localTag, c.media.offer())
		c.media.start(p.t, invite.body)
	default:
		p.reply(invite, p.answer, c.localTag, "")
	}
	p.rings <- c
}

// reply answers a request. With a body it is an answer that offers or accepts media.
func (p *phone) reply(m *message, status int, tag, body string) {
	r := &message{start: fmt.Sprintf("SIP/2.0 %d Test", status), body: body}
	for _, name := range []string{"Via", "From", "To", "Call-ID", "CSeq", "Record-Route"} {
		for _, v := range m.all(name) {
			if name == "To" && tag != "" && tagOf(v) == "" {
				v += ";tag=" + tag
			}
			r.lines = append(r.lines, name+": "+v)
		}
	}
	if status == 302 {
		p.mu.Lock()
		r.lines = append(r.lines, "Contact: <"+p.redirect+">")
		p.mu.Unlock()
	} else {
		r.lines = append(r.lines, "Contact: "+p.contact())
	}
	if header := map[int]string{401: "WWW-Authenticate", 407: "Proxy-Authenticate"}[status]; header != "" && p.challenges {
		r.lines = append(r.lines, header+`: Digest realm="carrier.example", nonce="`+token()+`", algorithm=MD5`)
	}
	if body != "" {
		r.lines = append(r.lines, "Content-Type: application/sdp")
	}
	r.lines = append(r.lines, "Content-Length: "+strconv.Itoa(len(body)))
	p.write(r)
}

func (p *phone) contact() string {
	return fmt.Sprintf("<sip:%s@%s;transport=%s>", p.login.user, p.local, strings.ToLower(p.transport))
}

// request is a request to send. Empty fields are filled in with what an honest phone would send.
type request struct {
	method  string
	uri     string
	from    string // the header without its tag
	to      string
	contact string
	headers []string // whole lines
	body    string
	login   *login // instead of the phone's own
	// mute leaves a challenge unanswered.
	mute bool
}

// aor is the phone's own address.
func (p *phone) aor() string { return "<sip:" + p.login.user + "@" + p.login.realm + ">" }

// dialog identifies a request's dialog, or the one it may create.
type dialog struct {
	callID, fromTag string
	cseq            *int
}

// exchange sends a request, answers one challenge, and returns the final response with the request that brought it.
func (p *phone) exchange(t *testing.T, r request, d dialog) (response, sent *message) {
	t.Helper()
	l := p.login
	if r.login != nil {
		l = *r.login
	}
	authorization := ""
	for {
		*d.cseq++
		m := &message{start: r.method + " " + r.uri + " SIP/2.0", body: r.body}
		m.lines = append(m.lines,
			fmt.Sprintf("Via: SIP/2.0/%s %s;branch=z9hG4bK%s;rport", p.transport, p.local, token()),
			"Max-Forwards: 70",
			"From: "+r.from+";tag="+d.fromTag,
			"To: "+r.to,
			"Call-ID: "+d.callID,
			fmt.Sprintf("CSeq: %d %s", *d.cseq, r.method),
			"Contact: "+r.contact,
		)
		m.lines = append(m.lines, r.headers...)
		if authorization != "" {
			m.lines = append(m.lines, authorization)
		}
		if r.body != "" {
			m.lines = append(m.lines, "Content-Type: application/sdp")
		}
		m.lines = append(m.lines, "Content-Length: "+strconv.Itoa(len(r.body)))
		final := p.transact(t, m)
		if r.method == "INVITE" && final.status() >= 300 {
			p.write(ackFor(m, final))
		}
		if s := final.status(); s != 401 && s != 407 || authorization != "" || r.mute || l.user == "" {
			return final, m
		}
		var err error
		if authorization, err = l.authorization(final, r.method, r.uri); err != nil {
			t.Fatal(err)
		}
	}
}

// transact sends a message, again and again on UDP until there is an answer, and returns the final response.
func (p *phone) transact(t *testing.T, m *message) *message {
	t.Helper()
	answers := make(chan *message, 32)
	p.mu.Lock()
	p.waiting[m.branch()] = answers
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, m.branch())
		p.mu.Unlock()
	}()
	deadline := time.NewTimer(answerTime)
	defer deadline.Stop()
	again := time.NewTicker(500 * time.Millisecond)
	defer again.Stop()
	p.write(m)
	heard := false
	for {
		select {
		case r := <-answers:
			if r.status() >= 200 {
				return r
			}
			heard = true
		case <-again.C:
			if !heard && p.transport == "UDP" {
				p.write(m)
			}
		case <-deadline.C:
			t.Fatalf("no final answer to %q in %v", m.start, answerTime)
		}
	}
}

// ackFor acknowledges a refusal, which belongs to the transaction of the INVITE (RFC 3261, 17.1.1.3).
func ackFor(invite, response *message) *message {
	_, uri, _ := strings.Cut(invite.start, " ")
	cseq, _, _ := strings.Cut(invite.get("CSeq"), " ")
	return &message{start: "ACK " + uri, lines: []string{
		"Via: " + invite.get("Via"),
		"Max-Forwards: 70",
		"From: " + invite.get("From"),
		"To: " + response.get("To"),
		"Call-ID: " + invite.get("Call-ID"),
		"CSeq: " + cseq + " ACK",
		"Content-Length: 0",
	}}
}

// register registers the phone, or what the request says instead, and returns the final response.
func (p *phone) register(t *testing.T, changes ...func(*request)) *message {
	t.Helper()
	r := request{
		method: "REGISTER", uri: "sip:" + p.login.realm, from: p.aor(), to: p.aor(), contact: p.contact(),
		headers: []string{"Expires: 300"},
	}
	for _, change := range changes {
		change(&r)
	}
	response, _ := p.exchange(t, r, dialog{p.callID, token(), &p.cseq})
	return response
}

// registered registers a phone that is expected to succeed, and unregisters it when the test ends.
func (p *phone) registered(t *testing.T) *phone {
	t.Helper()
	if r := p.register(t); r.status() != 200 {
		t.Fatalf("%s@%s over %s: registration answered %q", p.login.user, p.login.realm, p.transport, r.start)
	}
	t.Cleanup(func() {
		p.register(t, func(r *request) { r.headers = []string{"Expires: 0"} })
	})
	return p
}

// call is one call, made or received.
type call struct {
	p                   *phone
	id                  string
	localTag, remoteTag string
	local, remote       string // addresses without tags
	target              string // where requests of the dialog go
	cseq                int
	invite              *message
	response            *message  // the final one, for a call made
	answered            time.Time // when that came
	media               *media
	ended               chan struct{}
	once                sync.Once
	notified            chan string // progress of a transfer
}

func (p *phone) newCall(id string) *call {
	return &call{p: p, id: id, ended: make(chan struct{}), notified: make(chan string, 16)}
}

// newMedia opens the audio of a call.
func (p *phone) newMedia(t *testing.T) *media {
	t.Helper()
	m := newMedia(t, p.mark, p.secure, p.codecs...)
	if p.hz != 0 {
		m.tone = &mockgateway.Tone{Hz: p.hz}
	}
	return m
}

func (c *call) end() { c.once.Do(func() { close(c.ended) }) }

// status is the final answer to a call made.
func (c *call) status() int { return c.response.status() }

// dial calls a number at the phone's own domain, or what the request says instead, and returns once the call is
// answered or refused.
func (p *phone) dial(t *testing.T, number string, changes ...func(*request)) *call {
	t.Helper()
	c := p.newCall(token())
	c.localTag = token()
	c.media = p.newMedia(t)
	host := p.login.realm
	if host == "" {
		host = p.server
	}
	uri := "sip:" + number + "@" + host
	r := request{method: "INVITE", uri: uri, from: p.aor(), to: "<" + uri + ">", contact: p.contact(), body: c.media.offer()}
	for _, change := range changes {
		change(&r)
	}
	p.mu.Lock()
	p.calls[c.id] = c
	p.mu.Unlock()
	c.response, c.invite = p.exchange(t, r, dialog{c.id, c.localTag, &c.cseq})
	c.answered = time.Now()
	c.local, c.remote = r.from, r.to
	c.remoteTag = tagOf(c.response.get("To"))
	if c.status() >= 300 {
		c.media.close()
		c.end()
		return c
	}
	c.target = uriOf(c.response.get("Contact"))
	c.ack(c.response)
	c.media.start(t, c.response.body)
	t.Cleanup(func() { c.hangup(t) })
	return c
}

// inDialog builds a request inside the call.
func (c *call) inDialog(method string, cseq int, extra ...string) *message {
	local, remote := c.local, c.remote
	if tagOf(local) == "" {
		local += ";tag=" + c.localTag
	}
	if tagOf(remote) == "" {
		remote += ";tag=" + c.remoteTag
	}
	m := &message{start: method + " " + c.target + " SIP/2.0", lines: []string{
		fmt.Sprintf("Via: SIP/2.0/%s %s;branch=z9hG4bK%s;rport", c.p.transport, c.p.local, token()),
		"Max-Forwards: 70",
		"From: " + local,
		"To: " + remote,
		"Call-ID: " + c.id,
		fmt.Sprintf("CSeq: %d %s", cseq, method),
		"Contact: " + c.p.contact(),
	}}
	m.lines = append(m.lines, extra...)
	m.lines = append(m.lines, "Content-Length: 0")
	return m
}

func (c *call) ack(response *message) {
	cseq, _, _ := strings.Cut(response.get("CSeq"), " ")
	n, _ := strconv.Atoi(cseq)
	c.p.write(c.inDialog("ACK", n))
}

// hangup ends the call if it is up.
func (c *call) hangup(t *testing.T) {
	t.Helper()
	select {
	case <-c.ended:
		return
	default:
	}
	c.cseq++
	c.p.transact(t, c.inDialog("BYE", c.cseq))
	c.end()
}

// refer asks the switch to send the other side elsewhere, and returns the answer to the request.
func (c *call) refer(t *testing.T, uri string) *message {
	t.Helper()
	c.cseq++
	return c.p.transact(t, c.inDialog("REFER", c.cseq, "Refer-To: <"+uri+">", "Referred-By: "+c.p.aor()))
}

// expectNotified waits until the phone is told this of a transfer that it asked for.
func (c *call) expectNotified(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(answerTime)
	for {
		select {
		case got := <-c.notified:
			if got == want {
				return
			}
		case <-deadline:
			t.Fatalf("the phone was not told %q of its transfer", want)
		}
	}
}

// expectCall waits for a call to the phone.
func (p *phone) expectCall(t *testing.T) *call {
	t.Helper()
	select {
	case c := <-p.rings:
		return c
	case <-time.After(answerTime):
		t.Fatalf("%s was not called", p.login.user)
		return nil
	}
}

// expectSilence fails if the phone was called. It is for use after the call in question was answered or refused.
func (p *phone) expectSilence(t *testing.T) {
	t.Helper()
	select {
	case c := <-p.rings:
		t.Fatalf("%s was called:\n%s", p.login.user, c.invite.bytes())
	default:
	}
}

// eventually waits until a condition holds: polling, because what is waited for is inside the switch.
func eventually(t *testing.T, limit time.Duration, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(25 * time.Millisecond)
	}
}
