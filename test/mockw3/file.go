package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// tenant is a tenant of the file.
type tenant struct {
	ID     uuid.UUID `json:"tenantId"`
	Bearer string    `json:"bearerToken"`
	HMAC   string    `json:"hmacSecret"`
	// Extensions are bodies of POST /extensions. tenantId is added to each.
	Extensions []map[string]any `json:"extensions"`
	Generate   generate         `json:"generate"`
}

// generate asks for extensions to be made up: count of them, numbered from first.
type generate struct {
	Realm string `json:"sipRealm"`
	First int    `json:"first"`
	Count int    `json:"count"`
}

// readTenants reads the file. No error repeats what is in it: it holds secrets.
func readTenants(file string) ([]tenant, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the caller's own
	if err != nil {
		return nil, err
	}
	var content struct {
		Tenants []tenant `json:"tenants"`
	}
	if err := json.Unmarshal(b, &content); err != nil {
		return nil, fmt.Errorf("%s is not JSON of the form of example.json", file)
	}
	if len(content.Tenants) == 0 {
		return nil, fmt.Errorf("%s has no tenants", file)
	}
	for n, t := range content.Tenants {
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("%s: tenants[%d]: %w", file, n, err)
		}
	}
	return content.Tenants, nil
}

func (t tenant) check() error {
	switch {
	case t.ID == uuid.Nil || t.Bearer == "" || t.HMAC == "":
		return errors.New("tenantId, bearerToken and hmacSecret are mandatory")
	case strings.HasSuffix(t.Bearer, "...") || strings.HasSuffix(t.HMAC, "..."):
		return errors.New("bearerToken and hmacSecret are the example's: put in what integration-api secret add prints")
	case len(t.Extensions) == 0 && t.Generate.Count < 1:
		return errors.New("there are no extensions and none to generate")
	case t.Generate.Count > 0 && (t.Generate.Realm == "" || t.Generate.First < 10):
		return errors.New("generate wants sipRealm and a first number of two digits or more")
	}
	return nil
}

// bodies are what to send for the tenant's extensions.
func (t tenant) bodies() []map[string]any {
	var all []map[string]any
	for _, e := range t.Extensions {
		e = maps.Clone(e)
		e["tenantId"] = t.ID
		all = append(all, e)
	}
	for n := range t.Generate.Count {
		number := strconv.Itoa(t.Generate.First + n)
		all = append(all, map[string]any{
			"tenantId": t.ID, "sipRealm": t.Generate.Realm, "extension": number, "sipUsername": number, "displayName": "Mock " + number,
			"sipPassword": t.password(number), "transport": "WSS", "allowedCodecs": []string{"opus", "PCMA"}, "maxConcurrentCalls": 2,
		})
	}
	return all
}

// password makes up a password that is the same in every run, so that a second one changes nothing, and that nobody
// knows who does not know the tenant's secret.
func (t tenant) password(number string) string {
	mac := hmac.New(sha256.New, []byte(t.HMAC))
	_, _ = mac.Write([]byte("password of " + number + "@" + t.Generate.Realm)) // a hash does not fail
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}
