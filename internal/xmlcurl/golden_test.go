package xmlcurl_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/golden"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
)

const credentials = "freeswitch:a long password"

func switchSettings() xmlcurl.SwitchSettings {
	return xmlcurl.SwitchSettings{
		SIPIP: fstext.Const("auto"), RTPIP: fstext.Const("auto"), SIPPort: 5060, TLSPort: 5061, WSSPort: 8443, ExternalPort: 5080,
		ExternalTLSPort: 5081, TLS: true, TLSCertDir: fstext.Const("/etc/freeswitch/tls"), AuthAlgorithms: fstext.Const("MD5"),
	}
}

// newServer returns a server over a store, and what it logs.
func newServer(tb testing.TB, store xmlcurl.Store, change ...func(*xmlcurl.Options)) (*httpd.Server, *strings.Builder) {
	tb.Helper()
	var lines strings.Builder
	log, err := telemetry.NewLogger(&lines, telemetry.FormatJSON, "info")
	if err != nil {
		tb.Fatal(err)
	}
	registry := telemetry.NewRegistry()
	o := xmlcurl.Options{
		Store: store, Keys: storetest.Keys(), Switch: switchSettings(), Credentials: credentials, Registry: registry, Log: log,
	}
	for _, c := range change {
		c(&o)
	}
	h, err := xmlcurl.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	s := httpd.New(httpd.Options{Name: "xmlcurl", BodyLimit: xmlcurl.BodyLimit, Registry: registry, Log: log})
	h.Register(s)
	return s, &lines
}

func request(tb testing.TB, method, path, body string) *http.Request {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(credentials)))
	return r
}

func send(tb testing.TB, s *httpd.Server, r *http.Request) (int, string) {
	tb.Helper()
	resp, err := s.App().Test(r, -1)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() {
		if err := resp.Body.Close(); err != nil {
			tb.Error(err)
		}
	}()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// lookup sends a body as FreeSWITCH does and returns the document.
func lookup(tb testing.TB, s *httpd.Server, body string) string {
	tb.Helper()
	status, doc := send(tb, s, request(tb, http.MethodPost, "/xml", body))
	if status != http.StatusOK {
		tb.Fatalf("status %d: %s", status, doc)
	}
	checkDocument(tb, doc)
	return doc
}

// checkDocument checks what FreeSWITCH's pre-processor and parser need of any document.
func checkDocument(tb testing.TB, doc string) {
	tb.Helper()
	if err := etree.NewDocument().ReadFromString(doc); err != nil {
		tb.Errorf("not well-formed: %v", err)
	}
	for line := range strings.Lines(doc) {
		if strings.Count(line, "<") != 1 || !strings.HasPrefix(line, "<") {
			tb.Errorf("not one tag on the line: %s", line)
		}
		for _, bad := range []string{"$", "<!", "<?", "<include>", "</include>"} {
			if strings.Contains(line, bad) {
				tb.Errorf("%s on the line: %s", bad, line)
			}
		}
		if strings.Contains(strings.ToLower(line), "x-pre-process") {
			tb.Errorf("directive on the line: %s", line)
		}
	}
}

// Every body that was captured from a FreeSWITCH 1.11.1 gets its document, byte for byte that of the golden file.
func TestCapturedRequests(t *testing.T) {
	t.Parallel()
	forms, err := filepath.Glob("testdata/captured/*.form")
	if err != nil || len(forms) == 0 {
		t.Fatal("no captured requests", err)
	}
	s, _ := newServer(t, storetest.Scene(t))
	for _, form := range forms {
		t.Run(strings.TrimSuffix(filepath.Base(form), ".form"), func(t *testing.T) {
			t.Parallel()
			body, err := os.ReadFile(form)
			if err != nil {
				t.Fatal(err)
			}
			doc := lookup(t, s, string(body))
			golden.Check(t, strings.TrimSuffix(form, ".form")+".xml", []byte(doc))
		})
	}
}

// A store that cannot answer gives 503 and never a document.
func TestFaultIsNoAnswer(t *testing.T) {
	t.Parallel()
	s, lines := newServer(t, brokenStore{storetest.Scene(t)})
	for _, name := range []string{"directory-sofia_reg_parse_auth-sip_auth-REGISTER-domain", "dialplan-tenant-a-1002-internal", "configuration-acl"} {
		body, err := os.ReadFile(filepath.Join("testdata/captured", name+".form"))
		if err != nil {
			t.Fatal(err)
		}
		status, text := send(t, s, request(t, http.MethodPost, "/xml", string(body)))
		if status != http.StatusServiceUnavailable || strings.Contains(text, errBroken.Error()) {
			t.Errorf("%s: status %d, body %q; want 503 and nothing about the cause", name, status, text)
		}
	}
	if n := strings.Count(lines.String(), errBroken.Error()); n != 3 {
		t.Errorf("cause logged %d times, want 3:\n%s", n, lines)
	}
}

var errBroken = errors.New("the disk is on fire")

// A switch that keeps users uses what it fetched for one purpose for all others: they must be the same document.
func TestCachedUserServesAllPurposes(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t, storetest.Scene(t), func(o *xmlcurl.Options) { o.CacheUsers = func() time.Duration { return time.Minute } })
	var first string
	for _, name := range []string{"sofia_reg_parse_auth-sip_auth-REGISTER", "sofia_reg_parse_auth-sip_auth-INVITE", "user_outgoing_channel-user_call", "switch_xml_locate_user"} {
		body, err := os.ReadFile("testdata/captured/directory-" + name + "-domain.form")
		if err != nil {
			t.Fatal(err)
		}
		form := regexp.MustCompile(`\b1002\b`).ReplaceAll(body, []byte("1001"))
		doc := lookup(t, s, string(form))
		if first == "" {
			first = doc
		}
		if doc != first {
			t.Errorf("%s gets\n%s\nand not\n%s", name, doc, first)
		}
	}
	for _, want := range []string{`cacheable="60000"`, `name="sip-force-extension" value="1001"`} {
		if !strings.Contains(first, want) {
			t.Errorf("without %s:\n%s", want, first)
		}
	}
	if strings.Contains(first, "sip-force-contact") {
		t.Errorf("holds the contact of one phone:\n%s", first)
	}
}
