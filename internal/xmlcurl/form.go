package xmlcurl

import (
	"bytes"
	"errors"

	"github.com/edgvoip/edgvoip/directory"
)

// The body of a request, as mod_xml_curl writes it (mod_xml_curl.c, xml_url_fetch): five fields that are not
// URL-encoded, always the same and in the same order, and after them the headers of an event, percent-encoded.
//
// The fifth, key_value, can be what a remote phone wrote: its realm. Since it is not encoded it may hold "&" and "=",
// and so bring fields of its own, which come before the genuine ones. Nor are the names of the other fields encoded,
// and some come from SIP headers. So: the first four are taken where they stand; of the rest the last of a name counts;
// and a body that contradicts itself is remembered as such, and whoever relies on it must refuse.

// field is a field that we look at. Everything else in a body, most of it, is skipped.
type field int

const (
	fieldFunction field = iota // Event-Calling-Function: the C function that asks
	fieldUniqueID
	fieldAction
	fieldPurpose
	fieldUser
	fieldDomain
	fieldGroupName
	fieldProfile

	fieldAuthMethod
	fieldAuthProfile
	fieldAuthUsername
	fieldAuthRealm
	fieldAuthResponse
	fieldToUser
	fieldToHost
	fieldFromUser
	fieldFromHost
	fieldViaProtocol
	fieldContactUser
	fieldClientPort
	fieldIP
	fieldCallID

	fieldHuntContext
	fieldHuntDestination
	fieldHuntNetworkAddr
	fieldHuntCallerNumber
	fieldHuntCallerName
	fieldHuntDirection
	fieldHuntTransferSource
	fieldVarProfile
	fieldVarProfileName
	fieldVarAuthorized
	fieldVarUserName
	fieldVarDomainName
	fieldVarTenantID
	fieldVarDirection
	fieldVarTrunkID
	fieldVarLegUser
	fieldVarLegRealm
	fieldVarRecording
	fieldVarAgent
	fieldVarCallID
	fieldVarViaProtocol
	fieldVarSDP

	fieldLang
	fieldReferrer
	fieldReferParams
	fieldReferHeaders

	fieldCount
)

// fieldNames gives the name in the body of each field; a test checks that it is complete.
var fieldNames = [fieldCount]string{
	fieldFunction:           "Event-Calling-Function",
	fieldUniqueID:           "Unique-ID",
	fieldAction:             "action",
	fieldPurpose:            "purpose",
	fieldUser:               "user",
	fieldDomain:             "domain",
	fieldGroupName:          "group_name",
	fieldProfile:            "profile",
	fieldAuthMethod:         "sip_auth_method",
	fieldAuthProfile:        "sip_profile",
	fieldAuthUsername:       "sip_auth_username",
	fieldAuthRealm:          "sip_auth_realm",
	fieldAuthResponse:       "sip_auth_response",
	fieldToUser:             "sip_to_user",
	fieldToHost:             "sip_to_host",
	fieldFromUser:           "sip_from_user",
	fieldFromHost:           "sip_from_host",
	fieldViaProtocol:        "sip_via_protocol",
	fieldContactUser:        "sip_contact_user",
	fieldClientPort:         "client_port",
	fieldIP:                 "ip",
	fieldCallID:             "sip_call_id",
	fieldHuntContext:        "Hunt-Context",
	fieldHuntDestination:    "Hunt-Destination-Number",
	fieldHuntNetworkAddr:    "Hunt-Network-Addr",
	fieldHuntCallerNumber:   "Hunt-Caller-ID-Number",
	fieldHuntCallerName:     "Hunt-Caller-ID-Name",
	fieldHuntDirection:      "Hunt-Direction",
	fieldHuntTransferSource: "Hunt-Transfer-Source",
	fieldVarProfile:         "variable_sofia_profile_name",
	fieldVarProfileName:     "variable_sip_profile_name",
	fieldVarAuthorized:      "variable_sip_authorized",
	fieldVarUserName:        "variable_user_name",
	fieldVarDomainName:      "variable_domain_name",
	fieldVarTenantID:        "variable_" + directory.VarTenantID,
	fieldVarDirection:       "variable_" + directory.VarDirection,
	fieldVarTrunkID:         "variable_" + directory.VarTrunkID,
	fieldVarLegUser:         "variable_" + directory.VarLegUser,
	fieldVarLegRealm:        "variable_" + directory.VarLegRealm,
	fieldVarRecording:       "variable_" + directory.VarRecording,
	fieldVarAgent:           "variable_" + directory.VarAgent,
	fieldVarCallID:          "variable_sip_call_id",
	fieldVarViaProtocol:     "variable_sip_via_protocol",
	fieldVarSDP:             "variable_switch_r_sdp",
	fieldLang:               "lang",
	fieldReferrer:           "refer-from-channel-id",
	fieldReferParams:        "refer-to-params",
	fieldReferHeaders:       "refer-to-headers",
}

// fieldsByShape gives one more than the first field whose name has a length and ends in such a character, or 0, and sameShape
// the next one of the same. A body has some hundred and fifty names that are none of them: nearly all fall through here, without
// being compared with any.
var fieldsByShape, sameShape = func() (first [maxName + 1][32]uint8, next [fieldCount]uint8) {
	for f, name := range fieldNames {
		at := &first[len(name)][name[len(name)-1]%32]
		next[f], *at = *at, uint8(f+1)
	}
	return first, next
}()

// maxName is as long as no name of a field is longer.
const maxName = 31

// fieldOf returns the field of a name.
func fieldOf(name []byte) (field, bool) {
	if len(name) == 0 || len(name) > maxName {
		return 0, false
	}
	for f := fieldsByShape[len(name)][name[len(name)-1]%32]; f > 0; f = sameShape[f-1] {
		if fieldNames[f-1] == string(name) {
			return field(f - 1), true
		}
	}
	return 0, false
}

// form is a request's body, read. Texts are copies: they outlive the request. They lie side by side in one, so whoever
// keeps one for long keeps all, and should copy it.
type form struct {
	hostname, section, tagName, keyName, keyValue string

	values [fieldCount]string
	given  [fieldCount]bool
	// contradicts is true if a field came twice with different values. FreeSWITCH repeats a field now and then, but
	// with the same value (mod_voicemail's second try for a user); a different one was put there by a peer.
	contradicts bool
}

func (f *form) get(k field) string { return f.values[k] }

// errNotLookup means that a body is not what mod_xml_curl writes.
var errNotLookup = errors.New("body is not a lookup of mod_xml_curl: it does not begin with hostname, section, tag_name, key_name and key_value")

// usualText is what the values of most lookups fit in, all together.
const usualText = 1024

// parse reads a body into an empty form. Error: errNotLookup.
func (f *form) parse(body []byte) error {
	// Where each value is: a copy of each, one by one, would take a tenth of a lookup.
	type span struct{ from, to int }
	var room [usualText]byte
	text := room[:0]
	fixed := [...]struct {
		name string
		to   *string
		at   span
	}{{name: "hostname", to: &f.hostname}, {name: "section", to: &f.section}, {name: "tag_name", to: &f.tagName}, {name: "key_name", to: &f.keyName}, {name: "key_value", to: &f.keyValue}}
	for i := range fixed {
		var name, value []byte
		name, value, body = cutField(body)
		if string(name) != fixed[i].name {
			return errNotLookup
		}
		fixed[i].at.from = len(text)
		text = append(text, value...)
		fixed[i].at.to = len(text)
	}
	var spans [fieldCount]span
	for len(body) > 0 {
		var name, value []byte
		name, value, body = cutField(body)
		k, known := fieldOf(name)
		if !known {
			continue
		}
		from := len(text)
		text = appendUnescaped(text, value)
		if at := spans[k]; f.given[k] && !bytes.Equal(text[at.from:at.to], text[from:]) {
			f.contradicts = true
		}
		f.given[k], spans[k] = true, span{from, len(text)}
	}
	all := string(text)
	for _, x := range fixed {
		*x.to = all[x.at.from:x.at.to]
	}
	for k, at := range spans {
		f.values[k] = all[at.from:at.to]
	}
	return nil
}

// cutField takes one name=value off the front of a body.
func cutField(body []byte) (name, value, rest []byte) {
	// bytes.Cut would do the same in twice the time, which is that of a third of a lookup.
	if i := bytes.IndexByte(body, '&'); i >= 0 {
		body, rest = body[:i], body[i+1:]
	}
	if i := bytes.IndexByte(body, '='); i >= 0 {
		return body[:i], body[i+1:], rest
	}
	return body, nil, rest
}

// appendUnescaped undoes FreeSWITCH's encoding (switch_utils.c, switch_url_encode_opt): %XX, and nothing else. A plus
// sign is a plus sign. What is not a valid escape stays as it is.
func appendUnescaped(to, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, '%')
		if i < 0 {
			return append(to, b...)
		}
		to = append(to, b[:i]...)
		if i+2 < len(b) {
			hi, ok1 := hexDigit(b[i+1])
			lo, ok2 := hexDigit(b[i+2])
			if ok1 && ok2 {
				to, b = append(to, hi<<4|lo), b[i+3:]
				continue
			}
		}
		to, b = append(to, '%'), b[i+1:]
	}
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	default:
		return 0, false
	}
}
