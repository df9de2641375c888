package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/test/w3receiver"
)

// What is posted, by how many at once, of how many tenants, and how often who is killed.
const (
	ledgerDocuments = 10000
	ledgerClients   = 16
	ledgerTenants   = 4

	killsOfAPI      = 12
	killsOfW3       = 12
	killsOfPostgres = 4
)

// Switches post the records of calls while integration-api, PostgreSQL and W3 are killed at random moments, and W3 is
// away for a while. In the end each record is in the ledger once, each call is right, and W3 knows it as it is, having
// heard of each revision once and in order.
func TestTenThousandRecords(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	begun := time.Now()
	seed := rand.Uint64()
	t.Logf("random seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	l := openLedger(t)
	calls, documents, held := makeCalls(t, random, l.customers, ledgerDocuments)
	t.Logf("made %d calls, %d documents in %v", len(calls), ledgerDocuments, time.Since(begun).Round(time.Millisecond))

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	begun = time.Now()
	s := &switches{door: l.door, spool: t.TempDir(), credentials: l.credentials, outcomes: map[string]int{}}
	l.switches, l.held = s, held
	taken := make(chan struct{}, len(documents))
	done := make(chan error, 1)
	go func() {
		defer close(taken)
		done <- s.post(ctx, documents, seed, taken)
	}()
	swept := make(chan error, 1)
	posted := make(chan struct{})
	go func() { swept <- s.sweep(ctx, rand.New(rand.NewPCG(seed, 1)), posted) }()
	l.trouble(random, taken)
	err := <-done
	for _, d := range l.held {
		s.keep(t, d)
	}
	close(posted)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-swept; err != nil {
		t.Fatal(err)
	}
	for who, least := range map[string]int{"integration-api": killsOfAPI, "W3": killsOfW3, "PostgreSQL": killsOfPostgres} {
		if l.kills[who] < least {
			t.Errorf("%s was killed %d times only", who, l.kills[who])
		}
	}
	t.Attr("figure", fmt.Sprintf("%d documents posted and swept after %v: outcomes %v, killed %v",
		ledgerDocuments, time.Since(begun).Round(time.Millisecond), s.outcomes, l.kills))
	l.settle(ctx)
	took := time.Since(begun)
	report := l.w3.recall(t, l.roots)
	t.Attr("figure", fmt.Sprintf("all is told after %v (%.1f documents/s): %d receptions, %d effects of %d calls", took.Round(time.Millisecond),
		float64(ledgerDocuments)/took.Seconds(), report.Received, report.Effects, len(calls)))
	l.expectLegs(calls)
	l.expectTold(l.expectCalls(calls), report)
}

// ledger is an installation whose every part can be killed, and W3.
type ledger struct {
	*testing.T
	server      *testdb.Cluster
	db          *sql.DB // connects anew for each statement
	door        *door
	w3          *mock
	roots       *x509.CertPool
	customers   []customer
	credentials string // file
	kills       map[string]int

	switches *switches
	held     map[uuid.UUID]document // that come late, by call
}

func openLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{T: t, server: testdb.NewCluster(t), kills: map[string]int{}}
	i := installOn(t, l.server.DSN)
	var err error
	if l.db, err = sql.Open("postgres", i.dsn); err != nil {
		t.Fatal(err)
	}
	l.db.SetMaxIdleConns(-1)
	t.Cleanup(func() { _ = l.db.Close() })
	var certFile, keyFile string
	certFile, keyFile, l.roots = certificate(t)
	addr := quietPort(t)
	var secrets []string
	for n := range ledgerTenants {
		c := customer{slug: fmt.Sprintf("shop%d", n), realm: fmt.Sprintf("shop%d.example", n), did: 390699990000 + 1000*n}
		c.id = uuid.MustParse(strings.TrimSpace(i.command(t, "tenant", "add", c.slug, "-country", "IT")))
		secrets = append(secrets, credentials(t, i.command(t, "secret", "add", c.slug))["HMAC_SECRET"])
		i.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) VALUES ('%s', gen_random_uuid(), '%s')`, c.id, c.realm))
		i.command(t, "trunk", "create", c.slug, "-name", "Carrier", "-host", "sip.carrier.example", "-did-ranges", fmt.Sprintf("+%d-+%d", c.did, c.did+999))
		i.command(t, "webhook", "set", c.slug, "https://"+addr+"/w3")
		l.customers = append(l.customers, c)
	}
	write := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	l.credentials = write("credentials", sweepCredentials)
	l.w3 = &mock{addr: addr, args: []string{
		"receive", "-addr", addr, "-cert", certFile, "-key", keyFile, "-secrets", write("secrets", strings.Join(secrets, "\n")),
		"-state", filepath.Join(t.TempDir(), "state"), "-fail", "3", "-drop", "3", "-lie", "3",
	}}
	l.w3.start(t)
	i.env = append(i.env, "CDR_ADDR=127.0.0.1:0", "CDR_CREDENTIALS_FILE="+l.credentials, "WEBHOOK_ALLOW_NETWORKS=127.0.0.0/8", "WEBHOOK_CA_FILE="+certFile,
		"WEBHOOK_TIMEOUT=2s")
	l.door = openDoor(t, i)
	return l
}

// quietPort returns an address where nobody listens and that no connection is made from: who was killed gets it back.
func quietPort(t *testing.T) string {
	t.Helper()
	for {
		// Below the ports that Linux and others give to connections.
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(10000)))
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
		if err == nil {
			_ = l.Close()
			return addr
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// switches post documents, and keep in a directory what they cannot post.
type switches struct {
	door        *door
	spool       string
	credentials string

	mu       sync.Mutex
	outcomes map[string]int // of all that was tried
}

func (s *switches) note(outcome string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes[outcome]++
}

// post posts documents from all switches, and says of each when its switch is rid of it.
func (s *switches) post(ctx context.Context, documents []document, seed uint64, rid chan<- struct{}) error {
	next := make(chan document)
	group, ctx := errgroup.WithContext(ctx)
	for n := range ledgerClients {
		random := rand.New(rand.NewPCG(seed, uint64(2+n)))
		// One connection each, and so many seconds, as the switch's configuration says.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}
		group.Go(func() error {
			for d := range next {
				if err := s.send(ctx, random, client, d); err != nil {
					return err
				}
				rid <- struct{}{}
				<-time.After(time.Duration(random.Int64N(int64(30 * time.Millisecond)))) // until the next call ends
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(next)
		for _, d := range documents {
			select {
			case next <- d:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}

// send posts a document until it is taken, or gives it to the spool. Some are sent twice, as when an answer gets lost.
func (s *switches) send(ctx context.Context, random *rand.Rand, client *http.Client, d document) error {
	for ctx.Err() == nil {
		switch status := s.try(ctx, client, d); status {
		case http.StatusOK:
			s.note("taken")
			if random.IntN(50) > 0 {
				return nil
			}
			s.note("sent again")
		case 0:
			s.note("no answer")
		case http.StatusServiceUnavailable:
			s.note("unavailable")
		default:
			return fmt.Errorf("answered %d", status)
		}
		if random.IntN(20) == 0 {
			s.note("spooled")
			return s.write(d)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond): // nobody may be there for a second
		}
	}
	return ctx.Err()
}

// write gives a document to the spool, as a switch does.
func (s *switches) write(d document) error {
	return os.WriteFile(filepath.Join(s.spool, d.leg.ID.String()+".cdr.json"), append(slices.Clip(d.body), '\n'), 0o600)
}

// keep gives a document that is held back to the spool.
func (s *switches) keep(t *testing.T, d document) {
	t.Helper()
	if err := s.write(d); err != nil {
		t.Fatal(err)
	}
	s.note("late")
}

// try posts a document once. It returns 0 if there was no answer.
func (s *switches) try(ctx context.Context, client *http.Client, d document) int {
	addr := s.door.cdr.Load()
	if addr == nil {
		return 0
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+*addr+"/cdr?uuid="+d.leg.ID.String(), bytes.NewReader(d.body))
	if err != nil {
		return 0
	}
	user, password, _ := strings.Cut(sweepCredentials, ":")
	req.SetBasicAuth(user, password)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // the status is what counts
	return resp.StatusCode
}

// sweep sends what is in the spool with the program, which it kills at random moments, until everything is posted and
// swept.
func (s *switches) sweep(ctx context.Context, random *rand.Rand, posted <-chan struct{}) error {
	for ctx.Err() == nil {
		patience := time.Duration(random.Int64N(int64(4 * time.Second)))
		last := false // which nobody kills; one before it may be, also when all was posted meanwhile
		select {
		case <-posted:
			last, patience = true, time.Minute
		case <-time.After(time.Second): // as the timer of a switch
		}
		addr := s.door.cdr.Load()
		if addr == nil {
			continue
		}
		out, err := s.sweepOnce(ctx, *addr, patience)
		left, readErr := os.ReadDir(s.spool)
		if readErr != nil {
			return readErr
		}
		switch {
		case !last:
		case len(left) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("cdr sweep: %w\n%s", err, out)
		}
	}
	return ctx.Err()
}

func (s *switches) sweepOnce(ctx context.Context, addr string, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.door.program, "cdr", "sweep", s.spool, "-url", "http://"+addr+"/cdr", "-credentials-file", s.credentials, "-age", "1s")
	out, err := cmd.CombinedOutput()
	s.note("sweeps")
	if ctx.Err() != nil {
		s.note("sweeps killed")
	}
	return out, err
}

// act is something that is done to the parts of a ledger. taken tells how far the switches are.
type act func(random *rand.Rand, taken <-chan struct{})

// trouble kills everybody at random moments, in random order, and lets W3 be away for a while: first while documents
// are posted, then while they are read and told.
func (l *ledger) trouble(random *rand.Rand, taken <-chan struct{}) {
	l.Helper()
	early, late := l.acts(1, l.leave), l.acts(2, l.powerCut)
	for _, part := range [][]act{early, late} {
		random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
	}
	for i, act := range slices.Concat(early, late) {
		most := time.Second
		if i < len(early) {
			await(taken, 1+random.IntN(2*ledgerDocuments/(len(early)+8)))
			most = 100 * time.Millisecond
		}
		<-time.After(time.Duration(random.Int64N(int64(most)))) // which moment it is is the chance that the test is about
		act(random, taken)
	}
	// What PostgreSQL was not told keeps its lease unless its holder is gone.
	l.killAPI(random, taken)
	for range taken {
	}
}

// acts returns half of the kills, the first or the second, and one act more.
func (l *ledger) acts(half int, more act) []act {
	share := func(n int) int { return n*half/2 - n*(half-1)/2 }
	return slices.Concat(slices.Repeat([]act{l.killAPI}, share(killsOfAPI)), slices.Repeat([]act{l.killW3}, share(killsOfW3)),
		slices.Repeat([]act{l.killPostgres}, share(killsOfPostgres)), []act{more})
}

// await returns when so many more are taken, or all.
func await(taken <-chan struct{}, n int) {
	for range n {
		if _, ok := <-taken; !ok {
			return
		}
	}
}

func (l *ledger) killAPI(*rand.Rand, <-chan struct{}) {
	l.Helper()
	l.door.kill(l.T)
	l.kills["integration-api"]++
	l.endLeases()
	l.door.start(l.T)
}

func (l *ledger) killW3(*rand.Rand, <-chan struct{}) {
	l.Helper()
	l.w3.kill(l.T)
	l.kills["W3"]++
	l.w3.start(l.T)
}

func (l *ledger) killPostgres(random *rand.Rand, _ <-chan struct{}) {
	l.Helper()
	l.server.Kill()
	l.kills["PostgreSQL"]++
	<-time.After(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
	l.server.Resume()
}

// powerCut kills all at once.
func (l *ledger) powerCut(*rand.Rand, <-chan struct{}) {
	l.Helper()
	l.server.Kill()
	l.door.kill(l.T)
	l.w3.kill(l.T)
	for _, who := range []string{"integration-api", "W3", "PostgreSQL"} {
		l.kills[who]++
	}
	l.server.Resume()
	l.endLeases()
	l.door.start(l.T)
	l.w3.start(l.T)
}

// leave lets W3 be away until the breaker of every tenant should have been open for a while, and longer, while
// integration-api is killed.
func (l *ledger) leave(random *rand.Rand, taken <-chan struct{}) {
	l.Helper()
	l.w3.kill(l.T)
	l.kills["W3"]++
	left := time.Now()
	// Of a tenant whose breaker was closed eight attempts open it, and two more are made after one and two seconds; one
	// that was open already, as W3 was killed before, lets an attempt through now and then.
	for open := 0; open < ledgerTenants; time.Sleep(50 * time.Millisecond) {
		err := l.db.QueryRowContext(l.Context(), `
			SELECT count(*) FROM (
			       SELECT FROM edgvoip.webhook_attempts a JOIN edgvoip.webhook_events e ON e.id = a.event_id WHERE a.status IS NULL AND a.at > $1
			        GROUP BY e.tenant_id HAVING max(a.at) - min(a.at) > interval '2.5 seconds') AS tenants`, left).Scan(&open)
		if err != nil || time.Since(left) > 2*time.Minute {
			l.Fatalf("W3 was away, and %d of %d tenants saw it for a while, %v", open, ledgerTenants, err)
		}
	}
	l.lateLegs()
	l.killAPI(random, taken)
	await(taken, ledgerDocuments/20)
	l.w3.start(l.T)
	l.Logf("W3 was away for %v", time.Since(left).Round(time.Millisecond))
}

// lateLegs lets legs come of calls whose events were tried in vain: that makes events which have to wait for those, and
// would be sent before them otherwise. Which events are tried is chance, so it goes on until some wait.
func (l *ledger) lateLegs() {
	l.Helper()
	legs, waiting := 0, 0
	for begun := time.Now(); waiting == 0; time.Sleep(100 * time.Millisecond) {
		late := l.release()
		l.awaitLegs(late)
		legs += len(late)
		l.exec(`UPDATE edgvoip.webhook_events SET due_at = now() + interval '15 s' WHERE state = 'pending' AND attempts > 0`)
		err := l.db.QueryRowContext(l.Context(), `
			SELECT count(*) FROM (SELECT FROM edgvoip.webhook_events WHERE state IN ('pending', 'leased') GROUP BY subject HAVING count(*) > 1) s`).Scan(&waiting)
		if err != nil || time.Since(begun) > time.Minute {
			l.Fatalf("%d late legs; events of %d calls wait for others, %v", legs, waiting, err)
		}
	}
	l.Logf("%d late legs; events of %d calls wait for others", legs, waiting)
}

// release gives the legs that are held back of calls whose events were tried to the spool, and returns their IDs.
func (l *ledger) release() (legs []string) {
	l.Helper()
	l.rows(`SELECT DISTINCT subject FROM edgvoip.webhook_events WHERE state IN ('pending', 'leased') AND attempts > 0`, func(scan func(...any) error) error {
		var call uuid.UUID
		if err := scan(&call); err != nil {
			return err
		}
		if d, ok := l.held[call]; ok {
			l.switches.keep(l.T, d)
			legs = append(legs, d.leg.ID.String())
			delete(l.held, call)
		}
		return nil
	})
	return legs
}

// awaitLegs waits until legs are read.
func (l *ledger) awaitLegs(legs []string) {
	l.Helper()
	for begun, read := time.Now(), 0; read < len(legs); time.Sleep(100 * time.Millisecond) {
		l.exec(`UPDATE edgvoip.cdr_documents SET due_at = now() - interval '1 h' WHERE leg_id = ANY ($1) AND due_at > now() - interval '1 h'`, pq.Array(legs))
		err := l.db.QueryRowContext(l.Context(), `SELECT count(*) FROM edgvoip.cdr_legs WHERE leg_id = ANY ($1)`, pq.Array(legs)).Scan(&read)
		if err != nil || time.Since(begun) > time.Minute {
			l.Fatalf("%d of %d late legs are read, %v", read, len(legs), err)
		}
	}
}

// endLeases ends the leases of a process that was killed.
func (l *ledger) endLeases() {
	l.Helper()
	l.exec(`UPDATE edgvoip.webhook_events SET due_at = now() WHERE state = 'leased'`)
}

// hurry leaves out the waits until something is tried again.
func (l *ledger) hurry() {
	l.Helper()
	// Whoever works on a row is let alone.
	l.exec(`UPDATE edgvoip.webhook_events SET due_at = now() WHERE (tenant_id, id) IN (
		SELECT tenant_id, id FROM edgvoip.webhook_events WHERE state = 'pending' AND attempts > 0 AND due_at > now() FOR UPDATE SKIP LOCKED)`)
	l.exec(`UPDATE edgvoip.cdr_documents SET due_at = now() WHERE id IN (
		SELECT id FROM edgvoip.cdr_documents WHERE state = 'new' AND due_at > now() FOR UPDATE SKIP LOCKED)`)
}

func (l *ledger) exec(query string, args ...any) {
	l.Helper()
	if _, err := l.db.ExecContext(l.Context(), query, args...); err != nil {
		l.Fatal(err)
	}
}

// settle waits until everything that was posted is read and told.
func (l *ledger) settle(ctx context.Context) {
	l.Helper()
	const query = `SELECT (SELECT count(*) FROM edgvoip.cdr_documents WHERE state = 'new'), (SELECT count(*) FROM edgvoip.webhook_events WHERE state IN ('pending', 'leased'))`
	for begun := time.Now(); ; time.Sleep(500 * time.Millisecond) {
		var documents, events int
		if err := l.db.QueryRowContext(ctx, query).Scan(&documents, &events); err != nil {
			l.Fatal(err)
		}
		if documents == 0 && events == 0 {
			return
		}
		if time.Since(begun) > 2*time.Minute {
			l.Fatalf("%d documents are not read and %d events are not told", documents, events)
		}
		l.hurry()
	}
}

// expectLegs looks at the legs: all are there, once, of the right call and as they were posted, and no document is
// left.
func (l *ledger) expectLegs(calls []call) {
	l.Helper()
	type key struct{ tenant, call, leg uuid.UUID }
	want := map[key]cdr.Leg{}
	for _, c := range calls {
		for _, d := range c.documents {
			want[key{c.want.TenantID, c.want.ID, d.leg.ID}] = d.leg
		}
	}
	found := map[key]int{}
	l.rows(`SELECT tenant_id, call_id, leg_id, raw FROM edgvoip.cdr_legs`, func(scan func(...any) error) error {
		var k key
		var raw []byte
		if err := scan(&k.tenant, &k.call, &k.leg, &raw); err != nil {
			return err
		}
		d, err := cdr.Parse(raw)
		if found[k]++; err != nil || d.Leg() != want[k] {
			l.Errorf("leg %v is %+v, %v, want %+v", k, d.Leg(), err, want[k])
		}
		return nil
	})
	if len(want) != ledgerDocuments || len(found) != len(want) {
		l.Errorf("%d different legs of %d", len(found), len(want))
	}
	for k, n := range found {
		if n != 1 {
			l.Errorf("leg %v is there %d times", k, n)
		}
	}
	l.rows(`SELECT state, coalesce(error, '') FROM edgvoip.cdr_documents`, func(scan func(...any) error) error {
		var state, reason string
		err := scan(&state, &reason)
		l.Errorf("a document is left: %s, %s", state, reason)
		return err
	})
}

// expectCalls looks at the call records: all are there, once, as their legs make them. It returns them.
func (l *ledger) expectCalls(calls []call) map[uuid.UUID]cdr.Record {
	l.Helper()
	db, err := postgres.Open(postgres.Options{URL: l.server.DSN}, slog.New(slog.DiscardHandler))
	if err != nil {
		l.Fatal(err)
	}
	defer db.Close()
	found := map[uuid.UUID]cdr.Record{}
	for _, c := range l.customers {
		list, err := db.Calls(l.Context(), c.id, cdr.Filter{Limit: ledgerDocuments})
		if err != nil {
			l.Fatal(err)
		}
		for _, r := range list {
			if _, there := found[r.ID]; there {
				l.Errorf("call %s is there twice", r.ID)
			}
			found[r.ID] = r
		}
	}
	for _, c := range calls {
		if got := found[c.want.ID].Call; got != c.want {
			l.Errorf("call %s is %+v, want %+v", c.want.ID, got, c.want)
		}
	}
	if len(found) != len(calls) {
		l.Errorf("%d calls of %d", len(found), len(calls))
	}
	return found
}

// expectTold looks at what W3 heard: each event, with its body, had one effect; those of a call came in the order of
// its revisions, and the last one is the record as it is.
func (l *ledger) expectTold(calls map[uuid.UUID]cdr.Record, report w3receiver.Report) {
	l.Helper()
	if len(report.OutOfOrder)+len(report.Conflicts)+len(report.Refused) != 0 {
		l.Errorf("out of order %v, conflicts %v, refused %v", report.OutOfOrder, report.Conflicts, report.Refused)
	}
	events, revisions, last := 0, map[uuid.UUID]int{}, map[uuid.UUID]string{}
	l.rows(`SELECT key, kind, subject, state, payload FROM edgvoip.webhook_events ORDER BY tenant_id, id`, func(scan func(...any) error) error {
		var key, kind, state, payload string
		var subject uuid.UUID
		if err := scan(&key, &kind, &subject, &state, &payload); err != nil {
			return err
		}
		events++
		sum := sha256.Sum256([]byte(payload))
		if state != "delivered" || report.Keys[key] == 0 || report.Bodies[key] != hex.EncodeToString(sum[:]) {
			l.Errorf("event %s is %s, was received %d times, and W3 has another body: %v", key, state, report.Keys[key], report.Bodies[key] != hex.EncodeToString(sum[:]))
		}
		if kind != "cdr" {
			return nil
		}
		var told cdr.Event
		if err := json.Unmarshal([]byte(payload), &told); err != nil {
			return err
		}
		if told.CallID != subject || told.Revision <= revisions[subject] {
			l.Errorf("revision %d of call %s follows revision %d", told.Revision, told.CallID, revisions[subject])
		}
		revisions[subject], last[subject] = told.Revision, payload
		return nil
	})
	if report.Effects != events || len(report.Keys) != events {
		l.Errorf("%d effects, %d keys, of %d events", report.Effects, len(report.Keys), events)
	}
	for id, r := range calls {
		if want, err := r.Payload(); err != nil || last[id] != string(want) {
			l.Errorf("the last that was told of call %s is %s, want %s, %v", id, last[id], want, err)
		}
	}
	counts := map[int]int{}
	for _, n := range revisions {
		counts[n]++
	}
	repeated := 0
	for _, n := range report.Keys {
		repeated += min(n-1, 1)
	}
	l.Logf("%d events, of which %d were received more than once; calls by number of revisions: %v", events, repeated, counts)
}

// rows reads the rows of a query.
func (l *ledger) rows(query string, row func(scan func(...any) error) error) {
	l.Helper()
	rows, err := l.db.QueryContext(l.Context(), query)
	if err != nil {
		l.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			l.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		l.Fatal(err)
	}
}
