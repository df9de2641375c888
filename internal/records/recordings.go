package records

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
)

// Files is a directory of recordings. It is safe for concurrent use. It goes by its path: a disk that is mounted there later is the
// directory from then on.
type Files struct {
	dir string

	mu   sync.RWMutex // guards what follows; held for reading by whoever uses root
	root *os.Root
	info fs.FileInfo // of root
}

// OpenFiles opens a directory of recordings. Nothing outside of it can be reached, by whatever name or link.
func OpenFiles(dir string) (*Files, error) {
	root, info, err := openRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Files{dir: dir, root: root, info: info}, nil
}

func openRoot(dir string) (*os.Root, fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	info, err := root.Stat(".")
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return root, info, nil
}

// hold returns what the path leads to now, which stays open until it is released.
func (f *Files) hold() (root *os.Root, release func(), err error) {
	if err := f.follow(); err != nil {
		// Not wrapped: a directory that does not exist is not taken for a file that does not.
		return nil, nil, fmt.Errorf("directory of recordings: %s", err.Error())
	}
	f.mu.RLock()
	return f.root, f.mu.RUnlock, nil
}

// follow opens the directory anew if the path leads to another one than before.
func (f *Files) follow() error {
	now, err := os.Stat(f.dir)
	if err != nil {
		return err
	}
	f.mu.RLock()
	same := os.SameFile(now, f.info)
	f.mu.RUnlock()
	if same {
		return nil
	}
	root, info, err := openRoot(f.dir)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.root
	f.root, f.info = root, info
	return before.Close()
}

// Open opens a recording to be read, and tells what it is. Error: cdr.ErrNotReady for what is no file.
func (f *Files) Open(path string) (*os.File, fs.FileInfo, error) {
	root, release, err := f.hold()
	if err != nil {
		return nil, nil, err
	}
	defer release()
	// Not opened before it is known to be a file: a pipe would wait for a writer.
	info, err := stat(root, path)
	if err != nil {
		return nil, nil, err
	}
	file, err := root.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open recording: %w", err)
	}
	return file, info, nil
}

// stat tells what a recording is. Error: cdr.ErrNotReady for what is no file.
func (f *Files) stat(path string) (fs.FileInfo, error) {
	root, release, err := f.hold()
	if err != nil {
		return nil, err
	}
	defer release()
	return stat(root, path)
}

func stat(root *os.Root, path string) (fs.FileInfo, error) {
	info, err := root.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, cdr.ErrNotReady
	case err != nil:
		return nil, fmt.Errorf("recording: %w", err)
	case !info.Mode().IsRegular():
		return nil, cdr.ErrNotReady
	}
	return info, nil
}

// Remove removes a recording, and tells whether there was one.
func (f *Files) Remove(path string) (there bool, err error) {
	root, release, err := f.hold()
	if err != nil {
		return false, err
	}
	defer release()
	if err := root.Remove(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("remove recording: %w", err)
	}
	return true, nil
}

// errNoDisk means that what is not in the directory may be somewhere else.
var errNoDisk = errors.New("the directory of recordings is empty, as one is whose disk is not mounted: mount it")

// errCame means that a disk was mounted since a file was not there.
var errCame = errors.New("a recording has come that was missing a moment ago")

// trust returns nil if a file that was not in the directory is nowhere, as far as can be told. It looks for it once more, as the
// directory may be another by now.
func (f *Files) trust(missing string) error {
	root, release, err := f.hold()
	if err != nil {
		return err
	}
	defer release()
	if info, err := stat(root, missing); err == nil && info.Size() > 0 {
		return errCame
	} else if err != nil && !errors.Is(err, cdr.ErrNotReady) {
		return err
	}
	dir, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("directory of recordings: %w", err)
	}
	defer func() { _ = dir.Close() }()
	if _, err := dir.Readdirnames(1); errors.Is(err, io.EOF) {
		return errNoDisk
	} else if err != nil {
		return fmt.Errorf("directory of recordings: %w", err)
	}
	return nil
}

// Close ends the use of the directory.
func (f *Files) Close() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.root.Close()
}

// A file is complete when nobody has written to it for a while, and is lost if it is not there a day after its call
// began. It may come all the same, from a disk that was away: so it is looked for again for a month, and a file that is
// to be removed must have been away for a week.
const (
	quiet    = 2 * time.Second
	lostAge  = 24 * time.Hour
	goneAge  = 7 * 24 * time.Hour
	hopeAge  = 30 * 24 * time.Hour
	pageSize = 500
)

// look looks for the files of recordings that are expected.
func (w *Worker) look(ctx context.Context) (more bool, err error) {
	return false, w.each(ctx, cdr.RecordingExpected, cdr.Recording{}, func(r cdr.Recording) error {
		there, err := w.lookFor(ctx, r)
		if err != nil || there || time.Since(r.Start) <= lostAge {
			return err
		}
		if err := w.opts.Files.trust(r.Path); err != nil {
			return err
		}
		w.log.WarnContext(ctx, "a recording did not come", "tenant_id", r.TenantID.String(), "call_id", r.CallID.String())
		return w.opts.Store.RecordingLost(ctx, r)
	})
}

// lookAgain looks for files that were given up as lost.
func (w *Worker) lookAgain(ctx context.Context) (more bool, err error) {
	return false, w.each(ctx, cdr.RecordingLost, cdr.Recording{Start: time.Now().Add(-hopeAge)}, func(r cdr.Recording) error {
		_, err := w.lookFor(ctx, r)
		return err
	})
}

// lookFor tells whether the file of a recording is there, and has it told if it is complete.
func (w *Worker) lookFor(ctx context.Context, r cdr.Recording) (there bool, err error) {
	info, err := w.opts.Files.stat(r.Path)
	switch {
	case errors.Is(err, cdr.ErrNotReady):
		return false, nil
	case err != nil:
		return false, err
	case info.Size() == 0:
		return false, nil
	case time.Since(info.ModTime()) <= quiet:
		return true, nil
	}
	return true, w.opts.Store.RecordingReady(ctx, r, w.opts.URL(r))
}

// remove removes the files of recordings that were given up.
func (w *Worker) remove(ctx context.Context) (more bool, err error) {
	return false, w.each(ctx, cdr.RecordingRemoved, cdr.Recording{}, func(r cdr.Recording) error {
		there, err := w.opts.Files.Remove(r.Path)
		if err != nil {
			return err
		}
		if !there {
			if time.Since(r.Start) <= goneAge {
				return nil
			}
			if err := w.opts.Files.trust(r.Path); err != nil {
				return err
			}
		}
		return w.opts.Store.RecordingGone(ctx, r)
	})
}

// each does something with every recording of a state, from after one on. One that fails does not keep the others from
// their turn.
func (w *Worker) each(ctx context.Context, state cdr.RecordingState, after cdr.Recording, f func(cdr.Recording) error) error {
	var failures error
	for {
		list, err := w.opts.Store.Recordings(ctx, state, after, pageSize)
		if err != nil {
			return errors.Join(failures, err)
		}
		for _, r := range list {
			if err := f(r); err != nil && failures == nil {
				failures = err
			}
		}
		if len(list) < pageSize {
			return failures
		}
		after = list[len(list)-1]
	}
}
