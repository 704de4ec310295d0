package tlsmitm

import (
	"crypto/tls"
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
	s := c.ConnectionState()
	return &Conn{Conn: c, below: below, tolerant: tolerant, facts: Facts{
		Version: tls.VersionName(s.Version), Cipher: tls.CipherSuiteName(s.CipherSuite),
		Resumed: s.DidResume, Protocol: s.NegotiatedProtocol,
	}}
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
}

func (w *watched) Read(p []byte) (int, error) {
	if n, done, err := w.readAhead(p); done {
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
