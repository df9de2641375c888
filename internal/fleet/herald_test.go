package fleet_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A job may wait for the SIP profile. Whom the next one is about the switch forgets all the same.
func TestForgottenBeforeItsTurn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sw := s.at("fs1:8021")
	goOn := make(chan struct{})
	sw.answers(func(command string) error {
		if strings.HasPrefix(command, "drop ") {
			<-goOn
		}
		return nil
	})
	s.put(t, "fs1", "fs1:8021", true)
	s.run(t)
	t.Cleanup(func() { close(goOn) })
	s.expectConnected(t, "fs1:8021")
	var told []string
	expect := func(command string) {
		t.Helper()
		eventually(t, func() error {
			if told = append(told, sw.takes()...); !slices.Contains(told, command) {
				return fmt.Errorf("told only %q", told)
			}
			return nil
		})
	}
	expect("forget everybody") // as after each connection
	told = nil
	s.suspend(t, "1001")
	expect("drop 1001@tenant-a.example on internal")
	s.suspend(t, "1002")
	expect("forget 1002@tenant-a.example")
	s.exec(t, `UPDATE edgvoip.sip_domains SET status = 'disabled' WHERE realm = 'tenant-a.example'`)
	expect("forget everybody")
	if err := s.idle(t); err == nil {
		t.Error("the first job was done")
	}
}
