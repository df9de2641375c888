package aibridge

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// relay carries the media of one call, packet by packet, both ways: nothing is decoded, mixed or held back.
type relay struct {
	sockets pair
	metrics *Metrics
	// far is what the switch said last.
	far atomic.Pointer[media]
	// When the last packet of each side came that was good, in nanoseconds of time.Time.UnixNano.
	fromAgent, fromCaller atomic.Int64
	// spoken tells whether a packet came from the agent at all.
	spoken atomic.Bool

	// toCaller makes the stream to the switch; reception is what the switch sends. Both are for RTCP, too.
	sent      sending
	reception reception

	parts sync.WaitGroup
}

// maxPacket is more than a packet of PCMU has: 20 ms are 172 bytes, and no link has larger ones.
const maxPacket = 1500

// maxRate is how many packets of the agent are carried in a second: four times as many as a stream has, whose packets
// may come in heaps. It is the burst, too.
const maxRate = 200

func newRelay(ctx context.Context, addr netip.Addr, far media, m *Metrics) (*relay, error) {
	sockets, err := listenPair(ctx, addr)
	if err != nil {
		return nil, err
	}
	r := &relay{sockets: sockets, metrics: m}
	r.far.Store(&far)
	return r, nil
}

// start begins to carry. The watchdogs count from now.
func (r *relay) start(p *peer) {
	r.rest(time.Now())
	toCaller := newRewriter(randomSSRC())
	r.sent.ssrc = toCaller.ssrc
	r.parts.Go(func() { r.callerToAgent(p.out) })
	r.parts.Go(func() { r.agentToCaller(p, toCaller) })
	r.parts.Go(func() { r.report() })
}

// rest lets the watchdogs count from a moment.
func (r *relay) rest(now time.Time) {
	r.fromAgent.Store(now.UnixNano())
	r.fromCaller.Store(now.UnixNano())
}

// silence returns how long nothing came from the agent and from the switch.
func (r *relay) silence(now time.Time) (agent, caller time.Duration) {
	n := now.UnixNano()
	return time.Duration(n - r.fromAgent.Load()), time.Duration(n - r.fromCaller.Load())
}

// close ends the sockets and waits until nothing uses them. The peer must be closed before.
func (r *relay) close() {
	r.sockets.close()
	r.parts.Wait()
}

// callerToAgent carries what the switch sends, and only the switch: from where its SDP says.
func (r *relay) callerToAgent(out *outgoing) {
	writer, ssrc, events := out.bound()
	if writer == nil {
		return
	}
	rewriter := newRewriter(ssrc)
	buf := make([]byte, maxPacket)
	var h rtp.Header
	for {
		n, source, err := r.sockets.rtp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of what was sent
		}
		now, far := time.Now(), r.far.Load()
		payload, ok := parsePacket(&h, buf[:n])
		switch {
		case netip.AddrPortFrom(source.Addr().Unmap(), source.Port()) != far.rtp:
			r.metrics.dropped(fromCaller, dropStranger)
			continue
		case !ok:
			r.metrics.dropped(fromCaller, dropBroken)
			continue
		}
		r.fromCaller.Store(now.UnixNano())
		r.reception.add(h.SSRC, h.SequenceNumber, h.Timestamp, now)
		if why := prepare(&h, rewriter, far.events, events, far.direction.sends(), now); why != "" {
			r.metrics.dropped(fromCaller, why)
			continue
		}
		if _, err := writer.WriteRTP(&h, payload); err != nil {
			if errors.Is(err, io.ErrClosedPipe) {
				return
			}
			r.metrics.dropped(fromCaller, dropUnsent)
			continue
		}
		r.metrics.carried(fromCaller)
	}
}

// agentToCaller carries what the agent sends, once it sends, until the peer is closed.
func (r *relay) agentToCaller(p *peer, rewriter *rewriter) {
	_, _, events := p.out.bound()
	v := newVoice(r, rewriter, events)
	for stream := 1; ; stream++ {
		select {
		case in := <-p.tracks:
			p.drain(in.receiver.Read)
			r.parts.Go(func() { v.read(in, stream) })
		case <-p.lost:
			return
		}
	}
}

// isOtherCodec tells whether a packet could be read that is of no codec that the track began with.
func isOtherCodec(err error) bool { return errors.Is(err, webrtc.ErrCodecNotFound) }

// prepare makes the header of a packet what the other side expects, or says why the packet is not carried. The event
// types are those of telephone events here and there; open is false while nothing may go this way.
func prepare(h *rtp.Header, rewriter *rewriter, eventsHere, eventsThere int, open bool, now time.Time) (why dropReason) {
	pt, ok := mapType(h.PayloadType, eventsHere, eventsThere)
	switch {
	case !ok:
		return dropType
	case !open:
		return dropHeld
	}
	h.PayloadType = pt
	if !rewriter.rewrite(h, now) {
		return dropLate
	}
	return ""
}

// toSwitch sends a packet to the switch: a header of twelve bytes, without what concerned the agent's transport.
func (r *relay) toSwitch(h *rtp.Header, payload, out []byte, to netip.AddrPort, now time.Time) {
	plain := rtp.Header{
		Version: 2, Marker: h.Marker, PayloadType: h.PayloadType, SequenceNumber: h.SequenceNumber, Timestamp: h.Timestamp, SSRC: h.SSRC,
	}
	n, err := plain.MarshalTo(out)
	if err != nil || n+len(payload) > len(out) {
		r.metrics.dropped(fromAgent, dropBroken)
		return
	}
	n += copy(out[n:], payload)
	if _, err := r.sockets.rtp.WriteToUDPAddrPort(out[:n], to); err != nil {
		r.metrics.dropped(fromAgent, dropUnsent)
		return
	}
	r.sent.add(h.Timestamp, len(payload), now)
	r.metrics.carried(fromAgent)
}

// parsePacket reads a header and returns the payload without padding.
func parsePacket(h *rtp.Header, b []byte) ([]byte, bool) {
	*h = rtp.Header{}
	n, err := h.Unmarshal(b)
	if err != nil || h.Version != 2 {
		return nil, false
	}
	payload := b[n:]
	if h.Padding {
		if len(payload) == 0 || int(payload[len(payload)-1]) > len(payload) || payload[len(payload)-1] == 0 {
			return nil, false
		}
		payload = payload[:len(payload)-int(payload[len(payload)-1])]
		h.Padding, h.PaddingSize = false, 0
	}
	h.Extension, h.Extensions, h.CSRC = false, nil, nil
	return payload, len(payload) > 0
}

// mapType returns the payload type on the other side, and whether there is one.
func mapType(pt uint8, eventsHere, eventsThere int) (uint8, bool) {
	switch {
	case pt == pcmu:
		return pcmu, true
	case int(pt) == eventsHere && eventsThere != noEvents:
		return uint8(eventsThere), true //nolint:gosec // a payload type
	}
	return 0, false
}
