package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/test/w3client"
)

// install runs freeswitch-conf/install, as whoever runs the test.
func (s *scene) install(t *testing.T, conf string, environ ...string) {
	t.Helper()
	me, err := osuser.Current()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "../../freeswitch-conf/install", conf, me.Username)
	cmd.Env = slices.Concat(os.Environ(), []string{"XMLCURL_CREDENTIALS=switch:e2e-password"}, environ)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("install: %v\n%s", err, out)
	}
}

// recordingLinks follows what W3 was told of recordings to the sound.
func recordingLinks(t *testing.T, o *office, r *shift) {
	t.Helper()
	t.Run("a recording is told of when it is there, and its link answers the sound", func(t *testing.T) {
		o.s.begin(t)
		found := 0
		told := o.w3.calls(t)
		for _, e := range o.s.entries(t, r.begun) {
			if e.recording == cdr.RecordingNone {
				continue
			}
			found++
			list := told[e.call]
			want := o.url + w3client.BasePath + "/cdrs/" + e.call + "/recording"
			// The file may be there before the first event is sent.
			if len(list) > 2 || list[len(list)-1].RecordingURL != want || len(list) == 2 && list[0].RecordingURL != "" {
				t.Fatalf("W3 was told %+v", list)
			}
			o.expectSound(t, strings.TrimPrefix(want, o.url+w3client.BasePath))
		}
		if found != 4 {
			t.Errorf("%d recordings", found)
		}
	})
}

// expectSound asks for a link as W3 does, and for what is behind it as a browser does.
func (o *office) expectSound(t *testing.T, path string) {
	t.Helper()
	ask := w3client.Request{Method: http.MethodGet, Path: path}
	if a, err := o.shops[tenantA].Do(t.Context(), ask); err != nil || a.Status != http.StatusNotFound {
		t.Errorf("another tenant is answered %d, %v", a.Status, err)
	}
	a, err := o.shops[tenantB].Do(t.Context(), ask)
	var link struct {
		URL string `json:"url"`
	}
	if err != nil || a.Status != http.StatusOK || json.Unmarshal(a.Body, &link) != nil {
		t.Fatalf("%d %s %v", a.Status, a.Body, err)
	}
	q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := o.client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	sound, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "audio/wav" {
		t.Fatalf("%s %s, %v", answer.Status, answer.Header, err)
	}
	// A second of two channels at 8 kHz is 32 kB.
	if len(sound) < 32000 || !bytes.HasPrefix(sound, []byte("RIFF")) || !bytes.Equal(sound[8:12], []byte("WAVE")) {
		t.Errorf("%d bytes, which begin with %q", len(sound), sound[:min(len(sound), 12)])
	}
}

// lost is what becomes of calls whose documents are lost while integration-api is away: the second witness listens to
// the event socket, and is away too.
func lost(t *testing.T, o *office, r *shift) {
	t.Helper()
	suite := t // what is started here outlives its case
	t.Run("a document that is lost while integration-api is away", func(t *testing.T) {
		o.s.begin(t)
		o.discardStrangers(t)
		o.process.stop()
		d := r.openDesk(t)
		// The channels of three calls, in pairs: who called, who was called.
		var channels [3][2]string
		for i := range channels {
			c := d.a.dial(t, "1002")
			r.talk(t, c, d.b.expectCall(t), 5, c)
			channels[i] = o.s.spooledCall(t, c.id)
		}
		for _, channel := range []string{channels[0][1], channels[1][0], channels[2][0], channels[2][1]} {
			if err := os.Remove(o.s.spoolFile(channel)); err != nil {
				t.Fatal(err)
			}
		}
		o.start(suite)
		if got := o.sweep(t); got != "2 sent, 0 kept" {
			t.Errorf("the sweep says %q", got)
		}
		// The called channel of the second call waits for its caller: a day, which is shortened here.
		eventually(t, answerTime, func() error {
			var waits int
			err := o.s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.cdr_documents WHERE awaits IS NOT NULL`).Scan(&waits)
			if err == nil && waits != 1 {
				err = fmt.Errorf("%d documents wait for their caller", waits)
			}
			return err
		})
		o.s.exec(t, `UPDATE edgvoip.cdr_documents SET received_at = received_at - interval '1 day', due_at = now() WHERE state = 'new'`)
		o.expectRead(t, 0)
		all := o.s.entries(t, r.begun)
		if len(all) != 2 {
			t.Fatalf("%d records, want one without the called leg and one without the calling one: %+v", len(all), all)
		}
		for i, answeredBy := range []string{"", "1002"} {
			e := all[i]
			if e.call != channels[i][0] || e.from != "1001" || e.to != "1002" || e.direction != cdr.Internal || e.disposition != cdr.Answered ||
				e.answeredBy != answeredBy || e.reconstructed {
				t.Errorf("call %d: %+v", i, e)
			}
		}
		r.expectTold(t, o, false)
	})
}

// spooledCall returns the channels of a call by its documents in the spool: who called, who was called.
func (s *scene) spooledCall(t *testing.T, sipCallID string) (channels [2]string) {
	t.Helper()
	docs := map[string]record{}
	for _, file := range s.spooled(t) {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var r record
		if err := json.Unmarshal(body, &r.doc); err != nil {
			t.Fatal(err)
		}
		docs[r.get("uuid")] = r
		if r.get("sip_call_id") == sipCallID {
			channels[0] = r.get("uuid")
		}
	}
	for id, r := range docs {
		if r.called() && r.get("originating_leg_uuid") == channels[0] {
			channels[1] = id
		}
	}
	if channels[0] == "" || channels[1] == "" {
		t.Fatalf("channels %q of %d documents", channels, len(docs))
	}
	return channels
}

func (s *scene) spoolFile(channel string) string {
	return filepath.Join(s.spoolDir(), channel+".cdr.json")
}

// witnessed is calls of which no document comes while integration-api is there: the event socket stands in for them,
// until they do come.
func witnessed(t *testing.T, o *office, r *shift) {
	t.Helper()
	suite := t // what is started here outlives its case
	t.Run("calls whose documents do not come are reconstructed, and put right when they come", func(t *testing.T) {
		o.s.begin(t)
		o.discardStrangers(t)
		o.process.stop()
		o.start(suite, "CDR_ADDR=off")
		r.begun = time.Now()
		d := r.openDesk(t)
		r.internal(t, d)
		r.unanswered(t, d)
		r.inbound(t, d)
		r.outbound(t, d)
		legs := len(o.s.spooled(t)) - r.strangers
		eventually(t, answerTime, func() error {
			var seen int
			err := o.s.db.QueryRowContext(t.Context(), `SELECT count(*) FROM edgvoip.cdr_sightings`).Scan(&seen)
			if err == nil && seen != legs {
				err = fmt.Errorf("%d channels were seen to end, of %d", seen, legs)
			}
			return err
		})
		if n := len(o.s.entries(t, r.begun)); n != 0 {
			t.Errorf("%d records before their time", n)
		}
		o.expectRead(t, 0)
		r.expectRecorded(t, true)
		o.expectMetric(t, reconstructedLegs, strconv.Itoa(legs))
		r.expectTold(t, o, true)

		o.process.stop()
		o.start(suite)
		if got, want := o.sweep(t), fmt.Sprintf("%d sent, 0 kept", legs+r.strangers); got != want {
			t.Errorf("the sweep says %q, want %q", got, want)
		}
		o.expectRead(t, r.strangers)
		r.expectRecorded(t, false)
		r.expectPutRight(t, o)
	})
}

// expectPutRight waits until W3 knows that every record of the shift is made of its documents.
func (r *shift) expectPutRight(t *testing.T, o *office) {
	t.Helper()
	eventually(t, answerTime, func() error {
		told := o.w3.calls(t)
		for _, e := range r.s.entries(t, r.begun) {
			if list := told[e.call]; len(list) < 2 || !list[0].Reconstructed || list[len(list)-1].Reconstructed || list[len(list)-1].Revision != e.revision {
				return fmt.Errorf("W3 was told of %s: %+v", e.call, list)
			}
		}
		return nil
	})
}
