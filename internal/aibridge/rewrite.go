package aibridge

import (
	"math/rand/v2"
	"time"

	"github.com/pion/rtp"
)

const (
	// clockRate of PCMU and of its telephone events, in ticks a second.
	clockRate = 8000
	// frame is one packet of 20 ms, in ticks.
	frame = clockRate / 50
	// maxDropout and maxMisorder are how far a sequence number may be ahead and behind in one stream (RFC 3550, A.1);
	// with more, another stream has begun.
	maxDropout  = 3000
	maxMisorder = 100
	// maxJump is how far a timestamp may be from what the clock says, in ticks. Hold and comfort noise stay far below.
	maxJump = 10 * clockRate
)

// rewriter makes one stream, with sequence numbers and timestamps that go on, of those that come after one another.
// What was lost or came late stays lost or late: nothing is held back. It is not safe for concurrent use.
type rewriter struct {
	// ssrc is that of the stream that is made.
	ssrc uint32

	started bool
	from    uint32 // the SSRC of the stream that is there now
	// What is added to the numbers of that stream.
	seqOffset uint16
	tsOffset  uint32
	// The newest packet that was made, and when.
	seq uint16
	ts  uint32
	at  time.Time
}

// newRewriter returns a rewriter with random beginnings (RFC 3550, 5.1).
func newRewriter(ssrc uint32) *rewriter {
	return &rewriter{ssrc: ssrc, seq: uint16(rand.Uint32()), ts: rand.Uint32()} //nolint:gosec // SRTP is what keeps secrets
}

// rewrite changes the header of a packet that came at a time. It returns false for one that is too late to be of use.
func (r *rewriter) rewrite(h *rtp.Header, now time.Time) bool {
	if !r.started || h.SSRC != r.from || r.restarted(h, now) {
		r.begin(h, now)
	} else if ahead := int16(h.SequenceNumber + r.seqOffset - r.seq); ahead < -maxMisorder { //nolint:gosec // numbers wrap
		return false
	}
	h.SSRC = r.ssrc
	h.SequenceNumber += r.seqOffset
	h.Timestamp += r.tsOffset
	if int16(h.SequenceNumber-r.seq) > 0 { //nolint:gosec // numbers wrap
		r.seq, r.ts, r.at = h.SequenceNumber, h.Timestamp, now
	}
	return true
}

// restarted tells whether a stream began anew under the same SSRC: its numbers jumped.
func (r *rewriter) restarted(h *rtp.Header, now time.Time) bool {
	ahead := int16(h.SequenceNumber + r.seqOffset - r.seq) //nolint:gosec // numbers wrap
	if ahead > maxDropout || ahead < -maxMisorder*10 {
		return true
	}
	elapsed := int64(now.Sub(r.at) * clockRate / time.Second)
	jump := int64(int32(h.Timestamp+r.tsOffset-r.ts)) - elapsed //nolint:gosec // numbers wrap
	return ahead > 0 && (jump > maxJump || jump < -maxJump)
}

// begin lets a stream go on where the last one was, as much later as it is.
func (r *rewriter) begin(h *rtp.Header, now time.Time) {
	elapsed := uint32(frame)
	if r.started {
		elapsed = max(frame, uint32(min(now.Sub(r.at), time.Hour)*clockRate/time.Second)) //nolint:gosec // at most an hour
	}
	r.seqOffset = r.seq + 1 - h.SequenceNumber
	r.tsOffset = r.ts + elapsed - h.Timestamp
	r.from, r.started = h.SSRC, true
	h.Marker = true
}
