package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/internal/testlog"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
	"github.com/edgvoip/edgvoip/trunk"
)

// The population: tenants of members extensions from firstMember, with a DID for each, and of spares, whose extensions
// are suspended and whose DIDs are moved while the others are called. One carrier brings all calls, so that a number in
// national form is looked for in two countries.
var tenants = []struct {
	slug, country string
	did           int64  // the first one
	national      string // what stands for the country's code where the number is called at home
	subscriber    string // of the public network, as dialled at home
}{
	{"tenant-a", "IT", 390612345000, "", "0698765432"},
	{"tenant-b", "IT", 390612346000, "", "0698765433"},
	{"tenant-c", "DE", 493012345000, "0", "03012349999"},
}

const (
	members, firstMember = 100, 1000
	spares               = 10
)

func realmOf(slug string) string { return slug + ".example" }

// loginOf is what an extension's phone logs in with.
func loginOf(number int) string {
	if number%5 == 0 {
		return "User." + strconv.Itoa(number)
	}
	return strconv.Itoa(number)
}

// populate puts the population into a store.
func populate(s storetest.Sink) {
	plus := func(n int64) string { return fmt.Sprintf("+%d", n) }
	for _, tn := range tenants {
		realm := realmOf(tn.slug)
		s.AddDomain(directory.Domain{ID: storetest.DomainID(realm), Realm: storetest.Realm(realm), Tenant: storetest.Tenant(tn.slug, tn.country, true), Active: true})
		for n := firstMember; n < firstMember+members+spares; n++ {
			s.AddExtension(storetest.Extension(tn.slug, realm, strconv.Itoa(n), loginOf(n)))
		}
		s.AddTrunk(storetest.Trunk(tn.slug, "first", 10, 5090, plus(tn.did)),
			trunk.Range{First: storetest.E164(plus(tn.did)), Last: storetest.E164(plus(tn.did + members - 1))})
		var moved []trunk.Range
		for n := tn.did + members; n < tn.did+members+spares; n++ {
			moved = append(moved, trunk.Range{First: storetest.E164(plus(n)), Last: storetest.E164(plus(n))})
		}
		s.AddTrunk(storetest.Trunk(tn.slug, "second", 20, 5091, plus(tn.did)), moved...)
	}
}

// question is a lookup with its right answer.
type question struct{ body, want string }

// form returns a captured body with other values in some fields, escaped as FreeSWITCH does.
func form(tb testing.TB, name string, values map[string]string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("../../internal/xmlcurl/testdata/captured", name+".form"))
	if err != nil {
		tb.Fatal(err)
	}
	fields := strings.Split(strings.TrimSuffix(string(b), "\n"), "&")
	for i, f := range fields {
		if name, _, _ := strings.Cut(f, "="); values[name] != "" {
			fields[i] = name + "=" + strings.ReplaceAll(url.QueryEscape(values[name]), "+", "%20")
		}
	}
	return strings.Join(fields, "&")
}

func registration(tb testing.TB, realm, user string) string {
	tb.Helper()
	return form(tb, "directory-sofia_reg_parse_auth-sip_auth-REGISTER-domain", map[string]string{
		"key_value": realm, "domain": realm, "sip_auth_realm": realm, "sip_to_host": realm, "sip_from_host": realm,
		"user": user, "sip_auth_username": user, "sip_to_user": user, "sip_from_user": user, "sip_contact_user": user,
	})
}

func callFrom(tb testing.TB, slug, user, dialled string) string {
	tb.Helper()
	return form(tb, "dialplan-tenant-a-1002-internal", map[string]string{
		"Hunt-Context": slug, "Hunt-Destination-Number": dialled, "variable_user_name": user, "variable_domain_name": realmOf(slug),
	})
}

func callFromCarrier(tb testing.TB, dialled string) string {
	tb.Helper()
	return form(tb, "dialplan-public-0612345678-external", map[string]string{"Hunt-Destination-Number": dialled})
}

// questions returns lookups of known users and known calls, of every kind in turn, with the answers that a store in
// memory gives.
func questions(tb testing.TB) []question {
	tb.Helper()
	answer := oracle(tb)
	var list []question
	add := func(body, mark string) {
		doc := answer(body)
		if !strings.Contains(doc, mark) {
			tb.Fatalf("the answer to\n%s\nlacks %s:\n%s", body, mark, doc)
		}
		list = append(list, question{body, doc})
	}
	for i := range members {
		for _, tn := range tenants {
			realm, number, did := realmOf(tn.slug), firstMember+i, tn.did+int64(i)
			callee := strconv.Itoa(firstMember + (i+1)%members)
			add(registration(tb, realm, loginOf(number)), secret.HA1MD5(loginOf(number), realm, "pw"+strconv.Itoa(number)))
			add(callFrom(tb, tn.slug, loginOf(number), callee), "edgvoip_callee_id="+storetest.ExtensionID(realm, callee).String())
			add(callFromCarrier(tb, fmt.Sprintf("+%d", did)), fmt.Sprintf("edgvoip_did=+%d", did))
			add(callFromCarrier(tb, tn.national+strconv.FormatInt(did, 10)[2:]), fmt.Sprintf("edgvoip_did=+%d", did))
			add(callFrom(tb, tn.slug, loginOf(number), "+393331234567"), "/+393331234567")
			add(callFrom(tb, tn.slug, loginOf(number), tn.subscriber), "sofia/gateway/"+storetest.TrunkID(tn.slug, "first").String())
		}
	}
	return list
}

const loginOfSwitch = "freeswitch:a long password"

// oracle answers as xmlcurl would from a store in memory.
func oracle(tb testing.TB) func(body string) string {
	tb.Helper()
	store := &memstore.Store{}
	populate(store)
	registry, log := telemetry.NewRegistry(), slog.New(slog.DiscardHandler)
	h, err := xmlcurl.New(xmlcurl.Options{Store: store, Keys: storetest.Keys(), Credentials: loginOfSwitch, Registry: registry, Log: log})
	if err != nil {
		tb.Fatal(err)
	}
	server := httpd.New(httpd.Options{Name: "oracle", BodyLimit: xmlcurl.BodyLimit, Registry: registry, Log: log})
	h.Register(server)
	return func(body string) string {
		r := httptest.NewRequestWithContext(tb.Context(), http.MethodPost, "/xml", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("freeswitch", "a long password")
		resp, err := server.App().Test(r, -1)
		if err != nil {
			tb.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		doc, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			tb.Fatalf("%d, %v: %s", resp.StatusCode, err, body)
		}
		return string(doc)
	}
}

// patience is how long a caller waits for an answer before it counts as none. FreeSWITCH waits two seconds, on a
// machine that does nothing else.
const patience = 10 * time.Second

// ask sends one request over a connection of its own, as FreeSWITCH does. n spreads callers over addresses, as each
// connection occupies a port for a minute. dialled tells whether there was a connection.
func ask(ctx context.Context, addr, method, path, body string, n int) (status int, doc string, dialled bool, err error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+n%8))}, Control: portLater}
	c, err := d.DialContext(ctx, "tcp4", addr)
	if err != nil {
		return 0, "", false, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, "", true, err
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\nContent-Length: %d\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n%s",
		method, path, addr, base64.StdEncoding.EncodeToString([]byte(loginOfSwitch)), len(body), body); err != nil {
		return 0, "", true, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", true, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), true, err
}

// xml is a running xmlcurl, in this process.
type xml struct {
	*testing.T
	addr  string
	stop  context.CancelFunc
	done  chan struct{} // closed when it has ended
	ended error
	log   *testlog.Lines
}

// start runs xmlcurl until the test ends, or stop is called.
func start(t *testing.T, changes ...string) *xml {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	x := &xml{T: t, stop: stop, done: make(chan struct{}), log: &testlog.Lines{}}
	env := environment(t, changes...)
	listening := make(chan string, 1)
	go func() {
		defer close(x.done)
		x.ended = run(ctx, nil, env, io.Discard, io.MultiWriter(x.log, announcement(listening)))
	}()
	t.Cleanup(x.end)
	select {
	case x.addr = <-listening:
	case <-x.done:
		t.Fatalf("did not start: %v\n%s", x.ended, x.log)
	}
	return x
}

// announcement is a writer that finds the address in the log line that tells it.
type announcement chan<- string

// Write implements io.Writer.
func (a announcement) Write(b []byte) (int, error) {
	var line struct{ Msg, Addr string }
	if json.Unmarshal(b, &line) == nil && line.Msg == "listening" {
		a <- line.Addr
	}
	return len(b), nil
}

// end stops it and waits.
func (x *xml) end() {
	x.Helper()
	x.stop()
	<-x.done
	if x.ended != nil {
		x.Errorf("stopped with %v", x.ended)
	}
}

// lookup asks and returns what is answered, whatever it is.
func (x *xml) lookup(body string) (int, string) {
	x.Helper()
	status, doc, _, err := ask(x.Context(), x.addr, http.MethodPost, "/xml", body, 0)
	if err != nil {
		x.Fatalf("no answer: %v", err)
	}
	return status, doc
}

// age is what xmlcurl_data_age_seconds says.
func (x *xml) age() float64 {
	x.Helper()
	return x.metric("xmlcurl_data_age_seconds")
}

// distrusted is how often everything was.
func (x *xml) distrusted() float64 {
	x.Helper()
	return x.metric("xmlcurl_model_distrusted_total")
}

// metric is the value of a metric without labels.
func (x *xml) metric(name string) float64 {
	x.Helper()
	_, metrics, _, err := ask(x.Context(), x.addr, http.MethodGet, "/metrics", "", 0)
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(metrics)
	if err != nil || m == nil {
		x.Fatalf("no %s among the metrics: %v", name, err)
	}
	value, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		x.Fatal(err)
	}
	return value
}

// until waits for something that comes by itself, and says how long that took.
func (x *xml) until(what string, done func() bool) time.Duration {
	x.Helper()
	begun := time.Now()
	for !done() {
		if time.Since(begun) > 30*time.Second {
			x.Fatalf("waited in vain until %s\n%s", what, x.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(begun)
}

// refusesUnknown checks that nothing is said of names that it does not know: they may have been created a moment ago.
func (x *xml) refusesUnknown() {
	x.Helper()
	for name, body := range map[string]string{
		"user":   registration(x, realmOf("tenant-a"), "1999"),
		"domain": registration(x, "elsewhere.example", "1001"),
		"DID":    callFromCarrier(x, "+390699999999"),
	} {
		if status, doc := x.lookup(body); status != http.StatusServiceUnavailable {
			x.Errorf("unknown %s: %d, want 503\n%s", name, status, doc)
		}
	}
}

// load asks questions at a rate, whatever becomes of those before, and checks every answer. Phases are entered by one
// goroutine, which reports them when run has returned.
type load struct {
	addr   string
	list   []question
	phase  atomic.Pointer[phase] // the last one
	all    sync.WaitGroup
	phases []*phase
}

// rate is how many questions are asked a second: fewer under the race detector, which makes everything ten times
// slower.
var rate = func() time.Duration {
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 100
	}
	return 500
}()

// run asks until ctx ends, and waits for the last answer. A question belongs to the phase in which it was due; its time
// runs from then on.
func (l *load) run(ctx context.Context) {
	begun := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		due := begun.Add(time.Duration(n) * time.Second / rate)
		time.Sleep(time.Until(due))
		p := l.phase.Load()
		l.all.Go(func() {
			q := l.list[n%len(l.list)]
			fault := q.fault(context.WithoutCancel(ctx), l.addr, n)
			p.note(q, time.Since(due), fault)
		})
	}
	l.all.Wait()
}

// fault asks and tells what is wrong with the answer, if anything is.
func (q question) fault(ctx context.Context, addr string, n int) string {
	switch status, doc, _, err := ask(ctx, addr, http.MethodPost, "/xml", q.body, n); {
	case err != nil:
		return fmt.Sprintf("no answer: %v", err)
	case status != http.StatusOK:
		return fmt.Sprintf("%d to %s", status, summary(q.body))
	case doc != q.want:
		return fmt.Sprintf("wrong answer to %s: %s\nwant %s", summary(q.body), doc, q.want)
	}
	return ""
}

// summary is what a body asks, in short.
func summary(body string) string {
	var parts []string
	for f := range strings.SplitSeq(body, "&") {
		name, _, _ := strings.Cut(f, "=")
		if slices.Contains([]string{"section", "user", "domain", "Hunt-Context", "Hunt-Destination-Number", "variable_user_name"}, name) {
			parts = append(parts, f)
		}
	}
	return strings.Join(parts, " ")
}

// enter ends a phase and begins the next.
func (l *load) enter(name string) {
	p := &phase{name: name}
	l.phases = append(l.phases, p)
	l.phase.Store(p)
}

func (l *load) report(tb testing.TB) {
	tb.Helper()
	for _, p := range l.phases {
		p.report(tb)
	}
}

// phase is what was seen between two events.
type phase struct {
	name   string
	mu     sync.Mutex
	took   []time.Duration
	max    time.Duration
	slow   question // which took that
	failed int
	faults []string // the first few
}

func (p *phase) note(q question, took time.Duration, fault string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if took >= p.max {
		p.max, p.slow = took, q
	}
	p.took = append(p.took, took)
	if fault == "" {
		return
	}
	if p.failed++; len(p.faults) < 5 {
		p.faults = append(p.faults, fault)
	}
}

func (p *phase) report(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.took)
	at := func(share float64) time.Duration {
		return p.took[int(share*float64(len(p.took)-1))].Round(10 * time.Microsecond)
	}
	if len(p.took) == 0 {
		tb.Errorf("%s: nothing was asked", p.name)
		return
	}
	tb.Attr("figure", fmt.Sprintf("%-22s %6d lookups, p50 %8v, p99 %8v, max %8v: %s", p.name, len(p.took), at(.5), at(.99), at(1), summary(p.slow.body)))
	if p.failed > 0 {
		tb.Errorf("%s: %d of %d lookups failed:\n%s", p.name, p.failed, len(p.took), strings.Join(p.faults, "\n"))
	}
}

// portLater leaves the choice of a port to connect: bind alone would look for one that nobody uses with anybody, which
// takes long after some ten thousand connections.
func portLater(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		const bindAddressNoPort = 24 // IP_BIND_ADDRESS_NO_PORT (linux/in.h)
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, bindAddressNoPort, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// newCluster starts a server, to be killed, that holds the population.
func newCluster(t *testing.T) *testdb.Cluster {
	t.Helper()
	c := testdb.NewCluster(t)
	db, err := postgres.Open(postgres.Options{URL: c.DSN}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	populateTables(t, c.DSN)
	return c
}

// execute changes something in a database, over a connection of its own.
func execute(t *testing.T, dsn, statement string, args ...any) {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	storetest.SQL{TB: t, DB: db}.Exec(statement, args...)
}

// spare is an extension of the first tenant, and a DID, that are changed while others are asked for.
type spare struct {
	extension string
	did       int64
}

func spareOf(round int) spare {
	return spare{loginOf(firstMember + members + round), tenants[0].did + members + int64(round)}
}

// change suspends the extension and gives the DID to the second tenant.
func (s spare) change(t *testing.T, dsn string) {
	t.Helper()
	execute(t, dsn, `UPDATE edgvoip.sip_extensions SET status = 'suspended' WHERE domain_id = $1 AND sip_username = $2`,
		storetest.DomainID(realmOf(tenants[0].slug)), s.extension)
	execute(t, dsn, `UPDATE edgvoip.sip_trunk_did_ranges SET tenant_id = $1, trunk_id = $2 WHERE first_number = $3`,
		storetest.TenantID(tenants[1].slug), storetest.TrunkID(tenants[1].slug, "first"), s.did)
}

// changed tells whether both are answered as after the change. A fault is none of both answers.
func (s spare) changed(x *xml) (changed bool) {
	x.Helper()
	status1, user := x.lookup(registration(x, realmOf(tenants[0].slug), s.extension))
	status2, call := x.lookup(callFromCarrier(x, fmt.Sprintf("+%d", s.did)))
	if status1 != http.StatusOK || status2 != http.StatusOK {
		x.Fatalf("%d to extension %s, %d to DID %d", status1, s.extension, status2, s.did)
	}
	tenant := func(n int) bool { return strings.Contains(call, storetest.TenantID(tenants[n].slug).String()) }
	if tenant(0) == tenant(1) {
		x.Fatalf("DID %d belongs to nobody: %s", s.did, call)
	}
	return !strings.Contains(user, "a1-hash") && tenant(1)
}

// trial is a running xmlcurl under load, and what can be done to it.
type trial struct {
	*testing.T
	server *testdb.Cluster
	wire   *wire
	x      *xml
	load   *load
	round  int
}

// change changes the next spare names. They are known, unchanged, before.
func (r *trial) change() {
	r.Helper()
	if s := spareOf(r.round); s.changed(r.x) {
		r.Fatalf("%+v is changed already", s)
	}
	spareOf(r.round).change(r.T, r.server.DSN)
	r.round++
}

// recovers checks that the last change shows by itself, as the data are new again.
func (r *trial) recovers() {
	r.Helper()
	s := spareOf(r.round - 1)
	r.Logf("the last change showed within %v", r.x.until("a change shows", func() bool { return s.changed(r.x) }).Round(time.Millisecond))
	r.x.until("the data are new", func() bool { return r.x.age() < 3 })
	time.Sleep(2 * time.Second) // as it is from now on
}

// outage waits until the database counts as away, and checks what is said of names that are not known.
func (r *trial) outage() {
	r.Helper()
	r.x.until("the data grow old", func() bool { return r.x.age() > 6 })
	r.x.refusesUnknown()
}

// Whatever becomes of PostgreSQL, known users and known calls get their right answers, unknown names get none, and once
// it is back, changes show without a restart.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	r := &trial{T: t, server: newCluster(t), load: &load{list: questions(t)}}
	var dsn string
	r.wire, dsn = newWire(t, r.server.DSN)
	// What a machine that is too busy refuses is not what this is about.
	r.x = start(t, "DATABASE_URL="+dsn, "XMLCURL_MAX_CONNECTIONS=65536")
	r.load.addr = r.x.addr
	r.x.answers(r.load.list) // they are known from now on
	for round := range spares {
		if spareOf(round).changed(r.x) {
			t.Fatal("changed already")
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	r.load.enter("steady")
	done := make(chan struct{})
	go func() {
		r.load.run(ctx)
		close(done)
	}()
	defer func() {
		stop()
		<-done
		r.load.report(t)
	}()
	time.Sleep(3 * time.Second)
	r.change()
	r.recovers()

	r.load.enter("killed with -9")
	r.server.Kill()
	time.Sleep(3 * time.Second)
	r.load.enter("started after the kill")
	r.server.Resume()
	r.change()
	r.recovers()

	r.load.enter("stopped for 20 s")
	r.server.Halt()
	halted := time.Now()
	r.outage()
	time.Sleep(20*time.Second - time.Since(halted))
	if age := r.x.age(); age < 15 {
		t.Errorf("20 s after the database stopped, the data are said to be %v s old", age)
	}
	r.load.enter("started again")
	r.server.Resume()
	r.change()
	r.recovers()

	r.load.enter("black hole")
	r.wire.set(swallowing)
	r.outage()
	r.change()
	r.load.enter("after the black hole")
	r.wire.set(passing)
	r.recovers()

	r.load.enter("slow")
	r.wire.set(delaying)
	r.change()
	r.recovers()
	r.load.enter("recovered")
	r.wire.set(passing)
	r.change()
	r.recovers()
}

// A process that starts while PostgreSQL is away answers what another one knew, says nothing of the rest, and learns
// what has changed when PostgreSQL is back.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	direct := testdb.New(t)
	populateTables(t, direct)
	w, dsn := newWire(t, direct)
	file := filepath.Join(t.TempDir(), "snapshot")
	env := []string{"DATABASE_URL=" + dsn, "XMLCURL_SNAPSHOT_FILE=" + file, "XMLCURL_SNAPSHOT_INTERVAL=1s"}
	list := questions(t)

	first := start(t, env...)
	first.answers(list)
	if spareOf(0).changed(first) {
		t.Fatal("changed already")
	}
	first.end() // which writes it
	holdsNoSecret(t, file)

	w.set(refusing)
	second := start(t, env...)
	second.answers(list)
	second.refusesUnknown()
	if age := second.age(); age <= 0 {
		t.Errorf("the data are said to be %v s old", age)
	}
	spareOf(0).change(t, direct)
	if spareOf(0).changed(second) {
		t.Error("it knows of a change that it cannot know of")
	}
	w.set(passing)
	second.until("the change shows", func() bool { return spareOf(0).changed(second) })
	second.answers(list)
	second.end()

	w.set(refusing)
	tooOld(t, environment(t, env...), list[0].body)
	damaged(t, env, file, list[0].body)
}

func populateTables(t *testing.T, dsn string) {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	populate(storetest.SQL{TB: t, DB: db})
}

// answers checks the answers to questions.
func (x *xml) answers(list []question) {
	x.Helper()
	for n, q := range list {
		if fault := q.fault(x.Context(), x.addr, n); fault != "" {
			x.Fatal(fault)
		}
	}
}

// holdsNoSecret checks that a snapshot is its owner's alone, and has nothing in it that a phone could log in with.
func holdsNoSecret(t *testing.T, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(realmOf(tenants[0].slug))) {
		t.Error("there is nothing in it, or it cannot be looked into")
	}
	for _, tn := range tenants {
		for n := firstMember; n < firstMember+members; n++ {
			user, realm, password := loginOf(n), realmOf(tn.slug), "pw"+strconv.Itoa(n)
			for _, s := range []string{secret.HA1MD5(user, realm, password), secret.HA1SHA256(user, realm, password)} {
				binary, err := hex.DecodeString(s)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(b, []byte(s)) || bytes.Contains(b, []byte(strings.ToUpper(s))) || bytes.Contains(b, binary) {
					t.Errorf("an A1 of %s@%s is in it", user, realm)
				}
			}
			if bytes.Contains(b, []byte(password)) {
				t.Errorf("the password of %s@%s is in it", user, realm)
			}
		}
	}
}

// tooOld checks that what a snapshot tells is not answered beyond the bound. No bound that can be set is over soon.
func tooOld(t *testing.T, environ []string, body string) {
	t.Helper()
	s, err := readSettings(environ)
	if err != nil {
		t.Fatal(err)
	}
	for bound, want := range map[time.Duration]int{time.Hour: http.StatusOK, time.Nanosecond: http.StatusServiceUnavailable} {
		s.MaxDataAge = bound
		p, err := build(t.Context(), s, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/xml", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("freeswitch", "a long password")
		resp, err := p.server.App().Test(r, -1)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("with a bound of %v: %d, want %d", bound, resp.StatusCode, want)
		}
		p.close(t.Context())
	}
}

// damaged checks that a file that is not as it was written is reported and not used, and keeps nobody from starting.
func damaged(t *testing.T, env []string, file, body string) {
	t.Helper()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for name, b := range map[string][]byte{
		"one bit is another": flipped, "half of it": whole[:len(whole)/2], "empty": {}, "of another version": append([]byte("edgvoip snapshot 0\n"), whole...),
	} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		x := start(t, env...)
		if log := x.log.String(); strings.Count(log, "XMLCURL_SNAPSHOT_FILE") != 1 || !strings.Contains(log, `"level":"ERROR"`) {
			t.Errorf("%s: not reported once:\n%s", name, log)
		}
		if status, _ := x.lookup(body); status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d, want 503", name, status)
		}
		x.end()
		if left, err := os.ReadFile(file); err != nil || !bytes.Equal(left, b) {
			t.Errorf("%s: overwritten by a process that knew nothing: %v", name, err)
		}
	}
}

// A process that has read all extensions answers for them when the database goes away, though nobody has asked before.
func TestPreloaded(t *testing.T) {
	t.Parallel()
	direct := testdb.New(t)
	populateTables(t, direct)
	w, dsn := newWire(t, direct)
	x := start(t, "DATABASE_URL="+dsn, "XMLCURL_PRELOAD=true")
	x.until("all is read", func() bool { return strings.Contains(x.log.String(), `"msg":"preloaded"`) })
	w.set(refusing)
	x.answers(questions(t))
}

// A process that is told to stop answers whoever had got a connection by then.
func TestShutdownUnderLoad(t *testing.T) {
	t.Parallel()
	direct := testdb.New(t)
	populateTables(t, direct)
	list := questions(t)
	for round := range 6 {
		x := start(t, "DATABASE_URL="+direct)
		var stopped atomic.Bool
		var callers sync.WaitGroup
		var asked, refused atomic.Int64
		for n := range 16 {
			callers.Go(func() {
				for i := n; ; i += 16 {
					q := list[i%len(list)]
					status, doc, dialled, err := ask(t.Context(), x.addr, http.MethodPost, "/xml", q.body, n)
					asked.Add(1)
					switch {
					case err != nil && !dialled && stopped.Load():
						refused.Add(1)
						return
					case err != nil:
						t.Errorf("round %d: a connection, stopped: %v, had no answer: %v", round, stopped.Load(), err)
						return
					case status != http.StatusOK || doc != q.want:
						t.Errorf("round %d: %d to %s", round, status, summary(q.body))
						return
					}
				}
			})
		}
		x.until("there is load", func() bool { return asked.Load() > 200 })
		stopped.Store(true)
		x.end()
		callers.Wait()
		if refused.Load() != 16 {
			t.Errorf("round %d: %d of 16 callers were refused a connection at the end", round, refused.Load())
		}
	}
}
