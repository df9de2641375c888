package cdr

import (
	"slices"
	"time"

	"github.com/google/uuid"
)

// Join makes the record of a call of its legs. It depends on which legs there are, and on nothing else: not on their
// order, nor on one that is there twice. There is at least one; without a calling leg, which may be lost, the first
// stands in.
func Join(id uuid.UUID, legs []Leg) Call {
	legs = settle(legs)
	root := legs[0]
	called := make([]Leg, 0, len(legs))
	if i := slices.IndexFunc(legs, func(l Leg) bool { return l.ID == id }); i >= 0 {
		root = legs[i]
	}
	for _, l := range legs {
		if l.ID != id {
			called = append(called, l)
		}
	}
	c := Call{
		TenantID: root.TenantID, ID: id, From: root.From, To: root.To, Start: root.Start, Answer: root.Answer, End: root.End,
		Cause: root.Cause, CallerID: root.CallerID, CalleeID: root.CalleeID, Route: root.Route, Reason: root.Reason,
	}
	c.Direction = direction(root, called)
	c.TrunkID = carrier(c.Direction, root, called)
	c.span(root, called)
	c.takers(root, called)
	c.sum(legs)
	if c.Answer.IsZero() {
		c.Recording = "" // it begins with the answer
	}
	c.Disposition = disposition(c, root)
	return c
}

// settle puts legs in an order of their own and keeps one record of each channel.
func settle(legs []Leg) []Leg {
	best := map[uuid.UUID]Leg{}
	for _, l := range legs {
		if kept, there := best[l.ID]; !there || l.Supersedes(kept) {
			best[l.ID] = l
		}
	}
	list := make([]Leg, 0, len(best))
	for _, l := range best {
		list = append(list, l)
	}
	slices.SortFunc(list, compare)
	return list
}

func direction(root Leg, called []Leg) Direction {
	switch {
	case root.Direction != "":
		return root.Direction
	case root.Outside:
		return Inbound
	case slices.ContainsFunc(called, func(l Leg) bool { return l.TrunkID != uuid.Nil }):
		return Outbound
	default:
		return Internal
	}
}

// carrier returns the trunk of a call. If several were tried, it is the one that took it, or the last.
func carrier(d Direction, root Leg, called []Leg) uuid.UUID {
	if d != Outbound {
		return root.TrunkID
	}
	trunk, answered := root.TrunkID, false
	for _, l := range called {
		if l.TrunkID != uuid.Nil && (!answered || !l.Answer.IsZero()) {
			trunk, answered = l.TrunkID, !l.Answer.IsZero()
		}
	}
	return trunk
}

// span finds when the call was answered and when it ended: with its last leg that was answered, as the caller may have
// handed it on and gone.
func (c *Call) span(root Leg, called []Leg) {
	for _, l := range called {
		if l.Answer.IsZero() {
			continue
		}
		// A calling channel that is missing, or never answered because its switch died.
		if root.Answer.IsZero() && (c.Answer.IsZero() || l.Answer.Before(c.Answer)) {
			c.Answer = l.Answer
		}
		if l.End.After(c.End) {
			c.End = l.End
		}
	}
}

// takers finds who took the call at last, and whom it was handed on to at last.
func (c *Call) takers(root Leg, called []Leg) {
	var taken, handed Leg
	for _, l := range called {
		if !l.Answer.IsZero() && (taken.ID == uuid.Nil || l.Answer.After(taken.Answer)) {
			taken = l
		}
	}
	if taken.ID != uuid.Nil {
		c.AnsweredBy = taken.To
		if taken.CalleeID != uuid.Nil {
			c.CalleeID = taken.CalleeID
		}
	}
	for _, l := range append([]Leg{root}, called...) {
		if l.Transferred != "" && (handed.ID == uuid.Nil || l.TransferredAt.After(handed.TransferredAt)) {
			handed = l
		}
	}
	c.TransferredTo = handed.Transferred
	c.attended(append([]Leg{root}, called...), handed.TransferredAt)
}

// attended finds the other call of an attended transfer, and whom this one was handed on to if it was, at a later time
// than another transfer.
func (c *Call) attended(legs []Leg, after time.Time) {
	for _, l := range legs {
		i := slices.IndexFunc(legs, func(by Leg) bool { return by.HandedOn != uuid.Nil && by.HandedOn == l.Joined })
		switch {
		case i >= 0 && !l.JoinedAt.Before(after.Truncate(time.Second)):
			c.TransferredTo, c.RelatedID, after = l.JoinedTo, legs[i].Consulted, l.JoinedAt
		case i < 0 && c.RelatedID == uuid.Nil && !slices.ContainsFunc(legs, func(o Leg) bool { return o.ID == l.Joined }):
			c.RelatedID = l.Joined
		}
	}
}

// sum takes from whichever leg has it what belongs to the whole call.
func (c *Call) sum(legs []Leg) {
	for _, l := range legs {
		if c.Recording == "" {
			c.Recording = l.Recording
		}
		c.Reconstructed = c.Reconstructed || l.Reconstructed
		c.Erased = c.Erased || l.Erased
	}
}

// dispositions are what the causes of FreeSWITCH (switch_types.h, switch_call_cause_t) mean for a call that nobody
// took.
var dispositions = map[string]Disposition{
	"USER_BUSY":                 Busy,
	"NO_ANSWER":                 NoAnswer,
	"NO_USER_RESPONSE":          NoAnswer,
	"ALLOTTED_TIMEOUT":          NoAnswer,
	"SUBSCRIBER_ABSENT":         NoAnswer,
	"USER_NOT_REGISTERED":       NoAnswer,
	"ORIGINATOR_CANCEL":         Cancelled,
	"CALL_REJECTED":             Refused,
	"INCOMING_CALL_BARRED":      Refused,
	"OUTGOING_CALL_BARRED":      Refused,
	"BEARERCAPABILITY_NOTAUTH":  Refused,
	"INCOMPATIBLE_DESTINATION":  Failed,
	"NORMAL_TEMPORARY_FAILURE":  Failed,
	"UNALLOCATED_NUMBER":        Failed,
	"NO_ROUTE_DESTINATION":      Failed,
	"DESTINATION_OUT_OF_ORDER":  Failed,
	"RECOVERY_ON_TIMER_EXPIRE":  Failed,
	"NETWORK_OUT_OF_ORDER":      Failed,
	"NORMAL_CIRCUIT_CONGESTION": Failed,
}

// routeRefused is the route of a call that the dialplan let nowhere.
const routeRefused = "refused"

func disposition(c Call, root Leg) Disposition {
	if !c.Answer.IsZero() {
		return Answered
	}
	if root.HungUp == "recv_cancel" {
		return Cancelled
	}
	d, known := dispositions[root.Cause]
	switch {
	case known && d != Failed:
		return d
	case root.Route == routeRefused:
		return Refused
	case known:
		return d
	}
	// The channel itself says no more than that it ended.
	if d, known := dispositions[root.BridgeCause]; known {
		return d
	}
	return Failed
}
