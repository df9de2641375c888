package aibridge

import (
	"time"

	"github.com/emiago/sipgo/sip"
)

// change answers a re-INVITE or UPDATE: the switch holds the call, moves its media, or refreshes the dialog. What is
// refused changes nothing.
func (c *call) change(req *sip.Request) *sip.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dialog.take(req) {
		return c.dialog.response(req, sip.StatusInternalServerError, "Out Of Order", nil, sip.NewHeader("Retry-After", "1"))
	}
	if c.relay == nil {
		return c.dialog.response(req, statusRequestPending, "Request Pending", nil)
	}
	timer, tooShort := readTimer(req, c.bridge.opts.MinSessionExpires, time.Now())
	if tooShort {
		return c.dialog.response(req, statusIntervalTooSmall, statusText(statusIntervalTooSmall), nil, c.bridge.minSE())
	}
	far := *c.relay.far.Load()
	offered := len(req.Body()) > 0
	if offered {
		var err error
		if far, err = c.readMedia(req.Body()); err != nil {
			return c.dialog.response(req, sip.StatusNotAcceptableHere, statusText(sip.StatusNotAcceptableHere), nil)
		}
		c.move(far)
	}
	c.timer = timer
	var body []byte
	if offered || req.IsInvite() {
		body = c.answerChange(req, far, offered)
	}
	return c.dialog.response(req, sip.StatusOK, "OK", body, timer.headers()...)
}

// answerChange returns our SDP, in answer to an offer or, without one, as an offer that the ACK will answer. The caller
// has the lock.
func (c *call) answerChange(req *sip.Request, far media, offered bool) []byte {
	c.local.version++
	if c.late = 0; !offered {
		c.late = req.CSeq().SeqNo
	}
	return c.local.answer(far)
}

// statusRequestPending is 491 of RFC 3261 (14.2).
const statusRequestPending = 491

// lateAnswer takes the answer to an offer of ours, which came in a 200 and is answered in the ACK (RFC 3264, 13.2.1 of
// RFC 3261).
func (c *call) lateAnswer(ack *sip.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.late == 0 || ack.CSeq() == nil || ack.CSeq().SeqNo != c.late {
		return
	}
	c.late = 0
	if far, err := c.readMedia(ack.Body()); err == nil {
		c.move(far)
	}
}

// move sends media to where the switch wants it now, and tells the agent of a hold that begins or ends. The caller has
// the lock.
func (c *call) move(far media) {
	before := c.relay.far.Swap(&far)
	if far.direction == before.direction {
		return
	}
	c.relay.rest(time.Now())
	if held := far.direction != sendrecv; held != (before.direction != sendrecv) {
		select {
		case <-c.held: // one that nobody heard of is overtaken
		default:
		}
		c.held <- held
	}
}
