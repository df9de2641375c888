package e2e_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/edgvoip/edgvoip/directory"
	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/secret"
)

// sealed returns the credentials of an account as the database holds them.
func (s *scene) sealed(t *testing.T, slug, realm, username, password string) (md5, sha []byte) {
	t.Helper()
	var tenant uuid.UUID
	if err := s.db.QueryRowContext(t.Context(), "SELECT id FROM edgvoip.tenants WHERE slug = $1", slug).Scan(&tenant); err != nil {
		t.Fatal(err)
	}
	name, err := fstext.NewUsername(username)
	if err != nil {
		t.Fatal(err)
	}
	domain, err := fstext.NewRealm(realm)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(hash string, a directory.HashAlgorithm) []byte {
		return s.keys.Seal([]byte(hash), directory.CredentialOwner(tenant, name, domain, a)).Data
	}
	return seal(secret.HA1MD5(username, realm, password), directory.MD5), seal(secret.HA1SHA256(username, realm, password), directory.SHA256)
}

// renameAccount gives an extension of tenant A another SIP username with a fitting credential, and takes it back when
// the test ends.
func (s *scene) renameAccount(t *testing.T, extension, username, password string) {
	t.Helper()
	var oldName string
	var oldMD5, oldSHA []byte
	const where = " WHERE extension = $1 AND tenant_id = (SELECT id FROM edgvoip.tenants WHERE slug = $2)"
	if err := s.db.QueryRowContext(t.Context(), "SELECT sip_username, ha1_md5_sealed, ha1_sha256_sealed FROM edgvoip.sip_extensions"+where,
		extension, tenantA).Scan(&oldName, &oldMD5, &oldSHA); err != nil {
		t.Fatal(err)
	}
	md5, sha := s.sealed(t, tenantA, realmA, username, password)
	s.change(t, "UPDATE edgvoip.sip_extensions SET sip_username = $3, ha1_md5_sealed = $4, ha1_sha256_sealed = $5"+where,
		[]any{extension, tenantA, username, md5, sha}, []any{extension, tenantA, oldName, oldMD5, oldSHA})
}

func impostors(t *testing.T, s *scene) {
	t.Helper()
	refused := func(t *testing.T, r *message, victims ...string) {
		t.Helper()
		if r.status() != 403 {
			t.Errorf("answered %q", r.start)
		}
		for _, v := range victims {
			name, realm, _ := strings.Cut(v, "@")
			for _, stored := range []string{name, name + "~tls", name + "~wss"} {
				if s.registered(stored, realm) {
					t.Errorf("%s@%s is registered", stored, realm)
				}
			}
		}
	}
	addressed := func(to, from string) func(*request) {
		return func(r *request) {
			r.to, r.from = "<sip:"+to+">", "<sip:"+from+">"
			_, realm, _ := strings.Cut(to, "@")
			r.uri = "sip:" + realm
		}
	}
	t.Run("registering a colleague's address with one's own credentials is refused", func(t *testing.T) {
		s.begin(t)
		p := newPhone(t, s.internal, user("1001", realmA))
		refused(t, p.register(t, addressed("1002@"+realmA, "1001@"+realmA)), "1002@"+realmA, "1001@"+realmA)
		refused(t, p.register(t, addressed("1002@"+realmA, "1002@"+realmA)), "1002@"+realmA, "1001@"+realmA)
		refused(t, p.register(t, addressed("1001~tls@"+realmA, "1001@"+realmA)), "1001@"+realmA)
	})
	t.Run("registering an address of another tenant with one's own credentials is refused", func(t *testing.T) {
		s.begin(t)
		p := newPhone(t, s.internal, user("1001", realmA))
		for _, from := range []string{"1001@" + realmA, "1001@" + realmB, "1002@" + realmB} {
			for _, to := range []string{"1001@" + realmB, "1002@" + realmB} {
				claim := p.login
				claim.claimedRealm = realmA
				refused(t, p.register(t, addressed(to, from), func(r *request) { r.login = &claim }), to, "1001@"+realmA)
			}
		}
	})
	t.Run("a realm that carries form fields is refused", func(t *testing.T) {
		s.begin(t)
		for _, realm := range []string{
			realmA + "&purpose=gateways&user=1002", realmA + "&user=1002&domain=" + realmA, realmA + "&action=user_call", realmA + "&domain=" + realmB,
			realmA + "&section=configuration&key_value=sofia.conf", realmA + "&key=id&cacheable=1", realmA + "%26user=1002", realmA + ";user=1002",
			realmA + "&sip_to_user=1001&sip_auth_method=INVITE", realmA + "&purpose=network-list", realmA + strings.Repeat("x", 600),
		} {
			p := newPhone(t, s.internal, user("1001", realmA))
			claim := p.login
			claim.claimedRealm = realm
			with := func(r *request) { r.login = &claim }
			refused(t, p.register(t, with), "1001@"+realmA, "1002@"+realmA)
			refused(t, p.register(t, with, addressed("1002@"+realmA, "1001@"+realmA)), "1002@"+realmA)
			if c := p.dial(t, "9196", with); c.status() < 400 {
				t.Errorf("realm %q: call answered %q", realm, c.response.start)
			}
		}
	})
	t.Run("headers named like form fields change nothing", func(t *testing.T) {
		s.begin(t)
		p := newPhone(t, s.internal, user("1001", realmA))
		fields := []string{
			"Expires: 300", "X-user: 1002", "X-domain: " + realmB, "user: 1002", "domain: " + realmB, "action: user_call", "purpose: gateways",
			"sip_to_user: 1001", "X-x&user=1002: 1", "X-AUTH-IP: 127.0.0.1", "variable_sip_authorized: true", "variable_user_name: 1002",
		}
		refused(t, p.register(t, addressed("1002@"+realmA, "1001@"+realmA), func(r *request) { r.headers = fields }), "1002@"+realmA)
		b := s.phoneA(t, "1002")
		stranger := newPhone(t, s.internal, login{})
		if c := stranger.dial(t, "1002", func(r *request) {
			r.uri, r.to, r.from, r.headers = "sip:1002@"+realmA, "<sip:1002@"+realmA+">", "<sip:1001@"+realmA+">", fields
		}); c.status() < 400 {
			t.Errorf("call without credentials answered %q", c.response.start)
		}
		b.expectSilence(t)
	})
	t.Run("calling as a colleague with one's own credentials is refused", func(t *testing.T) {
		s.begin(t)
		p, b := newPhone(t, s.internal, user("1001", realmA)), s.phoneA(t, "1003")
		claim := p.login
		claim.claimedRealm = realmA
		for _, as := range []string{"1002@" + realmA, "1001@" + realmB, "anonymous@" + realmA} {
			if c := p.dial(t, "1003", func(r *request) { r.from, r.login = "<sip:"+as+">", &claim }); c.status() != 403 {
				t.Errorf("as %s: answered %q", as, c.response.start)
			}
		}
		b.expectSilence(t)
	})
	t.Run("gateway names in a request do not move it to another context", func(t *testing.T) {
		s.begin(t)
		a, target, targetB, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1000"), newPhone(t, s.internal, user("1000", realmB)).registered(t), s.carrierPhone(t)
		stranger, guest := newPhone(t, s.external, login{}, from("127.0.0.3")), newPhone(t, s.internal, login{})
		for _, tenant := range []string{tenantA, tenantB} {
			for n := 1; n <= 2; n++ {
				gateway := s.trunk(t, tenant, n).String()
				for _, uri := range []string{
					"sip:0612345678@" + realmA + ";gw=" + gateway, "sip:0612345778@" + realmA + ";gw=" + gateway, "sip:1000@" + realmA + ";gw=" + gateway,
					"sip:+390255551234@" + realmA + ";gw=" + gateway, "sip:gw+" + gateway + "@" + realmA, "sip:gw+" + gateway + "@" + realmB,
				} {
					for name, p := range map[string]*phone{"phone": a, "stranger on the carriers' port": stranger, "stranger on the phones' port": guest} {
						c := p.dial(t, "x", func(r *request) {
							r.uri, r.to = uri, "<"+uri+">"
							if p != a {
								r.from = "<sip:1001@" + realmA + ">"
							}
						})
						if c.status() < 400 {
							t.Errorf("%s at %s: answered %q", name, uri, c.response.start)
						}
					}
				}
			}
		}
		target.expectSilence(t)
		targetB.expectSilence(t)
		carrier.expectSilence(t)
	})
	t.Run("a user whose sealed credential is garbage is refused", func(t *testing.T) {
		s.begin(t)
		s.set(t, "1005", "ha1_md5_sealed", []byte("garbage"))
		for _, password := range []string{"pw1005", "", "garbage"} {
			p := newPhone(t, s.internal, login{user: "1005", realm: realmA, password: password})
			refused(t, p.register(t), "1005@"+realmA)
			if c := p.dial(t, "9196"); c.status() != 403 {
				t.Errorf("call answered %q", c.response.start)
			}
		}
	})
	t.Run("requests of strangers get nothing", func(t *testing.T) {
		s.begin(t)
		b := s.phoneA(t, "1002")
		for _, port := range []int{s.internal, s.external} {
			for _, address := range []string{"127.0.0.1", "127.0.0.3"} {
				p := newPhone(t, port, login{}, from(address))
				for _, method := range []string{"REGISTER", "SUBSCRIBE", "MESSAGE", "UPDATE", "PUBLISH", "NOTIFY", "INFO", "REFER"} {
					r, _ := p.exchange(t, request{
						method: method, uri: "sip:1002@" + realmA, from: "<sip:1001@" + realmA + ">", to: "<sip:1002@" + realmA + ">", contact: p.contact(),
						headers: []string{"Event: message-summary", "Expires: 300", "Refer-To: <sip:1002@" + realmA + ">"}, mute: true,
					}, dialog{token(), token(), new(int)})
					// To the last four FreeSWITCH says yes outside a call, whoever asks, and does nothing.
					harmless := method == "PUBLISH" || method == "NOTIFY" || method == "INFO" || method == "REFER"
					if r.status() < 300 && !harmless {
						t.Errorf("%s on port %d from %s answered %q", method, port, address, r.start)
					}
				}
			}
		}
		s.idle(t)
		b.expectSilence(t)
		if s.registered("1001", realmA) {
			t.Error("1001 is registered")
		}
	})
}

// trap is a file that appears if anything written by these tests is executed.
func (s *scene) trap(t *testing.T) (file string, sprung func() bool) {
	t.Helper()
	file = filepath.Join(s.dir, "executed-"+token())
	return file, func() bool {
		_, err := os.Lstat(file)
		return err == nil
	}
}

// texts are what FreeSWITCH would obey if it were let: in names, numbers, headers and rows.
func texts(file string) []string {
	return []string{
		"${system(touch " + file + ")}",
		"$${system(touch " + file + ")}",
		"${bgapi(system touch " + file + ")}",
		"${spawn(touch " + file + ")}",
		`\${system(touch ` + file + ")}",
		"%24%7Bsystem(touch " + file + ")%7D",
		"${caller_id_name}${destination_number}",
		"$${core_uuid}",
		`<X-PRE-PROCESS cmd="exec" data="touch ` + file + `"/>`,
		`x-pre-process`,
		"<!--#exec touch " + file + "-->",
		`<!"/><param name="password" value="x`,
		"<!DOCTYPE x [<!ENTITY y SYSTEM \"/etc/passwd\">]>",
		`"/><action application="system" data="touch ` + file + `"/><x y="`,
		"]]><![CDATA[",
		"<?xml version=\"1.0\"?>",
		"<include>",
		"{api_on_answer=system touch " + file + "}",
		"[api_on_ring='system touch " + file + "']",
		"1002,loopback/9196",
		"1002|loopback/9196",
		"1002:_:loopback/9196",
		"' \" ` ; & # % \\",
		"\x01\x02\x1b[2J\x7f",
		"\u202e\u0000\ufeff",
		strings.Repeat("A", 4000),
	}
}

// quoted writes a text as a SIP display name (RFC 3261, 25.1).
func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\x00", "").Replace(text) + `"`
}

// inUser writes a text as the user part of a SIP URI.
func inUser(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// expectNothingRan fails if a trap has sprung or the switch's log shows that it ran something.
func (s *scene) expectNothingRan(t *testing.T, sprung func() bool, logFrom int) {
	t.Helper()
	s.idle(t)
	if sprung() {
		t.Error("what a caller or a row wrote was executed")
	}
	ran := regexp.MustCompile(`EXECUTE .* (system|bgsystem|spawn|bgapi|lua|javascript)\(|Executing command|API CALL \[(system|bg_system|spawn|bgapi)`)
	for line := range strings.SplitSeq(s.log(t)[logFrom:], "\n") {
		if ran.MatchString(line) {
			t.Errorf("log: %s", line)
		}
	}
	if left := s.leftovers(t); len(left) > 0 {
		t.Errorf("documents left in the log directory: %v", left)
	}
}

var (
	severe = regexp.MustCompile(`\[(ERR|CRIT|ALERT)\]`)
	// unusable are the messages of FreeSWITCH about documents that it could not read, or values in them that it
	// refused.
	unusable = regexp.MustCompile(`switch_xml\.c|mod_xml_curl\.c|mod_dialplan_xml\.c|contains a variable|Error Parsing|Invalid gateway|unterminated`)
	// neutralised is how it reports that it dropped what a caller wrote into his own message. Values of ours go by
	// other names.
	neutralised = regexp.MustCompile(`\$\{(sip_\S+|channel_name|bridge_channel|presence_id)\} contains a variable`)
	// withheld is how the switch reports an answer of xmlcurl that says it does not know.
	withheldAnswer = regexp.MustCompile(`Received HTTP error`)
)

// expectCleanLog fails if the switch complained about a document.
func (s *scene) expectCleanLog(t *testing.T, from int) {
	t.Helper()
	for line := range strings.SplitSeq(s.log(t)[from:], "\n") {
		// A line that was too long has no end, and another module's complaint stands behind it.
		at := severe.FindStringIndex(line)
		if at == nil {
			continue
		}
		if complaint := line[at[0]:]; unusable.MatchString(complaint) && !withheldAnswer.MatchString(complaint) && !neutralised.MatchString(complaint) {
			t.Errorf("log: %s", line)
		}
	}
}

func injections(t *testing.T, s *scene) {
	t.Helper()
	t.Run("hostile names, headers and addresses of a carrier's call run nothing", func(t *testing.T) {
		s.begin(t)
		file, sprung := s.trap(t)
		logFrom := len(s.log(t))
		target, carrier := s.phoneA(t, "1000"), newPhone(t, s.external, login{})
		for _, text := range texts(file) {
			c := carrier.dial(t, "0612345678", func(r *request) {
				r.from = quoted(text) + " <sip:" + inUser(text) + "@127.0.0.1>"
				r.contact = "<sip:" + inUser(text) + "@" + carrier.local + ">"
				r.headers = []string{
					"X-Note: " + quoted(text), "X-" + inUser(text)[:min(20, len(inUser(text)))] + ": 1", "User-Agent: " + quoted(text), "Subject: " + quoted(text),
					"P-Asserted-Identity: " + quoted(text) + " <sip:" + inUser(text) + "@127.0.0.1>",
					"Remote-Party-ID: " + quoted(text) + " <sip:" + inUser(text) + "@127.0.0.1>;party=calling",
					"Diversion: <sip:" + inUser(text) + "@127.0.0.1>;reason=" + quoted(text), "Call-Info: <sip:" + inUser(text) + "@127.0.0.1>;x=" + quoted(text),
					"History-Info: <sip:" + inUser(text) + "@127.0.0.1>;index=1", "User-to-User: " + inUser(text) + ";encoding=hex",
				}
			})
			if c.status() == 200 {
				target.expectCall(t)
				c.hangup(t)
			}
			if c := carrier.dial(t, inUser(text), asCarrier); c.status() < 400 {
				t.Errorf("a DID of %q was answered %q", text, c.response.start)
			}
		}
		target.expectSilence(t)
		s.expectNothingRan(t, sprung, logFrom)
		s.expectCleanLog(t, logFrom)
	})
	t.Run("hostile numbers that a phone dials reach nobody and run nothing", func(t *testing.T) {
		s.begin(t)
		file, sprung := s.trap(t)
		logFrom := len(s.log(t))
		a, b, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.carrierPhone(t)
		gateway := s.trunk(t, tenantA, 2).String()
		numbers := texts(file)
		for _, tail := range []string{
			",loopback/9196", "|sofia/gateway/" + gateway + "/+390255551234", ":_:sofia/gateway/" + gateway + "/+390255551234",
			",sofia/gateway/" + gateway + "/+390255551234", ";fs_path=sip:127.0.0.1:" + strconv.Itoa(s.carrier), "%" + realmB, "@" + realmB,
			"@127.0.0.1:" + strconv.Itoa(s.carrier), "^1003", " XML " + tenantB, "/XML/" + tenantB, "\r\nX-A: 1", "\t1003", "?Replaces=x", "~tls",
		} {
			numbers = append(numbers, "1002"+tail, "+390255551234"+tail)
		}
		for _, number := range numbers {
			if c := a.dial(t, inUser(number)); c.status() < 400 {
				t.Errorf("%q answered %q", number, c.response.start)
			}
		}
		for _, user := range []string{"1002,loopback/9196", "1002;fs_path=sip:127.0.0.1:" + strconv.Itoa(s.carrier), "+390255551234;transport=tcp", "1002$1", "${x}"} {
			c := a.dial(t, user)
			t.Logf("%q answered %q", user, c.response.start)
		}
		b.expectSilence(t)
		carrier.expectSilence(t)
		s.expectNothingRan(t, sprung, logFrom)
		s.expectCleanLog(t, logFrom)
	})
	t.Run("hostile names and headers of a phone's call run nothing", func(t *testing.T) {
		s.begin(t)
		file, sprung := s.trap(t)
		logFrom := len(s.log(t))
		a, b := s.phoneA(t, "1001"), s.phoneA(t, "1002")
		for _, text := range texts(file) {
			c := a.dial(t, "1002", func(r *request) {
				r.from = quoted(text) + " " + a.aor()
				r.to = quoted(text) + " " + r.to
				r.contact = "<sip:" + inUser(text) + "@" + a.local + ">"
				r.headers = []string{
					"X-Note: " + quoted(text), "User-Agent: " + quoted(text), "P-Preferred-Identity: " + quoted(text) + " " + a.aor(),
					"Alert-Info: <" + inUser(text) + ">", "Call-Info: <sip:" + inUser(text) + "@127.0.0.1>;x=" + quoted(text), "Reason: SIP;text=" + quoted(text),
				}
			})
			if c.status() == 200 {
				shown := b.expectCall(t).invite.get("From")
				if strings.Contains(shown, "{") || userOf(uriOf(shown)) != "1001" {
					t.Errorf("the called phone shows %s", shown)
				}
				c.hangup(t)
			}
		}
		s.expectNothingRan(t, sprung, logFrom)
		s.expectCleanLog(t, logFrom)
	})
	t.Run("whatever Contact or Path a phone registers, it is called where it is, and nothing runs", func(t *testing.T) {
		s.begin(t)
		file, sprung := s.trap(t)
		logFrom := len(s.log(t))
		a, b, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.carrierPhone(t)
		gateway := s.trunk(t, tenantA, 2).String()
		contacts := []string{
			"<sip:a,sofia/gateway/" + gateway + "/+390255551234@127.0.0.1>", "<sip:a|sofia/gateway/" + gateway + "/+390255551234@127.0.0.1>",
			"<sip:x@127.0.0.1;y=],sofia/gateway/" + gateway + "/+390255551234>", "<sip:x@127.0.0.1>;y=\",loopback/9196\"",
			"<sip:x@127.0.0.1:" + strconv.Itoa(freePort(t)) + ";fs_path=sip:127.0.0.1>", "<sip:x@h,loopback/9196>",
			// A carrier that knows the switch by its address would take these for calls of ours.
			"<sip:+390255551234@127.0.0.1:" + strconv.Itoa(s.carrier) + ">", "<sip:+390255551234@x;fs_path=sip:127.0.0.1:" + strconv.Itoa(s.carrier) + ">",
			"<sip:+390255551234@x;fs_path=sip%3A127.0.0.1%3A" + strconv.Itoa(s.carrier) + ">",
		}
		for _, text := range texts(file) {
			contacts = append(contacts, "<sip:"+inUser(text)+"@127.0.0.1>", quoted(text)+" <sip:x@127.0.0.1;y="+inUser(text)+">", "<sip:"+strings.Map(plain, text)+"@127.0.0.1>")
		}
		for _, contact := range contacts {
			p := newPhone(t, s.internal, user("1003", realmA))
			registered := p.register(t, func(r *request) {
				r.contact = contact
				r.headers = append(r.headers, "User-Agent: "+quoted(contact), fmt.Sprintf("Path: <sip:127.0.0.1:%d;lr>", s.carrier))
			})
			if registered.status() == 200 {
				c := a.dial(t, "1003")
				if c.status() != 200 {
					t.Fatalf("contact %q answered %q", contact, c.response.start)
				}
				d := p.expectCall(t)
				c.hangup(t)
				expectEnd(t, d)
				p.register(t, func(r *request) { r.contact, r.headers = "*", []string{"Expires: 0"} })
			}
			s.esl.api("sofia profile internal flush_inbound_reg 1003@" + realmA)
		}
		b.expectSilence(t)
		carrier.expectSilence(t)
		s.expectNothingRan(t, sprung, logFrom)
		s.expectCleanLog(t, logFrom)
	})
	t.Run("a hostile target of a transfer runs nothing", func(t *testing.T) {
		s.begin(t)
		file, sprung := s.trap(t)
		logFrom := len(s.log(t))
		a, b, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.carrierPhone(t)
		for _, text := range texts(file) {
			c := a.dial(t, "1002")
			expectStatus(t, c, 200)
			d := b.expectCall(t)
			talking(t, c, d)
			d.refer(t, "sip:"+inUser(text)+"@"+realmA)
			expectEnd(t, c)
			s.idle(t)
		}
		carrier.expectSilence(t)
		s.expectNothingRan(t, sprung, logFrom)
		s.expectCleanLog(t, logFrom)
	})
}

// plain keeps what may stand in a header line.
func plain(r rune) rune {
	if r < ' ' || r == 0x7f || r == '<' || r == '>' {
		return -1
	}
	return r
}

// TestPoisonedDatabase starts everything on a database into which somebody wrote past the program's checks.
func TestPoisonedDatabase(t *testing.T) {
	var file string
	var sprung func() bool
	s := newScene(t, sceneOptions{prepare: func(t *testing.T, s *scene) {
		t.Helper()
		file, sprung = s.trap(t)
		s.poison(t, file)
	}})
	t.Run("hostile rows: the switch starts, the other tenant works", func(t *testing.T) {
		s.begin(t)
		a, b, carrier := s.phoneA(t, "1001"), s.phoneA(t, "1002"), s.carrierPhone(t)
		expectStatus(t, a.dial(t, "1002"), 200)
		b.expectCall(t)
		expectStatus(t, a.dial(t, "+390255551234"), 200)
		carrier.expectCall(t)
	})
	t.Run("hostile rows: nobody gets in by a hostile name or realm", func(t *testing.T) {
		s.begin(t)
		a := s.phoneA(t, "1001")
		rows, err := s.db.QueryContext(t.Context(), `SELECT DISTINCT e.sip_username, d.realm FROM edgvoip.sip_extensions e
			JOIN edgvoip.sip_domains d ON d.tenant_id = e.tenant_id
			JOIN edgvoip.tenants n ON n.id = e.tenant_id WHERE n.slug = $1 AND (e.sip_username !~ '^[0-9]+$' OR d.realm <> $2)`, tenantB, realmB)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		tried := 0
		for ; rows.Next() && tried < 200; tried++ {
			var name, realm string
			if err := rows.Scan(&name, &realm); err != nil {
				t.Fatal(err)
			}
			p := newPhone(t, s.internal, login{user: strings.Map(plain, name), realm: strings.Map(plain, realm), password: "pw1003"})
			if r := p.register(t, func(r *request) {
				r.uri, r.from = "sip:"+realmB, "<sip:"+inUser(name)+"@"+realmB+">"
				r.to = r.from
			}); r.status() == 200 {
				t.Errorf("%q@%q registered", name, realm)
			}
			if c := a.dial(t, inUser(name)); c.status() < 400 {
				t.Errorf("a call to %q answered %q", name, c.response.start)
			}
			p.close()
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		if tried < 50 {
			t.Fatalf("only %d hostile rows", tried)
		}
		s.expectNothingRan(t, sprung, 0)
	})
	t.Run("hostile rows: people with hostile display names call and are called, or are refused; nothing runs", func(t *testing.T) {
		s.begin(t)
		b := newPhone(t, s.internal, user("1003", realmB)).registered(t)
		carrier := s.carrierPhone(t)
		for i, text := range texts(file) {
			p := newPhone(t, s.internal, user(fmt.Sprintf("20%02d", i), realmB))
			r := p.register(t)
			t.Logf("%.60q: registration answered %q", text, r.start)
			out, in := p.dial(t, "1003"), b.dial(t, p.login.user)
			if out.status() == 200 {
				if shown := b.expectCall(t).invite.get("From"); strings.Contains(shown, "${") {
					t.Errorf("the called phone shows %s", shown)
				}
			}
			out.hangup(t)
			in.hangup(t)
			p.dial(t, "+390255551234").hangup(t)
		}
		for _, did := range []string{"0612345778", "+390612345778"} {
			newPhone(t, s.external, login{}).dial(t, did, asCarrier).hangup(t)
		}
		_ = carrier
		for _, command := range []string{"reloadacl", "reloadxml", "sofia profile external rescan", "sofia profile internal rescan"} {
			s.esl.api(command)
		}
		s.expectNothingRan(t, sprung, 0)
		s.expectCleanLog(t, 0)
	})
}

// poison writes hostile text into every column of tenant B that a switch may see, past every check of the schema.
func (s *scene) poison(t *testing.T, file string) {
	t.Helper()
	s.exec(t, `DO $$
		DECLARE c record;
		BEGIN
		  FOR c IN SELECT conrelid::regclass AS tbl, conname FROM pg_constraint
		           WHERE contype = 'c' AND connamespace = 'edgvoip'::regnamespace AND NOT conislocal = false LOOP
		    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.tbl, c.conname);
		  END LOOP;
		END $$`)
	const tenant = "(SELECT id FROM edgvoip.tenants WHERE slug = 'tenant-b')"
	for i, text := range texts(file) {
		text = strings.ReplaceAll(text, "\x00", "")
		number := fmt.Sprintf("20%02d", i)
		md5, sha := s.sealed(t, tenantB, realmB, number, "pw"+number)
		s.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, allowed_codecs,
			outbound_caller_id, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
			SELECT tenant_id, gen_random_uuid(), domain_id, $2, $2, $1, allowed_codecs, outbound_caller_id, password_hash, $3, $4, ha1_key_id
			FROM edgvoip.sip_extensions WHERE tenant_id = %s AND extension = '1003'`, tenant), text, number, md5, sha)
		s.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.sip_extensions (tenant_id, id, domain_id, extension, sip_username, display_name, allowed_codecs,
			outbound_caller_id, password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id)
			SELECT tenant_id, gen_random_uuid(), domain_id, $1, $1 || 'u', $1, ARRAY[$1], $1,
			password_hash, ha1_md5_sealed, ha1_sha256_sealed, ha1_key_id
			FROM edgvoip.sip_extensions WHERE tenant_id = %s AND extension = '1003'`, tenant), text)
		s.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.sip_trunks (tenant_id, id, name, provider, host, port, protocol, username,
			caller_id_policy, caller_id_number, ai_agent_ref, ai_failover_extension)
			VALUES (%s, gen_random_uuid(), $1, $1, $1, 5060, $1, $1, $1, $1, $1, $1)`, tenant), text)
		s.exec(t, fmt.Sprintf(`INSERT INTO edgvoip.sip_domains (tenant_id, id, realm) VALUES (%s, gen_random_uuid(), $1)`, tenant), text)
		s.exec(t, `INSERT INTO edgvoip.tenants (id, slug, name, country) VALUES (gen_random_uuid(), $1, $1, $1)`, text)
	}
	s.exec(t, "UPDATE edgvoip.sip_trunks SET ai_failover_extension = '2000' WHERE ai_failover_extension = '1000' AND tenant_id = "+tenant)
}
