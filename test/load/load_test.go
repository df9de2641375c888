package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/numbering"
)

const captured = "../../internal/xmlcurl/testdata/captured"

func TestPercentile(t *testing.T) {
	t.Parallel()
	thousand := make([]time.Duration, 1000)
	for i := range thousand {
		thousand[i] = time.Duration(i + 1)
	}
	for _, tc := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{thousand, 0.5, 500},
		{thousand, 0.99, 990},
		{thousand, 1, 1000},
		{thousand[:3], 0.5, 2},
		{thousand[:3], 0.99, 3},
		{thousand[:1], 0.01, 1},
		{nil, 0.5, 0},
	} {
		if got := percentile(tc.sorted, tc.p); got != tc.want {
			t.Errorf("percentile %v of %d values is %d, want %d", tc.p, len(tc.sorted), got, tc.want)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	var ours, floor spread
	for _, v := range []float64{90, 40, 160} {
		ours.add(v)
	}
	for _, v := range []float64{100, 50, 200} {
		floor.add(v)
	}
	// Round by round, so that a slow round of both changes nothing.
	if r := ratio(ours, floor); r.Median != 0.8 || r.Min != 0.8 || r.Max != 0.9 {
		t.Errorf("ratio is %+v", r)
	}
	ours.add(100)
	if ours.finish(); ours.Median != 95 || ours.Min != 40 || ours.Max != 160 {
		t.Errorf("spread is %+v", ours)
	}
}

func TestTemplateFindsWholeWords(t *testing.T) {
	t.Parallel()
	tokens := []token{{"tenant-a.example", slotRealm}, {"tenant-a", slotContext}, {"1001", slotUser}}
	for _, tc := range []struct{ body, want string }{
		{"user=1001&at=x%401001%40tenant-a.example&context=tenant-a", "user=U&at=x%40U%40R&context=C"},
		{"n=1001&quoted=%221001%22&p=tenant-a-b&c=tenant-a&h=tenant-a.example.com&r=tenant-a.example", "n=U&quoted=%22U%22&p=C-b&c=C&h=R.com&r=R"},
		{"1001=11001&10012&id=a1001b&stamp=1795195114401001&tenant-a.example&tenant-a", "U=11001&10012&id=a1001b&stamp=1795195114401001&R&C"},
	} {
		tmpl, err := newTemplate(tc.body, tokens...)
		if err != nil {
			t.Errorf("%s: %v", tc.body, err)
			continue
		}
		if got := string(tmpl.render(nil, &values{slotRealm: "R", slotContext: "C", slotUser: "U"})); got != tc.want {
			t.Errorf("%s became %s, want %s", tc.body, got, tc.want)
		}
	}
	if _, err := newTemplate("user=11001", token{"1001", slotUser}); err == nil {
		t.Error("a body without its token was taken")
	}
}

// What is asked about an extension names nobody of the captured scene, and everybody whom it must name.
func TestQuestions(t *testing.T) {
	t.Parallel()
	templates, err := readQuestions(captured)
	if err != nil {
		t.Fatal(err)
	}
	const extension = 123*perTenant + 45
	for name, want := range map[string][]string{
		"directory": {
			"&key_value=tenant-00123.example&", "&sip_auth_username=1045&", "&sip_auth_realm=tenant-00123.example&",
			"&sip_to_user=1045&", "&sip_from_host=tenant-00123.example&", "&user=1045&domain=tenant-00123.example&",
		},
		"dialplan": {
			"&variable_user_name=1045&variable_domain_name=tenant-00123.example&", "&Hunt-Context=tenant-00123&",
			"&Hunt-Destination-Number=1046&", "&variable_sip_full_to=%3Csip%3A1046%40tenant-00123.example%3E&",
		},
		"dialplan-public": {"&variable_user_name=1045&", "&Hunt-Destination-Number=%2B393330000000&"},
		"dialplan-did":    {"&Hunt-Context=public&", "&Hunt-Destination-Number=0610012345&", "&Hunt-Network-Addr=127.0.0.1&"},
	} {
		var q question
		templates.workload(name).ask(&q, extension, 0)
		for _, text := range want {
			if !strings.Contains(string(q.body), text) {
				t.Errorf("%s does not ask with %s: %s", name, text, q.body)
			}
		}
		if left := regexp.MustCompile(`tenant-a|\b(1001|1002|0612345678)\b`).Find(q.body); left != nil {
			t.Errorf("%s still holds %s", name, left)
		}
	}
}

// Every name and number is one that the program under test takes, and of one length.
func TestPopulation(t *testing.T) {
	t.Parallel()
	italy, err := numbering.NewCountry("IT")
	if err != nil {
		t.Fatal(err)
	}
	normal := func(dialled, want string) {
		t.Helper()
		d, err := fstext.NewDialled(dialled)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := numbering.Normalise(italy, d); err != nil || want != "" && n.String() != want {
			t.Errorf("%s is read as %s, %v, want %s", dialled, n, err, want)
		}
	}
	p := population{maxExtensions}
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		e := p.nth(r.IntN(p.extensions))
		_, err1 := fstext.NewRealm(realm(tenantOf(e)))
		_, err2 := fstext.NewSlug(slug(tenantOf(e)))
		_, err3 := fstext.NewExtension(number(e))
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		if len(realm(tenantOf(e))) != len(realm(0)) || len(number(e)) != len(number(0)) {
			t.Fatalf("names of extension %d are longer than those of the first", e)
		}
		called := neighbour(e, r.Uint64())
		if called == e || tenantOf(called) != tenantOf(e) {
			t.Fatalf("extension %d calls %d", e, called)
		}
		s := "+" + public(r.Uint64())
		normal(s, s)
		normal(nobodysNumber(r.IntN(1e7)), "")
		s = fmt.Sprint("+", did(e))
		normal(s[len("+39"):], s)
	}
}

func TestNthVisitsEveryExtensionOnce(t *testing.T) {
	t.Parallel()
	p := population{2000}
	seen := map[int]bool{}
	for n := range p.extensions {
		seen[p.nth(n)] = true
	}
	if len(seen) != p.extensions {
		t.Errorf("%d of %d extensions are asked for", len(seen), p.extensions)
	}
}

// The captured answer for 1001@tenant-a.example with its password passes, and no other.
func TestCheck(t *testing.T) {
	t.Parallel()
	xml, err := os.ReadFile(filepath.Join(captured, capturedRegister+".xml"))
	if err != nil {
		t.Fatal(err)
	}
	right := string(xml)
	q := question{
		body: []byte("section=directory&user=1001&domain=tenant-a.example&sip_auth_response=0123"),
		wants: []string{
			`<domain name="tenant-a.example">`, `<user id="1001">`, `<param name="a1-hash" value="bfcd8aaf474785981919d28b9b8488d8"/>`,
		},
		bans: []string{`application="bridge"`},
	}
	if err := q.check(answer{200, xml}); err != nil {
		t.Errorf("the right answer: %v", err)
	}
	for name, tc := range map[string]struct {
		status int
		body   string
	}{
		"another user":     {200, strings.ReplaceAll(right, "1001", "1002")},
		"another password": {200, strings.Replace(right, "bfcd8aaf", "00000000", 1)},
		"another domain":   {200, strings.ReplaceAll(right, "tenant-a", "tenant-b")},
		"a bridge":         {200, right + `<action application="bridge" data="x"/>`},
		"a fault":          {503, right},
		"nothing":          {200, ""},
	} {
		err := q.check(answer{tc.status, []byte(tc.body)})
		if err == nil {
			t.Errorf("%s passed", name)
			continue
		}
		if s := err.Error(); !strings.Contains(s, "user=1001 domain=tenant-a.example") || regexp.MustCompile(`[0-9a-f]{32}|0123`).MatchString(s) {
			t.Errorf("%s: the error does not say what was asked, or says a secret: %s", name, s)
		}
	}
}

func TestParseAnswer(t *testing.T) {
	t.Parallel()
	const whole = "HTTP/1.1 503 Service Unavailable\r\nDate: x\r\nContent-Length: 5\r\nX-Request-Id: 1\r\n\r\nhello"
	for n := range len(whole) {
		if _, complete, err := parseAnswer([]byte(whole[:n])); complete || err != nil {
			t.Fatalf("%q: complete %v, %v", whole[:n], complete, err)
		}
	}
	if a, complete, err := parseAnswer([]byte(whole)); !complete || err != nil || a.status != 503 || string(a.body) != "hello" {
		t.Errorf("%d %q, complete %v, %v", a.status, a.body, complete, err)
	}
	for _, bad := range []string{
		"\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 xxx\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
	} {
		if _, _, err := parseAnswer([]byte(bad)); !errors.Is(err, errNotHTTP) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestArrivals(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	if due := arrivals("constant", 1000, time.Second, r); len(due) != 1000 || due[1]-due[0] != time.Millisecond {
		t.Errorf("%d arrivals, the second after %v", len(due), due[1]-due[0])
	}
	due := arrivals("poisson", 1000, 100*time.Second, r)
	// Within five standard deviations of their number; and the gaps scatter as much as they are long.
	if n := float64(len(due)); math.Abs(n-100_000) > 5*math.Sqrt(100_000) {
		t.Errorf("%d arrivals in 100 s of 1000/s", len(due))
	}
	var squares float64
	for i := 1; i < len(due); i++ {
		squares += math.Pow((due[i]-due[i-1]).Seconds()*1000-1, 2)
	}
	if variance := squares / float64(len(due)); variance < 0.9 || variance > 1.1 {
		t.Errorf("gaps have a variance of %.2f of their mean's square, want 1", variance)
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	u, err := parseStat("42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 100 1000000 3 18446744073709551615\n")
	if err != nil || u.cpu != 2*time.Second || u.rss != 3*int64(os.Getpagesize()) {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := parseStat("42 (x) S 1 2 3"); err == nil {
		t.Error("a short line was taken")
	}
	m, err := parseMachine("cpu  100 20 30 4000 500 6 7 8 50 20\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
	if err != nil || m.used != 1710*time.Millisecond || m.all != 46710*time.Millisecond {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := parseMachine("cpu0 1 2 3 4 5 6 7 8 9 10\n"); err == nil {
		t.Error("one processor was taken for all")
	}
}

func TestParseLoaded(t *testing.T) {
	t.Parallel()
	const others = "# HELP xmlcurl_model_entries Entries of the model.\nxmlcurl_model_entries{of=\"domains\"} 7\n"
	if n, known, err := parseLoaded(others + "xmlcurl_model_entries{of=\"extension_names\"} 1.2e+06\nx 1\n"); n != 1.2e6 || !known || err != nil {
		t.Errorf("%v, %v, %v", n, known, err)
	}
	if _, known, err := parseLoaded(others); known || err != nil {
		t.Errorf("without the metric: %v, %v", known, err)
	}
}

// The floor and the client together, over real connections: all questions are counted, and a wrong answer is a failure
// that says what was asked.
func TestFloor(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "document")
	if err := os.WriteFile(file, []byte("<document/>"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	read, write := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- floor(ctx, []string{"-document", file}, write) }()
	var listening struct{ Addr string }
	line, err := bufio.NewReader(read).ReadBytes('\n')
	if err := errors.Join(err, json.Unmarshal(line, &listening)); err != nil {
		t.Fatal(err)
	}
	server, err := newTarget(listening.Addr, "load:secret")
	if err != nil {
		t.Fatal(err)
	}
	asking := func(want string) plan {
		return plan{clients: 4, count: 200, write: func(q *question, _ *rand.Rand, _ int) {
			q.body = append(q.body, "section=directory&user=1007"...)
			q.wants = append(q.wants, want)
		}}
	}
	if o := drive(ctx, server, asking("<document/>")); len(o.latencies) != 200 || o.failed != 0 || o.rate() <= 0 {
		t.Errorf("%d right answers and %d failures, want 200 and none: %v", len(o.latencies), o.failed, o.failure)
	}
	o := drive(ctx, server, asking("1007"))
	if len(o.latencies) != 0 || o.failed < tooMany || o.failed >= 200 || o.failure == nil || !strings.Contains(o.failure.Error(), "user=1007") {
		t.Errorf("%d right answers and %d failures, want none and about %d: %v", len(o.latencies), o.failed, tooMany, o.failure)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("the floor ended with %v", err)
	}
	if o := drive(t.Context(), server, asking("<document/>")); o.failed == 0 || !strings.Contains(o.failure.Error(), "connect") {
		t.Errorf("a server that is gone: %v", o.failure)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "xmlcurl")
	if err := os.WriteFile(program, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string // in the error; empty means none
	}{
		{nil, ""},
		{[]string{"-extensions", "1000,100000"}, ""},
		{[]string{"-extensions", "1000,150"}, "-extensions"},
		{[]string{"-extensions", "0"}, "-extensions"},
		{[]string{"-workload", "directory,nonsense"}, "-workload"},
		{[]string{"-env", "KEY"}, "-env"},
		{[]string{"-clients", "0"}, "-clients"},
		{[]string{"-rate", "-1"}, "-rate"},
		{[]string{"-round", "10ms"}, "-round"},
		{[]string{"-rounds", "0"}, "-rounds"},
		{[]string{"-choice", "nonsense"}, "-choice"},
		{[]string{"-warm", "true"}, "-warm"},
		{[]string{"-arrivals", "nonsense"}, "-arrivals"},
		{[]string{"-against", "/nowhere/xmlcurl"}, "-against"},
		{[]string{"scna"}, "scna"},
	} {
		_, err := parseOptions(append([]string{"-xmlcurl", program}, tc.args...), io.Discard)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%q: %v, want %q", tc.args, err, tc.want)
		}
	}
	o, err := parseOptions([]string{"scan", "-xmlcurl", program, "-names", "5"}, io.Discard)
	if err != nil || !o.scanning || o.unknown != 5 {
		t.Errorf("scan: %+v, %v", o, err)
	}
}
