package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

const credentials = `"tenantId": "6f1c0c1e-1f0e-4f8e-9d53-0f6a5a3c2b11", "bearerToken": "evb_hidden", "hmacSecret": "evs_hidden"`

func write(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "w3.json")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// standIn is an edgvoip that knows nothing but the form of its answers. It refuses the extension 66, and forgets the
// name of 77.
func standIn(t *testing.T) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	stored := map[string][]byte{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		if r.Method == http.MethodGet {
			_, _ = w.Write(stored[r.URL.Path])
			return
		}
		id := uuid.NewString()
		switch {
		case bytes.Contains(b, []byte(`"extension":"66"`)):
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"code":"invalid"}`))
			return
		case bytes.Contains(b, []byte(`"extension":"77"`)):
			b = bytes.Replace(b, []byte("Mock"), []byte("Muck"), 1)
		}
		stored[r.URL.Path+"/"+id] = b
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "edgvoipExtensionId": id, "status": "provisioned", "wsEndpoint": "wss://x:8443"})
	}))
	t.Cleanup(s.Close)
	return s
}

// What is not provisioned as it was ordered is told, by name, and the process fails.
func TestRun(t *testing.T) {
	t.Parallel()
	s := standIn(t)
	file := write(t, `{"tenants": [{`+credentials+`, "generate": {"sipRealm": "shop.example", "first": 60, "count": 20}}]}`)
	var out bytes.Buffer
	err := run(t.Context(), []string{"-url", s.URL, file}, &out, io.Discard)
	if err == nil || err.Error() != "2 extensions are not provisioned" {
		t.Errorf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		"failed: 66@shop.example: [422]: {\"code\":\"invalid\"}\n", "failed: 77@shop.example: displayName is stored as \"Muck 77\"\n",
		"20 extensions: 19 created, 0 were there, 0 answered from an earlier request, 2 failed\n", "sent 1 times: 39 requests\n", "POST 201: 19\n", "POST 422: 1\n", "GET 200: 19\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the report:\n%s", want, &out)
		}
	}
}

// A file that makes no sense is refused by what is wrong with it, and not shown.
func TestFiles(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{
		`{`:                                     "not JSON",
		`{"tenants": [{"tenantId": "hidden"}]}`: "not JSON",
		`{}`:                                    "no tenants",
		`{"tenants": [{"bearerToken": "evb_hidden"}]}`:                                                           "tenantId",
		`{"tenants": [{` + credentials + `}]}`:                                                                   "no extensions",
		`{"tenants": [{` + credentials + `, "generate": {"count": 1, "first": 10}}]}`:                            "sipRealm",
		`{"tenants": [{` + credentials + `, "generate": {"count": 1, "first": 1, "sipRealm": "shop.example"}}]}`: "first",
	} {
		err := run(t.Context(), []string{write(t, content)}, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
	example, err := os.ReadFile("example.json")
	if err != nil {
		t.Fatal(err)
	}
	filled := write(t, strings.NewReplacer("evb_...", "evb_a", "evs_...", "evs_a").Replace(string(example)))
	for _, args := range [][]string{{}, {"a", "b"}, {"-clients", "0", "a"}, {"-attempts", "0", "a"}, {"-nonsense"}, {"/nowhere"}, {"-ca", "/nowhere", filled}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
	// The example is refused until somebody has put credentials in.
	if _, err := readTenants("example.json"); err == nil || !strings.Contains(err.Error(), "tenants[0]: bearerToken and hmacSecret are the example's") {
		t.Errorf("example.json: %v", err)
	}
	if tenants, err := readTenants(filled); err != nil || len(tenants) != 2 {
		t.Errorf("example.json with credentials: %v", err)
	}
}
