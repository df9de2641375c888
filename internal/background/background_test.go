package background_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/background"
)

// A failure is told when it begins and when it ends, however often it is noted.
func TestOutage(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	o := background.NewOutage(slog.New(slog.NewTextHandler(&b, nil)), "the store")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	broken := errors.New("away")
	for _, n := range []struct {
		ctx context.Context //nolint:containedctx // of a case
		err error
	}{{t.Context(), nil}, {ended, broken}, {t.Context(), broken}, {t.Context(), broken}, {t.Context(), nil}, {t.Context(), nil}, {t.Context(), broken}} {
		o.Note(n.ctx, n.err)
	}
	if out := b.String(); strings.Count(out, "out of order") != 2 || strings.Count(out, "in order again") != 1 || strings.Count(out, "error=away") != 2 {
		t.Error(out)
	}
}

func TestPokeAndPause(t *testing.T) {
	t.Parallel()
	c := make(chan struct{}, 1)
	background.Poke(c)
	background.Poke(c) // does not block
	<-c
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	background.Pause(ctx, time.Hour) // returns
}
