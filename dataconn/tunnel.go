package dataconn

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Tunnel carries bytes both ways between two connections, unseen, and returns how many each has sent. It ends when both have
// come to their end, which each is told of the other, or as soon as one breaks, ctx is done, or neither has sent anything for
// idle, half as long again at the latest, while busy, if not nil, says no (ErrIdle). Then both are closed; they are the
// caller's to close in any case.
func Tunnel(ctx context.Context, a, b net.Conn, idle time.Duration, busy func() bool) (fromA, fromB int64, err error) {
	a, b = socketOf(a), socketOf(b)
	t := &tunnel{idle: idle, busy: busy}
	t.moved.Store(time.Now().UnixNano())
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	var both sync.WaitGroup
	way := func(n *int64, dst, src net.Conn) {
		both.Go(func() {
			if err := t.carry(n, dst, src); err != nil {
				cancel(err)
			}
		})
	}
	way(&fromA, b, a)
	way(&fromB, a, b)
	both.Wait()
	return fromA, fromB, context.Cause(ctx)
}

// socketOf is the socket itself of a connection that is no more than another way to read and write it: only those are spliced.
func socketOf(c net.Conn) net.Conn {
	if s, ok := c.(interface{ Socket() *net.TCPConn }); ok {
		return s.Socket()
	}
	return c
}

type tunnel struct {
	idle  time.Duration
	busy  func() bool
	moved atomic.Int64 // when something was carried last, either way; in nanoseconds of Unix time
}

// carry is one of the ways.
func (t *tunnel) carry(n *int64, dst, src net.Conn) error {
	size := smallChunk
	for {
		// What the other way has carried is known when its turn is over, so a turn is short.
		turn := t.idle / 4
		begin := time.Now()
		writeBy := begin.Add(t.idle + turn)
		src.SetReadDeadline(begin.Add(turn))
		dst.SetWriteDeadline(writeBy)
		k, err := io.CopyN(dst, src, int64(size))
		size = size.after(time.Since(begin), t.idle)
		*n += k
		if k > 0 {
			t.moved.Store(time.Now().UnixNano())
		}
		switch {
		case err == nil:
		case err == io.EOF:
			unguard(dst)
			if h, ok := dst.(halfCloser); ok {
				h.CloseWrite() // fails if it is gone: the other way has seen that, or will
			}
			return nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case !time.Now().Before(writeBy):
			return ErrIdle // and what was to be written may be lost
		case time.Since(time.Unix(0, t.moved.Load())) >= t.idle+turn && (t.busy == nil || !t.busy()):
			return ErrIdle
		}
	}
}

// chunk is how many bytes are carried at once. A write that stalls is seen only at its deadline, so a receiver must take a chunk by
// then, or it is mistaken for dead. But it costs the less the more goes at once: so a chunk that was taken a hundred times as fast as it
// must be is followed by one twice as large, and one that was not even taken ten times as fast by a small one.
type chunk int64

const (
	smallChunk chunk = 64 << 10
	largeChunk chunk = 1 << 20
)

// after is the chunk to follow one that took so long.
func (c chunk) after(took, idle time.Duration) chunk {
	switch {
	case took < idle/50:
		return min(2*c, largeChunk)
	case took > idle/5:
		return smallChunk
	}
	return c
}
