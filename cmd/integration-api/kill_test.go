package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/test/w3client"
)

// What is provisioned, and by how many at once.
const (
	killExtensions = 1000
	killClients    = 8
)

// The process is killed at random moments while W3 provisions, and started again; W3 sends again what was not answered.
// In the end everything is there, once.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	i := install(t)
	tenant := strings.TrimSpace(i.command(t, "tenant", "add", "shop", "-country", "IT"))
	secret := credentials(t, i.command(t, "secret", "add", "shop"))
	d := openDoor(t, i)
	db, err := sql.Open("postgres", i.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	seed := rand.Uint64()
	t.Logf("random seed %d", seed)

	orders := make([]w3client.Request, killExtensions)
	for n := range orders {
		body := fmt.Sprintf(`{"tenantId":%q,"domainName":"The Shop","sipRealm":"shop.example","extension":"%d","sipUsername":"user%d","sipPassword":"correct horse %d"}`,
			tenant, 1000+n, 1000+n, n)
		orders[n] = w3client.Request{Method: http.MethodPost, Path: "/extensions", Body: []byte(body), Key: uuid.NewString()}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	begun := time.Now()
	answered := make(chan struct{}, killExtensions)
	p := &provisioning{client: d.w3(secret), outcomes: map[string]int{}, ids: map[string]string{}}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(killClients)
	done := make(chan error, 1)
	go func() {
		defer close(answered)
		for _, order := range orders {
			group.Go(func() error {
				err := p.send(ctx, order)
				answered <- struct{}{}
				return err
			})
		}
		done <- group.Wait()
	}()
	kills := killAtRandom(ctx, t, d, db, rand.New(rand.NewPCG(seed, 0)), answered)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	t.Attr("figure", fmt.Sprintf("%d extensions by %d clients in %v (%.1f/s), killed %d times; sent again %d, of which %d had happened; outcomes %v",
		killExtensions, killClients, took.Round(time.Millisecond), killExtensions/took.Seconds(), kills, p.again, p.replayed, p.outcomes))
	if kills < killExtensions/maxBetweenKills/2 {
		t.Errorf("killed only %d times", kills)
	}
	if len(p.ids) != killExtensions {
		t.Errorf("%d answers", len(p.ids))
	}
	expectOnce(t, db, tenant, p.ids)
	before := maps.Clone(p.ids)
	for _, order := range orders {
		a, err := p.client.Do(t.Context(), order)
		if err != nil || a.Status != http.StatusCreated || !a.Replayed() {
			t.Fatalf("the same again: %d %s, %v", a.Status, a.Body, err)
		}
		if err := p.note(order.Key, a); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(p.ids, before) {
		t.Error("the same again has other ids")
	}
	expectOnce(t, db, tenant, p.ids)
}

// maxBetweenKills is how many answers there are between two kills at most.
const maxBetweenKills = 60

// killAtRandom kills the process again and again and starts it again, until answered is closed: each time after a
// random number of answers, and then after a random time of the order of one request, or as soon as one more order is
// committed, which is when its answer is under way. It returns how often it did.
func killAtRandom(ctx context.Context, t *testing.T, d *door, db *sql.DB, random *rand.Rand, answered <-chan struct{}) (kills int) {
	t.Helper()
	for {
		for range 1 + random.IntN(maxBetweenKills) {
			if _, ok := <-answered; !ok {
				return kills
			}
		}
		if random.IntN(2) == 0 {
			<-time.After(time.Duration(random.Int64N(int64(40 * time.Millisecond))))
		} else {
			awaitCommit(ctx, db)
		}
		d.kill(t)
		kills++
		d.start(t)
	}
}

// awaitCommit returns when one more order is committed, or when there is nothing to wait for any more. It polls without
// pause: the answer is on its way a fraction of a millisecond later.
func awaitCommit(ctx context.Context, db *sql.DB) {
	var before int
	for now := 0; now == before && now < killExtensions; {
		if err := db.QueryRowContext(ctx, `SELECT count(*) FROM edgvoip.idempotency_keys`).Scan(&now); err != nil {
			return // with ctx: a client gave up
		}
		if before == 0 {
			before = now
		}
	}
}

// provisioning is what W3 knows of its orders.
type provisioning struct {
	client *w3client.Client

	mu              sync.Mutex
	outcomes        map[string]int    // of everything that was sent
	ids             map[string]string // of extensions, by key
	again, replayed int
}

// send sends an order until it is answered.
func (p *provisioning) send(ctx context.Context, order w3client.Request) error {
	a, err := p.client.Do(ctx, order)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, outcome := range a.Outcomes {
		p.outcomes[outcome]++
	}
	p.again += len(a.Outcomes) - 1
	if a.Replayed() {
		p.replayed++
	}
	if a.Status != http.StatusCreated {
		return fmt.Errorf("%v: %s", a.Outcomes, a.Body)
	}
	return p.note(order.Key, a)
}

func (p *provisioning) note(key string, a w3client.Answer) error {
	var body struct {
		Success bool
		ID      uuid.UUID `json:"edgvoipExtensionId"`
	}
	if err := json.Unmarshal(a.Body, &body); err != nil || !body.Success || body.ID == uuid.Nil {
		return fmt.Errorf("answer %s: %w", a.Body, err)
	}
	p.ids[key] = body.ID.String()
	return nil
}

// expectOnce looks at the rows: all that was ordered is there, nothing else, nothing twice and nothing half. ids are
// those that W3 was told, by key.
func expectOnce(t *testing.T, db *sql.DB, tenant string, ids map[string]string) {
	t.Helper()
	for query, want := range map[string]int{
		`SELECT count(*) FROM edgvoip.sip_domains WHERE tenant_id = $1 AND realm = 'shop.example' AND name = 'The Shop'`: 1,
		`SELECT count(*) FROM edgvoip.sip_domains WHERE tenant_id = $1`:                                                  1,
		`SELECT count(*) FROM edgvoip.sip_extensions WHERE tenant_id = $1`:                                               killExtensions,
		`SELECT count(DISTINCT extension) FROM edgvoip.sip_extensions WHERE tenant_id = $1 AND extension::int BETWEEN 1000 AND 1999
		    AND sip_username = 'user' || extension AND status = 'active' AND password_hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'
		    AND length(ha1_md5_sealed) > 32 AND length(ha1_sha256_sealed) > 64`: killExtensions,
		`SELECT count(*) FROM edgvoip.sip_names WHERE tenant_id = $1`: 2 * killExtensions,
		`SELECT count(*) FROM edgvoip.sip_names n JOIN edgvoip.sip_extensions e ON e.tenant_id = n.tenant_id AND e.id = n.extension_id
		  WHERE n.tenant_id = $1 AND n.name IN (e.extension, e.sip_username)`: 2 * killExtensions,
		`SELECT count(*) FROM edgvoip.audit_log WHERE tenant_id = $1 AND action = 'extension.created'`: killExtensions,
		`SELECT count(DISTINCT e.id) FROM edgvoip.audit_log a JOIN edgvoip.sip_extensions e ON e.tenant_id = a.tenant_id AND e.id = a.subject_id
		  WHERE a.tenant_id = $1 AND a.action = 'extension.created' AND a.after->>'extension' = e.extension`: killExtensions,
		`SELECT count(*) FROM edgvoip.audit_log WHERE tenant_id = $1 AND action = 'domain.created'`:                         1,
		`SELECT count(*) FROM edgvoip.audit_log WHERE tenant_id = $1 AND action IN ('extension.updated', 'domain.updated')`: 0,
		`SELECT count(*) FROM edgvoip.idempotency_keys WHERE tenant_id = $1 AND response_status = 201`:                      killExtensions,
		`SELECT count(*) FROM edgvoip.idempotency_keys WHERE tenant_id = $1`:                                                killExtensions,
	} {
		var n int
		if err := db.QueryRowContext(t.Context(), query, tenant).Scan(&n); err != nil || n != want {
			t.Errorf("%d, %v, want %d: %s", n, err, want, query)
		}
	}
	rows, err := db.QueryContext(t.Context(), `SELECT id::text FROM edgvoip.sip_extensions WHERE tenant_id = $1 ORDER BY 1`, tenant)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var stored []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		stored = append(stored, id)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if told := slices.Sorted(maps.Values(ids)); !slices.Equal(stored, told) {
		t.Error("W3 was told other ids than there are")
	}
}
