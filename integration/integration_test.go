package integration_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// memory is a store of one process.
type memory struct {
	secrets   map[integration.TokenHash]integration.Secret
	operators map[integration.TokenHash]integration.Operator
	seen      map[string]bool
	fault     error
}

func newMemory() *memory {
	return &memory{secrets: map[integration.TokenHash]integration.Secret{}, operators: map[integration.TokenHash]integration.Operator{}, seen: map[string]bool{}}
}

func (m *memory) SecretByToken(_ context.Context, token integration.TokenHash) (integration.Secret, error) {
	if s, ok := m.secrets[token]; ok || m.fault != nil {
		return s, m.fault
	}
	return integration.Secret{}, integration.ErrUnknownToken
}

func (m *memory) UseSignature(_ context.Context, tenant, _ uuid.UUID, signature []byte, _ time.Time) (bool, error) {
	key := tenant.String() + string(signature)
	defer func() { m.seen[key] = true }()
	return !m.seen[key], m.fault
}

func (m *memory) OperatorByToken(_ context.Context, token integration.TokenHash) (integration.Operator, error) {
	if o, ok := m.operators[token]; ok || m.fault != nil {
		return o, m.fault
	}
	return integration.Operator{}, integration.ErrUnknownToken
}

func (m *memory) AddSecret(_ context.Context, s integration.Secret, token integration.TokenHash, _ time.Time, _ string) error {
	s.TenantActive = true
	m.secrets[token] = s
	return m.fault
}

func (m *memory) AddOperator(_ context.Context, o integration.Operator, token integration.TokenHash, _ string) error {
	m.operators[token] = o
	return m.fault
}

func (*memory) RevokeSecret(context.Context, uuid.UUID, uuid.UUID, string) error {
	return integration.ErrUnknownSecret
}

func (*memory) Secrets(context.Context, uuid.UUID) ([]integration.Secret, error) { return nil, nil }

func (*memory) RevokeOperator(context.Context, string, string) error {
	return integration.ErrUnknownOperator
}

func (*memory) Operators(context.Context) ([]integration.Operator, error) { return nil, nil }

// The signature is what openssl makes of the same bytes.
func TestSign(t *testing.T) {
	t.Parallel()
	// printf '%s' '1732060800POST/api/v1/integration/extensions?x=1{"a":"è"}' | openssl dgst -sha256 -hmac evs_example
	const want = "d0a9adeb3f1c8518acb3831f2cec7f6ddb93329e43793c4fa449d7274e324cfb"
	if got := integration.Sign("evs_example", "1732060800", "POST", "/api/v1/integration/extensions?x=1", []byte(`{"a":"è"}`)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What goes wrong on our side is no refusal: nobody is told that his credentials are bad.
func TestFaults(t *testing.T) {
	t.Parallel()
	m := newMemory()
	keys := storetest.Keys()
	issued, err := integration.NewIssuer(m, keys, time.Now).Add(t.Context(), uuid.New(), "test")
	if err != nil {
		t.Fatal(err)
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	r := integration.Request{
		Authorization: "bearer " + issued.Bearer, Timestamp: stamp, Method: "GET", Target: "/x", Signature: integration.Sign(issued.HMAC, stamp, "GET", "/x", nil),
	}
	caller, err := integration.NewAuthenticator(m, keys, time.Now).Authenticate(t.Context(), r)
	if err != nil || caller.SecretID != issued.ID || caller.Actor() != "w3:"+caller.TenantID.String()+"/"+issued.ID.String() {
		t.Errorf("let in: %+v, %v", caller, err)
	}
	other, err := secret.ParseKeyRing([]byte("other MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n"))
	if err != nil {
		t.Fatal(err)
	}
	refused := &integration.RefusedError{}
	if _, err := integration.NewAuthenticator(m, other, time.Now).Authenticate(t.Context(), r); !errors.Is(err, secret.ErrUnknownKey) || errors.As(err, &refused) {
		t.Errorf("without the key: %v", err)
	}
	m.fault = errors.New("away")
	if _, err := integration.NewAuthenticator(m, keys, time.Now).Authenticate(t.Context(), r); !errors.Is(err, m.fault) || errors.As(err, &refused) {
		t.Errorf("without a store: %v", err)
	}
	if _, err := integration.NewAuthenticator(m, keys, time.Now).AuthenticateOperator(t.Context(), "Bearer x"); !errors.Is(err, m.fault) || errors.As(err, &refused) {
		t.Errorf("operator without a store: %v", err)
	}
}

// Credentials are long, of their own kind, never the same, and do not print themselves.
func TestIssued(t *testing.T) {
	t.Parallel()
	m := newMemory()
	i := integration.NewIssuer(m, storetest.Keys(), time.Now)
	seen := map[string]bool{}
	for range 50 {
		issued, err := i.Rotate(t.Context(), uuid.New(), time.Hour, "test")
		if err != nil {
			t.Fatal(err)
		}
		token, err := i.AddOperator(t.Context(), "anna", time.Hour, "test")
		if err != nil {
			t.Fatal(err)
		}
		for text, prefix := range map[string]string{issued.Bearer: "evb_", issued.HMAC: "evs_", token: "evo_"} {
			if len(text) != 47 || !strings.HasPrefix(text, prefix) || seen[text] {
				t.Errorf("%s", text)
			}
			seen[text] = true
		}
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			if s := fmt.Sprintf(format, issued); strings.Contains(s, "evb_") || strings.Contains(s, "evs_") {
				t.Errorf("%s prints %s", format, s)
			}
		}
	}
	for name, f := range map[string]func() error{
		"overlap": func() error {
			_, err := i.Rotate(t.Context(), uuid.New(), integration.MaxOverlap+1, "test")
			return err
		},
		"name":     func() error { _, err := i.AddOperator(t.Context(), "Anna Rossi", 0, "test"); return err },
		"lifetime": func() error { _, err := i.AddOperator(t.Context(), "anna", -1, "test"); return err },
	} {
		var bad *invalid.FieldError
		if err := f(); !errors.As(err, &bad) || bad.Name != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Law: a request with the bytes of another, cut at another place between path and body, is let in only if no body of
// ours could begin there.
func FuzzMovedBytes(f *testing.F) {
	f.Add("/api/v1/integration/extensions", `{"tenantId":"x"}`, 3)
	f.Add("/a?b=c", ` {}`, 1)
	f.Add("/a", "\n{}", -1)
	f.Fuzz(func(t *testing.T, target, body string, by int) {
		all := target + body
		cut := len(target) + by
		if cut < 0 || cut > len(all) || by == 0 {
			t.Skip("nothing is moved")
		}
		m := newMemory()
		keys := storetest.Keys()
		issued, err := integration.NewIssuer(m, keys, time.Now).Add(t.Context(), uuid.New(), "test")
		if err != nil {
			t.Fatal(err)
		}
		stamp := strconv.FormatInt(time.Now().Unix(), 10)
		in := func(target, body string) bool {
			clear(m.seen)
			_, err := integration.NewAuthenticator(m, keys, time.Now).Authenticate(t.Context(), integration.Request{
				Authorization: "Bearer " + issued.Bearer, Timestamp: stamp, Method: "POST", Target: target, Body: []byte(body),
				Signature: integration.Sign(issued.HMAC, stamp, "POST", all[:len(target)], []byte(all[len(target):])),
			})
			return err == nil
		}
		if in(target, body) && in(all[:cut], all[cut:]) {
			if moved := all[min(cut, len(target)):max(cut, len(target))]; strings.ContainsAny(moved, "{} \t\r\n\"[]") {
				t.Errorf("%q moved between path and body", moved)
			}
		}
	})
}
