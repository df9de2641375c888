package xmlcurl

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
)

// purposeOfAction tells what the callers that name an action want (docs/freeswitch.md, "Directory"). An action that is
// not here is refused.
var purposeOfAction = map[string]directory.Purpose{
	"sip_auth":         directory.PurposeAuth,
	"user_call":        directory.PurposeUser,
	"voicemail-lookup": directory.PurposeUser,
	"message-count":    directory.PurposeUser,
	"group_call":       directory.PurposeGroup,
}

// purposeOfPurpose is the same for the callers that name a purpose.
var purposeOfPurpose = map[string]directory.Purpose{
	"gateways":     directory.PurposeDomain,
	"network-list": directory.PurposeNetworkList,
}

// purposeOfFunction is the same for the callers that name neither, by the C function that asks.
var purposeOfFunction = map[string]directory.Purpose{
	"user_data_function":               directory.PurposeUser,
	"switch_xml_locate_user":           directory.PurposeUser, // user_exists, find_user_xml, set_user
	"listen_file":                      directory.PurposeUser, // forwarding of voicemail
	"voicemail_check_main":             directory.PurposeUser, // change of a voicemail PIN
	"vm_fsdb_auth_login_function":      directory.PurposeUser,
	"in_group_function":                directory.PurposeGroup,
	"switch_xml_locate_domain":         directory.PurposeDomain, // domain_exists, redirects
	"domain_data_function":             directory.PurposeDomain,
	"xml_locate_function":              directory.PurposeDomain,
	"populate_database":                directory.PurposeEveryone, // dial by name
	"":                                 directory.PurposeDomain,   // list_users sends the five fields only
	"launch_sofia_worker_thread":       directory.PurposeGateways,
	"config_sofia":                     directory.PurposeGateways,
	"switch_load_network_lists":        directory.PurposeNetworkList,
	"sofia_locate_user":                directory.PurposeForbidden, // an address that stands for a user
	"user_attributes":                  directory.PurposeForbidden, // XML-RPC
	"check_auth":                       directory.PurposeForbidden, // verto
	"rtmp_check_auth":                  directory.PurposeForbidden,
	"sofia_reg_handle_sip_r_challenge": directory.PurposeForbidden,
}

// directoryLookup reads a lookup of section directory. A reason means that the request is refused; the lookup then asks
// for the domain only, so that the answer is the domain without the user. known is false if there is not even the name
// of a domain.
func directoryLookup(f *form) (l directory.Lookup, reason string, known bool) {
	if f.keyValue == "" {
		return directory.Lookup{Purpose: directory.PurposeGateways}, "", true
	}
	realm, err := fstext.ParseRealm(f.keyValue)
	if err != nil || f.tagName != "domain" || f.keyName != "name" {
		return directory.Lookup{}, "not the name of a domain", false
	}
	if f.given[fieldDomain] && !strings.EqualFold(f.get(fieldDomain), f.keyValue) {
		return directory.Lookup{}, "domain and key_value differ", false
	}
	if f.contradicts {
		return directory.Lookup{}, "request contradicts itself", false
	}
	l = directory.Lookup{Purpose: purpose(f), Realm: realm, Group: f.get(fieldGroupName)}
	refuse := func(reason string) (directory.Lookup, string, bool) {
		return directory.Lookup{Purpose: directory.PurposeForbidden, Realm: realm}, reason, true
	}
	if f.get(fieldPurpose) == "publish-vm" {
		switch {
		case f.get(fieldUser) == "_all_":
			l.Purpose = directory.PurposeEveryone
		case f.given[fieldUser]:
			l.Purpose = directory.PurposeUser
		}
	}
	switch l.Purpose {
	case directory.PurposeForbidden:
		return refuse("purpose not offered")
	case directory.PurposeAuth:
		if f.given[fieldPurpose] || f.get(fieldAction) != "sip_auth" || f.get(fieldFunction) != "sofia_reg_parse_auth" {
			return refuse("fields that an authentication does not have")
		}
		l.Auth = auth(f)
		fallthrough
	case directory.PurposeUser:
		if l.User, err = fstext.NewUsername(f.get(fieldUser)); err != nil {
			return refuse("not the name of a user")
		}
	}
	return l, "", true
}

// purpose tells why FreeSWITCH asks. What is not known is forbidden. Where credentials are checked, it is an
// authentication whatever else the request says: the answer to any other would let them pass unexamined.
func purpose(f *form) directory.Purpose {
	table, key := purposeOfFunction, f.get(fieldFunction)
	switch {
	case key == "sofia_reg_parse_auth" || f.given[fieldAuthResponse]:
		return directory.PurposeAuth
	case f.given[fieldAction]:
		table, key = purposeOfAction, f.get(fieldAction)
	case f.get(fieldPurpose) == "publish-vm":
		return directory.PurposeGroup
	case f.given[fieldPurpose]:
		table, key = purposeOfPurpose, f.get(fieldPurpose)
	}
	if p, ok := table[key]; ok {
		return p
	}
	return directory.PurposeForbidden
}

func auth(f *form) directory.Auth {
	return directory.Auth{
		Method:      f.get(fieldAuthMethod),
		Profile:     f.get(fieldAuthProfile),
		Username:    f.get(fieldAuthUsername),
		Realm:       f.get(fieldAuthRealm),
		To:          directory.Address{User: f.get(fieldToUser), Host: f.get(fieldToHost)},
		From:        directory.Address{User: f.get(fieldFromUser), Host: f.get(fieldFromHost)},
		ViaProtocol: f.get(fieldViaProtocol),
		Source:      source(f.get(fieldIP), f.get(fieldClientPort)),
		ContactUser: f.get(fieldContactUser),
		SHA256:      len(f.get(fieldAuthResponse)) == 64,
	}
}

// source is the address that a request came from, as FreeSWITCH saw it; the zero value if it does not say.
func source(ip, port string) netip.AddrPort {
	a, err1 := netip.ParseAddr(ip)
	p, err2 := strconv.ParseUint(port, 10, 16)
	if err1 != nil || err2 != nil || p == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p))
}
