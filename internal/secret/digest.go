package secret

import (
	"crypto/md5" //nolint:gosec // SIP digest authentication is defined over MD5 (RFC 3261, 22.4; RFC 2617).
	"crypto/sha256"
	"encoding/hex"
)

// HA1MD5 returns the hash of a digest A1 with MD5: H(username:realm:password), in lower-case hexadecimal (RFC 2617,
// 3.2.2.2).
func HA1MD5(username, realm, password string) string {
	sum := md5.Sum([]byte(username + ":" + realm + ":" + password)) //nolint:gosec // see the import
	return hex.EncodeToString(sum[:])
}

// HA1SHA256 returns the hash of a digest A1 with SHA-256 (RFC 8760), in lower-case hexadecimal.
func HA1SHA256(username, realm, password string) string {
	sum := sha256.Sum256([]byte(username + ":" + realm + ":" + password))
	return hex.EncodeToString(sum[:])
}
