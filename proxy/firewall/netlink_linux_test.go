package firewall

import (
	"net/netip"
	"testing"
)

// FuzzSegment: what passes through the firewall is anybody's, and must be read without harm; what we make must be read back.
func FuzzSegment(f *testing.F) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:21"), netip.MustParseAddrPort("[2001:db8::1]:50000")
	f.Add(makeSegment(v4, v4, 1, 2))
	f.Add(makeSegment(v6, v6, 1<<32-1, 0))
	f.Add([]byte{0x4f, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSegment(b)
		if err != nil {
			return
		}
		if s.source.Addr().Is4() != s.dest.Addr().Is4() || !s.source.Addr().IsValid() {
			t.Errorf("%v -> %v", s.source, s.dest)
		}
		if s.payload > 1<<16+40 {
			t.Errorf("a packet of %d bytes", s.payload)
		}
		again, err := parseSegment(makeSegment(s.source, s.dest, s.seq, 0))
		if err != nil || again.tuple != s.tuple || again.seq != s.seq || again.payload != 0 || again.flags != tcpACK {
			t.Errorf("%+v became %+v, %v", s, again, err)
		}
	})
}

// TestChecksum has RFC 1071's example (§3) and a packet as a kernel sent it.
func TestChecksum(t *testing.T) {
	if sum := checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); sum != ^uint16(0xddf2) {
		t.Errorf("%#x", sum)
	}
	packet := makeSegment(netip.MustParseAddrPort("192.0.2.1:21"), netip.MustParseAddrPort("192.0.2.2:40000"), 7, 9)
	if sum := checksum(packet[:20]); sum != 0 {
		t.Errorf("an IP header that does not add up: %#x", sum)
	}
}
