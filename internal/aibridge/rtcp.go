package aibridge

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/rtcp"
)

// reportInterval is that of RTCP reports to the switch (RFC 3550, 6.2: five seconds).
const reportInterval = 5 * time.Second

func randomSSRC() uint32 { return rand.Uint32() } //nolint:gosec // a name, no secret

// sending is what a sender report tells. It is safe for concurrent use.
type sending struct {
	ssrc uint32 // set before it is used

	mu              sync.Mutex
	packets, octets uint32
	timestamp       uint32
	at              time.Time
}

func (s *sending) add(timestamp uint32, octets int, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.packets++
	s.octets += uint32(octets) //nolint:gosec // at most a packet
	s.timestamp, s.at = timestamp, at
}

// reception is what a reception report tells (RFC 3550, A.3, A.8). It is safe for concurrent use.
type reception struct {
	mu sync.Mutex
	stream
	// The last sender report of the other side, and when it came.
	senderReport uint32
	senderAt     time.Time
}

// stream is what is counted of one SSRC.
type stream struct {
	begun          bool
	ssrc           uint32
	base, highest  uint32 // sequence numbers, with the turns that they have made in the upper half
	packets        uint32
	expectedBefore uint32
	packetsBefore  uint32
	transit        int64
	jitter         float64
}

// add counts a packet.
func (r *reception) add(ssrc uint32, seq uint16, ts uint32, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	transit := at.UnixMicro()*clockRate/1e6 - int64(ts)
	if ahead := seq - uint16(r.highest); !r.begun || ssrc != r.ssrc || ahead > maxDropout && ahead < 1<<16-maxMisorder { //nolint:gosec // the lower half
		r.stream = stream{begun: true, ssrc: ssrc, base: uint32(seq), highest: uint32(seq), transit: transit}
	} else if ahead < 1<<15 {
		r.highest += uint32(ahead)
	}
	r.packets++
	d := float64(int32(transit - r.transit)) //nolint:gosec // timestamps wrap
	r.transit = transit
	r.jitter += (max(d, -d) - r.jitter) / 16
}

// heard notes a sender report of the other side: the middle of its NTP time.
func (r *reception) heard(ntp uint64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.senderReport, r.senderAt = uint32(ntp>>16), at //nolint:gosec // the middle
}

// report returns what is to be told, if there is anything.
func (r *reception) report(now time.Time) []rtcp.ReceptionReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.begun {
		return nil
	}
	expected := r.highest - r.base + 1
	lost := int64(expected) - int64(r.packets)
	newly := expected - r.expectedBefore
	newlyLost := int64(newly) - int64(r.packets-r.packetsBefore)
	r.expectedBefore, r.packetsBefore = expected, r.packets
	out := rtcp.ReceptionReport{
		SSRC: r.ssrc, TotalLost: uint32(min(max(lost, 0), 1<<23-1)), LastSequenceNumber: r.highest, Jitter: uint32(r.jitter),
	}
	if newly > 0 && newlyLost > 0 {
		out.FractionLost = uint8(min(newlyLost<<8/int64(newly), 255)) //nolint:gosec // bounded
	}
	if !r.senderAt.IsZero() {
		out.LastSenderReport = r.senderReport
		out.Delay = uint32(now.Sub(r.senderAt) * 65536 / time.Second) //nolint:gosec // a report comes every few seconds
	}
	return []rtcp.ReceptionReport{out}
}

// report exchanges RTCP with the switch until the socket is closed.
func (r *relay) report() {
	buf := make([]byte, maxPacket)
	next := time.Now().Add(reportInterval)
	for {
		if err := r.sockets.rtcp.SetReadDeadline(next); err != nil {
			return
		}
		n, source, err := r.sockets.rtcp.ReadFromUDPAddrPort(buf)
		now := time.Now()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			r.sendReport(now)
			next = now.Add(reportInterval)
		case err == nil:
			r.readReport(buf[:n], source, now)
		}
	}
}

// readReport takes the time of the switch's sender report, so that it can tell the way there and back from ours.
func (r *relay) readReport(b []byte, source netip.AddrPort, now time.Time) {
	if source.Addr().Unmap() != r.far.Load().rtcp.Addr() {
		return
	}
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		return
	}
	for _, p := range packets {
		if sr, ok := p.(*rtcp.SenderReport); ok {
			r.reception.heard(sr.NTPTime, now)
		}
	}
}

func (r *relay) sendReport(now time.Time) {
	to := r.far.Load().rtcp
	if to.Addr().IsUnspecified() {
		return
	}
	b, err := rtcp.Marshal([]rtcp.Packet{r.sent.report(r.reception.report(now), now), &rtcp.SourceDescription{
		Chunks: []rtcp.SourceDescriptionChunk{{Source: r.sent.ssrc, Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "ai-bridge"}}}},
	}})
	if err == nil {
		_, _ = r.sockets.rtcp.WriteToUDPAddrPort(b, to) // whoever does not listen needs no report
	}
}

// report returns a sender report, or a receiver report while nothing was sent (RFC 3550, 6.4).
func (s *sending) report(reports []rtcp.ReceptionReport, now time.Time) rtcp.Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.packets == 0 {
		return &rtcp.ReceiverReport{SSRC: s.ssrc, Reports: reports}
	}
	return &rtcp.SenderReport{
		SSRC: s.ssrc, NTPTime: ntp(now), RTPTime: s.timestamp + uint32(now.Sub(s.at)*clockRate/time.Second), //nolint:gosec // timestamps wrap
		PacketCount: s.packets, OctetCount: s.octets, Reports: reports,
	}
}

// ntp returns a time as RTCP has it: seconds since 1900, and fractions in the lower half.
func ntp(t time.Time) uint64 {
	const since1900 = 2208988800
	return uint64(t.Unix()+since1900)<<32 | uint64(t.Nanosecond())<<32/1e9 //nolint:gosec // after 1970
}
