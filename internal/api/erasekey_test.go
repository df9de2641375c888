package api_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/edgvoip/edgvoip/internal/api"
)

// An erasure has its effect once under its key, as every write of W3 has, and what is kept does not hold the number.
func TestErasureOnce(t *testing.T) {
	t.Parallel()
	s := start(t)
	w := s.tenant(t, "shop")
	erasures := func() int {
		return one[int](t, s, `SELECT count(*) FROM edgvoip.audit_log WHERE action = 'number.erased'`)
	}
	const body = `{"number":"+393331234567"}`
	answers := make(chan answer, 2) // more at a time a tenant may not
	var at sync.WaitGroup
	for range cap(answers) {
		r := w.sign(http.MethodPost, "/erasures", body, "Idempotency-Key", "k")
		at.Go(func() {
			a, err := s.try(t.Context(), r)
			if err != nil {
				a.body = err.Error()
			}
			answers <- a
		})
	}
	at.Wait()
	replayed := 0
	for range cap(answers) {
		a := <-answers
		if a.status != http.StatusOK || strings.TrimSpace(a.body) != `{"calls":0,"done":true}` {
			t.Errorf("%d %s", a.status, a.body)
		}
		if a.header.Get("Idempotent-Replayed") == "true" {
			replayed++
		}
	}
	if n := erasures(); n != 1 || replayed != cap(answers)-1 {
		t.Errorf("%d erasures, %d answers of an earlier one", n, replayed)
	}
	if a := w.do(t, http.MethodPost, "/erasures", `{"number":"+393337654321"}`, "Idempotency-Key", "k"); a.status != http.StatusUnprocessableEntity || a.code(t) != "idempotency_key_reused" {
		t.Errorf("another body: %d %s", a.status, a.body)
	}
	if n := erasures(); n != 1 {
		t.Errorf("%d erasures after a key that was refused", n)
	}
	if a := w.do(t, http.MethodPost, "/erasures", `{"number":"1001"}`, "Idempotency-Key", "bad"); a.status != http.StatusUnprocessableEntity {
		t.Errorf("no number: %d %s", a.status, a.body)
	}
	if a := w.do(t, http.MethodPost, "/erasures", body, "Idempotency-Key", "bad"); a.status != http.StatusOK || a.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("mended: %d %s", a.status, a.body)
	}
	w.do(t, http.MethodPost, "/erasures", body)
	if n := erasures(); n != 3 {
		t.Errorf("%d erasures, want 3", n)
	}
	if kept := one[string](t, s, `SELECT string_agg(k::text, ' ') FROM edgvoip.idempotency_keys k`); strings.Contains(kept, "33312345") {
		t.Errorf("kept: %s", kept)
	}
}

// An operator's write takes no Idempotency-Key: he is told so, and nothing is written or kept.
func TestOperatorsKey(t *testing.T) {
	t.Parallel()
	s := start(t)
	w, anna := s.tenant(t, "shop"), s.operator(t, "anna", 0)
	before := contents(t, s)
	for _, r := range [][3]string{
		{http.MethodPost, "/tenants", `{"slug":"mall","name":"Mall","country":"IT"}`},
		{http.MethodPatch, "/tenants/" + w.tenant.String(), `{"name":"Mall"}`},
		{http.MethodPost, "/tenants/" + w.tenant.String() + "/secrets", ""},
		{http.MethodPut, "/nodes/fs1", `{"address":"192.0.2.1:8021","password":"s3cret"}`},
		{http.MethodDelete, "/tenants/" + w.tenant.String() + "/secrets/" + w.secret.ID.String(), ""},
	} {
		q := request{method: r[0], target: api.AdminPath + r[1], body: r[2], header: http.Header{"Authorization": {"Bearer " + anna.token}, "Idempotency-Key": {"k"}}}
		if r[2] != "" {
			q.header.Set("Content-Type", "application/json")
		}
		if a := s.send(t, q); a.status != http.StatusBadRequest || a.code(t) != "idempotency_key_not_taken" {
			t.Errorf("%v: %d %s", r, a.status, a.body)
		}
	}
	if contents(t, s) != before {
		t.Error("what was refused was written")
	}
}
