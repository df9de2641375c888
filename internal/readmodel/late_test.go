package readmodel_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/edgvoip/edgvoip/internal/readmodel"
	"github.com/edgvoip/edgvoip/internal/storetest"
)

// A scan costs a replica that is behind no more than one that is not, and learns nothing from it.
func TestScanOfLateReplica(t *testing.T) {
	t.Parallel()
	s := newSource(t)
	m := model(t, s, shortLived)
	behind(m, 11*time.Second)
	s.asked.Store(0)
	for i := range 1000 {
		if _, err := m.InboundTrunk(t.Context(), storetest.E164(fmt.Sprintf("+39069999%04d", i))); !errors.Is(err, readmodel.ErrBehind) {
			t.Fatalf("number: %v", err)
		}
		if _, err := m.CarrierCountries(t.Context(), netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})); !errors.Is(err, readmodel.ErrBehind) {
			t.Fatalf("address: %v", err)
		}
		if _, err := extension(t, m, realmA, fmt.Sprint("nobody", i)); !errors.Is(err, readmodel.ErrBehind) && !errors.Is(err, readmodel.ErrBusy) {
			t.Fatalf("name: %v", err)
		}
	}
	if n := s.asked.Load(); n > 200 {
		t.Errorf("the database was asked %d times", n)
	}
}
