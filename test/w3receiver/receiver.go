// Package w3receiver is W3's receiving side of the webhooks as W3 might write it: it verifies signatures, takes each
// event once whatever its sender repeats, and answers 200 only for what is on its disk. Tests and mockw3 use it, and
// can make it slow, full, silent or a liar. docs/integration.md says why each step is there.
package w3receiver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxSkew is how old a signature may be, and how far ahead of our clock.
const maxSkew = 300 * time.Second

// maxBody bounds what is read of a request.
const maxBody = 1 << 20

// Behaviour is how a receiver misbehaves. The zero value behaves.
type Behaviour struct {
	// DelayMillis is how long each request waits before it is looked at.
	DelayMillis int `json:"delayMillis"`
	// FailPercent of the requests are answered 500 and nothing else.
	FailPercent int `json:"failPercent"`
	// RetryAfter makes every answer 429, with this Retry-After, in seconds or as a date.
	RetryAfter string `json:"retryAfter"`
	// Hang leaves every request without an answer.
	Hang bool `json:"hang"`
	// DropPercent of the events are taken, and their connection is closed without an answer.
	DropPercent int `json:"dropPercent"`
	// LiePercent of the events are taken, and answered 500.
	LiePercent int `json:"liePercent"`
	// Status is answered to every event that is good, which is not taken; zero means that events are taken.
	Status int `json:"status"`
}

// Report is what a receiver has seen.
type Report struct {
	// Received is how often events came that were signed well; Effects how many had their effect.
	Received int `json:"received"`
	Effects  int `json:"effects"`
	// Keys is how often each key was received.
	Keys map[string]int `json:"keys"`
	// Bodies is the SHA-256, in hex, of the body that each key came with first.
	Bodies map[string]string `json:"bodies"`
	// Subjects is how many events of each subject had their effect.
	Subjects map[string]int `json:"subjects"`
	// Absorbed are calls that turned out to be parts of others, each with the other: W3 forgets them.
	Absorbed map[string]string `json:"absorbed"`
	// OutOfOrder are keys whose event had its effect after a newer one of the same subject.
	OutOfOrder []string `json:"outOfOrder"`
	// Conflicts are keys that came with two different bodies.
	Conflicts []string `json:"conflicts"`
	// Refused is how many requests were not believed, by reason.
	Refused map[string]int `json:"refused"`
}

// Options are what a receiver is made of.
type Options struct {
	// Secrets are those of all tenants that it takes events of; a signature by any of them is good.
	Secrets []string
	// State is the file that keeps what was taken; empty means that it is forgotten.
	State string
	// Now is the clock; nil means the machine's.
	Now func() time.Time
	// Took is called for each event when it has its effect, one at a time; it may be nil.
	Took func(key, subject string, body []byte)
}

// Receiver takes webhooks over HTTP, under any leading path. It is safe for concurrent use.
type Receiver struct {
	opts    Options
	journal *journal

	mu        sync.Mutex // guards what follows
	secrets   []string
	behaviour Behaviour
	report    Report
	bodies    map[string]string // of each key
	newest    map[string]int64  // of each subject
	seen      map[string]string // the key that each signature came with
}

// New returns a receiver that knows what its state file tells. Close it.
func New(o Options) (*Receiver, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Receiver{
		opts: o, secrets: o.Secrets, bodies: map[string]string{}, newest: map[string]int64{}, seen: map[string]string{},
		report: Report{Keys: map[string]int{}, Subjects: map[string]int{}, Absorbed: map[string]string{}, Refused: map[string]int{}},
	}
	var err error
	r.journal, err = openJournal(o.State, func(e entry) { r.note(e) })
	return r, err
}

// Close closes the state file.
func (r *Receiver) Close() error { return r.journal.close() }

// Behave makes the receiver misbehave, or behave again.
func (r *Receiver) Behave(b Behaviour) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.behaviour = b
}

// Trust sets the secrets whose signatures are good.
func (r *Receiver) Trust(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets = secrets
}

// Report returns what the receiver has seen.
func (r *Receiver) Report() Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.report
	out.Keys, out.Subjects, out.Refused = maps.Clone(out.Keys), maps.Clone(out.Subjects), maps.Clone(out.Refused)
	out.Bodies, out.Absorbed = maps.Clone(r.bodies), maps.Clone(out.Absorbed)
	out.OutOfOrder, out.Conflicts = append([]string{}, out.OutOfOrder...), append([]string{}, out.Conflicts...)
	return out
}

// ServeHTTP takes a webhook.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	b := r.behaviour
	r.mu.Unlock()
	// Read first: net/http tells that the other side is gone only when there is nothing more to read.
	body, err := io.ReadAll(io.LimitReader(q.Body, maxBody))
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	select {
	case <-time.After(time.Duration(b.DelayMillis) * time.Millisecond):
	case <-q.Context().Done():
		return
	}
	switch {
	case b.Hang:
		<-q.Context().Done()
		return
	case b.RetryAfter != "":
		w.Header().Set("Retry-After", b.RetryAfter)
		w.WriteHeader(http.StatusTooManyRequests)
		return
	case chance(b.FailPercent):
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	status, taken := r.take(q, body, b)
	switch {
	case taken && chance(b.DropPercent):
		panic(http.ErrAbortHandler) // closes the connection
	case taken && chance(b.LiePercent):
		status = http.StatusInternalServerError
	}
	w.WriteHeader(status)
}

func chance(percent int) bool { return rand.IntN(100) < percent } //nolint:gosec // no secret

// take verifies a request and takes its event, unless it was taken before. It returns when that is on the disk.
func (r *Receiver) take(q *http.Request, body []byte, b Behaviour) (status int, taken bool) {
	e, refused := r.verify(q, body)
	if refused != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report.Refused[refused]++
		return http.StatusUnauthorized, false
	}
	if b.Status != 0 {
		return b.Status, false
	}
	end, err := r.keep(e, body)
	if err == nil {
		err = r.journal.commit(end)
	}
	if err != nil {
		return http.StatusInternalServerError, false
	}
	return http.StatusOK, true
}

// keep notes an event and adds it to the journal, in the same order.
func (r *Receiver) keep(e entry, body []byte) (end int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// What comes twice is written down twice, so that the report lives as long as the file.
	if end, err = r.journal.add(e); err != nil {
		return 0, err
	}
	if r.note(e) && r.opts.Took != nil {
		r.opts.Took(e.Key, e.Subject, body)
	}
	return end, nil
}

// note takes an event into the report, and tells whether it has its effect now.
func (r *Receiver) note(e entry) (effect bool) {
	r.report.Received++
	r.report.Keys[e.Key]++
	if before, ok := r.bodies[e.Key]; ok {
		if before != e.Body {
			r.report.Conflicts = append(r.report.Conflicts, e.Key)
		}
		return false
	}
	r.bodies[e.Key] = e.Body
	r.report.Effects++
	r.report.Subjects[e.Subject]++
	switch {
	case e.Sequence < r.newest[e.Subject]:
		r.report.OutOfOrder = append(r.report.OutOfOrder, e.Key)
	case e.AbsorbedBy != "":
		r.report.Absorbed[e.Subject] = e.AbsorbedBy
	default:
		delete(r.report.Absorbed, e.Subject)
	}
	r.newest[e.Subject] = max(r.newest[e.Subject], e.Sequence)
	return true
}

// verify tells what a request brings, or why it is not believed.
func (r *Receiver) verify(q *http.Request, body []byte) (e entry, refused string) {
	timestamp, key := q.Header.Get("X-Timestamp"), q.Header.Get("X-Idempotency-Key")
	at, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || r.opts.Now().Sub(time.Unix(at, 0)).Abs() > maxSkew {
		return e, "timestamp"
	}
	if q.Method != http.MethodPost || q.Header.Get("Content-Type") != "application/json" {
		return e, "form"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	signature, ok := r.good(q.Header.Values("X-edgvoip-Signature"), timestamp+q.Method+q.RequestURI, body)
	if !ok {
		return e, "signature"
	}
	// The key is not signed: a request that was overheard must not have its effect again under another.
	if other, ok := r.seen[signature]; ok && other != key {
		return e, "replayed"
	}
	sequence, err := strconv.ParseInt(q.Header.Get("X-edgvoip-Sequence"), 10, 64)
	var told struct {
		AbsorbedBy string `json:"absorbedBy"`
	}
	if err != nil || key == "" || json.Unmarshal(body, &told) != nil {
		return e, "form"
	}
	r.seen[signature] = key
	sum := sha256.Sum256(body)
	return entry{
		Key: key, Subject: q.Header.Get("X-edgvoip-Subject"), Sequence: sequence, Kind: q.Header.Get("X-edgvoip-Event"),
		Body: hex.EncodeToString(sum[:]), AbsorbedBy: told.AbsorbedBy,
	}, ""
}

// good returns the one of the signatures that a secret of ours made.
func (r *Receiver) good(headers []string, signed string, body []byte) (string, bool) {
	for given := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		given, ok := strings.CutPrefix(strings.TrimSpace(given), "sha256=")
		mac, err := hex.DecodeString(given)
		if !ok || err != nil {
			continue
		}
		for _, s := range r.secrets {
			h := hmac.New(sha256.New, []byte(s))
			_, _ = h.Write([]byte(signed)) // a hash does not fail
			_, _ = h.Write(body)
			if hmac.Equal(mac, h.Sum(nil)) {
				return given, true
			}
		}
	}
	return "", false
}
