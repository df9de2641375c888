package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/internal/telemetry"
)

// The bounds of what the audit log has of a command's user and host.
const (
	maxUser = 48
	maxHost = 64
)

// commandActor is who the audit log names for what a command does: the user of the operating system, and the machine.
// Of a command that root runs by sudo it is the user who asked for that; nobody else is believed who he says to be.
func commandActor(environ []string) string {
	return actorOf(os.Geteuid(), environ)
}

func actorOf(uid int, environ []string) string {
	name := "uid-" + strconv.Itoa(uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		name = u.Username
	}
	if asked := lookup(environ, "SUDO_USER"); uid == 0 && asked != "" {
		name = asked
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return "cli:" + plain(name, maxUser) + "@" + plain(host, maxHost)
}

// lookup returns the value of a variable, the last if it is there twice, as the environment itself does.
func lookup(environ []string, name string) (value string) {
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

// plain is a name that cannot be taken for something else in the audit log.
func plain(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '@' || r == ':' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// correlated runs a command under an id of its own, which its rows of the audit log, its jobs and its events have; an
// error has it too.
func correlated(ctx context.Context, do func(context.Context) error) error {
	id := uuid.NewString()
	if err := do(telemetry.WithCorrelation(ctx, id)); err != nil {
		return fmt.Errorf("%w (correlation id %s)", err, id)
	}
	return nil
}
