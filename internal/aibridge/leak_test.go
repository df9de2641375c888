package aibridge_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/edgvoip/edgvoip/internal/aibridge"
	"github.com/edgvoip/edgvoip/test/mockgateway"
)

// After many calls, good and bad, there is no goroutine and no socket more than before. It does not run beside other
// tests, whose goroutines it would count.
func TestNothingIsLeft(t *testing.T) { //nolint:paralleltest // see above
	calls := 500
	if testing.Short() {
		calls = 60
	}
	s := newScene(t, func(o *aibridge.Options, _ *mockgateway.Options) { o.ConnectBudget = 10 * time.Second })
	p := newPhone(t, s.bridge.Addr())
	s.many(p, 20) // what is made once is made now
	goroutines, sockets := s.rest(t)
	s.many(p, calls)
	eventually(t, "the calls are over", func() bool { return s.active() == 0 })
	s.gateway.Close()
	var left, open int
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if left, open = s.rest(t); left <= goroutines && open <= sockets || time.Now().After(deadline) {
			break
		}
		<-tick.C
	}
	if left > goroutines || open > sockets {
		var stacks strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("%d goroutines and %d files, %d and %d before\n%s", left, open, goroutines, sockets, stacks.String())
	}
	t.Attr("figure", fmt.Sprintf("%v calls answered; %d goroutines and %d files before and %d and %d after",
		s.counted("caller_hung_up"), goroutines, sockets, left, open))
}

// rest returns how many goroutines and files there are when nothing is kept for later.
func (s *scene) rest(t *testing.T) (goroutines, files int) {
	t.Helper()
	s.client.Close()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return runtime.NumGoroutine(), len(list)
}

// many makes so many calls, ten at the same time: most are ordinary, some go wrong.
func (s *scene) many(p *phone, n int) {
	var workers sync.WaitGroup
	work := make(chan int)
	for range 10 {
		workers.Go(func() {
			for i := range work {
				s.one(p, i)
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	workers.Wait()
}

func (s *scene) one(p *phone, i int) {
	fault := mockgateway.None
	switch i % 20 {
	case 7:
		fault = mockgateway.Refuse
	case 13:
		fault = mockgateway.NoConnect
	case 17:
		fault = mockgateway.HangUp
	}
	l := p.newLeg()
	defer l.close()
	l.send(callOptions{trunk: trunkOf(fault)})
	if fault == mockgateway.NoConnect {
		if session, err := s.gateway.Session(soon(s.t), l.id.String()); err == nil && session != nil {
			l.cancel()
		}
	}
	res, err := l.final(soon(s.t))
	if err != nil {
		s.t.Errorf("call %d: %v", i, err)
		return
	}
	if !res.IsSuccess() {
		if fault == mockgateway.None || fault == mockgateway.HangUp {
			s.t.Errorf("call %d: %d, %s", i, res.StatusCode, reasonOf(res))
		}
		return
	}
	l.media()
	if fault == mockgateway.HangUp {
		if _, err := l.next(soon(s.t), sip.BYE); err != nil {
			s.t.Errorf("call %d: %v", i, err)
		}
		return
	}
	if res := l.request(soon(s.t), sip.BYE, ""); res.StatusCode != 200 {
		s.t.Errorf("call %d: BYE was answered %d", i, res.StatusCode)
	}
}
