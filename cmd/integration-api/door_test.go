package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/testlog"
	"github.com/edgvoip/edgvoip/test/w3client"
)

// programs is where the programs that tests start are built.
var programs string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	var err error
	if programs, err = os.MkdirTemp("", "edgvoip-integration-api-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programs)
	return m.Run()
}

// programOf returns a function that builds the package, once, and returns the program's path.
func programOf(pkg, name string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		if out, err := exec.CommandContext(context.Background(), "go", "build", "-o", programs+"/", pkg).CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
		return filepath.Join(programs, name), nil
	})
}

// program is the program as it is shipped.
var program = programOf(".", "integration-api")

// door is the program as a process of its own that serves the API over HTTPS, and may be killed and started again.
// Where it listens is another port each time; clients of the door find it.
type door struct {
	program  string
	certFile string
	env      []string
	client   *http.Client

	cmd    *exec.Cmd
	killed bool
	ended  chan struct{}
	addr   atomic.Pointer[string] // where it listens, or nil
	cdr    atomic.Pointer[string] // where it takes call records, or nil
	log    testlog.Lines
}

var errNobody = errors.New("nobody listens")

// openDoor starts the program on an installation.
func openDoor(t *testing.T, i installation) *door {
	t.Helper()
	d := &door{}
	var err error
	if d.program, err = program(); err != nil {
		t.Fatal(err)
	}
	var roots *x509.CertPool
	var key string
	d.certFile, key, roots = certificate(t)
	d.env = slices.Concat(os.Environ(), []string{
		"API_ADDR=127.0.0.1:0", "CDR_ADDR=off", "API_METRICS_ADDR=127.0.0.1:0", "API_TLS_CERT_FILE=" + d.certFile, "API_TLS_KEY_FILE=" + key,
		"API_RATE_PER_ADDRESS=100000", "API_RATE_PER_TENANT=100000",
	}, i.env)
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 32,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			addr := d.addr.Load()
			if addr == nil {
				return nil, errNobody
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", *addr)
		},
	}
	d.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if !d.killed {
			d.kill(t)
		}
		if t.Failed() {
			log := d.log.String()
			t.Logf("end of the program's log:\n%s", log[max(0, len(log)-4000):])
		}
	})
	d.start(t)
	return d
}

// start starts the process and returns when it listens.
func (d *door) start(t *testing.T) {
	t.Helper()
	d.cmd, d.ended, d.killed = exec.CommandContext(t.Context(), d.program, "serve"), make(chan struct{}), false
	d.cmd.Env = d.env
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	go func() {
		defer close(d.ended)
		for lines := bufio.NewScanner(io.TeeReader(stderr, &d.log)); lines.Scan(); { // the log must be drained
			var line struct{ Msg, Addr string }
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
				continue
			}
			switch line.Msg {
			case "taking call records": // comes first
				d.cdr.Store(&line.Addr)
			case "serving":
				listening <- line.Addr
			}
		}
		_ = d.cmd.Wait() // it was killed, or its log says why it ended
	}()
	select {
	case addr := <-listening:
		d.addr.Store(&addr)
	case <-d.ended:
		t.Fatal("the program does not serve")
	case <-time.After(time.Minute):
		t.Fatal("the program does not say that it serves")
	}
}

// kill ends the process as a power cut does, and returns when it is gone.
func (d *door) kill(t *testing.T) {
	t.Helper()
	d.addr.Store(nil)
	d.cdr.Store(nil)
	d.killed = true
	// At the end of a test its context has killed it already.
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-d.ended
}

// w3 returns W3 with the credentials that secret add printed.
func (d *door) w3(secret map[string]string) *w3client.Client {
	return &w3client.Client{
		URL: "https://127.0.0.1", Bearer: secret["BEARER_TOKEN"], HMAC: secret["HMAC_SECRET"], HTTP: d.client, Pause: 5 * time.Millisecond,
	}
}

// certificate makes files of the certificate that package httptest has for 127.0.0.1, and the pool that trusts it.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return certFile, keyFile, roots
}
