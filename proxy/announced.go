package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"

	"ftpalg/config"
	"ftpalg/dataconn"
)

// The PROXY protocol, versions 1 and 2: a load balancer before us says who its client is, and we say it to a server that believes
// us. Whoever may say that chooses what rules and limits take it for, so only senders that the configuration trusts are asked;
// from all others its header is no FTP.

// announcement is the most that a header has, in bytes. Version 1 has 107 at most, version 2 what its length says; what is longer has
// extensions that nobody here reads.
const announcement = 4096

// announceWithin is how long a trusted sender has for its header. It is there with the first packet.
const announceWithin = 5 * time.Second

var announcement1, announcement2 = []byte("PROXY "), []byte("\r\n\r\n\x00\r\nQUIT\n")

// trusts reports whether connections from an address must begin with a header of the PROXY protocol.
func trusts(l *config.Listener, from netip.Addr) bool {
	return slices.ContainsFunc(l.ProxyProtocol.Trusted, func(p netip.Prefix) bool { return p.Contains(from) })
}

// announced takes the header off the beginning of a connection and returns the client that it names, and where that has connected
// to. A connection that the sender makes for itself, to see whether we live, is the sender's to us.
func announced(c *net.TCPConn) (client, dialed netip.AddrPort, err error) {
	c.SetReadDeadline(time.Now().Add(announceWithin))
	defer c.SetReadDeadline(time.Time{})
	b := make([]byte, announcement)
	n, err := peek(c, b, func(b []byte) bool { return announcementLength(b) != 0 })
	if err != nil {
		return client, dialed, fmt.Errorf("no header of the PROXY protocol: %w", err)
	}
	length := announcementLength(b[:n])
	if length <= 0 {
		return client, dialed, errors.New("the connection does not begin with a header of the PROXY protocol")
	}
	if _, err := io.ReadFull(c, b[:length]); err != nil {
		return client, dialed, err
	}
	header, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b[:length])))
	if err != nil {
		return client, dialed, fmt.Errorf("header of the PROXY protocol: %w", err)
	}
	client, dialed = dataconn.AddrPort(c.RemoteAddr()), dataconn.AddrPort(c.LocalAddr())
	if from, to, ok := header.TCPAddrs(); ok && header.Command.IsProxy() {
		if client, dialed = dataconn.AddrPort(from), dataconn.AddrPort(to); !client.IsValid() || !dialed.IsValid() {
			return client, dialed, errors.New("header of the PROXY protocol without addresses")
		}
	}
	return client, dialed, nil
}

// announcementLength is the length of the header that b begins with, 0 if more of b must be seen to tell, and -1 if it is none.
func announcementLength(b []byte) int {
	is := func(beginning []byte) bool {
		n := min(len(b), len(beginning))
		return bytes.Equal(b[:n], beginning[:n])
	}
	switch {
	case is(announcement2):
		if len(b) < 16 {
			return 0
		}
		length := 16 + int(binary.BigEndian.Uint16(b[14:]))
		switch {
		case length > announcement:
			return -1
		case len(b) < length:
			return 0
		}
		return length
	case is(announcement1):
		const most = 107
		switch end := bytes.IndexByte(b, '\n'); {
		case end >= most, end < 0 && len(b) >= most:
			return -1
		case end < 0:
			return 0
		default:
			return end + 1
		}
	}
	return -1
}

// announce tells a server who our client is, before anything else is said.
func announce(c net.Conn, version config.ProxyVersion, client, to netip.AddrPort) error {
	number := byte(1)
	if version == config.ProxyV2 {
		number = 2
	}
	if client.Addr().Is4() != to.Addr().Is4() {
		// The protocol has one family for both.
		client, to = sixteen(client), sixteen(to)
	}
	header := proxyproto.HeaderProxyFromAddrs(number, net.TCPAddrFromAddrPort(client), net.TCPAddrFromAddrPort(to))
	if client.Addr().Is4In6() || to.Addr().Is4In6() {
		header.TransportProtocol = proxyproto.TCPv6
	}
	b, err := header.Format()
	if err != nil {
		return err
	}
	_, err = c.Write(b)
	return err
}

// sixteen is an address as IPv6 writes it.
func sixteen(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// announcedConn is a connection from a client that has been named, since it may have come by way of a load balancer.
type announcedConn struct {
	*net.TCPConn
	client net.Addr
}

// RemoteAddr implements net.Conn: the client's.
func (c *announcedConn) RemoteAddr() net.Addr { return c.client }

// Socket implements what package dataconn looks for, to have the kernel splice.
func (c *announcedConn) Socket() *net.TCPConn { return c.TCPConn }

// announcedListener is a data listener to which a load balancer may bring the client's connections.
type announcedListener struct {
	net.Listener
	listener *config.Listener
	dialed   netip.Addr // where the client has connected to for control
}

// Addr implements net.Listener: where the client may come to.
func (l *announcedListener) Addr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(l.dialed, dataconn.AddrPort(l.Listener.Addr()).Port()))
}

// Accept implements net.Listener. What a trusted sender brings without a header is refused.
func (l *announcedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil || !trusts(l.listener, dataconn.AddrPort(c.RemoteAddr()).Addr()) {
			return c, err
		}
		tcp := c.(*net.TCPConn)
		client, _, err := announced(tcp)
		if err != nil {
			c.Close()
			continue
		}
		return &announcedConn{tcp, net.TCPAddrFromAddrPort(client)}, nil
	}
}
