// Package firewall is what ftpalg's listeners need of the Linux kernel: nftables rules and policy routes. It prints
// them as text ready to paste, applies and removes them, and says which are missing. It runs no other program.
//
// Every rule is built once, as a list of pieces that carry nft's text and the kernel's instructions side by side
// (piece.go), so the text that is pasted and the rules that are applied cannot drift apart.
package firewall

import "net/netip"

// Plan is what the configured listeners need of the kernel.
type Plan struct {
	Mark       uint32 // SO_MARK of every socket of ours; never 0. What carries it is never intercepted.
	DivertMark uint32 // packet mark of diverted packets, connection mark of local ones and of such as were cut; never 0 nor Mark
	RouteTable int    // number of the policy routing table: 1 to 2^31-1, but none of the system's (253 to 255)
	// Pinholes lets the kernel carry single data connections past us (see type Pinholes), and PinholeNAT such as have other
	// addresses on one side than on the other. LogGroup is the NFLOG group by which we hear of them.
	Pinholes, PinholeNAT bool
	LogGroup             uint16
	Divert               bool // some socket is transparent; true already if an intercept is TPROXY
	Intercepts           []Intercept
}

// Kind is how connections are brought to a listener.
type Kind int

// The kinds of interception.
const (
	TPROXY   Kind = iota + 1 // packets are handed to the listener's transparent socket as they are
	Redirect                 // the destination is rewritten by NAT
)

// Intercept is the traffic that one listener takes. All that is given must match.
//
// A connection to an address of this very machine is left alone, so that its own FTP service stays reachable, unless
// Servers is given: then Servers is taken at its word. Where the traffic of two listeners overlaps, the first has it.
type Intercept struct {
	Name string // the listener's; becomes the comment of its rules, with quotes and unprintables replaced
	Kind Kind
	// Address is the listener's. [::] serves both families, 0.0.0.0 serves IPv4, and another address is just that.
	// With Redirect, a loopback address can serve local connections only: the kernel takes no others to it.
	Address netip.AddrPort
	Ports   []PortRange    // destination ports of control connections; at least one
	Clients []netip.Prefix // source addresses; empty: any
	Servers []netip.Prefix // destination addresses; empty: any but this machine's
	// Interfaces are the incoming interfaces, whole names; empty: any.
	Interfaces []string
	// DataPorts are the ports that data connections of clients go to. Zero: any, which is for TPROXY without local
	// connections alone. With Redirect they are redirected too (to the same port), since an EPSV client dials the
	// server's address; so no other service that these clients use may live there. The same holds, whatever the
	// kind, for local connections.
	DataPorts PortRange
	// LocalUIDs and LocalMarks choose connections that start on this machine: by the user of the process, or by the
	// packet's mark. Either may match; both empty: none. Ports and Servers hold for them; Clients and Interfaces
	// do not. Two TPROXY listeners with the same Ports and Servers cannot be told apart here: the first has all.
	LocalUIDs  []uint32
	LocalMarks []uint32
}

// PortRange is the TCP ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Fault is one thing of a plan that is not in force.
type Fault struct {
	Missing string // what is missing
	Mend    string // the command that mends it
	Setting bool   // it is one of the kernel's settings, which Apply leaves alone
}

// String says what is missing and what mends it.
func (f Fault) String() string { return f.Missing + " is missing; mend it with: " + f.Mend }

// Empty reports whether the plan needs nothing of the kernel.
func (p Plan) Empty() bool { return !p.Divert && !p.Pinholes && len(p.Intercepts) == 0 }

// diverts reports whether the plan needs the divert rule and the routes.
func (p Plan) diverts() bool {
	for _, i := range p.Intercepts {
		if i.Kind == TPROXY {
			return true
		}
	}
	return p.Divert
}

// families are those in which connections that pass through can be for the listener.
func (i Intercept) families() []family {
	return i.familiesThat(func(f family) bool { return f.in(i.Clients) && f.in(i.Servers) })
}

// localFamilies are those in which connections that start on this machine can be for the listener.
func (i Intercept) localFamilies() []family {
	if len(i.LocalUIDs)+len(i.LocalMarks) == 0 {
		return nil
	}
	return i.familiesThat(func(f family) bool { return f.in(i.Servers) })
}

// familiesThat are those that the listener's address serves and that pass a test. [::] serves both.
func (i Intercept) familiesThat(pass func(family) bool) []family {
	var families []family
	for _, f := range allFamilies() {
		if a := i.Address.Addr(); (f.has(a) || a == netip.IPv6Unspecified()) && pass(f) {
			families = append(families, f)
		}
	}
	return families
}

// family is an address family, by its number in the kernel (NFPROTO_IPV4, NFPROTO_IPV6; AF_INET, AF_INET6).
type family byte

const (
	ipv4 family = 2
	ipv6 family = 10
)

func allFamilies() []family { return []family{ipv4, ipv6} }

// has reports whether an address is of the family.
func (f family) has(a netip.Addr) bool { return a.Is4() == (f == ipv4) }

// in reports whether a list of prefixes allows the family: an empty one allows all.
func (f family) in(prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if f.has(p.Addr()) {
			return true
		}
	}
	return len(prefixes) == 0
}

// String is the family's name among people.
func (f family) String() string {
	if f == ipv4 {
		return "IPv4"
	}
	return "IPv6"
}

// nft is the family's name in nft's addresses and statements.
func (f family) nft() string {
	if f == ipv4 {
		return "ip"
	}
	return "ip6"
}

// flag is the family's option of the ip program.
func (f family) flag() string {
	if f == ipv4 {
		return "-4"
	}
	return "-6"
}
