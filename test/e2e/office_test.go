package e2e_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/test/w3client"
)

// office is integration-api with all that it does: it takes call records, looks for recordings, obeys operators and
// tells W3.
type office struct {
	*api
	url      string // of the API
	settings []string
	client   *http.Client
	operator string // token
	// w3 is W3's receiving side, shops what its sending side logs in with, by tenant.
	w3    *w3
	shops map[string]*w3client.Client

	process *process
	log     string
	starts  int
}

// newOffice makes the operator, W3's credentials and endpoint of the scene's tenants, and makes the switch known. It
// starts nothing.
func (s *scene) newOffice(t *testing.T) *office {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	certificate := filepath.Join(s.dir, "tls", "agent.pem") // and its key
	credentials := filepath.Join(s.dir, "cdr-credentials")
	records, err := url.Parse(s.records)
	if err != nil {
		t.Fatal(err)
	}
	o := &office{
		api:   &api{s: s, bin: bin, metrics: "127.0.0.1:" + strconv.Itoa(freePort(t)), passwordFile: filepath.Join(s.dir, "event-socket")},
		w3:    s.startW3(t),
		shops: map[string]*w3client.Client{},
	}
	for file, content := range map[string]string{credentials: "switch:" + cdrPassword, o.passwordFile: eslPassword} {
		if err := os.WriteFile(file, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := "127.0.0.1:" + strconv.Itoa(freePort(t))
	o.url = "https://" + address
	o.settings = []string{
		"API_METRICS_ADDR=" + o.metrics, "API_ADDR=" + address, "API_TLS_CERT_FILE=" + certificate, "API_TLS_KEY_FILE=" + certificate,
		"API_PUBLIC_URL=" + o.url, "RECORDINGS_DIR=" + s.recordings(), "CDR_ADDR=" + records.Host, "CDR_URL=" + s.records,
		"CDR_CREDENTIALS_FILE=" + credentials, "WEBHOOK_ALLOW_NETWORKS=127.0.0.0/8", "WEBHOOK_CA_FILE=" + certificate,
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(certificate)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the scene's certificate: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	o.client = &http.Client{Transport: transport}
	o.operator = o.command(t, "operator", "add", "anna")
	for _, tenant := range []string{tenantA, tenantB} {
		o.command(t, "webhook", "set", tenant, o.w3.url)
		shop := &w3client.Client{URL: o.url, HTTP: o.client, Attempts: 3}
		for line := range strings.Lines(o.command(t, "secret", "add", tenant)) {
			switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
			case "BEARER_TOKEN":
				shop.Bearer = value
			case "HMAC_SECRET":
				shop.HMAC = value
			}
		}
		o.shops[tenant] = shop
	}
	o.w3.receiver.Trust(o.shops[tenantA].HMAC, o.shops[tenantB].HMAC)
	o.node(t, "add", "fs1", "-address", s.eslAddress(), "-password-file", o.passwordFile)
	return o
}

// start starts integration-api, with some settings replaced, and returns when the switch is connected.
func (o *office) start(t *testing.T, changes ...string) {
	t.Helper()
	o.starts++
	o.log = filepath.Join(o.s.dir, fmt.Sprintf("integration-api-%d.log", o.starts))
	log := o.log
	o.process = startServer(t, "integration-api", log, slices.Concat(o.s.env, o.settings, changes), filepath.Join(o.bin, "integration-api"), "serve")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of %s:\n%s", log, tail(log))
		}
	})
	eventually(t, 15*time.Second, func() error {
		if err := o.process.alive(); err != nil {
			t.Fatalf("%v\n%s", err, tail(log))
		}
		_, err := o.get(t, "/readyz")
		return err
	})
	o.expectUp(t)
}

// command runs integration-api to its end and returns what it printed.
func (o *office) command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(o.bin, "integration-api"), args...)
	cmd.Env = slices.Concat(o.s.env, o.settings)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("integration-api %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// order sends an operator's request about something of tenant A and returns the answer, which must have the wanted
// status.
func (o *office) order(t *testing.T, want int, method, path string, body any) map[string]any {
	t.Helper()
	id := o.s.id(t, `SELECT id FROM edgvoip.tenants WHERE slug = $1 AND $2 = ''`, "")
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	q, err := http.NewRequestWithContext(t.Context(), method, o.url+"/api/v1/admin/tenants/"+id+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+o.operator)
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	r, err := o.client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != want {
		t.Fatalf("%s %s: %d %s %v, want %d", method, path, r.StatusCode, answer, err, want)
	}
	var fields map[string]any
	if len(answer) > 0 {
		if err := json.Unmarshal(answer, &fields); err != nil {
			t.Fatalf("%s %s: %v\n%s", method, path, err, answer)
		}
	}
	return fields
}
