// Package templates holds the skeletons of module configuration that FreeSWITCH is given, one file each, embedded in
// the binary. Load checks all of them, so that a mistake in one stops the start and not a call.
package templates

import (
	"embed"
	"fmt"

	"github.com/edgvoip/edgvoip/internal/fsxml"
)

//go:embed *.xml
var files embed.FS

// Load returns the skeletons by the name that FreeSWITCH asks for: sofia.conf.
func Load() (map[string]*fsxml.Skeleton, error) {
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	set := make(map[string]*fsxml.Skeleton, len(entries))
	for _, e := range entries {
		b, err := files.ReadFile(e.Name())
		if err != nil {
			return nil, fmt.Errorf("templates: %w", err)
		}
		s, err := fsxml.ParseSkeleton(b)
		if err != nil {
			return nil, fmt.Errorf("templates: %s: %w", e.Name(), err)
		}
		if s.Name+".xml" != e.Name() {
			return nil, fmt.Errorf("templates: %s is named %s inside", e.Name(), s.Name)
		}
		set[s.Name] = s
	}
	return set, nil
}
