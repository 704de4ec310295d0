package dataconn

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

// buffers are for relay: each a few TLS records long.
var buffers = sync.Pool{New: func() any { return new([chunk]byte) }}

// relay is copy for bytes that somebody here must see: to unprotect or protect them, or to inspect them.
func (t *Transfer) relay(from, to Side) error {
	src, dst := t.streams[from], t.streams[to]
	buffer := buffers.Get().(*[chunk]byte)
	defer buffers.Put(buffer)
	for {
		src.SetReadDeadline(time.Now().Add(t.opts.Idle))
		n, err := src.Read(buffer[:])
		if n > 0 {
			if err := t.handOn(dst, to, buffer[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == nil:
		case err == io.EOF:
			return nil
		case t.ctx.Err() != nil:
			return context.Cause(t.ctx)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &LegError{Side: from, Act: "read", Err: ErrIdle}
		default:
			return &LegError{Side: from, Act: "read", Err: err}
		}
	}
}

// handOn gives bytes to the inspector and then to the receiver.
func (t *Transfer) handOn(dst Stream, to Side, b []byte) error {
	if t.inspector != nil {
		if _, err := t.inspector.Write(b); err != nil {
			return err
		}
	}
	dst.SetWriteDeadline(time.Now().Add(2 * t.opts.Idle))
	n, err := dst.Write(b)
	t.bytes.Add(int64(n))
	switch {
	case err == nil:
		return nil
	case t.ctx.Err() != nil:
		return context.Cause(t.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrIdle
	}
	return &LegError{Side: to, Act: "write", Err: err}
}
