package dialplan

import (
	"slices"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
)

// decideAgent routes a call to a DID whose trunk has an AI agent: to the agent in its hours, and in every other case to the
// extension that stands in. Why is the call's reason, in its record and in what W3 is told.
func decideAgent(c Call, r Route, f Facts) Route {
	r.callerNumber, r.callerName = callerID(c)
	hours := f.inbound.Hours.At(c.At)
	rule, err := fstext.NewText(hours.Rule)
	if err != nil {
		rule = fstext.Const("rule of the time policy")
	}
	channel, noChannel := uuid.Parse(c.Channel)
	switch {
	case !hours.Open:
		r.reason = fstext.Join(fstext.Const("agent off: "), rule)
	case c.Agents == (fstext.Text{}):
		r.reason = fstext.Const("agent off: AI_BRIDGE_ADDR is not set")
	case noChannel != nil:
		r.reason = fstext.Const("agent off: the channel has no UUID")
	default:
		r.Kind, r.agents, r.channel, r.callee = KindAgent, c.Agents, channel, standIn(f)
		r.reason = fstext.Join(fstext.Const("agent on: "), rule)
		return r.record(c)
	}
	if f.callee == nil {
		return r.refuse(c, statusUnavailable, fstext.Join(r.reason, fstext.Const("; "), f.noTarget()))
	}
	return inward(c, r, f)
}

// standIn is who takes a call that the agent cannot, if there is somebody.
func standIn(f Facts) *directory.Extension {
	return active(f.callee)
}

// active returns an extension if it may be called.
func active(e *directory.Extension) *directory.Extension {
	if e == nil || !e.Active {
		return nil
	}
	return e
}

// handOver routes a caller whom an agent has handed to an extension: there, and if nobody takes the call, to the one that stands in.
func handOver(c Call, r Route, f Facts) Route {
	r.callee, r.standIn = active(f.callee), active(f.standIn)
	switch {
	case r.callee == nil && r.standIn == nil:
		return r.refuse(c, statusUnavailable, fstext.Const("called extension is suspended"))
	case r.callee == nil || r.standIn != nil && r.standIn.ID == r.callee.ID:
		r.callee, r.standIn = r.standIn, nil
	}
	r.Kind, r.handedOver = KindExtension, true
	return r.record(c)
}

// The agent's leg: it must show progress, which ai-bridge does as soon as it has read the INVITE, and be there soon after; and as a
// packet comes every 20 ms whatever the agent says, two seconds without one mean that the agent or ai-bridge is gone.
//
// FreeSWITCH compares whole seconds of the clock and gives up when more than so many have passed (switch_ivr_originate.c): a
// timeout of 1 is between one second and two, one of 2 between two and three. AI_CONNECT_BUDGET is below that.
const agentLeg = "outbound_redirect_fatal=true;leg_progress_timeout=1;leg_timeout=2;media_timeout=2000;media_hold_timeout=2000" +
	";absolute_codec_string=PCMU;sip_h_X-edgvoip-Trunk="

// toAgent bridges to the agent, and whatever becomes of that but a normal end, to the extension that stands in. All of it is in
// this one answer, so that it works with every process of ours gone.
//
// A refused or unanswered leg goes on with the next action (continue_on_fail), and so does the end of a bridge
// (hangup_after_bridge=false). What tells a normal end from a failure in mid-call is the cause: FreeSWITCH expands the name
// of a variable from another, so after NORMAL_CLEARING the line below reads "hangup:NORMAL_CLEARING,set:…", and after
// any other cause, which has no such variable, only "set:…".
//
// What ai-bridge gives as its Reason, in a refusal as in a BYE, FreeSWITCH leaves in sip_reason of the caller's channel too (sofia.c,
// sofia_handle_sip_i_bye and sofia_handle_sip_r_invite); there is none if ai-bridge is gone. It is for the record, which keeps its text
// (cdr.routeReason), and must not stay: FreeSWITCH would end the caller's call with it later (mod_sofia.c, sofia_on_hangup). Nor may what
// another leg of the caller left there before, an extension that handed him over or an agent, be taken for this one's.
//
// The leg is on the phones' profile, because the carriers' takes no REFER, with which an agent hands the caller to an extension.
func (r Route) toAgent(doc *fsxml.Document) {
	r.mark(doc)
	if r.inbound.MaxChannels > 0 {
		limit(doc, r.inbound.ID, r.inbound.MaxChannels, fstext.Const(" !NORMAL_CIRCUIT_CONGESTION"))
	}
	set(doc, fstext.Const("effective_caller_id_name="), r.callerName)
	set(doc, fstext.Const("effective_caller_id_number="), r.callerNumber)
	set(doc, fstext.Const("hangup_after_bridge=false"))
	set(doc, fstext.Const("continue_on_fail=true"))
	set(doc, fstext.Const("edgvoip_after_NORMAL_CLEARING=hangup:NORMAL_CLEARING,"))
	set(doc, fstext.Const(directory.VarAgent+"=true"))
	doc.Action("unset", fstext.Const("sip_reason"))
	doc.Action("bridge", fstext.Const("[^^;"+agentLeg), fstext.ID(r.inbound.ID), fstext.Const(";sip_h_X-edgvoip-Call="), fstext.ID(r.channel),
		fstext.Const(";"+directory.VarTenantID+"="), fstext.ID(r.tenant.ID), fstext.Const(";"+directory.VarTrunkID+"="), fstext.ID(r.inbound.ID),
		fstext.Const(";force_transfer_context="), r.tenant.Slug.Text(),
		fstext.Const("]sofia/"+directory.ProfileInternal+"/sip:agent@"), r.agents, fstext.Const(";transport=tcp"))
	doc.Action("execute_extension", fstext.Const("${edgvoip_after_${last_bridge_hangup_cause}}set:"+directory.VarAgent+"=failed inline"))
	set(doc, fstext.Const(directory.VarReason+"="), r.reason, fstext.Const("; agent failed: ${last_bridge_hangup_cause} ${sip_reason}"))
	doc.Action("unset", fstext.Const("sip_reason"))
	r.toPeople(doc, r.callee)
}

// fromAgent bridges a caller whom an agent has handed over.
func (r Route) fromAgent(doc *fsxml.Document) {
	set(doc, fstext.Const(directory.VarAgent+"=transferred"))
	set(doc, fstext.Const("effective_caller_id_name="), r.callerName)
	set(doc, fstext.Const("effective_caller_id_number="), r.callerNumber)
	set(doc, fstext.Const("continue_on_fail=true"))
	r.toPeople(doc, r.callee, r.standIn)
}

// toPeople bridges to the first extension that takes the call; those that are nil are left out. Whoever talked to an agent before
// hears it ring, which FreeSWITCH lets nobody hear by itself whose call is answered.
func (r Route) toPeople(doc *fsxml.Document, list ...*directory.Extension) {
	list = slices.DeleteFunc(list, func(e *directory.Extension) bool { return e == nil })
	set(doc, fstext.Const("transfer_ringback=%(1000,4000,425)"))
	for i, e := range list {
		set(doc, fstext.Const(directory.VarCalleeID+"="), fstext.ID(e.ID))
		ring := ringSeconds
		if i < len(list)-1 {
			ring = wantedRingSeconds
		}
		// Not limited: a second call in the hand is better than a caller who loses the one he had.
		set(doc, fstext.Const("call_timeout="), fstext.Int(ring))
		set(doc, fstext.Const("hangup_after_bridge=true"))
		doc.Action("bridge", e.DialString(r.tenant.Slug))
	}
	// Nobody is there. The caller hears so, whether his call was answered before or not.
	doc.Action("playback", fstext.Const("tone_stream://%(250,250,425);loops=8"))
	doc.Action("hangup", fstext.Const("NO_ANSWER"))
}
