package cdr_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/golden"
)

// captured are bodies as a real FreeSWITCH posted them, by name of file.
func captured(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/captured/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no captured documents: %v", err)
	}
	m := map[string][]byte{}
	for _, f := range files {
		if m[f], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func parse(t testing.TB, body []byte) cdr.Document {
	t.Helper()
	d, err := cdr.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func indented(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// Every captured document is read as its golden file says, and what is kept of it says the same.
func TestCapturedLegs(t *testing.T) {
	t.Parallel()
	for name, body := range captured(t) {
		d := parse(t, body)
		golden.Check(t, filepath.Join("testdata", "leg", filepath.Base(name)), indented(t, d.Leg()))
		if again := parse(t, d.JSON()); again.Leg() != d.Leg() || !bytes.Equal(again.JSON(), d.JSON()) {
			t.Errorf("%s: what is kept is read as %+v", name, again.Leg())
		}
	}
}

// The captured documents make the calls that were made.
func TestCapturedCalls(t *testing.T) {
	t.Parallel()
	for id, legs := range capturedCalls(t) {
		r := cdr.Record{Call: cdr.Join(id, legs), Revision: 1}
		golden.Check(t, filepath.Join("testdata", "call", id.String()+".json"), indented(t, r.Event()))
	}
}

func capturedCalls(t testing.TB) map[uuid.UUID][]cdr.Leg {
	t.Helper()
	legs, calls := map[uuid.UUID]cdr.Leg{}, map[uuid.UUID][]cdr.Leg{}
	for _, body := range captured(t) {
		l := parse(t, body).Leg()
		legs[l.ID] = l
	}
	for _, l := range legs {
		id := l.ID
		for !legs[id].IsCalling() {
			id = legs[id].Parent
		}
		calls[id] = append(calls[id], l)
	}
	return calls
}

// A body means the same in every form in which FreeSWITCH posts or spools it.
func TestEncodings(t *testing.T) {
	t.Parallel()
	for name, body := range captured(t) {
		want := parse(t, body).Leg()
		encoded := base64.StdEncoding.EncodeToString(body)
		for form, text := range map[string]string{
			"plain": string(body), "file": string(body) + "\n", "form": "cdr=" + url.PathEscape(string(body)), "query": "cdr=" + url.QueryEscape(strings.ReplaceAll(string(body), " ", "")),
			"form plain": "cdr=" + string(body), "base64": "cdr=" + encoded, "base64 without padding": "cdr=" + strings.TrimRight(encoded, "="),
			"spooled form": url.PathEscape(string(body)) + "\n", "spooled base64": encoded + "\n",
		} {
			if d, err := cdr.Parse([]byte(text)); err != nil {
				t.Errorf("%s, %s: %v", name, form, err)
			} else if d.Leg() != want && form != "query" {
				t.Errorf("%s, %s: %s", name, form, cmp.Diff(want, d.Leg()))
			}
		}
	}
}

// least is a document with no more than there must be.
const least = `{"variables":{"uuid":"99e8fd00-0948-4ff0-8ad3-7150443e7ee9","start_uepoch":"1795195142733015"}}`

// What no JSON library takes and FreeSWITCH writes is taken, and what phones write does no harm.
func TestHostile(t *testing.T) {
	t.Parallel()
	start := `"uuid":"99e8fd00-0948-4ff0-8ad3-7150443e7ee9","start_uepoch":"1795195142733015"`
	for name, body := range map[string]string{
		"least":               least,
		"numbers":             `{"callStats":{"a":nan,"b":-nan,"c":inf,"d":-Infinity,"e":NaN,"f":1.5e3,"g":01,"h":+1},"variables":{` + start + `}}`,
		"bytes":               `{"variables":{` + start + ",\"sip_from_display\":\"a\xff\xfe\x00\x01\tb\"}}",
		"escaped NUL":         `{"variables":{` + start + `,"x":"\u0000\u0000a\\u0000"}}`,
		"half a surrogate":    `{"variables":{` + start + `,"x":"\ud800"}}`,
		"percent":             `{"variables":{` + start + `,"x":"%zz%"}}`,
		"callflow no list":    `{"variables":{` + start + `},"callflow":{"a":1}}`,
		"callflow of all":     `{"variables":{` + start + `},"callflow":[1,"a",null,{"caller_profile":7},{"times":{"created_time":{}}}]}`,
		"values of all kinds": `{"variables":{` + start + `,"hangup_cause":{"a":[1]},"edgvoip_trunk_id":17,"answer_uepoch":null,"sip_term_status":"abc"}}`,
		"times that are none": `{"variables":{` + start + `,"answer_uepoch":"-1","end_uepoch":"99999999999999999999"}}`,
		"ended before":        `{"variables":{` + start + `,"answer_uepoch":"1795195142000000","end_uepoch":"1795195142000000"}}`,
	} {
		d, err := cdr.Parse([]byte(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		l := d.Leg()
		if l.ID.String() != "99e8fd00-0948-4ff0-8ad3-7150443e7ee9" || l.Start.UnixMicro() != 1795195142733015 {
			t.Errorf("%s: %+v", name, l)
		}
		if c := cdr.Join(l.ID, []cdr.Leg{l}); c.Duration() < 0 || c.BillSec() < 0 {
			t.Errorf("%s: %d %d", name, c.Duration(), c.BillSec())
		}
		if bytes.Contains(d.JSON(), []byte(`\u0000`)) && !bytes.Contains(d.JSON(), []byte(`\\u0000`)) {
			t.Errorf("%s: NUL in %s", name, d.JSON())
		}
	}
	for name, body := range map[string]string{
		"nothing": "", "blank": " \n", "no JSON": "hello", "cut": least[:40], "a list": "[1]", "two": least + least, "no channel": `{"variables":{"start_uepoch":"1795195142733015"}}`,
		"no start": `{"variables":{"uuid":"99e8fd00-0948-4ff0-8ad3-7150443e7ee9","start_uepoch":"0"}}`, "a number that is too large": `{"a":1e999999}`,
		"braces": `{"variables":{"uuid":"{99e8fd00-0948-4ff0-8ad3-7150443e7ee9}","start_uepoch":"1795195142733015"}}`, "form of something else": "a=b&c=d",
	} {
		if d, err := cdr.Parse([]byte(body)); err == nil {
			t.Errorf("%s is read as %+v", name, d.Leg())
		} else if len(body) > 3 && strings.Contains(err.Error(), body) {
			t.Errorf("%s: the error repeats the document: %v", name, err)
		}
	}
}

// Numbers are cleaned and bounded, and no secret is kept.
func TestClean(t *testing.T) {
	t.Parallel()
	d := parse(t, []byte(`{"variables":{"uuid":"99e8fd00-0948-4ff0-8ad3-7150443e7ee9","start_uepoch":"1795195142733015",
		"switch_r_sdp":"inline:KEY","rtp_last_audio_local_crypto_key":"KEY","sip_auth_response":"KEY","vm_password":"KEY","a1-hash":"KEY"},
		"callflow":[{"caller_profile":{"caller_id_number":"+39\u0007 12\u202e3`+strings.Repeat("9", 200)+`","destination_number":" 1002\r\n"}}]}`))
	if l := d.Leg(); len(l.From) != 64 || !strings.HasPrefix(l.From, "+39 123") || l.To != "1002" {
		t.Errorf("%q %q", l.From, l.To)
	}
	if bytes.Contains(d.JSON(), []byte("KEY")) {
		t.Errorf("a secret is kept: %s", d.JSON())
	}
}

// leg makes a leg of a call of ten seconds.
func leg(id string, change func(*cdr.Leg)) cdr.Leg {
	start := time.UnixMicro(1795195142733015).UTC()
	l := cdr.Leg{ID: uuid.NewSHA1(uuid.Nil, []byte(id)), From: "1001", To: "1002", Start: start, End: start.Add(10 * time.Second), Cause: "NORMAL_CLEARING"}
	change(&l)
	return l
}

func after(l *cdr.Leg, d time.Duration) time.Time { return l.Start.Add(d) }

// Calls of many kinds come out right.
func TestJoin(t *testing.T) {
	t.Parallel()
	root := uuid.NewSHA1(uuid.Nil, []byte("a"))
	trunk1, trunk2 := uuid.NewSHA1(uuid.Nil, []byte("t1")), uuid.NewSHA1(uuid.Nil, []byte("t2"))
	calling := func(change func(*cdr.Leg)) cdr.Leg { return leg("a", change) }
	called := func(id string, change func(*cdr.Leg)) cdr.Leg {
		return leg(id, func(l *cdr.Leg) {
			l.Parent = root
			change(l)
		})
	}
	for name, tc := range map[string]struct {
		legs []cdr.Leg
		want func(*cdr.Call) // changes an unanswered internal call from 1001 to 1002
	}{
		"failed without a word": {[]cdr.Leg{calling(func(*cdr.Leg) {})}, func(*cdr.Call) {}},
		"cancelled": {[]cdr.Leg{calling(func(l *cdr.Leg) { l.Cause, l.HungUp = "ORIGINATOR_CANCEL", "recv_cancel" })}, func(c *cdr.Call) {
			c.Disposition, c.Cause = cdr.Cancelled, "ORIGINATOR_CANCEL"
		}},
		"busy": {[]cdr.Leg{calling(func(l *cdr.Leg) { l.Cause = "USER_BUSY" })}, func(c *cdr.Call) { c.Disposition, c.Cause = cdr.Busy, "USER_BUSY" }},
		"nobody there": {[]cdr.Leg{calling(func(l *cdr.Leg) { l.Cause = "NO_ANSWER" }), called("b", func(*cdr.Leg) {})}, func(c *cdr.Call) {
			c.Disposition, c.Cause = cdr.NoAnswer, "NO_ANSWER"
		}},
		"refused by us": {[]cdr.Leg{calling(func(l *cdr.Leg) { l.Cause, l.Route, l.Reason = "UNALLOCATED_NUMBER", "refused", "no such extension" })}, func(c *cdr.Call) {
			c.Disposition, c.Cause, c.Route, c.Reason = cdr.Refused, "UNALLOCATED_NUMBER", "refused", "no such extension"
		}},
		"failover to another trunk": {
			[]cdr.Leg{
				calling(func(l *cdr.Leg) { l.Answer, l.TrunkID, l.To = after(l, 4*time.Second), trunk2, "0612345678" }),
				called("b", func(l *cdr.Leg) {
					l.TrunkID, l.End, l.Cause = trunk1, after(l, time.Second), "NORMAL_TEMPORARY_FAILURE"
				}),
				called("c", func(l *cdr.Leg) {
					l.Start = l.Start.Add(time.Second)
					l.TrunkID, l.Answer, l.To = trunk2, after(l, 2*time.Second), "+390612345678"
				}),
			}, func(c *cdr.Call) {
				c.Direction, c.Disposition, c.TrunkID, c.To, c.AnsweredBy = cdr.Outbound, cdr.Answered, trunk2, "0612345678", "+390612345678"
				c.Answer = c.Start.Add(4 * time.Second)
			},
		},
		"handed on by the called, answered by a third": {
			[]cdr.Leg{
				calling(func(l *cdr.Leg) {
					l.Answer, l.Transferred, l.TransferredAt = after(l, time.Second), "1003", after(l, 5*time.Second)
				}),
				called("b", func(l *cdr.Leg) { l.Answer, l.End = after(l, time.Second), after(l, 5*time.Second) }),
				called("c", func(l *cdr.Leg) { l.Answer, l.To = after(l, 7*time.Second), "1003" }),
			}, func(c *cdr.Call) {
				c.Disposition, c.TransferredTo, c.AnsweredBy, c.Answer = cdr.Answered, "1003", "1003", c.Start.Add(time.Second)
			},
		},
		"handed on by the caller, who goes": {
			[]cdr.Leg{
				calling(func(l *cdr.Leg) { l.Answer = after(l, time.Second) }),
				called("b", func(l *cdr.Leg) {
					l.Answer, l.Transferred, l.TransferredAt, l.End = after(l, time.Second), "1003", after(l, 10*time.Second), after(l, time.Minute)
				}),
				called("c", func(l *cdr.Leg) {
					l.Parent, l.Answer, l.To, l.End = uuid.NewSHA1(uuid.Nil, []byte("b")), after(l, 12*time.Second), "1003", after(l, time.Minute)
				}),
			}, func(c *cdr.Call) {
				c.Disposition, c.TransferredTo, c.AnsweredBy, c.Answer, c.End = cdr.Answered, "1003", "1003", c.Start.Add(time.Second), c.Start.Add(time.Minute)
			},
		},
		"from a carrier, recorded": {
			[]cdr.Leg{calling(func(l *cdr.Leg) {
				l.Outside, l.TrunkID, l.Answer, l.Recording = true, trunk1, l.Start, "r"
			})}, func(c *cdr.Call) {
				c.Direction, c.TrunkID, c.Disposition, c.Answer, c.Recording = cdr.Inbound, trunk1, cdr.Answered, c.Start, "r"
			},
		},
		"without the calling leg": {
			[]cdr.Leg{called("b", func(l *cdr.Leg) { l.Answer, l.Reconstructed = l.Start, true })}, func(c *cdr.Call) {
				c.Disposition, c.Answer, c.AnsweredBy, c.Reconstructed = cdr.Answered, c.Start, "1002", true
			},
		},
	} {
		plain := calling(func(*cdr.Leg) {})
		want := cdr.Call{
			ID: root, From: "1001", To: "1002", Direction: cdr.Internal, Start: plain.Start, End: plain.End, Disposition: cdr.Failed, Cause: "NORMAL_CLEARING",
		}
		tc.want(&want)
		if got := cdr.Join(root, tc.legs); got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
	}
}

// Join knows no order and no duplicates.
func TestJoinIsAFunctionOfTheSet(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[random.IntN(len(list))] }
	for range 2000 {
		root := uuid.NewSHA1(uuid.Nil, []byte("a"))
		var legs []cdr.Leg
		for range 1 + random.IntN(5) {
			legs = append(legs, leg(pick("a", "b", "c", "d"), func(l *cdr.Leg) {
				if l.ID != root {
					l.Parent = root
				}
				l.Start = l.Start.Add(time.Duration(random.IntN(3)) * time.Second)
				l.To, l.Transferred, l.Recording = pick("1002", "1003"), pick("", "", "1004", "1005"), pick("", "x", "y")
				l.TransferredAt = after(l, time.Duration(random.IntN(2))*time.Second)
				l.Reconstructed = random.IntN(3) == 0
				if random.IntN(2) == 0 {
					l.Answer = after(l, time.Duration(random.IntN(3))*time.Second)
				}
				if random.IntN(2) == 0 {
					l.TrunkID = uuid.NewSHA1(uuid.Nil, []byte(pick("t", "u")))
				}
			}))
		}
		want := cdr.Join(root, legs)
		for range 5 {
			again := append(append([]cdr.Leg{}, legs...), legs[random.IntN(len(legs))])
			random.Shuffle(len(again), func(i, j int) { again[i], again[j] = again[j], again[i] })
			if got := cdr.Join(root, again); got != want {
				t.Fatalf("in another order: %s\n%+v", cmp.Diff(want, got), again)
			}
		}
	}
}

// What an event tells makes the same record as the document, but for what only the document knows.
func TestReconstruct(t *testing.T) {
	t.Parallel()
	for name, body := range captured(t) {
		d := parse(t, body)
		var all struct {
			Variables map[string]string `json:"variables"`
			Channel   map[string]string `json:"channel_data"`
			Callflow  []struct {
				Caller map[string]any `json:"caller_profile"`
			} `json:"callflow"`
		}
		if err := json.Unmarshal(body, &all); err != nil {
			t.Fatal(err)
		}
		event := map[string]string{"Unique-ID": d.Leg().ID.String(), "Call-Direction": all.Channel["direction"], "variable_edgvoip_tenant_id": uuid.Nil.String()}
		for name, value := range all.Variables {
			if plain, err := url.PathUnescape(value); err == nil {
				value = plain
			}
			event["variable_"+name] = value
		}
		from, _ := all.Callflow[0].Caller["caller_id_number"].(string)
		to, _ := all.Callflow[0].Caller["destination_number"].(string)
		event["Caller-Caller-ID-Number"], event["Caller-Destination-Number"] = from, to
		event["variable_sip_h_X-Phone"], event["variable_sip_bye_h_X-Phone"] = "anything", "anything"
		s, ours := cdr.NewSighting(uuid.Nil, event)
		if !ours || s.LegID != d.Leg().ID || s.Event["variable_switch_r_sdp"] != "" || s.Event["variable_sip_h_X-Phone"]+s.Event["variable_sip_bye_h_X-Phone"] != "" {
			t.Errorf("%s: %v %v", name, ours, s.LegID)
		}
		again, err := cdr.Reconstruct(s.Event)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := d.Leg()
		want.Reconstructed = true
		if len(all.Callflow) > 1 {
			// The event knows the newest profile only.
			got := again.Leg()
			want.From, want.To, want.Called, want.Transferred, want.TransferredAt = got.From, got.To, got.Called, "", got.TransferredAt
		}
		if got := again.Leg(); got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
		if want.Supersedes(d.Leg()) || !d.Leg().Supersedes(want) {
			t.Errorf("%s: a document does not supersede what was reconstructed", name)
		}
	}
	if _, ours := cdr.NewSighting(uuid.Nil, map[string]string{"Unique-ID": uuid.NewString()}); ours {
		t.Error("a channel of nobody is taken")
	}
}

// An erased document holds the number no more, and makes the same record but for the numbers.
func TestErase(t *testing.T) {
	t.Parallel()
	number, err := fstext.NewE164("+393331234567")
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range captured(t) {
		d := parse(t, body)
		erased, err := d.Erase(cdr.NewPerson(number))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if bytes.Contains(erased.JSON(), []byte("3331234567")) {
			t.Errorf("%s: %s", name, erased.JSON())
		}
		want := d.Leg()
		want.Erased, want.Realm, want.Called = true, erased.Leg().Realm, erased.Leg().Called
		if strings.Contains(want.From, "3331234567") {
			want.From = cdr.Erased
		}
		if strings.Contains(want.JoinedTo, "3331234567") {
			want.JoinedTo = cdr.Erased
		}
		if got := erased.Leg(); got != want {
			t.Errorf("%s: %s", name, cmp.Diff(want, got))
		}
		again, err := erased.Erase(cdr.NewPerson(number))
		if err != nil || !bytes.Equal(again.JSON(), erased.JSON()) {
			t.Errorf("%s: once more: %v", name, cmp.Diff(string(erased.JSON()), string(again.JSON())))
		}
	}
}

// Whatever comes is read or refused; what is read is kept as valid JSON that is read the same again.
func FuzzParse(f *testing.F) {
	for _, body := range captured(f) {
		f.Add(body)
	}
	f.Add([]byte(least))
	f.Add([]byte("cdr=%7B%22variables%22%3A%7B%7D%7D"))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := cdr.Parse(body)
		if err != nil {
			return
		}
		again, err := cdr.Parse(d.JSON())
		if err != nil || !json.Valid(d.JSON()) {
			t.Fatalf("what is kept cannot be read: %v\n%s", err, d.JSON())
		}
		if again.Leg() != d.Leg() {
			t.Fatalf("what is kept is another leg: %s", cmp.Diff(d.Leg(), again.Leg()))
		}
		if _, err := d.Erase(cdr.Person{}); err != nil {
			t.Fatalf("it cannot be erased: %v", err)
		}
	})
}
