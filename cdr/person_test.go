package cdr_test

import (
	"testing"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// A number is found however it is written, and nobody else's for it.
func TestPerson(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		number, text string
		in           bool
	}{
		{"+393337654321", `"+393337654321"`, true},
		{"+393337654321", `"00393337654321"`, true},
		{"+393337654321", `"3337654321"`, true},
		{"+393337654321", `sip:%2B393337654321@carrier`, true},
		{"+393337654321", `+39 333 765-43.21`, true},
		{"+441612345678", `"01612345678"`, true},
		{"+393125550123", `"+13125550123"`, false},
		{"+395226319", `"start_uepoch":"1795226319000000"`, false},
		{"+3541001", `"1001"`, false},
		{"+3541001", `"+3541001"`, true},
		{"+393337654321", `"13337654321"`, false},
	} {
		number, err := fstext.NewE164(tc.number)
		if err != nil {
			t.Fatal(err)
		}
		if got := cdr.NewPerson(number).Finder()(tc.text); got != tc.in {
			t.Errorf("%s in %s: %t", tc.number, tc.text, got)
		}
	}
}
