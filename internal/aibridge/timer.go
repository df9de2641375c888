package aibridge

import (
	"strconv"
	"strings"
	"time"

	"github.com/emiago/sipgo/sip"
)

// minSessionExpires is the shortest interval that is accepted (RFC 4028, 5).
const minSessionExpires = 90 * time.Second

// sessionTimer tells when a dialog must be refreshed, and when it is dead (RFC 4028). The zero value never expires.
type sessionTimer struct {
	interval time.Duration
	// ours is true if we refresh.
	ours bool
	// at is when it was refreshed last.
	at time.Time
}

// readTimer returns the timer that a request asks for. tooShort means that it is to be refused with 422.
func readTimer(req *sip.Request, least time.Duration, now time.Time) (t sessionTimer, tooShort bool) {
	h := req.GetHeader("Session-Expires")
	if h == nil {
		h = req.GetHeader("x")
	}
	if h == nil {
		return sessionTimer{}, false
	}
	seconds, params, _ := strings.Cut(h.Value(), ";")
	n, err := strconv.ParseUint(strings.TrimSpace(seconds), 10, 31)
	if err != nil {
		return sessionTimer{}, false // what cannot be read asks for nothing
	}
	t = sessionTimer{interval: time.Duration(n) * time.Second, at: now}
	for p := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "refresher") && strings.EqualFold(strings.TrimSpace(value), "uas") {
			t.ours = true
		}
	}
	// Whoever does not know timers does not refresh.
	t.ours = t.ours || !supports(req, "timer")
	return t, t.interval < least
}

// minSE says in a 422 which interval would have been long enough (RFC 4028, 5).
func (b *Bridge) minSE() sip.Header {
	return sip.NewHeader("Min-SE", strconv.Itoa(int(b.opts.MinSessionExpires/time.Second)))
}

// headers say in a 2xx what was agreed.
func (t sessionTimer) headers() []sip.Header {
	switch {
	case t.interval == 0:
		return nil
	case t.ours:
		return []sip.Header{sip.NewHeader("Session-Expires", t.seconds()+";refresher=uas")}
	default:
		return []sip.Header{sip.NewHeader("Require", "timer"), sip.NewHeader("Session-Expires", t.seconds()+";refresher=uac")}
	}
}

func (t sessionTimer) seconds() string { return strconv.Itoa(int(t.interval / time.Second)) }

// refreshDue tells whether we must refresh now: half of the interval is over.
func (t sessionTimer) refreshDue(now time.Time) bool {
	return t.interval > 0 && t.ours && now.Sub(t.at) >= t.interval/2
}

// expired tells whether nobody refreshed: shortly before the end, as both sides must agree that it is over (RFC 4028,
// 10).
func (t sessionTimer) expired(now time.Time) bool {
	return t.interval > 0 && now.Sub(t.at) >= t.interval-min(32*time.Second, t.interval/3)
}
