package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// static is the yardstick's configuration: the documents that xmlcurl answers, put on disk. It holds every user as a
// registration needs him, and one extension of the dialplan for each kind of call.
type static struct {
	directory, dialplan []byte
	users               int
	cacheable           bool // some document lets the switch keep it
}

// staticXML asks xmlcurl for all that the scenarios will need.
func staticXML(ctx context.Context, in *installation, extensions int) (static, error) {
	var s static
	var users []string
	for i := range extensions {
		number := strconv.Itoa(firstExtension + i)
		doc, err := in.user(ctx, number)
		if err != nil {
			return s, err
		}
		user, err := element(doc, "user")
		if err != nil {
			return s, fmt.Errorf("user %s: %w", number, err)
		}
		users = append(users, user)
		s.cacheable = s.cacheable || bytes.Contains(doc, []byte("cacheable"))
	}
	s.users = len(users)
	s.directory = []byte("<section name=\"directory\">\n<domain name=\"" + realm + "\">\n<users>\n" + strings.Join(users, "\n") +
		"\n</users>\n</domain>\n</section>\n")
	internal, err := in.internalRoutes(ctx, users[1], users[2])
	if err != nil {
		return s, err
	}
	inbound, err := in.inboundRoute(ctx)
	if err != nil {
		return s, err
	}
	s.dialplan = []byte("<section name=\"dialplan\">\n<context name=\"" + tenant + "\">\n" + internal + "</context>\n<context name=\"public\">\n" + inbound +
		"</context>\n</section>\n")
	return s, nil
}

// user asks as the switch does when a phone registers.
func (in *installation) user(ctx context.Context, number string) ([]byte, error) {
	return in.ask(ctx, "directory", "domain", "name", realm, []string{
		"Event-Calling-Function=sofia_reg_parse_auth", "action=sip_auth", "sip_profile=internal", "sip_auth_username=" + number, "sip_auth_realm=" + realm,
		"sip_contact_user=" + number, "sip_to_user=" + number, "sip_to_host=" + realm, "sip_via_protocol=udp", "sip_from_user=" + number,
		"sip_from_host=" + realm, "sip_auth_response=" + strings.Repeat("0", 32), "sip_auth_method=REGISTER",
		"client_port=" + strconv.Itoa(in.phones), "key=id", "user=" + number, "domain=" + realm, "ip=127.0.0.1",
	})
}

// route asks as the switch does when somebody calls.
func (in *installation) route(ctx context.Context, dialplan, destination string, caller ...string) ([]byte, error) {
	return in.ask(ctx, "dialplan", "", "", "", append([]string{
		"Event-Calling-Function=dialplan_xml_locate", "variable_sip_via_protocol=udp", "Hunt-Direction=inbound", "Hunt-Network-Addr=127.0.0.1",
		"Hunt-Context=" + dialplan, "Hunt-Destination-Number=" + destination,
	}, caller...))
}

// ask makes a request as mod_xml_curl does. Nothing in it needs encoding: xmlcurl takes a plus sign for a plus sign.
func (in *installation) ask(ctx context.Context, section, tag, key, value string, fields []string) ([]byte, error) {
	body := append([]string{"hostname=sipp", "section=" + section, "tag_name=" + tag, "key_name=" + key, "key_value=" + value}, fields...)
	return in.request(ctx, http.MethodPost, "/xml", []byte(strings.Join(body, "&")))
}

// The numbers that the yardstick's routes are learnt with.
const (
	learntNumber = "+390255551234"
	learntCaller = "+393331234567"
)

// internalRoutes are the routes of a phone: to a colleague and to the public network. The caller is the second user,
// the colleague the third: the first is special (didTarget).
func (in *installation) internalRoutes(ctx context.Context, caller, callee string) (string, error) {
	callerID, err := extensionID(caller)
	if err != nil {
		return "", err
	}
	calleeID, err := extensionID(callee)
	if err != nil {
		return "", err
	}
	number, colleague := strconv.Itoa(firstExtension+1), strconv.Itoa(firstExtension+2)
	who := []string{
		"variable_sofia_profile_name=internal", "variable_sip_authorized=true", "variable_user_name=" + number, "variable_domain_name=" + realm,
	}
	var routes strings.Builder
	for _, r := range []struct{ destination, expression string }{{colleague, `^(\d{4,6})$`}, {learntNumber, `^(\+\d{7,15})$`}} {
		doc, err := in.route(ctx, tenant, r.destination, who...)
		if err != nil {
			return "", err
		}
		extension, err := generalise(doc, r.expression, []learnt{
			{calleeID, "$1"},
			{callerID, "${edgvoip_extension_id}"},
			{r.destination, "$1"},
			{"Ext " + number, "${effective_caller_id_name}"},
			{number, "${effective_caller_id_number}"},
		})
		if err != nil {
			return "", fmt.Errorf("route to %s: %w", r.destination, err)
		}
		routes.WriteString(extension)
	}
	return routes.String(), nil
}

// inboundRoute is the route of a carrier's call: every DID reaches the same extension.
func (in *installation) inboundRoute(ctx context.Context) (string, error) {
	did := "+" + strconv.Itoa(firstDID)
	doc, err := in.route(ctx, "public", did,
		"variable_sofia_profile_name=external", "Hunt-Caller-ID-Number="+learntCaller, "Hunt-Caller-ID-Name="+learntCaller)
	if err != nil {
		return "", err
	}
	extension, err := generalise(doc, `^(\+\d{7,15})$`, []learnt{
		{"caller_id_name=" + learntCaller, "caller_id_name=${caller_id_name}"},
		{"caller_id_number=" + learntCaller, "caller_id_number=${caller_id_number}"},
		{did, "$1"},
	})
	if err != nil {
		return "", fmt.Errorf("route to %s: %w", did, err)
	}
	return extension, nil
}

// learnt is a value of one call, and what FreeSWITCH puts there in another.
type learnt struct{ value, general string }

var uuid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// generalise turns the answer for one call into an extension for all of its kind, which does the same: the same actions
// in the same order, with the caller's and the called party's own values filled in by FreeSWITCH.
func generalise(doc []byte, expression string, values []learnt) (string, error) {
	condition, err := element(doc, "condition")
	if err != nil {
		return "", err
	}
	if !strings.Contains(condition, `application="bridge"`) {
		return "", errors.New("is refused")
	}
	// Ids are taken out of the way, as their digits may look like a number.
	var ids []string
	condition = uuid.ReplaceAllStringFunc(condition, func(id string) string {
		for _, v := range values {
			if v.value == id {
				return v.general
			}
		}
		ids = append(ids, id)
		return "\x00"
	})
	for _, v := range values {
		condition = strings.ReplaceAll(condition, v.value, v.general)
	}
	for _, id := range ids {
		condition = strings.Replace(condition, "\x00", id, 1)
	}
	condition = strings.Replace(condition, "<condition>", `<condition field="destination_number" expression="`+expression+`">`, 1)
	return "<extension name=\"learnt\">\n" + condition + "\n</extension>\n", nil
}

// element returns the only element of a name.
func element(doc []byte, name string) (string, error) {
	found := regexp.MustCompile(`(?s)<`+name+`[ >].*?</`+name+`>`).FindAllString(string(doc), -1)
	if len(found) != 1 {
		return "", fmt.Errorf("the answer has %d elements %q:\n%s", len(found), name, doc)
	}
	return found[0], nil
}

var extensionIDVariable = regexp.MustCompile(`name="edgvoip_extension_id" value="([^"]+)"`)

// extensionID reads the id of an extension off its user element.
func extensionID(user string) (string, error) {
	m := extensionIDVariable.FindStringSubmatch(user)
	if m == nil {
		return "", errors.New("a user without edgvoip_extension_id")
	}
	return m[1], nil
}
