package settings_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/settings"
)

// What is wrong is named as the operator knows it, by the listener's own prefix.
func TestListener(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		listener settings.Listener
		wrong    string
	}{
		"loopback":               {settings.Listener{Addr: "[::1]:1"}, ""},
		"TLS":                    {settings.Listener{Addr: ":1", TLSCertFile: "c", TLSKeyFile: "k", TLSClientCAFile: "a"}, ""},
		"a network of one's own": {settings.Listener{Addr: ":1", AllowPlain: true}, ""},
		"no port":                {settings.Listener{Addr: "127.0.0.1:"}, "X_ADDR is not host:port"},
		"no key":                 {settings.Listener{Addr: "127.0.0.1:1", TLSCertFile: "c"}, "X_TLS_CERT_FILE and X_TLS_KEY_FILE go together"},
		"clients without TLS":    {settings.Listener{Addr: "127.0.0.1:1", TLSClientCAFile: "a"}, "X_TLS_CLIENT_CA_FILE needs X_TLS_CERT_FILE"},
		"plain":                  {settings.Listener{Addr: "192.0.2.1:1"}, "X_ALLOW_PLAIN=true if"},
	} {
		tc.listener.Prefix = "X"
		err := tc.listener.Check()
		if (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s: %v, want %q", name, err, tc.wrong)
		}
	}
	missing := settings.Listener{Prefix: "X", TLSCertFile: "/nowhere", TLSKeyFile: "/nowhere"}
	if _, err := missing.TLS(slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), "X_TLS_CERT_FILE and X_TLS_KEY_FILE: ") {
		t.Error(err)
	}
}

func TestReadAuthorities(t *testing.T) {
	t.Parallel()
	if pool, err := settings.ReadAuthorities(""); pool != nil || err != nil {
		t.Errorf("%v %v, want the machine's own", pool, err)
	}
	for _, file := range []string{"/nowhere", written(t, "no certificate")} {
		if pool, err := settings.ReadAuthorities(file); pool != nil || err == nil {
			t.Errorf("%s: %v %v", file, pool, err)
		}
	}
}

// What is refused is not in the error.
func TestReadCredentials(t *testing.T) {
	t.Parallel()
	if got, err := settings.ReadCredentials(written(t, "user:pass word:8\r\n")); got != "user:pass word:8" || err != nil {
		t.Errorf("%q %v", got, err)
	}
	for _, wrong := range []string{"", "\n", "s3cret-without-user", ":s3cret-long", "user:s3cret\n"} {
		if _, err := settings.ReadCredentials(written(t, wrong)); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// written returns a file.
func written(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
