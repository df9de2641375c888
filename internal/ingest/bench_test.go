package ingest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/testdb"
)

// clients is how many post at the same time, as many as connect to PostgreSQL.
const clients = 16

// BenchmarkIngest posts documents of a usual size and compares the rate with that of pgbench, which does the same INSERT on the
// same server by as many clients: metric of-pgbench is the share that is reached. Aim: 0.7.
func BenchmarkIngest(b *testing.B) {
	if _, err := exec.LookPath("pgbench"); err != nil {
		b.Skip("pgbench is not installed: the rate means nothing without it")
	}
	dsn := testdb.New(b)
	db, err := postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_api", MaxConns: clients, StatementTimeout: 10 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	sample, err := os.ReadFile("../../cdr/testdata/captured/inbound-normal_clearing-0.json")
	if err != nil {
		b.Fatal(err)
	}
	addr := serve(b, db)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	var next atomic.Int64
	b.ResetTimer()
	start := time.Now()
	var posters sync.WaitGroup
	for range clients {
		posters.Go(func() {
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				body := strings.Replace(string(sample), "99e8fd00", fmt.Sprintf("%08x", n), 1)
				if err := postOne(b, client, addr, body); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	posters.Wait()
	rate := float64(b.N) / time.Since(start).Seconds()
	b.StopTimer()
	b.ReportMetric(rate, "documents/s")
	b.ReportMetric(rate/pgbench(b, dsn, string(sample)), "of-pgbench")
}

func postOne(b *testing.B, client *http.Client, addr, body string) error {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, "http://"+addr+"/cdr", strings.NewReader(body))
	if err != nil {
		return err
	}
	user, password, _ := strings.Cut(credentials, ":")
	req.SetBasicAuth(user, password)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %w", resp.Status, err)
	}
	return nil
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// pgbench returns how many of the same inserts a second pgbench does in three seconds.
func pgbench(b *testing.B, dsn, body string) float64 {
	b.Helper()
	sum := sha256.Sum256([]byte(body))
	script := filepath.Join(b.TempDir(), "insert.sql")
	insert := `INSERT INTO edgvoip.cdr_documents (sha256, leg_id, source, sender, content_type, body)
		VALUES (substr(sha256(random()::text::bytea), 1, 16) || decode('` + hex.EncodeToString(sum[:16]) + `', 'hex'), NULL, 'post', '127.0.0.1', 'application/json',
		:body) ON CONFLICT (sha256) DO NOTHING;`
	if err := os.WriteFile(script, []byte(strings.ReplaceAll(insert, "\n", " ")), 0o600); err != nil {
		b.Fatal(err)
	}
	out, err := exec.CommandContext(b.Context(), "pgbench", "-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2", "-T", "3", "-f", script,
		// A parameter, so that the document travels as it does with us.
		"-D", `body=\x`+hex.EncodeToString([]byte(body)), dsn).CombinedOutput()
	m := tps.FindSubmatch(out)
	if err != nil || m == nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return rate
}
