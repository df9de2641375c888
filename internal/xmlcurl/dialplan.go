package xmlcurl

import (
	"cmp"
	"net/netip"
	"strings"

	"github.com/edgvoip/edgvoip/dialplan"
)

// call reads a lookup of section dialplan. Identity comes from Hunt-*, which FreeSWITCH puts last, and from variables
// that it sets itself. If the request contradicts itself, the reason is set and the call must be refused.
func call(f *form) (c dialplan.Call, reason string) {
	if f.contradicts {
		return c, "request contradicts itself"
	}
	addr, err := netip.ParseAddr(f.get(fieldHuntNetworkAddr))
	if err != nil {
		addr = netip.Addr{} // a leg that the switch placed itself has none
	}
	return dialplan.Call{
		Channel:      f.get(fieldUniqueID),
		Context:      f.get(fieldHuntContext),
		Destination:  f.get(fieldHuntDestination),
		Profile:      cmp.Or(f.get(fieldVarProfile), f.get(fieldVarProfileName)),
		Source:       addr,
		Authorized:   f.get(fieldVarAuthorized) == "true",
		User:         f.get(fieldVarUserName),
		Realm:        f.get(fieldVarDomainName),
		Insecure:     f.get(fieldVarViaProtocol) == "tls" && insecure(f.get(fieldVarSDP)),
		CallerNumber: f.get(fieldHuntCallerNumber),
		CallerName:   f.get(fieldHuntCallerName),
		Outbound:     f.get(fieldHuntDirection) == "outbound",
		// FreeSWITCH lets a channel go to its new route before it writes down that this is a transfer (switch_ivr.c,
		// switch_ivr_session_transfer). What says so as well is that the channel had a route already.
		Transferred:  f.given[fieldHuntTransferSource] || f.given[fieldVarDirection],
		LegUser:      f.get(fieldVarLegUser),
		LegRealm:     f.get(fieldVarLegRealm),
		LegTenant:    f.get(fieldVarTenantID),
		LegTrunk:     f.get(fieldVarTrunkID),
		LegRecording: f.get(fieldVarRecording),
		WithAgent:    f.get(fieldVarAgent) == "true",
	}, ""
}

// insecure tells whether an offer has no key for its media, neither SDES (RFC 4568) nor DTLS-SRTP (RFC 5763). No offer
// at all is not insecure: the switch then makes one of its own.
func insecure(sdp string) bool {
	return sdp != "" && !strings.Contains(sdp, "\na=crypto:") && !strings.Contains(sdp, "\na=fingerprint:")
}
