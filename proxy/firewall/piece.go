package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The instructions here are those that nft (1.0.6) makes of the text beside them; a test compares the two.

// Tests.

// addresses match a family, and the client's and server's addresses where any are given.
func addresses(f family, clients, servers []netip.Prefix) []piece {
	from, to := prefixSpans(prefixesOf(f, clients)), prefixSpans(prefixesOf(f, servers))
	pieces := []piece{{code: []instr{loadMeta{metaNfproto}, compare{equal, []byte{byte(f)}}}}}
	if len(from)+len(to) == 0 {
		pieces[0].text = "meta nfproto " + map[family]string{ipv4: "ipv4", ipv6: "ipv6"}[f]
	}
	kind, source, destination := setIPv4, loadHeader{network, 12, 4}, loadHeader{network, 16, 4}
	if f == ipv6 {
		kind, source, destination = setIPv6, loadHeader{network, 8, 16}, loadHeader{network, 24, 16}
	}
	if len(from) > 0 {
		pieces = append(pieces, within(f.nft()+" saddr", source, kind, from))
	}
	if len(to) > 0 {
		pieces = append(pieces, within(f.nft()+" daddr", destination, kind, to))
	}
	return pieces
}

// tcp matches TCP to the ports.
func tcp(ports ...PortRange) piece {
	p := within("tcp dport", loadHeader{transport, 2, 2}, setPorts, portSpans(ports...))
	p.code = append([]instr{loadMeta{metaL4proto}, compare{equal, []byte{protoTCP}}}, p.code...)
	return p
}

// within matches a header field that lies in one of the spans, of which there is at least one.
func within(field string, load loadHeader, kind setKind, spans []span) piece {
	if len(spans) > 1 {
		return piece{field + " " + braces(spans), []instr{load, lookup{spanSet(kind, spans)}}}
	}
	s := spans[0]
	p := piece{text: field + " " + s.String()}
	bits := -1
	if kind != setPorts {
		bits = s.prefixBits()
	}
	switch {
	case s.single():
		p.code = []instr{load, compare{equal, s.from}}
	case bits > 0 && bits%8 == 0:
		load.length = bits / 8
		p.code = []instr{load, compare{equal, s.from[:load.length]}}
	case bits > 0:
		p.code = []instr{load, and{ones(bits, load.length)}, compare{equal, s.from}}
	default:
		p.code = []instr{load, compare{atLeast, s.from}, compare{atMost, s.to}}
	}
	return p
}

// incoming matches the interface that a packet came in by.
func incoming(name string) piece {
	padded := append([]byte(name), make([]byte, interfaceLen-len(name))...)
	return piece{fmt.Sprintf("iifname %q", name), []instr{loadMeta{metaIifname}, compare{equal, padded}}}
}

// marked matches a packet's mark.
func marked(mark uint32) piece {
	return piece{fmt.Sprintf("meta mark %#x", mark), []instr{loadMeta{metaMark}, compare{equal, native(mark)}}}
}

// owned matches packets whose socket was made by the user.
func owned(uid uint32) piece {
	return piece{fmt.Sprintf("meta skuid %d", uid), []instr{loadMeta{metaSkuid}, compare{equal, native(uid)}}}
}

// notMarked matches packets without the mark.
func notMarked(mark uint32) piece {
	return piece{fmt.Sprintf("meta mark != %#x", mark), []instr{loadMeta{metaMark}, compare{notEqual, native(mark)}}}
}

// ofMarkedConnection matches the packets of a connection that has the mark.
func ofMarkedConnection(mark uint32) piece {
	return piece{fmt.Sprintf("ct mark %#x", mark), []instr{loadCT{ctMark}, compare{equal, native(mark)}}}
}

// original matches the packets that go the way of their connection's first.
func original() piece {
	return piece{"ct direction original", []instr{loadCT{ctDirection}, compare{equal, []byte{originalWay}}}}
}

// foreign matches packets to other machines.
func foreign() piece {
	return piece{"fib daddr type != local", []instr{loadAddrType{}, compare{notEqual, native(addrLocal)}}}
}

// homeward matches packets to this machine.
func homeward() piece {
	return piece{"fib daddr type local", []instr{loadAddrType{}, compare{equal, native(addrLocal)}}}
}

// transparent matches TCP packets for which there is a transparent socket.
func transparent() piece {
	return piece{"meta l4proto tcp socket transparent 1", []instr{
		loadMeta{metaL4proto}, compare{equal, []byte{protoTCP}},
		loadSocket{socketTransparent}, compare{equal, []byte{1}},
	}}
}

// wildcard matches packets whose socket is bound to no address. It never matches half-open and TIME_WAIT sockets,
// for which the kernel cannot tell.
func wildcard() piece {
	return piece{"socket wildcard 1", []instr{loadSocket{socketWildcard}, compare{equal, []byte{1}}}}
}

// Actions.

func mark(m uint32) piece {
	return piece{fmt.Sprintf("meta mark set %#x", m), []instr{put{1, native(m)}, setMark{}}}
}

func markConnection(m uint32) piece {
	return piece{fmt.Sprintf("ct mark set %#x", m), []instr{put{1, native(m)}, setCTMark{}}}
}

// divert gives the packet to the listener's socket. If there is none the rule ends here, and the packet goes on.
func divert(f family, to netip.AddrPort) piece {
	port := binary.BigEndian.AppendUint16(nil, to.Port())
	if to.Addr().IsUnspecified() {
		return piece{fmt.Sprintf("tproxy %s to :%d", f.nft(), to.Port()), []instr{put{1, port}, tproxy{family: f, port: 1}}}
	}
	return piece{fmt.Sprintf("tproxy %s to %s", f.nft(), to), []instr{
		put{1, to.Addr().AsSlice()}, put{2, port}, tproxy{family: f, address: 1, port: 2},
	}}
}

// deliver rewrites the destination to the listener's address and port; port 0 leaves the port as it is. A listener
// without an address is found at an address of the interface that the packet came in by (nft's redirect).
func deliver(f family, to netip.Addr, port uint16) piece {
	newPort := binary.BigEndian.AppendUint16(nil, port)
	switch {
	case to.IsUnspecified() && port == 0:
		return piece{"redirect", []instr{redirect{}}}
	case to.IsUnspecified():
		return piece{fmt.Sprintf("redirect to :%d", port), []instr{put{1, newPort}, redirect{port: 1}}}
	case port == 0:
		return piece{fmt.Sprintf("dnat %s to %s", f.nft(), to), []instr{put{1, to.AsSlice()}, dnat{family: f, address: 1}}}
	}
	return piece{fmt.Sprintf("dnat %s to %s", f.nft(), netip.AddrPortFrom(to, port)), []instr{
		put{1, to.AsSlice()}, put{2, newPort}, dnat{family: f, address: 1, port: 2},
	}}
}

func accepted() piece { return piece{"accept", []instr{accept{}}} }

func jumpTo(chain string) piece { return piece{"jump " + chain, []instr{jump{chain}}} }

func goTo(chain string) piece { return piece{"goto " + chain, []instr{leave{chain}}} }

// Parts.

// spanSet is the set of the spans. Where all of them are single values it is a plain one, which is a hash.
func spanSet(kind setKind, spans []span) set {
	s := set{kind: kind, interval: slices.ContainsFunc(spans, func(s span) bool { return !s.single() })}
	if zero := make([]byte, len(spans[0].from)); s.interval && slices.Compare(zero, spans[0].from) != 0 {
		s.elements = append(s.elements, element{zero, true}) // nothing is in from zero on: so nft begins
	}
	for _, span := range spans {
		s.elements = append(s.elements, element{key: span.from})
		if next := span.next(); s.interval && next != nil {
			s.elements = append(s.elements, element{next, true})
		}
	}
	return s
}

// braces are the spans as an nft set.
func braces(spans []span) string {
	var texts []string
	for _, s := range spans {
		texts = append(texts, s.String())
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// ones are n one bits, and zeros up to length bytes.
func ones(n, length int) []byte {
	mask := make([]byte, length)
	for bit := range n {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	return mask
}

// native is a number as the kernel keeps marks and users: in the machine's byte order.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
