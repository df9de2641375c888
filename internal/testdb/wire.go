package testdb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/lib/pq"
)

// Wire opens a TCP port before the server of a connection string, and returns the connection string through it. Each
// connection is handed to carry with one to the server, in a goroutine of its own; both are closed when it returns. A
// connection whose server cannot be reached is reset. When the test ends nobody is let in any more, and all that are
// open are waited for: carry returns when either side ends.
func Wire(tb testing.TB, dsn string, carry func(client, server net.Conn)) string {
	tb.Helper()
	c, err := pq.NewConfig(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				server, err := dial(tb.Context(), c)
				if err != nil {
					Reset(client)
					return
				}
				defer func() { _ = errors.Join(server.Close(), client.Close()) }()
				carry(client, server)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return fmt.Sprintf("host=127.0.0.1 port=%d user='%s' password='%s' dbname='%s' sslmode=disable", l.Addr().(*net.TCPAddr).Port, c.User, c.Password, c.Database)
}

func dial(ctx context.Context, c pq.Config) (net.Conn, error) {
	network, server := "tcp", net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
	if filepath.IsAbs(c.Host) {
		network, server = "unix", filepath.Join(c.Host, fmt.Sprintf(".s.PGSQL.%d", c.Port))
	}
	return (&net.Dialer{}).DialContext(ctx, network, server)
}

// Reset ends a connection as a machine does that knows nothing of it.
func Reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
