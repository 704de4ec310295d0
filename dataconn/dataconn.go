// Package dataconn carries FTP's data connections (RFC 959 §3.2): it makes the two legs of a transfer, one to the client
// and one to the server, copies the bytes between them, and ends them so that a transfer which broke never looks whole.
// It opens no sockets itself: a Network does.
package dataconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Side is a side of the proxy: where the FTP client is, or where the FTP server is.
type Side int

// The two sides.
const (
	Client Side = iota
	Server
)

func (s Side) String() string {
	if s == Client {
		return "client"
	}
	return "server"
}

// Network opens the data sockets of one session: real ones in package proxy, memory in tests. Its connections must have
// CloseWrite and SetLinger, as *net.TCPConn does.
type Network interface {
	// Listen opens a socket for one connection from that side, on any port but avoid (0: none is avoided): were both legs
	// of a transparent transfer to have one port, a connection tracker could not tell them apart. The caller closes it.
	Listen(ctx context.Context, side Side, avoid uint16) (net.Listener, error)
	// Dial connects to an address on that side. from is the source port the peer would see without us, 0 if any will do;
	// a Network that cannot have it takes another.
	Dial(ctx context.Context, side Side, from uint16, to netip.AddrPort) (net.Conn, error)
}

// Undertaker is a Network that wants to know of each connection that we closed while its peer had yet to close, or had just
// closed: TCP still holds its addresses (TIME_WAIT).
type Undertaker interface {
	Closed(side Side, local, peer netip.AddrPort)
}

// Splicer is a Network that can have the kernel move bytes from one of its connections to another.
type Splicer interface {
	// Splice returns nil if that can't be had for these two; then the bytes are read and written. The caller owns it, but not the
	// connections, whose deadlines and Close end what waits.
	Splice(from, to net.Conn) Splice
}

// Splice is a pipe of the kernel's between two connections. It is for one goroutine.
type Splice interface {
	// Take waits for bytes and takes those that are there, or as many as there is room for. io.EOF is the sender's end.
	Take() (int, error)
	// Give waits until the receiver takes some of what has been taken, and returns how much.
	Give() (int, error)
	// Gather has a Take that finds nothing wait until there are so many bytes, or until the end.
	Gather(bytes int) error
	Close()
}

// Quickener is a Network that knows a quicker way to read and write one of its connections, for bytes that come through this process.
// One goroutine may read by it, and one write.
type Quickener interface {
	Quicken(net.Conn) net.Conn
}

// Leg is one side's half of a transfer. It listens if Listener is set, and dials Address otherwise.
type Leg struct {
	Listener net.Listener   // owned by the Transfer once armed
	Address  netip.AddrPort // where to dial
	Peer     netip.Addr     // a listening leg takes a connection from this address alone (port theft, RFC 2577 §8)
}

func (l Leg) listens() bool { return l.Listener != nil }

// LegError says which leg of a transfer failed, and at what.
type LegError struct {
	Side Side
	Act  string // "accept", "dial 192.0.2.9:50000", "TLS", "read", "write", "close"
	Err  error
}

func (e *LegError) Error() string { return fmt.Sprintf("%v data: %s: %v", e.Side, e.Act, e.Err) }

func (e *LegError) Unwrap() error { return e.Err }

var (
	// ErrIdle is a transfer in which no byte moved for Options.Idle.
	ErrIdle = errors.New("no byte moved")
	// ErrSetup is a transfer whose legs were not both connected within Options.Setup of its Begin, or not both secured
	// within that of its Release.
	ErrSetup = errors.New("not connected in time")
	// ErrReset is a transfer that Reset ended.
	ErrReset = errors.New("reset")
)

// halfCloser and lingerer are what a leg needs of its connection beyond net.Conn; *net.TCPConn has both.
type halfCloser interface{ CloseWrite() error }

type lingerer interface{ SetLinger(seconds int) error }

// guard makes every end of a connection a reset, however it comes, even if we are killed: in stream mode an end of file
// means "whole" (RFC 959 §3.4.1), so a broken transfer must not end in one. unguard undoes it for a transfer that is whole.
func guard(c net.Conn) { setLinger(c, 0) }

func unguard(c net.Conn) { setLinger(c, -1) }

func setLinger(c net.Conn, seconds int) {
	if l, ok := c.(lingerer); ok {
		l.SetLinger(seconds)
	}
}

// peerOf is the address a connection comes from, without its port or IPv4 mapping.
func peerOf(c net.Conn) netip.Addr { return AddrPort(c.RemoteAddr()).Addr() }

// AddrPort is a socket address as a value, IPv4-mapped IPv6 undone. It is invalid for addresses that are not TCP's.
func AddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
