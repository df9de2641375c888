package aibridge_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"pgregory.net/rapid"

	"github.com/edgvoip/edgvoip/internal/aibridge"
)

// Streams that come after one another become one: sequence numbers and timestamps go on, and what was lost or late
// stays so.
func TestRewrite(t *testing.T) {
	t.Parallel()
	now := time.Now()
	r := aibridge.NewRewriter(7)
	var first rtp.Header
	for i, tc := range []struct {
		what    string
		in      rtp.Header
		after   time.Duration
		seq     int // after the first
		ts      int
		marker  bool
		dropped bool
	}{
		{"the first", rtp.Header{SSRC: 1, SequenceNumber: 65534, Timestamp: 4294967200}, 0, 0, 0, true, false},
		{"the next", rtp.Header{SSRC: 1, SequenceNumber: 65535, Timestamp: 64}, 20 * time.Millisecond, 1, 160, false, false},
		{"one is lost", rtp.Header{SSRC: 1, SequenceNumber: 1, Timestamp: 384}, 40 * time.Millisecond, 3, 480, false, false},
		{"and comes late", rtp.Header{SSRC: 1, SequenceNumber: 0, Timestamp: 224}, 0, 2, 320, false, false},
		{"one is much too late", rtp.Header{SSRC: 1, SequenceNumber: 65535 - 200, Timestamp: 64}, 0, 0, 0, false, true},
		{"the next again", rtp.Header{SSRC: 1, SequenceNumber: 2, Timestamp: 544}, 20 * time.Millisecond, 4, 640, false, false},
		{"another stream", rtp.Header{SSRC: 2, SequenceNumber: 500, Timestamp: 9}, 100 * time.Millisecond, 5, 1440, true, false},
		{"its next", rtp.Header{SSRC: 2, SequenceNumber: 501, Timestamp: 169}, 20 * time.Millisecond, 6, 1600, false, false},
		{"its numbers jump", rtp.Header{SSRC: 2, SequenceNumber: 20000, Timestamp: 329}, 20 * time.Millisecond, 7, 1760, true, false},
		{"its timestamps jump", rtp.Header{SSRC: 2, SequenceNumber: 20001, Timestamp: 1 << 30}, 20 * time.Millisecond, 8, 1920, true, false},
		{"its silence", rtp.Header{SSRC: 2, SequenceNumber: 20002, Timestamp: 1<<30 + 24000}, 3 * time.Second, 9, 25920, false, false},
	} {
		now = now.Add(tc.after)
		h := tc.in
		if ok := r.Rewrite(&h, now); ok == tc.dropped {
			t.Errorf("%s: taken is %v", tc.what, ok)
			continue
		}
		if i == 0 {
			first = h
		}
		if tc.dropped {
			continue
		}
		if seq, ts := int(h.SequenceNumber-first.SequenceNumber), int(h.Timestamp-first.Timestamp); seq != tc.seq || ts != tc.ts || h.Marker != tc.marker || h.SSRC != 7 {
			t.Errorf("%s: sequence number %d, timestamp %d, marker %v, want %d, %d, %v", tc.what, seq, ts, h.Marker, tc.seq, tc.ts, tc.marker)
		}
	}
}

// Whatever comes, no two packets in order get the same number, and none goes back further than what may be late.
func TestRewriteNeverGoesBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r, now := aibridge.NewRewriter(7), time.Now()
		var newest uint16
		for i := range rapid.IntRange(1, 200).Draw(t, "packets") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond)
			h := rtp.Header{
				SSRC: rapid.Uint32Range(1, 3).Draw(t, "ssrc"), SequenceNumber: rapid.Uint16().Draw(t, "seq"), Timestamp: rapid.Uint32().Draw(t, "ts"),
			}
			if !r.Rewrite(&h, now) {
				continue
			}
			ahead := int16(h.SequenceNumber - newest)
			if i > 0 && (ahead < -100 || ahead > 3000) {
				t.Fatalf("%d after %d", h.SequenceNumber, newest)
			}
			if i == 0 || ahead > 0 {
				newest = h.SequenceNumber
			}
		}
	})
}

// A report tells what was lost, since the beginning and since the last, over the turn of the numbers.
func TestReception(t *testing.T) {
	t.Parallel()
	var r aibridge.Reception
	now := time.Now()
	if r.Report(now) != nil {
		t.Error("a report of nothing")
	}
	for i := range 100 {
		if i%10 != 5 { // ten are lost
			r.Add(9, uint16(65500+i), uint32(160*i), now.Add(time.Duration(i)*20*time.Millisecond))
		}
	}
	got := r.Report(now)[0]
	if got.SSRC != 9 || got.TotalLost != 10 || got.FractionLost != 25 || got.LastSequenceNumber != 65599 || got.Jitter > 1 {
		t.Errorf("%+v", got)
	}
	r.Add(9, 65600%65536, 160*100, now.Add(2*time.Second))
	if got := r.Report(now)[0]; got.TotalLost != 10 || got.FractionLost != 0 {
		t.Errorf("nothing was lost since: %+v", got)
	}
}

const offer = "v=0\r\no=FreeSWITCH 1 1 IN IP4 192.0.2.1\r\ns=FreeSWITCH\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 9 0 101 13\r\n" +
	"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\nm=video 20002 RTP/AVP 96\r\n"

func TestAnswer(t *testing.T) {
	t.Parallel()
	at, events, direction, answer, err := aibridge.ParseMedia([]byte(offer))
	if err != nil || at.String() != "192.0.2.1:20000" || events != 101 || direction != "sendrecv" {
		t.Fatal(at, events, direction, err)
	}
	const want = "v=0\r\no=- 1 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n" +
		"a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\na=ptime:20\r\na=rtcp:4001\r\na=sendrecv\r\nm=video 0 RTP/AVP 96\r\n"
	if string(answer) != want {
		t.Errorf("%s", answer)
	}
	if _, _, direction, answer, err = aibridge.ParseMedia([]byte(strings.Replace(offer, "c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0", 1))); err != nil || direction != "inactive" || !strings.Contains(string(answer), "a=inactive") {
		t.Errorf("hold of old: %s, %v", direction, err)
	}
}

// Whatever a switch sends, the answer is one stream of PCMU, every other declined, and nothing of the offer breaks a
// line.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(offer))
	f.Add([]byte("v=0\r\no=- 1 1 IN IP6 ::1\r\ns=-\r\nc=IN IP6 ::1\r\nt=0 0\r\nm=audio 1 RTP/AVP 0\r\na=rtcp:x\r\na=inactive\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, events, _, answer, err := aibridge.ParseMedia(b)
		if err != nil {
			return
		}
		if events < -1 || events > 127 {
			t.Errorf("payload type %d", events)
		}
		if _, _, _, again, err := aibridge.ParseMedia(answer); err != nil {
			t.Errorf("the answer cannot be read: %v\n%q", err, answer)
		} else if bytes.Count(again, []byte("m=")) != bytes.Count(answer, []byte("\r\nm=")) {
			t.Errorf("%q became %q", answer, again)
		}
	})
}

// An agent's offer may be anything: it is refused or taken, and nothing else happens.
func FuzzCheckOffer(f *testing.F) {
	f.Add("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0 126\r\na=mid:0\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		if aibridge.CheckOffer(s) == nil && !strings.Contains(s, "audio") {
			t.Errorf("%q was taken", s)
		}
	})
}

// A packet is a header and a payload within what came, or nothing.
func FuzzParsePacket(f *testing.F) {
	b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, SSRC: 1, Padding: true, PaddingSize: 4}, Payload: []byte("payload")}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, ok := aibridge.ParsePacket(b)
		if ok && (len(payload) == 0 || !bytes.Contains(b, payload) || h.Extension || h.Padding) {
			t.Errorf("%x became %+v with %x", b, h, payload)
		}
	})
}
