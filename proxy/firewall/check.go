package firewall

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// maxList bounds every list of an intercept. A netlink attribute holds 64 KiB, and one IPv6 prefix takes 64 bytes of it.
const maxList = 500

// check says all that is wrong with a plan, before anything of it reaches the kernel or a shell.
func (p Plan) check() error {
	faults := p.checkNumbers()
	for _, i := range p.Intercepts {
		for _, err := range i.check(p) {
			faults = append(faults, fmt.Errorf("listener %q: %w", i.Name, err))
		}
	}
	return errors.Join(faults...)
}

// checkNumbers says what is wrong with the marks and the table.
func (p Plan) checkNumbers() []error {
	var faults []error
	if p.Mark == 0 || p.DivertMark == 0 || p.Mark == p.DivertMark {
		faults = append(faults, fmt.Errorf("mark %#x and divert mark %#x: neither may be 0, nor may they be the same", p.Mark, p.DivertMark))
	}
	// A local default route in table main, local or default would make every address this machine's own.
	if t := p.RouteTable; t < 1 || t > math.MaxInt32 || t >= 253 && t <= 255 {
		faults = append(faults, fmt.Errorf("route table %d: must be 1 to %d, and not 253 to 255", t, math.MaxInt32))
	}
	return faults
}

// check says all that is wrong with an intercept.
func (i Intercept) check(p Plan) []error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }

	if i.Kind != TPROXY && i.Kind != Redirect {
		fault("kind %d is unknown", i.Kind)
	}
	if a := i.Address; !a.IsValid() || a.Port() == 0 || a.Addr().Zone() != "" || a.Addr().Is4In6() {
		fault("address %s: must be a plain address with a port", a)
	}
	if len(i.Ports) == 0 {
		fault("no ports to intercept")
	}
	for _, r := range i.Ports {
		if !r.valid() {
			fault("ports %d-%d are not a range", r.First, r.Last)
		}
	}
	if d := i.DataPorts; d != (PortRange{}) && !d.valid() {
		fault("data ports %d-%d are not a range", d.First, d.Last)
	}
	if i.DataPorts == (PortRange{}) {
		if i.Kind == Redirect {
			fault("redirect needs data ports, as clients dial the server's address for data too")
		} else if len(i.LocalUIDs)+len(i.LocalMarks) > 0 {
			fault("local connections need data ports, or everything these users connect to would be diverted")
		}
	}
	for _, prefix := range slices.Concat(i.Clients, i.Servers) {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			fault("prefix %s: must be a plain IPv4 or IPv6 prefix", prefix)
		}
	}
	if len(faults) == 0 && len(i.families())+len(i.localFamilies()) == 0 {
		fault("address, clients and servers have no address family in common, so nothing could match")
	}
	for _, name := range i.Interfaces {
		if !validInterface(name) {
			fault("interface %q: must be a whole name of 1 to 15 bytes", name)
		}
	}
	for _, mark := range i.LocalMarks {
		if mark == p.Mark || mark == p.DivertMark {
			fault("local mark %#x is taken by ftpalg itself", mark)
		}
	}
	if max(len(i.Ports), len(i.Clients), len(i.Servers), len(i.Interfaces), len(i.LocalUIDs), len(i.LocalMarks)) > maxList {
		fault("a list has more than %d entries", maxList)
	}
	return faults
}

func (r PortRange) valid() bool { return r.First > 0 && r.First <= r.Last }

// validInterface holds for what the kernel may call an interface (dev_valid_name), less what nft's text would read
// otherwise: a quote, and the * of a wildcard.
func validInterface(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool {
			return strings.ContainsRune(`/:"*\`, r) || !unicode.IsPrint(r) || unicode.IsSpace(r)
		})
}

// comment makes a listener's name fit for an nft comment, which knows no escape, ends at a quote or a line's end,
// and holds 128 bytes.
func comment(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '_'
		}
		return r
	}, name)
	for len(name) > 100 {
		runes := []rune(name)
		name = string(runes[:len(runes)-1])
	}
	return name
}

// prefixesOf are the prefixes of one family.
func prefixesOf(f family, prefixes []netip.Prefix) []netip.Prefix {
	var of []netip.Prefix
	for _, p := range prefixes {
		if f.has(p.Addr()) {
			of = append(of, p)
		}
	}
	return of
}
