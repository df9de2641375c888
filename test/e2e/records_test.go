package e2e_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestRecords is what the switch tells of its calls when they are over: call records and recordings. With
// EDGVOIP_E2E_RECORDS=directory the records are kept there.
func TestRecords(t *testing.T) {
	ledger := newLedger(t)
	s := newScene(t, sceneOptions{prepare: func(_ *testing.T, s *scene) { s.records = ledger.url }})
	records(t, s, ledger)
	recordings(t, s, ledger)
	spool(t, s, ledger)
}

// ledger plays the listener for call records.
type ledger struct {
	url string

	mu     sync.Mutex
	closed bool // answers 503
	all    []record
}

// record is a call record of one leg.
type record struct {
	body []byte
	leg  string
	doc  struct {
		Variables map[string]string `json:"variables"`
		Callflow  []struct {
			Profile struct {
				Destination string          `json:"destination_number"`
				Originator  json.RawMessage `json:"originator"`
			} `json:"caller_profile"`
		} `json:"callflow"`
	}
}

func (r record) get(variable string) string { return r.doc.Variables[variable] }

// called tells whether it is the record of a leg that the switch placed.
func (r record) called() bool { return r.get("direction") == "outbound" }

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.url = "http://" + listener.Addr().String() + "/cdr"
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		user, password, _ := q.BasicAuth()
		body, err := io.ReadAll(q.Body)
		r := record{body: body, leg: q.URL.Query().Get("uuid")}
		switch {
		case user != "switch" || password != cdrPassword:
			http.Error(w, "credentials", http.StatusUnauthorized)
		case err != nil || q.Header.Get("Content-Type") != "application/json" || json.Unmarshal(body, &r.doc) != nil:
			http.Error(w, "not a record", http.StatusBadRequest)
		case !l.add(r):
			http.Error(w, "closed", http.StatusServiceUnavailable)
		}
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })
	return l
}

func (l *ledger) add(r record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.all = append(l.all, r)
	}
	return !l.closed
}

func (l *ledger) close(closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = closed
}

// take returns the records that came since the last time, the calling legs first.
func (l *ledger) take() []record {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	slices.SortStableFunc(all, func(a, b record) int { return cmp.Compare(a.get("direction"), b.get("direction")) })
	return all
}

// count counts the records that have come.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.all)
}

// expectRecords waits for the records of calls that are over, and returns them, the calling legs first. A record is
// posted before its channel is gone, so once the switch is idle there are no more.
func (s *scene) expectRecords(t *testing.T, l *ledger, legs int) []record {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); l.count() < legs && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	s.idle(t)
	all := l.take()
	if dir := os.Getenv("EDGVOIP_E2E_RECORDS"); dir != "" {
		_, name, _ := strings.Cut(t.Name(), "/")
		keep(t, dir, regexp.MustCompile("[^A-Za-z0-9]+").ReplaceAllString(strings.ToLower(name), "-"), all)
	}
	if len(all) != legs {
		for _, r := range all {
			t.Logf("%s %s %s to %s: %s", r.leg, r.get("direction"), r.get("edgvoip_route"), r.get("sip_to_user"), r.get("hangup_cause"))
		}
		t.Fatalf("%d records, want %d", len(all), legs)
	}
	return all
}

// keep writes records to a directory. Paths of the scene become those of an installation.
func keep(t *testing.T, dir, name string, all []record) {
	t.Helper()
	scene := regexp.MustCompile(`/[^ "=]*/edgvoip-e2e-[0-9]+/switch/recordings`)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		side := "a"
		if r.called() {
			side = "b"
		}
		file := filepath.Join(dir, fmt.Sprintf("%s-%d%s.json", name, i+1, side))
		body := scene.ReplaceAll(r.body, []byte("/var/lib/freeswitch/recordings"))
		body = bytes.ReplaceAll(body, []byte(`"`+host+`"`), []byte(`"pbx1"`))
		if err := os.WriteFile(file, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// want fails unless a record has these variables; an empty value means that it has none of the name.
func (r record) want(t *testing.T, variables map[string]string) {
	t.Helper()
	for name, value := range variables {
		if got := r.get(name); got != value {
			t.Errorf("%s of %s (%s) is %q, want %q", name, r.leg, r.get("direction"), got, value)
		}
	}
}

// id returns the id of something of tenant A.
func (s *scene) id(t *testing.T, query, arg string) string {
	t.Helper()
	var id string
	if err := s.db.QueryRowContext(t.Context(), query, tenantA, arg).Scan(&id); err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *scene) extensionID(t *testing.T, number string) string {
	t.Helper()
	return s.id(t, `SELECT e.id FROM edgvoip.sip_extensions e JOIN edgvoip.tenants n ON n.id = e.tenant_id WHERE n.slug = $1 AND e.extension = $2`, number)
}

func records(t *testing.T, s *scene, l *ledger) {
	t.Helper()
	tenant := s.id(t, `SELECT id FROM edgvoip.tenants WHERE slug = $1 AND $2 = ''`, "")
	first, second := s.trunk(t, tenantA, 1).String(), s.trunk(t, tenantA, 2).String()
	caller := s.extensionID(t, "1001")
	t.Run("internal call", func(t *testing.T) {
		s.begin(t)
		a, b := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		c := a.dial(t, "1002")
		talking(t, c, b.expectCall(t))
		c.hangup(t)
		all := s.expectRecords(t, l, 2)
		all[0].want(t, map[string]string{
			"edgvoip_tenant_id": tenant, "edgvoip_route": "extension", "edgvoip_direction": "internal", "edgvoip_caller_id": caller,
			"edgvoip_callee_id": s.extensionID(t, "1002"), "edgvoip_trunk_id": "", "edgvoip_reason": "", "edgvoip_recording": "",
		})
		all[1].want(t, map[string]string{
			"edgvoip_tenant_id": tenant, "edgvoip_direction": "internal", "edgvoip_extension_id": s.extensionID(t, "1002"),
		})
	})
	t.Run("call from a carrier", func(t *testing.T) {
		s.begin(t)
		target, carrier := s.phoneA(t, "1000"), newPhone(t, s.external, login{})
		c := carrier.dial(t, "0612345678", asCarrier)
		talking(t, c, target.expectCall(t))
		c.hangup(t)
		all := s.expectRecords(t, l, 2)
		all[0].want(t, map[string]string{
			"edgvoip_tenant_id": tenant, "edgvoip_route": "extension", "edgvoip_direction": "inbound", "edgvoip_caller_id": "",
			"edgvoip_callee_id": s.extensionID(t, "1000"), "edgvoip_trunk_id": first, "edgvoip_did": "+390612345678",
		})
		all[1].want(t, map[string]string{"edgvoip_tenant_id": tenant, "edgvoip_direction": "inbound"})
	})
	t.Run("call out over the second trunk", func(t *testing.T) {
		s.begin(t)
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t)
		c := a.dial(t, "+390255551234")
		talking(t, c, carrier.expectCall(t))
		c.hangup(t)
		all := s.expectRecords(t, l, 3)
		all[0].want(t, map[string]string{
			"edgvoip_tenant_id": tenant, "edgvoip_route": "public", "edgvoip_direction": "outbound", "edgvoip_caller_id": caller,
			"edgvoip_trunk_id": second,
		})
		all[1].want(t, map[string]string{"edgvoip_tenant_id": tenant, "edgvoip_direction": "outbound", "edgvoip_trunk_id": first})
		all[2].want(t, map[string]string{"edgvoip_tenant_id": tenant, "edgvoip_direction": "outbound", "edgvoip_trunk_id": second})
	})
	t.Run("refused call of an extension", func(t *testing.T) {
		s.begin(t)
		expectStatus(t, s.phoneA(t, "1001").dial(t, "7777"), 404)
		s.expectRecords(t, l, 1)[0].want(t, map[string]string{
			"edgvoip_tenant_id": tenant, "edgvoip_route": "refused", "edgvoip_reason": "neither an extension nor a public number",
			"edgvoip_direction": "internal", "edgvoip_caller_id": caller,
		})
	})
	t.Run("refused call of a carrier", func(t *testing.T) {
		s.begin(t)
		expectStatus(t, newPhone(t, s.external, login{}).dial(t, "0699999999", asCarrier), 404)
		s.expectRecords(t, l, 1)[0].want(t, map[string]string{
			"edgvoip_tenant_id": "", "edgvoip_route": "refused", "edgvoip_reason": "no DID of a trunk from this address", "edgvoip_direction": "inbound",
		})
	})
	t.Run("a call of nobody leaves no record", func(t *testing.T) {
		s.begin(t)
		expectStatus(t, newPhone(t, s.external, login{}, from("127.0.0.2")).dial(t, "0612345678", asCarrier), 403)
		s.expectRecords(t, l, 0)
	})
	t.Run("busy", func(t *testing.T) {
		s.begin(t)
		s.phoneA(t, "1002", answering(486))
		expectStatus(t, s.phoneA(t, "1001").dial(t, "1002"), 486)
		s.expectRecords(t, l, 2)[0].want(t, map[string]string{"hangup_cause": "USER_BUSY", "edgvoip_caller_id": caller})
	})
	t.Run("nobody registered", func(t *testing.T) {
		s.begin(t)
		expectStatus(t, s.phoneA(t, "1001").dial(t, "1005"), 480)
		s.expectRecords(t, l, 1)[0].want(t, map[string]string{"hangup_cause": "USER_NOT_REGISTERED", "edgvoip_caller_id": caller})
	})
	t.Run("cancelled", func(t *testing.T) {
		s.begin(t)
		b := s.phoneA(t, "1002", answering(180))
		c := s.phoneA(t, "1001").dialRinging(t, "1002")
		b.expectCall(t)
		c.cancel(t)
		s.expectRecords(t, l, 2)[0].want(t, map[string]string{"hangup_cause": "ORIGINATOR_CANCEL", "edgvoip_caller_id": caller})
	})
	t.Run("unanswered", func(t *testing.T) {
		s.begin(t)
		if os.Getenv("EDGVOIP_E2E_RECORDS") == "" {
			t.Skip("it rings for a minute: with EDGVOIP_E2E_RECORDS only")
		}
		b := s.phoneA(t, "1002", answering(180))
		c := s.phoneA(t, "1001").dialRinging(t, "1002")
		b.expectCall(t)
		if final := c.final(t, 70*time.Second); final.status() != 480 {
			t.Errorf("answered %q", final.start)
		}
		s.expectRecords(t, l, 2)[0].want(t, map[string]string{"hangup_cause": "NO_ANSWER", "edgvoip_caller_id": caller})
	})
	t.Run("blind transfer", func(t *testing.T) {
		s.begin(t)
		carrier, target, b := newPhone(t, s.external, login{}), s.phoneA(t, "1000"), s.phoneA(t, "1002")
		in := carrier.dial(t, "0612345678", asCarrier)
		there := target.expectCall(t)
		talking(t, in, there)
		there.refer(t, "sip:1002@"+realmA)
		last := b.expectCall(t)
		talking(t, in, last)
		in.hangup(t)
		all := s.expectRecords(t, l, 3)
		all[0].want(t, map[string]string{
			"edgvoip_tenant_id": tenant, "edgvoip_direction": "inbound", "edgvoip_trunk_id": first, "edgvoip_callee_id": s.extensionID(t, "1002"),
			"edgvoip_did": "+390612345678",
		})
		for _, r := range all[1:] {
			r.want(t, map[string]string{"edgvoip_tenant_id": tenant, "edgvoip_direction": "inbound"})
		}
	})
	t.Run("attended transfer", func(t *testing.T) {
		s.begin(t)
		attended(t, s, newPhone(t, s.external, login{}))
		for _, r := range s.expectRecords(t, l, 4) {
			r.want(t, map[string]string{"edgvoip_tenant_id": tenant})
		}
	})
}

// attended is a call from a carrier that 1000 takes, asks 1002 about, and hands over.
func attended(t *testing.T, s *scene, carrier *phone) {
	t.Helper()
	target, b := s.phoneA(t, "1000"), s.phoneA(t, "1002")
	in := carrier.dial(t, "0612345678", asCarrier)
	there := target.expectCall(t)
	talking(t, in, there)
	question := target.dial(t, "1002")
	last := b.expectCall(t)
	talking(t, question, last)
	replaces := url.QueryEscape(question.id + ";to-tag=" + question.remoteTag + ";from-tag=" + question.localTag)
	if r := there.refer(t, "sip:1002@"+realmA+"?Replaces="+replaces); r.status() != 202 {
		t.Fatalf("REFER answered %q", r.start)
	}
	in.media.hears(t, b.mark, 50)
	last.media.hears(t, carrier.mark, 50)
	in.hangup(t)
}

func recordings(t *testing.T, s *scene, l *ledger) {
	t.Helper()
	const policy = `UPDATE edgvoip.tenants SET record_calls = $2 WHERE slug = $1`
	// recorded returns the files of records that name one, by the channel that each is called after.
	file := func(t *testing.T, all []record) string {
		t.Helper()
		path := all[0].get("edgvoip_recording")
		shape := regexp.MustCompile(`^[0-9a-f-]{36}/` + time.Now().UTC().Format("2006/01/02") + `/[0-9a-f-]{36}\.wav$`)
		if !shape.MatchString(path) {
			t.Fatalf("recording %q", path)
		}
		info, err := os.Stat(filepath.Join(s.recordings(), path))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() < 8000 {
			t.Errorf("recording has %d bytes", info.Size())
		}
		for _, r := range all {
			if got := r.get("edgvoip_recording"); got != path {
				t.Errorf("%s leg %s names %q, the first %q", r.get("direction"), r.leg, got, path)
			}
		}
		return path
	}
	count := func(t *testing.T) (n int) {
		t.Helper()
		err := filepath.WalkDir(s.recordings(), func(_ string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				n++
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	s.change(t, policy, []any{tenantA, "external"}, []any{tenantA, "none"})
	t.Run("recorded call from a carrier", func(t *testing.T) {
		s.begin(t)
		target, carrier := s.phoneA(t, "1000"), newPhone(t, s.external, login{})
		c := carrier.dial(t, "0612345678", asCarrier)
		conversing(t, c, target.expectCall(t))
		c.hangup(t)
		all := s.expectRecords(t, l, 2)
		if path := file(t, all); !strings.Contains(path, all[0].leg) {
			t.Errorf("recording of %s is %s", all[0].leg, path)
		}
	})
	t.Run("recorded call out", func(t *testing.T) {
		s.begin(t)
		a, carrier := s.phoneA(t, "1001"), s.carrierPhone(t)
		c := a.dial(t, "+390255551234")
		conversing(t, c, carrier.expectCall(t))
		c.hangup(t)
		file(t, s.expectRecords(t, l, 3))
	})
	t.Run("a call that is not answered has no recording", func(t *testing.T) {
		s.begin(t)
		before := count(t)
		s.carrierPhone(t, answering(486))
		expectStatus(t, s.phoneA(t, "1001").dial(t, "+390255551234"), 486)
		s.expectRecords(t, l, 3)
		if n := count(t); n != before {
			t.Errorf("%d new recordings", n-before)
		}
	})
	t.Run("an internal call is not recorded when only those with carriers are", func(t *testing.T) {
		s.begin(t)
		before := count(t)
		b := s.phoneA(t, "1002")
		c := s.phoneA(t, "1001").dial(t, "1002")
		talking(t, c, b.expectCall(t))
		c.hangup(t)
		s.expectRecords(t, l, 2)[0].want(t, map[string]string{"edgvoip_recording": ""})
		if n := count(t); n != before {
			t.Errorf("%d new recordings", n-before)
		}
	})
	t.Run("a call that its caller transfers is one recording", func(t *testing.T) {
		s.begin(t)
		before := count(t)
		a, b, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.carrierPhone(t)
		first := a.dial(t, "+390255551234")
		out := carrier.expectCall(t)
		talking(t, first, out)
		first.refer(t, "sip:1002@"+realmA)
		conversing(t, out, b.expectCall(t))
		out.hangup(t)
		file(t, s.expectRecords(t, l, 4))
		if n := count(t); n != before+1 {
			t.Errorf("%d new recordings", n-before)
		}
	})
	t.Run("recorded attended transfer", func(t *testing.T) {
		s.begin(t)
		attended(t, s, newPhone(t, s.external, login{}))
		s.expectRecords(t, l, 4)
	})
}

// conversing waits until both sides have said enough for a recording of some length.
func conversing(t *testing.T, a, b *call) {
	t.Helper()
	a.media.hears(t, b.p.mark, 60)
	b.media.hears(t, a.p.mark, 60)
}

// last tells whether the last answer about a call holds a text.
func (r *recorder) last(text string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range slices.Backward(r.all) {
		if strings.Contains(l.answer, `section name="dialplan"`) {
			return strings.Contains(l.answer, text)
		}
	}
	return false
}

func spool(t *testing.T, s *scene, l *ledger) {
	t.Helper()
	t.Run("a record that nobody takes is written down", func(t *testing.T) {
		s.begin(t)
		l.take()
		l.close(true)
		defer l.close(false)
		expectStatus(t, s.phoneA(t, "1001").dial(t, "7777"), 404)
		s.expectRecords(t, l, 0)
		var files []string
		eventually(t, 10*time.Second, func() (err error) {
			files, err = filepath.Glob(filepath.Join(s.dir, "switch", "storage", "cdr-spool", "*.cdr.json"))
			if err == nil && len(files) != 1 {
				err = fmt.Errorf("spooled: %q", files)
			}
			return err
		})
		var r record
		body, err := os.ReadFile(files[0])
		if err == nil {
			err = json.Unmarshal(body, &r.doc)
		}
		if err != nil || r.get("edgvoip_route") != "refused" {
			t.Errorf("%v\n%s", err, body)
		}
	})
}

// ringing is a call of a phone that is not answered yet.
type ringing struct {
	p       *phone
	invite  *message
	answers chan *message
}

// dialRinging calls a number and returns when it rings.
func (p *phone) dialRinging(t *testing.T, number string) *ringing {
	t.Helper()
	uri := "sip:" + number + "@" + p.login.realm
	r := request{
		method: "INVITE", uri: uri, from: p.aor(), to: "<" + uri + ">", contact: p.contact(), body: newMedia(t, p.mark, p.secure, p.codecs...).offer(), mute: true,
	}
	cseq := 0
	d := dialog{token(), token(), &cseq}
	challenge, invite := p.exchange(t, r, d)
	authorization, err := p.login.authorization(challenge, r.method, uri)
	if err != nil {
		t.Fatal(err)
	}
	m := &message{start: invite.start, body: invite.body}
	for _, line := range invite.lines {
		switch {
		case strings.HasPrefix(line, "Via:"):
			line = fmt.Sprintf("Via: SIP/2.0/%s %s;branch=z9hG4bK%s;rport", p.transport, p.local, token())
		case strings.HasPrefix(line, "CSeq:"):
			line = fmt.Sprintf("CSeq: %d INVITE\r\n%s", cseq+1, authorization)
		}
		m.lines = append(m.lines, line)
	}
	c := &ringing{p: p, invite: m, answers: make(chan *message, 32)}
	p.mu.Lock()
	p.waiting[m.branch()] = c.answers
	p.mu.Unlock()
	p.write(m)
	c.await(t, answerTime, func(r *message) bool { return r.status() == 180 || r.status() == 183 })
	return c
}

// await returns the first answer to the INVITE that is wanted. After a final one there is no other.
func (c *ringing) await(t *testing.T, limit time.Duration, wanted func(*message) bool) *message {
	t.Helper()
	deadline := time.After(limit)
	var others []string
	for {
		select {
		case r := <-c.answers:
			switch {
			case r.method() != "INVITE":
			case wanted(r):
				return r
			case r.status() >= 200:
				t.Fatalf("%s answered %q", c.invite.start, r.start)
			default:
				others = append(others, r.start)
			}
		case <-deadline:
			t.Fatalf("no such answer to %q of Call-ID %s in %v, but %q", c.invite.start, c.invite.get("Call-ID"), limit, others)
		}
	}
}

// final waits for the final answer.
func (c *ringing) final(t *testing.T, limit time.Duration) *message {
	t.Helper()
	r := c.await(t, limit, func(r *message) bool { return r.status() >= 200 })
	c.p.write(ackFor(c.invite, r))
	return r
}

// cancel gives up and waits until the switch has understood.
func (c *ringing) cancel(t *testing.T) {
	t.Helper()
	cancel := &message{start: strings.Replace(c.invite.start, "INVITE", "CANCEL", 1)}
	for _, line := range c.invite.lines {
		if name, _, _ := strings.Cut(line, ":"); slices.Contains([]string{"Via", "Max-Forwards", "From", "To", "Call-ID"}, name) {
			cancel.lines = append(cancel.lines, line)
		}
	}
	cseq, _, _ := strings.Cut(c.invite.get("CSeq"), " ")
	cancel.lines = append(cancel.lines, "CSeq: "+cseq+" CANCEL", "Content-Length: 0")
	c.p.write(cancel)
	if r := c.final(t, answerTime); r.status() != 487 {
		t.Errorf("cancelled call answered %q", r.start)
	}
}
