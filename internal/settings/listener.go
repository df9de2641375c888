package settings

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/edgvoip/edgvoip/internal/httpd"
)

// Listener are the settings of one listener, which are called the same of each but for the prefix.
type Listener struct {
	// Prefix is what their names begin with: that of XMLCURL_ADDR is XMLCURL.
	Prefix                                   string
	Addr                                     string
	TLSCertFile, TLSKeyFile, TLSClientCAFile string
	// AllowPlain tells that it may do without TLS also where other machines reach it.
	AllowPlain bool
}

// Check checks the settings without reading a file. The error names the setting that is wrong.
func (l Listener) Check() error {
	_, port, err := net.SplitHostPort(l.Addr)
	switch {
	case err != nil || port == "":
		return fmt.Errorf("%s_ADDR is not host:port", l.Prefix)
	case (l.TLSCertFile == "") != (l.TLSKeyFile == ""):
		return fmt.Errorf("%[1]s_TLS_CERT_FILE and %[1]s_TLS_KEY_FILE go together", l.Prefix)
	case l.TLSClientCAFile != "" && l.TLSCertFile == "":
		return fmt.Errorf("%[1]s_TLS_CLIENT_CA_FILE needs %[1]s_TLS_CERT_FILE", l.Prefix)
	case l.TLSCertFile == "" && !l.AllowPlain && !l.Loopback():
		return fmt.Errorf("%[1]s_ADDR is not a loopback address and there is no TLS: set %[1]s_TLS_CERT_FILE, or %[1]s_ALLOW_PLAIN=true if the network is your own",
			l.Prefix)
	}
	return nil
}

// Loopback tells whether the listener can be reached from this machine only.
func (l Listener) Loopback() bool {
	host, _, err := net.SplitHostPort(l.Addr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

// TLS reads the certificate and returns the listener's TLS, or nil for plain HTTP. With a client CA, only clients with
// a certificate of that CA are served. The error names the setting that is wrong.
func (l Listener) TLS(log *slog.Logger) (*tls.Config, error) {
	if l.TLSCertFile == "" {
		return nil, nil //nolint:nilnil // plain HTTP
	}
	certificate, err := httpd.LoadCertificate(l.TLSCertFile, l.TLSKeyFile, log)
	if err != nil {
		return nil, fmt.Errorf("%[1]s_TLS_CERT_FILE and %[1]s_TLS_KEY_FILE: %[2]w", l.Prefix, err)
	}
	c := certificate.Config()
	if l.TLSClientCAFile == "" {
		return c, nil
	}
	if c.ClientCAs, err = ReadAuthorities(l.TLSClientCAFile); err != nil {
		return nil, fmt.Errorf("%s_TLS_CLIENT_CA_FILE: %w", l.Prefix, err)
	}
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c, nil
}

// ReadAuthorities reads the authorities that the certificates of others are verified against from a PEM file. Without a
// file they are nil, which means the machine's own.
func ReadAuthorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // the machine's own
	}
	pem, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in it")
	}
	return pool, nil
}

// minPassword is how long the password is at least that a switch presents.
const minPassword = 8

// CheckCredentials checks user:password. The error does not repeat them.
func CheckCredentials(credentials string) error {
	if user, password, found := strings.Cut(credentials, ":"); !found || user == "" || len(password) < minPassword {
		return fmt.Errorf("not user:password with a password of %d characters or more", minPassword)
	}
	return nil
}

// ReadCredentials reads user:password from a file, which may end in a line break, and checks them.
func ReadCredentials(file string) (string, error) {
	b, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return "", err
	}
	credentials := strings.TrimRight(string(b), "\r\n")
	return credentials, CheckCredentials(credentials)
}
