package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/invalid"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// registry is a node.Registry in memory.
type registry map[string]node.Node

func (r registry) Nodes(context.Context) ([]node.Node, error) { return nil, nil }

func (r registry) ChangeNode(_ context.Context, name string, change func(*node.Node) (node.Node, error), _ string) (node.Node, error) {
	var stored *node.Node
	if n, ok := r[name]; ok {
		stored = &n
	}
	changed, err := change(stored)
	if err == nil {
		r[name] = changed
	}
	return changed, err
}

func (r registry) RemoveNode(context.Context, string, bool, string) error { return node.ErrUnknownNode }

func spec() node.Spec {
	return node.Spec{Name: "fs1", Address: "switch.example:8021", Password: "event-socket", CachesUsers: true}
}

func TestPut(t *testing.T) {
	t.Parallel()
	p := node.NewProvisioner(registry{}, storetest.Keys())
	first, err := p.Put(t.Context(), spec(), "test")
	if err != nil {
		t.Fatal(err)
	}
	if password, err := node.Password(first, storetest.Keys()); err != nil || password != "event-socket" || !first.Active || !first.CachesUsers {
		t.Errorf("%+v, password opens to %q, %v", first, password, err)
	}
	if again, err := p.Put(t.Context(), spec(), "test"); err != nil || !again.Equal(first) {
		t.Errorf("the same again is %+v, %v; was %+v", again, err, first)
	}
	changed := spec()
	changed.Password, changed.Address = "another", "192.0.2.7:8022"
	second, err := p.Put(t.Context(), changed, "test")
	if err != nil || second.ID != first.ID || second.Equal(first) || second.Address != "192.0.2.7:8022" {
		t.Errorf("%+v, %v", second, err)
	}
	// A password moved to another row does not open there.
	second.ID = uuid.New()
	if _, err := node.Password(second, storetest.Keys()); err == nil {
		t.Error("the password opens for another switch")
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	p := node.NewProvisioner(registry{}, storetest.Keys())
	first, err := p.Put(t.Context(), spec(), "test")
	if err != nil {
		t.Fatal(err)
	}
	no := false
	disabled, err := p.Change(t.Context(), "fs1", node.Change{Active: &no}, "test")
	want := first
	want.Active = false
	if err != nil || !disabled.Equal(want) {
		t.Errorf("%+v, %v", disabled, err)
	}
	// To add it once more is no way to enable it.
	if again, err := p.Put(t.Context(), spec(), "test"); err != nil || again.Active {
		t.Errorf("put again: %+v, %v", again, err)
	}
	if _, err := p.Change(t.Context(), "fs2", node.Change{Active: &no}, "test"); !errors.Is(err, node.ErrUnknownNode) {
		t.Errorf("change of an unknown node: %v", err)
	}
}

func TestInvalidSpecs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		field  string
		change func(*node.Spec)
	}{
		{"name", func(s *node.Spec) { s.Name = "" }},
		{"name", func(s *node.Spec) { s.Name = "FS1" }},
		{"name", func(s *node.Spec) { s.Name = "fs1-" }},
		{"name", func(s *node.Spec) { s.Name = strings.Repeat("a", 65) }},
		{"address", func(s *node.Spec) { s.Address = "switch.example" }},
		{"address", func(s *node.Spec) { s.Address = ":8021" }},
		{"address", func(s *node.Spec) { s.Address = "switch.example:0" }},
		{"address", func(s *node.Spec) { s.Address = "switch.example:65536" }},
		{"address", func(s *node.Spec) { s.Address = "a b:8021" }},
		{"password", func(s *node.Spec) { s.Password = "" }},
		{"password", func(s *node.Spec) { s.Password = "s3cret\n" }},
		{"password", func(s *node.Spec) { s.Password = "s3cret word" }},
		{"password", func(s *node.Spec) { s.Password = strings.Repeat("s3cret", 50) }},
	} {
		s := spec()
		tc.change(&s)
		_, err := node.NewProvisioner(registry{}, storetest.Keys()).Put(t.Context(), s, "test")
		f, ok := errors.AsType[*invalid.FieldError](err)
		if !ok || f.Name != tc.field {
			t.Errorf("%+v: %v, want an error of %s", s, err, tc.field)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestTasks(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		kind    node.Kind
		payload string
		want    any // nil: cannot be read
	}{
		{
			node.KindUser, `{"realm": "a.example", "number": "1001", "username": "Anna", "revoked": true}`,
			node.User{Realm: storetest.Realm("a.example"), Number: storetest.Number("1001"), Username: storetest.Username("Anna"), Revoked: true},
		},
		{node.KindDomain, `{"realm": "a.example"}`, node.Domain{Realm: storetest.Realm("a.example")}},
		{
			node.KindDropRegistration, `{"profile": "internal", "callId": "x", "user": "1001", "realm": "A.example", "reason": "r"}`,
			node.Registration{Profile: "internal", CallID: "x", User: "1001", Realm: "A.example", Reason: "r"},
		},
		{node.KindUser, `{"realm": "a.example", "number": "1001", "username": "an na"}`, nil},
		{node.KindUser, `{"realm": "a.example", "username": "anna"}`, nil},
		{node.KindUser, `{`, nil},
		{node.KindDomain, `{"realm": "a example"}`, nil},
		{node.KindDomain, `[]`, nil},
		{node.KindDropRegistration, `[]`, nil},
		{"switch.dance", `{}`, nil},
	} {
		got, err := node.Job{Kind: tc.kind, Payload: json.RawMessage(tc.payload)}.Task()
		if tc.want == nil {
			if !errors.Is(err, node.ErrPayload) {
				t.Errorf("%s %s: %v, %v", tc.kind, tc.payload, got, err)
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s %s: %+v, %v, want %+v", tc.kind, tc.payload, got, err, tc.want)
		}
	}
}

// A second round asks for the same once more, revokes nothing, and has none after it.
func TestSettled(t *testing.T) {
	t.Parallel()
	first := node.Job{
		TenantID: uuid.New(), ID: 7, NodeID: uuid.New(), Kind: node.KindUser, Subject: "x", CorrelationID: "c",
		Payload: json.RawMessage(`{"realm": "a.example", "number": "1001", "username": "Anna", "revoked": true}`),
	}
	task, err := first.Task()
	if err != nil {
		t.Fatal(err)
	}
	again, ok := node.SecondRound(task)
	if !ok {
		t.Fatal("there is no second round")
	}
	second, err := first.Settled(again)
	if err != nil {
		t.Fatal(err)
	}
	want := node.Job{TenantID: first.TenantID, NodeID: first.NodeID, Kind: first.Kind, Subject: node.Subjects("x")[1], CorrelationID: "c", Payload: second.Payload}
	if diff := cmp.Diff(want, second); diff != "" {
		t.Error(diff)
	}
	read, err := second.Task()
	if u, isUser := read.(node.User); err != nil || read != again || !isUser || u.Revoked || !u.Settle || u.Username.String() != "Anna" {
		t.Errorf("%+v, %v, want %+v", read, err, again)
	}
	for _, task := range []any{again, node.Domain{Settle: true}, node.Registration{}} {
		if more, ok := node.SecondRound(task); ok {
			t.Errorf("%+v has a second round: %+v", task, more)
		}
	}
	domain := node.Domain{Realm: storetest.Realm("a.example")}
	if more, ok := node.SecondRound(domain); !ok || more != (node.Domain{Realm: domain.Realm, Settle: true}) {
		t.Errorf("second round of a domain: %+v, %v", more, ok)
	}
}
