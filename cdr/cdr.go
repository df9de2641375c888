// Package cdr makes call records of what switches tell of their channels. A switch posts one document a channel, in any
// order, perhaps twice, perhaps late, perhaps never: Parse makes a leg of a document, Join makes the record of a call
// of the legs that are known, and the same legs always make the same record. Numbers and names come out of phones and
// carriers: they are hostile text, cleaned and bounded here.
package cdr

import (
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
)

// ErrUnknownCall is returned where there is no call, or document, of an id.
var ErrUnknownCall = errors.New("no such call record")

// Direction says which way a call went, as the tenant sees it.
type Direction string

// The directions.
const (
	Inbound  Direction = "inbound"  // from a carrier
	Outbound Direction = "outbound" // to a carrier
	Internal Direction = "internal" // between extensions, or to the switch itself
)

// Disposition says how a call ended.
type Disposition string

// The dispositions.
const (
	Answered  Disposition = "answered"
	NoAnswer  Disposition = "no_answer" // nobody took it in time, or no phone was there
	Busy      Disposition = "busy"
	Cancelled Disposition = "cancelled" // the caller gave up
	Refused   Disposition = "refused"   // by us, or by who was called
	Failed    Disposition = "failed"
)

// Leg is what one channel tells. A field that the document does not have is zero.
type Leg struct {
	ID uuid.UUID
	// Parent is the channel that called this one; zero for a calling channel.
	Parent uuid.UUID
	// TenantID is the tenant that the dialplan wrote down. Without it, Realm, TrunkID and Called are what is left to
	// tell.
	TenantID uuid.UUID
	Realm    string
	// Called is the number that a carrier asked for.
	Called    string
	TrunkID   uuid.UUID
	CallerID  uuid.UUID
	CalleeID  uuid.UUID
	Direction Direction // empty if the dialplan did not write it down
	// Outside tells that a calling channel came from a carrier.
	Outside bool
	// From and To are the numbers as they first came.
	From, To string
	// Transferred is where the channel was sent later, at TransferredAt; empty if it never was.
	Transferred   string
	TransferredAt time.Time
	// Joined is the channel that an attended transfer connected this one with, JoinedTo the number there, at JoinedAt.
	// On the channel of who transferred, HandedOn is whom he connected the other side with, and Consulted the channel
	// on which he asked.
	Joined, HandedOn, Consulted uuid.UUID
	JoinedTo                    string
	JoinedAt                    time.Time
	// Times are exact to the microsecond and in UTC; Answer and End are zero if that did not happen.
	Start, Answer, End time.Time
	// Cause is why it ended, in FreeSWITCH's words: NORMAL_CLEARING. BridgeCause is why its last bridge did.
	Cause, BridgeCause string
	// HungUp is who ended it and how: recv_bye, send_cancel. SIPStatus is the last SIP answer, 0 if unknown.
	HungUp    string
	SIPStatus int
	// Route and Reason are how the dialplan decided.
	Route, Reason string
	// Recording is where the recording goes, relative to the directory of recordings.
	Recording string
	// Reconstructed tells that the leg was made of an event, as its document did not come.
	Reconstructed bool
	// Erased tells that a person's number was erased from it.
	Erased bool
}

// IsCalling tells whether the leg is the calling channel of a call.
func (l Leg) IsCalling() bool { return l.Parent == uuid.Nil }

// Supersedes tells whether of two records of one channel this is the one to keep: a document before what was
// reconstructed, then the one that ended later.
func (l Leg) Supersedes(other Leg) bool {
	switch {
	case l.Erased != other.Erased:
		return l.Erased
	case l.Reconstructed != other.Reconstructed:
		return other.Reconstructed
	case !l.End.Equal(other.End):
		return l.End.After(other.End)
	}
	return compare(l, other) < 0
}

// compare orders legs in a way that depends on nothing but what they say.
func compare(a, b Leg) int {
	return slices.Compare(key(a), key(b))
}

func key(l Leg) []string {
	at := func(t time.Time) string { return t.Format("20060102150405.000000") }
	return []string{
		at(l.Start), l.ID.String(), at(l.Answer), at(l.End), l.Parent.String(), l.TenantID.String(), l.TrunkID.String(),
		l.CallerID.String(), l.CalleeID.String(), string(l.Direction), l.From, l.To, l.Transferred, at(l.TransferredAt), l.Cause, l.BridgeCause,
		l.HungUp, l.Route, l.Reason, l.Recording, l.Called, l.Realm, l.Joined.String(), l.HandedOn.String(), l.Consulted.String(), l.JoinedTo,
		at(l.JoinedAt),
	}
}

// Call is the record of a call. A field of which nothing is known is zero.
type Call struct {
	TenantID uuid.UUID
	// ID is the UUID of the calling channel.
	ID uuid.UUID
	// StoreID is that of the trunk when the call was recorded: no leg tells it.
	StoreID   uuid.UUID
	From, To  string
	Direction Direction
	// Times are exact to the microsecond and in UTC.
	Start, Answer, End time.Time
	Disposition        Disposition
	Cause              string
	// TrunkID is the carrier that the call came from, or that took it, or that was tried last.
	TrunkID            uuid.UUID
	CallerID, CalleeID uuid.UUID
	// AnsweredBy is the number of who took it at last, TransferredTo of whom it was handed on to.
	AnsweredBy, TransferredTo string
	// RelatedID is the other call of an attended transfer: that on which was asked, or that which was handed on. Join
	// knows it by a channel of that call.
	RelatedID     uuid.UUID
	Route, Reason string
	// AgentRef names the agent of W3 that the call was routed to; empty if it was not. Join does not know it.
	AgentRef              string
	Recording             string
	Reconstructed, Erased bool
}

// Duration is from start to end in whole seconds.
func (c Call) Duration() int { return seconds(c.Start, c.End) }

// BillSec is from answer to end in whole seconds.
func (c Call) BillSec() int { return seconds(c.Answer, c.End) }

func seconds(from, to time.Time) int {
	if from.IsZero() || to.Before(from) {
		return 0
	}
	return int(to.Sub(from) / time.Second)
}

// Bounds on text that comes from outside.
const (
	numberBytes = 64
	wordBytes   = 64
)

// clean makes text of strangers fit to be kept: no control or formatting characters, no bytes that are not UTF-8, and
// not longer than so many bytes.
func clean(s string, most int) string {
	s = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "")))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}
