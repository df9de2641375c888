package sender

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Whatever a receiver sent is in no text that is kept or logged.
func TestCauseQuotesNobody(t *testing.T) {
	t.Parallel()
	const told = "+390612345678"
	certificate := &x509.Certificate{DNSNames: []string{told}}
	for want, err := range map[string]error{
		"the certificate is for another name": &tls.CertificateVerificationError{
			Err: x509.HostnameError{Certificate: certificate, Host: "w3.example"},
		},
		"failed to verify certificate: signed by an unknown authority": x509.UnknownAuthorityError{Cert: certificate},
		"the certificate is not valid, or not now":                     x509.CertificateInvalidError{Cert: certificate, Reason: x509.Expired, Detail: told},
		"failed to verify certificate":                                 &tls.CertificateVerificationError{Err: errors.New(told)},
		"the answer is not TLS":                                        tls.RecordHeaderError{Msg: told},
		"the answer is not HTTP":                                       fmt.Errorf("unsupported transfer encoding: %q", told),
		"the connection was closed before an answer (EOF)":             io.EOF,
		"the name cannot be resolved":                                  &net.OpError{Op: "dial", Err: &net.DNSError{Err: told, Name: "w3.example"}},
		"dial: connection refused":                                     &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"the receiver refuses TLS":                                     &net.OpError{Op: "remote error", Err: tls.AlertError(40)},
		"read failed":                                                  &net.OpError{Op: "read", Err: errors.New(told)},
	} {
		got := cause(t.Context(), &url.Error{Op: "Post", URL: "https://w3.example/" + told, Err: err})
		if got.Error() != want || strings.Contains(got.Error(), told) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
