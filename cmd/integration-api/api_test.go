package main

import (
	"io"
	"strings"
	"testing"
)

// The API speaks HTTPS, and plain HTTP only where nobody else listens and only when told to.
func TestAPISettings(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		want string // in the error; empty means none
		env  []string
	}{
		{"API_TLS_CERT_FILE is not set", nil},
		{"", []string{"API_DEVELOPMENT_HTTP=true"}},
		{"", []string{"API_DEVELOPMENT_HTTP=true", "API_ADDR=[::1]:8443"}},
		{"", []string{"API_TLS_CERT_FILE=c", "API_TLS_KEY_FILE=k", "API_ADDR=0.0.0.0:8443"}},
		{"loopback", []string{"API_DEVELOPMENT_HTTP=true", "API_ADDR=0.0.0.0:8443"}},
		{"loopback", []string{"API_DEVELOPMENT_HTTP=true", "API_ADDR=:8443"}},
		{"loopback", []string{"API_DEVELOPMENT_HTTP=true", "API_ADDR=api.example:8443"}},
		{"contradict", []string{"API_DEVELOPMENT_HTTP=true", "API_TLS_CERT_FILE=c", "API_TLS_KEY_FILE=k"}},
		{"go together", []string{"API_TLS_CERT_FILE=c"}},
		{"go together", []string{"API_TLS_KEY_FILE=k"}},
		{"API_ADDR", []string{"API_ADDR=here"}},
		{"API_REQUEST_TIMEOUT", []string{"API_DEVELOPMENT_HTTP=true", "API_REQUEST_TIMEOUT=0s"}},
		{"API_REQUEST_TIMEOUT", []string{"API_DEVELOPMENT_HTTP=true", "API_REQUEST_TIMEOUT=1h"}},
		{"API_RATE_PER_TENANT", []string{"API_DEVELOPMENT_HTTP=true", "API_RATE_PER_TENANT=0"}},
		{"API_RATE_PER_ADDRESS", []string{"API_DEVELOPMENT_HTTP=true", "API_RATE_PER_ADDRESS=-1"}},
		{"API_HASH_CONCURRENCY", []string{"API_DEVELOPMENT_HTTP=true", "API_HASH_CONCURRENCY=-1"}},
		{"CDR_ADDR", []string{"API_DEVELOPMENT_HTTP=true", "CDR_ADDR=here"}},
		{"CDR_ADDR is not a loopback", []string{"API_DEVELOPMENT_HTTP=true", "CDR_ADDR=0.0.0.0:8083"}},
		{"", []string{"API_DEVELOPMENT_HTTP=true", "CDR_ADDR=0.0.0.0:8083", "CDR_ALLOW_PLAIN=true"}},
		{"", []string{"API_DEVELOPMENT_HTTP=true", "CDR_ADDR=off", "CDR_CREDENTIALS_FILE="}},
		{"", []string{"API_DEVELOPMENT_HTTP=true", "CDR_ADDR=", "CDR_CREDENTIALS_FILE="}},
		{"CDR_CREDENTIALS_FILE", []string{"API_DEVELOPMENT_HTTP=true", "CDR_CREDENTIALS_FILE="}},
		{"CDR_TLS_CERT_FILE", []string{"API_DEVELOPMENT_HTTP=true", "CDR_TLS_KEY_FILE=k"}},
		{"CDR_TLS_CLIENT_CA_FILE", []string{"API_DEVELOPMENT_HTTP=true", "CDR_TLS_CLIENT_CA_FILE=k"}},
		{"API_PUBLIC_URL", []string{"API_DEVELOPMENT_HTTP=true", "API_PUBLIC_URL=https://api.example/path"}},
		{"RECORDINGS_DIR", []string{"API_DEVELOPMENT_HTTP=true", "RECORDINGS_DIR=/r"}},
		{"API_WS_ENDPOINT", []string{"API_DEVELOPMENT_HTTP=true", "API_WS_ENDPOINT=ws://x"}},
	} {
		s, err := readSettings(append([]string{"DATABASE_URL=x", "SECRET_KEYS_FILE=x", "CDR_CREDENTIALS_FILE=x"}, tc.env...))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.checkServe(); tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%v: %v, want %q", tc.env, err, tc.want)
		}
	}
	i := install(t)
	err := run(t.Context(), []string{"serve"}, append(i.env, "CDR_ADDR=off", "API_TLS_CERT_FILE=/nowhere", "API_TLS_KEY_FILE=/nowhere"), streams{nil, io.Discard, io.Discard})
	if err == nil || !strings.Contains(err.Error(), "API_TLS_CERT_FILE") {
		t.Errorf("a certificate that is not there: %v", err)
	}
}
