package api_test

import (
	"encoding/base64"

	"golang.org/x/crypto/argon2"
)

// weakHash is the key of an Argon2id hash with the salt "saltsaltsaltsalt" and parameters below today's.
func weakHash(password string) string {
	return base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), []byte("saltsaltsaltsalt"), 1, 8192, 1, 32))
}
