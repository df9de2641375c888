package testdb

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Cluster is a PostgreSQL server of a test's own, to be killed: what was committed is there when it comes back. Its
// methods fail the test if they cannot do what they say; they are not for concurrent use.
type Cluster struct {
	// DSN is the connection string of an empty database, the same after each start.
	DSN string

	t           testing.TB
	script, dir string
}

// NewCluster starts a server, which ends with the test. Where New skips, so does NewCluster.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	serverFor(t)
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{t: t, script: filepath.Join(root, "dev", "postgres"), dir: filepath.Join(t.TempDir(), "postgres")}
	t.Cleanup(func() { c.run(context.WithoutCancel(t.Context()), "stop") })
	// Otherwise a crash may take back what was committed.
	c.DSN = c.run(t.Context(), "start", "--durable")
	return c
}

// Kill ends all processes of the server as a crash does.
func (c *Cluster) Kill() {
	c.t.Helper()
	c.run(c.t.Context(), "kill")
}

// Halt stops the server in order.
func (c *Cluster) Halt() {
	c.t.Helper()
	c.run(c.t.Context(), "halt")
}

// Resume starts the server again on its data, and returns when it answers.
func (c *Cluster) Resume() {
	c.t.Helper()
	c.run(c.t.Context(), "resume")
}

// Standby starts a replica of the server, with the same methods, which ends with the test.
func (c *Cluster) Standby() *Cluster {
	c.t.Helper()
	s := &Cluster{t: c.t, script: c.script, dir: filepath.Join(c.t.TempDir(), "standby")}
	c.t.Cleanup(func() { s.run(context.WithoutCancel(c.t.Context()), "stop") })
	s.DSN = s.run(c.t.Context(), "standby", c.dir)
	return s
}

// Promote makes a replica a server of its own, and returns when it takes writes.
func (c *Cluster) Promote() {
	c.t.Helper()
	c.run(c.t.Context(), "promote")
}

// run runs dev/postgres.
func (c *Cluster) run(ctx context.Context, command string, flags ...string) string {
	c.t.Helper()
	out, err := exec.CommandContext(ctx, c.script, append(append([]string{command}, flags...), c.dir)...).Output() //nolint:gosec // A fixed program.
	if err != nil {
		c.t.Fatalf("dev/postgres %s: %v", command, err)
	}
	return strings.TrimSpace(string(out))
}
