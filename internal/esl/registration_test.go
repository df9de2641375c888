package esl_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/edgvoip/edgvoip/internal/fakefs"
)

// An answer of a real switch, with one phone whose Call-ID would break the document.
func TestListRegistrations(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/registrations.xml")
	if err != nil {
		t.Fatal(err)
	}
	s := newScene(t)
	s.fake.OnAPI(func(_ *fakefs.Conn, line string) string {
		if line == "sofia xmlstatus profile internal reg" {
			return string(b)
		}
		return "Invalid Profile!\n"
	})
	list, err := s.ListRegistrations(t.Context(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/registrations.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimSpace(string(want)), string(got)); diff != "" {
		t.Error(diff)
	}
	if list, err := s.ListRegistrations(t.Context(), "nosuch"); err == nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}
