package fleet_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/node"
)

// A switch that was disabled while a password changed drops the registration that the old one made, which no watch
// could tell from another.
func TestPasswordChangedWhileDisabled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "fs1", "fs1:8021", false)
	s.run(t)
	s.expectConnected(t, "fs1:8021")
	s.at("fs1:8021").registers(seen("1001@tenant-a.example", "1001@tenant-a.example"))
	active := func(on bool) {
		if _, err := s.nodes.Change(t.Context(), "fs1", node.Change{Active: &on}, "test"); err != nil {
			t.Fatal(err)
		}
	}
	active(false)
	eventually(t, func() error {
		if s.at("fs1:8021").connected() != nil {
			return errors.New("still connected")
		}
		return nil
	})
	subject := storetest.ExtensionID("tenant-a.example", "1001").String()
	s.exec(t, `UPDATE edgvoip.sip_extensions SET ha1_md5_sealed = ha1_md5_sealed || '\x00', ha1_sha256_sealed = ha1_sha256_sealed || '\x00' WHERE id = $1`, subject)
	if told := s.at("fs1:8021").takes(); len(told) > 0 {
		t.Errorf("told %q while it was disabled", told)
	}
	s.expectState(t, subject, "fs1 pending")
	active(true)
	s.expectState(t, subject, "fs1 done")
	if told := s.at("fs1:8021").takes(); !slices.Contains(told, "drop 1001@tenant-a.example on internal") {
		t.Errorf("told %q", told)
	}
}
