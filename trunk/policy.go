package trunk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The largest time policy that is taken, in bytes without space between its parts, and how deep it may nest.
const (
	maxTimePolicy      = 16 << 10
	maxTimePolicyDepth = 8
)

// ParseAITimePolicy accepts a JSON object, and returns it in one spelling: no space, names in order. Nothing and null
// give nil. What the object means is for package schedule.
func ParseAITimePolicy(policy json.RawMessage) (json.RawMessage, error) {
	if len(policy) == 0 {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(policy))
	// Numbers stay as they are written: a float would change those that are long.
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errors.New("is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("is more than one JSON object")
	}
	if v == nil {
		return nil, nil
	}
	if _, ok := v.(map[string]any); !ok {
		return nil, errors.New("is not a JSON object")
	}
	if err := storable(v, maxTimePolicyDepth); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode time policy: %w", err)
	}
	// Measured in this spelling: the database's own, in which it is read again, is longer.
	if b.Len() > maxTimePolicy {
		return nil, fmt.Errorf("has more than %d bytes", maxTimePolicy)
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

// storable tells why PostgreSQL would not keep a JSON value as it is.
func storable(v any, depth int) error {
	if depth == 0 {
		return fmt.Errorf("is nested deeper than %d", maxTimePolicyDepth)
	}
	switch v := v.(type) {
	case string:
		if strings.ContainsRune(v, 0) {
			return errors.New("holds a text with U+0000")
		}
	case json.Number:
		if strings.ContainsAny(v.String(), "eE") || strings.HasPrefix(v.String(), "-0") || len(v) > 32 {
			return errors.New("holds a number that is not a plain decimal of up to 32 characters")
		}
	case []any:
		for _, e := range v {
			if err := storable(e, depth-1); err != nil {
				return err
			}
		}
	case map[string]any:
		for name, e := range v {
			if err := errors.Join(storable(name, depth), storable(e, depth-1)); err != nil {
				return err
			}
		}
	}
	return nil
}
