package web

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is one end of a connection in memory, with what sessions need of theirs: deadlines, CloseWrite, and SetLinger, by which an end
// is told from a break as TCP's reset tells it. Of a pair of unix sockets nobody could tell that.
type Conn struct {
	local, remote net.Addr
	in, out       *stream
	abrupt        atomic.Bool // Close is a reset
	once          sync.Once
}

// stream is one direction of a connection.
type stream struct {
	mu                  sync.Mutex
	cond                *sync.Cond
	buf                 []byte // from next on it is to be read
	next                int
	ended               bool  // the writer has closed: what is in buf is the last
	broken              error // both ends see it at once
	unread              bool  // the reader has closed: writes fail
	readBy, writeBy     time.Time
	readClock, wrtClock *time.Timer
}

// window is how many bytes a stream holds before its writer must wait.
const window = 64 << 10

// Pipe makes a connection between two addresses: what one end writes the other reads.
func Pipe(a, b netip.AddrPort) (atA, atB *Conn) {
	x, y := newStream(), newStream()
	ta, tb := net.TCPAddrFromAddrPort(a), net.TCPAddrFromAddrPort(b)
	return &Conn{local: ta, remote: tb, in: x, out: y}, &Conn{local: tb, remote: ta, in: y, out: x}
}

func newStream() *stream {
	s := &stream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.unread:
			return 0, c.failed("read", net.ErrClosed)
		case s.broken != nil:
			return 0, c.failed("read", s.broken)
		case expired(s.readBy):
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		case s.next < len(s.buf):
			n := copy(p, s.buf[s.next:])
			if s.next += n; s.next == len(s.buf) {
				s.buf, s.next = s.buf[:0], 0
			}
			s.cond.Broadcast()
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (written int, err error) {
	s := c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.ended:
			return written, c.failed("write", net.ErrClosed)
		case s.broken != nil:
			return written, c.failed("write", s.broken)
		case s.unread:
			return written, c.failed("write", syscall.EPIPE)
		case expired(s.writeBy):
			return written, c.failed("write", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return written, nil
		}
		if room := window - (len(s.buf) - s.next); room > 0 {
			if s.next > 0 && len(s.buf)+min(room, len(p)) > window {
				s.buf, s.next = append(s.buf[:0], s.buf[s.next:]...), 0
			}
			n := min(room, len(p))
			s.buf = append(s.buf, p[:n]...)
			p, written = p[n:], written+n
			s.cond.Broadcast()
			continue
		}
		s.cond.Wait()
	}
}

// CloseWrite ends what this end writes: the peer reads io.EOF.
func (c *Conn) CloseWrite() error {
	c.out.change(func(s *stream) { s.ended = true })
	return nil
}

// SetLinger says what Close does: with 0 the peer sees a reset, with -1 an end.
func (c *Conn) SetLinger(seconds int) error {
	c.abrupt.Store(seconds == 0)
	return nil
}

// Close implements net.Conn. It is a reset, too, if the peer has written what has not been read.
func (c *Conn) Close() error {
	c.once.Do(func() {
		reset := c.abrupt.Load()
		c.in.change(func(s *stream) {
			s.unread = true
			reset = reset || s.next < len(s.buf)
		})
		fate := func(s *stream) {
			if reset && s.broken == nil && !(s.ended && s.next == len(s.buf)) {
				s.broken, s.buf, s.next = syscall.ECONNRESET, nil, 0
			}
		}
		c.out.change(func(s *stream) {
			fate(s)
			s.ended = true
		})
		c.in.change(fate)
	})
	return nil
}

// Reset closes the connection so that the peer sees a reset.
func (c *Conn) Reset() {
	c.SetLinger(0)
	c.Close()
}

// LocalAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn; it is a *net.TCPAddr.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.change(func(s *stream) { s.limit(&s.readBy, &s.readClock, t) })
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.change(func(s *stream) { s.limit(&s.writeBy, &s.wrtClock, t) })
	return nil
}

// change changes a stream and wakes who waits for it.
func (s *stream) change(how func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	how(s)
	s.cond.Broadcast()
}

// limit sets a deadline, at which who waits is woken to see it.
func (s *stream) limit(by *time.Time, clock **time.Timer, t time.Time) {
	*by = t
	switch {
	case *clock == nil && !t.IsZero():
		*clock = time.AfterFunc(time.Until(t), func() { s.change(func(*stream) {}) })
	case *clock != nil && t.IsZero():
		(*clock).Stop()
	case *clock != nil:
		(*clock).Reset(time.Until(t))
	}
}
