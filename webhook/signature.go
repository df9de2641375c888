package webhook

import (
	"strconv"
	"strings"
	"time"

	"github.com/edgvoip/edgvoip/integration"
)

// The headers of a webhook. Idempotency-Key has the same value for every attempt; Subject and Sequence tell of what the
// event is and how it stands to the others of the same: a higher number tells something newer.
const (
	HeaderKey       = "X-Idempotency-Key"
	HeaderTimestamp = "X-Timestamp"
	HeaderSignature = "X-edgvoip-Signature"
	HeaderEvent     = "X-edgvoip-Event"
	HeaderSubject   = "X-edgvoip-Subject"
	HeaderSequence  = "X-edgvoip-Sequence"
)

// Method is how every event is sent.
const Method = "POST"

// Timestamp returns what X-Timestamp holds at a time: Unix seconds.
func Timestamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

// Sign returns what X-edgvoip-Signature holds: sha256= and integration.Sign, for each of the tenant's valid secrets,
// separated by a comma and a space. There is more than one while a secret is being rotated; a receiver takes the event
// if one is good.
func Sign(keys []string, timestamp, target string, body []byte) string {
	signatures := make([]string, len(keys))
	for i, key := range keys {
		signatures[i] = "sha256=" + integration.Sign(key, timestamp, Method, target, body)
	}
	return strings.Join(signatures, ", ")
}
