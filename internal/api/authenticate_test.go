package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/api"
)

var requestID = regexp.MustCompile(`"requestId":"[0-9a-f]+"`)

// face is all that can be seen of an answer but for what is new in each.
func face(a answer) string {
	names := slices.Sorted(maps.Keys(a.header))
	var b strings.Builder
	for _, n := range names {
		if n != "Date" && n != "X-Request-Id" {
			b.WriteString(n + ": " + a.header.Get(n) + "\n")
		}
	}
	return strings.Join([]string{http.StatusText(a.status), b.String(), requestID.ReplaceAllString(a.body, `"requestId":""`)}, "\n")
}

// refusal is the one face of every request that is not let in.
func refusal(t *testing.T, s *scene) string {
	t.Helper()
	a := s.send(t, request{method: http.MethodGet, target: api.BasePath + "/domains", header: http.Header{}})
	if a.status != http.StatusUnauthorized || a.code(t) != "unauthenticated" || a.header.Get("WWW-Authenticate") == "" {
		t.Fatalf("without credentials: %d %s", a.status, a.body)
	}
	return face(a)
}

// other returns another character of the same kind: a letter or digit for one, a letter for what is neither.
func other(c byte) byte {
	switch {
	case c == '9' || c == 'z' || c == 'Z':
		return c - 1
	case c >= '0' && c < '9', c >= 'a' && c < 'z', c >= 'A' && c < 'Z':
		return c + 1
	default:
		return 'x'
	}
}

// variants returns a text with each of its bytes replaced, doubled and left out.
func variants(s string) []string {
	var out []string
	for i := range len(s) {
		out = append(out, s[:i]+string(other(s[i]))+s[i+1:], s[:i+1]+s[i:], s[:i]+s[i+1:])
	}
	return out
}

// Every header, every byte of time, path, query and body is under the signature: a request of which one is changed is
// refused, with the same face as every other, and writes nothing.
func TestTampered(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	id := w.post(t, w.spec("1001")).id(t)
	want, state := refusal(t, s), contents(t, s)
	check := func(what string, r request) {
		t.Helper()
		if a := s.send(t, r); face(a) != want {
			t.Errorf("%s: %s %s %s %v\n%s", what, r.method, r.target, r.body, r.header, face(a))
		}
	}
	for _, tc := range []struct{ method, path, body string }{
		{http.MethodPost, "/extensions", w.spec("1002")},
		{http.MethodPatch, "/extensions/" + id, `{"status":"suspended"}`},
		{http.MethodDelete, "/extensions/" + id, ""},
		{http.MethodPut, "/extensions/" + id + "/stores", `{"storeIds":[]}`},
		{http.MethodGet, "/extensions?limit=7&status=active", ""},
		{http.MethodGet, "/extensions/" + id + "/convergence", ""},
		{http.MethodGet, "/trunks?limit=7", ""},
		{http.MethodGet, "/cdrs?limit=7", ""},
		{http.MethodGet, "/cdrs.csv?limit=7", ""},
		{http.MethodPost, "/erasures", `{"number":"+390612345678"}`},
	} {
		fresh := func() request { return w.sign(tc.method, tc.path, tc.body) }
		for _, name := range []string{"Authorization", "X-Timestamp", "X-Signature"} {
			r := fresh()
			r.header.Del(name)
			check("no "+name, r)
			r = fresh()
			r.header.Add(name, r.header.Get(name))
			check("two of "+name, r)
			r = fresh()
			for _, v := range variants(strings.TrimPrefix(r.header.Get(name), "Bearer ")) {
				if name == "Authorization" {
					v = "Bearer " + v
				}
				r.header.Set(name, v)
				check("another "+name, r)
			}
		}
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete, http.MethodOptions} {
			if r := fresh(); method != tc.method {
				r.method = method
				check("another method", r)
			}
		}
		r := fresh()
		for _, path := range variants(tc.path) {
			r.target = api.BasePath + path
			check("another path", r)
		}
		for _, end := range []string{"?", "?x=1", "&x=1", "/", "/x", "%20"} {
			r.target = api.BasePath + tc.path + end
			check("a longer path", r)
		}
		r = fresh()
		for _, body := range append(variants(tc.body), tc.body+" ", " "+tc.body, tc.body+"{}", "x") {
			r.body = body
			check("another body", r)
		}
	}
	if contents(t, s) != state {
		t.Error("a request that was refused changed something")
	}
	if s.counter(t, "integration_authentication_failures_total", "reason", "bad_signature") < 1000 {
		t.Error("refusals are not counted")
	}
}

// No byte can move between path and body under the same signature.
func TestMovedBytes(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	id := w.post(t, w.spec("1001")).id(t)
	state := contents(t, s)
	r := w.sign(http.MethodDelete, "/extensions/"+id, "")
	r.target, r.body = api.BasePath+"/extensions/", id
	if a := s.send(t, r); a.status != http.StatusBadRequest || a.code(t) != "malformed" {
		t.Errorf("path moved into the body: %d %s", a.status, a.body)
	}
	r = w.sign(http.MethodPatch, "/extensions/"+id, `{"status":"suspended"}`)
	r.target, r.body = r.target+`%7B`, `"status":"suspended"}`
	if a := s.send(t, r); a.status != http.StatusUnauthorized {
		t.Errorf("body moved into the path: %d %s", a.status, a.body)
	}
	if contents(t, s) != state {
		t.Error("something changed")
	}
}

// Time, replays, and credentials that are somebody else's, old or ended.
func TestNotLetIn(t *testing.T) {
	t.Parallel()
	s := start(t)
	w, mall := s.tenant(t, "shop"), s.tenant(t, "mall")
	id := w.post(t, w.spec("1001")).id(t)
	want := refusal(t, s)
	state := contents(t, s)
	suspend := func(w w3, at string) request {
		return w.signAt(at, http.MethodPatch, "/extensions/"+id, `{"status":"suspended"}`)
	}
	at := func(d time.Duration) string { return stamp(time.Now().Add(d)) }
	mixed := w
	mixed.secret.HMAC = mall.secret.HMAC
	stolen := mall
	stolen.secret.HMAC = w.secret.HMAC
	for name, tc := range map[string]struct {
		r      request
		reason integration.Reason
	}{
		"too old":                 {suspend(w, at(-301*time.Second)), integration.ReasonSkew},
		"too new":                 {suspend(w, at(360*time.Second)), integration.ReasonSkew},
		"beginning of time":       {suspend(w, "0"), integration.ReasonSkew},
		"end of time":             {suspend(w, "99999999999"), integration.ReasonSkew},
		"negative time":           {suspend(w, "-5"), integration.ReasonBadTimestamp},
		"time in words":           {suspend(w, "now"), integration.ReasonBadTimestamp},
		"time in milliseconds":    {suspend(w, "1700000000000"), integration.ReasonBadTimestamp},
		"time with an exponent":   {suspend(w, "17e8"), integration.ReasonBadTimestamp},
		"time that ends in a dot": {suspend(w, "1700000000."), integration.ReasonBadTimestamp},
		"time as a date":          {suspend(w, time.Now().Format(time.RFC3339)), integration.ReasonBadTimestamp},
		"other tenant's secret":   {suspend(mixed, at(0)), integration.ReasonBadSignature},
		"other tenant's token":    {suspend(stolen, at(0)), integration.ReasonBadSignature},
		"signature in capitals": {func() request {
			r := suspend(w, at(0))
			r.header.Set("X-Signature", strings.ToUpper(r.header.Get("X-Signature")))
			return r
		}(), integration.ReasonBadSignature},
		"basic authentication": {func() request {
			r := suspend(w, at(0))
			r.header.Set("Authorization", "Basic "+w.secret.Bearer)
			return r
		}(), integration.ReasonNoToken},
	} {
		before := s.counter(t, "integration_authentication_failures_total", "reason", string(tc.reason))
		if a := s.send(t, tc.r); face(a) != want {
			t.Errorf("%s:\n%s", name, face(a))
		}
		if n := s.counter(t, "integration_authentication_failures_total", "reason", string(tc.reason)) - before; n != 1 {
			t.Errorf("%s: counted %v times as %s", name, n, tc.reason)
		}
	}
	if contents(t, s) != state {
		t.Error("a request that was refused changed something")
	}
	for _, d := range []time.Duration{-298 * time.Second, 298 * time.Second} {
		if a := s.send(t, w.signAt(at(d), http.MethodGet, "/domains", "")); a.status != http.StatusOK {
			t.Errorf("%v off: %d %s", d, a.status, a.body)
		}
	}
	if a := s.send(t, w.signAt(at(0)[:10], http.MethodGet, "/domains", "")); a.status != http.StatusOK {
		t.Errorf("whole seconds: %d %s", a.status, a.body)
	}
}

// A request is good once, in any process, also in one that began later.
func TestReplayed(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	want := refusal(t, s)
	for _, r := range []request{
		w.sign(http.MethodPost, "/extensions", w.spec("1001")), w.sign(http.MethodGet, "/domains", ""), w.sign(http.MethodGet, "/nowhere", ""),
		w.sign(http.MethodPost, "/extensions", w.spec("1002", "sipPassword", "")),
	} {
		if a := s.send(t, r); a.status == http.StatusUnauthorized {
			t.Fatalf("at first: %d %s", a.status, a.body)
		}
		state := contents(t, s)
		second := startOn(t, s.dsn)
		for _, process := range []*scene{s, second} {
			if a := process.send(t, r); face(a) != want {
				t.Errorf("%s again:\n%s", r.target, face(a))
			}
		}
		if contents(t, s) != state {
			t.Error("a replay changed something")
		}
	}
	if n := s.counter(t, "integration_authentication_failures_total", "reason", "replayed"); n != 4 {
		t.Errorf("%v replays counted, want 4", n)
	}
	// Many at once are one.
	r := w.sign(http.MethodPost, "/extensions", w.spec("1003"))
	statuses := make(chan int, 8)
	for range cap(statuses) {
		go func() {
			a, err := s.try(t.Context(), r)
			if err != nil {
				a.status = -1
			}
			statuses <- a.status
		}()
	}
	count := map[int]int{}
	for range cap(statuses) {
		count[<-statuses]++
	}
	if count[http.StatusCreated] != 1 || count[http.StatusUnauthorized] != cap(statuses)-1 {
		t.Errorf("at once: %v", count)
	}
	// What is too old to be let in need not be remembered.
	exec(t, s, `UPDATE edgvoip.seen_signatures SET expires_at = now() - interval '1 second'`)
	if n, err := s.store.Prune(t.Context()); err != nil || n == 0 || one[int](t, s, `SELECT count(*) FROM edgvoip.seen_signatures`) != 0 {
		t.Errorf("pruned %d, %v", n, err)
	}
}

// New credentials take over while the old ones still work; then those end. What is revoked ends at once.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	want := refusal(t, s)
	look := func(who w3, in bool) {
		t.Helper()
		a := s.send(t, who.signAt(stamp(time.Now().Add(time.Duration(s.skew.Load()))), http.MethodGet, "/domains", ""))
		if in && a.status != http.StatusOK || !in && face(a) != want {
			t.Errorf("let in: %v, want %v\n%s", a.status, in, face(a))
		}
	}
	issued, err := s.issuer.Rotate(t.Context(), w.tenant, time.Hour, "test")
	if err != nil {
		t.Fatal(err)
	}
	next := w
	next.secret = issued
	look(w, true)
	look(next, true)
	s.skew.Store(int64(time.Hour + time.Minute))
	look(w, false)
	look(next, true)
	if n := s.counter(t, "integration_authentication_failures_total", "reason", "expired_secret"); n != 1 {
		t.Errorf("%v expired secrets counted", n)
	}
	if err := s.issuer.Revoke(t.Context(), w.tenant, issued.ID, "test"); err != nil {
		t.Fatal(err)
	}
	look(next, false)
	third, err := s.issuer.Add(t.Context(), w.tenant, "test")
	if err != nil {
		t.Fatal(err)
	}
	next.secret = third
	look(next, true)
	if _, err := s.store.SetTenantStatus(t.Context(), w.tenant, false, "test"); err != nil {
		t.Fatal(err)
	}
	look(next, false)
	if _, err := s.store.SetTenantStatus(t.Context(), w.tenant, true, "test"); err != nil {
		t.Fatal(err)
	}
	look(next, true)
}

// What belongs to another tenant is not there, in no way and on no route.
func TestCrossTenant(t *testing.T) {
	t.Parallel()
	s := start(t)
	shop, mall := s.tenant(t, "shop"), s.tenant(t, "mall")
	theirs := shop.post(t, shop.spec("1001")).id(t)
	shop.do(t, http.MethodPut, "/extensions/"+theirs+"/stores", `{"storeIds":["`+uuid.NewString()+`"]}`)
	gone := shop.post(t, shop.spec("1002")).id(t)
	shop.do(t, http.MethodDelete, "/extensions/"+gone, "")
	state := contents(t, s)
	for _, tc := range []struct{ method, path, body string }{
		{http.MethodGet, "/extensions/ID", ""},
		{http.MethodPatch, "/extensions/ID", `{"status":"suspended"}`},
		{http.MethodPatch, "/extensions/ID", `{"sipPassword":"stolen password"}`},
		{http.MethodPatch, "/extensions/ID", `{}`},
		{http.MethodDelete, "/extensions/ID", ""},
		{http.MethodGet, "/extensions/ID/stores", ""},
		{http.MethodPut, "/extensions/ID/stores", `{"storeIds":[]}`},
		{http.MethodGet, "/extensions/ID/convergence", ""},
	} {
		nobody := face(mall.do(t, tc.method, strings.ReplaceAll(tc.path, "ID", uuid.NewString()), tc.body))
		if !strings.HasPrefix(nobody, "Not Found\n") {
			t.Errorf("%s %s of nobody:\n%s", tc.method, tc.path, nobody)
		}
		for _, id := range []string{theirs, gone, strings.ToUpper(theirs)} {
			if got := face(mall.do(t, tc.method, strings.ReplaceAll(tc.path, "ID", id), tc.body)); got != nobody {
				t.Errorf("%s %s of another tenant:\n%s", tc.method, tc.path, got)
			}
			if got := face(mall.do(t, tc.method, strings.ReplaceAll(tc.path, "ID", id), tc.body, "Idempotency-Key", "k")); got != nobody {
				t.Errorf("%s %s of another tenant with a key:\n%s", tc.method, tc.path, got)
			}
		}
	}
	for _, path := range []string{"/extensions", "/extensions?status=deleted", "/extensions?sipRealm=shop.example", "/domains"} {
		if a := mall.do(t, http.MethodGet, path, ""); strings.TrimSpace(a.body) != `{"items":[]}` {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if contents(t, s) != state {
		t.Error("one tenant changed what is another's")
	}
	// The same key of two tenants is two keys.
	a, b := shop.post(t, shop.spec("1005"), "Idempotency-Key", "k"), mall.post(t, mall.spec("1005"), "Idempotency-Key", "k")
	if a.id(t) == b.id(t) || b.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("one key of two tenants: %s and %s", a.body, b.body)
	}
}

// Without a database nothing is let in, and nobody is told that he is not known.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	exec(t, s, `ALTER TABLE edgvoip.integration_secrets RENAME TO away`)
	a := w.do(t, http.MethodGet, "/domains", "")
	if a.status != http.StatusServiceUnavailable || a.code(t) != "unavailable" || a.header.Get("Retry-After") == "" || strings.Contains(a.body, "away") {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	if !strings.Contains(s.log.String(), `"cause":"`) {
		t.Errorf("not in the log: %s", s.log)
	}
}

// A fault of the database that passes asks the client to come again; another is ours.
func TestFaultsOfDatabase(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	for code, want := range map[string]string{
		"08006": "503 unavailable 1", "40P01": "503 unavailable 1", "53300": "503 unavailable 1", "57014": "503 unavailable 1", "57P01": "503 unavailable 1",
		"XX000": "500 internal ",
	} {
		exec(t, s, fmt.Sprintf(`CREATE OR REPLACE FUNCTION edgvoip.fail() RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN RAISE EXCEPTION 'fault' USING ERRCODE = '%s'; END $$`, code))
		exec(t, s, `CREATE OR REPLACE TRIGGER fail BEFORE INSERT ON edgvoip.sip_extensions FOR EACH ROW EXECUTE FUNCTION edgvoip.fail()`)
		a := w.do(t, http.MethodPost, "/extensions", w.spec("1001"))
		if got := fmt.Sprint(a.status, " ", a.code(t), " ", a.header.Get("Retry-After")); got != want {
			t.Errorf("%s: %q, want %q", code, got, want)
		}
	}
}

// Who asks too often is told when to come again; the others are not.
func TestLimits(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := start(t, func(o *api.Options) {
		o.Limits = api.Limits{PerAddress: 1, BurstAddress: 1000, PerTenant: 1, BurstTenant: 3}
		o.Now = func() time.Time { return now }
	})
	shop, mall := s.tenant(t, "shop"), s.tenant(t, "mall")
	for i := range 5 {
		a := shop.do(t, http.MethodGet, "/domains", "")
		if limited := i >= 3; limited != (a.status == http.StatusTooManyRequests) || limited && (a.code(t) != "rate_limited" || a.header.Get("Retry-After") != "1") {
			t.Errorf("request %d: %d %s %v", i, a.status, a.body, a.header)
		}
	}
	if a := mall.do(t, http.MethodGet, "/domains", ""); a.status != http.StatusOK {
		t.Errorf("another tenant: %d %s", a.status, a.body)
	}
	// Six have been used, 994 are left; one that is not let in costs ten.
	bad := request{method: http.MethodGet, target: api.BasePath + "/domains", header: http.Header{}}
	n := 0
	var last answer
	for ; n < 200; n++ {
		if last = s.send(t, bad); last.status != http.StatusUnauthorized {
			break
		}
	}
	if n != 100 || last.status != http.StatusTooManyRequests || last.header.Get("Retry-After") != "1" {
		t.Errorf("%d refusals, then %d %s", n, last.status, last.body)
	}
	if s.counter(t, "integration_rate_limited_total", "scope", "tenant") != 2 || s.counter(t, "integration_rate_limited_total", "scope", "address") != 1 {
		t.Error("limits are not counted")
	}
}
