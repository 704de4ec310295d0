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

// TestTakeReset: which resets break a connection off, and which are only the answer of a host that has forgotten it.
func TestTakeReset(t *testing.T) {
	caller, callee := netip.MustParseAddrPort("192.0.2.1:1000"), netip.MustParseAddrPort("198.51.100.1:2000")
	for _, c := range []struct {
		name   string
		segs   []segment // after the beginning, all from the callee
		broken bool
	}{
		{"forgotten", []segment{{flags: tcpFIN | tcpACK, seq: 101, payload: 1000}, {flags: tcpRST, seq: 1102}}, false},
		{"before the end", []segment{{flags: tcpRST, seq: 1102}}, true},
		{"what was sent is not acknowledged", []segment{{flags: tcpFIN | tcpACK, seq: 101, payload: 1000}, {flags: tcpRST, seq: 1101}}, true},
		{"given up", []segment{{flags: tcpFIN | tcpACK, seq: 101, payload: 1000}, {flags: tcpRST | tcpACK, seq: 1102}}, true},
	} {
		p := &Pinhole{all: &Pinholes{holes: map[hole]*Pinhole{}}, Hole: Hole{From: caller.Addr(), At: callee}, changed: make(chan struct{}, 1)}
		p.take(caller, There, segment{flags: tcpSYN, seq: 7})
		p.take(caller, Back, segment{flags: tcpSYN | tcpACK, seq: 100})
		for _, seg := range c.segs {
			p.take(caller, Back, seg)
		}
		if got := p.Passage(); got.Reset != c.broken || got.Ended[There] == c.broken {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
