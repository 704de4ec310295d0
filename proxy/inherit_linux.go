package proxy

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"ftpalg/dataconn"
)

// look finds out what a socket is.
func (s *inheritedSocket) look() error {
	raw, err := s.File.SyscallConn()
	if err != nil {
		return err
	}
	err = rawControl(raw, func(fd int) error {
		// Only a listening TCP socket has all of these. Not Multipath TCP: see listenData.
		for option, want := range map[int]int{unix.SO_TYPE: unix.SOCK_STREAM, unix.SO_PROTOCOL: unix.IPPROTO_TCP, unix.SO_ACCEPTCONN: 1} {
			if got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil || got != want {
				return errNoListener
			}
		}
		level, option := unix.SOL_IP, unix.IP_TRANSPARENT
		domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return err
		}
		if domain == unix.AF_INET6 {
			level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			only, err := unix.GetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				return err
			}
			s.only6 = only != 0
		}
		transparent, err := unix.GetsockoptInt(fd, level, option)
		s.transparent = transparent != 0
		return err
	})
	if err != nil {
		return err
	}
	l, err := net.FileListener(s.File)
	if err != nil {
		return err
	}
	defer l.Close()
	s.at = dataconn.AddrPort(l.Addr())
	return nil
}

// adoptControl gives a listener that somebody else has opened what listenControl's have.
func (k sockets) adoptControl(l *net.TCPListener, pending int) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	if err := rawControl(raw, oobInline); err != nil {
		return err
	}
	return k.readjust(l, pending)
}

// duplicate returns another file for a socket. It stays non-blocking, as both are one to the kernel: net.TCPListener.File is made to
// block when it is given to a process, and then this process would never be done accepting.
func duplicate(c syscall.Conn) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var another int
	err = rawControl(raw, func(fd int) (err error) {
		another, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(another), "listener"), nil
}
