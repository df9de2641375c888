package xmlcurl_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgvoip/edgvoip/internal/storetest"
)

// captured returns a captured body with changes: "name=value" replaces a field's value (percent-encoded as FreeSWITCH
// does), "-name" takes the field out, "+name=value" puts one more in front of it or at the end. Fields one to five are
// not encoded.
func captured(tb testing.TB, name string, changes ...string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/captured", name+".form"))
	if err != nil {
		tb.Fatal(err)
	}
	fields := strings.Split(strings.TrimSuffix(string(b), "\n"), "&")
	for _, c := range changes {
		name, value, _ := strings.Cut(strings.TrimLeft(c, "+-"), "=")
		if name != "key_value" && name != "section" {
			value = strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
		}
		at := -1
		for i, f := range fields {
			if n, _, _ := strings.Cut(f, "="); n == name {
				at = i
			}
		}
		switch {
		case c[0] == '-':
			fields = append(fields[:at:at], fields[at+1:]...)
		case c[0] == '+' || at < 0:
			fields = append(fields, name+"="+value)
		default:
			fields[at] = name + "=" + value
		}
	}
	return strings.Join(fields, "&")
}

const (
	bodyRegister = "directory-sofia_reg_parse_auth-sip_auth-REGISTER-domain"
	bodyInvite   = "directory-sofia_reg_parse_auth-sip_auth-INVITE-domain"
	bodyUserCall = "directory-user_outgoing_channel-user_call-domain"
	bodyCall     = "dialplan-tenant-a-1002-internal"
	bodyCarrier  = "dialplan-public-0612345678-external"
)

// Nobody gets credentials checked but for himself. A refusal has no user in it, and so no hash.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	const yes, no = true, false
	for _, tc := range []struct {
		name    string
		body    string
		changes []string
		admit   bool
	}{
		{"register", bodyRegister, nil, yes},
		{"invite", bodyInvite, nil, yes},
		{"register by log-in name", bodyRegister, names("Anna.Rossi"), yes},
		{"log-in name in another case in To", bodyRegister, append(names("Anna.Rossi"), "sip_to_user=anna.rossi"), yes},
		{"To by number, log-in by name", bodyRegister, append(names("Anna.Rossi"), "sip_to_user=1003"), yes},
		{"TLS phone over TLS", bodyRegister, append(names("1005"), "sip_via_protocol=tls"), yes},

		{"another user of the tenant in To", bodyRegister, []string{"sip_to_user=1002"}, no},
		{"another tenant in To", bodyRegister, []string{"sip_to_host=tenant-b.example"}, no},
		{"another domain of the tenant in To", bodyRegister, []string{"sip_to_host=branch.tenant-a.example"}, no},
		{"To host in another letter case", bodyRegister, []string{"sip_to_host=Tenant-A.example"}, no},
		{"another user in From", bodyInvite, []string{"sip_from_user=1002"}, no},
		{"another tenant in From", bodyInvite, []string{"sip_from_host=tenant-b.example"}, no},
		{"no From", bodyInvite, []string{"-sip_from_user", "-sip_from_host"}, no},
		{"call to another tenant, which Call-Info would pick up", bodyInvite, []string{"sip_to_host=tenant-b.example", "sip_to_user=1001"}, no},
		{"message that names another tenant in the user", bodyInvite, []string{"sip_auth_method=MESSAGE", "sip_to_user=sip+1002+tenant-b.example"}, no},
		{"registration without an address", bodyRegister, []string{"-ip"}, no},
		{"registration over IPv6", bodyRegister, []string{"ip=2001:db8::1"}, no},
		{"subscription to another tenant", bodyInvite, []string{"sip_auth_method=SUBSCRIBE", "sip_to_host=tenant-b.example"}, no},
		{"message to another tenant", bodyInvite, []string{"sip_auth_method=MESSAGE", "sip_to_host=tenant-b.example"}, no},
		{"unknown user", bodyRegister, names("1999"), no},
		{"suspended user", bodyRegister, names("1004"), no},
		{"number where the log-in name differs", bodyRegister, names("1003"), no},
		{"log-in name in another case", bodyRegister, names("ANNA.rossi"), no},
		{"TLS phone over UDP", bodyRegister, names("1005"), no},
		{"unknown transport", bodyRegister, []string{"sip_via_protocol=sctp"}, no},
		{"carriers' profile", bodyRegister, []string{"sip_profile=external"}, no},
		{"suspended tenant", bodyRegister, append(names("1000"), "key_value=tenant-c.example", "domain=tenant-c.example", "sip_auth_realm=tenant-c.example", "sip_to_host=tenant-c.example", "sip_from_host=tenant-c.example"), no},
		{"unknown realm", bodyRegister, []string{"key_value=nobody.example", "domain=nobody.example", "sip_auth_realm=nobody.example"}, no},
		{"user of another tenant's realm", bodyRegister, []string{"key_value=tenant-b.example", "domain=tenant-b.example"}, no},

		{"realm with fields in it", bodyRegister, []string{"key_value=tenant-a.example&purpose=gateways&user=1002", "domain=tenant-a.example&purpose=gateways&user=1002"}, no},
		{"realm with fields, domain left", bodyRegister, []string{"key_value=tenant-a.example&purpose=gateways&user=1002"}, no},
		{"realm with a field that contradicts", bodyRegister, []string{"key_value=tenant-a.example&sip_to_user=1002"}, no},
		{"realm with another section", bodyRegister, []string{"key_value=tenant-a.example&section=configuration&key_value=sofia.conf"}, yes}, // seen once, by position
		{"purpose beside an action", bodyRegister, []string{"+purpose=gateways"}, no},
		{"field twice, different", bodyRegister, []string{"+sip_to_user=1002"}, no},
		{"field twice, different, genuine last", bodyRegister, []string{"sip_to_user=1002", "+sip_to_user=1001"}, no},
		{"field twice, the same", bodyRegister, []string{"+sip_to_user=1001"}, yes},
		{"action replaced", bodyRegister, []string{"action=user_call"}, no},
		{"action and function replaced", bodyRegister, []string{"action=user_call", "Event-Calling-Function=user_outgoing_channel"}, no},
		{"action twice", bodyRegister, []string{"+action=user_call"}, no},
		{"other function", bodyRegister, []string{"Event-Calling-Function=user_outgoing_channel"}, no},
		{"domain differs from key_value", bodyUserCall, []string{"domain=tenant-b.example"}, no},
		{"user with markup", bodyUserCall, []string{"user=1002<!"}, no},
		{"user with a variable", bodyUserCall, []string{"user=${system(id)}"}, no},
		{"realm with a variable", bodyUserCall, []string{"key_value=$${domain}", "domain=$${domain}"}, no},
		{"not by name", bodyUserCall, []string{"key_name=id"}, no},
		{"answer a challenge", bodyUserCall, []string{"action=reverse-auth-lookup"}, no},
		{"verto log-in", bodyUserCall, []string{"action=jsonrpc-authenticate"}, no},
		{"event socket log-in", bodyUserCall, []string{"action=event_socket_auth"}, no},
		{"XML-RPC log-in", bodyUserCall, []string{"-action", "Event-Calling-Function=user_attributes"}, no},
		{"address for a user", bodyUserCall, []string{"-action", "Event-Calling-Function=sofia_locate_user"}, no},
		{"unknown action", bodyUserCall, []string{"action=give_me_everything"}, no},
		{"unknown purpose", bodyUserCall, []string{"-action", "purpose=give_me_everything"}, no},
		{"unknown function", bodyUserCall, []string{"-action", "Event-Calling-Function=f"}, no},
		{"user call", bodyUserCall, nil, yes},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, _ := newServer(t, storetest.Scene(t))
			doc := lookup(t, s, captured(t, tc.body, tc.changes...))
			if got := strings.Contains(doc, "a1-hash"); got != tc.admit {
				t.Errorf("user in the answer: %v, want %v\n%s", got, tc.admit, doc)
			}
			if !tc.admit && strings.Contains(doc, "<user ") {
				t.Errorf("user in a refusal\n%s", doc)
			}
			if !strings.Contains(doc, "tenant-c") && !strings.Contains(doc, "nobody") && strings.Contains(doc, "<domain") && !strings.Contains(doc, `name="tenant-a.example"`) && !strings.Contains(doc, `name="tenant-b.example"`) {
				t.Errorf("some other domain\n%s", doc)
			}
		})
	}
}

// names makes a REGISTER that of another user.
func names(user string) []string {
	return []string{"user=" + user, "sip_auth_username=" + user, "sip_to_user=" + user, "sip_from_user=" + user}
}

// A SHA-256 response is compared with the SHA-256 A1, and a registration is stored under the name for its kind of
// device.
func TestAuthenticationDetails(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t, storetest.Scene(t))
	for _, tc := range []struct {
		name    string
		changes []string
		want    string
	}{
		{"MD5", nil, `name="a1-hash" value="bfcd8aaf474785981919d28b9b8488d8"`},
		{"SHA-256", []string{"sip_auth_response=" + strings.Repeat("0", 64)}, `name="a1-hash" value="e68c224b88703b6a92eeb15bb55f3b58f13ac5051de1d90a1021507518523720"`},
		{"UDP", nil, `name="sip-force-extension" value="1001"`},
		{"TCP", []string{"sip_via_protocol=tcp"}, `name="sip-force-extension" value="1001"`},
		{"TLS", []string{"sip_via_protocol=tls"}, `name="sip-force-extension" value="1001~tls"`},
		{"contact where the phone is", nil, `name="sip-force-contact" value="&lt;sip:1001@127.0.0.1:6060;transport=udp;fs_nat`},
		{"contact of a browser", []string{"sip_via_protocol=wss", "sip_contact_user=abc123"}, `value="&lt;sip:abc123@127.0.0.1:6060;transport=wss;fs_nat`},
		{"contact that is a number to call", []string{"sip_contact_user=+390999999999"}, `value="&lt;sip:1001@127.0.0.1:6060;transport=udp;fs_nat`},
		{"contact with parameters", []string{"sip_contact_user=a;fs_path=x"}, `value="&lt;sip:1001@127.0.0.1:6060;transport=udp;fs_nat`},
		{"TLS media", []string{"sip_via_protocol=tls"}, `name="rtp_secure_media_inbound" value="mandatory"`},
		{"WSS", []string{"sip_via_protocol=wss"}, `name="sip-force-extension" value="1001~wss"`},
	} {
		doc := lookup(t, s, captured(t, bodyRegister, tc.changes...))
		if !strings.Contains(doc, tc.want) {
			t.Errorf("%s: no %s in\n%s", tc.name, tc.want, doc)
		}
		for _, never := range []string{"cacheable", ` type="pointer`, ` ip="`, ` cidr="`, `name="password"`} {
			if strings.Contains(doc, never) {
				t.Errorf("%s: %s in\n%s", tc.name, never, doc)
			}
		}
	}
}

// What a caller says of himself, and where he says he is, decides nothing.
func TestCalls(t *testing.T) {
	t.Parallel()
	const (
		toExtension = `name="extension"`
		toPublic    = `name="public"`
		toEmergency = `name="emergency"`
		echo        = `application="echo"`
		forbidden   = `data="403 Forbidden"`
		notFound    = `data="404 Not Found"`
		unavailable = `data="480 Temporarily Unavailable"`
		busy        = `data="486 Busy Here"`
	)
	to := func(n string) string { return "Hunt-Destination-Number=" + n }
	asB := []string{"variable_domain_name=tenant-b.example", "Hunt-Context=tenant-b"}
	for _, tc := range []struct {
		name    string
		body    string
		changes []string
		want    string
	}{
		{"extension", bodyCall, nil, toExtension},
		{"extension by log-in name", bodyCall, []string{to("anna.rossi")}, "sofia/internal/1003%tenant-a.example"},
		{"own domain first", bodyCall, []string{to("1001"), "variable_domain_name=branch.tenant-a.example", "variable_user_name=2001"}, "sofia/internal/1001%branch.tenant-a.example"},
		{"other domain of the tenant", bodyCall, []string{to("2001")}, "sofia/internal/2001%branch.tenant-a.example"},
		{"same number, other tenant", bodyCall, asB, "sofia/internal/1002%tenant-b.example"},
		{"TLS phone rings by TLS only", bodyCall, []string{to("1005")}, "}[rtp_secure_media_outbound=mandatory]sofia/internal/1005~tls%tenant-a.example\""},
		{"suspended target", bodyCall, []string{to("1004")}, unavailable},
		{"unknown number", bodyCall, []string{to("1999")}, notFound},
		{"oneself", bodyCall, []string{to("1001")}, busy},
		{"echo test", bodyCall, []string{to("9196")}, echo},

		{"public, international", bodyCall, []string{to("+393331234567")}, toPublic},
		{"public, with 00", bodyCall, []string{to("00393331234567")}, "/+393331234567"},
		{"public, national", bodyCall, []string{to("3331234567")}, "/+393331234567"},
		{"public, too short", bodyCall, []string{to("333")}, notFound},
		{"public, by the other tenant's own trunk", bodyCall, []string{to("+393331234567"), "variable_domain_name=tenant-b.example", "Hunt-Context=tenant-b"}, toPublic},
		{"emergency", bodyCall, []string{to("112")}, toEmergency},
		{"emergency, national", bodyCall, []string{to("118")}, toEmergency},
		{"caller id of the trunk", bodyCall, []string{to("+393331234567")}, "effective_caller_id_number=+390612345600"},

		{"TLS without a key for the media", bodyCall, []string{"variable_sip_via_protocol=tls"}, `data="488 Not Acceptable Here"`},
		{"TLS with a key", bodyCall, []string{"variable_sip_via_protocol=tls", "variable_switch_r_sdp=v=0\r\nm=audio 6000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n"}, toExtension},
		{"TLS without an offer", bodyCall, []string{"variable_sip_via_protocol=tls", "-variable_switch_r_sdp"}, toExtension},
		{"context of another tenant", bodyCall, []string{"Hunt-Context=tenant-b"}, forbidden},
		{"context of the carriers", bodyCall, []string{"Hunt-Context=public"}, forbidden},
		{"no credentials", bodyCall, []string{"-variable_sip_authorized"}, forbidden},
		{"credentials not checked", bodyCall, []string{"variable_sip_authorized=false"}, forbidden},
		{"credentials without a user", bodyCall, []string{"-variable_user_name"}, forbidden},
		{"credentials of nobody", bodyCall, []string{"variable_user_name=1999"}, forbidden},
		{"credentials of a suspended user", bodyCall, []string{"variable_user_name=1004"}, forbidden},
		{"credentials of a suspended tenant", bodyCall, []string{"variable_domain_name=tenant-c.example", "variable_user_name=1000", "Hunt-Context=tenant-c"}, forbidden},
		{"credentials on the carriers' profile", bodyCall, []string{"variable_sofia_profile_name=external"}, forbidden},
		{"identity given twice", bodyCall, []string{"+variable_user_name=1000"}, forbidden},
		{"destination given twice", bodyCall, []string{"+Hunt-Destination-Number=1000"}, forbidden},
		{"caller id of another", bodyCall, []string{"Hunt-Caller-ID-Number=1000", "Hunt-Caller-ID-Name=Boss"}, "effective_caller_id_number=1001"},

		{"more than a number", bodyCall, []string{to("1002,loopback/9196")}, notFound},
		{"more than a number, sequential", bodyCall, []string{to("1002|sofia/external/1@evil.example")}, notFound},
		{"parameters", bodyCall, []string{to("1002;fs_path=sip:evil.example")}, notFound},
		{"host", bodyCall, []string{to("1002@evil.example")}, notFound},
		{"variable", bodyCall, []string{to("${system(id)}")}, notFound},
		{"global", bodyCall, []string{to("$${default_password}")}, notFound},
		{"markup", bodyCall, []string{to(`1002"/><action application="system" data="id`)}, notFound},
		{"directive", bodyCall, []string{to("x-pre-process")}, notFound},
		{"control characters", bodyCall, []string{to("1002\r\n\x00")}, notFound},
		{"nothing", bodyCall, []string{"-Hunt-Destination-Number"}, notFound},

		{"carrier, national number", bodyCarrier, nil, "sofia/internal/1000%tenant-a.example"},
		{"carrier, international number", bodyCarrier, []string{to("+390612345678")}, "sofia/internal/1000%tenant-a.example"},
		{"carrier, international without plus", bodyCarrier, []string{to("390612345678")}, "sofia/internal/1000%tenant-a.example"},
		{"carrier, other tenant", bodyCarrier, []string{to("+390612345778")}, "sofia/internal/1000%tenant-b.example"},
		{"carrier, first of the range", bodyCarrier, []string{to("+390612345600")}, toExtension},
		{"carrier, last of the range", bodyCarrier, []string{to("+390612345699")}, toExtension},
		{"carrier, before the ranges", bodyCarrier, []string{to("+390612345599")}, notFound},
		{"carrier, after the ranges", bodyCarrier, []string{to("+390612345800")}, notFound},
		{"carrier, an extension", bodyCarrier, []string{to("1001")}, notFound},
		{"carrier, a public number", bodyCarrier, []string{to("+393331234567")}, notFound},
		{"carrier, emergency", bodyCarrier, []string{to("112")}, notFound},
		{"stranger's address", bodyCarrier, []string{"Hunt-Network-Addr=198.51.100.7"}, forbidden},
		{"no address", bodyCarrier, []string{"-Hunt-Network-Addr"}, forbidden},
		{"carrier in a tenant's context", bodyCarrier, []string{"Hunt-Context=tenant-a"}, forbidden},
		{"carrier's name with a variable", bodyCarrier, []string{"Hunt-Caller-ID-Name=${system(id)}"}, "effective_caller_id_name=+393331234567"},
		{"carrier's number that is a colleague's", bodyCarrier, []string{"Hunt-Caller-ID-Number=1002", "Hunt-Caller-ID-Name=Ext 1002"}, "effective_caller_id_name=anonymous"},
		{"carrier's number with a leg", bodyCarrier, []string{"Hunt-Caller-ID-Number=1,loopback/9196", "Hunt-Caller-ID-Name=a,b"}, "effective_caller_id_number=anonymous"},
		{"phone's identity forged by a carrier", bodyCarrier, []string{"variable_edgvoip_leg_user=1001", "variable_edgvoip_leg_realm=tenant-a.example", "Hunt-Transfer-Source=x", to("+393331234567")}, notFound},

		{"transferred from outside to an extension", bodyCarrier, guest("1002"), "sofia/internal/1002%tenant-a.example"},
		{"transferred from outside to the outside", bodyCarrier, guest("+393331234567"), notFound},
		{"transferred from outside to another tenant", bodyCarrier, append(guest("1002"), "Hunt-Context=tenant-b"), forbidden},
		{"transferred from outside, not noted yet", bodyCarrier, unnoted(guest("1002")), "sofia/internal/1002%tenant-a.example"},
		{"transferred from outside to the outside, not noted yet", bodyCarrier, unnoted(guest("+393331234567")), notFound},
		{"phone that was called, transferred", bodyCarrier, leg("1002"), "sofia/internal/1002%tenant-a.example"},
		{"phone that was called, transferred, not noted yet", bodyCarrier, unnoted(leg("1002")), "sofia/internal/1002%tenant-a.example"},
		{"phone that was called, transferred outside", bodyCarrier, leg("+393331234567"), toPublic},
		{"phone that was called, other context", bodyCarrier, append(leg("1002"), "Hunt-Context=tenant-b"), forbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, _ := newServer(t, storetest.Scene(t))
			doc := lookup(t, s, captured(t, tc.body, tc.changes...))
			if !strings.Contains(doc, tc.want) {
				t.Errorf("no %s in\n%s", tc.want, doc)
			}
			if n := strings.Count(doc, "<context "); n != 1 {
				t.Errorf("%d contexts, want 1", n)
			}
		})
	}
}

// guest is the far side of a carrier's call after an extension transferred it.
func guest(to string) []string {
	return []string{
		"Hunt-Destination-Number=" + to, "Hunt-Context=tenant-a", "Hunt-Transfer-Source=1795195866:x:bl_xfer:1002/tenant-a/XML",
		"variable_edgvoip_tenant_id=" + storetest.TenantID("tenant-a").String(),
	}
}

// leg is the phone that was called, 1000, after its caller transferred it.
func leg(to string) []string {
	return append(guest(to), "Hunt-Direction=outbound", "variable_sofia_profile_name=internal", "variable_edgvoip_leg_user=1000", "variable_edgvoip_leg_realm=tenant-a.example")
}

// unnoted is a channel that was transferred and asks for its route before the switch has written that down.
func unnoted(changes []string) []string {
	return append(changes, "-Hunt-Transfer-Source", "variable_edgvoip_direction=outbound")
}

// Nothing that is rendered for one tenant holds anything of another.
func TestTenantsNeverMeet(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t, storetest.Scene(t))
	b := []string{"tenant-b", storetest.TenantID("tenant-b").String(), storetest.TrunkID("tenant-b", "first").String()}
	for _, n := range []string{"1000", "1001", "1002"} {
		b = append(b, storetest.ExtensionID("tenant-b.example", n).String())
	}
	forms, err := filepath.Glob("testdata/captured/d*.form")
	if err != nil {
		t.Fatal(err)
	}
	for _, form := range forms {
		doc := lookup(t, s, captured(t, strings.TrimSuffix(filepath.Base(form), ".form")))
		for _, secret := range b {
			if strings.Contains(doc, secret) {
				t.Errorf("%s: %s of tenant-b in an answer for tenant-a", form, secret)
			}
		}
	}
}

// What is not a lookup gets a fitting status, one line in the log, and nothing of what was sent in either.
func TestNotALookup(t *testing.T) {
	t.Parallel()
	good := captured(t, bodyRegister)
	for _, tc := range []struct {
		name   string
		change func(*http.Request) *http.Request
		status int
	}{
		{"no credentials", header("Authorization", ""), http.StatusUnauthorized},
		{"wrong password", header("Authorization", "Basic ZnJlZXN3aXRjaDp3cm9uZw=="), http.StatusUnauthorized},
		{"not base64", header("Authorization", "Basic !!!"), http.StatusUnauthorized},
		{"other scheme", header("Authorization", "Bearer ZnJlZXN3aXRjaDphIGxvbmcgcGFzc3dvcmQ="), http.StatusUnauthorized},
		{"JSON", header("Content-Type", "application/json"), http.StatusUnsupportedMediaType},
		{"no content type", header("Content-Type", ""), http.StatusUnsupportedMediaType},
		{"GET", again(t, http.MethodGet, "/xml", ""), http.StatusMethodNotAllowed},
		{"PUT", again(t, http.MethodPut, "/xml", good), http.StatusMethodNotAllowed},
		{"other path", again(t, http.MethodPost, "/", good), http.StatusNotFound},
		{"empty", again(t, http.MethodPost, "/xml", ""), http.StatusBadRequest},
		{"no section", again(t, http.MethodPost, "/xml", "hostname=vm"), http.StatusBadRequest},
		{"other order", again(t, http.MethodPost, "/xml", "section=directory&hostname=vm&tag_name=&key_name=&key_value="), http.StatusBadRequest},
		{"garbage", again(t, http.MethodPost, "/xml", "\x00\xff&&&==%%%"), http.StatusBadRequest},
		{"unknown section", again(t, http.MethodPost, "/xml", captured(t, bodyRegister, "section=kitchen")), http.StatusBadRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, lines := newServer(t, storetest.Scene(t))
			r := tc.change(request(t, http.MethodPost, "/xml", good))
			status, text := send(t, s, r)
			if status != tc.status {
				t.Errorf("status %d (%s), want %d", status, text, tc.status)
			}
			if n := strings.Count(lines.String(), "\n"); n != 1 || !strings.Contains(lines.String(), "correlation_id") {
				t.Errorf("%d lines in the log, want 1 with a correlation id:\n%s", n, lines)
			}
			for _, secret := range []string{"a long password", "2c41897954b4ca6dbff18c734e865f43", "b8f652a9-fe0a"} {
				if strings.Contains(lines.String()+text, secret) {
					t.Errorf("%s in the log or the answer", secret)
				}
			}
		})
	}
}

func header(name, value string) func(*http.Request) *http.Request {
	return func(r *http.Request) *http.Request {
		r.Header.Set(name, value)
		if value == "" {
			r.Header.Del(name)
		}
		return r
	}
}

func again(t *testing.T, method, path, body string) func(*http.Request) *http.Request {
	t.Helper()
	return func(*http.Request) *http.Request { return request(t, method, path, body) }
}
