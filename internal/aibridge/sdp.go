package aibridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
)

// pcmu is the payload type of PCMU (RFC 3551, 6): it has no other.
const pcmu = 0

// noEvents means that telephone events were not negotiated.
const noEvents = -1

// direction is who sends, seen from the switch (RFC 3264, 5.1).
type direction string

const (
	sendrecv direction = "sendrecv"
	sendonly direction = "sendonly"
	recvonly direction = "recvonly"
	inactive direction = "inactive"
)

// answer returns what is answered to an offered direction.
func (d direction) answer() direction {
	switch d {
	case sendonly:
		return recvonly
	case recvonly:
		return sendonly
	default:
		return d
	}
}

// sends and receives tell what the switch does.
func (d direction) sends() bool    { return d == sendrecv || d == sendonly }
func (d direction) receives() bool { return d == sendrecv || d == recvonly }

// media is what the switch offers or answers: one stream of audio.
type media struct {
	// rtp is where it receives, and sends from.
	rtp netip.AddrPort
	// rtcp is the same for RTCP.
	rtcp netip.AddrPort
	// events is the payload type of telephone events (RFC 4733), or noEvents.
	events    int
	direction direction
	// index is the place of the stream among the media; others, of so many kinds and formats, are declined.
	index  int
	others []string
}

var errMedia = errors.New("no PCMU audio over RTP/AVP with an address")

// parseMedia reads the SDP of the switch. The error does not repeat it.
func parseMedia(body []byte) (media, error) {
	var d sdp.SessionDescription
	if err := d.Unmarshal(body); err != nil {
		return media{}, errors.New("SDP that cannot be read")
	}
	m := media{index: -1}
	for i, md := range d.MediaDescriptions {
		m.others = append(m.others, fmt.Sprintf("m=%s 0 %s %s\r\n", md.MediaName.Media, strings.Join(md.MediaName.Protos, "/"), firstFormat(md)))
		if m.index < 0 && isPCMU(md) {
			m.index = i
		}
	}
	if m.index < 0 {
		return media{}, errMedia
	}
	if err := m.read(&d, d.MediaDescriptions[m.index]); err != nil {
		return media{}, err
	}
	return m, nil
}

func firstFormat(md *sdp.MediaDescription) string {
	if len(md.MediaName.Formats) == 0 {
		return "0"
	}
	return md.MediaName.Formats[0]
}

func isPCMU(md *sdp.MediaDescription) bool {
	if md.MediaName.Media != "audio" || strings.Join(md.MediaName.Protos, "/") != "RTP/AVP" || md.MediaName.Port.Value == 0 {
		return false
	}
	return slices.Contains(md.MediaName.Formats, strconv.Itoa(pcmu))
}

// read reads one stream.
func (m *media) read(d *sdp.SessionDescription, md *sdp.MediaDescription) error {
	connection := d.ConnectionInformation
	if md.ConnectionInformation != nil {
		connection = md.ConnectionInformation
	}
	if connection == nil || connection.Address == nil {
		return errMedia
	}
	addr, err := netip.ParseAddr(connection.Address.Address)
	port := md.MediaName.Port.Value
	if err != nil || port < 1 || port > 65534 {
		return errMedia
	}
	m.rtp = netip.AddrPortFrom(addr.Unmap(), uint16(port))
	m.rtcp = netip.AddrPortFrom(addr.Unmap(), uint16(port)+1)
	m.events, m.direction = noEvents, sendrecv
	for _, a := range append(append([]sdp.Attribute{}, d.Attributes...), md.Attributes...) {
		switch a.Key {
		case "sendrecv", "sendonly", "recvonly", "inactive":
			m.direction = direction(a.Key)
		case "rtpmap":
			m.readEvents(a.Value)
		case "rtcp":
			if port, err := strconv.ParseUint(strings.Fields(a.Value + " x")[0], 10, 16); err == nil && port > 0 {
				m.rtcp = netip.AddrPortFrom(addr.Unmap(), uint16(port))
			}
		}
	}
	if addr.IsUnspecified() { // hold as it was written before RFC 3264 (8.4)
		m.direction = inactive
	}
	return nil
}

// readEvents takes the payload type of telephone events out of an rtpmap.
func (m *media) readEvents(rtpmap string) {
	pt, encoding, _ := strings.Cut(rtpmap, " ")
	if !strings.EqualFold(encoding, "telephone-event/8000") {
		return
	}
	if n, err := strconv.ParseUint(pt, 10, 7); err == nil && n > 0 {
		m.events = int(n)
	}
}

// local is what is answered to the switch.
type local struct {
	addr      netip.Addr
	rtp, rtcp uint16
	// session and version are those of the o line (RFC 4566, 5.2): the version grows with each answer.
	session, version uint64
}

// answer returns the answer to what the switch offers: PCMU and, if offered, telephone events, every other stream
// declined.
func (l local) answer(m media) []byte {
	kind := "IP4"
	if l.addr.Is6() {
		kind = "IP6"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=- %d %d IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\n", l.session, l.version, kind, l.addr, kind, l.addr)
	for i, declined := range m.others {
		if i != m.index {
			b.WriteString(declined)
			continue
		}
		formats := strconv.Itoa(pcmu)
		if m.events != noEvents {
			formats += " " + strconv.Itoa(m.events)
		}
		fmt.Fprintf(&b, "m=audio %d RTP/AVP %s\r\na=rtpmap:%d PCMU/8000\r\n", l.rtp, formats, pcmu)
		if m.events != noEvents {
			fmt.Fprintf(&b, "a=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-16\r\n", m.events, m.events)
		}
		fmt.Fprintf(&b, "a=ptime:20\r\na=rtcp:%d\r\na=%s\r\n", l.rtcp, m.direction.answer())
	}
	return []byte(b.String())
}

// checkOffer tells whether the gateway's offer is one stream of audio with PCMU as payload type 0, which is all that is
// carried.
func checkOffer(offer string) error {
	var d sdp.SessionDescription
	if err := d.UnmarshalString(offer); err != nil {
		return errors.New("SDP that cannot be read")
	}
	if len(d.MediaDescriptions) != 1 || d.MediaDescriptions[0].MediaName.Media != "audio" {
		return errors.New("not one stream of audio")
	}
	md := d.MediaDescriptions[0]
	if !slices.Contains(md.MediaName.Formats, strconv.Itoa(pcmu)) {
		return errors.New("no PCMU")
	}
	candidates := 0
	for _, a := range md.Attributes {
		switch a.Key {
		case "candidate":
			candidates++
		case "rtpmap":
			pt, encoding, _ := strings.Cut(a.Value, " ")
			if pt == strconv.Itoa(pcmu) && !strings.EqualFold(strings.TrimSuffix(encoding, "/1"), "PCMU/8000") {
				return errors.New("payload type 0 is not PCMU")
			}
		}
	}
	if candidates > maxCandidates {
		return errCandidates
	}
	return nil
}
