package e2e_test

import (
	"encoding/csv"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
)

// account is what those who took part in a call say of it, and so what its record must say.
type account struct {
	kind          string
	callID        string // SIP's
	tenant        string
	from, to      string
	direction     cdr.Direction
	disposition   cdr.Disposition
	answeredBy    string
	transferredTo string
	route, reason string
	// talked is how long the caller's phone had the call.
	talked   time.Duration
	recorded bool
	// handed tells that the call went on after its own end, so that W3 may hear of it once more.
	handed bool
}

// shift is a number of calls of which account is kept.
type shift struct {
	s      *scene
	begun  time.Time
	bridge int // port of ai-bridge
	lines  lines

	accounts []account
	// counted are calls that SIPp made, by the beginning of their Call-IDs and by disposition.
	counted map[string]map[cdr.Disposition]int
	// strangers is how many calls were refused that belong to no tenant.
	strangers int
}

// lines are the ports of the carriers of the calls.
type lines struct{ direct, busy int }

// The numbers of the calls' trunks: with an agent, and with an agent that never works.
const (
	agentDID, nightDID = "0612345801", "0612345901"
	didE164            = "+390612345678"
	outNumber          = "+390255551234" // over the second trunk, as the first is down
	directNumber       = "+442079460123"
	busyNumber         = "+33142685300"
)

// addTrunks adds what the calls need: a carrier for British numbers, one that is always busy for French ones, and two
// trunks with agents.
func (l *lines) addTrunks(t *testing.T, s *scene) {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	l.direct, l.busy = freePort(t), freePort(t)
	never := filepath.Join(s.dir, "never.json")
	if err := os.WriteFile(never, []byte(`{"mode":"never"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	trunk := func(name string, port int, args ...string) {
		t.Helper()
		s.run(t, bin, append([]string{
			"trunk", "create", tenantA, "-name", name, "-host", "127.0.0.1", "-port", strconv.Itoa(port),
			"-caller-id-number", "+390612345600", "-ai-failover-extension", "1000",
		}, args...)...)
	}
	trunk("Direct", l.direct, "-prefixes", "44", "-priority", "1")
	trunk("Busy", l.busy, "-prefixes", "33", "-priority", "2")
	trunk("Agent", freePort(t), "-prefixes", "881", "-did-ranges", "0612345800-0612345899", "-ai-agent-ref", "reception")
	trunk("Night", freePort(t), "-prefixes", "882", "-did-ranges", "0612345900-0612345999", "-ai-agent-ref", "reception", "-ai-time-policy-file", never)
	s.run(t, bin, "tenant", "set", tenantB, "-record-calls", "external")
}

// desk is the phones of a shift: those of tenant A, its carriers and tenant B's.
type desk struct {
	a, b, target, ringing, busy, absent *phone
	outside, second, direct             *phone
	targetB, callerB                    *phone
}

func (r *shift) openDesk(t *testing.T) *desk {
	t.Helper()
	s := r.s
	carrier := func(port int, options ...phoneOption) *phone {
		return newPhone(t, s.external, login{}, append(options, onPort(port))...)
	}
	carrier(r.lines.busy, answering(486))
	return &desk{
		a: s.phoneA(t, "1001"), b: s.phoneA(t, "1002"), target: s.phoneA(t, "1000"), ringing: s.phoneA(t, "1003", answering(180)),
		busy: s.phoneA(t, "1004", answering(486)), absent: newPhone(t, s.internal, user("1005", realmA)),
		outside: newPhone(t, s.external, login{}), second: s.carrierPhone(t), direct: carrier(r.lines.direct),
		targetB: newPhone(t, s.internal, user("1000", realmB)).registered(t), callerB: newPhone(t, s.internal, user("1001", realmB)).registered(t),
	}
}

// add keeps account of a call. What is not said is that of a call of tenant A that nobody answers.
func (r *shift) add(a account) {
	if a.tenant == "" {
		a.tenant = tenantA
	}
	r.accounts = append(r.accounts, a)
}

// talk lets the two sides of a call hear each other, has one of them end it, and returns how long the caller had it.
func (r *shift) talk(t *testing.T, c, there *call, packets int, ends *call) time.Duration {
	t.Helper()
	expectStatus(t, c, 200)
	c.media.hears(t, there.p.mark, packets)
	there.media.hears(t, c.p.mark, packets)
	ends.hangup(t)
	expectEnd(t, c)
	talked := time.Since(c.answered)
	expectEnd(t, there)
	r.s.idle(t)
	return talked
}

// refused is a call that is answered with a status at once.
func (r *shift) refused(t *testing.T, p *phone, number string, status int, a account) {
	t.Helper()
	c := p.dial(t, number)
	expectStatus(t, c, status)
	r.s.idle(t)
	a.callID, a.from, a.to = c.id, p.login.user, number
	r.add(a)
}

// placeCalls makes calls of all kinds.
func (r *shift) placeCalls(t *testing.T) {
	t.Helper()
	d := r.openDesk(t)
	r.internal(t, d)
	r.unanswered(t, d)
	r.inbound(t, d)
	r.outbound(t, d)
	r.transferred(t, d)
	r.agents(t, d)
	r.recorded(t, d)
}

func (r *shift) internal(t *testing.T, d *desk) {
	t.Helper()
	for i := range 12 {
		c := d.a.dial(t, "1002")
		there := d.b.expectCall(t)
		ends := []*call{c, there}[i%2]
		talked := r.talk(t, c, there, 5+40*(i%3), ends)
		r.add(account{
			kind: "internal", callID: c.id, from: "1001", to: "1002", direction: cdr.Internal, disposition: cdr.Answered, answeredBy: "1002",
			route: "extension", talked: talked,
		})
	}
	for range 2 {
		c := d.a.dial(t, "9196")
		expectStatus(t, c, 200)
		c.media.hears(t, d.a.mark, 5)
		c.hangup(t)
		talked := time.Since(c.answered)
		r.s.idle(t)
		r.add(account{kind: "echo", callID: c.id, from: "1001", to: "9196", direction: cdr.Internal, disposition: cdr.Answered, route: "echo", talked: talked})
	}
}

func (r *shift) unanswered(t *testing.T, d *desk) {
	t.Helper()
	for range 4 {
		r.refused(t, d.a, "1004", 486, account{kind: "busy", direction: cdr.Internal, disposition: cdr.Busy, route: "extension"})
		r.refused(t, d.a, "1005", 480, account{kind: "nobody registered", direction: cdr.Internal, disposition: cdr.NoAnswer, route: "extension"})
		r.refused(t, d.a, "7777", 404, account{
			kind: "refused", direction: cdr.Internal, disposition: cdr.Refused, route: "refused", reason: "neither an extension nor a public number",
		})
	}
	for range 4 {
		c := d.a.dialRinging(t, "1003")
		d.ringing.expectCall(t)
		c.cancel(t)
		r.s.idle(t)
		r.add(account{
			kind: "cancelled", callID: c.invite.get("Call-ID"), from: "1001", to: "1003", direction: cdr.Internal, disposition: cdr.Cancelled, route: "extension",
		})
	}
	for range 2 {
		c := d.absent.dialRinging(t, "1003")
		r.s.giveUp(t, d.ringing.expectCall(t))
		if final := c.final(t, answerTime); final.status() != 480 {
			t.Errorf("answered %q", final.start)
		}
		r.s.idle(t)
		r.add(account{
			kind: "unanswered", callID: c.invite.get("Call-ID"), from: "1005", to: "1003", direction: cdr.Internal, disposition: cdr.NoAnswer, route: "extension",
		})
	}
}

// giveUp has the switch stop ringing a phone as it does after a minute. Only the channel of that call will do: the one of a call
// that was cancelled a moment ago may still be there, and takes the command.
func (s *scene) giveUp(t *testing.T, there *call) {
	t.Helper()
	eventually(t, answerTime, func() error {
		for _, id := range s.channels(t) {
			if s.esl.api("uuid_getvar "+id+" sip_call_id") == there.id && strings.HasPrefix(s.esl.api("uuid_kill "+id+" NO_ANSWER"), "+OK") {
				return nil
			}
		}
		return errors.New("the switch has no channel that rings the phone")
	})
}

func (r *shift) inbound(t *testing.T, d *desk) {
	t.Helper()
	for i := range 6 {
		c := d.outside.dial(t, "0612345678", asCarrier)
		there := d.target.expectCall(t)
		talked := r.talk(t, c, there, 5, []*call{c, there}[i%2])
		r.add(account{
			kind: "from a carrier", callID: c.id, from: outsider, to: didE164, direction: cdr.Inbound, disposition: cdr.Answered, answeredBy: "1000",
			route: "extension", talked: talked,
		})
	}
	for range 2 {
		expectStatus(t, d.outside.dial(t, "0699999999", asCarrier), 404)
		r.s.idle(t)
		r.strangers++
	}
}

func (r *shift) outbound(t *testing.T, d *desk) {
	t.Helper()
	out := func(kind, number, route string, carrier *phone) {
		c := d.a.dial(t, number)
		talked := r.talk(t, c, carrier.expectCall(t), 5, c)
		r.add(account{
			kind: kind, callID: c.id, from: "1001", to: number, direction: cdr.Outbound, disposition: cdr.Answered, answeredBy: number, route: route, talked: talked,
		})
	}
	for range 4 {
		out("to a carrier", directNumber, "public", d.direct)
		out("over the second trunk", outNumber, "public", d.second)
	}
	for range 2 {
		out("emergency", "112", "emergency", d.direct)
		r.refused(t, d.a, busyNumber, 486, account{kind: "busy outside", direction: cdr.Outbound, disposition: cdr.Busy, route: "public"})
	}
}

func (r *shift) transferred(t *testing.T, d *desk) {
	t.Helper()
	for range 3 {
		c := d.outside.dial(t, "0612345678", asCarrier)
		there := d.target.expectCall(t)
		talking(t, c, there)
		there.refer(t, "sip:1002@"+realmA)
		talked := r.talk(t, c, d.b.expectCall(t), 5, c)
		r.add(account{
			kind: "blind transfer", callID: c.id, from: outsider, to: didE164, direction: cdr.Inbound, disposition: cdr.Answered, answeredBy: "1002",
			transferredTo: "1002", route: "extension", talked: talked, handed: true,
		})
	}
	for range 3 {
		r.attended(t, d)
	}
}

// attended is a call from a carrier that 1000 takes, asks 1002 about, and hands over: two calls.
func (r *shift) attended(t *testing.T, d *desk) {
	t.Helper()
	c := d.outside.dial(t, "0612345678", asCarrier)
	there := d.target.expectCall(t)
	talking(t, c, there)
	question := d.target.dial(t, "1002")
	last := d.b.expectCall(t)
	talking(t, question, last)
	replaces := url.QueryEscape(question.id + ";to-tag=" + question.remoteTag + ";from-tag=" + question.localTag)
	if answer := there.refer(t, "sip:1002@"+realmA+"?Replaces="+replaces); answer.status() != 202 {
		t.Fatalf("REFER answered %q", answer.start)
	}
	talked := r.talk(t, c, last, 25, c)
	asked := c.answered.Add(talked).Sub(question.answered)
	r.add(account{
		kind: "attended transfer", callID: c.id, from: outsider, to: didE164, direction: cdr.Inbound, disposition: cdr.Answered, answeredBy: "1000",
		transferredTo: "1002", route: "extension", talked: talked, handed: true,
	})
	r.add(account{
		kind: "question of an attended transfer", callID: question.id, from: "1000", to: "1002", direction: cdr.Internal, disposition: cdr.Answered,
		answeredBy: "1002", route: "extension", talked: asked, handed: true,
	})
}

func (r *shift) agents(t *testing.T, d *desk) {
	t.Helper()
	agent := func(did, to string, a account, then func(c *call)) {
		c := d.outside.dial(t, did, asCarrier)
		expectStatus(t, c, 200)
		then(c)
		a.talked = time.Since(c.answered)
		r.s.idle(t)
		a.callID, a.from, a.to, a.direction, a.disposition = c.id, outsider, to, cdr.Inbound, cdr.Answered
		r.add(a)
	}
	standIn := func(c *call) {
		there := d.target.expectCall(t)
		talking(t, c, there)
		c.hangup(t)
	}
	const e164, agentOn = "+390612345801", "agent on: no time policy"
	for range 2 {
		agent(agentDID, e164, account{kind: "agent is not there", answeredBy: "1000", route: "agent", reason: agentOn + "; agent failed: NORMAL_TEMPORARY_FAILURE"}, standIn)
		agent(nightDID, "+390612345901", account{kind: "out of hours", answeredBy: "1000", route: "extension", reason: "agent off: never"}, standIn)
	}
	for _, reason := range []string{"16", "41"} {
		run := r.s.startSIPp(t, sipp{
			scenario: "agent.xml", remote: r.s.external, port: r.bridge, args: []string{"-t", "t1", "-rtp_echo", "-d", "1000", "-key", "reason", "Q.850;cause=" + reason},
		})
		eventually(t, answerTime, func() error {
			c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(r.bridge))
			if err != nil {
				return err
			}
			return c.Close()
		})
		if reason == "16" {
			agent(agentDID, e164, account{kind: "agent", answeredBy: "agent", route: "agent", reason: agentOn}, func(c *call) { expectEnd(t, c) })
		} else {
			agent(agentDID, e164, account{
				kind: "agent fails in mid-call", answeredBy: "1000", route: "agent", reason: agentOn + "; agent failed: NORMAL_TEMPORARY_FAILURE",
			}, standIn)
		}
		run.wait(t)
	}
}

func (r *shift) recorded(t *testing.T, d *desk) {
	t.Helper()
	for range 2 {
		c := d.outside.dial(t, "0612345778", asCarrier)
		talked := r.talk(t, c, d.targetB.expectCall(t), 60, c)
		r.add(account{
			kind: "recorded from a carrier", callID: c.id, tenant: tenantB, from: outsider, to: "+390612345778", direction: cdr.Inbound, disposition: cdr.Answered,
			answeredBy: "1000", route: "extension", talked: talked, recorded: true,
		})
		c = d.callerB.dial(t, outNumber)
		talked = r.talk(t, c, d.second.expectCall(t), 60, c)
		r.add(account{
			kind: "recorded to a carrier", callID: c.id, tenant: tenantB, from: "1001", to: outNumber, direction: cdr.Outbound, disposition: cdr.Answered,
			answeredBy: outNumber, route: "public", talked: talked, recorded: true,
		})
	}
}

// sipp has SIPp make calls, more at a time than the called extension takes, and keeps its own count of answers.
func (r *shift) sipp(t *testing.T, scenario string, calls int, lines []string, remote int) {
	t.Helper()
	prefix, statistics := "sipp-"+token()+"-", filepath.Join(r.s.dir, "statistics-"+token()+".csv")
	r.s.sipp(t, sipp{
		scenario: scenario, remote: remote, port: freePort(t), lines: lines,
		args: []string{
			"-m", strconv.Itoa(calls), "-r", "8", "-d", "500", "-cid_str", prefix + "%u@%s", "-trace_stat", "-stf", statistics, "-fd", "1",
		},
	})
	r.s.idle(t)
	r.counted[prefix] = map[cdr.Disposition]int{}
	for counter, disposition := range map[string]cdr.Disposition{"SIP 200(C)": cdr.Answered, "SIP 486(C)": cdr.Busy} {
		if n := statistic(t, statistics, counter); n > 0 {
			r.counted[prefix][disposition] = n
		}
	}
}

// statistic returns a total of SIPp's -trace_stat: a header and a line a second, of which the last has the totals.
func statistic(t *testing.T, file, name string) int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := csv.NewReader(f)
	c.Comma, c.FieldsPerRecord = ';', -1
	all, err := c.ReadAll()
	if err != nil || len(all) < 2 {
		t.Fatalf("SIPp's statistics: %d lines, %v", len(all), err)
	}
	for i, column := range all[0] {
		if column == name {
			n, err := strconv.Atoi(all[len(all)-1][i])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("SIPp does not count %s", name)
	return 0
}
