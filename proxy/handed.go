package proxy

import (
	"net"
	"net/netip"
	"sync"
)

// handed is a net.Listener on no port, for connections that come otherwise: somebody here hands them over.
type handed struct {
	at     netip.AddrPort // where the client believes that it connects to
	came   chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newHanded(at netip.AddrPort) *handed {
	return &handed{at: at, came: make(chan net.Conn), closed: make(chan struct{})}
}

// hand gives the listener a connection, and waits until it is accepted. It returns false, and c is not taken, if the listener is
// closed.
func (l *handed) hand(c net.Conn) bool {
	select {
	case l.came <- c:
		return true
	case <-l.closed:
		return false
	}
}

// Accept implements net.Listener.
func (l *handed) Accept() (net.Conn, error) {
	select {
	case c := <-l.came:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *handed) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *handed) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }
