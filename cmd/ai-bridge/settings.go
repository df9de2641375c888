package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	common "github.com/edgvoip/edgvoip/internal/settings"
	"github.com/edgvoip/edgvoip/webhook"
)

// settings are read from the environment. docs/settings.md describes each; a test keeps the two together.
type settings struct {
	common.Common

	SIPAddr     string `env:"AI_BRIDGE_SIP_ADDR" envDefault:"127.0.0.1:5090"`
	Peers       string `env:"AI_BRIDGE_PEERS" envDefault:"local"`
	MetricsAddr string `env:"AI_BRIDGE_METRICS_ADDR" envDefault:"127.0.0.1:8084"`

	SessionBudget time.Duration `env:"AI_SESSION_BUDGET" envDefault:"1500ms"`
	ConnectBudget time.Duration `env:"AI_CONNECT_BUDGET" envDefault:"1900ms"`
	MediaTimeout  time.Duration `env:"AI_MEDIA_TIMEOUT" envDefault:"1800ms"`
	CallerTimeout time.Duration `env:"AI_CALLER_TIMEOUT" envDefault:"20s"`
	DrainTimeout  time.Duration `env:"AI_DRAIN_TIMEOUT" envDefault:"5m"`

	MaxSessions          int `env:"AI_MAX_SESSIONS" envDefault:"100"`
	MaxSessionsPerTenant int `env:"AI_MAX_SESSIONS_PER_TENANT" envDefault:"50"`

	TrunksInterval time.Duration `env:"AI_TRUNKS_INTERVAL" envDefault:"5s"`
	AllowNetworks  string        `env:"AI_ALLOW_NETWORKS"`
	AllowPlain     bool          `env:"AI_ALLOW_PLAIN" envDefault:"false"`
	CAFile         string        `env:"AI_CA_FILE"`

	DatabaseRole string `env:"DATABASE_ROLE" envDefault:"edgvoip_ai_bridge"`
}

// readSettings reads the environment, given as KEY=value. Its error names the setting that is wrong and holds no
// secret.
func readSettings(environ []string) (settings, error) {
	s, err := common.Parse[settings](environ)
	if err != nil {
		return s, err
	}
	return s, s.check()
}

// switchPatience is how long the dialplan waits at least for an agent to answer (dialplan/agent.go).
const switchPatience = 2 * time.Second

// maxMediaTimeout is what of the dialplan's media_timeout of 2 s (dialplan/agent.go) is left for the watchdog to look
// and for the BYE to arrive: the switch ends a leg that is silent for longer by itself, and says of the gateway nothing
// that we could count.
const maxMediaTimeout = 1800 * time.Millisecond

func (s settings) check() error {
	switch {
	case s.SessionBudget < 100*time.Millisecond || s.SessionBudget > s.ConnectBudget:
		return errors.New("AI_SESSION_BUDGET is not between 100ms and AI_CONNECT_BUDGET")
	case s.ConnectBudget >= switchPatience:
		return errors.New("AI_CONNECT_BUDGET is not below 2s, for which FreeSWITCH waits at least")
	case s.MediaTimeout < 200*time.Millisecond || s.MediaTimeout > maxMediaTimeout:
		return errors.New("AI_MEDIA_TIMEOUT is not between 200ms and 1800ms: after 2s FreeSWITCH ends a silent leg by itself")
	case s.CallerTimeout < time.Second || s.CallerTimeout > time.Hour:
		return errors.New("AI_CALLER_TIMEOUT is not between 1s and 1h")
	case s.DrainTimeout < 0:
		return errors.New("AI_DRAIN_TIMEOUT is negative")
	case s.MaxSessions < 1 || s.MaxSessions > 10000:
		return errors.New("AI_MAX_SESSIONS is not between 1 and 10000")
	case s.MaxSessionsPerTenant < 1 || s.MaxSessionsPerTenant > s.MaxSessions:
		return errors.New("AI_MAX_SESSIONS_PER_TENANT is not between 1 and AI_MAX_SESSIONS")
	case s.TrunksInterval < 50*time.Millisecond || s.TrunksInterval > time.Minute:
		return errors.New("AI_TRUNKS_INTERVAL is not between 50ms and 1m")
	}
	return errors.Join(s.Check(), s.CheckKeys())
}

// sipAddr returns where SIP and media are received. It is one address, as it stands in the SDP.
func (s settings) sipAddr() (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s.SIPAddr)
	if err != nil || a.Addr().IsUnspecified() {
		return a, errors.New("AI_BRIDGE_SIP_ADDR is not address:port of one of this machine's addresses")
	}
	return a, nil
}

// peers returns who is listened to. "local" stands for the addresses of this machine: a switch speaks from the one that
// its profile is bound to, also to 127.0.0.1.
func (s settings) peers() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for text := range strings.SplitSeq(s.Peers, ",") {
		text = strings.TrimSpace(text)
		if text == "local" {
			own, err := ownAddresses()
			if err != nil {
				return nil, fmt.Errorf("AI_BRIDGE_PEERS: %w", err)
			}
			list = append(list, own...)
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return nil, errors.New("AI_BRIDGE_PEERS is not a list of networks such as 127.0.0.0/8, or local, separated by commas")
		}
		list = append(list, p)
	}
	return list, nil
}

// ownAddresses returns the loopback network and the addresses of this machine's interfaces.
func ownAddresses() ([]netip.Prefix, error) {
	list := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this machine: %w", err)
	}
	for _, a := range addrs {
		if network, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(network.IP); ok {
				list = append(list, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			}
		}
	}
	return list, nil
}

// networks returns what may be dialled besides the public Internet.
func (s settings) networks() (webhook.Networks, error) {
	n, err := webhook.ParseNetworks(s.AllowNetworks)
	if err != nil {
		return nil, fmt.Errorf("AI_ALLOW_NETWORKS: %w", err)
	}
	return n, nil
}
