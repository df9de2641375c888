package esl_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fakefs"
	"github.com/edgvoip/edgvoip/internal/freeport"
)

// realSwitch is a FreeSWITCH with nothing but an event socket and a SIP profile where anybody may register.
type realSwitch struct {
	t         *testing.T // that it lives as long as
	dir       string
	port, sip int // of the event socket; of the profile

	process *os.Process
	ended   chan struct{} // closed when the process has
}

func newRealSwitch(t *testing.T) *realSwitch {
	t.Helper()
	if os.Getenv("EDGVOIP_E2E") != "1" {
		t.Skip("set EDGVOIP_E2E=1 to run against a real FreeSWITCH (make e2e does)")
	}
	if _, err := exec.LookPath("freeswitch"); err != nil {
		t.Skip("freeswitch is not in PATH")
	}
	s := &realSwitch{t: t, dir: t.TempDir(), port: freeport.New(t), sip: freeport.New(t)}
	if err := os.Mkdir(filepath.Join(s.dir, "conf"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf(switchConfiguration, s.port, fakefs.Password, s.sip)
	if err := os.WriteFile(filepath.Join(s.dir, "conf", "freeswitch.xml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start()
	return s
}

const switchConfiguration = `<document type="freeswitch/xml">
<section name="configuration">
<configuration name="switch.conf"><settings>
<param name="event-heartbeat-interval" value="1"/>
</settings></configuration>
<configuration name="modules.conf"><modules>
<load module="mod_logfile"/><load module="mod_commands"/><load module="mod_sofia"/><load module="mod_event_socket"/>
</modules></configuration>
<configuration name="logfile.conf"><profiles><profile name="default"><mappings><map name="all" value="info,notice,warning,err,crit,alert"/></mappings></profile></profiles></configuration>
<configuration name="event_socket.conf"><settings>
<param name="listen-ip" value="127.0.0.1"/><param name="listen-port" value="%d"/><param name="password" value="%s"/><param name="nat-map" value="false"/>
</settings></configuration>
<configuration name="sofia.conf"><profiles><profile name="internal"><settings>
<param name="sip-ip" value="127.0.0.1"/><param name="rtp-ip" value="127.0.0.1"/><param name="sip-port" value="%d"/>
<param name="accept-blind-reg" value="true"/><param name="manage-presence" value="false"/>
</settings></profile></profiles></configuration>
</section>
<section name="directory"/><section name="dialplan"/>
</document>
`

// start starts the switch, again if need be, on the same ports. The kernel kills it with the thread that started it,
// which therefore lives as long.
func (s *realSwitch) start() {
	t := s.t
	t.Helper()
	args := []string{"-nonat", "-nf", "-nc", "-np", "-conf", filepath.Join(s.dir, "conf")}
	for _, dir := range []string{"log", "db", "run", "temp", "storage", "cache", "recordings", "scripts", "htdocs", "grammar", "sounds", "certs"} {
		path := filepath.Join(s.dir, dir)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-"+dir, path)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "freeswitch", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it ends by a signal
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	s.process, s.ended = cmd.Process, ended
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log", "freeswitch.log"))
			t.Logf("the switch's log:\n%s", log[max(0, len(log)-4000):])
		}
		s.signal(syscall.SIGKILL)
		<-ended
	})
	eventually(t, func() error {
		select {
		case <-ended:
			t.Fatalf("freeswitch ended: %s", cmd.ProcessState)
		default:
		}
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", "127.0.0.1:"+strconv.Itoa(s.port))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// signal sends the switch a signal, unless it has ended.
func (s *realSwitch) signal(signal syscall.Signal) { _ = s.process.Signal(signal) }

// register registers a phone, which answers to nothing.
func (s *realSwitch) register(t *testing.T, user, host, callID string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "udp4", "127.0.0.1:"+strconv.Itoa(s.sip))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := strings.Join([]string{
		"REGISTER sip:" + host + " SIP/2.0", "Via: SIP/2.0/UDP " + conn.LocalAddr().String() + ";rport;branch=z9hG4bK" + strconv.FormatInt(time.Now().UnixNano(), 36),
		"From: <sip:" + user + "@" + host + ">;tag=1", "To: <sip:" + user + "@" + host + ">", "Call-ID: " + callID, "CSeq: 1 REGISTER",
		"Contact: <sip:" + user + "@" + conn.LocalAddr().String() + ">", "Expires: 600", "Max-Forwards: 70", "Content-Length: 0", "", "",
	}, "\r\n")
	// The profile opens its port some time after the event socket.
	eventually(t, func() error {
		if _, err := conn.Write([]byte(request)); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 2048)
		n, err := conn.Read(answer)
		if err == nil && !strings.HasPrefix(string(answer[:n]), "SIP/2.0 200 ") {
			err = fmt.Errorf("answered %q", answer[:n])
		}
		return err
	})
}

// registrations returns the Call-IDs that the switch has, in order.
func (s *scene) registrations(t *testing.T) []string {
	t.Helper()
	out, err := s.API(t.Context(), "sofia", "xmlstatus", "profile", "internal", "reg")
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, found := range regexp.MustCompile(`<call-id>(.*)</call-id>`).FindAllStringSubmatch(out, -1) {
		ids = append(ids, found[1])
	}
	slices.Sort(ids)
	return ids
}

func (s *scene) expectRegistrations(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := s.registrations(t); !slices.Equal(got, want) {
		t.Errorf("the switch has %q, want %q", got, want)
	}
	if n, err := s.Registrations(t.Context()); n != len(want) || err != nil {
		t.Errorf("the switch counts %d, want %d; %v", n, len(want), err)
	}
}

// What the switch itself does with what we send, and what it sends.
func TestRealSwitch(t *testing.T) {
	fs := newRealSwitch(t)
	resynced := make(chan bool, 100)
	events := make(chan esl.Event, 10_000)
	s := newClient(t, fmt.Sprintf("127.0.0.1:%d", fs.port), func(o *esl.Options) {
		o.Events = []string{registered, "CUSTOM sofia::expire"}
		o.Silence = 5 * time.Second
		o.Handle = func(_ context.Context, e esl.Event) {
			if e.Name == "CUSTOM" {
				events <- e
			}
		}
		o.Resync = func(context.Context, *esl.Client) error {
			resynced <- true
			return nil
		}
	})
	s.expectUp(t, true)
	receive(t, resynced)

	t.Run("status", func(t *testing.T) {
		eventually(t, func() error {
			got, err := s.Status(t.Context())
			if err != nil || !got.Ready || got.Version == "" || got.Uptime <= 0 || got.Uptime > limit || got.Sessions != 0 || got.MaxSessions == 0 {
				return fmt.Errorf("%+v, %w", got, err)
			}
			return nil
		})
	})
	t.Run("refusals", func(t *testing.T) {
		for _, command := range [][]string{{"nosuch"}, {"reload"}, {"echo"}, {"show", "nosuch"}, {"uuid_kill", "x"}} {
			_, err := s.API(t.Context(), command[0], command[1:]...)
			if _, ok := errors.AsType[*esl.CommandError](err); !ok {
				t.Errorf("%q: error is %v", command, err)
			}
		}
	})
	t.Run("replies reach their callers", func(t *testing.T) {
		var callers sync.WaitGroup
		for caller := range 8 {
			callers.Go(func() {
				for n := range 100 {
					word := fmt.Sprintf("%d.%d", caller, n)
					if out, err := s.API(t.Context(), "echo", word); err != nil || out != word {
						t.Errorf("%s got %q, %v", word, out, err)
						return
					}
				}
			})
		}
		callers.Wait()
	})
	t.Run("users", func(t *testing.T) {
		if err := s.FlushUser(t.Context(), "tenant-a.example", "1001"); err != nil {
			t.Error(err)
		}
	})
	t.Run("registrations", func(t *testing.T) {
		ids := map[string]string{ // by user
			"1001@tenant-a.example":     "plain",
			"1002@tenant-a.example":     "1-2@127.0.0.1",
			"1003@tenant-a.example":     "w-.!%*_+~():/[]?@[2001:db8::1]",
			"1004~tls@tenant-a.example": "x~1",
			"victim@tenant-b.example":   "y@host",
			"other@tenant-b.example":    "z",
			"evil@tenant-a.example":     "victim@tenant-b.example",
			"evil2@tenant-a.example":    "tenant-b.example",
			"evil3@tenant-a.example":    "reboot",
		}
		left := func() []string {
			var all []string
			for _, id := range ids {
				all = append(all, id)
			}
			return all
		}
		for aor, id := range ids {
			user, host, _ := strings.Cut(aor, "@")
			fs.register(t, user, host, id)
			e := receive(t, events)
			if e.Subclass != "sofia::register" || e.Get("call-id") != id || e.Get("from-user") != user || e.Get("from-host") != host || e.Sequence == 0 {
				t.Errorf("%s: the event is %+v", aor, e)
			}
		}
		eventually(t, func() error {
			if n, err := s.Registrations(t.Context()); n != len(ids) || err != nil {
				return fmt.Errorf("the switch counts %d, %w", n, err)
			}
			return nil
		})
		s.expectRegistrations(t, left()...)

		for _, aor := range []string{
			"1001@tenant-a.example", "1002@tenant-a.example", "1003@tenant-a.example", "1004~tls@tenant-a.example", "other@tenant-b.example",
			"evil@tenant-a.example", "evil2@tenant-a.example", "evil3@tenant-a.example",
		} {
			user, host, _ := strings.Cut(aor, "@")
			if err := s.FlushRegistration(t.Context(), "internal", user, host); err != nil {
				t.Errorf("%s: %v", aor, err)
			}
			delete(ids, aor)
			s.expectRegistrations(t, left()...)
			if e := receive(t, events); e.Subclass != "sofia::expire" || e.Get("call-id") == "" {
				t.Errorf("%s: the event is %+v", aor, e)
			}
		}
		if err := s.FlushRegistration(t.Context(), "internal", "nobody", "tenant-a.example"); err != nil {
			t.Error(err)
		}
		s.expectRegistrations(t, "y@host")
		err := s.FlushRegistration(t.Context(), "nosuch", "victim", "tenant-b.example")
		if _, ok := errors.AsType[*esl.CommandError](err); !ok {
			t.Errorf("on an unknown profile: error is %v", err)
		}
		s.expectRegistrations(t, "y@host")
	})
	// Why no argument may name the module: the text of a harmless command reloads it, and takes all connections down.
	t.Run("a word that is a command", func(t *testing.T) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp4", "127.0.0.1:"+strconv.Itoa(fs.port))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "auth %s\n\napi echo reload-Mod_Event_Socket\n\n", fakefs.Password); err != nil {
			t.Fatal(err)
		}
		receive(t, resynced)
		s.expectUp(t, true)
		if want := "the switch takes its leave"; !strings.Contains(s.log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, s.log)
		}
	})
	t.Run("a switch that is killed and comes back", func(t *testing.T) {
		fs.signal(syscall.SIGKILL)
		<-fs.ended
		s.expectUp(t, false)
		eventually(t, func() error {
			if _, err := s.API(t.Context(), "status"); !errors.Is(err, esl.ErrDown) {
				return fmt.Errorf("error is %w", err)
			}
			return nil
		})
		fs.start()
		s.expectUp(t, true)
		receive(t, resynced)
		fs.register(t, "1001", "tenant-a.example", "after")
		if e := receive(t, events); e.Get("call-id") != "after" {
			t.Errorf("the event is %+v", e)
		}
	})
	t.Run("a switch that is stopped in its tracks", func(t *testing.T) {
		fs.signal(syscall.SIGSTOP)
		eventually(t, func() error {
			if want := `connection=events error="the switch is silent for 5s"`; !strings.Contains(s.log.String(), want) {
				return fmt.Errorf("the log does not say %s:\n%s", want, s.log)
			}
			return nil
		})
		fs.signal(syscall.SIGCONT)
		s.expectUp(t, true)
		receive(t, resynced)
	})
	t.Run("a switch that shuts down", func(t *testing.T) {
		_, err := s.API(t.Context(), "fsctl", "shutdown", "now")
		if err != nil && !errors.Is(err, esl.ErrLost) {
			t.Error(err)
		}
		s.expectUp(t, false)
		<-fs.ended
		fs.start()
		s.expectUp(t, true)
	})
}
