package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
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
	socksPassword     = 0x02 // RFC 1929
	socksNoAcceptable = 0xFF
)

// Versions: of SOCKS, and of the exchange of name and password.

const (
	socksVersion         = 5
	socksPasswordVersion = 1
)

// socks serves a client that speaks SOCKS, until it is done with c.
func (p *Proxy) socks(s *setting, c *net.TCPConn, a arrival) {
	// A client may not hold us for longer with half a request, nor may many.
	c.SetDeadline(time.Now().Add(s.cfg.Timeouts.Login))
	var w wanted
	var err error
	if r := p.counts.admit(a.client.Addr(), s.cfg.Limits); r != nil {
		err = r
	} else {
		w, err = socksRequest(c, s.accounts != nil, func(name, password string) error {
			if s.accounts == nil {
				return nil // it means nothing
			}
			ctx, cancel := context.WithTimeout(p.alive, s.cfg.Timeouts.Login)
			defer cancel()
			var err error
			a.account, err = s.accounts.Login(ctx, a.client.Addr(), name, password)
			return err
		})
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
	if code != 0 {
		socksReply(c, code)
	}
	c.CloseWrite()
	p.drop(c)
}

// socksFault is a request that is not served.
type socksFault struct {
	code byte // of the reply to the request; zero: there is no more to be said
	text string
}

func (f *socksFault) Error() string { return f.text }

// socksRequest reads a client's greeting, answers it, and reads what it asks for. login is asked about its name and password where
// the client must say them, or can do nothing else.
func socksRequest(c net.Conn, must bool, login func(name, password string) error) (w wanted, err error) {
	var head [4]byte
	if _, err = io.ReadFull(c, head[:2]); err != nil { // version, number of methods
		return w, err
	}
	methods := make([]byte, head[1])
	if _, err = io.ReadFull(c, methods); err != nil {
		return w, err
	}
	method := byte(socksNoAcceptable)
	switch {
	case !must && slices.Contains(methods, socksOpen):
		method = socksOpen
	case slices.Contains(methods, socksPassword):
		method = socksPassword
	}
	if _, err = c.Write([]byte{socksVersion, method}); err != nil {
		return w, err
	}
	switch method {
	case socksNoAcceptable:
		return w, &socksFault{text: "the client offers no method of authentication that would do"}
	case socksPassword:
		if err = socksLogin(c, login); err != nil {
			return w, err
		}
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
		if w.host, err = socksWord(c); err != nil {
			return w, err
		}
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
	if ip, ok := netip.AddrFromSlice(address); ok {
		w.host = ip.Unmap().String()
	}
	if head[0] != socksVersion || head[1] != 1 {
		return w, &socksFault{socksCommand, "only CONNECT of SOCKS version 5 is supported"}
	}
	return w, nil
}

// socksLogin performs RFC 1929.
func socksLogin(c net.Conn, login func(name, password string) error) error {
	var version [1]byte
	if _, err := io.ReadFull(c, version[:]); err != nil {
		return err
	}
	name, err := socksWord(c)
	if err != nil {
		return err
	}
	password, err := socksWord(c)
	if err != nil {
		return err
	}
	if version[0] != socksPasswordVersion {
		return &socksFault{text: "no such version of SOCKS's exchange of passwords"}
	}
	err = login(name, password)
	status := byte(0)
	if err != nil {
		status = 1
		err = &socksFault{text: "proxy login: " + err.Error()}
	}
	if _, w := c.Write([]byte{socksPasswordVersion, status}); w != nil {
		return w
	}
	return err
}

// socksWord reads what begins with its length.
func socksWord(c net.Conn) (string, error) {
	var length [1]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return "", err
	}
	word := make([]byte, length[0])
	_, err := io.ReadFull(c, word)
	return string(word), err
}

// socksReply answers a request. Where we are bound is nobody's business: the address is all zeros.
func socksReply(c net.Conn, code byte) error {
	_, err := c.Write([]byte{socksVersion, code, 0, 1, 0, 0, 0, 0, 0, 0})
	return err
}
