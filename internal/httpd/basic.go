package httpd

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"

	"github.com/gofiber/fiber/v2"
)

// Basic is HTTP basic authentication (RFC 7617) with one pair of credentials. Its zero value is not usable, see
// NewBasic. It is safe for concurrent use.
type Basic struct {
	// header is what a client usually sends, sum that of what it says in whatever form.
	header []byte
	sum    [sha256.Size]byte
}

// NewBasic returns the authentication of "user:password".
func NewBasic(credentials string) Basic {
	return Basic{
		header: []byte("Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))),
		sum:    sha256.Sum256([]byte(credentials)),
	}
}

// Check returns nil for a request with the credentials, else the error that answers it, and the challenge is in the
// answer. It compares in constant time.
func (b *Basic) Check(c *fiber.Ctx) error {
	if b.allows(c.Request().Header.Peek(fiber.HeaderAuthorization)) {
		return nil
	}
	c.Set(fiber.HeaderWWWAuthenticate, `Basic realm="edgvoip"`)
	return &Error{Status: fiber.StatusUnauthorized, Reason: "credentials are missing or wrong"}
}

func (b *Basic) allows(header []byte) bool {
	if subtle.ConstantTimeCompare(header, b.header) == 1 {
		return true
	}
	scheme, encoded, _ := strings.Cut(string(header), " ")
	if !strings.EqualFold(scheme, "basic") {
		return false
	}
	given, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return false
	}
	sum := sha256.Sum256(given)
	return subtle.ConstantTimeCompare(sum[:], b.sum[:]) == 1
}
