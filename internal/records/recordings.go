package records

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/edgvoip/edgvoip/cdr"
)

// Files is a directory of recordings. It is safe for concurrent use.
type Files struct{ root *os.Root }

// OpenFiles opens a directory of recordings. Nothing outside of it can be reached, by whatever name or link.
func OpenFiles(dir string) (*Files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Files{root}, nil
}

// Open opens a recording to be read, and tells what it is. Error: cdr.ErrNotReady for what is no file.
func (f *Files) Open(path string) (*os.File, fs.FileInfo, error) {
	// Not opened before it is known to be a file: a pipe would wait for a writer.
	info, err := f.stat(path)
	if err != nil {
		return nil, nil, err
	}
	file, err := f.root.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("open recording: %w", err)
	}
	return file, info, nil
}

func (f *Files) stat(path string) (fs.FileInfo, error) {
	info, err := f.root.Lstat(path)
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

// Remove removes a recording; one that is not there is no error.
func (f *Files) Remove(path string) error {
	if err := f.root.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove recording: %w", err)
	}
	return nil
}

// Close ends the use of the directory.
func (f *Files) Close() error { return f.root.Close() }

// A file is complete when nobody has written to it for a while, and does not come any more a day after its call began.
const (
	quiet    = 2 * time.Second
	lostAge  = 24 * time.Hour
	pageSize = 500
)

// look looks for the files of recordings that are expected.
func (w *Worker) look(ctx context.Context) (more bool, err error) {
	return false, w.each(ctx, cdr.RecordingExpected, func(r cdr.Recording) error {
		info, err := w.opts.Files.stat(r.Path)
		switch {
		case err == nil && info.Size() > 0 && time.Since(info.ModTime()) > quiet:
			return w.opts.Store.RecordingReady(ctx, r, w.opts.URL(r))
		case err != nil && !errors.Is(err, cdr.ErrNotReady):
			return err
		case time.Since(r.Start) > lostAge && (err != nil || info.Size() == 0):
			w.log.WarnContext(ctx, "a recording did not come", "tenant_id", r.TenantID.String(), "call_id", r.CallID.String())
			return w.opts.Store.RecordingLost(ctx, r)
		}
		return nil
	})
}

// remove removes the files of recordings that were given up.
func (w *Worker) remove(ctx context.Context) (more bool, err error) {
	return false, w.each(ctx, cdr.RecordingRemoved, func(r cdr.Recording) error {
		if err := w.opts.Files.Remove(r.Path); err != nil {
			return err
		}
		return w.opts.Store.RecordingGone(ctx, r)
	})
}

// each does something with every recording of a state. One that fails does not keep the others from their turn.
func (w *Worker) each(ctx context.Context, state cdr.RecordingState, f func(cdr.Recording) error) error {
	var after cdr.Recording
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
