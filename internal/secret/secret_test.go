package secret_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/secret"
)

func ring(tb testing.TB, lines ...string) *secret.KeyRing {
	tb.Helper()
	r, err := secret.ParseKeyRing([]byte(strings.Join(lines, "\n")))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func keyLine(tb testing.TB, id string) string {
	tb.Helper()
	line, err := secret.NewKeyLine(id)
	if err != nil {
		tb.Fatal(err)
	}
	return strings.TrimSpace(line)
}

func TestSealing(t *testing.T) {
	t.Parallel()
	k1, k2 := keyLine(t, "k1"), keyLine(t, "k2")
	old := ring(t, "# the first key", "", k1)
	sealed := old.Seal([]byte("s3cret"), "tenant|user")
	if again := old.Seal([]byte("s3cret"), "tenant|user"); string(again.Data) == string(sealed.Data) {
		t.Error("the same secret sealed twice looks the same")
	}
	rotated := ring(t, k2, k1)
	if got, err := rotated.Open(sealed, "tenant|user"); err != nil || string(got) != "s3cret" {
		t.Errorf("after a rotation the old secret is %q, %v", got, err)
	}
	if now := rotated.Seal(nil, ""); now.KeyID != "k2" {
		t.Errorf("a rotated ring seals with %s, want k2", now.KeyID)
	}
	altered := secret.Sealed{KeyID: "k1", Data: append([]byte{}, sealed.Data...)}
	altered.Data[len(altered.Data)-1] ^= 1
	for _, tc := range []struct {
		name   string
		ring   *secret.KeyRing
		sealed secret.Sealed
		owner  string
		want   error
	}{
		{"other owner", old, sealed, "tenant|other", secret.ErrTampered},
		{"altered", old, altered, "tenant|user", secret.ErrTampered},
		{"cut short", old, secret.Sealed{KeyID: "k1", Data: sealed.Data[:5]}, "tenant|user", secret.ErrTampered},
		{"key gone", ring(t, k2), sealed, "tenant|user", secret.ErrUnknownKey},
		{"key with the same name", ring(t, keyLine(t, "k1")), sealed, "tenant|user", secret.ErrTampered},
		{"nothing", old, secret.Sealed{}, "", secret.ErrUnknownKey},
	} {
		if got, err := tc.ring.Open(tc.sealed, tc.owner); !errors.Is(err, tc.want) || got != nil {
			t.Errorf("%s: opened to %q, %v; want %v", tc.name, got, err, tc.want)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	t.Parallel()
	const good = "k1 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.LoadKeyRing(path); err != nil {
		t.Error(err)
	}
	if _, err := secret.LoadKeyRing(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
	for _, bad := range []string{"", "# nothing", "k1", "k1 short", "k1 MDEyMzQ1Njc4OWFiY2RlZg==", "k 1 " + good, good + "\n" + good, "k/1 MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="} {
		if _, err := secret.ParseKeyRing([]byte(bad)); err == nil {
			t.Errorf("key file accepted: %q", bad)
		} else if strings.Contains(err.Error(), "MDEy") {
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

// The example of RFC 7616, 3.9.1.
func TestHA1(t *testing.T) {
	t.Parallel()
	const user, realm, password = "Mufasa", "http-auth@example.org", "Circle of Life"
	if got := secret.HA1MD5(user, realm, password); got != "3d78807defe7de2157e2b0b6573a855f" {
		t.Errorf("MD5 is %s", got)
	}
	if got := secret.HA1SHA256(user, realm, password); got != "7987c64c30e25f1b74be53f966b49b90f2808aa92faf9a00262392d7b4794232" {
		t.Errorf("SHA-256 is %s", got)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	h := secret.NewHasher(2)
	stored, err := h.Hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(stored, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("hash is %q, %v", stored, err)
	}
	if again, err := h.Hash(t.Context(), "correct horse"); err != nil || again == stored {
		t.Errorf("no salt: %v", err)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct horse ": false, "": false} {
		if got, err := h.Matches(t.Context(), stored, password); err != nil || got != want {
			t.Errorf("%q matches: %v, %v; want %v", password, got, err, want)
		}
	}
	tail := stored[strings.Index(stored, "p=1$")+3:]
	for _, bad := range []string{
		"", "$argon2id$", "$argon2i$v=19$m=19456,t=2,p=1" + tail, "$argon2id$v=16$m=19456,t=2,p=1" + tail, "$argon2id$v=19$m=99999999,t=2,p=1" + tail,
		"$argon2id$v=19$m=19456,t=99,p=1" + tail, "$argon2id$v=19$m=19456,t=2,p=99" + tail, "$argon2id$v=19$m=0,t=0,p=0" + tail,
		"$argon2id$v=19$m=19456,t=2,p=1,x" + tail, "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA", stored + "$",
	} {
		if _, err := h.Matches(t.Context(), bad, "x"); !errors.Is(err, secret.ErrBadHash) {
			t.Errorf("stored hash %q: %v, want ErrBadHash", bad, err)
		}
	}
}

// Somebody who waits for a slot longer than he wants to is let go, and has not hashed.
func TestHasherIsBounded(t *testing.T) {
	t.Parallel()
	h := secret.NewHasher(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// With every slot free, a cancelled caller may be served or not; with none, he cannot. The slot is taken by a hash
	// that runs for long: forty of them in a row, until one of the cancelled callers meets it.
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 40 {
			if _, err := h.Hash(context.WithoutCancel(ctx), "x"); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		_, err := h.Hash(ctx, "y")
		if errors.Is(err, context.Canceled) {
			break
		}
		select {
		case <-done:
			t.Fatal("nobody was let go")
		default:
		}
	}
	<-done
}

// Law: no stored hash, however it was written, makes the parser take more memory than our bounds or crash.
func FuzzStoredHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg")
	f.Add("$argon2id$v=19$m=4294967295,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OWFiY2RlZg")
	h := secret.NewHasher(2)
	f.Fuzz(func(t *testing.T, stored string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // bounds and syntax only: a valid hash is not computed
		ok, err := h.Matches(ctx, stored, "password")
		if ok && err != nil {
			t.Errorf("matches beside an error: %v", err)
		}
		if err != nil && !errors.Is(err, secret.ErrBadHash) && !errors.Is(err, context.Canceled) {
			t.Errorf("error of another kind: %v", err)
		}
	})
}

// A hash of today's parameters is not outdated, a weaker or an unreadable one is.
func TestOutdated(t *testing.T) {
	t.Parallel()
	h, err := secret.NewHasher(1).Hash(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for stored, want := range map[string]bool{
		h: false, strings.Replace(h, "m=19456", "m=19455", 1): true, strings.Replace(h, "t=2", "t=1", 1): true, strings.Replace(h, "m=19456", "m=65536", 1): false,
		"$argon2id$": true, "": true,
	} {
		if got := secret.Outdated(stored); got != want {
			t.Errorf("%q outdated: %v", stored, got)
		}
	}
}

// Whoever waits for his turn is counted, and leaves when his time is up.
func TestHasherLoad(t *testing.T) {
	t.Parallel()
	h := secret.NewHasher(1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 4)
	for range cap(done) {
		go func() {
			for {
				if _, err := h.Hash(ctx, "x"); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for {
		if working, waiting := h.Load(); working == 1 && waiting >= 2 {
			break
		}
	}
	cancel()
	for range cap(done) {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if working, waiting := h.Load(); working != 0 || waiting != 0 {
		t.Errorf("%d work and %d wait", working, waiting)
	}
}

// Digests are one for each key of the ring, the same every time, and tell keys and data apart.
func TestDigests(t *testing.T) {
	t.Parallel()
	line := func(id string) string {
		t.Helper()
		l, err := secret.NewKeyLine(id)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	one, two := line("k1"), line("k2")
	old, rotated := ring(t, one).Digests([]byte("x")), ring(t, two, one).Digests([]byte("x"))
	if len(old) != 1 || len(rotated) != 2 || len(old[0]) != 32 || !bytes.Equal(old[0], rotated[1]) || bytes.Equal(rotated[0], rotated[1]) {
		t.Errorf("%x and %x", old, rotated)
	}
	if bytes.Equal(ring(t, one).Digests([]byte("y"))[0], old[0]) {
		t.Error("two data have one digest")
	}
}
