package records_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/records"
)

// A recording is ready when nobody has written to its file for a while; without one it is lost after a day. A file that
// was given up is removed, or away for a week. One that was lost is found when it comes. What is no file of the
// directory is none.
func TestRecordings(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside.wav")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"complete", "growing", "given-up", "found"} {
		write(filepath.Join(dir, name+".wav"), "RIFF")
	}
	write(filepath.Join(dir, "empty.wav"), "")
	write(outside, "RIFF")
	if err := os.Symlink(outside, filepath.Join(dir, "link.wav")); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		files, err := records.OpenFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = files.Close() }()
		now := time.Now() // the bubble's
		for _, name := range []string{"complete", "empty", "given-up", "found"} {
			if err := os.Chtimes(filepath.Join(dir, name+".wav"), now.Add(-time.Minute), now.Add(-time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(filepath.Join(dir, "growing.wav"), now.Add(time.Hour), now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		of := func(name string, age time.Duration) cdr.Recording {
			return cdr.Recording{TenantID: tenant, Start: now.Add(-age), Path: name + ".wav"}
		}
		s := &still{recordings: map[cdr.RecordingState][]cdr.Recording{
			cdr.RecordingExpected: {
				of("complete", time.Hour), of("growing", time.Hour), of("empty", time.Hour), of("empty", 25*time.Hour), of("missing", time.Hour),
				of("missing", 25*time.Hour), of("link", 25*time.Hour), of("../"+filepath.Base(filepath.Dir(outside))+"/outside", time.Hour),
			},
			cdr.RecordingRemoved: {of("given-up", time.Hour), of("not-yet-there", time.Hour), of("never-there", 8*24*time.Hour)},
			cdr.RecordingLost:    {of("found", 48*time.Hour), of("missing", 48*time.Hour)},
		}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		records.New(records.Options{
			Store: s, Files: files, URL: func(r cdr.Recording) string { return "https://api.example/" + r.Path }, Registry: prometheus.NewRegistry(), Log: quietly,
		}).Run(ctx)
		slices.Sort(s.became)
		want := []string{
			"gone given-up.wav", "gone never-there.wav", "lost empty.wav", "lost link.wav", "lost missing.wav", "ready complete.wav https://api.example/complete.wav",
			"ready found.wav https://api.example/found.wav",
		}
		if !slices.Equal(s.became, want) {
			t.Errorf("became %q, want %q", s.became, want)
		}
		if _, err := os.Stat(filepath.Join(dir, "given-up.wav")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file that was given up: %v", err)
		}
		f, info, err := files.Open("complete.wav")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if text, err := io.ReadAll(f); string(text) != "RIFF" || info.Size() != 4 || err != nil {
			t.Errorf("%q, %v", text, err)
		}
		for _, path := range []string{"missing.wav", "link.wav", "."} {
			if _, _, err := files.Open(path); !errors.Is(err, cdr.ErrNotReady) {
				t.Errorf("%s opened: %v", path, err)
			}
		}
		if _, _, err := files.Open("../" + filepath.Base(filepath.Dir(outside)) + "/outside.wav"); err == nil {
			t.Error("a file outside of the directory is opened")
		}
	})
}

// A directory that is empty says nothing of files: its disk may not be mounted.
func TestRecordingsWithoutDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		files, err := records.OpenFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = files.Close() }()
		old := cdr.Recording{TenantID: tenant, Start: time.Now().Add(-8 * 24 * time.Hour), Path: "old.wav"}
		s := &still{recordings: map[cdr.RecordingState][]cdr.Recording{cdr.RecordingExpected: {old}, cdr.RecordingRemoved: {old}}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		records.New(records.Options{Store: s, Files: files, Registry: prometheus.NewRegistry(), Log: quietly}).Run(ctx)
		if len(s.became) > 0 {
			t.Errorf("became %q", s.became)
		}
	})
}

// A disk that is mounted on the directory after the start is seen at once, as the path leads somewhere else then. One that is mounted no
// more is missed, and nothing is taken for lost.
func TestDiskMountedLater(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, disk, aside := filepath.Join(base, "recordings"), filepath.Join(base, "disk"), filepath.Join(base, "aside")
	for _, d := range []string{dir, disk} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "old.wav"), []byte("RIFF"), 0o600); err != nil {
		t.Fatal(err)
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	files, err := records.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.Close() }()
	expect := func(ready bool) {
		t.Helper()
		f, _, err := files.Open("old.wav")
		if err == nil {
			_ = f.Close()
		}
		if ready && err != nil || !ready && !errors.Is(err, cdr.ErrNotReady) {
			t.Errorf("opened: %v", err)
		}
	}
	expect(false)
	move(dir, aside)
	if _, _, err := files.Open("old.wav"); err == nil || errors.Is(err, cdr.ErrNotReady) {
		t.Errorf("without a directory: %v", err)
	}
	if there, err := files.Remove("old.wav"); there || err == nil {
		t.Errorf("removed without a directory: %v, %v", there, err)
	}
	move(disk, dir)
	expect(true)
	move(dir, disk)
	move(aside, dir)
	expect(false)
	synctest.Test(t, func(t *testing.T) {
		old := cdr.Recording{TenantID: tenant, Start: time.Now().Add(-8 * 24 * time.Hour), Path: "old.wav"}
		s := &still{recordings: map[cdr.RecordingState][]cdr.Recording{cdr.RecordingExpected: {old}, cdr.RecordingRemoved: {old}}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		records.New(records.Options{Store: s, Files: files, Registry: prometheus.NewRegistry(), Log: quietly}).Run(ctx)
		if len(s.became) > 0 {
			t.Errorf("became %q", s.became)
		}
	})
	if err := files.Close(); err != nil {
		t.Error(err)
	}
}

// A file that is missing while its disk is not mounted yet is not given up once the disk is there.
func TestDiskMountedMeanwhile(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, disk := filepath.Join(base, "recordings"), filepath.Join(base, "disk")
	for _, d := range []string{dir, disk} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(disk, "old.wav"), []byte("RIFF"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := records.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = files.Close() }()
	if there, err := files.Remove("old.wav"); there || err != nil {
		t.Fatalf("removed: %v, %v", there, err)
	}
	if err := errors.Join(os.Rename(dir, filepath.Join(base, "aside")), os.Rename(disk, dir)); err != nil {
		t.Fatal(err)
	}
	if err := files.Trust("old.wav"); err == nil {
		t.Error("given up, and it is there")
	}
	if err := files.Trust("other.wav"); err != nil {
		t.Errorf("one that is nowhere: %v", err)
	}
}
