package dataconn

import (
	"net"

	"golang.org/x/sys/unix"
)

// spliceable reports whether io.Copy between the two is splice(2): package net does it for bare TCP connections only.
func spliceable(src, dst net.Conn) bool {
	_, s := src.(*net.TCPConn)
	_, d := dst.(*net.TCPConn)
	return s && d
}

// gather makes a wait for bytes of c, a bare TCP connection, go on until there are so many, or the connection's end (SO_RCVLOWAT).
// It is not needed: an error means that it ends at the first byte, as ever.
func gather(c net.Conn, bytes int) error {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
	if err != nil {
		return err
	}
	return set
}
