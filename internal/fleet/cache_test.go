package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// A switch that keeps users though it is not said to is found out, when it is connected to and later. One that is said
// to is left what it keeps.
func TestUsersKeptBySwitchThatIsNotSaidTo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.options.Patrol = 20 * time.Millisecond
	s.put(t, "fs1", "fs1:8021", false)
	s.put(t, "fs2", "fs2:8021", true)
	s.at("fs1:8021").kept.Store(3)
	s.at("fs2:8021").kept.Store(3)
	s.run(t)
	s.expectConnected(t, "fs1:8021")
	s.expectConnected(t, "fs2:8021")
	// Of the first switch only.
	counted := func(entries int) func() error {
		return func() error {
			const name = "edgvoip_node_unmarked_cached_users_total"
			return testutil.GatherAndCompare(s.registry, strings.NewReader(fmt.Sprintf(`
# HELP %[1]s Entries found in the switch's cache of users although the node is not marked -caches-users.
# TYPE %[1]s counter
%[1]s{node="fs1"} %[2]d
`, name, entries)), name)
		}
	}
	eventually(t, counted(3))
	s.at("fs1:8021").kept.Store(2)
	eventually(t, counted(5))
	if n := s.at("fs2:8021").kept.Load(); n != 3 {
		t.Errorf("a switch that is said to keep users has %d entries left of 3", n)
	}
}
