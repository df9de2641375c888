package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	_ "github.com/lib/pq" // the database driver

	"github.com/edgvoip/edgvoip/internal/freeport"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// scene is a whole installation of its own: a database, xmlcurl and a switch, on free ports of the loopback address.
type scene struct {
	dir     string // all that it writes; kept when the test fails
	db      *sql.DB
	dsn     string
	keys    *secret.KeyRing
	env     []string // of the project's programs
	carrier int      // port of the trunks' second carrier; nothing listens on the first trunk's port

	internal, tls, wss, external int // SIP ports of the switch
	esl                          *esl
	eslPort                      int
	switchArgs                   []string
	xmlcurl, freeswitch          *process
	xmlcurlURL                   string
	lookups                      *recorder
	records                      string // where the switch posts call records
}

// sceneOptions are what differs between scenes.
type sceneOptions struct {
	env []string
	// prepare runs when the database is seeded and nothing else is started.
	prepare func(t *testing.T, s *scene)
}

// need ends a test that cannot run here.
func need(t *testing.T) {
	t.Helper()
	if os.Getenv("EDGVOIP_E2E") != "1" {
		t.Skip("set EDGVOIP_E2E=1 to run against a real FreeSWITCH (make e2e does)")
	}
	for _, tool := range []string{"freeswitch", "sipp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not in PATH", tool)
		}
	}
	if os.Getenv("TEST_DATABASE_URL") == "" {
		t.Skip("TEST_DATABASE_URL names no PostgreSQL (make e2e starts one)")
	}
}

// binaries builds the project's programs unless make has.
var binaries = sync.OnceValues(func() (string, error) {
	built, err := filepath.Abs("../../bin")
	if err != nil {
		return "", err
	}
	missing := false
	for _, name := range []string{"xmlcurl", "integration-api", "ai-bridge"} {
		if _, err := os.Stat(filepath.Join(built, name)); err != nil {
			missing = true
		}
	}
	if !missing {
		return built, nil
	}
	dir, err := os.MkdirTemp("", "edgvoip-e2e-bin-")
	if err != nil {
		return "", err
	}
	removeAtExit = append(removeAtExit, dir)
	out, err := exec.Command("go", "build", "-o", dir+"/", "../../cmd/xmlcurl", "../../cmd/integration-api", "../../cmd/ai-bridge").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// newScene starts an installation with two tenants of six extensions, 1000 to 1005, and two trunks each.
func newScene(t *testing.T, o sceneOptions) *scene {
	t.Helper()
	need(t)
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{}
	if s.dir, err = os.MkdirTemp("", "edgvoip-e2e-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs are kept in %s", s.dir)
			return
		}
		os.RemoveAll(s.dir)
	})
	s.createDatabase(t)
	s.createKeys(t, bin)
	s.env = append(os.Environ(), append([]string{
		"DATABASE_URL=" + s.dsn, "SECRET_KEYS_FILE=" + filepath.Join(s.dir, "keys"), "LOG_FORMAT=text", "LOG_LEVEL=debug",
	}, o.env...)...)
	closed := freePort(t)
	s.records = "http://127.0.0.1:" + strconv.Itoa(freePort(t)) + "/cdr" // where nobody listens, unless o.prepare says otherwise
	s.carrier = freePort(t)
	s.run(t, bin, "migrate")
	s.run(t, bin, "seed", "-tenants", "2", "-extensions", "6",
		"-trunk", "127.0.0.1:"+strconv.Itoa(closed), "-trunk", "127.0.0.1:"+strconv.Itoa(s.carrier))
	if o.prepare != nil {
		o.prepare(t, s)
	}
	s.startXMLCurl(t, bin)
	s.configureFreeSWITCH(t)
	s.startFreeSWITCH(t)
	return s
}

// run runs integration-api to its end.
func (s *scene) run(t *testing.T, bin string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "integration-api"), args...)
	cmd.Env = s.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("integration-api %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// database returns the address of another database or login on the same server, given as a URL or as a DSN; empty
// values stay as they are.
func database(t *testing.T, base, name, user, password string) string {
	t.Helper()
	if strings.Contains(base, "://") {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal("TEST_DATABASE_URL is not a URL")
		}
		if name != "" {
			u.Path = "/" + name
		}
		if user != "" {
			u.User = url.UserPassword(user, password)
		}
		return u.String()
	}
	for setting, value := range map[string]string{"dbname": name, "user": user, "password": password} {
		if value != "" {
			base += " " + setting + "=" + value // of a name that is there twice, the last value counts
		}
	}
	return base
}

func openDatabase(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (s *scene) createDatabase(t *testing.T) {
	t.Helper()
	server := os.Getenv("TEST_DATABASE_URL")
	name := "edgvoip_e2e_" + token()
	admin := openDatabase(t, server)
	if _, err := admin.ExecContext(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's own context has ended by now.
		if _, err := admin.ExecContext(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	s.dsn = database(t, server, name, "", "")
	s.db = openDatabase(t, s.dsn)
}

// login makes a login that has the rights of one of our roles and no more, and returns its DSN.
func (s *scene) login(t *testing.T, role string) string {
	t.Helper()
	name, password := "edgvoip_e2e_"+token(), token()
	s.exec(t, "CREATE ROLE "+name+" LOGIN PASSWORD '"+password+"' IN ROLE "+role)
	t.Cleanup(func() {
		if _, err := s.db.ExecContext(context.Background(), "DROP ROLE "+name); err != nil {
			t.Error(err)
		}
	})
	return database(t, s.dsn, "", name, password)
}

func (s *scene) createKeys(t *testing.T, bin string) {
	t.Helper()
	line, err := exec.CommandContext(t.Context(), filepath.Join(bin, "integration-api"), "keygen", "-id", "k1").Output()
	if err != nil {
		t.Fatalf("keygen: %v", err)
	}
	file := filepath.Join(s.dir, "keys")
	if err := os.WriteFile(file, line, 0o600); err != nil {
		t.Fatal(err)
	}
	if s.keys, err = secret.LoadKeyRing(file); err != nil {
		t.Fatal(err)
	}
}

// exec changes the database behind the backs of the project's programs. Who acts upon it at once calls expectHeard first.
func (s *scene) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := s.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// set changes a column of an extension of tenant A and puts it back when the test ends; as change does.
func (s *scene) set(t *testing.T, extension, column string, value any) {
	t.Helper()
	const where = ` WHERE extension = $2 AND tenant_id = (SELECT id FROM edgvoip.tenants WHERE slug = $1)`
	var before string
	if err := s.db.QueryRowContext(t.Context(), "SELECT "+column+"::text FROM edgvoip.sip_extensions"+where, tenantA, extension).Scan(&before); err != nil {
		t.Fatal(err)
	}
	s.change(t, "UPDATE edgvoip.sip_extensions SET "+column+" = $3"+where, []any{tenantA, extension, value}, []any{tenantA, extension, before})
}

// setTrunk changes a column of a trunk of tenant A and puts it back when the test ends. Trunks count from 1 in order of
// preference. As change does.
func (s *scene) setTrunk(t *testing.T, n int, column string, value any) {
	t.Helper()
	id := s.trunk(t, tenantA, n)
	var before string
	if err := s.db.QueryRowContext(t.Context(), "SELECT "+column+"::text FROM edgvoip.sip_trunks WHERE id = $1", id).Scan(&before); err != nil {
		t.Fatal(err)
	}
	s.change(t, "UPDATE edgvoip.sip_trunks SET "+column+" = $2 WHERE id = $1", []any{id, value}, []any{id, before})
}

// change changes the database until the test ends, and returns when xmlcurl has heard of it; so does the end of the test.
func (s *scene) change(t *testing.T, query string, now, after []any) {
	t.Helper()
	s.commit(t, query, now, after)
	s.expectHeard(t)
}

// commit is change for those who look at what happens until xmlcurl has heard of it.
func (s *scene) commit(t *testing.T, query string, now, after []any) {
	t.Helper()
	s.exec(t, query, now...)
	t.Cleanup(func() {
		if _, err := s.db.ExecContext(context.Background(), query, after...); err != nil {
			t.Error(err)
		}
		s.expectHeard(t)
	})
}

// trunk returns the id of a tenant's trunk, which is the name of its gateway.
func (s *scene) trunk(t *testing.T, tenant string, n int) uuid.UUID {
	t.Helper()
	var id uuid.UUID
	err := s.db.QueryRowContext(t.Context(), `SELECT k.id FROM edgvoip.sip_trunks k JOIN edgvoip.tenants n ON n.id = k.tenant_id
		WHERE n.slug = $1 ORDER BY k.priority, k.id OFFSET $2 LIMIT 1`, tenant, n-1).Scan(&id)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *scene) startXMLCurl(t *testing.T, bin string) {
	t.Helper()
	addr := "127.0.0.1:" + strconv.Itoa(freePort(t))
	s.xmlcurlURL = "http://" + addr
	s.internal, s.tls, s.wss, s.external = freePort(t), freePort(t), freePort(t), freePort(t)
	certificates, password := filepath.Join(s.dir, "tls"), filepath.Join(s.dir, "event-socket-password")
	writeCertificates(t, certificates)
	s.eslPort = freePort(t)
	if err := os.WriteFile(password, []byte(eslPassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(append([]string{}, s.env...),
		"DATABASE_URL="+s.login(t, "edgvoip_xmlcurl"),
		"XMLCURL_ADDR="+addr, "XMLCURL_CREDENTIALS=switch:e2e-password",
		"EVENT_SOCKET_ADDR=127.0.0.1:"+strconv.Itoa(s.eslPort), "EVENT_SOCKET_PASSWORD_FILE="+password,
		"SIP_IP=127.0.0.1", "RTP_IP=127.0.0.1",
		"SIP_PORT="+strconv.Itoa(s.internal), "SIP_TLS_PORT="+strconv.Itoa(s.tls), "SIP_WSS_PORT="+strconv.Itoa(s.wss),
		"RECORDINGS_DIR="+s.recordings(), "SIP_EXTERNAL_PORT="+strconv.Itoa(s.external), "SIP_EXTERNAL_TLS_PORT="+strconv.Itoa(freePort(t)), "SIP_TLS=true", "SIP_TLS_CERT_DIR="+certificates,
	)
	s.xmlcurl = startServer(t, "xmlcurl", filepath.Join(s.dir, "xmlcurl.log"), env, filepath.Join(bin, "xmlcurl"))
	eventually(t, 15*time.Second, func() error {
		if err := s.xmlcurl.alive(); err != nil {
			t.Fatalf("%v\n%s", err, tail(filepath.Join(s.dir, "xmlcurl.log")))
		}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.xmlcurlURL+"/readyz", nil)
		if err != nil {
			return err
		}
		r, err := http.DefaultClient.Do(q)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("readyz answers %s", r.Status)
		}
		return nil
	})
	s.lookups = newRecorder(t, s.xmlcurlURL)
}

const (
	eslPassword = "e2e-event-socket"
	cdrPassword = "e2e-call-records"
)

func (s *scene) configureFreeSWITCH(t *testing.T) {
	t.Helper()
	root := filepath.Join(s.dir, "switch")
	conf := filepath.Join(root, "conf")
	for _, dir := range []string{"log", "db", "run", "temp", "storage", "cache", "recordings", "scripts", "htdocs", "grammar", "sounds", "certs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(conf, os.DirFS("../../freeswitch-conf")); err != nil {
		t.Fatal(err)
	}
	s.allowPrograms(t, filepath.Join(conf, "freeswitch.xml"))
	// Below the ports that the system hands out, to our phones among others (ip_local_port_range).
	rtp := 17000 + 200*mathrand.IntN(78)
	for name, content := range map[string]string{
		"secrets/xml_curl.xml": `<param name="gateway-url" value="` + s.lookups.url + `/xml" bindings="directory|dialplan|configuration|chatplan|channels"/>` +
			"\n" + `<param name="gateway-credentials" value="switch:e2e-password"/>`,
		"secrets/json_cdr.xml":     `<param name="url" value="` + s.records + `"/>` + "\n" + `<param name="cred" value="switch:` + cdrPassword + `"/>`,
		"secrets/event_socket.xml": `<param name="password" value="` + eslPassword + `"/>`,
		"local/event_socket.xml":   `<param name="listen-port" value="` + strconv.Itoa(s.eslPort) + `"/>`,
		"local/switch.xml": fmt.Sprintf("<param name=\"rtp-start-port\" value=\"%d\"/>\n<param name=\"rtp-end-port\" value=\"%d\"/>\n"+
			"<param name=\"loglevel\" value=\"debug\"/>", rtp, rtp+198),
	} {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.switchArgs = []string{"-nonat", "-nf", "-nc", "-np", "-conf", conf}
	for flag, dir := range map[string]string{
		"-log": "log", "-db": "db", "-run": "run", "-temp": "temp", "-storage": "storage", "-cache": "cache", "-recordings": "recordings",
		"-scripts": "scripts", "-htdocs": "htdocs", "-grammar": "grammar", "-sounds": "sounds", "-certs": "certs",
	} {
		s.switchArgs = append(s.switchArgs, flag, filepath.Join(root, dir))
	}
}

// allowPrograms lets this switch run programs, as hostile texts want it to: it must not do so for other reasons.
func (s *scene) allowPrograms(t *testing.T, root string) {
	t.Helper()
	b, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	allowed := strings.NewReplacer("disable_system_app_commands=true", "disable_system_app_commands=false",
		"disable_system_api_commands=true", "disable_system_api_commands=false").Replace(string(b))
	if allowed == string(b) {
		t.Fatal("freeswitch.xml forbids no programs")
	}
	if err := os.WriteFile(root, []byte(allowed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startFreeSWITCH starts the switch, the first time or after it was killed.
func (s *scene) startFreeSWITCH(t *testing.T) {
	t.Helper()
	out := filepath.Join(s.dir, "switch", "output")
	s.freeswitch = startServer(t, "freeswitch", out, os.Environ(), "freeswitch", s.switchArgs...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the switch's log:\n%s", tail(s.logFile()))
		}
	})
	eventually(t, 60*time.Second, func() error {
		if err := s.freeswitch.alive(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, tail(out), tail(s.logFile()))
		}
		if s.esl == nil {
			var err error
			if s.esl, err = dialESL(t.Context(), s.eslPort); err != nil {
				return err
			}
		}
		status := s.esl.api("sofia status")
		for _, profile := range []string{"internal", "external"} {
			if !regexp.MustCompile(`(?m)^\s*` + profile + `\s+profile\s.*RUNNING`).MatchString(status) {
				return fmt.Errorf("profile %s does not run:\n%s", profile, status)
			}
		}
		// Profiles run before the core takes calls.
		if status := s.esl.api("status"); !strings.Contains(status, ") is ready") {
			return fmt.Errorf("the switch is not ready:\n%s", status)
		}
		return nil
	})
	t.Cleanup(s.esl.close)
}

// recordings is where the switch keeps recordings of calls.
func (s *scene) recordings() string { return filepath.Join(s.dir, "switch", "recordings") }

func (s *scene) logFile() string { return filepath.Join(s.dir, "switch", "log", "freeswitch.log") }

// log returns what the switch logged so far.
func (s *scene) log(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// idle waits until the switch has no calls, and has told of those that it had. It counts sessions, as the list of channels
// lags behind on a busy machine: it may not hold yet those of a call that is answered, or still those of one that is over.
func (s *scene) idle(t *testing.T) {
	t.Helper()
	eventually(t, 15*time.Second, func() error {
		if out := s.esl.api("status"); !strings.Contains(out, "\n0 session(s) - peak") {
			return errors.New(out)
		}
		return nil
	})
}

// leftovers returns the documents that the switch left in its log directory.
func (s *scene) leftovers(t *testing.T) []string {
	t.Helper()
	var left []string
	err := filepath.WalkDir(filepath.Join(s.dir, "switch", "log"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.Contains(d.Name(), ".fsxml") && d.Name() != "freeswitch.xml.fsxml" {
			left = append(left, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return left
}

func tail(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	const most = 6000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(b)
}

// freePort returns a port that is free for UDP and TCP and is not handed out twice.
func freePort(t *testing.T) int {
	t.Helper()
	return freeport.New(t)
}

// process is a program that runs until the test ends.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done is closed
}

// stopTime is what a program gets to end by itself.
const stopTime = 10 * time.Second

// start starts a program that cannot outlive this one: the kernel kills it with the thread that started it, which
// therefore lives as long as the program.
func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// startServer starts a program of the scene, its output in a file.
func startServer(t *testing.T, name, output string, env []string, program string, args ...string) *process {
	t.Helper()
	out, err := os.Create(output)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	return start(t, name, cmd)
}

func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// stop ends the program. The end of the test asks it too, and kills it when it takes too long.
func (p *process) stop() {
	_ = p.cmd.Cancel()
	select {
	case <-p.done:
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// writeCertificates makes what FreeSWITCH looks for in a tls-cert-dir.
func writeCertificates(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pbx.example"}, DNSNames: []string{"pbx.example"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), certificate...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"agent.pem": both, "wss.pem": both, "dtls-srtp.pem": both, "cafile.pem": certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// recorder stands between the switch and xmlcurl and keeps what they say, so that a test can tell what was asked.
type recorder struct {
	url string

	mu      sync.Mutex
	all     []lookup
	trigger func(lookup) // nil most of the time
}

// lookup is one question of the switch and its answer.
type lookup struct {
	form   string
	status int
	answer string
}

// newRecorder passes each request on over a connection of its own, as the switch would.
func newRecorder(t *testing.T, target string) *recorder {
	t.Helper()
	r := &recorder{}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + listener.Addr().String()
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		form, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		out, err := http.NewRequestWithContext(q.Context(), q.Method, target+q.URL.Path, bytes.NewReader(form))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		out.Header = q.Header.Clone()
		answer, err := client.Do(out)
		if err != nil {
			// To the switch a dead xmlcurl behind this looks like a dead xmlcurl: no answer.
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.mu.Lock()
		l := lookup{string(form), answer.StatusCode, string(body)}
		r.all = append(r.all, l)
		if r.trigger != nil {
			r.trigger(l)
		}
		r.mu.Unlock()
		w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		w.WriteHeader(answer.StatusCode)
		_, _ = w.Write(body)
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		client.CloseIdleConnections()
	})
	return r
}

// after does something when the first such answer is there, before the switch gets it.
func (r *recorder) after(answer func(lookup) bool, do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trigger = func(l lookup) {
		if answer(l) {
			r.trigger = nil
			do()
		}
	}
}

// save writes all lookups to a directory, one file each.
func (r *recorder) save(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Error(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, l := range r.all {
		name := filepath.Join(dir, fmt.Sprintf("%04d", i))
		content := l.form + "\n\n" + strconv.Itoa(l.status) + "\n" + l.answer
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Error(err)
		}
	}
}
