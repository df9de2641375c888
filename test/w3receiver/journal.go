package w3receiver

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// entry is one line of the journal: an event that was received, or received again.
type entry struct {
	Key      string `json:"key"`
	Subject  string `json:"subject"`
	Sequence int64  `json:"sequence"`
	Kind     string `json:"kind"`
	// Body is the SHA-256 of the body.
	Body string `json:"body"`
	// AbsorbedBy is the call that the subject is said to be a part of; empty if it is not.
	AbsorbedBy string `json:"absorbedBy,omitempty"`
}

// journal is a file to which lines are added. It is safe for concurrent use.
type journal struct {
	mu      sync.Mutex
	file    *os.File // nil: nothing is kept
	written int64    // bytes
	// syncing is held by who syncs; synced is how many bytes are known to be on the disk.
	syncing sync.Mutex
	synced  int64
}

// openJournal opens a file, gives each line of it to read, and cuts off a last line that is not whole: nobody was
// answered for that one.
func openJournal(name string, read func(entry)) (*journal, error) {
	if name == "" {
		return &journal{}, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the caller names his own
	if err != nil {
		return nil, err
	}
	j := &journal{file: f}
	if err := j.load(read); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return j, nil
}

func (j *journal) load(read func(entry)) error {
	r := bufio.NewReader(j.file)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		var e entry
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return fmt.Errorf("the state is not ours: %w", err)
		}
		read(e)
		j.written += int64(len(line))
	}
	j.synced = j.written
	if err := j.file.Truncate(j.written); err != nil {
		return err
	}
	_, err := j.file.Seek(j.written, io.SeekStart)
	return err
}

// add adds a line and returns the end of it, for commit.
func (j *journal) add(e entry) (end int64, err error) {
	if j.file == nil {
		return 0, nil
	}
	line, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	n, err := j.file.Write(append(line, '\n'))
	j.written += int64(n)
	return j.written, err
}

// commit returns when everything up to an end is on the disk. Of many who wait, one syncs for all.
func (j *journal) commit(end int64) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if j.synced >= end {
		return nil
	}
	j.mu.Lock()
	written := j.written
	j.mu.Unlock()
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.synced = written
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
