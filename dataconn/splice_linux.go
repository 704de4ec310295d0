package dataconn

import "net"

// spliceable reports whether io.Copy between the two is splice(2): package net does it for bare TCP connections only.
func spliceable(src, dst net.Conn) bool {
	_, s := src.(*net.TCPConn)
	_, d := dst.(*net.TCPConn)
	return s && d
}
