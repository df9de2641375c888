package fsxml

import (
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// Law: what is written as it is needs no escape and holds nothing that FreeSWITCH would act on.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"", "1001", "x", "X-PRE-process", "x-pre-process", "ARRAY::", "A", "<!", "<?", "a&b", "$${x}", "\x7f", "è", "\xff", "[leg_timeout=20]sofia/external/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if what, found := fstext.Hazard(s); plain(s) && (found || strings.ContainsAny(s, `&<>"$`)) {
			t.Errorf("%q is plain, with %s", s, what)
		}
	})
}
