package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/integration"
	"github.com/edgvoip/edgvoip/internal/api"
	"github.com/edgvoip/edgvoip/internal/httpd"
	"github.com/edgvoip/edgvoip/internal/postgres"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/telemetry"
	"github.com/edgvoip/edgvoip/internal/testdb"
	"github.com/edgvoip/edgvoip/internal/testlog"
)

// scene is the API over HTTPS and a database of its own.
type scene struct {
	url      string
	client   *http.Client
	dsn      string
	store    *postgres.DB
	raw      *sql.DB
	issuer   *integration.Issuer
	tenants  *directory.Provisioner
	registry *prometheus.Registry
	log      *testlog.Lines
	// skew is added to the API's clock.
	skew atomic.Int64
	core fakeCore
}

type fakeCore struct {
	registered atomic.Int64
	status     atomic.Value
	switches   sync.Map // the number of phones at each that is connected
}

func (c *fakeCore) Switch(id uuid.UUID) (registrations int, connected bool) {
	n, connected := c.switches.Load(id)
	registrations, _ = n.(int)
	return registrations, connected
}

func (c *fakeCore) Registrations() int { return int(c.registered.Load()) }

func (c *fakeCore) Status() api.CoreStatus {
	if s, ok := c.status.Load().(api.CoreStatus); ok {
		return s
	}
	return api.CoreUp
}

// start starts the API on a database of its own.
func start(t testing.TB, change ...func(*api.Options)) *scene {
	t.Helper()
	return startOn(t, testdb.New(t), change...)
}

// node adds a switch that nobody reaches.
func (s *scene) node(t testing.TB, name, status string) {
	t.Helper()
	exec(t, s, `INSERT INTO edgvoip.switch_nodes (id, name, address, password_sealed, password_key_id, status) VALUES (gen_random_uuid(), $1, '127.0.0.1:1', '', '', $2)`,
		name, status)
}

// startOn starts the API on a database, which may have one already.
func startOn(t testing.TB, dsn string, change ...func(*api.Options)) *scene {
	t.Helper()
	s := &scene{dsn: dsn, registry: prometheus.NewRegistry(), log: &testlog.Lines{}}
	log, err := telemetry.NewLogger(s.log, telemetry.FormatJSON, "debug")
	if err != nil {
		t.Fatal(err)
	}
	s.store = openStore(t, s.dsn, log)
	if s.raw, err = sql.Open("postgres", s.dsn); err != nil {
		t.Fatal(err)
	}
	hasher := secret.NewHasher(2)
	s.issuer = integration.NewIssuer(s.store, storetest.Keys(), time.Now)
	s.tenants = directory.NewProvisioner(s.store, storetest.Keys(), hasher)
	o := api.Options{
		Store: s.store, Keys: storetest.Keys(), Hasher: hasher, Core: &s.core, WSEndpoint: "wss://{realm}:8443",
		Limits: api.Limits{PerAddress: 1e6, BurstAddress: 1e6, PerTenant: 1e6, BurstTenant: 1e6},
		Now:    func() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }, Registry: s.registry, Log: log,
	}
	for _, f := range change {
		f(&o)
	}
	a, err := api.New(o)
	if err != nil {
		t.Fatal(err)
	}
	certificate, roots := certificateFiles(t, "127.0.0.1")
	loaded, err := httpd.LoadCertificate(certificate, keyOf(certificate), log)
	if err != nil {
		t.Fatal(err)
	}
	server := httpd.New(api.ServerOptions(httpd.Options{
		Name: "integration-api", RequestTimeout: 20 * time.Second, TLS: loaded.Config(), Ready: s.store.Ping, Registry: s.registry, Log: log,
	}))
	a.Register(server)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	s.url = "https://" + l.Addr().String()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, MaxIdleConnsPerHost: 32}
	s.client = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.raw.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openStore(t testing.TB, dsn string, log *slog.Logger) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(postgres.Options{URL: dsn, Role: "edgvoip_api", Application: "test", StatementTimeout: 10 * time.Second}, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// certificateFiles makes a certificate for an address, in files, and the pool that trusts it.
func certificateFiles(t testing.TB, host string) (certFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile = filepath.Join(t.TempDir(), "cert.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyOf(certFile): {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	return certFile, roots
}

func keyOf(certFile string) string { return certFile + ".key" }

// w3 is a tenant of W3 with its credentials.
type w3 struct {
	s      *scene
	tenant uuid.UUID
	slug   string
	secret integration.Issued
}

// tenant makes a tenant with credentials.
func (s *scene) tenant(t testing.TB, slug string) w3 {
	t.Helper()
	tenant, err := s.tenants.PutTenant(t.Context(), directory.TenantSpec{Slug: slug, Name: "Tenant " + slug, Country: "IT"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	issued, err := s.issuer.Add(t.Context(), tenant.ID, "test")
	if err != nil {
		t.Fatal(err)
	}
	return w3{s, tenant.ID, slug, issued}
}

// realm is the tenant's first.
func (w w3) realm() string { return w.slug + ".example" }

// request is a signed request, to be sent as it is or changed.
type request struct {
	method, target string
	body           string
	header         http.Header
}

var stamps atomic.Int64

// stamp is the time in Unix seconds, never the same twice.
func stamp(at time.Time) string {
	return fmt.Sprintf("%d.%09d", at.Unix(), stamps.Add(1)%1e9)
}

// sign returns a signed request. path begins after the base path; header is pairs of name and value.
func (w w3) sign(method, path, body string, header ...string) request {
	return w.signAt(stamp(time.Now()), method, path, body, header...)
}

func (w w3) signAt(timestamp, method, path, body string, header ...string) request {
	r := request{method: method, target: api.BasePath + path, body: body, header: http.Header{}}
	if body != "" {
		r.header.Set("Content-Type", "application/json")
	}
	r.header.Set("Authorization", "Bearer "+w.secret.Bearer)
	r.header.Set("X-Timestamp", timestamp)
	r.header.Set("X-Signature", integration.Sign(w.secret.HMAC, timestamp, method, r.target, []byte(body)))
	for i := 0; i < len(header); i += 2 {
		r.header.Set(header[i], header[i+1])
	}
	return r
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

// json reads the body.
func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return m
}

func (a answer) code(t testing.TB) string {
	t.Helper()
	code, _ := a.json(t)["code"].(string)
	return code
}

func (a answer) id(t testing.TB) string {
	t.Helper()
	id, _ := a.json(t)["edgvoipExtensionId"].(string)
	if _, err := uuid.Parse(id); err != nil {
		t.Fatalf("%d %s: no id", a.status, a.body)
	}
	return id
}

// send sends a request.
func (s *scene) send(t testing.TB, r request) answer {
	t.Helper()
	a, err := s.try(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (s *scene) try(ctx context.Context, r request) (answer, error) {
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, s.url+r.target, body)
	if err != nil {
		return answer{}, err
	}
	req.Header = r.header
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b)}, err
}

// do signs and sends.
func (w w3) do(t testing.TB, method, path, body string, header ...string) answer {
	t.Helper()
	return w.s.send(t, w.sign(method, path, body, header...))
}

// spec is the body of a POST /extensions with every field of the seed; changes are pairs of name and value.
func (w w3) spec(number string, changes ...any) string {
	m := map[string]any{
		"tenantId": w.tenant, "domainId": uuid.NewSHA1(w.tenant, []byte("domain")), "domainName": "Shop " + w.slug, "sipRealm": w.realm(),
		"extension": number, "sipUsername": "user" + number, "sipPassword": "correct horse battery " + number, "displayName": "Anna " + number,
		"transport": "WSS", "allowedCodecs": []string{"opus", "PCMA"}, "maxConcurrentCalls": 3,
	}
	for i := 0; i < len(changes); i += 2 {
		name, ok := changes[i].(string)
		if !ok {
			panic("a name is a text")
		}
		if m[name] = changes[i+1]; changes[i+1] == nil {
			delete(m, name)
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// post provisions and wants success.
func (w w3) post(t testing.TB, body string, header ...string) answer {
	t.Helper()
	a := w.do(t, http.MethodPost, "/extensions", body, header...)
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		t.Fatalf("POST: %d %s\n%s", a.status, a.body, w.s.log)
	}
	return a
}

// one returns the one value of a query.
func one[T any](t testing.TB, s *scene, query string, args ...any) T {
	t.Helper()
	var v T
	if err := s.raw.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func exec(t testing.TB, s *scene, query string, args ...any) {
	t.Helper()
	if _, err := s.raw.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// contents is everything in the tables that a request may write, but for signatures and when a secret was used.
func contents(t testing.TB, s *scene) string {
	t.Helper()
	var b strings.Builder
	for _, table := range []string{
		"tenants", "sip_domains", "sip_extensions", "sip_names", "voip_extension_store_access", "audit_log", "jobs", "idempotency_keys", "operator_tokens",
		"switch_nodes",
	} {
		b.WriteString(table + "\n" + one[string](t, s, `SELECT coalesce(string_agg(x::text, E'\n' ORDER BY x::text), '') FROM edgvoip.`+table+` x`) + "\n")
	}
	b.WriteString(one[string](t, s, `SELECT coalesce(string_agg((id, expires_at, rotated_at)::text, ' ' ORDER BY id), '') FROM edgvoip.integration_secrets`))
	return b.String()
}

// counter is the value of a counter with these labels, as name, value, ….
func (s *scene) counter(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	metric:
		for _, m := range f.GetMetric() {
			for i := 0; i < len(labels); i += 2 {
				has := false
				for _, l := range m.GetLabel() {
					has = has || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
				}
				if !has {
					continue metric
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}
