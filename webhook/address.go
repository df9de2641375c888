package webhook

import (
	"fmt"
	"net/netip"
	"strings"
)

// Networks are those that may be dialled although they are not the public Internet. The zero value has none.
type Networks []netip.Prefix

// ParseNetworks reads a list of networks in CIDR form, separated by commas. An empty text is an empty list.
func ParseNetworks(s string) (Networks, error) {
	var list Networks
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is not a network such as 10.0.0.0/8 or fd00::/8", text)
		}
		list = append(list, p)
	}
	return list, nil
}

// special are the networks that are not hosts of the public Internet, besides those that netip knows (IANA's registries
// of special-purpose addresses, RFC 6890). Those of IPv6 outside of 2000::/3 need no entry.
var special = prefixes(
	"0.0.0.0/8",        // this network
	"100.64.0.0/10",    // carrier-grade NAT
	"192.0.0.0/24",     // IETF protocols
	"168.63.129.16/32", // what a virtual machine of Azure is managed by
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"240.0.0.0/4",      // reserved, and broadcast
	"2001::/23",        // IETF protocols, Teredo
	"2001:db8::/32",    // documentation
	"2002::/16",        // 6to4: an IPv4 address in disguise
	"3fff::/20",        // documentation
)

// globalUnicast is where the public Internet is. NAT64 (64:ff9b::/96), unique local, link-local and mapped addresses,
// and the metadata service at fd00:ec2::254 are outside of it.
var globalUnicast = netip.MustParsePrefix("2000::/3")

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

// Allow tells whether an address may be dialled: one of the public Internet, or of these networks.
func (n Networks) Allow(a netip.Addr) bool {
	// A mapped address is dialled as the IPv4 address that it holds.
	a = a.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
