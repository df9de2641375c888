package aibridge

import (
	"sync"
	"time"

	"github.com/pion/rtp"
	"golang.org/x/time/rate"
)

// floorPause is how long the stream that is heard must be silent before an older one is heard again.
const floorPause = 100 * time.Millisecond

// voice makes the one stream that the switch hears of those that the agent sends. An agent that begins anew in mid-call
// begins another one, under another SSRC: the newest that speaks is heard. It is safe for concurrent use.
type voice struct {
	relay *relay
	// events is the agent's payload type of telephone events.
	events int
	limit  *rate.Limiter

	mu       sync.Mutex // guards what follows
	rewriter *rewriter
	out      []byte
	heard    int // the stream that is heard; they are counted as they come
	at       time.Time
}

func newVoice(r *relay, rewriter *rewriter, events int) *voice {
	return &voice{relay: r, events: events, limit: rate.NewLimiter(maxRate, maxRate), rewriter: rewriter, out: make([]byte, maxPacket)}
}

// read carries what comes on one stream, until the peer is closed.
func (v *voice) read(in incoming, stream int) {
	buf := make([]byte, maxPacket)
	var h rtp.Header
	for {
		n, _, err := in.track.Read(buf)
		if err != nil && !isOtherCodec(err) {
			return
		}
		payload, ok := parsePacket(&h, buf[:n])
		if !ok {
			v.relay.metrics.dropped(fromAgent, dropBroken)
			continue
		}
		if why := v.carry(&h, payload, stream, time.Now()); why != "" {
			v.relay.metrics.dropped(fromAgent, why)
		}
	}
}

// carry sends a packet of a stream to the switch, or says why it does not.
func (v *voice) carry(h *rtp.Header, payload []byte, stream int, now time.Time) (why dropReason) {
	far := v.relay.far.Load()
	v.relay.fromAgent.Store(now.UnixNano())
	v.relay.spoken.Store(true)
	if !v.limit.AllowN(now, 1) {
		return dropFlood
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if !v.mayBeHeard(stream, now) {
		return dropStream
	}
	if why := prepare(h, v.rewriter, v.events, far.events, far.direction.receives() && !far.rtp.Addr().IsUnspecified(), now); why != "" {
		return why
	}
	v.relay.toSwitch(h, payload, v.out, far.rtp, now)
	return ""
}

// mayBeHeard tells whether a stream is the one that is heard now. The caller has the lock.
func (v *voice) mayBeHeard(stream int, now time.Time) bool {
	if stream < v.heard && now.Sub(v.at) <= floorPause {
		return false
	}
	v.heard, v.at = stream, now
	return true
}
