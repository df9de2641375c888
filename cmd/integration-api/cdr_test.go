package main

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// taking is a running integration-api that takes call records.
type taking struct {
	cdr, metrics string
}

// takeRecords starts integration-api with a listener for call records and a directory of recordings.
func takeRecords(t *testing.T, i installation, recordings string) taking {
	t.Helper()
	credentials := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(credentials, []byte(sweepCredentials+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	read, write := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{"serve"}, append(i.env, "API_METRICS_ADDR=127.0.0.1:0", "API_ADDR=127.0.0.1:0", "API_DEVELOPMENT_HTTP=true", "CDR_ADDR=127.0.0.1:0",
			"CDR_CREDENTIALS_FILE="+credentials, "RECORDINGS_DIR="+recordings, "API_PUBLIC_URL=https://api.example"), streams{nil, io.Discard, write})
		_ = write.Close() // never fails
		done <- err
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	addresses := make(chan string, 2)
	go func() {
		for lines := bufio.NewScanner(read); lines.Scan(); { // the log must be drained
			var line struct {
				Message string `json:"msg"`
				Addr    string `json:"addr"`
				Metrics string `json:"metrics_addr"`
			}
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				continue
			}
			switch line.Message {
			case "taking call records":
				addresses <- line.Addr
			case "serving":
				addresses <- line.Metrics
			}
		}
	}()
	var at taking
	for _, to := range []*string{&at.cdr, &at.metrics} {
		select {
		case *to = <-addresses:
		case <-time.After(30 * time.Second):
			t.Fatal("it does not serve")
		}
	}
	return at
}

func (at taking) post(t *testing.T, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at.cdr+"/cdr?uuid=x", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("switch", "long enough")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// A record that a switch posts is a call, and an event, soon; its recording is told when it is there, and removed when
// its time is over.
func TestPostedRecord(t *testing.T) {
	t.Parallel()
	i := install(t)
	recordings := t.TempDir()
	at := takeRecords(t, i, recordings)
	out, err := i.try(t, "", "tenant", "add", "shop", "-country", "IT")
	if err != nil {
		t.Fatal(err)
	}
	tenant, call := uuid.MustParse(strings.TrimSpace(out)), uuid.New()
	path := filepath.Join(tenant.String(), "2026", "11", "20", call.String()+".wav")
	if err := os.MkdirAll(filepath.Join(recordings, filepath.Dir(path)), 0o750); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(recordings, path)
	if err := os.WriteFile(file, []byte("sound"), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
	start := time.Now().Add(-48 * time.Hour).UnixMicro()
	body := fmt.Sprintf(`{"a":nan,"channel_data":{"direction":"inbound"},"variables":{"uuid":"%s","edgvoip_tenant_id":"%s","start_uepoch":"%d","answer_uepoch":"%d",
		"end_uepoch":"%d","edgvoip_recording":"%s"},"callflow":[{"caller_profile":{"caller_id_number":"1001","destination_number":"1002"}}]}`,
		call, tenant, start, start, start+5e6, path)
	if status := at.post(t, body); status != http.StatusOK {
		t.Fatalf("%d", status)
	}
	db, err := sql.Open("postgres", i.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	until := func(query, want string) {
		t.Helper()
		var got sql.NullString
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if err := db.QueryRowContext(t.Context(), query).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if got.String == want {
				return
			}
		}
		t.Fatalf("%s: %q, want %q", query, got.String, want)
	}
	until(`SELECT string_agg(call_id || ' ' || recording_state, ',') FROM edgvoip.cdr`, call.String()+" ready")
	until(`SELECT payload::jsonb ->> 'recordingUrl' FROM edgvoip.webhook_events ORDER BY id DESC LIMIT 1`,
		"https://api.example/api/v1/integration/cdrs/"+call.String()+"/recording")
	if _, err := i.try(t, "", "tenant", "set", "shop", "-recording-days", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE edgvoip.cdr SET recording_state = 'removed'`); err != nil {
		t.Fatal(err)
	}
	until(`SELECT count(recording_path)::text FROM edgvoip.cdr`, "0")
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the recording is still there: %v", err)
	}
	if status := at.post(t, "hello"); status != http.StatusOK {
		t.Errorf("%d", status)
	}
	until(`SELECT state FROM edgvoip.cdr_documents`, "unreadable")
	if out, err := i.try(t, "", "cdr", "documents"); err != nil || !strings.Contains(out, "neither JSON") {
		t.Errorf("%v %s", err, out)
	}
	if out, err := i.try(t, "", "cdr", "show", "2"); err != nil || out != "hello" {
		t.Errorf("%v %q", err, out)
	}
	if out, err := i.try(t, "", "cdr", "discard", "2"); err != nil {
		t.Errorf("%v %s", err, out)
	}
}
