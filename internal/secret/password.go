package secret

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"
)

// Argon2id parameters for new hashes: the second recommended choice of the OWASP password storage cheat sheet.
const (
	argonMemoryKiB = 19 * 1024
	argonTime      = 2
	argonThreads   = 1
	argonKeyBytes  = 32
	argonSaltBytes = 16
)

// Bounds on stored parameters. A row that asks for more was not written by us, and would cost memory at every
// comparison.
const (
	argonMaxMemoryKiB = 256 * 1024
	argonMaxTime      = 10
	argonMaxThreads   = 8
)

// ErrBadHash means that a stored hash is not an Argon2id hash within our bounds.
var ErrBadHash = errors.New("stored password hash is not a valid Argon2id hash")

// Hasher makes and compares Argon2id hashes, a bounded number at a time: each takes 19 MiB and tens of milliseconds,
// so an unbounded number would be a way to exhaust the server.
type Hasher struct {
	slots   chan struct{}
	waiting atomic.Int64
}

// NewHasher returns a hasher that works on at most n hashes at a time.
func NewHasher(n int) *Hasher {
	return &Hasher{slots: make(chan struct{}, max(n, 1))}
}

// Load tells how many hashes are being worked on and how many wait for that.
func (h *Hasher) Load() (working, waiting int) { return len(h.slots), int(h.waiting.Load()) }

func (h *Hasher) acquire(ctx context.Context) error {
	h.waiting.Add(1)
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a password hash slot: %w", ctx.Err())
	}
}

// Hash returns the Argon2id hash of a password in the PHC string form. The error is ctx's, while waiting for a slot.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	if err := h.acquire(ctx); err != nil {
		return "", err
	}
	defer func() { <-h.slots }()
	salt := make([]byte, argonSaltBytes)
	if _, err := rand.Read(salt); err != nil {
		return "", fmt.Errorf("random salt: %w", err)
	}
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemoryKiB, argonThreads, argonKeyBytes)
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemoryKiB, argonTime, argonThreads,
		enc.EncodeToString(salt), enc.EncodeToString(key)), nil
}

// Matches tells whether a password is the one of a stored hash. Errors: ErrBadHash, ctx's.
func (h *Hasher) Matches(ctx context.Context, stored, password string) (bool, error) {
	p, err := parseArgon2id(stored)
	if err != nil {
		return false, err
	}
	if err := h.acquire(ctx); err != nil {
		return false, err
	}
	defer func() { <-h.slots }()
	//nolint:gosec // parseArgon2id bounds the key to 16 to 64 bytes.
	got := argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, uint32(len(p.key)))
	return subtle.ConstantTimeCompare(got, p.key) == 1, nil
}

// Outdated tells whether a stored hash was made with weaker parameters than new ones are, or cannot be read.
func Outdated(stored string) bool {
	p, err := parseArgon2id(stored)
	return err != nil || p.memory < argonMemoryKiB || p.time < argonTime || len(p.key) < argonKeyBytes || len(p.salt) < argonSaltBytes
}

type argonParams struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

// parseArgon2id reads the PHC string form, $argon2id$v=19$m=…,t=…,p=…$salt$key.
func parseArgon2id(s string) (argonParams, error) {
	var p argonParams
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, ErrBadHash
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); n != 3 || err != nil {
		return p, ErrBadHash
	}
	if fmt.Sprintf("m=%d,t=%d,p=%d", p.memory, p.time, p.threads) != parts[3] ||
		p.memory < 8*uint32(p.threads) || p.memory > argonMaxMemoryKiB ||
		p.time < 1 || p.time > argonMaxTime || p.threads < 1 || p.threads > argonMaxThreads {
		return p, ErrBadHash
	}
	var err1, err2 error
	p.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	p.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(p.salt) < 8 || len(p.salt) > 64 || len(p.key) < 16 || len(p.key) > 64 {
		return p, ErrBadHash
	}
	return p, nil
}
