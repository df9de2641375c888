package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sipp says how SIPp plays a scenario of test/sipp.
type sipp struct {
	scenario string
	port     int // its own
	// Of who calls: the port of the switch, a line for each call (used again from the first when they end), and how
	// many calls at what rate. Who answers has none of these.
	remote      int
	lines       []string
	calls, rate int
	measures    string  // the response time of the scenario that is wanted
	asks        lookups // of each call that is not refused before
	args        []string
}

// result is what SIPp says about its calls.
type result struct {
	calls, succeeded, failed int
	why                      map[string]int // failures by cause
	counted                  map[string]int // what the scenario counts: final answers by status, or INVITEs
	retransmitted            int
	times                    []response
}

// response is one response time: when it ended, on SIPp's own clock, and how long it took, both in milliseconds.
type response struct{ at, took float64 }

// sippRun is a SIPp that runs.
type sippRun struct {
	process  *process
	dir      string
	measures string
}

// scenarioFile is the path of a scenario of test/sipp.
func scenarioFile(name string) (string, error) {
	return filepath.Abs(filepath.Join("test", "sipp", name+".xml"))
}

// startSIPp starts SIPp in a new directory below dir.
func startSIPp(ctx context.Context, dir string, s sipp) (*sippRun, error) {
	scenario, err := scenarioFile(s.scenario)
	if err != nil {
		return nil, err
	}
	r := &sippRun{measures: s.measures}
	if r.dir, err = os.MkdirTemp(dir, s.scenario+"-"); err != nil {
		return nil, err
	}
	args := []string{
		"-sf", scenario, "-i", "127.0.0.1", "-p", strconv.Itoa(s.port), "-mi", "127.0.0.1", "-nostdin", "-timer_resol", "1",
		"-trace_err", "-error_file", "errors", "-trace_stat", "-stf", "statistics.csv", "-fd", "1", "-trace_rtt", "-rtt_freq", "1",
	}
	if s.calls > 0 {
		if err := os.WriteFile(filepath.Join(r.dir, "lines.csv"), []byte("SEQUENTIAL\n"+strings.Join(s.lines, "\n")+"\n"), 0o600); err != nil {
			return nil, err
		}
		limit := s.calls/s.rate + 60
		args = append(args, "127.0.0.1:"+strconv.Itoa(s.remote), "-inf", "lines.csv", "-m", strconv.Itoa(s.calls), "-r", strconv.Itoa(s.rate),
			"-l", strconv.Itoa(s.calls), "-timeout", strconv.Itoa(limit), "-timeout_error")
	}
	cmd, err := command(ctx, r.dir, "sipp", []string{"TERM=dumb"}, "sipp", append(args, s.args...)...)
	if err != nil {
		return nil, err
	}
	if r.process, err = start("sipp "+s.scenario, cmd); err != nil {
		return nil, err
	}
	if s.calls > 0 {
		return r, nil
	}
	err = eventually(ctx, 10*time.Second, func() error {
		if err := r.process.ended(); err != nil {
			return err
		}
		if taken, err := bound(s.port); err != nil || !taken {
			return cmp.Or(err, errors.New("SIPp does not listen"))
		}
		return nil
	})
	if err != nil {
		r.process.stop(syscall.SIGTERM)
		return nil, fmt.Errorf("%w\n%s", err, tail(r.process.output()))
	}
	return r, nil
}

// wait waits for the end of who calls.
func (r *sippRun) wait(ctx context.Context) (result, error) {
	select {
	case <-r.process.done:
		return r.read()
	case <-ctx.Done():
		r.process.stop(syscall.SIGTERM)
		return result{}, ctx.Err()
	}
}

// cpu is the processor time of a SIPp that has ended.
func (r *sippRun) cpu() time.Duration {
	return r.process.cmd.ProcessState.UserTime() + r.process.cmd.ProcessState.SystemTime()
}

// finish ends who answers when his calls have ended.
func (r *sippRun) finish() (result, error) {
	r.process.stop(syscall.SIGUSR1)
	return r.read()
}

// read reads what SIPp has written. A SIPp that could not run has written nothing.
func (r *sippRun) read() (result, error) {
	statistics, err := os.ReadFile(filepath.Join(r.dir, "statistics.csv"))
	if err != nil {
		return result{}, fmt.Errorf("%s: %s\n%s", r.process.name, r.process.cmd.ProcessState, tail(r.process.output()))
	}
	got, err := parseStatistics(string(statistics))
	if err != nil {
		return result{}, fmt.Errorf("%s: %w", r.process.name, err)
	}
	if got.failed > 0 {
		problems, err := os.ReadFile(filepath.Join(r.dir, "errors"))
		if err != nil {
			return got, err
		}
		addUnexpected(got.why, string(problems))
	}
	if r.measures == "" {
		return got, nil
	}
	times, err := filepath.Glob(filepath.Join(r.dir, "*_rtt.csv"))
	if err != nil || len(times) != 1 {
		return got, errors.Join(err, fmt.Errorf("%s: %d files of response times", r.process.name, len(times)))
	}
	b, err := os.ReadFile(times[0])
	if err != nil {
		return got, err
	}
	got.times, err = parseTimes(string(b), r.measures)
	return got, err
}

// parseStatistics reads SIPp's -trace_stat file: a header and a line a second, the last of which has the totals.
func parseStatistics(file string) (result, error) {
	r := csv.NewReader(strings.NewReader(file))
	r.Comma, r.FieldsPerRecord, r.LazyQuotes = ';', -1, true
	lines, err := r.ReadAll()
	if err != nil || len(lines) < 2 {
		return result{}, fmt.Errorf("statistics of %d lines, %w", len(lines), err)
	}
	total := map[string]string{}
	for i, value := range lines[len(lines)-1] {
		if i < len(lines[0]) {
			total[lines[0][i]] = value
		}
	}
	number := func(name string) int {
		n, e := strconv.Atoi(total[name])
		if e != nil {
			err = fmt.Errorf("statistics: %s is %q", name, total[name])
		}
		return n
	}
	got := result{
		calls: number("TotalCallCreated"), succeeded: number("SuccessfulCall(C)"), failed: number("FailedCall(C)"),
		retransmitted: number("Retransmissions(C)"), why: map[string]int{}, counted: map[string]int{},
	}
	for name := range total {
		cause, cumulative := strings.CutSuffix(name, "(C)")
		if !cumulative {
			continue
		}
		if cause, ok := strings.CutPrefix(cause, "Failed"); ok && cause != "Call" {
			if n := number(name); n > 0 {
				got.why[cause] = n
			}
		}
		if counter, ok := strings.CutPrefix(cause, "SIP "); ok {
			if n := number(name); n > 0 {
				got.counted[counter] = n
			}
		}
	}
	return got, err
}

var unexpected = regexp.MustCompile(`received 'SIP/2\.0 ([^\r\n']*)|received '([A-Z]+) `)

// addUnexpected adds what came instead of what was expected, from SIPp's -trace_err file.
func addUnexpected(why map[string]int, problems string) {
	for _, m := range unexpected.FindAllStringSubmatch(problems, -1) {
		why["received "+m[1]+m[2]]++
	}
}

// parseTimes reads the response times of a name from SIPp's -trace_rtt file: a header, and for each its end, its length
// and the name.
func parseTimes(file, name string) ([]response, error) {
	var times []response
	for i, line := range strings.Split(strings.TrimSpace(file), "\n") {
		fields := strings.Split(line, ";")
		if i == 0 || len(fields) == 3 && fields[2] != name {
			continue
		}
		if len(fields) != 3 {
			return nil, fmt.Errorf("response times: %q", line)
		}
		at, err1 := strconv.ParseFloat(fields[0], 64)
		took, err2 := strconv.ParseFloat(fields[1], 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("response times: %w", err)
		}
		times = append(times, response{at, took})
	}
	return times, nil
}
