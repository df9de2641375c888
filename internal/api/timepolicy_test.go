package api

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/edgvoip/edgvoip/webhook"
)

// The document tells what a time policy is, wherever there is one, with references that lead somewhere.
func TestTimePolicySchema(t *testing.T) {
	t.Parallel()
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	for _, v := range []any{NewTrunk{}, ChangedTrunk{}, Trunk{}, webhook.TrunkState{}} {
		schemas.Schema(reflect.TypeOf(v), true, "")
	}
	describeTimePolicies(schemas)
	document, err := json.Marshal(map[string]any{"components": map[string]any{"schemas": schemas}})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi", parsed); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"NewTrunk", "ChangedTrunk", "Trunk", "TrunkState"} {
		schema, err := c.Compile("openapi#/components/schemas/" + name + "/properties/aiTimePolicy")
		if err != nil {
			t.Fatal(err)
		}
		for text, want := range map[string]bool{
			`{"weekly":{"mon":[{"from":"09:00","to":"18:00"}]},"holidays":["12-25"]}`: true, `{"mode":"always"}`: true, `null`: name == "ChangedTrunk",
			`{"weekly":{"mon":[{"from":"9","to":"18:00"}]}}`: false, `{"mode":"never","holidays":["12-25"]}`: false, `{}`: false, `"always"`: false,
		} {
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); (err == nil) != want {
				t.Errorf("%s: %s: %v, want valid: %t", name, text, err, want)
			}
		}
	}
}
