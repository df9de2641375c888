package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// A write under a key has its effect once, and its answer as often as it is asked for, whatever has changed since.
func TestKeys(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	id := w.post(t, w.spec("1000")).id(t)
	stores := `{"storeIds":["` + uuid.NewString() + `"]}`
	for _, tc := range []struct{ key, method, path, body, undo string }{
		{"put", http.MethodPost, "/extensions", w.spec("1001"), ""},
		{"patch", http.MethodPatch, "/extensions/" + id, `{"status":"suspended"}`, `UPDATE edgvoip.sip_extensions SET status = 'active'`},
		{"stores", http.MethodPut, "/extensions/" + id + "/stores", stores, `DELETE FROM edgvoip.voip_extension_store_access`},
		{"delete", http.MethodDelete, "/extensions/" + id, "", `UPDATE edgvoip.tenants SET name = 'x'`},
		{strings.Repeat("k", 255), http.MethodPost, "/extensions", w.spec("1002"), ""},
		{`!"#$%&'()*+,-./:;<=>?@[\]^_{|}~`, http.MethodPost, "/extensions", w.spec("1003"), ""},
	} {
		first := w.do(t, tc.method, tc.path, tc.body, "Idempotency-Key", tc.key)
		if first.status/100 != 2 || first.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("%s: %d %s %v", tc.key, first.status, first.body, first.header)
		}
		if tc.undo != "" {
			exec(t, s, tc.undo)
		}
		state := contents(t, s)
		again := w.do(t, tc.method, tc.path, tc.body, "Idempotency-Key", tc.key)
		if again.status != first.status || again.body != first.body || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("%s again: %d %s %v, want %d %s", tc.key, again.status, again.body, again.header, first.status, first.body)
		}
		for what, a := range map[string]answer{
			"another body":   w.do(t, http.MethodPost, "/extensions", w.spec("1009"), "Idempotency-Key", tc.key),
			"another path":   w.do(t, http.MethodDelete, "/extensions/"+uuid.NewString(), "", "Idempotency-Key", tc.key),
			"another method": w.do(t, http.MethodPatch, "/extensions/"+id, `{}`, "Idempotency-Key", tc.key),
		} {
			if a.status != http.StatusUnprocessableEntity || a.code(t) != "idempotency_key_reused" {
				t.Errorf("%s with %s: %d %s", tc.key, what, a.status, a.body)
			}
		}
		if contents(t, s) != state {
			t.Errorf("%s: a repetition changed something", tc.key)
		}
	}
	if n := s.counter(t, "integration_idempotent_replays_total"); n != 6 {
		t.Errorf("%v replays counted, want 6", n)
	}
	if kept := one[string](t, s, `SELECT string_agg(k::text, ' ') FROM edgvoip.idempotency_keys k`); strings.Contains(kept, "correct horse") {
		t.Errorf("a password is kept: %s", kept)
	}
	for key, want := range map[string]int{strings.Repeat("k", 256): http.StatusUnprocessableEntity, "caffè": http.StatusBadRequest, "a\tb": http.StatusBadRequest} {
		if a := w.do(t, http.MethodPost, "/extensions", w.spec("1008"), "Idempotency-Key", key); a.status != want || strings.Contains(a.body, key) {
			t.Errorf("key %q: %d %s", key, a.status, a.body)
		}
	}
	// A client that lost its key must hear of it: without one a repetition has its effect again.
	if a := w.do(t, http.MethodPost, "/extensions", w.spec("1008"), "Idempotency-Key", ""); a.status != http.StatusBadRequest || a.code(t) != "bad_idempotency_key" {
		t.Errorf("an empty key: %d %s", a.status, a.body)
	}
	two := w.sign(http.MethodPost, "/extensions", w.spec("1008"), "Idempotency-Key", "a")
	two.header.Add("Idempotency-Key", "b")
	if a := s.send(t, two); a.status != http.StatusBadRequest || a.code(t) != "bad_idempotency_key" {
		t.Errorf("two keys: %d %s", a.status, a.body)
	}
}

// An answer is kept for a day, and an error not at all.
func TestKeyLifetime(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	first := w.post(t, w.spec("1001"), "Idempotency-Key", "k")
	if hours := one[float64](t, s, `SELECT extract(epoch FROM expires_at - created_at) / 3600 FROM edgvoip.idempotency_keys`); hours != 24 {
		t.Errorf("kept for %v hours", hours)
	}
	exec(t, s, `UPDATE edgvoip.idempotency_keys SET expires_at = now() - interval '1 second'`)
	if a := w.do(t, http.MethodPost, "/extensions", w.spec("1002"), "Idempotency-Key", "k"); a.status != http.StatusCreated || a.id(t) == first.id(t) {
		t.Errorf("after a day: %d %s", a.status, a.body)
	}
	taken := w.spec("1003", "sipUsername", "user1001")
	if a := w.do(t, http.MethodPost, "/extensions", taken, "Idempotency-Key", "k2"); a.status != http.StatusConflict {
		t.Errorf("a conflict: %d %s", a.status, a.body)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.idempotency_keys`); n != 1 {
		t.Errorf("%d keys after a conflict, want 1", n)
	}
	if a := w.do(t, http.MethodPost, "/extensions", w.spec("1003"), "Idempotency-Key", "k2"); a.status != http.StatusCreated {
		t.Errorf("mended: %d %s", a.status, a.body)
	}
	exec(t, s, `UPDATE edgvoip.idempotency_keys SET expires_at = now() - interval '1 second'`)
	if n, err := s.store.Prune(t.Context()); err != nil || n != 2 {
		t.Errorf("pruned %d, %v", n, err)
	}
}

// Many at once with one key are one write, and get one answer; without a key they are still one extension.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	for _, key := range []string{"k", ""} {
		before := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'extension.created'`)
		body := w.spec("100" + string(byte('1'+len(key))))
		answers := make(chan answer, 8)
		for range cap(answers) {
			r := w.sign(http.MethodPost, "/extensions", body)
			if key != "" {
				r.header.Set("Idempotency-Key", key)
			}
			go func() {
				a, err := s.try(t.Context(), r)
				if err != nil {
					a.body = err.Error()
				}
				answers <- a
			}()
		}
		bodies, created, replayed := map[string]bool{}, 0, 0
		for range cap(answers) {
			a := <-answers
			bodies[a.body] = true
			if a.header.Get("Idempotent-Replayed") == "true" {
				replayed++
			} else if a.status == http.StatusCreated {
				created++
			}
		}
		if len(bodies) != 1 || created != 1 || key != "" && replayed != cap(answers)-1 {
			t.Errorf("key %q: %d created, %d replayed, answers %v", key, created, replayed, bodies)
		}
		if n := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'extension.created'`) - before; n != 1 {
			t.Errorf("key %q: %d audit rows", key, n)
		}
	}
}

// A write that is killed half way, between its rows and its commit, has written nothing, and its key is free.
func TestKilled(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	w.post(t, w.spec("1000"))
	before := contents(t, s)
	lock, err := s.raw.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.ExecContext(t.Context(), `LOCK TABLE edgvoip.audit_log IN EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	done := make(chan answer, 1)
	r := w.sign(http.MethodPost, "/extensions", w.spec("1001"), "Idempotency-Key", "k")
	go func() {
		a, err := s.try(t.Context(), r)
		if err != nil {
			a.body = err.Error()
		}
		done <- a
	}()
	for killed := false; !killed; {
		const kill = `
			SELECT coalesce(bool_or(pg_terminate_backend(l.pid)), false) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
			 WHERE d.datname = current_database() AND NOT l.granted AND l.relation = 'edgvoip.audit_log'::regclass`
		if err := lock.QueryRowContext(t.Context(), kill).Scan(&killed); err != nil {
			t.Fatal(err)
		}
	}
	if a := <-done; a.status < 500 || strings.Contains(a.body, "terminat") {
		t.Errorf("killed: %d %s", a.status, a.body)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	if contents(t, s) != before {
		t.Errorf("half a write is there:\n%s", contents(t, s))
	}
	a := w.do(t, http.MethodPost, "/extensions", w.spec("1001"), "Idempotency-Key", "k")
	if a.status != http.StatusCreated || a.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("once more: %d %s", a.status, a.body)
	}
	if n := one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'extension.created'`); n != 2 {
		t.Errorf("%d audit rows", n)
	}
}

// A hash of weaker parameters than today's is made again when the password comes by, and no phone is told.
func TestHashUpgrade(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	s.node(t, "fs1", "active")
	id := w.post(t, w.spec("1001")).id(t)
	// Argon2id of "correct horse battery 1001" with m=8192, t=1.
	const weak = "$argon2id$v=19$m=8192,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$WEAK"
	exec(t, s, `UPDATE edgvoip.sip_extensions SET password_hash = $1`, strings.Replace(weak, "WEAK", weakHash("correct horse battery 1001"), 1))
	const sealed = `SELECT encode(ha1_md5_sealed, 'hex') FROM edgvoip.sip_extensions WHERE id = $1`
	before := one[string](t, s, sealed, id)
	if a := w.post(t, w.spec("1001")); a.status != http.StatusOK || a.id(t) != id {
		t.Errorf("%d %s", a.status, a.body)
	}
	if h := one[string](t, s, `SELECT password_hash FROM edgvoip.sip_extensions`); !strings.HasPrefix(h, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("the hash is %s", h)
	}
	if one[string](t, s, sealed, id) != before || one[int](t, s, `SELECT count(*) FROM edgvoip.jobs`) != 0 {
		t.Error("the A1 was made again, or a switch was told")
	}
	state := contents(t, s)
	if w.post(t, w.spec("1001")); contents(t, s) != state {
		t.Error("made again once more")
	}
}

// Every request is counted by what it was and what became of it.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	w.post(t, w.spec("1001"), "Idempotency-Key", "k")
	w.post(t, w.spec("1001"), "Idempotency-Key", "k")
	id := w.post(t, w.spec("1001")).id(t)
	w.do(t, http.MethodPost, "/extensions", w.spec("1001", "sipPassword", "short"))
	w.do(t, http.MethodPost, "/extensions", w.spec("1001", "sipPassword", 7))
	w.do(t, http.MethodPost, "/extensions", w.spec("1002", "sipUsername", "1001"))
	w.do(t, http.MethodPatch, "/extensions/"+id, `{"status":"suspended"}`)
	w.do(t, http.MethodDelete, "/extensions/"+id, "")
	w.do(t, http.MethodGet, "/nowhere", "")
	for _, tc := range []struct {
		operation, outcome string
		want               float64
	}{
		{"put-extension", "created", 1},
		{"put-extension", "replayed", 1},
		{"put-extension", "unchanged", 1},
		{"put-extension", "invalid", 2},
		{"put-extension", "name_taken", 1},
		{"patch-extension", "updated", 1},
		{"delete-extension", "deleted", 1},
		{"none", "not_found", 1},
	} {
		if n := s.counter(t, "integration_requests_total", "operation", tc.operation, "outcome", tc.outcome); n != tc.want {
			t.Errorf("%s %s: %v, want %v", tc.operation, tc.outcome, n, tc.want)
		}
	}
}
