package readmodel

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A snapshot is written to a file beside the one that it replaces, of the same name with a dot and a random number
// behind it. Whoever writes holds a lock on the file, which the system takes from him when he ends, killed or not: so
// one that nobody holds is left over, also where several processes keep snapshots in one place.

// unfinished is in no name that an operator gives.
const unfinished = ".unfinished-"

// createBeside creates a file to write to, and locks it until it is closed. Where there are no locks nobody takes it
// for a leftover either.
func createBeside(path string) (*os.File, error) {
	for {
		f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+unfinished+"*")
		if err != nil {
			return nil, err
		}
		locked, lockErr := lock(f)
		if _, err := os.Lstat(f.Name()); err == nil && (locked || lockErr != nil) {
			return f, nil
		}
		// Before it was locked somebody took it for a leftover, and has removed it or is about to.
		_ = f.Close()
	}
}

// removeLeftovers removes what nobody writes to any more.
func removeLeftovers(path string) error {
	dir, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, entry := range dir {
		number, ok := strings.CutPrefix(entry.Name(), filepath.Base(path)+unfinished)
		if !ok || number == "" || strings.Trim(number, "0123456789") != "" || !entry.Type().IsRegular() {
			continue
		}
		if removeErr := removeLeftover(filepath.Join(filepath.Dir(path), entry.Name())); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
	}
	return err
}

func removeLeftover(path string) error {
	f, err := os.Open(path) //nolint:gosec // a file beside the one that the operator names
	if err != nil {
		return err
	}
	defer f.Close()
	locked, err := lock(f)
	if err != nil || !locked {
		return err
	}
	return os.Remove(path)
}

// lock locks a file, unless somebody else has, until it is closed.
func lock(f *os.File) (locked bool, err error) {
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, nil
	case err != nil:
		return false, &fs.PathError{Op: "lock", Path: f.Name(), Err: err}
	}
	return true, nil
}
