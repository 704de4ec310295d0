package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Target is what a rule about destinations speaks of: a set of addresses, or of host names. Exactly one field is set.
type Target struct {
	Keyword Keyword
	Prefix  netip.Prefix // masked; a single address is a prefix of its full length; never IPv4 mapped into IPv6
	// Host is a host name in lower case without a final dot, in which * stands for any run of characters, dots too; so
	// path.Match(Host, name) tells if a name matches. "*" is every server, whether it has a name or not. Other names
	// match only a server that was given by name: the client's on an explicit listener, the file's on a gateway.
	Host string
}

// Keyword is a set of addresses that has a name.
type Keyword string

// The keywords.
const (
	TargetPrivate     Keyword = "private"     // RFC 1918, RFC 4193, and the space that carriers share, RFC 6598
	TargetLoopback    Keyword = "loopback"    // 127.0.0.0/8, ::1
	TargetLinkLocal   Keyword = "link-local"  // 169.254.0.0/16, fe80::/10
	TargetMulticast   Keyword = "multicast"   // 224.0.0.0/4, ff00::/8
	TargetMetadata    Keyword = "metadata"    // where clouds tell machines their secrets, such as 169.254.169.254
	TargetSelf        Keyword = "self"        // any address of this machine
	TargetUnspecified Keyword = "unspecified" // 0.0.0.0/8, ::
	TargetBroadcast   Keyword = "broadcast"   // 255.255.255.255 and those of this machine's networks
)

var keywords = []Keyword{TargetPrivate, TargetLoopback, TargetLinkLocal, TargetMulticast, TargetMetadata, TargetSelf,
	TargetUnspecified, TargetBroadcast}

// String writes the target as UnmarshalText reads it.
func (t Target) String() string {
	switch {
	case t.Keyword != "":
		return string(t.Keyword)
	case t.Host != "" && !strings.ContainsAny(t.Host, ".*"):
		return t.Host + "." // so that it is no keyword
	case t.Host != "":
		return t.Host
	case t.Prefix.IsSingleIP():
		return t.Prefix.Addr().String()
	case t.Prefix.IsValid():
		return t.Prefix.String()
	}
	return ""
}

// UnmarshalText reads a keyword, an address, a prefix, or a host name with or without *. A host name of one label
// needs a final dot, so that a mistyped keyword is a fault and not a host which is never seen.
func (t *Target) UnmarshalText(text []byte) error {
	s := string(text)
	if slices.Contains(keywords, Keyword(s)) {
		*t = Target{Keyword: Keyword(s)}
		return nil
	}
	host := strings.ToLower(strings.TrimSuffix(s, "."))
	if looksLikeAddress(host) {
		p, err := parsePrefix(s)
		if _, _, notPort := net.SplitHostPort(s); err != nil && notPort == nil {
			return fmt.Errorf("%s has a port; write the host alone, and the port under the key ports", quoted(s))
		}
		if err != nil {
			return err
		}
		*t = Target{Prefix: p}
		return nil
	}
	if !isHostName(host, "*") {
		return fmt.Errorf("%s is no address, prefix, host name or keyword (%s)", quoted(s), list(keywords))
	}
	if !strings.ContainsAny(s, ".*") {
		return fmt.Errorf("%s is none of the keywords %s%s; write \"%s.\" if it is a host's name",
			quoted(s), list(keywords), didYouMean(host, keywords), host)
	}
	*t = Target{Host: host}
	return nil
}

// looksLikeAddress reports whether s must be read as an address, not as a host name: a name has no colon or slash and
// does not end in a number, and nobody means 10.0.0.* as a name.
func looksLikeAddress(s string) bool {
	last := s[strings.LastIndexByte(s, '.')+1:]
	return strings.ContainsAny(s, ":/") ||
		last != "" && consistsOf(last, digits) ||
		strings.ContainsAny(s, digits) && consistsOf(s, digits+".*")
}

// valid reports whether exactly one field is set.
func (t Target) valid() bool {
	n := 0
	for _, set := range []bool{t.Keyword != "", t.Prefix.IsValid(), t.Host != ""} {
		if set {
			n++
		}
	}
	return n == 1
}
