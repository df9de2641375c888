package dialplan

import (
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
)

var directionText = map[cdr.Direction]fstext.Text{
	cdr.Inbound:  fstext.Const("inbound"),
	cdr.Outbound: fstext.Const("outbound"),
	cdr.Internal: fstext.Const("internal"),
}

// markRecord sets what a call record must tell (docs/freeswitch.md, "What a call record carries"). A route after a
// transfer sets what it knows anew and leaves the rest.
func (r Route) markRecord(doc *fsxml.Document) {
	if r.tenant.ID != uuid.Nil {
		set(doc, fstext.Const(directory.VarTenantID+"="), fstext.ID(r.tenant.ID))
	}
	set(doc, fstext.Const(directory.VarRoute+"="), kindText[r.Kind])
	// Legs that this one places carry it too.
	doc.Action("export", fstext.Const(directory.VarDirection+"="), directionText[r.direction])
	if r.caller != nil {
		set(doc, fstext.Const(directory.VarCallerID+"="), fstext.ID(r.caller.ID))
	}
	if r.callee != nil && r.Kind != KindAgent {
		set(doc, fstext.Const(directory.VarCalleeID+"="), fstext.ID(r.callee.ID))
	}
	if r.inbound != nil {
		set(doc, fstext.Const(directory.VarTrunkID+"="), fstext.ID(r.inbound.ID))
	}
	if r.did != (fstext.E164{}) {
		set(doc, fstext.Const(directory.VarDID+"="), r.did.Text())
	}
	if r.reason != (fstext.Text{}) {
		set(doc, fstext.Const(directory.VarReason+"="), r.reason)
	}
}

// markRefusal sets the same for a call that is refused.
func (r Route) markRefusal(doc *fsxml.Document) {
	switch {
	case r.unheard:
		set(doc, fstext.Const("process_cdr=false"))
	case r.reason != (fstext.Text{}):
		r.markRecord(doc)
	}
}

// recording is what of a call is recorded, and how. The zero value is nothing.
type recording struct {
	// path is the file, relative to the directory of recordings; empty if nothing is to be begun.
	path, dir fstext.Text
	// answered is true for a leg that is talking already.
	answered bool
}

// record adds to a route what the tenant wants recorded. A call that is recorded already goes on as it is: the switch
// moves the recording to the leg that stays (recording_follow_transfer), and a second would hold the same again.
func (r Route) record(c Call) Route {
	if !records(r.tenant.RecordCalls, r.direction) || c.LegRecording != "" && c.Transferred {
		return r
	}
	id, err := uuid.Parse(c.Channel)
	switch {
	case c.Recordings == (fstext.Text{}):
		r.Unrecorded = "recording is asked for and RECORDINGS_DIR is not set"
	case err != nil:
		r.Unrecorded = "recording is asked for and the channel has no UUID"
	default:
		r.recording = recording{path: recordingPath(r.tenant.ID, c.At, id), dir: c.Recordings, answered: c.Transferred}
	}
	return r
}

// records tells whether a policy wants calls of a direction.
func records(p directory.RecordPolicy, d cdr.Direction) bool {
	switch p {
	case directory.RecordInbound:
		return d == cdr.Inbound
	case directory.RecordOutbound:
		return d == cdr.Outbound
	case directory.RecordExternal:
		return d != cdr.Internal
	case directory.RecordAll:
		return true
	default:
		return false
	}
}

// recordingPath is the file of a recording: by tenant, day in UTC and channel.
func recordingPath(tenant uuid.UUID, at time.Time, channel uuid.UUID) fstext.Text {
	year, month, day := at.UTC().Date()
	slash := fstext.Const("/")
	return fstext.Join(fstext.ID(tenant), slash, fstext.Int(year), slash, twoDigits(int(month)), slash, twoDigits(day), slash,
		fstext.ID(channel), fstext.Const(".wav"))
}

func twoDigits(n int) fstext.Text {
	if n < 10 {
		return fstext.Join(fstext.Const("0"), fstext.Int(n))
	}
	return fstext.Int(n)
}

// write begins the recording when the call is answered, each side on a channel of its own. Not before: to record is to
// answer with early media first (switch_ivr_async.c, switch_ivr_record_session_event), and the caller would no longer
// hear it ring.
func (r recording) write(doc *fsxml.Document) {
	if r.path == (fstext.Text{}) {
		return
	}
	doc.Action("export", fstext.Const(directory.VarRecording+"="), r.path)
	set(doc, fstext.Const("RECORD_STEREO=true"))
	set(doc, fstext.Const("RECORD_ANSWER_REQ=true"))
	// Legs carry it too: whichever of them hands the call on, the recording stays with those who go on talking.
	doc.Action("export", fstext.Const("recording_follow_transfer=true"))
	file := fstext.Join(r.dir, fstext.Const("/"), r.path)
	if r.answered {
		doc.Action("record_session", file)
		return
	}
	set(doc, fstext.Const("execute_on_answer=record_session "), file)
}
