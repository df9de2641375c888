package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// esl is a connection to the event socket, for looking into the switch.
type esl struct {
	conn net.Conn
	r    *textproto.Reader
	raw  *bufio.Reader
	mu   sync.Mutex
}

func dialESL(ctx context.Context, port int) (*esl, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, err
	}
	raw := bufio.NewReader(conn)
	e := &esl{conn: conn, raw: raw, r: textproto.NewReader(raw)}
	if _, _, err := e.read(); err != nil {
		conn.Close()
		return nil, err
	}
	reply, err := e.command("auth " + eslPassword)
	if err != nil || !strings.HasPrefix(reply, "+OK") {
		conn.Close()
		return nil, fmt.Errorf("event socket refuses us: %q, %w", reply, err)
	}
	return e, nil
}

func (e *esl) close() { e.conn.Close() }

// read reads one message: its headers and its body.
func (e *esl) read() (textproto.MIMEHeader, string, error) {
	if err := e.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, "", err
	}
	h, err := e.r.ReadMIMEHeader()
	if err != nil {
		return nil, "", err
	}
	n, _ := strconv.Atoi(h.Get("Content-Length"))
	body := make([]byte, n)
	_, err = io.ReadFull(e.raw, body)
	return h, string(body), err
}

func (e *esl) command(line string) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := fmt.Fprintf(e.conn, "%s\n\n", line); err != nil {
		return "", err
	}
	for {
		h, body, err := e.read()
		if err != nil {
			return "", err
		}
		switch h.Get("Content-Type") {
		case "api/response":
			return body, nil
		case "command/reply":
			return h.Get("Reply-Text"), nil
		case "text/disconnect-notice":
			return "", errors.New("disconnected")
		}
	}
}

// api runs a command of the switch; an error shows in its answer.
func (e *esl) api(command string) string {
	out, err := e.command("api " + command)
	if err != nil {
		return "-ERR " + err.Error()
	}
	return out
}

// registered tells whether the switch has a registration of a user as it stores it.
func (s *scene) registered(user, realm string) bool {
	list := s.esl.api("sofia xmlstatus profile internal reg")
	return strings.Contains(list, "<user>"+user+"@"+realm+"</user>")
}

// expectRegistered waits for a registration; the switch writes it down a moment after it has answered the phone.
func (s *scene) expectRegistered(t *testing.T, user, realm string) {
	t.Helper()
	eventually(t, 5*time.Second, func() error {
		if !s.registered(user, realm) {
			return fmt.Errorf("the switch has no registration of %s@%s:\n%s", user, realm, s.esl.api("sofia xmlstatus profile internal reg"))
		}
		return nil
	})
}

// channels returns the ids of the channels that are up.
func (s *scene) channels(t *testing.T) []string {
	t.Helper()
	var ids []string
	for line := range strings.SplitSeq(s.esl.api("show channels"), "\n") {
		if id, _, ok := strings.Cut(line, ","); ok && len(id) == 36 {
			ids = append(ids, id)
		}
	}
	return ids
}
