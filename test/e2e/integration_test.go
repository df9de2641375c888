package e2e_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/test/w3client"
)

// TestIntegration is W3 that provisions phones over HTTPS, and the phones.
func TestIntegration(t *testing.T) {
	s := newScene(t, sceneOptions{})
	shop := s.startShop(t)
	provisioned(t, s, shop)
	suspended(t, s, shop)
	newPassword(t, s, shop)
	deleted(t, s, shop)
	hostileOrders(t, s, shop)
}

// shop is a tenant of W3, and W3.
type shop struct {
	tenant string
	w3     *w3client.Client
}

const shopRealm = "shop.example"

// startShop starts the integration API with the scene's certificate, makes the switch known to it, and makes a tenant
// with credentials.
func (s *scene) startShop(t *testing.T) *shop {
	t.Helper()
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + strconv.Itoa(freePort(t))
	certificate := filepath.Join(s.dir, "tls", "agent.pem") // and its key
	a := &api{s: s, bin: bin, metrics: "127.0.0.1:" + strconv.Itoa(freePort(t)), passwordFile: filepath.Join(s.dir, "event-socket")}
	if err := os.WriteFile(a.passwordFile, []byte(eslPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(s.dir, "integration-api.log")
	env := append(slices.Clone(s.env), "API_METRICS_ADDR="+a.metrics, "API_ADDR="+address, "CDR_ADDR=off", "API_TLS_CERT_FILE="+certificate, "API_TLS_KEY_FILE="+certificate)
	startServer(t, "integration-api", log, env, filepath.Join(bin, "integration-api"), "serve")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the API's log:\n%s", tail(log))
		}
	})
	a.node(t, "add", "fs1", "-address", s.eslAddress(), "-password-file", a.passwordFile)
	eventually(t, 15*time.Second, func() error {
		_, err := a.get(t, "/readyz")
		return err
	})
	a.expectUp(t)

	roots := x509.NewCertPool()
	pem, err := os.ReadFile(certificate)
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		t.Fatalf("the scene's certificate: %v", err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	t.Cleanup(transport.CloseIdleConnections)
	w3 := &w3client.Client{URL: "https://" + address, HTTP: &http.Client{Transport: transport}, Attempts: 3}
	command := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "integration-api"), args...)
		cmd.Env = s.env
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	tenant := command("tenant", "add", "shop", "-country", "IT")
	for line := range strings.Lines(command("secret", "add", "shop")) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "BEARER_TOKEN":
			w3.Bearer = value
		case "HMAC_SECRET":
			w3.HMAC = value
		}
	}
	return &shop{tenant, w3}
}

// send sends a request and reads the answer.
func (w *shop) send(t *testing.T, method, path string, body any) (status int, answer map[string]any) {
	t.Helper()
	r := w3client.Request{Method: method, Path: path}
	if body != nil {
		var err error
		if r.Body, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	if method != http.MethodGet {
		r.Key = token()
	}
	a, err := w.w3.Do(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(a.Body, &answer); err != nil {
		t.Fatalf("%s %s: %d %s", method, path, a.Status, a.Body)
	}
	return a.Status, answer
}

// order is the body of a POST /extensions; changes replace fields.
func (w *shop) order(number, password string, changes map[string]any) map[string]any {
	order := map[string]any{
		"tenantId": w.tenant, "domainName": "The Shop", "sipRealm": shopRealm, "extension": number, "sipUsername": "user" + number, "sipPassword": password,
		"displayName": "Phone " + number, "transport": "any", "allowedCodecs": []string{"opus", "PCMA", "PCMU"}, "maxConcurrentCalls": 2,
	}
	maps.Copy(order, changes)
	return order
}

// post provisions a phone and returns the id of its extension.
func (w *shop) post(t *testing.T, number, password string) (id string) {
	t.Helper()
	status, answer := w.send(t, http.MethodPost, "/extensions", w.order(number, password, nil))
	id, _ = answer["edgvoipExtensionId"].(string)
	if status != http.StatusCreated || id == "" {
		t.Fatalf("POST of %s: %d %v", number, status, answer)
	}
	return id
}

func (w *shop) patch(t *testing.T, id string, change map[string]any) {
	t.Helper()
	if status, answer := w.send(t, http.MethodPatch, "/extensions/"+id, change); status != http.StatusOK {
		t.Fatalf("PATCH %v: %d %v", change, status, answer)
	}
}

// expectConverged waits until every switch has done what the last change of an extension asks.
func (w *shop) expectConverged(t *testing.T, id string) {
	t.Helper()
	eventually(t, 10*time.Second, func() error {
		status, answer := w.send(t, http.MethodGet, "/extensions/"+id+"/convergence", nil)
		nodes, _ := answer["nodes"].([]any)
		if status != http.StatusOK || answer["converged"] != true || len(nodes) != 1 {
			return fmt.Errorf("%d %v", status, answer)
		}
		return nil
	})
}

func shopLogin(number, password string) login {
	return login{user: "user" + number, realm: shopRealm, password: password}
}

func provisioned(t *testing.T, s *scene, w *shop) {
	t.Helper()
	t.Run("phones that W3 provisions register and call each other", func(t *testing.T) {
		s.begin(t)
		w.post(t, "2001", "first password")
		w.post(t, "2002", "second password")
		a, b := newPhone(t, s.internal, shopLogin("2001", "first password")), newPhone(t, s.internal, shopLogin("2002", "second password"))
		a.expectRegister(t, 200)
		b.expectRegister(t, 200)
		s.expectRegistered(t, "2002", shopRealm)
		c := a.dial(t, "2002")
		expectStatus(t, c, 200)
		talking(t, c, b.expectCall(t))
	})
}

func suspended(t *testing.T, s *scene, w *shop) {
	t.Helper()
	t.Run("suspended by W3: its registration goes and it is refused, until it is active again", func(t *testing.T) {
		s.begin(t)
		id := w.post(t, "2003", "first password")
		p := newPhone(t, s.internal, shopLogin("2003", "first password"))
		p.expectRegister(t, 200)
		s.expectRegistered(t, "2003", shopRealm)
		begun := time.Now()
		w.patch(t, id, map[string]any{"status": "suspended"})
		s.expectNotRegistered(t, "2003", shopRealm)
		note("PATCH status: its registration was gone %v after the request was sent", time.Since(begun).Round(time.Millisecond))
		p.expectRegister(t, 403)
		w.expectConverged(t, id)
		note("PATCH status: every switch was done within %v", time.Since(begun).Round(time.Millisecond))
		s.expectNotRegistered(t, "2003", shopRealm)
		w.patch(t, id, map[string]any{"status": "active"})
		p.expectRegister(t, 200)
		s.expectRegistered(t, "2003", shopRealm)
	})
}

func newPassword(t *testing.T, s *scene, w *shop) {
	t.Helper()
	t.Run("a new password from W3: the old one is refused", func(t *testing.T) {
		s.begin(t)
		id := w.post(t, "2004", "first password")
		old, phone := newPhone(t, s.internal, shopLogin("2004", "first password")), newPhone(t, s.internal, shopLogin("2004", "second password"))
		old.expectRegister(t, 200)
		s.expectRegistered(t, "2004", shopRealm)
		w.patch(t, id, map[string]any{"sipPassword": "second password"})
		s.expectNotRegistered(t, "2004", shopRealm)
		w.expectConverged(t, id)
		phone.expectRegister(t, 200)
		if r := old.register(t); r.status() != 403 {
			t.Errorf("the old password is answered %q", r.start)
		}
	})
}

func deleted(t *testing.T, s *scene, w *shop) {
	t.Helper()
	t.Run("deleted by W3: refused for ever, and its number works with another password", func(t *testing.T) {
		s.begin(t)
		id := w.post(t, "2005", "first password")
		old := newPhone(t, s.internal, shopLogin("2005", "first password"))
		old.expectRegister(t, 200)
		s.expectRegistered(t, "2005", shopRealm)
		if status, answer := w.send(t, http.MethodDelete, "/extensions/"+id, nil); status != http.StatusOK {
			t.Fatalf("DELETE: %d %v", status, answer)
		}
		s.expectNotRegistered(t, "2005", shopRealm)
		old.expectRegister(t, 403)
		w.expectConverged(t, id)
		if status, answer := w.send(t, http.MethodPatch, "/extensions/"+id, map[string]any{"status": "active"}); status != http.StatusConflict {
			t.Errorf("back to life: %d %v", status, answer)
		}
		if again := w.post(t, "2005", "second password"); again == id {
			t.Error("the number is the same extension again")
		}
		newPhone(t, s.internal, shopLogin("2005", "second password")).expectRegister(t, 200)
		if r := old.register(t); r.status() != 403 {
			t.Errorf("the deleted extension's password is answered %q", r.start)
		}
	})
}

// hostileOrders puts what FreeSWITCH would obey into every field. What is refused is refused by the field's name; what
// is taken is used by a phone, and the switch's log is looked at.
func hostileOrders(t *testing.T, s *scene, w *shop) {
	t.Helper()
	t.Run("hostile text in every field of W3's orders is refused by name or runs nothing", func(t *testing.T) {
		s.begin(t)
		file, sprung := s.trap(t)
		logFrom := len(s.log(t))
		called := newPhone(t, s.internal, shopLogin("2002", "second password"))
		called.expectRegister(t, 200)
		taken, refused := map[string]int{}, 0
		fields := w.order("", "", map[string]any{"domainId": "", "w3ExtensionId": "", "outboundCallerNumber": ""})
		for _, field := range slices.Sorted(maps.Keys(fields)) {
			for _, text := range texts(file) {
				const number = "2006"
				var value any = text
				if field == "allowedCodecs" {
					value = []string{text}
				}
				// With a password of its own: whoever registers with it has met this order and none before it.
				password := token()
				status, answer := w.send(t, http.MethodPost, "/extensions", w.order(number, password, map[string]any{field: value}))
				if status != http.StatusOK && status != http.StatusCreated {
					refused++
					expectNamed(t, field, text, status, answer)
					continue
				}
				taken[field]++
				l := shopLogin(number, password)
				switch field {
				case "sipPassword":
					l.password = text
				case "sipUsername":
					l.user = text
				case "sipRealm":
					l.realm = text
				}
				p := newPhone(t, s.internal, l)
				p.expectRegister(t, 200)
				c := p.dial(t, "2002")
				expectStatus(t, c, 200)
				called.expectCall(t)
				c.hangup(t)
			}
		}
		note("hostile orders: %d refused by name, taken and used: %v", refused, taken)
		s.expectNothingRan(t, sprung, logFrom)
		s.expectCleanLog(t, logFrom)
	})
}

// expectNamed fails unless a refusal names the field, and does not repeat what was in it.
func expectNamed(t *testing.T, field, text string, status int, answer map[string]any) {
	t.Helper()
	errs, _ := json.Marshal(answer["errors"])
	if status != http.StatusUnprocessableEntity || !bytes.Contains(errs, []byte(`"field":"`+field)) {
		t.Errorf("%s %.80q: %d %v", field, text, status, answer)
	}
	if len(text) > 20 && strings.Contains(fmt.Sprint(answer), text) {
		t.Errorf("%s %.80q: the answer repeats it", field, text)
	}
}
