package e2e_test

import "testing"

// TestDigestAlgorithms is an installation that offers SHA-256 and MD5 (RFC 8760).
func TestDigestAlgorithms(t *testing.T) {
	s := newScene(t, sceneOptions{env: []string{"SIP_AUTH_ALGORITHMS=SHA-256,MD5"}})
	for _, algorithm := range []string{"SHA-256", "MD5"} {
		t.Run("1001@tenant-a registers and calls with "+algorithm, func(t *testing.T) {
			s.begin(t)
			p := newPhone(t, s.internal, user("1001", realmA), withAlgorithm(algorithm)).registered(t)
			expectStatus(t, p.dial(t, "9196"), 200)
		})
		t.Run("wrong password is refused with "+algorithm, func(t *testing.T) {
			s.begin(t)
			wrong := login{user: "1001", realm: realmA, password: "wrong", algorithm: algorithm}
			if r := newPhone(t, s.internal, wrong).register(t); r.status() != 403 {
				t.Errorf("answered %q", r.start)
			}
		})
	}
}
