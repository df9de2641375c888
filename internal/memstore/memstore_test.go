package memstore_test

import (
	"testing"

	"github.com/edgvoip/edgvoip/internal/storetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Contract(t, storetest.Scene(t))
}
