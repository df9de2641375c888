// Package secret keeps secrets: sealing with a key ring (what must be read back, such as a digest A1 or a carrier's
// password), Argon2id hashes (what must only be compared) and the digest A1 itself.
//
// All types are safe for concurrent use.
package secret

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// keySize is that of AES-256.
const keySize = 32

// Errors of opening a sealed secret. Neither says anything about the secret.
var (
	ErrUnknownKey = errors.New("sealed with a key that is not on the ring")
	ErrTampered   = errors.New("sealed secret does not open: wrong key, wrong owner or altered")
)

// Sealed is a secret under a key of the ring. The zero value opens to nothing (ErrUnknownKey).
type Sealed struct {
	KeyID string
	// Data is the nonce, the ciphertext and the tag of AES-256-GCM.
	Data []byte
}

// KeyRing seals with its first key and opens with any.
type KeyRing struct {
	primary string
	keys    map[string]cipher.AEAD
	// macs are keys for Digests, in the order of the file.
	macs [][]byte
}

var keyID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// LoadKeyRing reads a key file: one key a line, "id base64-of-32-bytes"; empty lines and lines beginning with # do not
// count. The first key seals; all open. To rotate, put a new line first and remove the old one when nothing is sealed
// with it.
func LoadKeyRing(path string) (*KeyRing, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	return ParseKeyRing(b)
}

// ParseKeyRing reads the contents of a key file, see LoadKeyRing.
func ParseKeyRing(b []byte) (*KeyRing, error) {
	ring := &KeyRing{keys: map[string]cipher.AEAD{}}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, encoded, _ := strings.Cut(line, " ")
		if !keyID.MatchString(id) {
			return nil, fmt.Errorf("key file, line %d: a key id is 1 to 32 letters, digits, hyphens and underscores", n)
		}
		if _, twice := ring.keys[id]; twice {
			return nil, fmt.Errorf("key file, line %d: key id %s is there twice", n, id)
		}
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		if err != nil || len(key) != keySize {
			return nil, fmt.Errorf("key file, line %d: a key is %d bytes in base64", n, keySize)
		}
		aead, err := newAEAD(key)
		if err != nil {
			return nil, fmt.Errorf("key file, line %d: %w", n, err)
		}
		if ring.primary == "" {
			ring.primary = id
		}
		ring.keys[id] = aead
		ring.macs = append(ring.macs, mac(key, []byte("edgvoip digest")))
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if ring.primary == "" {
		return nil, errors.New("key file: no key in it")
	}
	return ring, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// NewKeyLine returns a line for a key file with a fresh random key.
func NewKeyLine(id string) (string, error) {
	if !keyID.MatchString(id) {
		return "", errors.New("a key id is 1 to 32 letters, digits, hyphens and underscores")
	}
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("random key: %w", err)
	}
	return id + " " + base64.StdEncoding.EncodeToString(key) + "\n", nil
}

// Seal encrypts a secret for one owner. Open needs the same owner, so that a sealed secret moved to another row does
// not open.
func (r *KeyRing) Seal(secret []byte, owner string) Sealed {
	return Sealed{KeyID: r.primary, Data: r.keys[r.primary].Seal(nil, nil, secret, []byte(owner))} //nolint:gosec // the AEAD makes its own random nonce
}

// Open decrypts a sealed secret. Errors: ErrUnknownKey, ErrTampered.
func (r *KeyRing) Open(s Sealed, owner string) ([]byte, error) {
	aead, ok := r.keys[s.KeyID]
	if !ok {
		return nil, ErrUnknownKey
	}
	plain, err := aead.Open(nil, nil, s.Data, []byte(owner))
	if err != nil {
		return nil, ErrTampered
	}
	return plain, nil
}

// Digests returns keyed hashes of data, 32 bytes each, one under every key of the ring and that of the sealing key
// first. Whoever has only a database with the hashes cannot try what the data might have been.
func (r *KeyRing) Digests(data []byte) [][]byte {
	list := make([][]byte, len(r.macs))
	for i, key := range r.macs {
		list[i] = mac(key, data)
	}
	return list
}

func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write(data) // a hash does not fail
	return h.Sum(nil)
}

// Knows tells whether the ring can open what was sealed with the key of that id.
func (r *KeyRing) Knows(id string) bool { return r.keys[id] != nil }
