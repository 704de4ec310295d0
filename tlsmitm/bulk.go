package tlsmitm

import (
	"errors"
	"io"
	"os"
	"sync"
)

// crypto/tls reads and writes one record or two at a time, and each time the kernel does as much as for many: it wakes somebody
// up, says how much it has taken, and sends packets on their way. So where crypto/tls carries files (TLS 1.2), who does gives room for
// several records at once, and what is below crypto/tls reads ahead of it, and gathers what it writes.

// Sizes of what is carried, in bytes.
const (
	record         = 16 << 10    // what a record holds, at most (RFC 8446 §5.1)
	recordOverhead = 2048        // what it is longer than that, at most (RFC 5246 §6.2.3)
	several        = 4 * record  // as much as the kernel has a device send at once
	many           = 16 * record // what it may have to be read, if we are slower than the sender
)

// bulk is what is there of a file below crypto/tls. Its room is lent for as long as there is something in it.
type bulk struct {
	ahead    []byte // has been read, and crypto/tls has not had it
	store    *[]byte
	stores   *sync.Pool // where store is from
	window   *sync.Pool // where a store for the next read is to be had; nil: nothing is read ahead
	waitless bool       // what is read ahead is all that can be read now
	gathered *[]byte    // crypto/tls has written it, and nobody has had it; nil: nothing is gathered
}

var (
	// What is said during a handshake is mostly shorter than this; a certificate's chain is not.
	handshakeStores = sync.Pool{New: func() any { return newRoom(4 << 10) }}

	smallStores = sync.Pool{New: func() any { return newRoom(several) }}
	largeStores = sync.Pool{New: func() any { return newRoom(many) }}
	gathers     = sync.Pool{New: func() any { return newRoom(several + several/record*recordOverhead) }}
)

func newRoom(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

// errWouldWait is from reads that are not to wait. crypto/tls goes on after it, as after any time-out.
var errWouldWait = os.ErrDeadlineExceeded

// Read implements net.Conn. Where p has room for several records, it takes all that are there, and waits for the first only. At
// the end it returns io.EOF if the peer has said that it is one, and io.ErrUnexpectedEOF if the connection just ended.
func (c *Conn) Read(p []byte) (int, error) {
	switch {
	case len(p) >= many:
		c.below.window = &largeStores
	case len(p) >= several:
		c.below.window = &smallStores
	default:
		n, err := c.Conn.Read(p)
		return n, c.judged(err)
	}
	n, err := c.Conn.Read(p)
	c.below.window, c.below.waitless = nil, true
	for n < len(p) && err == nil {
		var more int
		more, err = c.Conn.Read(p[n:])
		n += more
	}
	c.below.waitless = false
	c.below.yield()
	if err == errWouldWait {
		err = nil
	}
	return n, c.judged(err)
}

// judged is an error of Read with a truncation told from an end.
func (c *Conn) judged(err error) error {
	if err == io.EOF && c.below.ended.Load() && !c.tolerant {
		err = errTruncated
	}
	return err
}

// Write implements net.Conn. More than a record goes out in pieces of several; n counts those that went whole, and no Read may
// be under way.
func (c *Conn) Write(p []byte) (n int, err error) {
	if len(p) <= record {
		return c.Conn.Write(p)
	}
	for n < len(p) && err == nil {
		piece := p[n:min(len(p), n+several)]
		g := gathers.Get().(*[]byte)
		*g = (*g)[:0]
		c.below.gathered = g
		_, err = c.Conn.Write(piece)
		c.below.gathered = nil
		if err == nil {
			_, err = c.below.Write(*g)
		}
		gathers.Put(g)
		if err == nil {
			n += len(piece)
		}
	}
	return n, err
}

// readAhead is Read of what is below crypto/tls while a file is carried; done says so.
func (w *watched) readAhead(p []byte) (n int, done bool, err error) {
	if len(w.ahead) == 0 && w.window != nil {
		w.yield()
		w.store, w.stores = w.window.Get().(*[]byte), w.window
		n, err := w.Conn.Read(*w.store)
		if n == 0 {
			w.ended.Store(w.ended.Load() || errors.Is(err, io.EOF))
			return 0, true, err
		}
		w.ahead = (*w.store)[:n]
	}
	switch {
	case len(w.ahead) > 0:
		n = copy(p, w.ahead)
		w.ahead = w.ahead[n:]
		return n, true, nil
	case w.waitless:
		return 0, true, errWouldWait
	}
	return 0, false, nil
}

// yield gives the store back, if all that was in it has been had.
func (b *bulk) yield() {
	if len(b.ahead) == 0 {
		b.free()
	}
}

// free gives the store back, and what is in it is lost.
func (b *bulk) free() {
	if b.store != nil {
		b.stores.Put(b.store)
		*b = bulk{window: b.window}
	}
}
