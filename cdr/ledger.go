package cdr

import (
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/invalid"
)

// Sources of documents.
const (
	SourcePost  = "post"  // the switch sent it
	SourceSweep = "sweep" // it lay in a directory of the switch
)

// Posted is a document as it came.
type Posted struct {
	LegID       uuid.UUID // as the sender named the channel; zero if he named none
	Source      string
	Sender      string // address, or name of the file
	ContentType string
	Body        []byte
}

// Tally is what became of a batch of documents.
type Tally struct {
	Taken      int // how many there were; a full batch means that there are more
	Recorded   int
	Unreadable int
	Unassigned int
	Postponed  int // they wait for another, or are tried again
	Changed    int // calls of which there is something to tell
	Released   int // documents that waited for one of these, and are to be read next
}

// Add adds what became of others.
func (t *Tally) Add(other Tally) {
	t.Taken += other.Taken
	t.Recorded += other.Recorded
	t.Unreadable += other.Unreadable
	t.Unassigned += other.Unassigned
	t.Postponed += other.Postponed
	t.Changed += other.Changed
	t.Released += other.Released
}

// ErasurePlace is how far the erasure of a number has come. Its zero value is the beginning.
type ErasurePlace struct {
	Stage ErasureStage
	// Document or Event is the last that was looked at in its stage, Leg the last leg.
	Document int64
	Leg      LegKey
	Event    int64
}

// ErasureStage is what an erasure looks through.
type ErasureStage int

// The stages, in order: who reads documents makes legs of them, and events of these.
const (
	EraseDocuments ErasureStage = iota
	EraseLegs
	EraseEvents
	EraseDone
)

// LegKey is the place of a leg among those of its tenant, in order of time. Its zero value is before all.
type LegKey struct {
	Start time.Time
	ID    uuid.UUID
}

// DocumentState says what became of a document that is still there.
type DocumentState string

// The states.
const (
	DocumentNew        DocumentState = "new"
	DocumentUnreadable DocumentState = "unreadable" // it is no call record
	DocumentUnassigned DocumentState = "unassigned" // it is one of no tenant of ours
)

// KeptDocument is a document that waits for an operator.
type KeptDocument struct {
	ID          int64
	LegID       uuid.UUID // zero if the sender named none
	Source      string
	Sender      string
	ContentType string
	State       DocumentState
	Attempts    int
	Error       string
	ReceivedAt  time.Time
	Size        int
	Body        []byte // nil in lists
}

// Waiting is how many documents are not read yet, and since when the oldest has been waiting: zero if there is none.
// Called are beside them: documents of called legs whose calls have not ended, which wait for who called.
type Waiting struct {
	Documents, Called, Unreadable, Unassigned, Sightings int
	Oldest                                               time.Time
}

// Sighting is a channel that a switch was seen to end.
type Sighting struct {
	LegID  uuid.UUID
	NodeID uuid.UUID
	Event  map[string]string // the event's headers
}

// Recording is the file of a call's recording.
type Recording struct {
	TenantID, CallID uuid.UUID
	Start            time.Time
	Path             string // relative to the directory of recordings
}

// Filter chooses call records of a tenant; a zero field chooses all.
type Filter struct {
	From, To    time.Time // of the start: from the first on, before the second
	Direction   Direction
	Disposition Disposition
	Number      string // of the caller or of anybody he called
	StoreID     uuid.UUID
	// Before is where the page before ended: newest first.
	Before struct {
		Start time.Time
		ID    uuid.UUID
	}
	Limit int
}

// Policy is what a tenant wants of its call records.
type Policy struct {
	RecordCalls directory.RecordPolicy
	// CDRDays and RecordingDays are how long records and recordings are kept; zero is for ever.
	CDRDays, RecordingDays int
}

// PolicyPatch is a change of a policy; what is nil stays.
type PolicyPatch struct {
	RecordCalls            *string
	CDRDays, RecordingDays *int
}

// maxDays is as long as anything is kept that is not kept for ever.
const maxDays = 36500

// Apply returns the policy with the change. Errors are *invalid.FieldError.
func (p PolicyPatch) Apply(to Policy) (Policy, error) {
	if p.RecordCalls != nil {
		policy, err := directory.ParseRecordPolicy(*p.RecordCalls)
		if err != nil {
			return to, &invalid.FieldError{Name: "recordCalls", Reason: "is one of none, inbound, outbound, external, all"}
		}
		to.RecordCalls = policy
	}
	for _, days := range []struct {
		name  string
		value *int
		to    *int
	}{{"cdrDays", p.CDRDays, &to.CDRDays}, {"recordingDays", p.RecordingDays, &to.RecordingDays}} {
		if days.value == nil {
			continue
		}
		if *days.value < 0 || *days.value > maxDays {
			return to, &invalid.FieldError{Name: days.name, Reason: "is 0, for ever, to 36500"}
		}
		*days.to = *days.value
	}
	return to, nil
}

// ErrNotReady is returned for a recording that is not there, or not any more.
var ErrNotReady = errors.New("no recording to be had")
