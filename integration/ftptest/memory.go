// Package ftptest is the kit that ftpalg's tests are made with. It imports the standard library alone, so that any test
// may use it. Its network lives in memory and in the bubble of testing/synctest: it has buffers, as TCP has, ends of
// files and resets, and no port is ever chosen at random.
package ftptest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Network is a set of addresses in memory. The zero value is ready.
type Network struct {
	mu        sync.Mutex
	listeners map[netip.AddrPort]*Listener
	last      uint16
}

// firstPort is the port that the first Listen or Dial without one is given; each next one is one higher.
const firstPort = 40001

func (n *Network) port() uint16 {
	if n.last == 0 {
		n.last = firstPort - 1
	}
	n.last++
	return n.last
}

// Listen opens a listener. Port 0 is the next port that nobody had.
func (n *Network) Listen(at netip.AddrPort) (*Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at.Port() == 0 {
		at = netip.AddrPortFrom(at.Addr(), n.port())
	}
	if n.listeners[at] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: syscall.EADDRINUSE}
	}
	l := &Listener{network: n, at: at, queue: make(chan *Conn, 16), closed: make(chan struct{})}
	if n.listeners == nil {
		n.listeners = map[netip.AddrPort]*Listener{}
	}
	n.listeners[at] = l
	return l, nil
}

// Dial connects two addresses; port 0 in from is the next port that nobody had. It is refused where nobody listens.
func (n *Network) Dial(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	n.mu.Lock()
	if from.Port() == 0 {
		from = netip.AddrPortFrom(from.Addr(), n.port())
	}
	l := n.listeners[to]
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: syscall.ECONNREFUSED}
	}
	near, far := Pipe(from, to)
	select {
	case l.queue <- far:
		return near, nil
	case <-l.closed:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(to), Err: syscall.ECONNREFUSED}
	}
}

// Open is the number of listeners that are open.
func (n *Network) Open() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.listeners)
}

// Listener is a net.Listener of a Network.
type Listener struct {
	network *Network
	at      netip.AddrPort
	queue   chan *Conn
	once    sync.Once
	closed  chan struct{}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Pending is the number of connections that wait to be accepted.
func (l *Listener) Pending() int { return len(l.queue) }

// Close implements net.Listener; connections that nobody accepted are reset.
func (l *Listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.network.mu.Lock()
		delete(l.network.listeners, l.at)
		l.network.mu.Unlock()
		for {
			select {
			case c := <-l.queue:
				c.SetLinger(0)
				c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// Conn is one end of a connection in memory: a net.Conn with CloseWrite and SetLinger, as *net.TCPConn has.
type Conn struct {
	local, remote netip.AddrPort
	in, out       *stream
	linger        atomic.Int64
	once          sync.Once
	// Wrote and Shut hear of each Write and of the Close of this end, before the peer can. Nil: nobody does.
	Wrote func([]byte)
	Shut  func()
}

// Pipe is a connection: what one end writes the other reads.
func Pipe(a, b netip.AddrPort) (*Conn, *Conn) {
	x, y := newStream(), newStream()
	near, far := &Conn{local: a, remote: b, in: x, out: y}, &Conn{local: b, remote: a, in: y, out: x}
	near.linger.Store(-1)
	far.linger.Store(-1)
	return near, far
}

// window is how much a stream holds before its writer must wait.
const window = 64 << 10

// stream is one direction of a connection.
type stream struct {
	mu                     sync.Mutex
	cond                   *sync.Cond
	buf                    []byte
	ended                  bool  // the writer has closed: what is in buf is the last
	broken                 error // both ends see it at once
	unread                 bool  // the reader has closed: writes fail
	readLimit, writeLimit  time.Time
	readTimer, writerTimer *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func expired(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (c *Conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Addr: net.TCPAddrFromAddrPort(c.remote), Err: err}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.broken != nil:
			return 0, c.failed("read", s.broken)
		case s.unread:
			return 0, c.failed("read", net.ErrClosed)
		case expired(s.readLimit):
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = slices.Delete(s.buf, 0, n) // its room stays, so that what is said in steady state allocates nothing
			s.cond.Broadcast()
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.cond.Wait()
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if c.Wrote != nil {
		c.Wrote(p)
	}
	s := c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for {
		switch {
		case s.broken != nil:
			return written, c.failed("write", s.broken)
		case s.ended:
			return written, c.failed("write", net.ErrClosed)
		case s.unread:
			return written, c.failed("write", syscall.EPIPE)
		case expired(s.writeLimit):
			return written, c.failed("write", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return written, nil
		}
		if room := window - len(s.buf); room > 0 {
			n := min(room, len(p))
			s.buf = append(s.buf, p[:n]...)
			p, written = p[n:], written+n
			s.cond.Broadcast()
			continue
		}
		s.cond.Wait()
	}
}

// CloseWrite ends what this end writes; the peer reads an end of file.
func (c *Conn) CloseWrite() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.ended = true
	c.out.cond.Broadcast()
	return nil
}

// SetLinger says what Close does: with 0, and with bytes unread, the peer sees a reset.
func (c *Conn) SetLinger(seconds int) error {
	c.linger.Store(int64(seconds))
	return nil
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.once.Do(func() {
		if c.Shut != nil {
			c.Shut()
		}
		c.in.mu.Lock()
		reset := c.linger.Load() == 0 || len(c.in.buf) > 0
		c.in.unread = true
		c.in.cond.Broadcast()
		c.in.mu.Unlock()
		c.out.mu.Lock()
		if reset && c.out.broken == nil {
			c.out.broken = syscall.ECONNRESET
			c.out.buf = nil
		}
		c.out.ended = true
		c.out.cond.Broadcast()
		c.out.mu.Unlock()
		if reset {
			c.in.mu.Lock()
			c.in.broken = syscall.ECONNRESET
			c.in.cond.Broadcast()
			c.in.mu.Unlock()
		}
	})
	return nil
}

// Gone reports whether the peer has closed or reset its end, whatever is still to be read.
func (c *Conn) Gone() bool {
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	return c.in.ended || c.in.broken != nil
}

// LocalAddr and RemoteAddr implement net.Conn; both are *net.TCPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr is the other end's address.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.limit(&c.in.readLimit, &c.in.readTimer, t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.limit(&c.out.writeLimit, &c.out.writerTimer, t)
	return nil
}

func (s *stream) limit(limit *time.Time, timer **time.Timer, t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*limit = t
	switch {
	case *timer == nil && !t.IsZero():
		*timer = time.AfterFunc(time.Until(t), s.wake)
	case *timer != nil && !t.IsZero():
		(*timer).Reset(time.Until(t))
	case *timer != nil:
		(*timer).Stop()
	}
	s.cond.Broadcast()
}

func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cond.Broadcast()
}

// Available returns what can be read at once without waiting, and how the stream stands then: nil if more may come,
// io.EOF at its end, or the error that broke it.
func (c *Conn) Available() ([]byte, error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buf
	s.buf = nil
	s.cond.Broadcast()
	switch {
	case s.broken != nil:
		return b, s.broken
	case s.ended:
		return b, io.EOF
	}
	return b, nil
}

// String names the connection, for failures.
func (c *Conn) String() string { return fmt.Sprintf("%v-%v", c.local, c.remote) }
