package settings_test

import (
	"testing"

	"github.com/edgvoip/edgvoip/internal/settings"
)

// A variable that is set and empty counts as not set, but where empty means something of its own.
func TestEmpty(t *testing.T) {
	t.Parallel()
	type some struct {
		settings.Common

		Role string `env:"ROLE" envDefault:"usual" empty:"stays"`
		Name string `env:"NAME" envDefault:"usual"`
	}
	for name, tc := range map[string]struct {
		environ          []string
		role, called, as string
	}{
		"not set":   {nil, "usual", "usual", "auto"},
		"set":       {[]string{"ROLE=a", "NAME=b", "LOG_FORMAT=json"}, "a", "b", "json"},
		"set empty": {[]string{"ROLE=", "NAME=", "LOG_FORMAT="}, "", "usual", "auto"},
	} {
		s, err := settings.Parse[some](tc.environ)
		if err != nil || s.Role != tc.role || s.Name != tc.called || s.LogFormat != tc.as {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
}
