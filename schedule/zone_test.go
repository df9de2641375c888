package schedule_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/schedule"
)

// Names of zones are IANA's, and nothing else that a machine may have a file for.
func TestLoadZone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Europe/Rome", "America/Argentina/Buenos_Aires", "Asia/Kolkata", "Pacific/Chatham", "UTC", "Etc/GMT+5"} {
		l, err := schedule.LoadZone(name)
		if err != nil || l.String() != name {
			t.Errorf("%s: %v, %v", name, l, err)
		}
		if again, err := schedule.LoadZone(name); err != nil || again != l {
			t.Errorf("%s is read twice: %v", name, err)
		}
	}
	for _, name := range []string{
		"", "Local", "localtime", "posixrules", "Factory", "right/Europe/Rome", "posix/Europe/Rome", "Europe", "Europe/", "europe/rome", "Europe/Nowhere",
		"../zoneinfo/Europe/Rome", "/usr/share/zoneinfo/Europe/Rome", "zone.tab", "tzdata.zi", "leapseconds", "Europe/Rome\x00",
	} {
		if l, err := schedule.LoadZone(name); !errors.Is(err, schedule.ErrZone) {
			t.Errorf("%q: %v, %v", name, l, err)
		}
	}
}

// What the machine has does not matter: here a process to which Rome is on UTC.
func TestZonesAreCompiledIn(t *testing.T) {
	if os.Getenv("ZONEINFO") == "" {
		dir := t.TempDir()
		// No transitions, one type of local time, four bytes of its name (RFC 8536).
		utc := "TZif" + strings.Repeat("\x00", 16+4*4) + "\x00\x00\x00\x01" + "\x00\x00\x00\x04" + strings.Repeat("\x00", 6) + "UTC\x00"
		if err := errors.Join(os.Mkdir(filepath.Join(dir, "Europe"), 0o700), os.WriteFile(filepath.Join(dir, "Europe", "Rome"), []byte(utc), 0o600)); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestZonesAreCompiledIn$", "-test.v")
		cmd.Env = append(os.Environ(), "ZONEINFO="+dir)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	machines, err1 := time.LoadLocation("Europe/Rome")
	rome, err2 := schedule.LoadZone("Europe/Rome")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	if got, want := at.In(machines).Format("15:04"), "09:00"; got != want {
		t.Fatalf("to the machine it is %s, which is not what this test needs", got)
	}
	if got, want := at.In(rome).Format("15:04"), "10:00"; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
}
