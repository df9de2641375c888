package integration

import (
	"fmt"

	"github.com/edgvoip/edgvoip/internal/secret"
)

// SigningKey opens what a tenant's requests are signed with, and what is sent to the tenant. Errors:
// secret.ErrUnknownKey, secret.ErrTampered.
func SigningKey(s Secret, keys *secret.KeyRing) (string, error) {
	key, err := keys.Open(s.HMAC, hmacOwner(s.TenantID, s.ID))
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", s.ID, err)
	}
	return string(key), nil
}
