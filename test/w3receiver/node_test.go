package w3receiver_test

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/webhook"
)

// The receiver in JavaScript, which W3's developers are shown, takes what is genuine, once, and nothing else.
func TestNodeExample(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not in PATH")
	}
	cmd := exec.CommandContext(t.Context(), "node", "receive.mjs")
	cmd.Env = append(os.Environ(), "HMAC_SECRET="+key, "PORT=0")
	cmd.Stderr = t.Output()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	line, err := lines.ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("printed %q, %v", line, err)
	}
	post := func(q *http.Request, body string) int {
		t.Helper()
		out, err := http.NewRequestWithContext(t.Context(), q.Method, "http://"+addr+q.RequestURI, bytes.NewReader([]byte(body)))
		if err != nil {
			t.Fatal(err)
		}
		out.Header = q.Header
		resp, err := http.DefaultClient.Do(out)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	const body = `{"callId":"1"}`
	now := time.Now()
	bad := sent(now, key)
	bad.Header.Set(webhook.HeaderSignature, "sha256=00, nonsense")
	keyless := sent(now, key)
	keyless.Header.Del(webhook.HeaderKey)
	for name, tc := range map[string]struct {
		q    *http.Request
		body string
	}{
		"another body": {sent(now, key), `{"callId":"2"}`}, "another secret": {sent(now, "evs_other"), body}, "old": {sent(now.Add(-310*time.Second), key), body},
		"bad signature": {bad, body}, "no key": {keyless, body},
	} {
		if got := post(tc.q, tc.body); got != http.StatusUnauthorized {
			t.Errorf("%s: answered %d", name, got)
		}
	}
	once := sent(now, "evs_other", key)
	for range 2 {
		if got := post(once, body); got != http.StatusOK {
			t.Errorf("answered %d", got)
		}
	}
	last := resigned(sent(now, key), `{"name":"è"}`)
	last.Header.Set(webhook.HeaderKey, uuid.NewString())
	if got := post(last, `{"name":"è"}`); got != http.StatusOK {
		t.Errorf("answered %d", got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	printed, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if got := string(printed); strings.Count(got, "\n") != 2 || strings.Count(got, once.Header.Get(webhook.HeaderKey)) != 1 || !strings.Contains(got, `"sequence":7,"body":{"name":"è"}}`) {
		t.Errorf("printed\n%s", got)
	}
}
