package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a server that was started.
type process struct {
	name string
	addr string
	cmd  *exec.Cmd
	stop context.CancelFunc
	// ended is closed when the process is gone.
	ended chan struct{}
	log   tail
}

// startProcess starts a server and returns when it listens.
func startProcess(ctx context.Context, name, path string, args, env []string) (*process, error) {
	ctx, stop := context.WithCancel(ctx)
	p := &process{name: name, stop: stop, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, path, args...) //nolint:gosec // the caller says what is measured
	p.cmd.Env = env
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) }
	p.cmd.WaitDelay = 15 * time.Second
	stderr, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	listening := make(chan string, 1)
	go p.follow(stderr, listening)
	select {
	case p.addr = <-listening:
		return p, nil
	case <-p.ended:
	case <-ctx.Done():
	}
	p.close()
	return nil, fmt.Errorf("%s does not listen: %s", name, &p.log)
}

// follow reads the log until the process ends, so that it never waits for a reader.
func (p *process) follow(stderr io.Reader, listening chan<- string) {
	lines := bufio.NewReaderSize(io.TeeReader(stderr, &p.log), 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		var event struct{ Msg, Addr string }
		if json.Unmarshal(line, &event) == nil && event.Msg == "listening" {
			listening <- event.Addr
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	_, _ = io.Copy(io.Discard, lines) // to its end, whatever that is
	_ = p.cmd.Wait()                  // whoever needs the process finds it gone
	close(p.ended)
}

// close stops the process and returns when it is gone.
func (p *process) close() {
	p.stop()
	<-p.ended
}

// waitReady waits until the process says that it can do its work.
func (p *process) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		ready, err := p.ready(ctx)
		if ready {
			return nil
		}
		select {
		case <-time.After(readyInterval):
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.name, &p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w: %s", p.name, errors.Join(ctx.Err(), err), &p.log)
		}
	}
}

// A server that loads everything first takes its time.
const (
	readyTimeout  = 2 * time.Minute
	readyInterval = 20 * time.Millisecond
)

func (p *process) ready(ctx context.Context) (bool, error) {
	status, _, err := p.get(ctx, "/readyz")
	return status == http.StatusOK, err
}

// waitLoaded waits until a number of extensions are in memory; known is false if the server does not say how many are.
func (p *process) waitLoaded(ctx context.Context, extensions int) (known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		_, metrics, err := p.get(ctx, "/metrics")
		if err != nil {
			return false, fmt.Errorf("%s does not tell what is in memory: %w", p.name, err)
		}
		n, known, err := parseLoaded(metrics)
		if err != nil || !known || n >= float64(extensions)*loadedPart {
			return known, err
		}
		select {
		case <-time.After(readyInterval):
		case <-ctx.Done():
			return true, fmt.Errorf("%s has %.0f of %d extensions in memory: %w", p.name, n, extensions, ctx.Err())
		}
	}
}

// loadedPart of all extensions in memory is enough: the server's count is an estimate.
const loadedPart = 0.99

// parseLoaded reads the number of extensions in memory off a server's metrics; known is false if it is not there.
func parseLoaded(metrics string) (n float64, known bool, err error) {
	const name = `xmlcurl_model_entries{of="extension_names"} `
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, err = strconv.ParseFloat(strings.TrimSpace(value), 64)
			return n, true, err
		}
	}
	return 0, false, nil
}

func (p *process) get(ctx context.Context, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), errors.Join(err, resp.Body.Close())
}

// usage is what a process has used.
type usage struct {
	// cpu is time in user mode and in the kernel together, in steps of 10 ms.
	cpu time.Duration
	// rss is memory that is present, in bytes.
	rss int64
}

func (p *process) usage() (usage, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/stat")
	if err != nil {
		return usage{}, fmt.Errorf("%s is gone: %w\nIts log ends in: %s", p.name, err, &p.log)
	}
	return parseStat(string(b))
}

// ticks a second are what the kernel counts CPU time in, on every architecture that Go runs on (USER_HZ).
const ticks = 100

// parseStat reads a line of /proc/PID/stat (proc(5)). The second field, the program's name in parentheses, may hold
// anything.
func parseStat(stat string) (usage, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	// Fields count from the third on.
	const utime, stime, rss = 14 - 3, 15 - 3, 24 - 3
	if len(fields) <= rss {
		return usage{}, errors.New("/proc/PID/stat: too short")
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	pages, err3 := strconv.ParseInt(fields[rss], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return usage{}, fmt.Errorf("/proc/PID/stat: %w", err)
	}
	return usage{time.Duration(user+system) * time.Second / ticks, pages * int64(os.Getpagesize())}, nil
}

// machine is the CPU time of all processors together, and how much of it was used by whomever.
type machine struct{ all, used time.Duration }

func machineUsage() (machine, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}, err
	}
	return parseMachine(string(b))
}

// parseMachine reads the first line of /proc/stat (proc(5)): user, nice, system, idle, iowait, irq, softirq, steal.
// What follows is part of the first two.
func parseMachine(stat string) (machine, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	const idle, iowait, end = 3, 4, 8
	if len(fields) < 1+end || fields[0] != "cpu" {
		return machine{}, errors.New("/proc/stat: does not begin with the time of all processors")
	}
	var m machine
	for i, field := range fields[1 : 1+end] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return machine{}, fmt.Errorf("/proc/stat: %w", err)
		}
		m.all += time.Duration(n) * time.Second / ticks
		if i != idle && i != iowait {
			m.used += time.Duration(n) * time.Second / ticks
		}
	}
	return m, nil
}

// ownCPU is the CPU time of this process.
func ownCPU() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails for wrong arguments only
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// tail keeps the end of what is written to it. It is safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	end []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, b[max(0, len(b)-tailBytes):]...)
	t.end = append(t.end[:0], t.end[max(0, len(t.end)-tailBytes):]...)
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.end))
}
