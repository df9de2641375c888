package httpd

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Certificate is a server certificate in files, read again when they change. Connections that are open keep the one
// they began with. It is safe for concurrent use.
type Certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	digest  [sha256.Size]byte // of the files that current was read from, or that were refused after it
	looked  time.Time
}

// lookEvery is how long a certificate is used without a look at its files. They are small, and a handshake costs far
// more.
const lookEvery = time.Second

// LoadCertificate reads a certificate chain and its key, both PEM. The error names neither's contents.
func LoadCertificate(certFile, keyFile string, log *slog.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	cert, key, err := c.read()
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c.current, c.digest, c.looked = &pair, digest(cert, key), time.Now()
	return c, nil
}

// Config returns a server's TLS with the certificate: TLS 1.2 and above.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
}

func (c *Certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) < lookEvery {
		return c.current, nil
	}
	c.looked = now
	cert, key, err := c.read()
	if err == nil {
		sum := digest(cert, key)
		if sum == c.digest {
			return c.current, nil
		}
		c.digest = sum
		var pair tls.Certificate
		if pair, err = tls.X509KeyPair(cert, key); err == nil {
			c.current = &pair
			c.log.InfoContext(hello.Context(), "certificate read again", "file", c.certFile)
			return c.current, nil
		}
	}
	// The old one serves on. Files that are being replaced, one after the other, are complete at the next look.
	c.log.ErrorContext(hello.Context(), "certificate cannot be read again; the one before stays", "file", c.certFile, "error", err)
	return c.current, nil
}

func (c *Certificate) read() (cert, key []byte, err error) {
	if cert, err = os.ReadFile(c.certFile); err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	if key, err = os.ReadFile(c.keyFile); err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	return cert, key, nil
}

func digest(cert, key []byte) [sha256.Size]byte {
	return sha256.Sum256(append(append([]byte{}, cert...), key...))
}
