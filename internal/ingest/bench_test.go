package ingest_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
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

// BenchmarkIngest posts documents of a usual size and compares the rate with that of pgbench, which does the same
// INSERT on the same server by as many clients: metric of-pgbench is the share that is reached. Aim: 0.7. Both are
// measured on a server that waits for its disk at each commit, as an answer of 200 promises, and on one that does not.
func BenchmarkIngest(b *testing.B) {
	if _, err := exec.LookPath("pgbench"); err != nil {
		b.Skip("pgbench is not installed: the rate means nothing without it")
	}
	b.Run("durable", func(b *testing.B) {
		dsn := testdb.NewCluster(b).DSN
		owner := open(b, dsn, "")
		if _, err := owner.Migrate(b.Context()); err != nil {
			b.Fatal(err)
		}
		benchmarkIngest(b, dsn)
	})
	b.Run("without-fsync", func(b *testing.B) { benchmarkIngest(b, testdb.New(b)) })
}

func open(b *testing.B, dsn, role string) *postgres.DB {
	b.Helper()
	db, err := postgres.Open(postgres.Options{URL: dsn, Role: role, MaxConns: clients, StatementTimeout: 10 * time.Second}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	return db
}

func benchmarkIngest(b *testing.B, dsn string) {
	b.Helper()
	sample, err := os.ReadFile("../../cdr/testdata/captured/inbound-normal_clearing-0.json")
	if err != nil {
		b.Fatal(err)
	}
	addr := serve(b, open(b, dsn, "edgvoip_api"))
	// Before and after, as whatever else the machine does changes with time.
	floor := pgbench(b, dsn, string(sample))
	var next atomic.Int64
	b.ResetTimer()
	start := time.Now()
	var posters sync.WaitGroup
	for range clients {
		posters.Go(func() {
			if err := postAll(b, addr, bytes.Clone(sample), &next); err != nil {
				b.Error(err)
			}
		})
	}
	posters.Wait()
	rate := float64(b.N) / time.Since(start).Seconds()
	b.StopTimer()
	b.ReportMetric(rate, "documents/s")
	floor = (floor + pgbench(b, dsn, string(sample))) / 2
	b.ReportMetric(rate/floor, "of-pgbench")
}

// postAll posts documents over one connection until b.N are posted. It does as little as pgbench does, so that what is
// measured is who takes them: each differs from the others in eight characters.
func postAll(b *testing.B, addr string, document []byte, next *atomic.Int64) error {
	b.Helper()
	c, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	request := append(fmt.Appendf(nil, "POST /cdr HTTP/1.1\r\nHost: cdr\r\nAuthorization: Basic %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		base64.StdEncoding.EncodeToString([]byte(credentials)), len(document)), document...)
	own := request[bytes.Index(request, []byte("99e8fd00")):][:8]
	r := bufio.NewReader(c)
	for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
		copy(own, fmt.Sprintf("%08x", n))
		if _, err := c.Write(request); err != nil {
			return err
		}
		if err := readOK(r); err != nil {
			return err
		}
	}
	return nil
}

// readOK reads an answer, which is 200 with the body "ok".
func readOK(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil || !bytes.HasPrefix(status, []byte("HTTP/1.1 200")) {
		return fmt.Errorf("%q %w", status, err)
	}
	for line := status; len(bytes.TrimSpace(line)) > 0; {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	if body, err := r.ReadSlice('\n'); err != nil || string(body) != "ok\n" {
		return fmt.Errorf("%q %w", body, err)
	}
	return nil
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// pgbench returns how many of the same inserts a second pgbench does in two seconds.
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
	out, err := exec.CommandContext(b.Context(), "pgbench", "-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", "2", "-T", "2", "-f", script,
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
