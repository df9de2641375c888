// Package testlog holds what a program logs, for tests that read it while it is written. Only tests may import it.
package testlog

import (
	"bytes"
	"sync"
)

// Lines is a log. The zero value is empty and ready for use, by several goroutines at once; it must not be copied.
type Lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer. It never fails.
func (l *Lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was written so far.
func (l *Lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
