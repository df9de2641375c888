package cdr

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Record is a call record as it is stored.
type Record struct {
	Call
	// Revision counts what was told of the call: 1 is the first.
	Revision int
	// RecordingState is one of those below, RecordingURL where the recording can be asked for: empty until it is ready.
	RecordingState RecordingState
	RecordingURL   string
	// AbsorbedBy is the call that this one turned out to be a part of; zero for a call that goes on.
	AbsorbedBy uuid.UUID
}

// Absorbed returns what is left of the record of a call that is a part of another, whose record tells all of it: which
// one, when it began, and of what kind it was, so that nothing is told or counted twice. A recording that is not the
// other's stays with it.
func (r Record) Absorbed(by Record) Record {
	left := Record{
		Call: Call{
			TenantID: r.TenantID, ID: r.ID, Direction: r.Direction, Start: r.Start, Disposition: r.Disposition,
			Reconstructed: r.Reconstructed, Erased: r.Erased || by.Erased,
		},
		Revision: r.Revision + 1, RecordingState: RecordingNone, AbsorbedBy: by.ID,
	}
	if r.Recording != "" && (r.Recording != by.Recording || r.RecordingState == RecordingRemoved) {
		left.Recording, left.RecordingState, left.RecordingURL = r.Recording, r.RecordingState, r.RecordingURL
	}
	return left
}

// RecordingState says what is known of the recording of a call.
type RecordingState string

// The states.
const (
	RecordingNone     RecordingState = "none"
	RecordingExpected RecordingState = "expected" // the file is not there yet
	RecordingReady    RecordingState = "ready"
	RecordingLost     RecordingState = "lost"    // the file did not come in a day
	RecordingRemoved  RecordingState = "removed" // its time is over, or it was erased
)

// Event is the body of the event cdr. What is not known, or did not happen, is not there.
type Event struct {
	Event         string      `json:"event" enum:"cdr"`
	CallID        uuid.UUID   `json:"callId" format:"uuid" doc:"UUID of the calling channel; the same in every event about the call."`
	Revision      int         `json:"revision" doc:"Counts the events about the call: a higher one replaces all before it."`
	TenantID      uuid.UUID   `json:"tenantId" format:"uuid"`
	StoreID       *uuid.UUID  `json:"storeId,omitempty" format:"uuid"`
	From          string      `json:"from" doc:"As the caller's phone or carrier sent it."`
	To            string      `json:"to" doc:"As it was dialled; E.164 for a number of the tenant that was called from outside."`
	Direction     string      `json:"direction" enum:"inbound,outbound,internal"`
	StartTime     time.Time   `json:"startTime"`
	AnswerTime    *time.Time  `json:"answerTime,omitempty"`
	EndTime       *time.Time  `json:"endTime,omitempty"`
	Duration      int         `json:"duration" doc:"Seconds from start to end."`
	BillSec       int         `json:"billsec" doc:"Seconds from answer to end."`
	Disposition   string      `json:"disposition" enum:"answered,no_answer,busy,cancelled,refused,failed"`
	HangupCause   string      `json:"hangupCause,omitempty" doc:"In FreeSWITCH's words." example:"NORMAL_CLEARING"`
	TrunkID       *uuid.UUID  `json:"trunkId,omitempty" format:"uuid" doc:"The carrier that the call came from, or that took it."`
	ExtensionIDs  []uuid.UUID `json:"extensionIds,omitempty" doc:"edgvoipExtensionId of who called and of who was called."`
	AnsweredBy    string      `json:"answeredBy,omitempty" doc:"Number of who took it at last."`
	TransferredTo string      `json:"transferredTo,omitempty" doc:"Number that it was handed on to at last."`
	RelatedCallID *uuid.UUID  `json:"relatedCallId,omitempty" format:"uuid" doc:"The other call of an attended transfer: that on which was asked, or that which was handed on."`
	Route         string      `json:"route,omitempty" doc:"How the call was routed."`
	Reason        string      `json:"reason,omitempty" doc:"Why it was routed so."`
	AIAgentRef    string      `json:"aiAgentRef,omitempty" doc:"The agent that the call was routed to."`
	RecordingURL  string      `json:"recordingUrl,omitempty" doc:"Answers a link to the recording; not there until the recording is."`
	Reconstructed bool        `json:"reconstructed" doc:"True if the record was put together from events, as its documents did not come."`
	Erased        bool        `json:"erased,omitempty" doc:"True if a person's number was erased."`
	AbsorbedBy    *uuid.UUID  `json:"absorbedBy,omitempty" format:"uuid" doc:"This call turned out to be a part of that one, whose record tells all of it: forget this record. Its numbers are empty, its times zero."`
}

// Event returns what W3 is told of the record.
func (r Record) Event() Event {
	e := Event{
		Event: "cdr", CallID: r.ID, Revision: r.Revision, TenantID: r.TenantID, StoreID: known(r.StoreID), From: r.From, To: r.To,
		Direction: string(r.Direction), StartTime: r.Start, AnswerTime: happened(r.Answer), EndTime: happened(r.End),
		Duration: r.Duration(), BillSec: r.BillSec(), Disposition: string(r.Disposition), HangupCause: r.Cause, TrunkID: known(r.TrunkID),
		AnsweredBy: r.AnsweredBy, TransferredTo: r.TransferredTo, RelatedCallID: known(r.RelatedID), AIAgentRef: r.AgentRef, Route: r.Route, Reason: r.Reason, RecordingURL: r.RecordingURL,
		Reconstructed: r.Reconstructed, Erased: r.Erased, AbsorbedBy: known(r.AbsorbedBy),
	}
	for _, id := range []uuid.UUID{r.CallerID, r.CalleeID} {
		if id != uuid.Nil && (len(e.ExtensionIDs) == 0 || e.ExtensionIDs[0] != id) {
			e.ExtensionIDs = append(e.ExtensionIDs, id)
		}
	}
	return e
}

// Payload returns the event as it is sent.
func (r Record) Payload() ([]byte, error) {
	b, err := json.Marshal(r.Event())
	if err != nil {
		return nil, fmt.Errorf("payload of a call record: %w", err)
	}
	return b, nil
}

func known(id uuid.UUID) *uuid.UUID {
	if id == uuid.Nil {
		return nil
	}
	return &id
}

func happened(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
