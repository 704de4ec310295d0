package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Family is an address family as RFC 2428 §2 numbers it.
type Family int

// The families of RFC 2428.
const (
	IPv4 Family = 1
	IPv6 Family = 2
)

// FamilyOf returns the family of an address; an IPv4-mapped one counts as IPv4.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

var (
	errHostPort = errors.New("not six numbers h1,h2,h3,h4,p1,p2")
	errExtended = errors.New("not |family|address|port|")
	// ErrFamily is an EPRT family other than 1 and 2, to be answered 522 (RFC 2428 §2).
	ErrFamily = errors.New("unknown network protocol")
	// ErrNoAddress is a 227 or 229 reply in which no port can be found.
	ErrNoAddress = errors.New("no data port in the server's reply")
)

// ParseHostPort reads the argument of PORT (RFC 959 §5.3.2): six numbers, nothing else.
func ParseHostPort(arg string) (netip.AddrPort, error) {
	ap, n := hostPort(arg)
	if n != len(arg) || n == 0 || ap.Port() == 0 {
		return netip.AddrPort{}, errHostPort
	}
	return ap, nil
}

// FormatHostPort writes the argument of PORT, and the numbers of 227. An IPv6 address has no place there: it becomes
// 0,0,0,0, as vsftpd writes it, and clients that dial the control connection's peer find the port.
func FormatHostPort(ap netip.AddrPort) string {
	var a [4]byte
	if v4 := ap.Addr().Unmap(); v4.Is4() {
		a = v4.As4()
	}
	b := make([]byte, 0, 24)
	for _, o := range a {
		b = strconv.AppendUint(b, uint64(o), 10)
		b = append(b, ',')
	}
	b = strconv.AppendUint(b, uint64(ap.Port()>>8), 10)
	b = append(b, ',')
	return string(strconv.AppendUint(b, uint64(ap.Port()&0xFF), 10))
}

// hostPort reads six numbers at the beginning of s and returns the length they take, 0 if they are not there. Blanks
// behind commas are what some servers write.
func hostPort(s string) (ap netip.AddrPort, length int) {
	var v [6]byte
	i := 0
	for k := range v {
		if k > 0 {
			if i >= len(s) || s[i] != ',' {
				return netip.AddrPort{}, 0
			}
			for i++; i < len(s) && s[i] == ' '; i++ {
			}
		}
		n, begin := 0, i
		for ; i < len(s) && i-begin < 3 && isDigit(s[i]); i++ {
			n = n*10 + int(s[i]-'0')
		}
		if i == begin || n > 255 || i < len(s) && isDigit(s[i]) {
			return netip.AddrPort{}, 0
		}
		v[k] = byte(n)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(v[:4])), uint16(v[4])<<8|uint16(v[5])), i
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// ParseExtended reads the argument of EPRT (RFC 2428 §2). A family it does not know is ErrFamily; an address that is
// not of the family it says is a plain error. Zones are refused: they mean nothing to the other side.
func ParseExtended(arg string) (netip.AddrPort, error) {
	family, address, port, ok := fields(arg)
	if !ok || family == "" {
		return netip.AddrPort{}, errExtended
	}
	if family != "1" && family != "2" {
		return netip.AddrPort{}, ErrFamily
	}
	a, err := netip.ParseAddr(address)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "1") {
		return netip.AddrPort{}, errExtended
	}
	n, ok := parsePort(port)
	if !ok {
		return netip.AddrPort{}, errExtended
	}
	return netip.AddrPortFrom(a.Unmap(), n), nil
}

// FormatExtended writes the argument of EPRT. The address is in its canonical form (RFC 5952): servers compare strings.
func FormatExtended(ap netip.AddrPort) string {
	a := ap.Addr().Unmap()
	return "|" + strconv.Itoa(int(FamilyOf(a))) + "|" + a.String() + "|" + strconv.Itoa(int(ap.Port())) + "|"
}

// fields cuts "|a|b|c|" apart at its own first byte, which must be a printable delimiter (RFC 2428 §2).
func fields(s string) (a, b, c string, ok bool) {
	if len(s) < 4 || s[0] < 33 || s[0] > 126 || isDigit(s[0]) {
		return "", "", "", false
	}
	d := s[:1]
	a, s, _ = strings.Cut(s[1:], d)
	b, s, _ = strings.Cut(s, d)
	c, s, ok = strings.Cut(s, d)
	return a, b, c, ok && s == ""
}

func parsePort(s string) (uint16, bool) {
	if len(s) == 0 || len(s) > 5 || !isDigit(s[0]) {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// Passive finds the data port of a 227 or 229 reply, in any of the ways that servers write them. The address in a 227 is
// returned for the record; nobody should dial it (CVE-2020-8284). For 229 the address is invalid: it is the control
// connection's (RFC 2428 §3).
func (r Reply) Passive() (netip.AddrPort, error) {
	ap, _, _, _, ok := r.passive()
	if !ok {
		return netip.AddrPort{}, ErrNoAddress
	}
	return ap, nil
}

// NewPassive makes a reply to PASV (code 227, and ap is IPv4) or EPSV (229) in the words that every client understands: some
// look for the parenthesis (RFC 1123 §4.1.2.6, RFC 2428 §3).
func NewPassive(code int, ap netip.AddrPort) Reply {
	if code == 227 {
		return NewReply(code, "Entering Passive Mode ("+FormatHostPort(ap)+").")
	}
	return NewReply(code, fmt.Sprintf("Entering Extended Passive Mode (|||%d|)", ap.Port()))
}

// WithPassive returns the same words with another address and port; r must be a reply that Passive reads. If ap's
// address is not IPv4, the address in a 227 stays what the server wrote. Words around the address that would make the new one
// be read differently ("(!!|!||1|!1!)", a server's attempt to have clients dial a port that nobody checked) are not kept.
func (r Reply) WithPassive(ap netip.AddrPort) Reply {
	old, line, begin, end, ok := r.passive()
	if !ok {
		return r
	}
	text := "|||" + strconv.Itoa(int(ap.Port())) + "|"
	if r.Code == 227 {
		if !ap.Addr().Unmap().Is4() {
			ap = netip.AddrPortFrom(old.Addr(), ap.Port())
		}
		text = FormatHostPort(ap)
	} else {
		d := r.Lines[line][begin : begin+1] // the server's delimiter
		text = strings.ReplaceAll(text, "|", d)
	}
	lines := append([]string(nil), r.Lines...)
	lines[line] = lines[line][:begin] + text + lines[line][end:]
	with := Reply{Code: r.Code, Lines: lines}
	if got, err := with.Passive(); err != nil || got.Port() != ap.Port() {
		return NewPassive(r.Code, ap)
	}
	return with
}

// passive finds the address of a 227 or 229 reply and where it stands.
func (r Reply) passive() (ap netip.AddrPort, line, begin, end int, ok bool) {
	if r.Code != 227 && r.Code != 229 {
		return netip.AddrPort{}, 0, 0, 0, false
	}
	for line, l := range r.Lines {
		from := 0
		if code, _ := splitCode([]byte(l)); code == r.Code {
			from = 3
		}
		if r.Code == 227 {
			ap, begin, end = findHostPort(l, from)
		} else {
			ap, begin, end = findExtended(l, from)
		}
		if end > 0 {
			// Port 0 is none, and no reason to look on: clients take the first address they find.
			return ap, line, begin, end, ap.Port() != 0
		}
	}
	return netip.AddrPort{}, 0, 0, 0, false
}

// findHostPort finds six numbers in a line of a 227 reply, as RFC 1123 §4.1.2.6 says: there may be no parenthesis. end
// is 0 if there are none.
func findHostPort(l string, from int) (ap netip.AddrPort, begin, end int) {
	for i := from; i < len(l); i++ {
		if isDigit(l[i]) && (i == 0 || !isDigit(l[i-1])) {
			if ap, n := hostPort(l[i:]); n > 0 {
				return ap, i, i + n
			}
		}
	}
	return netip.AddrPort{}, 0, 0
}

// findExtended finds "(<d><d><d>port<d>)" in a line of a 229 reply (RFC 2428 §3), with a delimiter of the server's choice.
// Clients look for the parenthesis first; a few servers forget it, and write bars. end is 0 if there is nothing.
func findExtended(l string, from int) (ap netip.AddrPort, begin, end int) {
	port := func(begin, end int) uint16 { // 0: none
		if _, _, text, ok := fields(l[begin:end]); ok {
			if n, ok := parsePort(text); ok {
				return n
			}
		}
		return 0
	}
	for i := from; i < len(l); i++ {
		if l[i] != '(' {
			continue
		}
		if n := strings.IndexByte(l[i:], ')'); n > 0 {
			if p := port(i+1, i+n); p > 0 {
				return netip.AddrPortFrom(netip.Addr{}, p), i + 1, i + n
			}
		}
	}
	last := strings.LastIndexByte(l, '|')
	for i := from; i < last; i++ {
		if l[i] == '|' {
			if p := port(i, last+1); p > 0 {
				return netip.AddrPortFrom(netip.Addr{}, p), i, last + 1
			}
		}
	}
	return netip.AddrPort{}, 0, 0
}
