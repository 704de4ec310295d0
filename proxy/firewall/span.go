package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
)

// span is a run of values, both ends included. Values are big endian and of one length: ports, or addresses.
type span struct{ from, to []byte }

// portSpans are the ranges, in order and joined.
func portSpans(ranges ...PortRange) []span {
	var spans []span
	for _, r := range ranges {
		spans = append(spans, span{binary.BigEndian.AppendUint16(nil, r.First), binary.BigEndian.AppendUint16(nil, r.Last)})
	}
	return join(spans)
}

// prefixSpans are the prefixes, in order and joined. It is empty if every address is within.
func prefixSpans(prefixes []netip.Prefix) []span {
	var spans []span
	for _, p := range prefixes {
		from := p.Masked().Addr().AsSlice()
		to := slices.Clone(from)
		for bit := p.Bits(); bit < len(to)*8; bit++ {
			to[bit/8] |= 0x80 >> (bit % 8)
		}
		spans = append(spans, span{from, to})
	}
	spans = join(spans)
	if len(spans) == 1 && spans[0].prefixBits() == 0 {
		return nil
	}
	return spans
}

// join sorts spans and makes one of those that overlap or touch, as nft does when it loads text.
func join(spans []span) []span {
	slices.SortFunc(spans, func(a, b span) int { return bytes.Compare(a.from, b.from) })
	var joined []span
	for _, s := range spans {
		if n := len(joined); n > 0 {
			last := &joined[n-1]
			if next := last.next(); next == nil || bytes.Compare(s.from, next) <= 0 {
				if bytes.Compare(s.to, last.to) > 0 {
					last.to = s.to
				}
				continue
			}
		}
		joined = append(joined, s)
	}
	return joined
}

// next is the value after the span; nil if the span ends with the greatest.
func (s span) next() []byte {
	next := slices.Clone(s.to)
	for i := len(next) - 1; i >= 0; i-- {
		next[i]++
		if next[i] != 0 {
			return next
		}
	}
	return nil
}

func (s span) single() bool { return bytes.Equal(s.from, s.to) }

// prefixBits is the length of the prefix that the span is, or -1 if it is none.
func (s span) prefixBits() int {
	n := 0
	for i := range s.from {
		same := bits.LeadingZeros8(s.from[i] ^ s.to[i])
		n += same
		if same < 8 {
			break
		}
	}
	for bit := n; bit < len(s.from)*8; bit++ {
		mask := byte(0x80) >> (bit % 8)
		if s.from[bit/8]&mask != 0 || s.to[bit/8]&mask == 0 {
			return -1
		}
	}
	return n
}

// String is the span in nft's words.
func (s span) String() string {
	if len(s.from) == 2 {
		first, last := binary.BigEndian.Uint16(s.from), binary.BigEndian.Uint16(s.to)
		if first == last {
			return fmt.Sprint(first)
		}
		return fmt.Sprintf("%d-%d", first, last)
	}
	from, _ := netip.AddrFromSlice(s.from)
	to, _ := netip.AddrFromSlice(s.to)
	switch n := s.prefixBits(); {
	case s.single():
		return from.String()
	case n >= 0:
		return netip.PrefixFrom(from, n).String()
	}
	return fmt.Sprintf("%s-%s", from, to)
}
