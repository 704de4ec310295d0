package proxy

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"ftpalg/control"
)

// SOCKS version 5 (RFC 1928), as far as it serves FTP: CONNECT. BIND is not there, since active data connections need no proxy to come
// through that a server could call.

// Replies to a request, RFC 1928 §6.
const (
	socksDone        = 0x00
	socksNotAllowed  = 0x02
	socksUnreachable = 0x04
	socksCommand     = 0x07
	socksAddress     = 0x08
)

// Methods of authentication, RFC 1928 §3.
const (
	socksOpen         = 0x00
	socksNoAcceptable = 0xFF
)

const socksVersion = 5

// socks serves a client that speaks SOCKS, until it is done with c.
func (p *Proxy) socks(s *setting, c *net.TCPConn, a arrival) {
	// A client may not hold us for longer with half a request, nor may many.
	c.SetDeadline(time.Now().Add(s.cfg.Timeouts.Login))
	var w wanted
	var err error
	if r := p.counts.admit(a.client.Addr(), s.cfg.Limits); r != nil {
		err = r
	} else {
		w, err = socksRequest(c)
		p.counts.leave(a.client.Addr(), false)
	}
	if err == nil {
		c.SetDeadline(time.Time{})
		err = p.tunnel(s, c, a, w, func() error { return socksReply(c, socksDone) })
	}
	if err == nil {
		return // the session has closed it, or a transfer will
	}
	p.refusedTunnel(s, a, w, err)
	code := byte(socksUnreachable)
	var f *socksFault
	switch {
	case errors.As(err, &f):
		code = f.code
	case errors.As(err, new(*control.Refusal)):
		code = socksNotAllowed
	}
	c.SetWriteDeadline(time.Now().Add(time.Second))
	socksReply(c, code)
	c.CloseWrite()
	c.Close()
	p.untrack(c)
}

// socksFault is a request that is not served.
type socksFault struct {
	code byte
	text string
}

func (f *socksFault) Error() string { return f.text }

// socksRequest reads a client's greeting, answers it, and reads what it asks for.
func socksRequest(c net.Conn) (w wanted, err error) {
	var head [4]byte
	if _, err = io.ReadFull(c, head[:2]); err != nil { // version, number of methods
		return w, err
	}
	methods := make([]byte, head[1])
	if _, err = io.ReadFull(c, methods); err != nil {
		return w, err
	}
	method := byte(socksNoAcceptable)
	for _, m := range methods {
		if m == socksOpen {
			method = m
		}
	}
	if _, err = c.Write([]byte{socksVersion, method}); err != nil {
		return w, err
	}
	if method == socksNoAcceptable {
		return w, errors.New("the client offers no method of authentication that is supported")
	}
	if _, err = io.ReadFull(c, head[:]); err != nil { // version, command, reserved, address type
		return w, err
	}
	var address []byte
	switch head[3] {
	case 1:
		address = make([]byte, 4)
	case 4:
		address = make([]byte, 16)
	case 3:
		var length [1]byte
		if _, err = io.ReadFull(c, length[:]); err != nil {
			return w, err
		}
		address = make([]byte, length[0])
	default:
		return w, &socksFault{socksAddress, "no such type of address in SOCKS"}
	}
	if _, err = io.ReadFull(c, address); err != nil {
		return w, err
	}
	var port [2]byte
	if _, err = io.ReadFull(c, port[:]); err != nil {
		return w, err
	}
	w.port = uint16(port[0])<<8 | uint16(port[1])
	if w.host = string(address); head[3] != 3 {
		ip, _ := netip.AddrFromSlice(address)
		w.host = ip.Unmap().String()
	}
	if head[0] != socksVersion || head[1] != 1 {
		return w, &socksFault{socksCommand, "only CONNECT of SOCKS version 5 is supported"}
	}
	return w, nil
}

// socksReply answers a request. Where we are bound is nobody's business: the address is all zeros.
func socksReply(c net.Conn, code byte) error {
	_, err := c.Write([]byte{socksVersion, code, 0, 1, 0, 0, 0, 0, 0, 0})
	return err
}
