package esl

import (
	"context"
	"net/url"
	"strings"
)

// Registration is a registration as a switch tells of it. All of it but the profile is, or may be, what a phone wrote.
type Registration struct {
	Profile string
	// User and Host are the address under which the switch keeps it.
	User, Host string
	// AuthUser and AuthRealm are the credentials that it was made with.
	AuthUser, AuthRealm string
	CallID, Agent       string
	IP, Port            string
	// Event is the same for all who hear of this registration, and no other's; empty if it was read from a list, or
	// the switch did not say.
	Event string `json:",omitempty"`
}

// Registered is the kind of event that tells of a registration; NewRegistration reads it.
const Registered = "CUSTOM sofia::register"

// NewRegistration reads the event of a registration. Its names are the switch's: "from" is the address that is kept,
// whatever From said (sofia_reg.c, sofia_reg_handle_register_token).
func NewRegistration(e Event) Registration {
	r := Registration{
		Profile: e.Get("profile-name"), User: e.Get("from-user"), Host: e.Get("from-host"), AuthUser: e.Get("username"), AuthRealm: e.Get("realm"),
		CallID: e.Get("call-id"), Agent: e.Get("user-agent"), IP: e.Get("network-ip"), Port: e.Get("network-port"),
	}
	if core, n := e.Get("Core-UUID"), e.Get("Event-Sequence"); core != "" && n != "" {
		r.Event = core + "/" + n
	}
	return r
}

// ListRegistrations returns the registrations of a profile.
func (c *Client) ListRegistrations(ctx context.Context, profile string) ([]Registration, error) {
	answer, err := c.API(ctx, "sofia", "xmlstatus", "profile", profile, "reg")
	if err != nil {
		return nil, err
	}
	if !strings.Contains(answer, "<profile>") {
		return nil, &CommandError{Command: "sofia", Reply: strings.TrimSpace(answer)}
	}
	return parseRegistrations(profile, answer), nil
}

// parseRegistrations reads the answer to "sofia xmlstatus profile … reg". It goes by lines and not by XML, since the
// switch writes what phones wrote as it is (mod_sofia.c, show_reg_callback_xml): a Call-ID can break the document, but
// it holds no line break, so it cannot leave its line.
func parseRegistrations(profile, answer string) []Registration {
	var list []Registration
	inside := false
	for line := range strings.SplitSeq(answer, "\n") {
		switch line {
		case "    <registration>":
			list, inside = append(list, Registration{Profile: profile}), true
			continue
		case "    </registration>":
			inside = false
			continue
		}
		if !inside {
			continue
		}
		if name, value, ok := element(line); ok {
			list[len(list)-1].set(name, value)
		}
	}
	return list
}

// element reads a line that holds one element.
func element(line string) (name, value string, ok bool) {
	line, ok = strings.CutPrefix(line, "        <")
	if !ok {
		return "", "", false
	}
	if name, value, ok = strings.Cut(line, ">"); !ok {
		return "", "", false
	}
	value, ok = strings.CutSuffix(value, "</"+name+">")
	return name, value, ok
}

func (r *Registration) set(name, value string) {
	switch name {
	case "call-id":
		r.CallID = value
	case "user":
		if i := strings.LastIndexByte(value, '@'); i >= 0 {
			r.User, r.Host = value[:i], value[i+1:]
		}
	case "agent":
		r.Agent = value
	case "network-ip":
		r.IP = value
	case "network-port":
		r.Port = value
	case "sip-auth-user":
		r.AuthUser = value
		if decoded, err := url.PathUnescape(value); err == nil {
			r.AuthUser = decoded
		}
	case "sip-auth-realm":
		r.AuthRealm = value
	}
}
