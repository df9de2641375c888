package aisession_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/edgvoip/edgvoip/aisession"
)

// contract returns the schema of one thing of the contract.
func contract(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	b, err := os.ReadFile("../docs/ai-gateway.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("contract.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("contract.json#/$defs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// What is sent is what the schema says.
func TestWeKeepTheContract(t *testing.T) {
	t.Parallel()
	yes, index, mid := true, uint16(0), "0"
	for name, list := range map[string][]any{
		"SessionRequest": {
			aisession.SessionRequest{CallID: uuid.NewString(), CallerNumber: "+390612345678", AgentRef: "anna", TenantID: uuid.NewString(), StoreID: uuid.NewString()},
			aisession.SessionRequest{CallID: uuid.NewString(), AgentRef: "anna", TenantID: uuid.NewString()},
		},
		"ToGateway": {
			aisession.Message{Type: aisession.TypeAnswer, SDP: "v=0"},
			aisession.Message{Type: aisession.TypeCandidate, Candidate: &aisession.Candidate{Candidate: "x", SDPMid: &mid, SDPMLineIndex: &index}},
			aisession.Message{Type: aisession.TypeCandidate, Candidate: &aisession.Candidate{}},
			aisession.Message{Type: aisession.TypeHold, Active: &yes},
			aisession.Message{Type: aisession.TypeHangup, Reason: aisession.HangupTransferred},
		},
	} {
		s := contract(t, name)
		for _, v := range list {
			b, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := valid(t, s, string(b)); err != nil {
				t.Errorf("%s: %v", b, err)
			}
		}
	}
}

// What the schema allows is taken, and what it does not is refused; a message of a type that is not known is ignored.
func TestTheGatewayKeepsTheContract(t *testing.T) {
	t.Parallel()
	s := contract(t, "FromGateway")
	for _, text := range []string{
		`{"type":"candidate","candidate":{"candidate":"x","sdpMid":null}}`, `{"type":"hangup","reason":"normal"}`, `{"type":"hangup","reason":"failure","x":1}`,
		`{"type":"transfer","to":"1002"}`, `{"type":"error","code":"x"}`, `{"type":"mood"}`, `{}`, `{"type":"hangup"}`, `{"type":"hangup","reason":"x"}`,
		`{"type":"transfer","to":"1"}`, `{"type":"transfer","to":1002}`, `{"type":"transfer","to":"+39061234"}`, `{"type":"transfer","to":"1234567890123"}`,
		`{"type":"error","code":""}`, `{"type":"candidate"}`, `{"type":"answer","sdp":"v=0"}`, `{"type":"hold","active":true}`,
	} {
		_, err := aisession.ParseMessage([]byte(text))
		schema := valid(t, s, text)
		if (err == nil) != (schema == nil) && !errors.Is(err, aisession.ErrUnknownMessage) {
			t.Errorf("%s: we say %v, the schema %v", text, err, schema)
		}
	}
	s = contract(t, "Session")
	for _, change := range [][2]string{
		{"", ""},
		{`"s-1"`, `"s 1"`},
		{`"s-1"`, `""`},
		{`"v=0"`, `""`},
		{"wss://", "ws://"},
		{"wss://", "wss://u:p@"},
		{"?x=y", "#x"},
		{"stun:stun.example", "http:x"},
		{`["turn:turn.example:3478?transport=udp"]`, `[]`},
		{"stun:stun.example", "stun:stun.example?transport=udp"},
		{"stun:stun.example", "turn:stun.example"},
		{"transport=udp", "transport=sctp"},
		{"transport=udp", "transport=tcp"},
		{"?transport=udp", ""},
		{"turn.example:3478?transport=udp", "?transport=udp"},
		{`"turn:turn.example:3478?transport=udp"`, `"stun:x","turn:turn.example"`},
		{`"username":"u",`, ``},
		{`"username":"u"`, `"username":""`},
		{`,"credential":"c"`, ``},
		{`"credential":"c"`, `"credential":""`},
		{`"username":"u","credential":"c"`, `"password":"c"`},
		{`"turn:turn.example:3478?transport=udp"],"username":"u","credential":"c"`, `"stuns:x"]`},
		{"t0ken", "t ken"},
		{`"sdpOffer":"v=0"`, `"sdp":{"type":"offer","sdp":"v=0"}`},
		{`"sdpOffer":"v=0"`, `"sdp":{"type":"answer","sdp":"v=0"}`},
		{`"more":1`, `"sdp":{"type":"offer","sdp":"v=0"}`},
		{`"sessionId":"s-1",`, ``},
		{"2026-11-21T10:00:00Z", "tomorrow"},
	} {
		text := strings.Replace(answer, change[0], change[1], 1)
		_, err := aisession.ParseSession([]byte(text), false, before)
		if schema := valid(t, s, text); (err == nil) != (schema == nil) {
			t.Errorf("%v: we say %v, the schema %v", change, err, schema)
		}
	}
}

// example finds the examples of docs/ai-gateway.md: JSON under a comment that names what it is an example of.
var example = regexp.MustCompile("(?s)<!-- ([A-Za-z]+) -->\n```json\n(.*?)```")

// Every example of docs/ai-gateway.md is one.
func TestExamplesAreOnes(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../docs/ai-gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, m := range example.FindAllStringSubmatch(string(doc), -1) {
		s := contract(t, m[1])
		for text := range strings.SplitSeq(strings.TrimSpace(m[2]), "\n\n") {
			if err := valid(t, s, text); err != nil {
				t.Errorf("%s: %v", text, err)
			}
			found[m[1]]++
		}
	}
	for _, name := range []string{"SessionRequest", "Session", "ToGateway", "FromGateway"} {
		if found[name] == 0 {
			t.Errorf("there is no example of a %s", name)
		}
	}
}
