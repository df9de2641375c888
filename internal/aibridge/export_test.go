package aibridge

import (
	"net"
	"net/netip"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// Rewriter is a rewriter, for tests.
type Rewriter = rewriter

// NewRewriter returns a rewriter.
func NewRewriter(ssrc uint32) *Rewriter { return newRewriter(ssrc) }

// Rewrite changes a header.
func (r *rewriter) Rewrite(h *rtp.Header, now time.Time) bool { return r.rewrite(h, now) }

// Reception is a reception, for tests.
type Reception = reception

// Add counts a packet.
func (r *reception) Add(ssrc uint32, seq uint16, ts uint32, at time.Time) { r.add(ssrc, seq, ts, at) }

// Report returns what is told.
func (r *reception) Report(now time.Time) []rtcp.ReceptionReport { return r.report(now) }

// ParseMedia reads an SDP and answers it: the address of RTP, the type of telephone events, the direction, the answer.
func ParseMedia(body []byte) (at netip.AddrPort, events int, direction string, answer []byte, err error) {
	m, err := parseMedia(body)
	if err != nil {
		return at, 0, "", nil, err
	}
	return m.rtp, m.events, string(m.direction), local{addr: netip.MustParseAddr("127.0.0.1"), rtp: 4000, rtcp: 4001, session: 1}.answer(m), nil
}

// CheckOffer checks an agent's offer.
func CheckOffer(offer string) error { return checkOffer(offer) }

// ParsePacket reads a packet of RTP.
func ParsePacket(b []byte) (rtp.Header, []byte, bool) {
	var h rtp.Header
	payload, ok := parsePacket(&h, b)
	return h, payload, ok
}

// NewListener returns a listener that takes connections of switches in networks.
func NewListener(l net.Listener, networks []netip.Prefix) net.Listener { return listener{l, networks} }
