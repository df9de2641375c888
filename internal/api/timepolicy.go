package api

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgvoip/edgvoip/schedule"
)

// timePolicy is the name of the component that is schedule.Schema.
const timePolicy = "TimePolicy"

// describeTimePolicies gives every field aiTimePolicy of the document the schema of time policies. It describes only:
// huma does not look at extensions when it checks a request, and what a policy must be is for package schedule to say,
// by the name of the field.
func describeTimePolicies(schemas huma.Registry) {
	component := &huma.Schema{Extensions: timePolicySchema()}
	reference := map[string]any{"$ref": "#/components/schemas/" + timePolicy}
	for name, s := range schemas.Map() {
		field, ok := s.Properties["aiTimePolicy"]
		if !ok {
			continue
		}
		field.Extensions = reference
		if name == "ChangedTrunk" {
			field.Extensions = map[string]any{"anyOf": []any{reference, map[string]any{"type": "null"}}}
		}
	}
	schemas.Map()[timePolicy] = component
}

// timePolicySchema is schedule.Schema at its place in the document, where its references begin at the document's root.
func timePolicySchema() map[string]any {
	text := bytes.ReplaceAll(schedule.Schema, []byte(`"#/$defs/`), []byte(`"#/components/schemas/`+timePolicy+`/$defs/`))
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		panic(fmt.Sprintf("schema of time policies: %v", err)) // it is compiled in
	}
	delete(schema, "$schema")
	delete(schema, "$id")
	return schema
}
