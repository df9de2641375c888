package sender

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edgvoip/edgvoip/webhook"
)

const (
	userAgent = "edgvoip-webhook/1"
	// maxAnswer bounds what is read of an answer, so that its connection can be kept; nothing of it is kept or logged.
	maxAnswer = 64 << 10
	// Bounds on the parts of an attempt, which is bounded as a whole besides.
	dialTimeout = 5 * time.Second
	tlsTimeout  = 5 * time.Second
	idleTimeout = 30 * time.Second
)

// errForbidden means that a receiver's name leads to an address that may not be dialled.
var errForbidden = errors.New("the address may not be dialled (WEBHOOK_ALLOW_NETWORKS)")

// newClient returns a client for webhooks: no proxy of the environment, no redirects, certificates verified, and no
// connection to an address that the networks do not allow.
func newClient(o Options) *http.Client {
	dialer := &net.Dialer{
		Timeout: dialTimeout, Resolver: o.Resolver,
		// After the name was resolved, for each address that it has: a name that leads elsewhere the second time gains
		// nothing.
		Control: func(_, address string, _ syscall.RawConn) error {
			a, err := netip.ParseAddrPort(address)
			if err != nil || !o.Allow.Allow(a.Addr()) {
				return errForbidden
			}
			return nil
		},
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots},
			TLSHandshakeTimeout: tlsTimeout, IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: perTenant, MaxResponseHeaderBytes: maxAnswer,
			DisableCompression: true, // what is read is bounded as it came
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what a receiver said.
type answer struct {
	status     int // zero: nothing
	retryAfter time.Duration
	err        error // why there is none
}

// send sends an event once.
func (s *Sender) send(ctx context.Context, r webhook.Receiver, d webhook.Delivery, keys []string) answer {
	// net/http sends again by itself where a kept connection turns out to be closed: the same event under the same key.
	req, err := http.NewRequestWithContext(ctx, webhook.Method, r.BaseURL.URL(d.Kind), bytes.NewReader(d.Payload))
	if err != nil {
		return answer{err: errors.New("the endpoint is not a URL")}
	}
	timestamp := webhook.Timestamp(time.Now())
	for name, value := range map[string]string{
		"Content-Type": "application/json", "User-Agent": userAgent,
		webhook.HeaderKey: d.Key.String(), webhook.HeaderEvent: string(d.Kind),
		webhook.HeaderSubject: d.Subject.String(), webhook.HeaderSequence: strconv.FormatInt(d.ID, 10),
		webhook.HeaderTimestamp: timestamp, webhook.HeaderSignature: webhook.Sign(keys, timestamp, r.BaseURL.Target(d.Kind), d.Payload),
	} {
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{err: cause(ctx, err)}
	}
	defer resp.Body.Close()
	// An answer whose end does not come is as good as one that does: the status is what counts.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
	return answer{status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
}

// cause says why there was no answer, in words of ours: the texts of net/http and x509 hold parts of what was sent,
// such as the names in a certificate.
func cause(ctx context.Context, err error) error {
	var network *net.OpError
	var resolution *net.DNSError
	switch {
	case errors.Is(err, errForbidden):
		return errForbidden
	case errors.Is(context.Cause(ctx), errStopping):
		return errStopping
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return errors.New("no answer in time")
	case errors.As(err, new(x509.HostnameError)):
		return errors.New("the certificate is for another name")
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return errors.New("failed to verify certificate: signed by an unknown authority")
	case errors.As(err, new(x509.CertificateInvalidError)):
		return errors.New("the certificate is not valid, or not now")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return errors.New("failed to verify certificate")
	case errors.As(err, new(tls.RecordHeaderError)):
		return errors.New("the answer is not TLS")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection was closed before an answer (EOF)")
	case errors.As(err, &resolution):
		return errors.New("the name cannot be resolved")
	case errors.As(err, &network):
		return connection(network)
	}
	if strings.Contains(err.Error(), "response headers exceeded") { // net/http has no other name for it
		return errors.New("the headers of the answer are too large")
	}
	return errors.New("the answer is not HTTP")
}

// connection says what became of a connection: the system's word for it, or that the other side refused TLS.
func connection(err *net.OpError) error {
	var number syscall.Errno
	switch {
	case errors.As(err, &number):
		return fmt.Errorf("%s: %w", err.Op, number)
	case errors.As(err, new(tls.AlertError)):
		return errors.New("the receiver refuses TLS")
	}
	return fmt.Errorf("%s failed", err.Op)
}

// failure says in one line why an attempt failed; empty if it did not. No part of the answer is in it.
func (a answer) failure() string {
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.status < 200 || a.status > 299:
		return fmt.Sprintf("answered %d", a.status)
	}
	return ""
}

// able tells whether the receiver works, whatever it said of the event.
func (a answer) able() bool {
	return a.err == nil && a.status < 500 && a.status != http.StatusTooManyRequests && a.status != http.StatusRequestTimeout
}

// retryAfter reads Retry-After (RFC 9110, 10.2.3): seconds, or a date. What is neither, or over, is zero.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
