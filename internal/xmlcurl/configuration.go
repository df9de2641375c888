package xmlcurl

import (
	"context"
	"fmt"
	"regexp"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/internal/secret"
	"github.com/edgvoip/edgvoip/templates"
	"github.com/edgvoip/edgvoip/trunk"
)

// SwitchSettings are what the SIP profiles need to know about the switches, the same for all of them. Empty texts leave
// a parameter out.
type SwitchSettings struct {
	SIPIP, RTPIP       fstext.Text
	ExtSIPIP, ExtRTPIP fstext.Text
	SIPPort            int
	TLSPort            int
	WSSPort            int
	ExternalPort       int
	ExternalTLSPort    int
	// TLS tells whether the profiles listen for TLS and secure WebSocket. The switch then needs certificates.
	TLS            bool
	TLSCertDir     fstext.Text
	AuthAlgorithms fstext.Text
	// Agents is where ai-bridge takes calls for AI agents, as host:port; empty if there is none.
	Agents fstext.Text
	// Transfers lets phones transfer calls with REFER. It needs Options.HangUp.
	Transfers bool
	// Recordings is the directory in which recordings of calls are kept; empty if none are made.
	Recordings fstext.Text
}

// onDisk are files that the switch has on its own disk: what it needs before it can ask us, and what holds secrets of
// its own. For these the answer is "not found", which sends it there. What a switch would fall back to without the file
// is worse than an empty file, so everything else gets a document.
var onDisk = map[string]bool{
	"switch.conf":           true,
	"modules.conf":          true,
	"pre_load_modules.conf": true,
	"xml_curl.conf":         true,
	"event_socket.conf":     true,
	"console.conf":          true,
	"logfile.conf":          true,
	"timezones.conf":        true,
	"json_cdr.conf":         true,
}

// configuration answers lookups of section configuration.
type configuration struct {
	skeletons map[string]*fsxml.Skeleton
	values    map[string]fstext.Text
	trunks    trunk.Store
	keys      *secret.KeyRing
	onSkip    func(context.Context, error)
}

// newConfiguration reads the skeletons and writes each once, so that one with a place that nothing fills stops the
// start.
func newConfiguration(s SwitchSettings, trunks trunk.Store, keys *secret.KeyRing, onSkip func(context.Context, error)) (*configuration, error) {
	skeletons, err := templates.Load()
	if err != nil {
		return nil, err
	}
	c := &configuration{skeletons: skeletons, values: s.values(), trunks: trunks, keys: keys, onSkip: onSkip}
	nothing := func(*fsxml.Document) error { return nil }
	for name, sk := range skeletons {
		if _, err := c.write(sk, map[string]func(*fsxml.Document) error{"gateways": nothing, "trunks": nothing}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return c, nil
}

func (s SwitchSettings) values() map[string]fstext.Text {
	v := map[string]fstext.Text{
		"sip-ip":            s.SIPIP,
		"rtp-ip":            s.RTPIP,
		"ext-sip-ip":        s.ExtSIPIP,
		"ext-rtp-ip":        s.ExtRTPIP,
		"sip-port":          fstext.Int(s.SIPPort),
		"external-port":     fstext.Int(s.ExternalPort),
		"tls":               fstext.Bool(s.TLS),
		"tls-port":          fstext.Int(s.TLSPort),
		"external-tls-port": fstext.Int(s.ExternalTLSPort),
		"tls-cert-dir":      s.TLSCertDir,
		"auth-algorithms":   s.AuthAlgorithms,
		"disable-transfer":  fstext.Bool(!s.Transfers),
		"wss-binding":       {},
	}
	if s.TLS {
		v["wss-binding"] = fstext.Join(fstext.Const(":"), fstext.Int(s.WSSPort))
	}
	return v
}

func (c *configuration) write(sk *fsxml.Skeleton, slots map[string]func(*fsxml.Document) error) ([]byte, error) {
	doc := fsxml.New(fsxml.SectionConfiguration)
	if err := doc.WriteSkeleton(sk, fsxml.Fill{Values: c.values, Slots: slots}); err != nil {
		return nil, err
	}
	return doc.Bytes()
}

var fileName = regexp.MustCompile(`^[a-z0-9_]{1,48}\.conf$`)

// answer returns the document for a file and whether it is a real one; found is false for "not found". profile is the
// SIP profile that is asked about, if any.
func (c *configuration) answer(ctx context.Context, file, profile string) (doc []byte, found bool, err error) {
	if !fileName.MatchString(file) || onDisk[file] {
		return fsxml.NotFound(), false, nil
	}
	sk, ok := c.skeletons[file]
	if !ok {
		doc, err = empty(file)
		return doc, true, err
	}
	slots := map[string]func(*fsxml.Document) error{
		"gateways": func(d *fsxml.Document) error {
			if profile == directory.ProfileInternal {
				return nil // a question about one profile only: save the query
			}
			return c.gateways(ctx, d)
		},
		"trunks": func(d *fsxml.Document) error { return c.sources(ctx, d) },
	}
	doc, err = c.write(sk, slots)
	return doc, true, err
}

// empty is a file without anything in it: the module loads with its defaults, and what may be on the disk is not read.
func empty(file string) ([]byte, error) {
	name, err := fstext.NewText(file)
	if err != nil {
		return nil, err
	}
	doc := fsxml.New(fsxml.SectionConfiguration)
	doc.Leaf("configuration", fsxml.A("name", name))
	return doc.Bytes()
}

// gateways writes each active trunk as a gateway. One that cannot be written is left out and reported; the others must
// not suffer.
func (c *configuration) gateways(ctx context.Context, d *fsxml.Document) error {
	trunks, err := c.trunks.ActiveTrunks(ctx)
	if err != nil {
		return fmt.Errorf("gateways: %w", err)
	}
	for _, t := range trunks {
		if err := t.WriteGateway(d, c.keys); err != nil {
			c.onSkip(ctx, err)
		}
	}
	return nil
}

// sources writes the addresses of the carriers, each once.
func (c *configuration) sources(ctx context.Context, d *fsxml.Document) error {
	trunks, err := c.trunks.ActiveTrunks(ctx)
	if err != nil {
		return fmt.Errorf("trunk addresses: %w", err)
	}
	seen := map[string]bool{}
	for _, t := range trunks {
		for _, p := range t.SourceAddresses() {
			if text := fstext.Prefix(p); !seen[text.String()] {
				seen[text.String()] = true
				d.Leaf("node", fsxml.A("type", fstext.Const("allow")), fsxml.A("cidr", text))
			}
		}
	}
	return nil
}
