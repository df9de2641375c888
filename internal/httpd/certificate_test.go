package httpd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgvoip/edgvoip/internal/httpd"
)

// pair makes a certificate of a name, and its key.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// A certificate that is replaced is served from the next second on, without a restart; while its files do not fit
// together the one before is; and a connection that is open stays.
func TestCertificateIsReadAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	oldCert, oldKey := pair(t, "old")
	newCert, newKey := pair(t, "new")
	write(certFile, oldCert)
	write(keyFile, oldKey)
	// A bubble has a clock of its own, so the seconds between two looks pass at once.
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		c, err := httpd.LoadCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(&lines, nil)))
		if err != nil {
			t.Fatal(err)
		}
		served := func(want string) {
			t.Helper()
			got, err := c.Config().GetCertificate(&tls.ClientHelloInfo{})
			if err != nil {
				t.Fatal(err)
			}
			leaf, err := x509.ParseCertificate(got.Certificate[0])
			if err != nil || leaf.Subject.CommonName != want {
				t.Errorf("served %s, %v; want %s", leaf.Subject.CommonName, err, want)
			}
		}
		served("old")
		write(certFile, newCert)
		served("old") // not looked at yet
		time.Sleep(time.Second)
		served("old") // its key is not there yet
		time.Sleep(time.Second)
		served("old")
		if n := strings.Count(lines.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors of one pair that does not fit: %s", n, &lines)
		}
		write(keyFile, newKey)
		time.Sleep(time.Second)
		served("new")
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		served("new")
		write(certFile, []byte("rubbish"))
		time.Sleep(time.Second)
		served("new")
		write(certFile, newCert)
		time.Sleep(time.Second)
		served("new")
		if strings.Contains(lines.String(), "PRIVATE") {
			t.Errorf("the log shows a key: %s", &lines)
		}
	})
}

// A connection that is open when the certificate is replaced is not dropped.
func TestCertificateKeepsConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := pair(t, "localhost")
	if err := os.WriteFile(certFile, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := httpd.LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }),
	}
	go func() { _ = server.Serve(tls.NewListener(l, c.Config())) }()
	defer func() { _ = server.Shutdown(context.WithoutCancel(t.Context())) }()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12}}).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for range 2 {
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 512)
		n, err := conn.Read(b)
		if err != nil || !strings.Contains(string(b[:n]), "200 OK") {
			t.Fatalf("%s, %v", b[:n], err)
		}
		another, anotherKey := pair(t, "localhost")
		if err := os.WriteFile(certFile, another, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(keyFile, anotherKey, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := pair(t, "x")
	_, otherKey := pair(t, "y")
	for name, files := range map[string][2][]byte{"rubbish": {[]byte("x"), key}, "another's key": {cert, otherKey}, "no key": {cert, nil}} {
		certFile, keyFile := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		for file, b := range map[string][]byte{certFile: files[0], keyFile: files[1]} {
			if b == nil {
				continue
			}
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := httpd.LoadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
