package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// browserReport is what the browser's own statistics say (test/webrtc/README.md).
type browserReport struct {
	Registered      bool    `json:"registered"`
	Waiting         bool    `json:"waiting"`
	Status          int     `json:"status"`
	Answered        bool    `json:"answered"`
	DTLS            string  `json:"dtls"`
	SRTP            string  `json:"srtp"`
	Codec           string  `json:"codec"`
	PacketsSent     int     `json:"packetsSent"`
	PacketsReceived int     `json:"packetsReceived"`
	AudioLevel      float64 `json:"audioLevel"`
	Error           string  `json:"error"`
}

// browser is SIP.js in a headless Chromium, logged in over secure WebSocket.
type browser struct {
	*process
	lines  *bufio.Scanner
	errors *bytes.Buffer
}

// newBrowser starts the browser phone, or skips the test where there is no browser.
func (s *scene) newBrowser(t *testing.T, l login, args ...string) *browser {
	t.Helper()
	for _, tool := range []string{"node", "chromium"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not in PATH (test/webrtc/setup installs it)", tool)
		}
	}
	phone := filepath.Join("..", "webrtc", "phone.mjs")
	if _, err := os.Stat(filepath.Join("..", "webrtc", "node_modules", "sip.js")); err != nil {
		t.Skip("SIP.js is not there (test/webrtc/setup installs it)")
	}
	args = append([]string{
		phone, "--wss", "wss://127.0.0.1:" + strconv.Itoa(s.wss), "--user", l.user, "--realm", l.realm, "--password", l.password, "--timeout", "60",
	}, args...)
	b := &browser{errors: &bytes.Buffer{}}
	read, write := io.Pipe()
	cmd := exec.CommandContext(t.Context(), "node", args...)
	cmd.Stdout, cmd.Stderr = write, b.errors
	b.process = start(t, "browser", cmd)
	go func() {
		<-b.done
		_ = write.Close()
	}()
	b.lines = bufio.NewScanner(read)
	return b
}

// report reads the next line that the browser prints.
func (b *browser) report(t *testing.T) browserReport {
	t.Helper()
	var r browserReport
	if !b.lines.Scan() {
		t.Fatalf("the browser said nothing: %s", b.errors)
	}
	if err := json.Unmarshal(b.lines.Bytes(), &r); err != nil {
		t.Fatalf("the browser said %s: %v", b.lines.Bytes(), err)
	}
	return r
}

// talked checks that packets went both ways, encrypted; the browser counts only those that passed SRTP authentication.
func (r browserReport) talked(t *testing.T) {
	t.Helper()
	if !r.Registered || !r.Answered || r.DTLS != "connected" || r.SRTP == "" || r.PacketsSent < 50 || r.PacketsReceived < 50 {
		t.Errorf("the browser saw %+v", r)
	}
	t.Logf("%s, %s, %d packets sent, %d received, level %.2f", r.SRTP, r.Codec, r.PacketsSent, r.PacketsReceived, r.AudioLevel)
}

func browsers(t *testing.T, s *scene) {
	t.Helper()
	t.Run("a browser registers over WSS and talks to the echo with DTLS-SRTP", func(t *testing.T) {
		s.begin(t)
		r := s.newBrowser(t, user("1001", realmA), "--call", "9196", "--seconds", "3").report(t)
		r.talked(t)
		// Its own beep, back from the echo. The marks that our own phones send are silence to a meter.
		if r.AudioLevel < 0.01 {
			t.Errorf("the browser hears nothing of its own: level %f", r.AudioLevel)
		}
	})
	t.Run("a browser with a wrong password is refused", func(t *testing.T) {
		s.begin(t)
		l := user("1001", realmA)
		l.password = "wrong"
		if r := s.newBrowser(t, l, "--expect-register-failure").report(t); r.Registered || r.Status != 403 {
			t.Errorf("the browser saw %+v", r)
		}
	})
	t.Run("a desk phone calls a browser, and media goes both ways", func(t *testing.T) {
		s.begin(t)
		b := s.newBrowser(t, user("1001", realmA), "--wait-for-call", "--seconds", "3")
		if r := b.report(t); !r.Waiting {
			t.Fatalf("the browser is not there: %+v", r)
		}
		desk := s.phoneA(t, "1002")
		c := desk.dial(t, "1001")
		expectStatus(t, c, 200)
		b.report(t).talked(t)
		select {
		case <-c.ended:
		case <-time.After(20 * time.Second):
			t.Error("the desk phone's call did not end with the browser's")
		}
	})
}
