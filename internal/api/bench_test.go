package api_test

import (
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgvoip/edgvoip/internal/secret"
)

// BenchmarkProvision provisions new extensions over HTTPS by 8 clients. Beside the rate it reports which part that is
// of the rate at which passwords can be hashed at all on the same machine, in the same run.
func BenchmarkProvision(b *testing.B) {
	s := start(b)
	w := s.tenant(b, "shop")
	const clients = 8
	var number atomic.Int64
	number.Store(100000)
	var clientGroup errgroup.Group
	clientGroup.SetLimit(clients)
	begun, n := time.Now(), 0
	for b.Loop() {
		n++
		clientGroup.Go(func() error {
			id := strconv.FormatInt(number.Add(1), 10)
			w.post(b, w.spec(id), "Idempotency-Key", id)
			return nil
		})
	}
	if err := clientGroup.Wait(); err != nil {
		b.Fatal(err)
	}
	provisioned := float64(n) / time.Since(begun).Seconds()
	b.StopTimer()

	hasher := secret.NewHasher(runtime.NumCPU())
	var group errgroup.Group
	group.SetLimit(clients)
	begun = time.Now()
	for range n {
		group.Go(func() error {
			_, err := hasher.Hash(b.Context(), "correct horse battery staple")
			return err
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	hashed := float64(n) / time.Since(begun).Seconds()
	b.ReportMetric(provisioned, "provisioned/s")
	b.ReportMetric(hashed, "hashed/s")
	b.ReportMetric(provisioned/hashed, "of_hashing")
}
