package dialplan

import (
	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/cdr"
	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
	"github.com/edgvoip/edgvoip/trunk"
)

// Kind says what a route does; a closed set, fit for a metric.
type Kind string

// The kinds of route.
const (
	KindExtension Kind = "extension"
	KindPublic    Kind = "public"
	KindEmergency Kind = "emergency"
	KindEcho      Kind = "echo"
	KindAgent     Kind = "agent"
	KindRefused   Kind = "refused"
)

// Route is where a call goes.
type Route struct {
	Kind Kind
	// Reason says why a call was refused; constant texts, fit for a log.
	Reason string
	// Unrecorded says why a call is not recorded that should be; empty if nothing is wrong.
	Unrecorded string

	context fstext.Text // the context that FreeSWITCH will look for
	status  fstext.Text // of a refusal
	reason  fstext.Text // what the call record says of the decision; empty if there is nothing to say
	// unheard is true for a refusal of somebody who is nobody: scanners fill no ledger.
	unheard   bool
	direction cdr.Direction
	recording recording

	tenant                   directory.Tenant
	caller                   *directory.Extension // if it is one
	inbound                  *trunk.Trunk         // that the caller's leg occupies, if he is outside
	did                      fstext.E164          // that it called
	callee                   *directory.Extension // for KindExtension; for KindAgent who takes the call when the agent cannot
	standIn                  *directory.Extension // who takes the call if callee does not, for one that an agent has handed over
	handedOver               bool                 // by an agent
	agents                   fstext.Text          // where the agent is reached, for KindAgent
	channel                  uuid.UUID            // the caller's, for KindAgent
	callerNumber, callerName fstext.Text          // shown to the callee
	attempts                 []attempt            // for KindPublic and KindEmergency
}

// attempt is one trunk to try.
type attempt struct {
	trunk    *trunk.Trunk // a row of the facts, which nobody changes
	number   fstext.Text  // as the carrier wants it
	callerID fstext.Text
	withheld bool
}

// The SIP answers of refusals (RFC 3261, 21).
var (
	statusForbidden   = fstext.Const("403 Forbidden")
	statusNotFound    = fstext.Const("404 Not Found")
	statusUnavailable = fstext.Const("480 Temporarily Unavailable")
	statusBusy        = fstext.Const("486 Busy Here")
	statusInsecure    = fstext.Const("488 Not Acceptable Here")
	statusNoService   = fstext.Const("503 Service Unavailable")
)

// refuse ends a call of somebody we know, which leaves a record with the reason; a leg that a transfer brought here
// keeps what its record says of the call before. FreeSWITCH takes the context it asked for or one named "global"
// (mod_dialplan_xml.c, dialplan_hunt), so the name it asked for, which may be a stranger's, need not be repeated.
func (r Route) refuse(c Call, status, reason fstext.Text) Route {
	r.Kind, r.Reason, r.context, r.status = KindRefused, reason.String(), fstext.Const("global"), status
	if !c.Transferred {
		r.reason = reason
	}
	return r
}

// turnAway ends a call of a stranger.
func turnAway(c Call, reason string) Route {
	return Route{Kind: KindRefused, Reason: reason, context: fstext.Const("global"), status: statusForbidden, unheard: !c.Transferred}
}

// Refuse is the route of a call that cannot even be read.
func Refuse(reason string) Route { return turnAway(Call{}, reason) }

// limitRealm groups our counters in mod_hash.
const limitRealm = "edgvoip"

// Seconds that a call may ring, that the extension may which an agent has chosen while another waits to stand in, that
// a call for help may, and that a trunk has until it shows progress before the next is tried.
const (
	ringSeconds          = 60
	wantedRingSeconds    = 25
	emergencyRingSeconds = 300
	progressSeconds      = 10
)

// nextTrunk are the failures that are the trunk's and not the called party's, after which another trunk may do better
// (switch_ivr_originate.c; RFC 3398, 8.2.6.1 for what SIP answers become which cause).
const nextTrunk = "NORMAL_TEMPORARY_FAILURE,NETWORK_OUT_OF_ORDER,DESTINATION_OUT_OF_ORDER,NORMAL_CIRCUIT_CONGESTION,SWITCH_CONGESTION," +
	"REQUESTED_CHAN_UNAVAIL,RECOVERY_ON_TIMER_EXPIRE,PROGRESS_TIMEOUT,GATEWAY_DOWN,INVALID_GATEWAY,INVALID_PROFILE,SERVICE_UNAVAILABLE," +
	"SERVICE_NOT_IMPLEMENTED,FACILITY_NOT_SUBSCRIBED,OUTGOING_CALL_BARRED,NO_ROUTE_TRANSIT_NET,PROTOCOL_ERROR,INTERWORKING," +
	"INCOMPATIBLE_DESTINATION,EXCHANGE_ROUTING_ERROR"

// FreeSWITCH makes one cause of a carrier that does not take the call (401, 402, 403, 407) and of a called party who
// does not (603, 608): CALL_REJECTED. What tells them apart is the answer itself, which it writes on the calling
// channel before the leg ends (sofia.c, sofia_handle_sip_r_invite), but for 401 and 407, which it takes for a question:
// then there is none. If it has no password to answer with, its cause is NORMAL_UNSPECIFIED, as that of answers which
// are not known, or MANDATORY_IE_MISSING. See afterTrunk.
const refusals = "^^;edgvoip_after_CALL_REJECTED=hangup:CALL_REJECTED,;edgvoip_after_NORMAL_UNSPECIFIED=hangup:NORMAL_UNSPECIFIED," +
	";edgvoip_refused_=_by_trunk;edgvoip_refused_401=_by_trunk;edgvoip_refused_402=_by_trunk;edgvoip_refused_403=_by_trunk;edgvoip_refused_407=_by_trunk"

// afterTrunk ends a call that the called party has rejected, and goes on with one that the trunk has refused.
// FreeSWITCH expands the name of a variable from others: after CALL_REJECTED with 403 the first one asked for is
// edgvoip_after_CALL_REJECTED_by_trunk, which there is not, as there is none of any other cause; with 603, or with 480
// and a Reason that says so, it is edgvoip_after_CALL_REJECTED.
const afterTrunk = "${edgvoip_after_${originate_failed_cause}${edgvoip_refused_${sip_invite_failure_status}}}set:edgvoip_next_trunk=true inline"

// XML returns the document that FreeSWITCH executes.
func (r Route) XML() ([]byte, error) {
	doc := fsxml.New(fsxml.SectionDialplan)
	doc.Open("context", fsxml.A("name", r.context))
	doc.Open("extension", fsxml.A("name", kindText[r.Kind]))
	doc.Open("condition")
	switch r.Kind {
	case KindExtension:
		r.toExtension(doc)
	case KindAgent:
		r.toAgent(doc)
	case KindPublic, KindEmergency:
		r.toTrunks(doc)
	case KindEcho:
		r.mark(doc)
		limitExtension(doc, r.caller)
		doc.Action("answer")
		doc.Action("echo")
	default:
		r.markRefusal(doc)
		doc.Action("respond", r.status)
	}
	return doc.Bytes()
}

var kindText = map[Kind]fstext.Text{
	KindExtension: fstext.Const("extension"),
	KindPublic:    fstext.Const("public"),
	KindEmergency: fstext.Const("emergency"),
	KindEcho:      fstext.Const("echo"),
	KindAgent:     fstext.Const("agent"),
	KindRefused:   fstext.Const("refused"),
}

func set(doc *fsxml.Document, assignment ...fstext.Text) { doc.Action("set", assignment...) }

// mark sets what records and later lookups need to know about the call.
func (r Route) mark(doc *fsxml.Document) {
	r.markRecord(doc)
	// A leg that is transferred stays in its tenant, wherever it came in.
	set(doc, fstext.Const("force_transfer_context="), r.tenant.Slug.Text())
	set(doc, fstext.Const("hangup_after_bridge=true"))
	// Headers of a phone are not the tenant's word to a carrier (Diversion, P-Charge-Info), and a carrier's are not
	// ours to a phone (P-Auto-Answer).
	set(doc, fstext.Const("sip_copy_custom_headers=false"))
	set(doc, fstext.Const("sip_copy_multipart=false"))
	// From here on counters fall with a transfer, and the next route counts again.
	set(doc, fstext.Const("limit_ignore_transfer=false"))
	set(doc, fstext.Const(directory.MediaTimeout))
	set(doc, fstext.Const(directory.MediaHoldTimeout))
	r.recording.write(doc)
}

// limitExtension counts the call for an extension and ends it if that is one too many. The counter falls with the
// channel.
func limitExtension(doc *fsxml.Document, e *directory.Extension) {
	if e != nil && e.MaxCalls > 0 {
		limit(doc, e.ID, e.MaxCalls, fstext.Const(" !USER_BUSY"))
	}
}

func limit(doc *fsxml.Document, id uuid.UUID, most int, otherwise fstext.Text) {
	doc.Action("limit", fstext.Const("hash "+limitRealm+" "), fstext.ID(id), fstext.Const(" "), fstext.Int(most), otherwise)
}

func (r Route) toExtension(doc *fsxml.Document) {
	r.mark(doc)
	if r.inbound != nil && r.inbound.MaxChannels > 0 {
		limit(doc, r.inbound.ID, r.inbound.MaxChannels, fstext.Const(" !NORMAL_CIRCUIT_CONGESTION"))
	}
	if r.handedOver {
		r.fromAgent(doc)
		return
	}
	limitExtension(doc, r.caller)
	limitExtension(doc, r.callee)
	set(doc, fstext.Const("effective_caller_id_name="), r.callerName)
	set(doc, fstext.Const("effective_caller_id_number="), r.callerNumber)
	set(doc, fstext.Const("call_timeout="), fstext.Int(ringSeconds))
	// Without a word FreeSWITCH goes on when nobody answers, to the end of the route, and the record says that all went
	// well.
	set(doc, fstext.Const("continue_on_fail=false"))
	doc.Action("bridge", r.callee.DialString(r.tenant.Slug))
}

func (r Route) toTrunks(doc *fsxml.Document) {
	r.mark(doc)
	if r.Kind == KindEmergency {
		// Whatever a carrier says, the next may do better; and help is waited for.
		set(doc, fstext.Const("continue_on_fail=true"))
		set(doc, fstext.Const("call_timeout="), fstext.Int(emergencyRingSeconds))
	} else {
		limitExtension(doc, r.caller)
		set(doc, fstext.Const("call_timeout="), fstext.Int(ringSeconds))
	}
	others := r.Kind == KindPublic && len(r.attempts) > 1
	switch {
	case others:
		set(doc, fstext.Const("continue_on_fail="+nextTrunk+",MANDATORY_IE_MISSING,CALL_REJECTED,NORMAL_UNSPECIFIED"))
		doc.Action("multiset", fstext.Const(refusals))
	case r.Kind == KindPublic:
		set(doc, fstext.Const("continue_on_fail="+nextTrunk))
	}
	for _, a := range r.attempts {
		if others {
			// That of the trunk before.
			set(doc, fstext.Const("sip_invite_failure_status="))
		}
		r.try(doc, a)
		if others {
			doc.Action("execute_extension", fstext.Const(afterTrunk))
		}
	}
	doc.Action("respond", statusNoService)
}

// try bridges to one trunk. After a success the call ends with the bridge; after a failure of the trunk the next action
// runs.
func (r Route) try(doc *fsxml.Document, a attempt) {
	set(doc, fstext.Const(directory.VarTrunkID+"="), fstext.ID(a.trunk.ID))
	set(doc, fstext.Const("effective_caller_id_name="), a.callerID)
	set(doc, fstext.Const("effective_caller_id_number="), a.callerID)
	bridge := fstext.Join(
		fstext.Const("[^^;"+directory.LegVariables+";leg_progress_timeout="), fstext.Int(progressSeconds),
		fstext.Const(";"+directory.VarTenantID+"="), fstext.ID(r.tenant.ID),
		fstext.Const(";"+directory.VarTrunkID+"="), fstext.ID(a.trunk.ID),
		fstext.Const(";force_transfer_context="), r.tenant.Slug.Text(),
		codecs(a.trunk), r.limitLeg(a), privacy(a), fstext.Const("]sofia/gateway/"), a.trunk.Gateway(), fstext.Const("/"), a.number,
	)
	doc.Action("bridge", bridge)
}

// codecs makes the carrier's leg offer what its trunk says; without, it offers what the profile does.
func codecs(t *trunk.Trunk) fstext.Text {
	if t.Codecs == (fstext.Codecs{}) {
		return fstext.Text{}
	}
	return fstext.Join(fstext.Const(";absolute_codec_string="), t.Codecs.Text())
}

// limitLeg counts the call on the carrier's own leg, which stays when the caller hands it on; one too many ends the leg
// before it is sent, and the next trunk is tried.
func (r Route) limitLeg(a attempt) fstext.Text {
	if a.trunk.MaxChannels == 0 || r.Kind == KindEmergency {
		return fstext.Text{}
	}
	return fstext.Join(fstext.Const(";limit_ignore_transfer=true;execute_on_originate=limit hash "+limitRealm+" "), fstext.ID(a.trunk.ID),
		fstext.Const(" "), fstext.Int(a.trunk.MaxChannels), fstext.Const(" !NORMAL_CIRCUIT_CONGESTION"))
}

// privacy asks the carrier to hide the caller: nobody in From, the number in P-Asserted-Identity with Privacy: id (RFC
// 3323, RFC 3325).
func privacy(a attempt) fstext.Text {
	if !a.withheld {
		return fstext.Text{}
	}
	return fstext.Const(";origination_privacy=screen:hide_name:hide_number;sip_cid_type=pid" +
		";sip_from_uri=sip:anonymous@anonymous.invalid;sip_from_display=Anonymous")
}
