package esl_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fakefs"
	"github.com/edgvoip/edgvoip/internal/testlog"
)

const (
	// limit is how long a test waits for what has to happen; only a failure takes so long.
	limit = 30 * time.Second

	registered = "CUSTOM sofia::register"
)

// scene is a client of a fake switch.
type scene struct {
	*esl.Client
	fake     *fakefs.Server
	registry *prometheus.Registry
	log      *testlog.Lines
}

// newScene starts a client and waits until it is up. Timeouts that no test is about are long, waits between attempts
// short.
func newScene(t *testing.T, change ...func(*esl.Options)) *scene {
	t.Helper()
	s := startScene(t, fakefs.New(t), change...)
	s.expectUp(t, true)
	return s
}

func startScene(t *testing.T, fake *fakefs.Server, change ...func(*esl.Options)) *scene {
	t.Helper()
	s := newClient(t, fake.Addr(), change...)
	s.fake = fake
	return s
}

func newClient(t *testing.T, address string, change ...func(*esl.Options)) *scene {
	t.Helper()
	s := newStopped(t, address, change...)
	s.run(t)
	return s
}

// newStopped makes a client that does not run.
func newStopped(t *testing.T, address string, change ...func(*esl.Options)) *scene {
	t.Helper()
	s := &scene{registry: prometheus.NewRegistry(), log: &testlog.Lines{}}
	o := esl.Options{
		Node:   esl.Node{Name: "fs1", Address: address, Password: fakefs.Password},
		Events: []string{registered}, Metrics: esl.NewMetrics(s.registry), Log: slog.New(slog.NewTextHandler(s.log, nil)),
		DialTimeout: time.Hour, CommandTimeout: time.Hour, Silence: time.Hour, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
	}
	for _, c := range change {
		c(&o)
	}
	client, err := esl.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Client = client
	return s
}

// run runs the client until the test ends.
func (s *scene) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(limit):
			t.Error("Run does not return")
		}
		if t.Failed() {
			t.Logf("log:\n%s", s.log)
		}
	})
}

func (s *scene) expectUp(t *testing.T, want bool) {
	t.Helper()
	eventually(t, func() error {
		if got := s.Up(); got != want {
			return fmt.Errorf("up is %v:\n%s", got, s.log)
		}
		return nil
	})
}

// expectLost waits until connections that were there are gone, and others have come in their place.
func (s *scene) expectLost(t *testing.T, before []*fakefs.Conn) {
	t.Helper()
	eventually(t, func() error {
		// Every connection subscribes to this, and that to be held is the last thing of all.
		now := s.fake.Conns("HEARTBEAT")
		if len(now) != 2 || slices.ContainsFunc(now, func(c *fakefs.Conn) bool { return slices.Contains(before, c) }) || !s.Up() {
			return fmt.Errorf("not up with other connections:\n%s", s.log)
		}
		return nil
	})
}

// expectEcho fails unless a command gets its own reply. While there is no connection it tries again.
func (s *scene) expectEcho(t *testing.T) {
	t.Helper()
	eventually(t, func() error {
		out, err := s.API(t.Context(), "echo", "expected")
		if errors.Is(err, esl.ErrDown) {
			return err
		}
		if err != nil || out != "echo expected" {
			t.Fatalf("echo answers %q, %v", out, err)
		}
		return nil
	})
}

// echo answers a command with itself.
func echo(_ *fakefs.Conn, line string) string { return line }

// metric returns the sum of a metric over all its series that have some label values.
func (s *scene) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(values, l) }) {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return total
}

// eventually polls until a condition holds.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// receive waits for a value.
func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(limit):
		t.Fatal("nothing came")
	}
	panic("not reached")
}

func TestAPI(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	replies := map[string]string{
		"plain":   "line 1\nline 2 %zz\n",
		"ok":      "+OK done\n",
		"later":   "one line\n-ERR is part of the text\n",
		"error":   "-ERR 100% wrong\n",
		"usage":   "-USAGE: <name>\n",
		"nothing": "",
		"blank":   "\n",
		"padded":  "\n-ERR after a line break\n",
	}
	s.fake.OnAPI(func(_ *fakefs.Conn, line string) string {
		name, _, _ := strings.Cut(line, " ")
		return replies[name]
	})
	for name, refused := range map[string]string{
		"plain": "", "ok": "", "later": "", "error": "-ERR 100% wrong", "usage": "-USAGE: <name>", "nothing": "-ERR no reply",
		"blank": "", "padded": "-ERR after a line break",
	} {
		out, err := s.API(t.Context(), name, "argument")
		command, isRefused := errors.AsType[*esl.CommandError](err)
		switch {
		case name == "blank" || refused != "":
			if !isRefused || command.Reply != refused || command.Command != name || out != "" {
				t.Errorf("%s: %q, %v", name, out, err)
			}
		case err != nil || out != replies[name]:
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	// A user of the event socket with fewer rights is refused in another kind of frame.
	s.fake.OnAPI(func(c *fakefs.Conn, _ string) string {
		c.Write("Content-Type: command/reply\nReply-Text: -ERR permission denied\n\n")
		c.Break(fakefs.Silence)
		return ""
	})
	if _, err := s.API(t.Context(), "system"); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("error is %v", err)
	}
	for outcome, want := range map[string]float64{"ok": 3, "refused": 6} {
		if got := s.metric(t, "edgvoip_esl_commands_total", "fs1", outcome); got != want {
			t.Errorf("%v commands are counted as %s, want %v", got, outcome, want)
		}
	}
	if got := s.metric(t, "edgvoip_esl_command_seconds"); got != 9 {
		t.Errorf("%v commands were timed, want 9", got)
	}
}

// Fifty callers at once, five thousand commands: nobody gets another's reply.
func TestRepliesReachTheirCallers(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.fake.OnAPI(echo)
	var callers sync.WaitGroup
	for caller := range 50 {
		callers.Go(func() {
			for n := range 100 {
				word := strconv.Itoa(caller) + "." + strconv.Itoa(n)
				if out, err := s.API(t.Context(), "echo", word); err != nil || out != "echo "+word {
					t.Errorf("%s got %q, %v", word, out, err)
					return
				}
			}
		})
	}
	callers.Wait()
	if n := s.fake.Accepted(); n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
}

// A caller that gives up neither costs the connection nor leaves its reply to the next one.
func TestCallerThatGivesUp(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	began, goOn := make(chan bool), make(chan bool)
	s.fake.OnAPI(func(_ *fakefs.Conn, line string) string {
		if line == "slow" {
			began <- true
			<-goOn
		}
		return line
	})
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan error)
	go func() {
		_, err := s.API(ctx, "slow")
		gaveUp <- err
	}()
	receive(t, began)
	waiting, stopWaiting := context.WithCancel(t.Context())
	go func() {
		_, err := s.API(waiting, "waits")
		gaveUp <- err
	}()
	stopWaiting()
	if err := receive(t, gaveUp); !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waited got %v", err)
	}
	cancel()
	if err := receive(t, gaveUp); !errors.Is(err, context.Canceled) {
		t.Errorf("the one that was served got %v", err)
	}
	close(goOn)
	s.expectEcho(t)
	if n := s.fake.Accepted(); n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
	if slices.Contains(s.fake.Received(), "api waits ") {
		t.Error("a command was sent for a caller that was gone")
	}
	if got := s.metric(t, "edgvoip_esl_commands_total", "abandoned"); got != 2 {
		t.Errorf("%v commands are counted as abandoned, want 2", got)
	}
}

// A command that gets no reply costs the connection. Its reply, when it comes, is nobody's.
func TestCommandTimesOut(t *testing.T) {
	t.Parallel()
	goOn := make(chan bool)
	s := newScene(t, func(o *esl.Options) { o.CommandTimeout = 200 * time.Millisecond })
	// Registered after the fake's own: it waits for those who answer.
	t.Cleanup(func() { close(goOn) })
	s.fake.OnAPI(func(_ *fakefs.Conn, line string) string {
		if line == "slow" {
			<-goOn
		}
		return line
	})
	if _, err := s.API(t.Context(), "slow"); !errors.Is(err, esl.ErrLost) {
		t.Fatalf("error is %v", err)
	}
	s.expectEcho(t)
}

// The switch runs a command in the thread that sends events, so events have a connection of their own.
func TestSlowCommandHoldsNoEvent(t *testing.T) {
	t.Parallel()
	began, goOn, seen := make(chan bool), make(chan bool), make(chan esl.Event, 1)
	s := newScene(t, func(o *esl.Options) {
		o.Handle = func(_ context.Context, e esl.Event) { seen <- e }
	})
	s.fake.OnAPI(func(*fakefs.Conn, string) string {
		began <- true
		<-goOn
		return "done"
	})
	done := make(chan string)
	go func() {
		out, _ := s.API(t.Context(), "slow")
		done <- out
	}()
	receive(t, began)
	s.fake.Emit(registered, "from-user", "1001")
	if got := receive(t, seen).Get("from-user"); got != "1001" {
		t.Errorf("the event is about %q", got)
	}
	close(goOn)
	if out := receive(t, done); out != "done" {
		t.Errorf("the command got %q", out)
	}
}

// A SIP profile may take its time over a command. What makes the switch forget users does not wait for that.
func TestFlushWaitsForNoCommand(t *testing.T) {
	t.Parallel()
	began, goOn := make(chan bool), make(chan bool)
	s := newScene(t)
	s.fake.OnAPI(func(_ *fakefs.Conn, line string) string {
		if strings.HasPrefix(line, "sofia ") {
			began <- true
			<-goOn
		}
		return "+OK"
	})
	done := make(chan error)
	go func() { done <- s.FlushRegistration(t.Context(), "internal", "1001", "tenant-a.example") }()
	receive(t, began)
	flushed := make(chan error)
	go func() {
		flushed <- errors.Join(s.FlushUser(t.Context(), "tenant-a.example", "1002"), s.FlushUsers(t.Context()))
	}()
	if err := receive(t, flushed); err != nil {
		t.Error(err)
	}
	close(goOn)
	if err := receive(t, done); err != nil {
		t.Error(err)
	}
}

func TestNoConnection(t *testing.T) {
	t.Parallel()
	fake := fakefs.New(t)
	fake.Stop()
	s := startScene(t, fake)
	if _, err := s.API(t.Context(), "status"); !errors.Is(err, esl.ErrDown) {
		t.Errorf("error is %v", err)
	}
	if s.Up() || s.metric(t, "edgvoip_esl_commands_total", "down") != 1 {
		t.Error("up, or not counted")
	}
	eventually(t, func() error {
		if n := s.metric(t, "edgvoip_esl_connects_total", "failed"); n < 4 {
			return fmt.Errorf("%v attempts", n)
		}
		return nil
	})
	s.fake.Restart()
	s.expectUp(t, true)
	for _, connection := range []string{"commands", "events"} {
		if n := s.metric(t, "edgvoip_esl_connects_total", connection, "connected"); n != 1 {
			t.Errorf("%v connections for %s", n, connection)
		}
	}
}

// Whatever a server says instead of a switch's welcome, the log says what is wrong, nothing waits for ever, and the
// client comes up once the switch does.
func TestUnwelcome(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		welcome fakefs.Welcome
		want    string
	}{
		"silence":                  {fakefs.Mute, "no greeting in time"},
		"access list":              {fakefs.Rude, "turns this host away"},
		"another protocol":         {fakefs.Stranger, "not a frame of the event socket"},
		"hung up":                  {fakefs.HangUp, "read the greeting: EOF"},
		"wrong password":           {fakefs.Refuse, "the switch refuses the password"},
		"silence after password":   {fakefs.MuteLogin, "no reply to a command in time"},
		"hung up after password":   {fakefs.LeaveLogin, "log in: EOF"},
		"hung up after the log-in": {fakefs.Brief, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := fakefs.New(t)
			fake.Welcome(tc.welcome)
			s := startScene(t, fake, func(o *esl.Options) {
				o.DialTimeout, o.CommandTimeout = 100*time.Millisecond, 100*time.Millisecond
			})
			eventually(t, func() error {
				if n := fake.Accepted(); n < 6 {
					return fmt.Errorf("%d attempts", n)
				}
				if !strings.Contains(s.log.String(), tc.want) {
					return fmt.Errorf("the log does not say %q:\n%s", tc.want, s.log)
				}
				return nil
			})
			if s.Up() {
				t.Error("up")
			}
			if strings.Contains(s.log.String(), fakefs.Password) {
				t.Errorf("the log has the password:\n%s", s.log)
			}
			fake.Welcome(fakefs.Normal)
			s.expectUp(t, true)
		})
	}
}

// However a connection ends, that is noticed, a command that waits is told, and another connection takes its place.
func TestConnectionIsLost(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault fakefs.Fault
		want  string
	}{
		"closed":            {fakefs.FIN, "EOF"},
		"reset":             {fakefs.RST, "connection reset by peer"},
		"closed in a frame": {fakefs.MidBody, "unexpected EOF"},
		"notice":            {fakefs.Notice, "The system is being shut down."},
	} {
		for _, kind := range []string{registered, "HEARTBEAT"} { // on the events' connection; on both
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				s := newScene(t)
				s.fake.OnAPI(echo)
				for range 20 {
					before := s.fake.Conns(kind)
					s.fake.Break(tc.fault, kind)
					s.expectLost(t, before)
					s.expectEcho(t)
				}
				if !strings.Contains(s.log.String(), tc.want) {
					t.Errorf("the log does not say %q:\n%s", tc.want, s.log)
				}
			})
		}
		t.Run(name+", during a command", func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			for range 20 {
				s.expectUp(t, true)
				s.fake.OnAPI(func(c *fakefs.Conn, _ string) string {
					c.Break(tc.fault)
					return ""
				})
				if _, err := s.API(t.Context(), "status"); !errors.Is(err, esl.ErrLost) {
					t.Fatalf("error is %v", err)
				}
				s.fake.OnAPI(echo)
				s.expectEcho(t)
			}
		})
	}
}

func TestSilentSwitch(t *testing.T) {
	t.Parallel()
	const silence = 2 * time.Second // much longer than a busy machine may keep a heartbeat from us
	beats := make(chan esl.Event, 1)
	s := newScene(t, func(o *esl.Options) {
		o.Silence = silence
		o.Handle = func(_ context.Context, e esl.Event) { beats <- e }
	})
	before := s.fake.Conns("")
	// Longer than the silence that is allowed, but not silent.
	beat := time.NewTicker(silence / 20)
	defer beat.Stop()
	for began := time.Now(); time.Since(began) < 3*silence/2; <-beat.C {
		s.fake.Emit("HEARTBEAT")
		receive(t, beats)
	}
	if after := s.fake.Conns(""); !slices.Equal(before, after) {
		t.Fatalf("a connection with a heartbeat was given up:\n%s", s.log)
	}
	s.fake.Break(fakefs.Silence, "")
	s.expectLost(t, before)
	if want := "the switch is silent for 2s"; !strings.Contains(s.log.String(), want) {
		t.Errorf("the log does not say %q:\n%s", want, s.log)
	}
}

// A stream that makes no sense is given up, at once and without harm.
func TestNonsense(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"garbage":              "\x16\x03\x01\x02\x00\x01\xff\n\n",
		"line without a colon": "Content-Type text/event-plain\n\n",
		"no type":              "Content-Length: 1\n\na",
		"unknown type":         "Content-Type: text/unknown\n\n",
		"log line":             "Content-Type: log/data\nContent-Length: 3\n\nlog",
		"late rejection":       "Content-Type: text/rude-rejection\n\n",
		"second greeting":      "Content-Type: auth/request\n\n",
		"huge length":          "Content-Type: text/event-plain\nContent-Length: 99999999999\n\n",
		"negative length":      "Content-Type: text/event-plain\nContent-Length: -1\n\n",
		"endless header":       "Content-Type: text/event-plain\n" + strings.Repeat("A: b\n", 1<<16),
		"reply out of nowhere": "Content-Type: command/reply\nReply-Text: +OK\n\n",
		"answer from nowhere":  "Content-Type: api/response\nContent-Length: 3\n\n+OK",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t)
			s.fake.OnAPI(echo)
			before := s.fake.Conns("")
			for _, c := range before {
				c.Write(raw)
			}
			s.expectLost(t, before)
			s.expectEcho(t)
		})
	}
}

func TestEventsInOrder(t *testing.T) {
	t.Parallel()
	const events = 5000
	seen := make(chan esl.Event, events)
	s := newScene(t, func(o *esl.Options) {
		o.Handle = func(_ context.Context, e esl.Event) { seen <- e }
	})
	for n := range events {
		s.fake.Emit(registered, "n", strconv.Itoa(n), "contact", `"A B" <sip:1001@127.0.0.1;x=%41>`)
	}
	last := uint64(0)
	for n := range events {
		e := receive(t, seen)
		if e.Get("n") != strconv.Itoa(n) || e.Sequence <= last || e.Name != "CUSTOM" || e.Subclass != "sofia::register" {
			t.Fatalf("event %d is %+v", n, e)
		}
		if got := e.Get("contact"); got != `"A B" <sip:1001@127.0.0.1;x=%41>` {
			t.Fatalf("contact is %q", got)
		}
		last = e.Sequence
	}
	if n := s.metric(t, "edgvoip_esl_dropped_events_total"); n != 0 {
		t.Errorf("%v events were dropped", n)
	}
}

// After each connection the state is read, then events come: what happened meanwhile is in either.
func TestReconnect(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var story []string
	tell := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		story = append(story, fmt.Sprintf(format, args...))
	}
	resyncing, goOn := make(chan bool), make(chan bool)
	fake := fakefs.New(t)
	fake.OnAPI(echo)
	s := startScene(t, fake, func(o *esl.Options) {
		o.Resync = func(ctx context.Context, c *esl.Client) error {
			tell("resync")
			out, err := c.API(ctx, "show", "registrations")
			tell("%s, %v", out, err)
			resyncing <- true
			<-goOn
			return err
		}
		o.Handle = func(_ context.Context, e esl.Event) { tell("%s", e.Get("from-user")) }
	})
	for round := range 3 {
		receive(t, resyncing)
		s.fake.Emit(registered, "from-user", strconv.Itoa(round))
		goOn <- true
		eventually(t, func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(story) != 3*(round+1) {
				return fmt.Errorf("%q", story)
			}
			return nil
		})
		before := s.fake.Conns("")
		s.fake.Stop()
		s.fake.Restart()
		s.expectLost(t, before)
	}
	receive(t, resyncing)
	goOn <- true
	mu.Lock()
	defer mu.Unlock()
	want := []string{
		"resync", "show registrations, <nil>", "0", "resync", "show registrations, <nil>", "1", "resync", "show registrations, <nil>", "2",
	}
	if !slices.Equal(story[:len(want)], want) {
		t.Errorf("the story is\n%q, want\n%q", story, want)
	}
}

// Resync can ask the switch, also when the connection for commands comes later than that for events.
func TestResyncWaitsForCommands(t *testing.T) {
	t.Parallel()
	fake := fakefs.New(t)
	fake.OnAPI(echo)
	held := make(chan bool)
	release := sync.OnceFunc(func() { close(held) })
	t.Cleanup(release)
	fake.OnSubscribe(func(c *fakefs.Conn, kind string) string {
		if kind == "HEARTBEAT" && !c.Subscribed(registered) { // for commands
			<-held
		}
		return "+OK"
	})
	asked := make(chan error, 10)
	s := startScene(t, fake, func(o *esl.Options) {
		o.Resync = func(ctx context.Context, c *esl.Client) error {
			_, err := c.API(ctx, "echo")
			asked <- err
			return err
		}
	})
	eventually(t, func() error {
		if want := "connection=events"; !strings.Contains(s.log.String(), want) {
			return fmt.Errorf("the log does not say %s:\n%s", want, s.log)
		}
		return nil
	})
	release()
	if err := receive(t, asked); err != nil {
		t.Error(err)
	}
}

func TestSubscriptionIsRefused(t *testing.T) {
	t.Parallel()
	fake := fakefs.New(t)
	fake.OnSubscribe(func(_ *fakefs.Conn, kind string) string {
		if kind == registered {
			return "-ERR no keywords supplied"
		}
		return "+OK"
	})
	s := startScene(t, fake)
	eventually(t, func() error {
		want := `subscribe to \"CUSTOM sofia::register\": \"-ERR no keywords supplied\"`
		if n := s.metric(t, "edgvoip_esl_connects_total", "events", "failed"); n < 3 || !strings.Contains(s.log.String(), want) {
			return fmt.Errorf("%v attempts:\n%s", n, s.log)
		}
		return nil
	})
	if s.Up() {
		t.Error("up without the events that it is for")
	}
}

func TestResyncIsTriedAgain(t *testing.T) {
	t.Parallel()
	tries := 0
	seen := make(chan int, 1)
	s := newScene(t, func(o *esl.Options) {
		o.Resync = func(context.Context, *esl.Client) error {
			if tries++; tries < 3 {
				return errors.New("the database is away")
			}
			return nil
		}
		o.Handle = func(context.Context, esl.Event) { seen <- tries }
	})
	s.fake.Emit(registered)
	if n := receive(t, seen); n != 3 {
		t.Errorf("the event was handled after %d tries", n)
	}
	if n := s.fake.Accepted(); n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
	if s.metric(t, "edgvoip_esl_resyncs_total", "failed") != 2 || s.metric(t, "edgvoip_esl_resyncs_total", "done") != 1 {
		t.Error("not counted")
	}
	if !strings.Contains(s.log.String(), "the database is away") {
		t.Errorf("not in the log:\n%s", s.log)
	}
}

// Events that come faster than they are handled are lost from one on, the connection is not, and the state is read anew
// before any later event.
func TestGap(t *testing.T) {
	t.Parallel()
	const queued = 5
	resynced, handling, goOn := make(chan bool, 10), make(chan string), make(chan bool)
	s := newScene(t, func(o *esl.Options) {
		o.QueueSize = queued
		o.Resync = func(context.Context, *esl.Client) error {
			resynced <- true
			return nil
		}
		o.Handle = func(_ context.Context, e esl.Event) {
			handling <- e.Get("n")
			<-goOn
		}
	})
	receive(t, resynced)
	s.fake.Emit(registered, "n", "first")
	receive(t, handling)
	for n := range 100 {
		s.fake.Emit(registered, "n", strconv.Itoa(n))
	}
	eventually(t, func() error {
		if n := s.metric(t, "edgvoip_esl_dropped_events_total", "fs1"); n != 100-queued {
			return fmt.Errorf("%v events were dropped", n)
		}
		return nil
	})
	for n := range queued {
		goOn <- true
		if got := receive(t, handling); got != strconv.Itoa(n) {
			t.Errorf("%s was handled in the place of %d", got, n)
		}
		if len(resynced) > 0 {
			t.Error("resync before the events that came before the gap")
		}
	}
	goOn <- true
	receive(t, resynced)
	s.fake.EmitText(registered, "Event-Name: CUSTOM\nno colon\n\n") // cannot be read, and so is a gap too
	receive(t, resynced)
	s.fake.Emit(registered, "n", "last")
	if got := receive(t, handling); got != "last" {
		t.Errorf("%q was handled after the gap", got)
	}
	goOn <- true
	if n := s.fake.Accepted(); n != 2 {
		t.Errorf("%d connections were made, want 2", n)
	}
}

func TestSubscribes(t *testing.T) {
	t.Parallel()
	s := newScene(t, func(o *esl.Options) {
		o.Events = []string{"CUSTOM sofia::register", "CUSTOM sofia::expire", "BACKGROUND_JOB"}
	})
	before := s.fake.Conns("")
	s.fake.Break(fakefs.FIN, "")
	s.expectLost(t, before)
	for _, kind := range []string{"CUSTOM sofia::register", "CUSTOM sofia::expire", "BACKGROUND_JOB"} {
		if n := len(s.fake.Conns(kind)); n != 1 {
			t.Errorf("%d connections have %s, want 1", n, kind)
		}
	}
	if n := len(s.fake.Conns("HEARTBEAT")); n != 2 {
		t.Errorf("%d connections have the heartbeat, want 2", n)
	}
}

func TestRunsOnce(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	if err := s.Run(t.Context()); err == nil {
		t.Error("two run")
	}
}

// Whatever a client waits for, Run returns when its context ends.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	for welcome := fakefs.Normal; welcome <= fakefs.Brief; welcome++ {
		t.Run(fmt.Sprintf("welcome %d", welcome), func(t *testing.T) {
			t.Parallel()
			fake := fakefs.New(t)
			fake.Welcome(welcome)
			resync := make(chan bool, 1)
			s := newStopped(t, fake.Addr(), func(o *esl.Options) {
				o.DialTimeout, o.CommandTimeout, o.Silence, o.MinBackoff, o.MaxBackoff = time.Hour, time.Hour, time.Hour, time.Hour, time.Hour
				o.Resync = func(ctx context.Context, _ *esl.Client) error {
					resync <- true
					<-ctx.Done()
					return ctx.Err()
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- s.Run(ctx) }()
			eventually(t, func() error {
				if n := fake.Accepted(); n < 2 {
					return fmt.Errorf("%d connections", n)
				}
				return nil
			})
			if welcome == fakefs.Normal {
				receive(t, resync)
			}
			cancel()
			if err := receive(t, ended); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*esl.Options){
		"Node.Name":     func(o *esl.Options) { o.Node.Name = "" },
		"Node.Address":  func(o *esl.Options) { o.Node.Address = "127.0.0.1" },
		"Node.Password": func(o *esl.Options) { o.Node.Password = "s3cret\nexit" },
		"Events":        func(o *esl.Options) { o.Events = []string{"HEARTBEAT\n\napi shutdown"} },
		"Events ":       func(o *esl.Options) { o.Events = []string{"ALL"} },
		"Events  ":      func(o *esl.Options) { o.Events = []string{"CUSTOM"} },
		"Events   ":     func(o *esl.Options) { o.Events = []string{"HEARTBEAT CUSTOM sofia::register"} },
		"Events    ":    func(o *esl.Options) { o.Events = []string{""} },
		"Options":       func(o *esl.Options) { o.Silence = -1 },
		"Options ":      func(o *esl.Options) { o.MinBackoff = time.Hour },
	} {
		o := esl.Options{Node: esl.Node{Name: "fs1", Address: "127.0.0.1:8021", Password: "x"}}
		change(&o)
		_, err := esl.New(o)
		if field := strings.TrimSpace(name); err == nil || !strings.HasPrefix(err.Error(), field+": ") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: error is %v", field, err)
		}
	}
}

func TestNodeHidesItsPassword(t *testing.T) {
	t.Parallel()
	n := esl.Node{Name: "fs1", Address: "127.0.0.1:8021", Password: "s3cret"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("node", "node", n, "pointer", &n)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %q", n, n, n, n, n), fmt.Sprintf("%v %+v", &n, &n), log.String()} {
		if strings.Contains(text, n.Password) || !strings.Contains(text, n.Address) {
			t.Error(text)
		}
	}
}
