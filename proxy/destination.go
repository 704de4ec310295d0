package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/proxy/accounts"
)

// place is a server that a client wants to reach.
type place struct {
	name string // as it was named, lower case, without final dot; empty where an address was
	at   netip.AddrPort
}

// ownAddresses are this machine's, asked for again when they may have changed.
type ownAddresses struct {
	mu     sync.Mutex
	asked  time.Time
	addrs  []netip.Addr
	bcasts []netip.Addr
}

// ownAddressesAge is how long an answer is believed: asking costs a netlink dump, and every session would.
const ownAddressesAge = 2 * time.Second

func (o *ownAddresses) get() (addrs, broadcasts []netip.Addr) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.asked) < ownAddressesAge {
		return o.addrs, o.bcasts
	}
	nets, err := net.InterfaceAddrs()
	if err != nil {
		return o.addrs, o.bcasts
	}
	o.asked, o.addrs, o.bcasts = time.Now(), nil, nil
	for _, n := range nets {
		in, ok := n.(*net.IPNet)
		if !ok {
			continue
		}
		a, ok := netip.AddrFromSlice(in.IP)
		if !ok {
			continue
		}
		a = a.Unmap()
		o.addrs = append(o.addrs, a)
		if ones, bits := in.Mask.Size(); a.Is4() && bits-ones > 1 {
			b, m := a.As4(), net.IP(in.Mask).To4()
			for i := range b {
				b[i] |= ^m[i]
			}
			o.bcasts = append(o.bcasts, netip.AddrFrom4(b))
		}
	}
	return o.addrs, o.bcasts
}

// has reports whether an address is this machine's. All of 127.0.0.0/8 is.
func (o *ownAddresses) has(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	addrs, _ := o.get()
	return slices.Contains(addrs, a)
}

// metadata are the addresses where clouds tell machines their secrets, beyond link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("169.254.169.254"), // most
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("168.63.129.16"),   // Azure
}

// embedding are the prefixes by which an IPv4 address is written as an IPv6 one, with the byte where it begins: rules
// are applied to what is inside as well, or 64:ff9b::7f00:1 would be a way to 127.0.0.1.
var embedding = []struct {
	prefix netip.Prefix
	at     int
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64, RFC 6052
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4, RFC 3056
	{netip.MustParsePrefix("::/96"), 12},        // IPv4-compatible, RFC 4291 §2.5.5.1
}

// embedded returns the IPv4 address inside an IPv6 one.
func embedded(a netip.Addr) (netip.Addr, bool) {
	if !a.Is6() || a.IsLoopback() || a.IsUnspecified() {
		return netip.Addr{}, false
	}
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			return netip.AddrFrom4([4]byte(b[e.at : e.at+4])), true
		}
	}
	return netip.Addr{}, false
}

var (
	sharedSpace   = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	thisNetwork   = netip.MustParsePrefix("0.0.0.0/8")     // RFC 1122 §3.2.1.3
	limitedBcast  = netip.MustParseAddr("255.255.255.255")
	defaultPorts  = []config.PortRange{{First: 21, Last: 21}, {First: 990, Last: 990}, {First: 1024, Last: 65535}}
	deniedByNames = []config.Keyword{config.TargetUnspecified, config.TargetBroadcast, config.TargetMulticast,
		config.TargetMetadata, config.TargetLinkLocal}
)

// is reports whether an address is in the set a keyword names.
func (p *Proxy) is(k config.Keyword, a netip.Addr) bool {
	switch k {
	case config.TargetPrivate:
		return a.IsPrivate() || sharedSpace.Contains(a)
	case config.TargetLoopback:
		return a.IsLoopback()
	case config.TargetLinkLocal:
		return a.IsLinkLocalUnicast()
	case config.TargetMulticast:
		return a.IsMulticast()
	case config.TargetMetadata:
		return slices.Contains(metadata, a)
	case config.TargetSelf:
		return p.own.has(a)
	case config.TargetUnspecified:
		return a.IsUnspecified() || thisNetwork.Contains(a)
	case config.TargetBroadcast:
		_, b := p.own.get()
		return a == limitedBcast || slices.Contains(b, a)
	}
	return false
}

// matches reports whether a target of a rule names a server.
func (p *Proxy) matches(t config.Target, s place) bool {
	switch {
	case t.Host == "*":
		return true
	case t.Host != "":
		ok, err := path.Match(t.Host, s.name)
		return err == nil && ok && s.name != ""
	}
	inside, has := embedded(s.at.Addr())
	for _, a := range []netip.Addr{s.at.Addr(), inside} {
		if t.Prefix.IsValid() && t.Prefix.Contains(a) || t.Keyword != "" && p.is(t.Keyword, a) {
			return true
		}
		if !has {
			break
		}
	}
	return false
}

// destined says whether a client, who has logged in to the proxy or not, may reach a server: by which rule of
// Config.Destinations, -1 for none, or the refusal. The rules of the configuration come first. Where none matches, intercepted connections go where they were going, and explicit clients, who could name
// anything that we can reach and they cannot (server-side request forgery), are held to safe defaults. Where there are
// accounts, the defaults are for those who have logged in. A refusal that a login could have averted has accounts.ErrNeeded
// in it.
func (p *Proxy) destined(cfg *config.Config, l *config.Listener, client netip.Addr, who *accounts.Account, s place) (rule int, r *control.Refusal) {
	if p.isOurs(s.at) {
		// Whatever the rules say: it would call itself until something runs out.
		return -1, noEntry("the server is this proxy itself")
	}
	needed := false
	for i, d := range cfg.Destinations {
		if len(d.Ports) > 0 && !inPorts(d.Ports, s.at.Port()) {
			continue
		}
		if !about(d, who) {
			needed = needed || who == nil && (l.Mode == config.Explicit || l.ProxyLogin) && slices.ContainsFunc(d.Allow, func(t config.Target) bool { return p.matches(t, s) })
			continue
		}
		for _, t := range d.Allow {
			if p.matches(t, s) {
				return i, nil
			}
		}
		for _, t := range d.Deny {
			if !p.matches(t, s) {
				continue
			}
			by := fmt.Sprintf("destinations[%d]: deny %v", i, t)
			if needed {
				return i, noEntryYet(by)
			}
			return i, noEntry(by)
		}
	}
	if l.Mode != config.Explicit {
		return -1, nil
	}
	if cfg.Accounts.Given() && who == nil {
		return -1, noEntryYet("default: proxy accounts only")
	}
	if !inPorts(defaultPorts, s.at.Port()) {
		return -1, noEntry("default: ports 21, 990 and above 1023")
	}
	inside, has := embedded(s.at.Addr())
	for _, a := range []netip.Addr{s.at.Addr(), inside} {
		for _, k := range deniedByNames {
			if p.is(k, a) {
				return -1, noEntry("default: no " + string(k) + " address")
			}
		}
		if a.IsLoopback() && !client.IsLoopback() {
			return -1, noEntry("default: loopback is for clients on loopback")
		}
		if p.is(config.TargetPrivate, a) && !p.is(config.TargetPrivate, client) && !client.IsLoopback() {
			return -1, noEntry("default: private servers are for private clients")
		}
		if !has {
			break
		}
	}
	return -1, nil
}

// about reports whether a rule is about a session: it is, if it is about nobody's in particular, or has the account that
// has logged in.
func about(d config.Destination, who *accounts.Account) bool {
	if len(d.Accounts)+len(d.Groups) == 0 {
		return true
	}
	return who.In(asStrings(d.Accounts), asStrings(d.Groups))
}

func asStrings(names []config.Account) []string {
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = string(n)
	}
	return s
}

// noEntryYet is for those who have not logged in to the proxy.
func noEntryYet(rule string) *control.Refusal {
	return &control.Refusal{Code: 530, Text: "Log in to the proxy first", Rule: rule, Err: accounts.ErrNeeded}
}

func noEntry(rule string) *control.Refusal {
	return &control.Refusal{Code: 530, Text: "Not permitted to reach this server", Rule: rule}
}

func inPorts(ranges []config.PortRange, port uint16) bool {
	return slices.ContainsFunc(ranges, func(r config.PortRange) bool { return r.Contains(port) })
}

// isOurs reports whether an address is that of one of our own control listeners.
func (p *Proxy) isOurs(at netip.AddrPort) bool {
	for _, l := range p.addresses() {
		if l.Port() != at.Port() {
			continue
		}
		if l.Addr() == at.Addr() || l.Addr().IsUnspecified() && p.own.has(at.Addr()) || at.Addr().IsUnspecified() {
			return true
		}
	}
	return false
}

// resolve returns the places that a client's or the configuration's name for a server stands for, in order. Names are looked
// up once; what is checked is what is dialed (DNS rebinding).
func (p *Proxy) resolve(ctx context.Context, named string) ([]place, error) {
	host, port, err := splitServer(named)
	if err != nil {
		return nil, &control.Refusal{Code: 530, Text: "Not a server's name: host, host:port, [IPv6] or [IPv6]:port", Err: err}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return nil, &control.Refusal{Code: 530, Text: "An address with a zone means nothing here"}
		}
		return []place{{at: netip.AddrPortFrom(a.Unmap(), port)}}, nil
	}
	addrs, err := p.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, &control.Refusal{Code: 530, Text: "The server's name cannot be resolved", Err: err}
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	var places []place
	for _, a := range addrs {
		places = append(places, place{name: name, at: netip.AddrPortFrom(a.Unmap(), port)})
	}
	return places, nil
}

var errServerName = errors.New("not a server's name")

// splitServer reads host, host:port, [v6], [v6]:port, and a bare IPv6 address; the port is 21 where none is given.
func splitServer(s string) (host string, port uint16, err error) {
	host, digits := s, ""
	switch {
	case strings.HasPrefix(s, "["):
		end := strings.IndexByte(s, ']')
		if end < 0 || end+1 < len(s) && s[end+1] != ':' {
			return "", 0, errServerName
		}
		if host = s[1:end]; !strings.Contains(host, ":") {
			return "", 0, errServerName
		}
		if end+1 < len(s) {
			if digits = s[end+2:]; digits == "" {
				return "", 0, errServerName
			}
		}
	case strings.Count(s, ":") == 1:
		host, digits, _ = strings.Cut(s, ":")
		if digits == "" {
			return "", 0, errServerName
		}
	}
	port = 21
	if digits != "" {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return "", 0, errServerName
		}
		port = uint16(n)
	}
	if host == "" || strings.ContainsFunc(host, func(c rune) bool { return c <= ' ' || c == 0x7F }) {
		return "", 0, errServerName
	}
	return host, port, nil
}
