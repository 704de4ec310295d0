package tlsmitm

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Conn is one side's TLS connection. It tells an end from a truncation, which crypto/tls does not: a connection that ends
// between two records reads as io.EOF there, whether the peer said close_notify or somebody on the way cut it off (RFC 8446
// §6.1). And it carries files in large pieces: it takes or gives several records by one system call, where crypto/tls makes one
// for each.
type Conn struct {
	*tls.Conn
	below    *watched
	tolerant bool // an end without close_notify is one
	facts    Facts
}

// Facts are what there is to say of a TLS connection, for logs.
type Facts struct {
	Version  string // "TLS 1.3"
	Cipher   string // as IANA names it
	Resumed  bool   // the peer proved to be the one of an earlier connection
	Protocol string // agreed on by ALPN; empty: none
}

// NetConn returns the connection below, as it was given to the Session. Who writes to it breaks the TLS connection; who
// reads from it after CloseWrite loses nothing but what is not wanted any more.
func (c *Conn) NetConn() net.Conn { return c.below.Conn }

// Facts are those of the handshake.
func (c *Conn) Facts() Facts { return c.facts }

// CloseWrite says close_notify, in the time that SetWriteDeadline has given, and leaves the connection below open. No Write
// may be under way, and none can follow.
func (c *Conn) CloseWrite() error {
	// crypto/tls would give it five seconds. A slow receiver may take longer for what is before it.
	c.below.undisturbed = true
	defer func() { c.below.undisturbed = false }()
	return c.Conn.CloseWrite()
}

// errTruncated is an end without close_notify.
var errTruncated = &truncated{}

type truncated struct{}

func (*truncated) Error() string { return "the connection ended without TLS's close_notify" }
func (*truncated) Unwrap() error { return io.ErrUnexpectedEOF }

// newConn wraps a connection whose handshake is done.
func newConn(c *tls.Conn, below *watched, tolerant bool) *Conn {
	return &Conn{Conn: c, below: below, tolerant: tolerant, facts: factsOf(c.ConnectionState())}
}

func factsOf(s tls.ConnectionState) Facts {
	return Facts{
		Version: tls.VersionName(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite),
		Resumed: s.DidResume, Protocol: s.NegotiatedProtocol,
	}
}

// Data is a data connection with TLS: *Records, or *Conn where the version or the cipher suite is another.
type Data interface {
	net.Conn
	// CloseWrite says close_notify, in the time that SetWriteDeadline has given, and leaves the connection below open.
	CloseWrite() error
	NetConn() net.Conn
	Facts() Facts
}

// newData wraps a data connection whose handshake is done, and was a step at a time. sent is how many records we have sealed since,
// which only a server has.
func newData(c *tls.Conn, below *watched, s *secrets, server bool, sent int, tolerant bool) (Data, error) {
	received := below.walk()
	if s.client == nil || suites[c.ConnectionState().CipherSuite] == nil {
		return newConn(c, below, tolerant), nil
	}
	in, out := s.server, s.client
	if server {
		in, out = s.client, s.server
	}
	defer below.free()
	r, err := newRecords(c, below.Conn, in, out, received, sent, server, tolerant)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// watched notes that the connection below a TLS connection has ended.
type watched struct {
	net.Conn
	bulk
	ended       atomic.Bool
	undisturbed bool // the write deadline stays as it is; of the writer's goroutine

	// While the client's hello is awaited what it says is kept, for the case that TLS is passed and not opened. Then it is
	// muted: nothing of ours must get between the client and the server.
	keeping, muted bool
	kept           []byte

	steps *steps // nil: any bytes may be had at once
}

// steps has crypto/tls read one record at a time, so that none has been taken by it when it is done that comes after the handshake.
type steps struct {
	header [headerLen]byte
	has    int // bytes of header
	left   int // bytes of what follows it
}

// next is how many bytes may be had.
func (s *steps) next() int {
	if s.left > 0 {
		return s.left
	}
	return headerLen - s.has
}

// take takes bytes that are had, next at most.
func (s *steps) take(b []byte) {
	if s.left > 0 {
		s.left -= len(b)
		return
	}
	if s.has += copy(s.header[s.has:], b); s.has == headerLen {
		s.has, s.left = 0, int(binary.BigEndian.Uint16(s.header[3:]))
	}
}

// walk ends the steps. It returns what has been received and not been had.
func (w *watched) walk() []byte {
	w.steps, w.window = nil, nil
	return w.ahead
}

func (w *watched) Read(p []byte) (int, error) {
	if w.steps != nil {
		p, w.window = p[:min(len(p), w.steps.next())], &handshakeStores
	}
	if n, done, err := w.readAhead(p); done {
		if w.steps != nil {
			w.steps.take(p[:n])
		}
		return n, err
	}
	n, err := w.Conn.Read(p)
	if w.keeping {
		w.kept = append(w.kept, p[:n]...)
	}
	if errors.Is(err, io.EOF) {
		w.ended.Store(true)
	}
	return n, err
}

func (w *watched) SetWriteDeadline(t time.Time) error {
	if w.undisturbed {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

func (w *watched) Write(p []byte) (int, error) {
	if w.muted {
		return len(p), nil
	}
	if w.gathered != nil {
		*w.gathered = append(*w.gathered, p...)
		return len(p), nil
	}
	return w.Conn.Write(p)
}
