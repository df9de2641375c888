package readmodel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/feed"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

var somewhere = feed.Position{Mark: feed.Mark{ID: 7, Tx: 9}}

// saved returns a snapshot file of a model.
func saved(t *testing.T, m *readmodel.Model, from feed.Position) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "snapshot")
	if err := m.Save(file, from); err != nil {
		t.Fatal(err)
	}
	return file
}

// heir returns a model that has loaded a snapshot, and its source, which is away.
func heir(t *testing.T, file string, change ...func(*readmodel.Options)) (*readmodel.Model, *source) {
	t.Helper()
	s := newSource(t)
	s.away.Store(true)
	o := readmodel.Options{
		Store: s, Bulk: s, MaxExtensions: 1000, MaxAge: time.Hour, LoadTimeout: 10 * time.Second, MaxLoads: 4, LiveFor: time.Minute,
		Log: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&o)
	}
	m := readmodel.New(o)
	if _, err := m.Load(file); err != nil {
		t.Fatal(err)
	}
	return m, s
}

// What is in doubt is handed on, and in doubt there too: answered without the database, and asked for with it.
func TestSnapshotOfDoubt(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	storetest.Contract(t, m) // knows the scene now
	m.Forget()
	if _, err := extension(t, m, realmA, "1002"); err != nil { // beyond doubt again
		t.Fatal(err)
	}
	h, theirs := heir(t, saved(t, m, somewhere))
	for _, name := range []string{"1001", "1002", "anna.rossi"} {
		if _, err := extension(t, h, realmA, name); err != nil {
			t.Errorf("%s, without the database: %v", name, err)
		}
	}
	if _, err := h.InboundTrunk(t.Context(), storetest.E164("+390612345600")); err != nil {
		t.Errorf("DID: %v", err)
	}
	if _, _, err := h.TenantExtension(t.Context(), storetest.TenantID("tenant-a"), uuid.Nil, storetest.Username("1001")); err != nil {
		t.Errorf("callee: %v", err)
	}
	if _, _, err := h.TenantExtension(t.Context(), storetest.TenantID("tenant-a"), uuid.Nil, storetest.Username("0612345678")); !errors.Is(err, directory.ErrUnknownExtension) {
		t.Errorf("a number that was nobody's: %v", err)
	}

	theirs.away.Store(false)
	h.Synced(time.Now())
	for name, want := range map[string]int64{"1001": 1, "1002": 0} {
		theirs.asked.Store(0)
		if _, err := extension(t, h, realmA, name); err != nil {
			t.Errorf("%s, with the database: %v", name, err)
		}
		if got := theirs.asked.Load(); got != want {
			t.Errorf("%s: the database was asked %d times, want %d", name, got, want)
		}
	}
}

// A name that turns out to be gone while in doubt is not answered when the database goes away after that.
func TestGoneWhileInDoubt(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	s.AddExtension(storetest.Extension("tenant-a", realmA, "1077", "1077"))
	m.Forget()
	if _, err := extension(t, m, realmA, "1077"); err != nil {
		t.Fatal(err)
	}
	// The history in which it was made is lost.
	s.Store = storetest.Scene(t)
	m.Forget()
	if _, err := extension(t, m, realmA, "1077"); !errors.Is(err, directory.ErrUnknownExtension) {
		t.Fatalf("with the database: %v", err)
	}
	outage(s, m)
	if e, err := extension(t, m, realmA, "1077"); err == nil {
		t.Errorf("without the database: %+v", e)
	}
}

// What is in doubt is as old as the last word of the database before the doubt, however often it is handed on since.
func TestDoubtGrowsOld(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	storetest.Contract(t, m)
	m.Synced(time.Now().Add(-50 * time.Minute))
	m.Forget()
	for generation, bound := range []time.Duration{time.Hour, 40 * time.Minute} {
		m.Synced(time.Now())
		h, _ := heir(t, saved(t, m, somewhere), func(o *readmodel.Options) { o.MaxAge = bound })
		_, err := extension(t, h, realmA, "1001")
		if young := bound == time.Hour; young != (err == nil) {
			t.Errorf("generation %d: 50 minutes old, with a bound of %v: %v", generation, bound, err)
		}
		_, err = h.InboundTrunk(t.Context(), storetest.E164("+390612345600"))
		if young := bound == time.Hour; young != (err == nil) {
			t.Errorf("generation %d: DID, 50 minutes old, with a bound of %v: %v", generation, bound, err)
		}
		m = h
	}
}

// Everything that was distrusted is read anew, if it was preloaded before.
func TestPreloadAfterDoubt(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	var preloads atomic.Int64
	m := model(t, s, func(o *readmodel.Options) {
		o.Preload = true
		o.Log = slog.New(counter{slog.DiscardHandler, "preloaded", &preloads})
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		m.Run(ctx)
		close(done)
	}()
	defer func() {
		stop()
		<-done
	}()
	for n := range int64(3) {
		for preloads.Load() <= n {
			time.Sleep(time.Millisecond) // until it has been
		}
		s.asked.Store(0)
		if _, err := extension(t, m, realmA, "1001"); err != nil {
			t.Error(err)
		}
		if got := s.asked.Load(); got != 0 {
			t.Errorf("preloaded %d times, and the database was asked %d times", n+1, got)
		}
		m.Forget()
	}
}

// counter is a log handler that counts a message.
type counter struct {
	slog.Handler
	message string
	count   *atomic.Int64
}

// Enabled implements slog.Handler.
func (counter) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (c counter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == c.message {
		c.count.Add(1)
	}
	return nil
}

// A snapshot without a position is one of what is known too.
func TestSnapshotWithoutPosition(t *testing.T) {
	t.Parallel()
	m := model(t, newSource(t))
	storetest.Contract(t, m)
	h, _ := heir(t, saved(t, m, feed.Position{}))
	h.Forget() // as who follows from nowhere says
	if _, err := extension(t, h, realmA, "1001"); err != nil {
		t.Error(err)
	}
}

// keep keeps snapshots for a time, of which nothing really passes, and returns the error of looking for the file after
// so long.
func keep(t *testing.T, file string, m *readmodel.Model, live bool, long time.Duration) (after, end error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m.Synced(time.Now())
		if !live {
			time.Sleep(30 * time.Minute)
		}
		ctx, stop := context.WithCancel(t.Context())
		go m.KeepSnapshot(ctx, file, 5*time.Minute, func() feed.Position { return feed.Position{} })
		time.Sleep(long)
		synctest.Wait()
		_, after = os.Stat(file)
		stop()
		synctest.Wait()
		_, end = os.Stat(file)
	})
	return after, end
}

// A snapshot is written soon after the start, and at the end, also while the database is away; but not of what nobody
// may be told any more.
func TestKeepSnapshot(t *testing.T) {
	t.Parallel()
	m := model(t, newSource(t), shortLived)
	storetest.Contract(t, m)
	file := filepath.Join(t.TempDir(), "snapshot")
	if after, _ := keep(t, file, m, true, 15*time.Second); after != nil {
		t.Errorf("15 s after the start: %v", after)
	}
	file = filepath.Join(t.TempDir(), "snapshot")
	if _, end := keep(t, file, m, false, time.Second); end != nil {
		t.Errorf("at the end of a process that had never written any, the database away: %v", end)
	}
	file = filepath.Join(t.TempDir(), "snapshot")
	if _, end := keep(t, file, m, false, 0); end != nil {
		t.Errorf("at the end of a process that has just begun: %v", end)
	}
	old := model(t, newSource(t), shortLived, func(o *readmodel.Options) { o.MaxAge = 10 * time.Minute })
	file = filepath.Join(t.TempDir(), "snapshot")
	if _, end := keep(t, file, old, false, time.Hour); !errors.Is(end, os.ErrNotExist) {
		t.Errorf("of what is too old: %v", end)
	}
}

// A trunk in change takes no other trunk out of the snapshot, and stays in change.
func TestSnapshotWhileTrunksChange(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s)
	s.away.Store(true)
	m.Apply([]feed.Change{
		{Subject: feed.SubjectTrunk, Tenant: storetest.TenantID("tenant-a")}, {Subject: feed.SubjectTrunk, Tenant: storetest.TenantID("tenant-c")},
	})
	h, theirs := heir(t, saved(t, m, somewhere))
	for _, number := range []string{"+390612345600", "+390612345700"} {
		if _, err := h.InboundTrunk(t.Context(), storetest.E164(number)); err != nil {
			t.Errorf("DID %s: %v", number, err)
		}
	}
	if _, err := h.TenantTrunks(t.Context(), storetest.TenantID("tenant-c")); err == nil {
		t.Error("a tenant that had no trunk and may have one now is said to have none")
	}
	theirs.away.Store(false)
	h.Synced(time.Now())
	theirs.asked.Store(0)
	if _, err := h.InboundTrunk(t.Context(), storetest.E164("+390612345600")); err != nil || theirs.asked.Load() != 1 {
		t.Errorf("DID of a trunk that has changed: %v; the database was asked %d times", err, theirs.asked.Load())
	}
	if err := h.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.InboundTrunk(t.Context(), storetest.E164("+390612345600")); err != nil || theirs.asked.Load() != 1 {
		t.Errorf("DID, read again: %v; the database was asked %d times", err, theirs.asked.Load())
	}
	if _, err := h.InboundTrunk(t.Context(), storetest.E164("+390699999999")); !errors.Is(err, trunk.ErrUnknownDID) {
		t.Errorf("unknown DID, read again: %v", err)
	}
}

// A file of the version before is refused though it is whole.
func TestSnapshotOfVersionBefore(t *testing.T) {
	t.Parallel()
	m := model(t, newSource(t))
	file := saved(t, m, somewhere)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	body := bytes.Replace(b[:len(b)-sha256.Size], []byte("edgvoip snapshot 5\n"), []byte("edgvoip snapshot 4\n"), 1)
	sum := sha256.Sum256(body)
	if err := os.WriteFile(file, append(body, sum[:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	h := readmodel.New(readmodel.Options{MaxAge: time.Hour, Log: slog.New(slog.DiscardHandler)})
	if _, err := h.Load(file); err == nil {
		t.Error("read as if it were of this version")
	}
	if err := h.Ready(t.Context()); err == nil {
		t.Error("ready")
	}
}

// What a process left that was killed while it saved is removed, and nothing else; not either what another is writing.
func TestSnapshotLeftovers(t *testing.T) {
	t.Parallel()
	m := model(t, newSource(t))
	file := saved(t, m, somewhere)
	writing, err := readmodel.CreateBeside(file)
	if err != nil {
		t.Fatal(err)
	}
	defer writing.Close()
	stays := []string{file, writing.Name(), file + ".bak", file + ".", file + ".1.gz", file + ".20261121", file + ".unfinished-x", filepath.Join(filepath.Dir(file), "other.123")}
	for _, name := range append(stays[2:], file+".unfinished-123456", file+".unfinished-1") {
		if err := os.WriteFile(name, []byte("half a snapshot"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(file+".unfinished-2", 0o700); err != nil {
		t.Fatal(err)
	}
	heir(t, file)
	for _, name := range []string{file + ".unfinished-123456", file + ".unfinished-1"} {
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", filepath.Base(name), err)
		}
	}
	for _, name := range append(stays, file+".unfinished-2") {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s is gone: %v", filepath.Base(name), err)
		}
	}
}

// A snapshot in the middle of which everything is distrusted and read anew is no younger than its beginning: whoever
// loads it and loses the mark trusts nothing of it.
func TestSnapshotDuringDistrust(t *testing.T) {
	t.Parallel()
	m := model(t, newSource(t), func(o *readmodel.Options) { o.MaxExtensions = 100_000 })
	domain := uuid.New()
	m.Fill(domain, 20_000)
	w := &interrupted{at: 2, do: func() { // after the magic and the head
		m.Forget()
		m.Fill(domain, 20_000)
	}}
	if err := readmodel.Write(m, w, somewhere); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "snapshot")
	if err := os.WriteFile(file, w.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	h := model(t, newSource(t), func(o *readmodel.Options) { o.MaxExtensions = 100_000 })
	if _, err := h.Load(file); err != nil {
		t.Fatal(err)
	}
	h.Forget()
	h.Synced(time.Now())
	if kept, trusted := h.Trusted(); kept < 20_000 || trusted > 0 {
		t.Errorf("%d extensions kept, %d of them trusted", kept, trusted)
	}
}

// interrupted is a file during a write of which something happens.
type interrupted struct {
	bytes.Buffer
	writes, at int
	do         func()
}

func (w *interrupted) Write(p []byte) (int, error) {
	if w.writes++; w.writes == w.at {
		w.do()
	}
	return w.Buffer.Write(p)
}
