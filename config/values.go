package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Mark is a packet or socket mark (SO_MARK). Its text is 0x and hexadecimal digits, or a decimal number.
type Mark uint32

// String writes the mark as 0x and eight digits.
func (m Mark) String() string { return fmt.Sprintf("0x%08x", uint32(m)) }

// UnmarshalText reads a mark; it fails if the text is no number of 32 bits.
func (m *Mark) UnmarshalText(text []byte) error {
	digits, base := string(text), 10
	if hex, ok := strings.CutPrefix(digits, "0x"); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if err != nil {
		return fmt.Errorf("%s is no mark: write 0x and up to eight hexadecimal digits, or a decimal number below 2^32",
			quoted(string(text)))
	}
	*m = Mark(n)
	return nil
}

// PortRange is the ports from First to Last, both included. The zero range means any port. Its text is "50000-50999",
// or "21" for a single port; the zero range's is empty.
type PortRange struct {
	First, Last uint16
}

// Contains reports whether port is in the range. The zero range contains every port.
func (r PortRange) Contains(port uint16) bool {
	return r == PortRange{} || r.First <= port && port <= r.Last
}

// String writes the range as UnmarshalText reads it.
func (r PortRange) String() string {
	switch {
	case r == PortRange{}:
		return ""
	case r.First == r.Last:
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// UnmarshalText reads a range; it fails if the text is not one or two ports from 1 to 65535 in ascending order.
func (r *PortRange) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = PortRange{}
		return nil
	}
	from, to, isRange := strings.Cut(string(text), "-")
	if !isRange {
		to = from
	}
	first, err1 := strconv.ParseUint(strings.TrimSpace(from), 10, 16)
	last, err2 := strconv.ParseUint(strings.TrimSpace(to), 10, 16)
	if err1 != nil || err2 != nil || first == 0 || last == 0 {
		return fmt.Errorf("%s is no port or range of ports: write 21 or 50000-50999, each 1 to 65535", quoted(string(text)))
	}
	if first > last {
		return fmt.Errorf("%s begins after its end: write %d-%d", quoted(string(text)), last, first)
	}
	*r = PortRange{uint16(first), uint16(last)}
	return nil
}

// Size is a number of bytes. Its text has a unit: 4096B, 64KiB, 10MB. A plain number is refused, because nobody agrees
// on what it counts.
type Size int64

// units are the units of a Size, the largest binary ones first so that String finds the shortest text.
var units = []struct {
	name  string
	bytes Size
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3},
	{"B", 1},
}

// String writes the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range units[:3] {
		if s != 0 && s%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(s/u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%dB", int64(s))
}

// UnmarshalText reads a size; it fails without a unit, and beyond 2^63-1 bytes.
func (s *Size) UnmarshalText(text []byte) error {
	t := string(text)
	if _, err := strconv.ParseUint(t, 10, 64); err == nil {
		return fmt.Errorf("%s has no unit: write %sB for bytes, or use KiB, MiB, GiB, KB, MB, GB", quoted(t), t)
	}
	for _, u := range units {
		digits, ok := strings.CutSuffix(t, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
		if err != nil {
			break
		}
		if size := Size(n) * u.bytes; size/u.bytes == Size(n) {
			*s = size
			return nil
		}
		return fmt.Errorf("%s is too large", quoted(t))
	}
	return fmt.Errorf("%s is no size: write a whole number and B, KiB, MiB, GiB, KB, MB or GB, such as 64KiB", quoted(t))
}

// parseDuration reads a duration with a unit, zero or more.
func parseDuration(text string) (time.Duration, error) {
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("%s has no unit: write %ss for seconds, or use ms, m, h", quoted(text), strings.TrimLeft(text, "-+"))
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s is no duration: write numbers with the units h, m, s, ms, such as 1h30m", quoted(text))
	case d < 0:
		return 0, fmt.Errorf("%s is negative", quoted(text))
	}
	return d, nil
}

// formatDuration writes a duration without the zero units that Duration.String puts at the end: 2m, not 2m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// parseAddrPort reads an address to listen on. An IPv4 address mapped into IPv6 becomes plain IPv4, so that addresses
// can be compared. Empty text is the zero AddrPort.
func parseAddrPort(text string) (netip.AddrPort, error) {
	if text == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s is no IP:PORT: write 127.0.0.1:2121, [::1]:2121, or [::]:2121 for every address",
			quoted(text))
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// parsePrefix reads a prefix in CIDR notation, or an address, which is a prefix of its full length.
func parsePrefix(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%s has a zone, which a prefix cannot have", quoted(text))
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s is no address or prefix: write 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32", quoted(text))
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%s has bits beyond its length: write %s", quoted(text), p.Masked())
	}
	return p, nil
}

// parseWhole reads a whole number from 0 to 2^bits-1.
func parseWhole(text string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, bits)
	if errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%s is too large: at most %d", quoted(text), uint64(1)<<bits-1)
	}
	if err != nil {
		return 0, fmt.Errorf("%s is no whole number", quoted(text))
	}
	return n, nil
}

// isHostName reports whether s has the form of a host name (RFC 1123 §2.1, and the underscore that some use), without
// a final dot. A name whose last label is a number is refused: it is a mistyped address. Characters of more are
// allowed besides.
func isHostName(s, more string) bool {
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > 63 || !consistsOf(label, letters+digits+"-_"+more) {
			return false
		}
	}
	return len(s) <= 253 && !consistsOf(labels[len(labels)-1], digits)
}

const (
	upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters = "abcdefghijklmnopqrstuvwxyz" + upper
	digits  = "0123456789"
)

// consistsOf reports whether s has no character but those of set.
func consistsOf(s, set string) bool { return strings.Trim(s, set) == "" }
