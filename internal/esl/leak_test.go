package esl_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/esl"
	"github.com/edgvoip/edgvoip/internal/fakefs"
)

// However connections end or do not come about, a client that has stopped leaves no goroutine, of ours or of eslgo, and
// no open socket. Not in parallel with others, which have goroutines and sockets too.
func TestNothingIsLeft(t *testing.T) {
	sockets := openFiles(t)
	for welcome := fakefs.Normal; welcome <= fakefs.Brief; welcome++ {
		t.Run(fmt.Sprintf("welcome %d", welcome), func(t *testing.T) {
			fake := fakefs.New(t)
			fake.Welcome(welcome)
			startScene(t, fake, func(o *esl.Options) {
				o.DialTimeout, o.CommandTimeout, o.MaxBackoff = 20*time.Millisecond, 20*time.Millisecond, time.Millisecond
			})
			want := 20
			if welcome == fakefs.Normal {
				want = 2
			}
			eventually(t, func() error {
				if n := fake.Accepted(); n < want {
					return fmt.Errorf("%d connections", n)
				}
				return nil
			})
		})
	}
	for fault := fakefs.FIN; fault <= fakefs.Silence; fault++ {
		t.Run(fmt.Sprintf("fault %d", fault), func(t *testing.T) {
			s := newScene(t, func(o *esl.Options) { o.Silence = 50 * time.Millisecond })
			for range 20 {
				before := s.fake.Conns("")
				s.fake.Break(fault, "")
				s.expectLost(t, before)
			}
		})
		t.Run(fmt.Sprintf("fault %d during a command", fault), func(t *testing.T) {
			s := newScene(t, func(o *esl.Options) { o.CommandTimeout = 20 * time.Millisecond })
			s.fake.OnAPI(func(c *fakefs.Conn, _ string) string {
				c.Break(fault)
				return ""
			})
			for range 20 {
				if _, err := s.API(t.Context(), "status"); err == nil {
					t.Fatal("a command that got no reply is successful")
				}
				s.expectUp(t, true)
			}
		})
	}
	eventually(t, func() error {
		if stacks := goroutines("percipia/eslgo", "/internal/esl.", "/internal/fakefs."); len(stacks) > 0 {
			return fmt.Errorf("%d goroutines are left:\n%s", len(stacks), strings.Join(stacks, "\n\n"))
		}
		if n := openFiles(t); n > sockets {
			return fmt.Errorf("%d open files, %d before", n, sockets)
		}
		return nil
	})
}

// goroutines returns the stacks of those goroutines that run some code.
func goroutines(code ...string) []string {
	buffer := make([]byte, 4<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var found []string
	for stack := range strings.SplitSeq(string(buffer), "\n\n") {
		// Tests that have not begun wait in code of this package too.
		runs := func(c string) bool { return strings.Contains(stack, c) && !strings.Contains(stack, "testing.tRunner") }
		if slices.ContainsFunc(code, runs) {
			found = append(found, stack)
		}
	}
	return found
}

// openFiles counts the files and sockets of this process, where the system tells.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if os.IsNotExist(err) {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
