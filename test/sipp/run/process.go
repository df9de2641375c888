package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that runs until it is stopped.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done is closed
}

// stopTime is what a program gets to end by itself.
const stopTime = 10 * time.Second

// command prepares a program in a directory, its output in the file "name.out" there, which closeOutput closes.
func command(ctx context.Context, dir, name string, env []string, program string, args ...string) (*exec.Cmd, error) {
	out, err := os.Create(filepath.Join(dir, filepath.Base(name)+".out")) //nolint:gosec // a file of our own
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the programs under test
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), out, out
	return cmd, nil
}

// start starts a program that cannot outlive this one: the kernel kills it with the thread that started it, which
// therefore lives as long as the program.
func start(name string, cmd *exec.Cmd) (*process, error) {
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(p.done)
		err := cmd.Start()
		closeOutput(cmd) // the program has its own
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func closeOutput(cmd *exec.Cmd) {
	if f, ok := cmd.Stdout.(*os.File); ok {
		f.Close()
	}
}

// ended returns an error if the program runs no more.
func (p *process) ended() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s ended: %s", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

func (p *process) output() string {
	if f, ok := p.cmd.Stdout.(*os.File); ok {
		return f.Name()
	}
	return ""
}

// stop ends the program with a signal, and kills it when that takes too long.
func (p *process) stop(s syscall.Signal) {
	_ = p.cmd.Process.Signal(s)
	select {
	case <-p.done:
	case <-time.After(stopTime):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// clockTick is the unit of processor time in /proc, on every Linux (proc_pid_stat(5), CLK_TCK).
const clockTick = 10 * time.Millisecond

// cpu is the processor time that the program has used so far, in user and kernel mode.
func (p *process) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(string(b))
}

// parseCPU reads a line of /proc/PID/stat (proc_pid_stat(5)). The second field is a name in parentheses, which may hold
// anything; utime and stime are the 14th and 15th.
func parseCPU(stat string) (time.Duration, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, errors.New("not a line of /proc/PID/stat")
	}
	user, err1 := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}

// machineTime is the processor time of the whole machine since it started, in clock ticks.
type machineTime struct{ used, idle int64 }

func readMachineTime() (machineTime, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineTime{}, err
	}
	return parseMachineTime(string(b))
}

// parseMachineTime reads the first line of /proc/stat (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq
// and steal, and two more that are part of the first two.
func parseMachineTime(stat string) (m machineTime, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return m, errors.New("not /proc/stat")
	}
	for i, f := range fields[1:9] {
		n, e := strconv.ParseInt(f, 10, 64)
		err = errors.Join(err, e)
		if i == 3 || i == 4 {
			m.idle += n
		} else {
			m.used += n
		}
	}
	return m, err
}

// busySince is the share of the time since before that was used.
func (m machineTime) busySince(before machineTime) float64 {
	used, idle := m.used-before.used, m.idle-before.idle
	return float64(used) / float64(max(used+idle, 1))
}

// tail returns the end of a file, for the message about a program that did not do its work.
func tail(file string) string {
	b, err := os.ReadFile(file) //nolint:gosec // a file of our own
	if err != nil {
		return err.Error()
	}
	const most = 4000
	return string(b[max(0, len(b)-most):])
}

// eventually asks again and again until there is no error, for as long as limit.
func eventually(ctx context.Context, limit time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// ports hands out ports that are free for UDP and TCP, each once.
type ports struct{ taken map[int]bool }

func (p *ports) free(ctx context.Context) (int, error) {
	for range 100 {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return 0, err
		}
		address, _ := l.Addr().(*net.TCPAddr)
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: address.IP, Port: address.Port})
		l.Close()
		if err != nil {
			continue
		}
		if err := u.Close(); err != nil {
			return 0, err
		}
		if !p.taken[address.Port] {
			p.taken[address.Port] = true
			return address.Port, nil
		}
	}
	return 0, errors.New("no free port")
}

// bound tells whether somebody has a UDP port, without taking it (proc_net(5)).
func bound(port int) (bool, error) {
	b, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		return false, err
	}
	return strings.Contains(string(b), fmt.Sprintf(":%04X 0", port)), nil
}
