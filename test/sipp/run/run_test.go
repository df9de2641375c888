package main

import (
	"context"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-quick", "-calls", "7", "-env", "LOG_LEVEL=debug", "-env", "A=b=c"}, &strings.Builder{})
	if err != nil || o.rounds != 1 || o.load.calls != 7 || o.load.extensions != quick.extensions || o.env.String() != "LOG_LEVEL=debug A=b=c" {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := parse(nil, &strings.Builder{}); err != nil || o.rounds != 3 || o.load != whole || o.strict {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{{"-env", "x"}, {"-env", "=x"}, {"-rounds", "-1"}, {"-storm", "-1s"}, {"more"}} {
		if _, err := parse(args, &strings.Builder{}); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

// Without a switch there is nothing to do, which is said and is no failure.
func TestNoSwitch(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var out strings.Builder
	if err := run(t.Context(), nil, func(string) string { return "" }, &out, &out); err != nil || !strings.Contains(out.String(), "no freeswitch in PATH") {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestParseCPU(t *testing.T) {
	t.Parallel()
	got, err := parseCPU("12 (a ) b) S 1 12 12 0 -1 4194560 90 0 0 0 250 31 0 0 20 0 5 0 1 2 3")
	if err != nil || got != 2810*time.Millisecond {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := parseCPU("12 (a) S 1"); err == nil {
		t.Error("a line that is cut off has no error")
	}
	// This process has used some, and can only use more.
	p := &process{cmd: &exec.Cmd{Process: &os.Process{Pid: os.Getpid()}}}
	before, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if after, err := p.cpu(); err != nil || after < before {
		t.Errorf("%s, then %s, %v", before, after, err)
	}
}

func TestParseMachineTime(t *testing.T) {
	t.Parallel()
	m, err := parseMachineTime("cpu  100 1 50 800 20 3 4 2 7 7\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if err != nil || m != (machineTime{used: 160, idle: 820}) {
		t.Errorf("%+v, %v", m, err)
	}
	if busy := m.busySince(machineTime{used: 60, idle: 520}); busy != 0.25 {
		t.Errorf("busy %f", busy)
	}
	if _, err := readMachineTime(); err != nil {
		t.Error(err)
	}
}

func TestParseLookups(t *testing.T) {
	t.Parallel()
	got, err := parseLookups([]byte(`# HELP xmlcurl_lookups_total Lookups answered.
xmlcurl_lookups_total{outcome="found",section="configuration"} 9
xmlcurl_lookups_total{outcome="found",section="directory"} 600
xmlcurl_lookups_total{outcome="unknown_user",section="directory"} 2
xmlcurl_lookups_total{outcome="extension",section="dialplan"} 1.5e+03
xmlcurl_lookup_seconds_count{section="directory"} 602
`))
	if err != nil || got != (lookups{directory: 602, dialplan: 1500}) {
		t.Errorf("%+v, %v", got, err)
	}
}

// What SIPp 3.6.1 writes, shortened.
func TestReadSIPp(t *testing.T) {
	t.Parallel()
	got, err := parseStatistics("StartTime;TotalCallCreated;SuccessfulCall(P);SuccessfulCall(C);FailedCall(P);FailedCall(C);FailedMaxUDPRetrans(C);" +
		"FailedUnexpectedMessage(C);Retransmissions(C);SIP 200(P);SIP 200(C);SIP 486(C);\n" +
		"2026-11-20\t21:26:05;4;4;4;0;0;0;0;0;4;4;0;\n" +
		"2026-11-20\t21:26:06;10;3;7;3;3;1;2;5;1;5;2;\n")
	if err != nil || got.calls != 10 || got.succeeded != 7 || got.failed != 3 || got.retransmitted != 5 {
		t.Errorf("%+v, %v", got, err)
	}
	if want := map[string]int{"200": 5, "486": 2}; !maps.Equal(got.counted, want) {
		t.Errorf("counted %v, want %v", got.counted, want)
	}
	addUnexpected(got.why, "Aborting call on unexpected message for Call-Id '1': while expecting '200' (index 4), received 'SIP/2.0 403 Forbidden\r\nVia: x'\n"+
		"while expecting '200' (index 4), received 'BYE sip:x SIP/2.0\r\n'")
	if want := map[string]int{"MaxUDPRetrans": 1, "UnexpectedMessage": 2, "received 403 Forbidden": 1, "received BYE": 1}; !maps.Equal(got.why, want) {
		t.Errorf("why %v, want %v", got.why, want)
	}
	for _, cut := range []string{"", "TotalCallCreated;\n", "TotalCallCreated;\n1;\n"} {
		if _, err := parseStatistics(cut); err == nil {
			t.Errorf("%q has no error", cut)
		}
	}

	times, err := parseTimes("Date_ms;response_time_ms;rtd_no\n12.001;0;challenge\n16.001;4;register\n1016.001;12;register\n2016.001;8;register\n", "register")
	if err != nil || len(times) != 3 || times[1] != (response{1016.001, 12}) {
		t.Errorf("%v, %v", times, err)
	}
	if r := rate(times); r != 1 {
		t.Errorf("rate %f", r)
	}
	if _, err := parseTimes("Date_ms;response_time_ms;rtd_no\n12.001;0", "register"); err == nil {
		t.Error("a line that is cut off has no error")
	}
}

func TestQuantile(t *testing.T) {
	t.Parallel()
	var times []response
	for i := range 200 {
		times = append(times, response{took: float64(200 - i)})
	}
	for share, want := range map[float64]float64{0.5: 100, 0.99: 198, 1: 200, 0: 1} {
		if got := quantile(times, share); got != want {
			t.Errorf("quantile %f is %f, want %f", share, got, want)
		}
	}
	if got := quantile(nil, 0.99); got != 0 {
		t.Errorf("of nothing: %f", got)
	}
}

const learntRoute = `<document type="freeswitch/xml">
<section name="dialplan">
<context name="tenant-a">
<extension name="extension">
<condition>
<action application="set" data="edgvoip_tenant_id=f63c1002-f106-1002-902b-3f08f3dd3a7a"/>
<action application="limit" data="hash edgvoip b396a8a3-31d9-5009-b7bd-122a3f79d974 2 !USER_BUSY"/>
<action application="limit" data="hash edgvoip 4caa48c9-6889-5fcb-83f3-06aa3497871f 2 !USER_BUSY"/>
<action application="set" data="effective_caller_id_name=Ext 1001"/>
<action application="set" data="effective_caller_id_number=1001"/>
<action application="bridge" data="{presence_id=1002@tenant-a.example}sofia/internal/1002%tenant-a.example"/>
</condition>
</extension>
</context>
</section>
</document>
`

// The yardstick does what our answer does: the same actions in the same order, and no id is mistaken for a number.
func TestGeneralise(t *testing.T) {
	t.Parallel()
	got, err := generalise([]byte(learntRoute), `^(\d{4})$`, []learnt{
		{"4caa48c9-6889-5fcb-83f3-06aa3497871f", "$1"},
		{"b396a8a3-31d9-5009-b7bd-122a3f79d974", "${edgvoip_extension_id}"},
		{"1002", "$1"},
		{"Ext 1001", "${effective_caller_id_name}"},
		{"1001", "${effective_caller_id_number}"},
	})
	want := `<extension name="learnt">
<condition field="destination_number" expression="^(\d{4})$">
<action application="set" data="edgvoip_tenant_id=f63c1002-f106-1002-902b-3f08f3dd3a7a"/>
<action application="limit" data="hash edgvoip ${edgvoip_extension_id} 2 !USER_BUSY"/>
<action application="limit" data="hash edgvoip $1 2 !USER_BUSY"/>
<action application="set" data="effective_caller_id_name=${effective_caller_id_name}"/>
<action application="set" data="effective_caller_id_number=${effective_caller_id_number}"/>
<action application="bridge" data="{presence_id=$1@tenant-a.example}sofia/internal/$1%tenant-a.example"/>
</condition>
</extension>
`
	if err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	refused := strings.Replace(learntRoute, `application="bridge"`, `application="respond"`, 1)
	if _, err := generalise([]byte(refused), "", nil); err == nil {
		t.Error("a yardstick is made of a refusal")
	}
}

func TestElement(t *testing.T) {
	t.Parallel()
	got, err := element([]byte("<users>\n<user id=\"1\">\n<params/>\n</user>\n</users>\n"), "user")
	if err != nil || got != "<user id=\"1\">\n<params/>\n</user>" {
		t.Errorf("%q, %v", got, err)
	}
	for _, doc := range []string{"<domain/>", "<user id=\"1\"></user><user id=\"2\"></user>"} {
		if _, err := element([]byte(doc), "user"); err == nil {
			t.Errorf("%s has no error", doc)
		}
	}
}

// The empty sections of freeswitch-conf are where the yardstick's go.
func TestIncludeSection(t *testing.T) {
	t.Parallel()
	root, err := os.ReadFile("../../../freeswitch-conf/freeswitch.xml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"directory", "dialplan"} {
		if root, err = includeSection(root, name); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(root), `<section name="`+name) || !strings.Contains(string(root), `data="`+name+`.xml"`) {
			t.Errorf("%s is not replaced:\n%s", name, root)
		}
		if _, err := includeSection(root, name); err == nil {
			t.Errorf("%s is replaced twice", name)
		}
	}
}

func TestParseSessionRate(t *testing.T) {
	t.Parallel()
	peak, limit, err := parseSessionRate("4231 session(s) since startup\n0 session(s) - peak 66, last 5min 66 \n" +
		"3 session(s) per Sec out of max 200, peak 121, last 5min 121 \n")
	if err != nil || peak != 121 || limit != 200 {
		t.Errorf("%d of %d, %v", peak, limit, err)
	}
}

func bad(b *bench) *bench {
	b.problem("%s", "something failed")
	return b
}

// seen is a run with given costs of a registration and given times of a call, in milliseconds, round by round.
func seen(oursCPU, oursTime, staticCPU, staticTime []float64) *bench {
	b := &bench{options: options{rounds: len(oursCPU), strict: true}}
	add := func(k kind, cpu, times []float64) {
		for i := range cpu {
			b.samples = append(b.samples,
				sample{scenario: registering, kind: k, round: i, result: result{calls: 1000}, switchCPU: time.Duration(cpu[i] * float64(time.Second))},
				sample{scenario: internal, kind: k, round: i, result: result{calls: 1, times: []response{{took: times[i]}}}})
		}
	}
	add(ours, oursCPU, oursTime)
	add(yardstick, staticCPU, staticTime)
	return b
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		b    *bench
		want string // of the error; empty if there is none
	}{
		{"as good", seen([]float64{2}, []float64{50}, []float64{2}, []float64{50}), ""},
		{"just within", seen([]float64{2.3}, []float64{55}, []float64{2}, []float64{50}), ""},
		{"the best round counts", seen([]float64{9, 2.1}, []float64{53, 500}, []float64{2, 3}, []float64{51, 50}), ""},
		{"registrations too dear", seen([]float64{2.4}, []float64{50}, []float64{2}, []float64{50}), "switch CPU of a registration"},
		{"calls too slow", seen([]float64{2}, []float64{56}, []float64{2}, []float64{50}), "INVITE to 200"},
		{"a failure", bad(seen([]float64{2}, []float64{50}, []float64{2}, []float64{50})), "1 problem"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := tc.b.verdict()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
	missed := seen([]float64{3}, []float64{90}, []float64{2}, []float64{50})
	missed.strict = false
	if err := missed.verdict(); err != nil {
		t.Errorf("without -strict: %v", err)
	}
	if report := missed.report(); strings.Count(report, "MISSED") != 2 {
		t.Errorf("the report does not say what is missed:\n%s", report)
	}
}

// What must not be there is noted, whichever side it is on.
func TestJudge(t *testing.T) {
	t.Parallel()
	good := result{calls: 2, succeeded: 2, counted: map[string]int{"200": 2}}
	failed := result{calls: 2, succeeded: 1, failed: 1, counted: map[string]int{"200": 2}, why: map[string]int{"MaxUDPRetrans": 1}}
	for _, tc := range []struct {
		name string
		s    sample
		want bool
	}{
		{"all well", sample{kind: ours, result: good, asks: lookups{1, 1}, lookups: lookups{2, 2}}, false},
		{"all well with static XML", sample{kind: yardstick, result: good}, false},
		{"a failed call", sample{kind: yardstick, result: failed}, true},
		{"a refusal", sample{kind: yardstick, result: result{calls: 2, succeeded: 2, counted: map[string]int{"200": 1, "503": 1}}}, true},
		{"a user from a cache", sample{kind: ours, result: good, asks: lookups{1, 1}, lookups: lookups{1, 2}}, true},
		{"a route from a cache", sample{kind: ours, result: good, asks: lookups{1, 1}, lookups: lookups{2, 1}}, true},
		{"a yardstick that asks", sample{kind: yardstick, result: good, lookups: lookups{dialplan: 1}}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			u := &turn{bench: &bench{}}
			u.judge(tc.s, map[string]int{"200": 2})
			if got := len(u.problems) > 0; got != tc.want {
				t.Errorf("problems %v", u.problems)
			}
		})
	}
	u := &turn{bench: &bench{}, fsSwitch: &fsSwitch{kind: ours}}
	u.judgeAnswers(trunkOut, answerer{name: "carrier 2", want: 0}, result{counted: map[string]int{"INVITE": 1}})
	if len(u.problems) != 1 {
		t.Errorf("a call to the wrong carrier: %v", u.problems)
	}
}

func TestEventually(t *testing.T) {
	t.Parallel()
	n := 0
	if err := eventually(t.Context(), time.Minute, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
	never := errors.New("never")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := eventually(ctx, time.Minute, func() error { return never }); !errors.Is(err, never) {
		t.Errorf("%v", err)
	}
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for server, want := range map[string]string{
		"postgres://postgres@/postgres?host=/run/x&port=5432": "postgres://postgres@/load?host=/run/x&port=5432",
		"host=/run/x dbname=postgres":                         "host=/run/x dbname=postgres dbname=load",
	} {
		if got, err := withDatabase(server, "load"); err != nil || got != want {
			t.Errorf("%s: %s, %v", server, got, err)
		}
	}
}

func TestWithoutModule(t *testing.T) {
	t.Parallel()
	modules, err := os.ReadFile("../../../freeswitch-conf/autoload_configs/modules.conf.xml")
	if err != nil {
		t.Fatal(err)
	}
	left, err := withoutModule(string(modules), "mod_json_cdr")
	if err != nil || strings.Contains(left, "mod_json_cdr") || !strings.Contains(left, "mod_sofia") {
		t.Errorf("%v: %s", err, left)
	}
	if _, err := withoutModule(left, "mod_json_cdr"); err == nil {
		t.Error("a module is taken out that is not there")
	}
}
