package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// maxSkew is how far a request's timestamp may be from our clock, either way.
const maxSkew = 300 * time.Second

// Sign returns what X-Signature must hold: the HMAC-SHA256, in lower-case hexadecimal, over the timestamp as
// X-Timestamp has it, the method, the path with its query exactly as on the request line, and the body. The key is the
// secret's text as it was shown, not what it might decode to.
func Sign(key, timestamp, method, target string, body []byte) string {
	mac := signature([]byte(key), timestamp, method, target, body)
	return hex.EncodeToString(mac)
}

func signature(key []byte, timestamp, method, target string, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	// Nothing stands between the parts, by contract. It needs nothing: a timestamp is digits and a dot, a method
	// letters, a target begins with a slash, and targetAllowed keeps the beginning of a body out of it.
	for _, part := range []string{timestamp, method, target} {
		_, _ = mac.Write([]byte(part)) // a hash does not fail
	}
	_, _ = mac.Write(body)
	return mac.Sum(nil)
}

// parseTimestamp reads Unix seconds, with up to nine decimals or none.
func parseTimestamp(s string) (time.Time, bool) {
	whole, fraction, dotted := strings.Cut(s, ".")
	if len(whole) < 1 || len(whole) > 11 || dotted && (len(fraction) < 1 || len(fraction) > 9) || !digits(whole) || !digits(fraction) {
		return time.Time{}, false
	}
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	nanos, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	return time.Unix(seconds, nanos), true
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// parseSignature reads 64 lower-case hexadecimal digits: one signature has one spelling.
func parseSignature(s string) ([]byte, bool) {
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == sha256.Size && strings.ToLower(s) == s
}

// targetAllowed tells whether a target is made of what RFC 3986 allows in a path and query. A brace, with which every
// body of ours begins, is not: so no byte of a signed request can move from the body to the path or back.
func targetAllowed(s string) bool {
	if !strings.HasPrefix(s, "/") {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && strings.IndexByte("-._~%!$&'()*+,;=:@/?", c) < 0 {
			return false
		}
	}
	return true
}
