package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"ftpalg/dataconn"
)

// tcpPair is the two ends of a connection on loopback.
func tcpPair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		p.Close()
	})
	return c.(*net.TCPConn), p.(*net.TCPConn)
}

// swiftPair is a swift connection and its peer.
func swiftPair(t *testing.T) (s *swift, peer *net.TCPConn) {
	t.Helper()
	c, peer := tcpPair(t)
	return swiftly(c, dataconn.AddrPort(c.RemoteAddr())).(*swift), peer
}

// TestSwift: all bytes go both ways, whether the other end is there already or not.
func TestSwift(t *testing.T) {
	s, peer := swiftPair(t)
	sent := make([]byte, 20<<20) // more than the kernel holds
	rand.Read(sent)
	for name, ends := range map[string][2]net.Conn{"write": {s, peer}, "read": {peer, s}} {
		t.Run(name, func(t *testing.T) {
			got, read := make([]byte, len(sent)), make(chan error)
			go func() {
				time.Sleep(10 * time.Millisecond)
				_, err := io.ReadFull(ends[1], got)
				read <- err
			}()
			n, err := ends[0].Write(sent)
			if err := errors.Join(err, <-read); n != len(sent) || err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes of %d, %v", n, len(sent), err)
			}
		})
	}
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("read %d bytes into no room, %v", n, err)
	}
	if n, err := s.Write(nil); n != 0 || err != nil {
		t.Errorf("wrote %d bytes of none, %v", n, err)
	}
	if got := testing.AllocsPerRun(100, func() {
		s.Write(sent[:10])
		peer.Read(sent[:10])
		peer.Write(sent[:10])
		s.Read(sent[:10])
	}); got > 0 {
		t.Errorf("%v allocations for a read and a write", got)
	}
}

// TestSwiftErrors: errors are as they are without it.
func TestSwiftErrors(t *testing.T) {
	ended := func(peer *net.TCPConn, _ net.Conn) { peer.Close() }
	reset := func(peer *net.TCPConn, _ net.Conn) { peer.SetLinger(0); peer.Close() }
	for name, test := range map[string]struct {
		before func(peer *net.TCPConn, c net.Conn)
		during func(c net.Conn) // while the call waits
		write  bool
		is     error
	}{
		"end":              {before: ended, is: io.EOF},
		"reset":            {before: reset, is: syscall.ECONNRESET},
		"write, reset":     {before: reset, write: true, is: syscall.ECONNRESET},
		"deadline":         {before: func(_ *net.TCPConn, c net.Conn) { c.SetDeadline(time.Now()) }, is: os.ErrDeadlineExceeded},
		"write, deadline":  {before: func(_ *net.TCPConn, c net.Conn) { c.SetDeadline(time.Now()) }, write: true, is: os.ErrDeadlineExceeded},
		"later":            {before: func(_ *net.TCPConn, c net.Conn) { c.SetDeadline(time.Now().Add(20 * time.Millisecond)) }, is: os.ErrDeadlineExceeded},
		"write, later":     {before: func(_ *net.TCPConn, c net.Conn) { c.SetDeadline(time.Now().Add(20 * time.Millisecond)) }, write: true, is: os.ErrDeadlineExceeded},
		"closed":           {before: func(_ *net.TCPConn, c net.Conn) { c.Close() }, is: net.ErrClosed},
		"write, closed":    {before: func(_ *net.TCPConn, c net.Conn) { c.Close() }, write: true, is: net.ErrClosed},
		"closed meanwhile": {during: func(c net.Conn) { c.Close() }, is: net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			var errs [2]error
			for i := range errs {
				s, peer := swiftPair(t)
				c := net.Conn(s)
				if i == 1 {
					c = s.TCPConn
				}
				if test.before != nil {
					test.before(peer, c)
					time.Sleep(5 * time.Millisecond)
				}
				if test.during != nil {
					time.AfterFunc(10*time.Millisecond, func() { test.during(c) })
				}
				var n int
				if test.write {
					n, errs[i] = c.Write(make([]byte, 30<<20))
				} else {
					n, errs[i] = c.Read(make([]byte, 10))
				}
				if !errors.Is(errs[i], test.is) || n > 0 && !test.write {
					t.Errorf("%d bytes and %v, want %v", n, errs[i], test.is)
				}
			}
			if a, b := reflect.TypeOf(errs[0]), reflect.TypeOf(errs[1]); a != b {
				t.Errorf("%v, and without it %v", a, b)
			}
		})
	}
}
