//go:build !linux

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// Elsewhere nothing can be served, but all else of ftpalg builds and works.
var errNotLinux = errors.New("ftpalg runs on Linux only")

func canMark() bool { return false }

func canBeTransparent() error { return errNotLinux }

func fileLimit() (uint64, error) { return 0, errNotLinux }

func (sockets) listenControl(netip.AddrPort, bool, bool, int) (*net.TCPListener, error) {
	return nil, errNotLinux
}

func (sockets) adoptControl(*net.TCPListener, int) error { return errNotLinux }

func (*inheritedSocket) look() error { return errNotLinux }

func duplicate(syscall.Conn) (*os.File, error) { return nil, errNotLinux }

func (sockets) readjust(*net.TCPListener, int) error { return errNotLinux }

func (sockets) listenData(context.Context, netip.AddrPort, bool) (*net.TCPListener, error) {
	return nil, errNotLinux
}

func setData(int) error { return errNotLinux }

func (sockets) dial(context.Context, netip.AddrPort, netip.AddrPort, uint16, bool, bool) (*net.TCPConn, error) {
	return nil, errNotLinux
}

func peek(*net.TCPConn, []byte, func([]byte) bool) (int, error) { return 0, errNotLinux }

func originalDestination(*net.TCPConn) (netip.AddrPort, error) {
	return netip.AddrPort{}, errNotLinux
}

func swiftly(c *net.TCPConn, _ netip.AddrPort) net.Conn { return c }

func pace(*net.TCPConn, int64) error { return errNotLinux }

func prepareData(*net.TCPConn) error { return errNotLinux }

func gone(net.Conn) bool { return false }

func sendUrgent(net.Conn, []byte) error { return errNotLinux }

type reserved struct{ at netip.AddrPort }

func (sockets) reserve(netip.AddrPort) (*reserved, error) { return nil, errNotLinux }

func (*reserved) listen() (net.Listener, error) { return nil, errNotLinux }

func (*reserved) close() {}
