package cdr

import (
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
)

// Document is the JSON of a channel as it is kept: as switch_ivr_generate_json_cdr (switch_ivr.c) writes it, without
// what nobody may read. Its zero value is none.
type Document struct {
	leg  Leg
	json []byte
}

// Leg is what the document tells.
func (d Document) Leg() Leg { return d.leg }

// JSON is the document as it is kept. It is valid UTF-8 without NUL.
func (d Document) JSON() []byte { return d.json }

// record is what is read of a document.
type record struct {
	ChannelData map[string]any // channel_data
	Variables   map[string]any // variables
	// Callflow are the stations of a channel's way, the newest first.
	Callflow []profile // callflow
	// Marks of ours in what is kept.
	Reconstructed bool // edgvoip_reconstructed
	Erased        bool // edgvoip_erased
}

// profile is a station; each of its times is a number or a text.
type profile struct {
	From, To                           string // caller_id_number and destination_number of caller_profile
	Created, Profile, Answered, HungUp any    // of times
}

// maxProfiles bounds the stations that are read, the newest and the oldest: no call has as many.
const maxProfiles = 256

// Parse reads the document of a channel, as it came or as it is kept. The error says what is wrong and repeats nothing.
func Parse(body []byte) (Document, error) {
	text, err := decode(body)
	if err != nil {
		return Document{}, err
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return Document{}, errJSON
	}
	return parse(all)
}

func parse(all map[string]any) (Document, error) {
	discreet(all)
	text, err := json.Marshal(all)
	if err != nil {
		return Document{}, errJSON
	}
	r, err := recordOf(all)
	if err != nil {
		return Document{}, err
	}
	l, err := r.leg()
	if err != nil {
		return Document{}, err
	}
	return Document{l, text}, nil
}

// record reads again what the document's text says.
func (d Document) record() (record, error) {
	var all map[string]any
	if err := json.Unmarshal(d.json, &all); err != nil {
		return record{}, errJSON
	}
	return recordOf(all)
}

// recordOf returns what is read of a document. A record is worth keeping without stations, and without one that is
// none.
func recordOf(all map[string]any) (r record, err error) {
	fits := take(all, "channel_data", &r.ChannelData) && take(all, "variables", &r.Variables) &&
		take(all, "edgvoip_reconstructed", &r.Reconstructed) && take(all, "edgvoip_erased", &r.Erased)
	if !fits {
		return record{}, errJSON
	}
	list, _ := all["callflow"].([]any)
	if n := len(list); n > maxProfiles {
		list = append(list[:maxProfiles/2:maxProfiles/2], list[n-maxProfiles/2:]...)
	}
	for _, item := range list {
		if p, ok := profileOf(item); ok {
			r.Callflow = append(r.Callflow, p)
		}
	}
	return r, nil
}

// profileOf returns a station, or false for what is none.
func profileOf(item any) (p profile, ok bool) {
	fields, ok := item.(map[string]any)
	if !ok {
		return p, item == nil
	}
	var caller, times map[string]any
	ok = take(fields, "caller_profile", &caller) && take(fields, "times", &times) &&
		take(caller, "caller_id_number", &p.From) && take(caller, "destination_number", &p.To)
	p.Created, p.Profile, p.Answered, p.HungUp = times["created_time"], times["profile_created_time"], times["answered_time"], times["hangup_time"]
	return p, ok
}

// take takes a value out of an object, if it is there and not null. It returns false for one of another type.
func take[T any](from map[string]any, name string, to *T) bool {
	v := from[name]
	if v == nil {
		return true
	}
	value, ok := v.(T)
	if ok {
		*to = value
	}
	return ok
}

// secretive are parts of the names of variables that nobody may read: digests, keys of media, and descriptions of
// sessions, which hold such keys. A document has hundreds of variables: a regular expression would take a third of the
// time of reading it.
var secretive = []string{
	"passw", "a1-hash", "a1_hash", "auth_response", "auth_nonce", "auth_cnonce", "crypto", "sdp", "_ice_", "vm_pin", "secret",
}

func discreet(all map[string]any) {
	vars, ok := all["variables"].(map[string]any)
	if !ok {
		return
	}
	for name := range vars {
		if isSecretive(name) || isHeader(name) {
			delete(vars, name)
		}
	}
}

// headers are the beginnings of the names of variables that hold headers of requests and answers as they came
// (mod_sofia.h, SOFIA_SIP_HEADER_PREFIX and those beside it). A phone can send thousands of them with the end of a
// call.
var headers = []string{"sip_h_", "sip_rh_", "sip_ph_", "sip_bye_h_", "sip_info_h_"}

func isHeader(name string) bool {
	return slices.ContainsFunc(headers, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

func isSecretive(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(secretive, func(part string) bool { return strings.Contains(name, part) })
}

func (r record) leg() (Leg, error) {
	l := Leg{ID: r.id("uuid"), Reconstructed: r.Reconstructed, Erased: r.Erased}
	if l.ID == uuid.Nil {
		return Leg{}, errLeg
	}
	if r.direction() == "outbound" {
		l.Parent = r.parent(l.ID)
	}
	if err := r.times(&l); err != nil {
		return Leg{}, err
	}
	r.identity(&l)
	r.numbers(&l)
	r.transfer(&l)
	l.Cause, l.BridgeCause = r.word("hangup_cause"), r.word("last_bridge_hangup_cause")
	l.HungUp = r.word("sip_hangup_disposition")
	if l.SIPStatus = r.number("sip_term_status"); l.SIPStatus == 0 {
		l.SIPStatus = r.number("sip_invite_failure_status")
	}
	l.Route, l.Reason = r.word(directory.VarRoute), clean(routeReason(r.text(directory.VarReason)), 200)
	return l, nil
}

// direction is that of the channel as the switch sees it.
func (r record) direction() string {
	if d, ok := r.ChannelData["direction"].(string); ok {
		return d
	}
	return r.text("direction")
}

func (r record) parent(own uuid.UUID) uuid.UUID {
	for _, name := range []string{"originating_leg_uuid", "originator"} {
		if id := r.id(name); id != uuid.Nil && id != own {
			return id
		}
	}
	return uuid.Nil
}

// identity reads who is concerned.
func (r record) identity(l *Leg) {
	l.TenantID = r.id(directory.VarTenantID)
	l.CallerID, l.CalleeID = r.id(directory.VarCallerID), r.id(directory.VarCalleeID)
	// On a phone's channel it is the phone's own extension.
	if own := r.id(directory.VarExtensionID); l.IsCalling() && l.CallerID == uuid.Nil {
		l.CallerID = own
	} else if !l.IsCalling() && own != uuid.Nil {
		l.CalleeID = own
	}
	// A calling channel's sip_gateway is what the caller wrote into his request (;gw=…, sofia.c,
	// sofia_handle_sip_i_invite).
	if l.TrunkID = r.id(directory.VarTrunkID); l.TrunkID == uuid.Nil && !l.IsCalling() {
		l.TrunkID = r.id("sip_gateway_name")
	}
	for _, name := range []string{"domain_name", "sip_auth_realm", directory.VarLegRealm, "dialed_domain"} {
		if l.Realm == "" {
			l.Realm = strings.ToLower(clean(r.text(name), 253))
		}
	}
	switch d := Direction(r.text(directory.VarDirection)); d {
	case Inbound, Outbound, Internal:
		l.Direction = d
	}
	l.Outside = l.IsCalling() && (r.text("sofia_profile_name") == "external" || r.text("sip_gateway") != "")
	l.Recording = recording(r.text(directory.VarRecording), l.TenantID)
}

// recordingPath is what the dialplan calls a recording: the tenant, the day, a channel's id.
var recordingPath = regexp.MustCompile(`^([0-9a-f-]{36})/[0-9]{4}/[0-9]{2}/[0-9]{2}/[0-9a-f-]{36}\.wav$`)

// recording returns the path of a recording if it is one of the tenant.
func recording(path string, tenant uuid.UUID) string {
	if m := recordingPath.FindStringSubmatch(path); m == nil || m[1] != tenant.String() {
		return ""
	}
	return path
}

// numbers reads who called whom. The last profile is what first came; a newer one is where the channel was sent later.
func (r record) numbers(l *Leg) {
	if n := len(r.Callflow); n > 0 {
		first, last := r.Callflow[n-1], r.Callflow[0]
		l.From, l.To = clean(first.From, numberBytes), clean(first.To, numberBytes)
		if to := clean(last.To, numberBytes); n > 1 && to != l.To {
			l.Transferred, l.TransferredAt = to, moment(last.Profile)
		}
	}
	if l.From == "" {
		l.From = clean(r.text("sip_from_user"), numberBytes)
	}
	if l.To == "" {
		l.To = clean(r.text("sip_req_user"), numberBytes)
	}
	l.Called = l.To
	if did := clean(r.text(directory.VarDID), numberBytes); did != "" && l.IsCalling() {
		l.To = did
	}
	for _, name := range []string{"dialed_user", directory.VarLegUser} {
		if phone := clean(r.text(name), numberBytes); phone != "" && !l.IsCalling() {
			l.To = phone
		}
	}
}

// transfer reads what an attended transfer leaves on channels (switch_ivr_bridge.c, switch_ivr_uuid_bridge; mod_sofia's
// sofia.c).
func (r record) transfer(l *Leg) {
	if at, joined := r.joined(); joined != uuid.Nil {
		l.Joined, l.JoinedAt, l.JoinedTo = joined, at, r.joinedTo()
	}
	if to, attended := strings.CutPrefix(r.text("transfer_to"), "att:"); attended {
		l.HandedOn, l.Consulted = parseID(to), r.id("refer_uuid")
	}
}

// joined reads transfer_source, "seconds:id:uuid_br:channel" if the channel was connected with another; both are zero
// otherwise.
func (r record) joined() (at time.Time, channel uuid.UUID) {
	parts := strings.Split(r.text("transfer_source"), ":")
	if len(parts) != 4 || parts[2] != "uuid_br" {
		return at, channel
	}
	return moment(parts[0] + "000000"), parseID(parts[3])
}

// joinedNumber is what stands before the realm in the "user%realm" of a phone, or the number that came from a carrier.
// It is taken from the text as it came: decoded, the beginning of a realm may turn into something else.
var joinedNumber = regexp.MustCompile(`^(%2B|\+)?([0-9A-Za-z._*#-]*)`)

// joinedTo is the number at the other end.
func (r record) joinedTo() string {
	text, _ := r.Variables["last_sent_callee_id_number"].(string)
	m := joinedNumber.FindStringSubmatch(text)
	if m[1] != "" {
		m[2] = "+" + m[2]
	}
	return clean(m[2], numberBytes)
}

// times reads the epochs. The stamps beside them are in the switch's own zone.
func (r record) times(l *Leg) error {
	var first, last profile
	if n := len(r.Callflow); n > 0 {
		first, last = r.Callflow[n-1], r.Callflow[0]
	}
	if l.Start = r.epoch("start", first.Created); l.Start.IsZero() {
		return errStart
	}
	l.Answer, l.End = r.epoch("answer", last.Answered), r.epoch("end", last.HungUp)
	if l.End.Before(l.Start) || l.End.Sub(l.Start) > maxLength {
		l.End = time.Time{}
	}
	if l.Answer.Before(l.Start) && !l.Answer.IsZero() {
		// The clock was set back, or a channel took over another's answer: it was answered from its beginning on.
		l.Answer = l.Start
	}
	return nil
}

// epoch returns a time of the channel: to the microsecond, of its profile, or to the second.
func (r record) epoch(name string, ofProfile any) time.Time {
	if t := moment(r.text(name + "_uepoch")); !t.IsZero() {
		return t
	}
	if t := moment(ofProfile); !t.IsZero() {
		return t
	}
	return moment(r.text(name+"_epoch") + "000000")
}

// Times that are no mistake of a clock lie between these, in microseconds since 1970.
const (
	earliest = 946684800_000000  // 2000
	latest   = 4102444800_000000 // 2100
)

// maxLength is the longest that a call is taken to have lasted: beyond it one of its times is a mistake.
const maxLength = 366 * 24 * time.Hour

// moment reads microseconds since 1970. It returns zero for what is none.
func moment(v any) time.Time {
	var text string
	switch v := v.(type) {
	case string:
		text = v
	case float64:
		text = strconv.FormatFloat(v, 'f', 0, 64)
	}
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil || us < earliest || us > latest {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// text returns a variable, decoded as FreeSWITCH encodes it (switch_utils.c, switch_url_encode): a plus sign is itself.
func (r record) text(name string) string {
	switch v := r.Variables[name].(type) {
	case string:
		if plain, err := url.PathUnescape(v); err == nil {
			return plain
		}
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return ""
}

func (r record) word(name string) string { return clean(r.text(name), wordBytes) }

func (r record) number(name string) int {
	n, err := strconv.Atoi(r.text(name))
	if err != nil || n < 0 || n > 999 {
		return 0
	}
	return n
}

// id returns a variable that is a UUID in the form that FreeSWITCH writes, or zero.
func (r record) id(name string) uuid.UUID { return parseID(r.text(name)) }

func parseID(s string) uuid.UUID {
	if len(s) != 36 {
		return uuid.Nil
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return uuid.Nil
	}
	return id
}
