package xmlcurl_test

import (
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/dialplan"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
	"github.com/edgvoip/edgvoip/schedule"
	"github.com/edgvoip/edgvoip/trunk"
)

const receptionHours = `{"weekly":{"mon":[{"from":"09:00","to":"18:00"}],"fri":[{"from":"22:00","to":"06:00"}],"sun":[{"from":"02:00","to":"03:30"}]},
	"holidays":["12-25"],"exceptions":[{"date":"2026-12-24","windows":[{"from":"08:00","to":"12:00"}]}]}`

// agentScene is the scene with an AI agent on each trunk.
type agentScene struct{ *memstore.Store }

func (s agentScene) AddTrunk(t trunk.Trunk, dids ...trunk.Range) {
	t.AIAgentRef, t.Hours = "reception", schedule.ReadHours(receptionHours, "Europe/Rome")
	s.Store.AddTrunk(t, dids...)
}

// asked is what somebody would ask about a captured call.
func asked(form url.Values, at time.Time) dialplan.Asked {
	a := dialplan.Asked{To: form.Get("Hunt-Destination-Number"), From: form.Get("Hunt-Caller-ID-Number"), At: at, Agents: fstext.Const("127.0.0.1:5090")}
	if user := form.Get("variable_user_name"); user != "" {
		a.From = user + "@" + form.Get("variable_domain_name")
	} else {
		a.Trunk = storetest.TrunkID("tenant-a", "first")
	}
	return a
}

// incidental is what a question cannot know: which channel it will be, and what a caller calls himself.
var incidental = regexp.MustCompile(`X-edgvoip-Call=[0-9a-f-]+|effective_caller_id_name=[^"]*`)

// Whatever the instant, the explanation shows what the switch gets.
func TestExplanationIsTheAnswer(t *testing.T) {
	t.Parallel()
	s := &memstore.Store{}
	storetest.Build(agentScene{s})
	var now time.Time
	server, _ := newServer(t, s, func(o *xmlcurl.Options) {
		o.Now, o.Switch.Agents = func() time.Time { return now }, fstext.Const("127.0.0.1:5090")
	})
	files, err := filepath.Glob("testdata/captured/dialplan-*.form")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d captured calls, %v", len(files), err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	begin, kinds := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), map[dialplan.Kind]int{}
	for _, file := range files {
		if strings.Contains(file, "tenant-b") {
			continue // a phone in another tenant's context, which nobody asks about
		}
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			t.Fatal(err)
		}
		// Only a carrier's call depends on the time.
		instants := 100
		if strings.Contains(file, "external") {
			instants = 10_000
		}
		for range instants {
			now = time.Unix(begin+r.Int64N(3*365*24*3600), 0)
			e, err := dialplan.Ask(t.Context(), s, asked(form, now))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			kinds[e.Kind]++
			live, explained := incidental.ReplaceAllString(lookup(t, server, string(body)), ""), incidental.ReplaceAllString(string(e.Document), "")
			if live != explained {
				t.Fatalf("%s at %s: the switch gets\n%s\nand is explained\n%s", file, now, live, explained)
			}
		}
	}
	if kinds[dialplan.KindAgent] < 1000 || kinds[dialplan.KindExtension] < 1000 {
		t.Errorf("kinds %v: too few of one to mean anything", kinds)
	}
}
