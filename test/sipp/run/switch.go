package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// kind is one of the two switches that are compared.
type kind string

const (
	ours      kind = "xmlcurl" // users and routes from xmlcurl
	yardstick kind = "static"  // the same on its own disk
)

// fsSwitch is a FreeSWITCH that runs. Both kinds have the project's freeswitch-conf, and modules, profiles and settings
// from xmlcurl; they differ in where users and routes come from and in nothing else.
type fsSwitch struct {
	kind    kind
	process *process
	socket  *eventSocket
	log     string
}

// bindings are the sections that a switch asks xmlcurl for.
func (k kind) bindings() string {
	if k == yardstick {
		return "configuration|chatplan"
	}
	return "directory|dialplan|configuration|chatplan|channels"
}

// startSwitch starts a switch in a directory of its own and waits until it takes calls.
func startSwitch(ctx context.Context, in *installation, k kind, x static, dir string) (*fsSwitch, error) {
	for _, sub := range switchDirs {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	conf := filepath.Join(dir, "conf")
	if err := configure(conf, in, k, x); err != nil {
		return nil, err
	}
	args := []string{"-nonat", "-nf", "-nc", "-np", "-conf", conf}
	for _, sub := range switchDirs {
		args = append(args, "-"+sub, filepath.Join(dir, sub))
	}
	cmd, err := command(ctx, dir, "freeswitch", nil, "freeswitch", args...)
	if err != nil {
		return nil, err
	}
	s := &fsSwitch{kind: k, log: filepath.Join(dir, "log", "freeswitch.log")}
	if s.process, err = start("freeswitch", cmd); err != nil {
		return nil, err
	}
	if err := eventually(ctx, 60*time.Second, func() error { return s.ready(ctx, in) }); err != nil {
		s.stop()
		return nil, fmt.Errorf("the switch does not start: %w\n%s\n%s", err, tail(s.process.output()), tail(s.log))
	}
	return s, nil
}

// switchDirs are where FreeSWITCH writes and looks; each has an option of its name.
var switchDirs = []string{"log", "db", "run", "temp", "storage", "cache", "recordings", "scripts", "htdocs", "grammar", "sounds", "certs"}

// configure writes the configuration directory: freeswitch-conf with the secrets and ports of this installation, and
// for the yardstick its users and routes.
func configure(conf string, in *installation, k kind, x static) error {
	if err := os.CopyFS(conf, os.DirFS("freeswitch-conf")); err != nil {
		return err
	}
	files := map[string]string{
		"secrets/xml_curl.xml": `<param name="gateway-url" value="` + in.url + `/xml" bindings="` + k.bindings() + `"/>` + "\n" +
			`<param name="gateway-credentials" value="` + in.credentials + `"/>`,
		"secrets/event_socket.xml": `<param name="password" value="` + in.eslPassword + `"/>`,
		"local/event_socket.xml":   `<param name="listen-port" value="` + strconv.Itoa(in.esl) + `"/>`,
	}
	modules, err := os.ReadFile("freeswitch-conf/autoload_configs/modules.conf.xml")
	if err != nil {
		return err
	}
	// Nobody takes call records here: a file a leg would be measured, on both sides.
	if files["autoload_configs/modules.conf.xml"], err = withoutModule(string(modules), "mod_json_cdr"); err != nil {
		return err
	}
	if k == yardstick {
		root, err := os.ReadFile("freeswitch-conf/freeswitch.xml")
		if err != nil {
			return err
		}
		for name, section := range map[string][]byte{"directory": x.directory, "dialplan": x.dialplan} {
			files[name+".xml"] = string(section)
			if root, err = includeSection(root, name); err != nil {
				return err
			}
		}
		files["freeswitch.xml"] = string(root)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(conf, name), []byte(content+"\n"), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// includeSection replaces an empty section of freeswitch.xml by the file of its name.
func includeSection(root []byte, name string) ([]byte, error) {
	empty := regexp.MustCompile(`<section name="` + name + `"[^>]*/>`)
	if n := len(empty.FindAll(root, -1)); n != 1 {
		return nil, fmt.Errorf("freeswitch.xml has %d empty sections %q", n, name)
	}
	return empty.ReplaceAll(root, []byte(`<X-PRE-PROCESS cmd="include" data="`+name+`.xml"/>`)), nil
}

// withoutModule takes a module out of modules.conf.xml.
func withoutModule(modules, name string) (string, error) {
	load := `<load module="` + name + `"/>`
	if strings.Count(modules, load) != 1 {
		return "", fmt.Errorf("modules.conf.xml does not load %s once", name)
	}
	return strings.Replace(modules, load, "", 1), nil
}

// ready returns an error until the switch takes calls, on both profiles.
func (s *fsSwitch) ready(ctx context.Context, in *installation) error {
	if err := s.process.ended(); err != nil {
		return err
	}
	if s.socket == nil {
		var err error
		if s.socket, err = dialEventSocket(ctx, in.esl, in.eslPassword); err != nil {
			return err
		}
	}
	profiles, err := s.socket.api("sofia status")
	if err != nil {
		return err
	}
	for _, profile := range []string{"internal", "external"} {
		if !regexp.MustCompile(`(?m)^\s*` + profile + `\s+profile\s.*RUNNING`).MatchString(profiles) {
			return fmt.Errorf("profile %s does not run:\n%s", profile, profiles)
		}
	}
	// Profiles run before the core takes calls.
	status, err := s.socket.api("status")
	if err == nil && !strings.Contains(status, ") is ready") {
		err = fmt.Errorf("the core is not ready:\n%s", status)
	}
	return err
}

// idle waits until the switch has no calls.
func (s *fsSwitch) idle(ctx context.Context) error {
	return eventually(ctx, 15*time.Second, func() error {
		n, err := s.count("show channels count")
		if err == nil && n != 0 {
			err = fmt.Errorf("%d channels are left", n)
		}
		return err
	})
}

// count asks for a number: "12 total.", "+OK cleared 0 entries".
func (s *fsSwitch) count(question string) (int, error) {
	answer, err := s.socket.api(question)
	if err != nil {
		return 0, err
	}
	digits := regexp.MustCompile(`\d+`).FindString(answer)
	if digits == "" {
		return 0, fmt.Errorf("%s: %s", question, answer)
	}
	return strconv.Atoi(digits)
}

var sessionRate = regexp.MustCompile(`session\(s\) per Sec out of max (\d+), peak (\d+)`)

// parseSessionRate reads off the answer to "status" how many sessions began in the busiest second, and how many may.
func parseSessionRate(status string) (peak, limit int, err error) {
	m := sessionRate.FindStringSubmatch(status)
	if m == nil {
		return 0, 0, fmt.Errorf("status without a rate of sessions:\n%s", status)
	}
	limit, err1 := strconv.Atoi(m[1])
	peak, err2 := strconv.Atoi(m[2])
	return peak, limit, errors.Join(err1, err2)
}

func (s *fsSwitch) stop() {
	if s.socket != nil {
		s.socket.conn.Close()
	}
	s.process.stop(syscall.SIGTERM)
}

// eventSocket is a connection to mod_event_socket.
type eventSocket struct {
	conn net.Conn
	r    *bufio.Reader
}

func dialEventSocket(ctx context.Context, port int, password string) (*eventSocket, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	e := &eventSocket{conn: conn, r: bufio.NewReader(conn)}
	if _, _, err = e.read(); err == nil {
		var reply string
		if reply, err = e.command("auth " + password); err == nil && !strings.HasPrefix(reply, "+OK") {
			err = errors.New("the event socket refuses the password")
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return e, nil
}

// read reads one message: its headers and its body.
func (e *eventSocket) read() (textproto.MIMEHeader, string, error) {
	if err := e.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, "", err
	}
	h, err := textproto.NewReader(e.r).ReadMIMEHeader()
	if err != nil {
		return nil, "", err
	}
	n, _ := strconv.Atoi(h.Get("Content-Length"))
	body := make([]byte, n)
	_, err = io.ReadFull(e.r, body)
	return h, string(body), err
}

// command sends a command and returns its reply, or the body of that.
func (e *eventSocket) command(line string) (string, error) {
	if _, err := io.WriteString(e.conn, line+"\n\n"); err != nil {
		return "", err
	}
	for {
		h, body, err := e.read()
		if err != nil {
			return "", fmt.Errorf("event socket: %w", err)
		}
		switch h.Get("Content-Type") {
		case "api/response":
			return body, nil
		case "command/reply":
			return h.Get("Reply-Text"), nil
		}
	}
}

func (e *eventSocket) api(command string) (string, error) { return e.command("api " + command) }
