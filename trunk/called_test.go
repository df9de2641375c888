package trunk_test

import (
	"testing"

	"github.com/edgvoip/edgvoip/internal/storetest"
	"github.com/edgvoip/edgvoip/trunk"
)

func TestCalled(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		format trunk.NumberFormat
		prefix string
		want   string
	}{
		{trunk.NumberPlus, "", "+390612345678"},
		{trunk.NumberDigits, "", "390612345678"},
		{trunk.NumberZeros, "", "00390612345678"},
		{trunk.NumberDigits, "77", "77390612345678"},
		{trunk.NumberPlus, "*9", "*9+390612345678"},
		{trunk.NumberDigits, "7#8#", "7%238%23390612345678"},
	} {
		k := storetest.Trunk("tenant-a", "first", 10, 5090, "+390612345600")
		k.NumberFormat, k.TechPrefix = tc.format, storetest.Must(trunk.ParseTechPrefix(tc.prefix))
		if got := k.Called(storetest.E164("+390612345678")); got.String() != tc.want {
			t.Errorf("%s after %q: %s, want %s", tc.format, tc.prefix, got, tc.want)
		}
	}
}

func TestCarries(t *testing.T) {
	t.Parallel()
	k := storetest.Trunk("tenant-a", "first", 10, 5090, "+390612345600")
	if !k.Carries(storetest.E164("+390612345678")) {
		t.Error("a trunk without prefixes does not carry a number")
	}
	k.Prefixes = []string{"39", "4420"}
	for number, want := range map[string]bool{
		"+390612345678": true, "+442079460123": true, "+441514960123": false, "+3312345678": false, "+239061234": false,
	} {
		if got := k.Carries(storetest.E164(number)); got != want {
			t.Errorf("carries %s: %v", number, got)
		}
	}
}
