package directory

import (
	"time"

	"github.com/edgvoip/edgvoip/internal/fstext"
	"github.com/edgvoip/edgvoip/internal/fsxml"
)

// user is an extension about to be written.
type user struct {
	Extension
	tenant Tenant
	ha1    fstext.Hash
	// auth is set when credentials are being checked, and with it the transport that is used.
	auth      *Auth
	transport Transport
	// cacheFor is how long the switch may keep the document; see Options.CacheFor.
	cacheFor time.Duration
}

// attrs never include type, ip or cidr: a type other than "pointer" makes FreeSWITCH match the user under every name, an ip
// under every name from that address (switch_xml.c, find_user_in_tag).
func (u user) attrs() []fsxml.Attr {
	a := []fsxml.Attr{fsxml.A("id", u.Number.Text())}
	if u.Username != u.Number.Username() {
		a = append(a, fsxml.A("number-alias", u.Username.Text()))
	}
	if u.cacheFor > 0 {
		a = append(a, fsxml.A("cacheable", fstext.Int(int(u.cacheFor.Milliseconds()))))
	}
	return a
}

// rings tells whether the document is for calling the user: all but those that credentials are checked with, which never come to
// it, unless the switch keeps them.
func (u user) rings() bool { return u.auth == nil || u.cacheFor > 0 }

// write writes the user with its credential, for every purpose: where a mailbox is opened FreeSWITCH lets in whoever comes to a user
// without one (mod_voicemail.c, voicemail_check_main).
func (u user) write(doc *fsxml.Document) {
	doc.Open("user", u.attrs()...)
	doc.Open("params")
	doc.Param("a1-hash", u.ha1.Reveal())
	doc.Param("allow-empty-password", fstext.Bool(false))
	if u.rings() {
		doc.Param("dial-string", u.DialString(u.tenant.Slug)) // a sixth of what a lookup costs
	}
	doc.Close()
	doc.Open("variables")
	doc.Variable("user_context", u.tenant.Slug.Text())
	doc.Variable(VarTenantID, fstext.ID(u.TenantID))
	doc.Variable(VarExtensionID, fstext.ID(u.ID))
	doc.Variable("edgvoip_max_calls", fstext.Int(u.MaxCalls))
	doc.Variable("effective_caller_id_name", u.Name.Text())
	doc.Variable("effective_caller_id_number", u.Number.Text())
	doc.Variable("absolute_codec_string", u.Codecs.Text())
	u.writeDevice(doc)
	doc.Close()
	doc.Close()
}

// writeDevice writes what concerns the phone that presents credentials.
func (u user) writeDevice(doc *fsxml.Document) {
	used, registers := u.transport, u.auth != nil && u.auth.Method == "REGISTER"
	if u.cacheFor > 0 {
		// Whatever the switch asked first serves every phone of the user from then on, so it may hold nothing of this one.
		used, registers = u.Transport, true
	} else if u.auth == nil {
		return
	}
	if used == TransportTLS {
		// Media of a phone that signals over TLS is encrypted or there is none. A browser's is by its nature.
		doc.Variable("rtp_secure_media_inbound", fstext.Const("mandatory"))
	}
	if !registers {
		return
	}
	// The registration is stored under a name we choose, not under the one the phone wrote. sip-force-user would do
	// that too, but not when the phone unregisters (sofia_reg.c, sofia_reg_handle_register_token).
	doc.Variable("sip-force-extension", u.StoredUser(used.device()))
	if u.cacheFor == 0 {
		doc.Variable("sip-force-contact", contact(u.Extension, *u.auth, used))
	}
}

// writeMember writes the user as one of many: what rings and what is read out, but no credential.
func (u user) writeMember(doc *fsxml.Document) {
	doc.Open("user", u.attrs()...)
	doc.Open("params")
	doc.Param("dial-string", u.DialString(u.tenant.Slug))
	// Nobody authenticates with this document; if FreeSWITCH ever tried, it must refuse.
	doc.Param("allow-empty-password", fstext.Bool(false))
	doc.Param("sip-forbid-register", fstext.Bool(true))
	doc.Close()
	doc.Open("variables")
	doc.Variable("user_context", u.tenant.Slug.Text())
	doc.Variable("effective_caller_id_name", u.Name.Text())
	doc.Variable("effective_caller_id_number", u.Number.Text())
	doc.Close()
	doc.Close()
}
