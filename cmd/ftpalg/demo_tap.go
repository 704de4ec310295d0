package main

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
)

// demoLine is one line of a control connection.
type demoLine struct {
	Arrow string // ">" the client said it, "<" the server
	Text  string // without password
}

// demoLink is a TCP connection as one of its ends sees it.
type demoLink struct{ Own, Peer netip.AddrPort }

func linkOf(c net.Conn) demoLink {
	return demoLink{unmapped(c.LocalAddr()), unmapped(c.RemoteAddr())}
}

// unmapped is the address without the IPv6 clothes of IPv4 on a socket for both.
func unmapped(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := t.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// tapped is a control connection whose lines are heard as they pass, until TLS begins.
type tapped struct {
	net.Conn
	read, written splitter
	secured       bool
}

// tap taps a connection: arrows are those of what is read and of what is written.
func tap(c net.Conn, read, written string, hear func(demoLine)) *tapped {
	t := &tapped{Conn: c}
	until := func(l demoLine) {
		hear(l)
		if l.Arrow == "<" && strings.HasPrefix(l.Text, "234 ") { // the next byte is of TLS (RFC 4217 §4)
			t.secured = true
		}
	}
	t.read, t.written = splitter{arrow: read, hear: until}, splitter{arrow: written, hear: until}
	return t
}

// Read implements net.Conn.
func (t *tapped) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	if !t.secured {
		t.read.take(b[:n])
	}
	return n, err
}

// Write implements net.Conn. What is written is heard before the other end can answer it.
func (t *tapped) Write(b []byte) (int, error) {
	if !t.secured {
		t.written.take(b)
	}
	return t.Conn.Write(b)
}

// splitter makes lines of what it takes.
type splitter struct {
	arrow string
	hear  func(demoLine)
	part  []byte
}

func (s *splitter) take(b []byte) {
	s.part = append(s.part, b...)
	for {
		text, rest, whole := bytes.Cut(s.part, []byte("\n"))
		if !whole {
			return
		}
		s.hear(demoLine{s.arrow, withoutPassword(strings.TrimRight(string(text), "\r"))})
		s.part = rest
	}
}

func withoutPassword(text string) string {
	if verb, _, _ := strings.Cut(text, " "); strings.EqualFold(verb, "PASS") {
		return verb + " ***"
	}
	return text
}
