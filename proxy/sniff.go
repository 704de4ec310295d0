package proxy

import (
	"bytes"
	"net"
	"time"

	"ftpalg/config"
)

// speech is what a client's first bytes are.
type speech int

const (
	speaksFTP speech = iota // nothing, as a rule: the server greets (RFC 959 §5.4)
	speaksTLS
	speaksSOCKS
	speaksHTTP
)

// httpMethods are the methods by which HTTP is known, RFC 9110 §9 and what else tries proxies. None begins as an FTP verb and a
// space do; the bytes that tell are as many as a method has, and one.
var httpMethods = [][]byte{[]byte("GET "), []byte("HEAD "), []byte("PUT "), []byte("DELETE "), []byte("CONNECT "), []byte("OPTIONS "),
	[]byte("POST "), []byte("TRACE "), []byte("PATCH "), []byte("PROPFIND ")}

// sniff tells what a client of an explicit listener speaks. What it has said stays to be read.
func (p *Proxy) sniff(s *setting, c *net.TCPConn) speech {
	l := s.listener
	if l.Sniff == 0 {
		return speaksFTP
	}
	c.SetReadDeadline(time.Now().Add(l.Sniff))
	defer c.SetReadDeadline(time.Time{})
	var first [16]byte
	n, _ := peek(c, first[:], func(b []byte) bool {
		_, certain := speechOf(b)
		return certain
	})
	what, _ := speechOf(first[:n])
	switch {
	case what == speaksSOCKS && !l.Speaks(config.ProtocolSOCKS5):
		return speaksFTP // which it will be told that it does not speak
	case what == speaksHTTP && !l.Speaks(config.ProtocolHTTP):
		return speaksFTP
	case what == speaksTLS && !takesTLS(l):
		return speaksFTP
	}
	return what
}

// speechOf tells what begins with some bytes, and whether more of them could not change that.
func speechOf(b []byte) (what speech, certain bool) {
	switch {
	case len(b) == 0:
		return speaksFTP, false
	case b[0] == 0x16: // a TLS record of type handshake, RFC 8446 §5.1
		return speaksTLS, true
	case b[0] == 0x05: // RFC 1928 §3
		return speaksSOCKS, true
	}
	for _, m := range httpMethods {
		if bytes.HasPrefix(b, m) {
			return speaksHTTP, true
		}
		if bytes.HasPrefix(m, b) {
			return speaksFTP, false
		}
	}
	return speaksFTP, true
}
