package proxy

import (
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// swift is a socket whose reads and writes are system calls that the runtime does not hear of. They never
// wait, since the socket does not block; but the runtime would have its monitor thread look whether they do, after each time
// that there was nothing to do, and where processors are few the thread takes its time from whoever waits for the answer: a
// quarter of what a NOOP takes longer through us. While files are moved it looks every 20 µs, and takes the processor from
// whoever writes much at once. One goroutine may read, and one write.
type swift struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out call
	peer    net.Addr
}

// call is a read or a write that is under way.
type call struct {
	b   []byte
	n   int // bytes done
	err error
	try func(fd uintptr) (done bool) // for RawConn; kept, so that none is made each time
}

// swiftly returns a connection with a peer to be read and written swiftly. The peer is at another address than the socket's if
// somebody relays the connection for it.
func swiftly(c *net.TCPConn, peer netip.AddrPort) net.Conn {
	raw, err := c.SyscallConn()
	if err != nil {
		return c // whoever uses it will see what is wrong with it
	}
	s := &swift{TCPConn: c, raw: raw, peer: net.TCPAddrFromAddrPort(peer)}
	s.in.try, s.out.try = s.in.read, s.out.write
	return s
}

// Socket implements what dataconn.Tunnel looks for, to have the kernel splice.
func (s *swift) Socket() *net.TCPConn { return s.TCPConn }

// NetConn returns the connection below, as tls.Conn's does.
func (s *swift) NetConn() net.Conn { return s.TCPConn }

// RemoteAddr implements net.Conn.
func (s *swift) RemoteAddr() net.Addr { return s.peer }

func (s *swift) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	return s.in.perform("read", p, s.raw.Read, s.TCPConn)
}

func (s *swift) Write(p []byte) (int, error) {
	return s.out.perform("write", p, s.raw.Write, s.TCPConn)
}

// perform tries a call each time that the socket is ready, until it is done. Errors are as a TCPConn's are.
func (c *call) perform(name string, p []byte, when func(func(uintptr) bool) error, on *net.TCPConn) (int, error) {
	c.b, c.n, c.err = p, 0, nil
	err := when(c.try)
	c.b = nil
	switch {
	case err != nil:
		return c.n, err
	case c.err == nil || c.err == io.EOF:
		return c.n, c.err
	}
	return c.n, &net.OpError{Op: name, Net: "tcp", Source: on.LocalAddr(), Addr: on.RemoteAddr(), Err: c.err}
}

func (c *call) read(fd uintptr) bool {
	n, e := swiftCall(unix.SYS_READ, fd, c.b)
	switch {
	case e == unix.EAGAIN:
		return false
	case e != 0:
		c.err = os.NewSyscallError("read", e)
	case n == 0:
		c.err = io.EOF
	}
	c.n = n
	return true
}

func (c *call) write(fd uintptr) bool {
	for c.n < len(c.b) {
		n, e := swiftCall(unix.SYS_WRITE, fd, c.b[c.n:])
		switch {
		case e == unix.EAGAIN:
			return false
		case e != 0:
			c.err = os.NewSyscallError("write", e)
			return true
		}
		c.n += n
	}
	return true
}

// swiftCall makes a system call on some bytes, at least one.
func swiftCall(number, fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := unix.RawSyscall(number, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		switch e {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}
