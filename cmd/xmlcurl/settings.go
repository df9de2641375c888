package main

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	common "github.com/edgvoip/edgvoip/internal/settings"
	"github.com/edgvoip/edgvoip/internal/xmlcurl"
)

// settings are read from the environment. docs/settings.md describes each; a test keeps the two together.
type settings struct {
	common.Common

	Addr            string        `env:"XMLCURL_ADDR" envDefault:"127.0.0.1:8080"`
	Credentials     string        `env:"XMLCURL_CREDENTIALS"`
	CredentialsFile string        `env:"XMLCURL_CREDENTIALS_FILE"`
	TLSCertFile     string        `env:"XMLCURL_TLS_CERT_FILE"`
	TLSKeyFile      string        `env:"XMLCURL_TLS_KEY_FILE"`
	TLSClientCAFile string        `env:"XMLCURL_TLS_CLIENT_CA_FILE"`
	AllowPlain      bool          `env:"XMLCURL_ALLOW_PLAIN" envDefault:"false"`
	RequestTimeout  time.Duration `env:"XMLCURL_REQUEST_TIMEOUT" envDefault:"1500ms"`
	ShutdownTimeout time.Duration `env:"XMLCURL_SHUTDOWN_TIMEOUT" envDefault:"10s"`
	MaxConnections  int           `env:"XMLCURL_MAX_CONNECTIONS" envDefault:"1024"`

	ModelExtensions  int           `env:"XMLCURL_MODEL_EXTENSIONS" envDefault:"1000000"`
	Preload          bool          `env:"XMLCURL_PRELOAD" envDefault:"false"`
	MaxDataAge       time.Duration `env:"XMLCURL_MAX_DATA_AGE" envDefault:"24h"`
	ChangesInterval  time.Duration `env:"XMLCURL_CHANGES_INTERVAL" envDefault:"1s"`
	SnapshotFile     string        `env:"XMLCURL_SNAPSHOT_FILE"`
	SnapshotInterval time.Duration `env:"XMLCURL_SNAPSHOT_INTERVAL" envDefault:"5m"`

	DatabaseRole string `env:"DATABASE_ROLE" envDefault:"edgvoip_xmlcurl" empty:"stays"`

	SIPIP           string `env:"SIP_IP" envDefault:"auto"`
	RTPIP           string `env:"RTP_IP" envDefault:"auto"`
	ExtSIPIP        string `env:"EXT_SIP_IP"`
	ExtRTPIP        string `env:"EXT_RTP_IP"`
	SIPPort         int    `env:"SIP_PORT" envDefault:"5060"`
	TLSPort         int    `env:"SIP_TLS_PORT" envDefault:"5061"`
	WSSPort         int    `env:"SIP_WSS_PORT" envDefault:"8443"`
	ExternalPort    int    `env:"SIP_EXTERNAL_PORT" envDefault:"5080"`
	ExternalTLSPort int    `env:"SIP_EXTERNAL_TLS_PORT" envDefault:"5081"`
	SIPTLS          bool   `env:"SIP_TLS" envDefault:"true"`
	SIPTLSCertDir   string `env:"SIP_TLS_CERT_DIR"`
	AuthAlgorithms  string `env:"SIP_AUTH_ALGORITHMS" envDefault:"MD5"`

	EventSocketAddr         string `env:"EVENT_SOCKET_ADDR" envDefault:"127.0.0.1:8021"`
	EventSocketPasswordFile string `env:"EVENT_SOCKET_PASSWORD_FILE"`

	AIBridgeAddr  string `env:"AI_BRIDGE_ADDR" envDefault:"127.0.0.1:5090" empty:"stays"`
	RecordingsDir string `env:"RECORDINGS_DIR"`

	SwitchCachesUsers time.Duration `env:"SWITCH_CACHES_USERS" envDefault:"0s"`
}

// bindingTimeout is the timeout of the bindings in freeswitch-conf/. An answer that takes as long comes too late.
const bindingTimeout = 2 * time.Second

// readSettings reads the environment, given as KEY=value. Its error names the setting that is wrong and holds no
// secret.
func readSettings(environ []string) (settings, error) {
	s, err := common.Parse[settings](environ)
	if err != nil {
		return s, err
	}
	if s.CredentialsFile != "" {
		if s.Credentials != "" {
			return s, errors.New("XMLCURL_CREDENTIALS and XMLCURL_CREDENTIALS_FILE are both set: set one")
		}
		if s.Credentials, err = common.ReadCredentials(s.CredentialsFile); err != nil {
			return s, fmt.Errorf("XMLCURL_CREDENTIALS_FILE: %w", err)
		}
	}
	return s, s.check()
}

// listener returns the settings of the listener for FreeSWITCH.
func (s settings) listener() common.Listener {
	return common.Listener{
		Prefix: "XMLCURL", Addr: s.Addr, TLSCertFile: s.TLSCertFile, TLSKeyFile: s.TLSKeyFile, TLSClientCAFile: s.TLSClientCAFile, AllowPlain: s.AllowPlain,
	}
}

func (s settings) check() error {
	if err := s.listener().Check(); err != nil {
		return err
	}
	if s.Credentials == "" {
		return errors.New("XMLCURL_CREDENTIALS or XMLCURL_CREDENTIALS_FILE is not set: it is the user:password that FreeSWITCH presents")
	}
	if err := common.CheckCredentials(s.Credentials); err != nil {
		return fmt.Errorf("XMLCURL_CREDENTIALS: %w", err)
	}
	switch {
	case s.RequestTimeout <= 0 || s.RequestTimeout >= bindingTimeout:
		return fmt.Errorf("XMLCURL_REQUEST_TIMEOUT is not between 0 and the %v that FreeSWITCH waits", bindingTimeout)
	case s.ShutdownTimeout <= 0:
		return errors.New("XMLCURL_SHUTDOWN_TIMEOUT is not positive")
	case s.MaxConnections < 16 || s.MaxConnections > 65536:
		return errors.New("XMLCURL_MAX_CONNECTIONS is not between 16 and 65536")
	}
	return errors.Join(s.Check(), s.CheckKeys(), s.checkModel())
}

func (s settings) checkModel() error {
	switch {
	case s.ModelExtensions < 1000 || s.ModelExtensions > 100_000_000:
		return errors.New("XMLCURL_MODEL_EXTENSIONS is not between 1000 and 100000000")
	case s.MaxDataAge < time.Minute:
		return errors.New("XMLCURL_MAX_DATA_AGE is less than a minute")
	case s.ChangesInterval < 50*time.Millisecond || s.ChangesInterval > time.Minute:
		return errors.New("XMLCURL_CHANGES_INTERVAL is not between 50ms and 1m")
	case s.SnapshotInterval < time.Second:
		return errors.New("XMLCURL_SNAPSHOT_INTERVAL is less than a second")
	case s.SnapshotFile != "" && !filepath.IsAbs(s.SnapshotFile):
		return errors.New("XMLCURL_SNAPSHOT_FILE is not an absolute path")
	case s.SwitchCachesUsers < 0 || s.SwitchCachesUsers > directory.MaxCacheFor:
		return fmt.Errorf("SWITCH_CACHES_USERS is not between 0 and %v", directory.MaxCacheFor)
	case s.SwitchCachesUsers > 0 && s.AuthAlgorithms != "MD5":
		// What is kept holds one hash, whatever algorithm the next phone chooses.
		return errors.New("SWITCH_CACHES_USERS needs SIP_AUTH_ALGORITHMS=MD5")
	}
	return nil
}

var authAlgorithms = []string{"MD5", "SHA-256,MD5", "SHA-256"}

// switchSettings turns what concerns the switches into text that may be rendered.
func (s settings) switchSettings() (xmlcurl.SwitchSettings, error) {
	w := xmlcurl.SwitchSettings{
		SIPPort: s.SIPPort, TLSPort: s.TLSPort, WSSPort: s.WSSPort, ExternalPort: s.ExternalPort, ExternalTLSPort: s.ExternalTLSPort,
		TLS: s.SIPTLS, Transfers: s.EventSocketPasswordFile != "",
	}
	if err := s.checkPorts(); err != nil {
		return w, err
	}
	if !slices.Contains(authAlgorithms, s.AuthAlgorithms) {
		return w, errors.New("SIP_AUTH_ALGORITHMS is one of " + strings.Join(authAlgorithms, " or "))
	}
	if err := s.addresses(&w); err != nil {
		return w, err
	}
	var err error
	if s.SIPTLSCertDir != "" && !filepath.IsAbs(s.SIPTLSCertDir) {
		return w, errors.New("SIP_TLS_CERT_DIR is not an absolute path on the switch")
	}
	if w.TLSCertDir, err = fstext.NewText(s.SIPTLSCertDir); err != nil {
		return w, fmt.Errorf("SIP_TLS_CERT_DIR: %w", err)
	}
	if w.Agents, err = common.AgentsAddr(s.AIBridgeAddr); err != nil {
		return w, err
	}
	if w.Recordings, err = common.RecordingsDir(s.RecordingsDir); err != nil {
		return w, err
	}
	if w.AuthAlgorithms, err = fstext.NewText(s.AuthAlgorithms); err != nil {
		return w, fmt.Errorf("SIP_AUTH_ALGORITHMS: %w", err)
	}
	return w, nil
}

// checkPorts checks that the switch can listen on all of its ports.
func (s settings) checkPorts() error {
	owner := map[int]string{}
	for _, p := range []struct {
		name string
		port int
	}{
		{"SIP_PORT", s.SIPPort},
		{"SIP_TLS_PORT", s.TLSPort},
		{"SIP_WSS_PORT", s.WSSPort},
		{"SIP_EXTERNAL_PORT", s.ExternalPort},
		{"SIP_EXTERNAL_TLS_PORT", s.ExternalTLSPort},
	} {
		if p.port < 1 || p.port > 65535 {
			return fmt.Errorf("%s is not between 1 and 65535", p.name)
		}
		if other, taken := owner[p.port]; taken {
			return fmt.Errorf("%s and %s are the same port", other, p.name)
		}
		owner[p.port] = p.name
	}
	return nil
}

// addresses reads where the switch listens, which it may find out by itself, and what it is to others.
func (s settings) addresses(w *xmlcurl.SwitchSettings) error {
	for _, a := range []struct {
		name, value string
		auto        bool
		to          *fstext.Text
	}{
		{"SIP_IP", s.SIPIP, true, &w.SIPIP},
		{"RTP_IP", s.RTPIP, true, &w.RTPIP},
		{"EXT_SIP_IP", s.ExtSIPIP, false, &w.ExtSIPIP},
		{"EXT_RTP_IP", s.ExtRTPIP, false, &w.ExtRTPIP},
	} {
		if a.value == "" || a.auto && a.value == "auto" {
			if a.auto {
				*a.to = fstext.Const("auto")
			}
			continue
		}
		addr, err := netip.ParseAddr(a.value)
		if err != nil {
			return fmt.Errorf("%s is not an IP address", a.name)
		}
		*a.to = fstext.Addr(addr)
	}
	return nil
}
