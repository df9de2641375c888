package aisession_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/aisession"
)

// board is a BreakerStore that hands on what it is told.
type board struct {
	fails error
	told  chan []aisession.OpenBreaker
}

func (b *board) NoteBreakers(ctx context.Context, bridge string, open []aisession.OpenBreaker) error {
	if bridge != "one" {
		return errors.New("another bridge")
	}
	select {
	case b.told <- open:
		return b.fails
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What is open is published when it opens and when it closes; the start takes back what was said before, and the end
// leaves nothing.
func TestPublish(t *testing.T) {
	t.Parallel()
	c := &clock{t: before}
	b := aisession.NewBreakers(c.now)
	s := &board{told: make(chan []aisession.OpenBreaker)}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Publish(ctx, s, "one", slog.New(slog.DiscardHandler))
	}()
	expect := func(when string, want ...aisession.OpenBreaker) {
		t.Helper()
		select {
		case got := <-s.told:
			if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
				t.Errorf("%s: %v, want %v", when, got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: nothing is published", when)
		}
	}
	ask := func(v aisession.Verdict) {
		t.Helper()
		leave, ok := b.Enter("https://w3.example")
		if !ok {
			t.Fatal("it is open")
		}
		leave(v)
	}
	expect("at the start")
	for range 4 {
		ask(aisession.Broken)
	}
	ask(aisession.Broken)
	expect("open", aisession.OpenBreaker{Gateway: "https://w3.example", Pause: time.Second})
	c.add(time.Second)
	ask(aisession.Broken)
	expect("open again", aisession.OpenBreaker{Gateway: "https://w3.example", Pause: 2 * time.Second})
	c.add(2 * time.Second)
	ask(aisession.Works)
	expect("closed")
	stop()
	expect("at the end")
	<-done
}

// A store that is away is tried again, and no call notices.
func TestPublishAgain(t *testing.T) {
	t.Parallel()
	b := aisession.NewBreakers(time.Now)
	s := &board{fails: errors.New("away"), told: make(chan []aisession.OpenBreaker)}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Publish(ctx, s, "one", slog.New(slog.DiscardHandler))
	}()
	<-s.told
	<-s.told // by itself
	stop()
	<-s.told
	<-done
}
