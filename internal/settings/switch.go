package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/edgvoip/edgvoip/internal/fstext"
)

// AgentsAddr reads AI_BRIDGE_ADDR: where the switch reaches ai-bridge. No text is nowhere.
func AgentsAddr(addr string) (fstext.Text, error) {
	if addr == "" {
		return fstext.Text{}, nil
	}
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().Is4() || a.Port() == 0 {
		return fstext.Text{}, errors.New("AI_BRIDGE_ADDR is not an IPv4 address and a port")
	}
	return fstext.Join(fstext.Addr(a.Addr()), fstext.Const(":"), fstext.Int(int(a.Port()))), nil
}

// RecordingsDir reads RECORDINGS_DIR as the switch knows it; no text is no directory. FreeSWITCH takes what follows a
// space for something else than the path.
func RecordingsDir(dir string) (fstext.Text, error) {
	if dir == "" {
		return fstext.Text{}, nil
	}
	if !filepath.IsAbs(dir) || strings.ContainsAny(dir, " {}[]'\"`|,;:%") {
		return fstext.Text{}, errors.New("RECORDINGS_DIR is not an absolute path on the switch, without spaces and punctuation")
	}
	t, err := fstext.NewText(filepath.Clean(dir))
	if err != nil {
		return t, fmt.Errorf("RECORDINGS_DIR: %w", err)
	}
	return t, nil
}
