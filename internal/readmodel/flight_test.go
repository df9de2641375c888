package readmodel_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/memstore"
	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

// slow is a store that is asked, and does not answer until it may.
type slow struct {
	*memstore.Store
	asked atomic.Int64
	goOn  chan struct{}
}

func (s *slow) InboundTrunk(ctx context.Context, number fstext.E164) (trunk.Trunk, error) {
	s.asked.Add(1)
	<-s.goOn
	return s.Store.InboundTrunk(ctx, number)
}

// A thousand who ask for the same unknown number at once are one question to the database, and nobody is turned away.
func TestOneFlight(t *testing.T) {
	t.Parallel()
	scene := storetest.Scene(t)
	number, err := fstext.NewE164("+390699999999")
	if err != nil {
		t.Fatal(err)
	}
	s := &slow{Store: scene}
	// The feed was not read yet: what is not in memory may exist. The caches work in the background, outside of the
	// bubble.
	m := readmodel.New(readmodel.Options{
		Store: s, Bulk: s, MaxExtensions: 1000, MaxAge: time.Hour, LoadTimeout: time.Minute, MaxLoads: 4, LiveFor: time.Hour,
		Log: slog.New(slog.DiscardHandler),
	})
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		s.goOn = make(chan struct{})
		const askers = 1000
		answers := make(chan error, askers)
		for range askers {
			go func() {
				_, err := m.InboundTrunk(ctx, number)
				answers <- err
			}()
		}
		synctest.Wait()
		close(s.goOn)
		wrong := 0
		for range askers {
			if err := <-answers; !errors.Is(err, trunk.ErrUnknownDID) {
				wrong++
			}
		}
		if wrong > 0 {
			t.Errorf("%d were turned away", wrong)
		}
		if n := s.asked.Load(); n != 1 {
			t.Errorf("the database was asked %d times", n)
		}
	})
}
