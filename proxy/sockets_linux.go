package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// canMark reports whether this process may set SO_MARK (CAP_NET_ADMIN).
func canMark() bool { return try(unix.SOL_SOCKET, unix.SO_MARK) == nil }

// canBeTransparent reports why this process may not have transparent sockets, nil if it may.
func canBeTransparent() error { return try(unix.SOL_IP, unix.IP_TRANSPARENT) }

// try sets an integer option on a socket of no use.
func try(level, option int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, level, option, 1)
}

// prepare sets what all our sockets have, and IP_TRANSPARENT where asked.
func (k sockets) prepare(fd int, v6, transparent bool) error {
	if k.mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(k.mark)); err != nil {
			return fmt.Errorf("set SO_MARK: %w", err)
		}
	}
	if !transparent {
		return nil
	}
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if v6 {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("set IP_TRANSPARENT (needs CAP_NET_ADMIN): %w", err)
	}
	return nil
}

// listenControl opens a control listener whose accept queue holds pending connections. early: also at an address that this machine does
// not have yet.
func (k sockets) listenControl(at netip.AddrPort, transparent, early bool, pending int) (*net.TCPListener, error) {
	lc := net.ListenConfig{
		KeepAliveConfig: keepAlive,
		Control: onSocket(func(fd int, network string) error {
			if err := oobInline(fd); err != nil {
				return err
			}
			if early {
				level, option := unix.SOL_IP, unix.IP_FREEBIND
				if network == "tcp6" {
					level, option = unix.SOL_IPV6, unix.IPV6_FREEBIND
				}
				if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
					return fmt.Errorf("set IP_FREEBIND: %w", err)
				}
			}
			return k.prepare(fd, network == "tcp6", transparent)
		}),
	}
	lc.SetMultipathTCP(false) // see listenData
	l, err := lc.Listen(context.Background(), "tcp", at.String())
	if err != nil {
		return nil, err
	}
	return queue(l, pending)
}

// oobInline has a listener's connections give urgent bytes in their place: the one before ABOR is part of a Telnet command, and out of
// band it would be lost (RFC 959 §4.1.3).
func oobInline(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) }

// queue sets the length of a listener's accept queue; it closes the listener if it cannot.
func queue(l net.Listener, pending int) (*net.TCPListener, error) {
	tl := l.(*net.TCPListener)
	raw, err := tl.SyscallConn()
	if err == nil {
		err = rawControl(raw, func(fd int) error { return unix.Listen(fd, pending) })
	}
	if err != nil {
		tl.Close()
		return nil, err
	}
	return tl, nil
}

// readjust makes an open control listener what listenControl would make it now.
func (k sockets) readjust(l *net.TCPListener, pending int) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	return rawControl(raw, func(fd int) error {
		if err := k.prepare(fd, false, false); err != nil {
			return err
		}
		return unix.Listen(fd, pending)
	})
}

// dataBacklog is the accept queue of a data listener: room for a few strangers before the peer, and no more.
const dataBacklog = 16

// listenData opens a data listener on a local or, where transparent, foreign address.
func (k sockets) listenData(ctx context.Context, at netip.AddrPort, transparent bool) (*net.TCPListener, error) {
	lc := net.ListenConfig{
		KeepAlive: -1,
		Control: onSocket(func(fd int, network string) error {
			if err := setData(fd); err != nil {
				return err
			}
			return k.prepare(fd, network == "tcp6", transparent)
		}),
	}
	// Go's default since 1.24. The bytes of a connection that we let in by its client's address could come from others then.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, err
	}
	return queue(l, dataBacklog)
}

// reserved is a port that is ours and that nobody listens on.
type reserved struct {
	fd int
	at netip.AddrPort
}

// reserve takes a port of an address of ours.
func (k sockets) reserve(at netip.AddrPort) (*reserved, error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if err = setData(fd); err == nil {
		err = k.prepare(fd, at.Addr().Is6(), false)
	}
	if err == nil {
		err = unix.Bind(fd, sockaddr(at))
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &reserved{fd, at}, nil
}

// listen listens on the port, and gives it to the listener.
func (r *reserved) listen() (net.Listener, error) {
	f := os.NewFile(uintptr(r.fd), "data listener") // it closes the descriptor; the listener has another
	defer f.Close()
	if err := unix.Listen(r.fd, dataBacklog); err != nil {
		return nil, err
	}
	return net.FileListener(f)
}

func (r *reserved) close() { unix.Close(r.fd) }

// notSent is how much may wait in a data socket to be sent before a writer is held up. Without it the kernel holds a
// writer until a third of a buffer of megabytes is free, and a slow receiver seems not to take anything for minutes.
const notSent = 128 << 10

// setData sets what data sockets have from the beginning; accepted ones inherit it. They end in a reset unless somebody
// says otherwise, as package dataconn does for transfers that are whole: not even a connection that is given up while it
// is being made may look like an empty file.
func setData(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSent); err != nil {
		return err
	}
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// prepareData gives an open connection what data sockets have from the beginning.
func prepareData(c *net.TCPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return rawControl(raw, setData)
}

// dial connects to an address from another, which may be foreign where transparent; an invalid from is the kernel's choice.
// Port 0 in from is any, chosen by us: it must not be avoid. What the peer sees is from either way. data: it is to be a data connection.
func (k sockets) dial(ctx context.Context, from, to netip.AddrPort, avoid uint16, transparent, data bool) (*net.TCPConn, error) {
	for try := 0; ; try++ {
		bind := from
		if from.IsValid() && from.Port() == 0 {
			bind = netip.AddrPortFrom(from.Addr(), anyPort(avoid))
		}
		d := net.Dialer{
			KeepAlive: -1,
			Control: onSocket(func(fd int, network string) error {
				if err := k.prepare(fd, network == "tcp6", transparent); err != nil {
					return err
				}
				if data {
					if err := setData(fd); err != nil {
						return err
					}
				}
				if !bind.IsValid() {
					return nil
				}
				// Many connections share port 20, and each of our addresses has but so many ports.
				if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
					return err
				}
				return unix.Bind(fd, sockaddr(bind))
			}),
		}
		if !data { // of which package dataconn watches the silence
			d.KeepAliveConfig = keepAlive
		}
		c, err := d.DialContext(ctx, "tcp", to.String())
		if err == nil {
			return c.(*net.TCPConn), nil
		}
		taken := errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)
		if !taken || !from.IsValid() || from.Port() != 0 || try >= 16 {
			return nil, err
		}
	}
}

// anyPort is a random port of the range that kernels use, other than avoid.
func anyPort(avoid uint16) uint16 {
	for {
		if p := uint16(32768 + rand.IntN(60999-32768+1)); p != avoid {
			return p
		}
	}
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if a := ap.Addr().Unmap(); a.Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

// onSocket adapts f to net.ListenConfig.Control and net.Dialer.Control.
func onSocket(f func(fd int, network string) error) func(string, string, syscall.RawConn) error {
	return func(network, _ string, raw syscall.RawConn) error {
		return rawControl(raw, func(fd int) error { return f(fd, network) })
	}
}

func rawControl(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = f(int(fd)) }); e != nil {
		return e
	}
	return err
}

// peek looks at the first bytes that come, without taking them, until they are enough, b is full of them, or the read deadline.
func peek(c *net.TCPConn, b []byte, enough func([]byte) bool) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n int
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		n, _, peekErr = unix.Recvfrom(int(fd), b, unix.MSG_PEEK)
		switch {
		case peekErr == unix.EAGAIN || peekErr == unix.EINTR:
			n, peekErr = 0, nil
			return false
		case peekErr != nil:
			n = 0
			return true
		}
		return n == 0 || n == len(b) || enough(b[:n]) // none: the end
	})
	if err == nil {
		err = peekErr
	}
	return max(n, 0), err
}

// originalDestination is where a redirected connection was going (SO_ORIGINAL_DST).
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	v4 := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().Is4()
	var ap netip.AddrPort
	err = rawControl(raw, func(fd int) error {
		if v4 {
			// A struct sockaddr_in: family, port, address, of which package unix has no getter but one of the same size.
			m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
			if err != nil {
				return err
			}
			b := m.Multiaddr
			ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), uint16(b[2])<<8|uint16(b[3]))
			return nil
		}
		m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, unix.SO_ORIGINAL_DST)
		if err != nil {
			return err
		}
		port := m.Addr.Port
		ap = netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), port>>8|port<<8)
		return nil
	})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("SO_ORIGINAL_DST: %w", err)
	}
	return ap, nil
}

// gone reports whether the peer has closed or reset a connection, even if what it said before has not been read.
func gone(c net.Conn) bool {
	t, ok := below(c).(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return true
	}
	const established = 1 // TCP_ESTABLISHED
	state := uint8(established)
	err = rawControl(raw, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err == nil {
			state = info.State
		}
		return err
	})
	return err != nil || state != established
}

// pace has the kernel send what is written to a connection at so many bytes a second at most (SO_MAX_PACING_RATE): without a
// wake-up of ours, and with splice(2) too.
func pace(c *net.TCPConn, rate int64) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return rawControl(raw, func(fd int) error {
		return unix.SetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, uint64(rate))
	})
}

// gather has the kernel call a connection readable once that many bytes are there, or its end is (SO_RCVLOWAT).
func gather(c *net.TCPConn, bytes int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	return rawControl(raw, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
}

// sendUrgent writes b with its last byte urgent.
func sendUrgent(c net.Conn, b []byte) error {
	s, ok := c.(*swift)
	if !ok { // TLS, which knows of nothing urgent
		_, err := c.Write(b)
		return err
	}
	var sendErr error
	err := s.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Send(int(fd), b, unix.MSG_OOB|unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN
	})
	if err != nil {
		return err
	}
	return sendErr
}

// fileLimit is how many files this process may have open; package os has raised it as far as it goes.
func fileLimit() (uint64, error) {
	var r unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r)
	return r.Cur, err
}
