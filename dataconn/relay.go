package dataconn

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// relay is a copy of bytes that somebody here must see: to unprotect or protect them, or to inspect them.
type relay struct {
	*Transfer
	from, to Side

	// While reading and writing overlap: what has been read goes to full, and its room comes back to free.
	full chan piece
	free chan []byte
	stop chan struct{} // closed when nothing more is wanted
	// unwritten is how many pieces have been read and not written yet, and written is when the last one was, in nanoseconds of Unix time.
	unwritten, written atomic.Int64
}

// piece is what one read gave.
type piece struct {
	room []byte
	n    int
	err  error
}

// Rooms for pieces, in bytes. A narrow one is a few TLS records long. The more is read and written at once the less the
// kernel has to do for it, but a stalled transfer holds its room, so there are wide ones for a certain number of transfers only, and
// for those that fill a narrow one.
const (
	narrow  = 64 << 10
	wide    = 256 << 10
	maxWide = 64 // transfers
)

var narrowRooms = sync.Pool{New: func() any { return new([narrow]byte) }}
var wideRooms = sync.Pool{New: func() any { return new([wide]byte) }}

// relays is how many relays there are. They share the processors.
var relays atomic.Int64

// relay carries all bytes from one side to the other.
func (t *Transfer) relay(from, to Side) error {
	r := &relay{Transfer: t, from: from, to: to}
	relays.Add(1)
	defer relays.Add(-1)
	room := narrowRooms.Get().(*[narrow]byte)
	defer narrowRooms.Put(room)
	for {
		n, err := r.pass(room[:])
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case n == narrow && relays.Load() <= maxWide:
			return r.bulk()
		}
	}
}

// bulk is for the rest of a file that comes as fast as we take it.
func (r *relay) bulk() error {
	room := wideRooms.Get().(*[wide]byte)
	defer wideRooms.Put(room)
	// One stream's decryption and encryption have a processor each where some are to spare. Where they are not, it goes a
	// twentieth faster at best for up to a fifth more of processor time, since each wakes the other up on another processor.
	if 4*relays.Load() <= int64(runtime.GOMAXPROCS(0)) {
		other := wideRooms.Get().(*[wide]byte)
		defer wideRooms.Put(other)
		return r.overlap(room[:], other[:])
	}
	for {
		if _, err := r.pass(room[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// pass reads and writes in turn. It returns io.EOF at the end.
func (r *relay) pass(room []byte) (int, error) {
	n, err := r.read(room)
	if n > 0 {
		if err := r.write(room[:n]); err != nil {
			return 0, err
		}
	}
	return n, err
}

// overlap reads and writes at the same time, into one room and from the other.
func (r *relay) overlap(rooms ...[]byte) error {
	r.full, r.free, r.stop = make(chan piece, len(rooms)), make(chan []byte, len(rooms)), make(chan struct{})
	for _, room := range rooms {
		r.free <- room
	}
	var reader sync.WaitGroup
	reader.Go(r.ahead)
	defer reader.Wait()
	// A read that waits is ended. One that is about to begin sees stop: see read.
	defer r.streams[r.from].SetReadDeadline(time.Now())
	defer close(r.stop)
	for p := range r.full {
		if p.n > 0 {
			if err := r.write(p.room[:p.n]); err != nil {
				return err
			}
		}
		switch {
		case p.err == io.EOF:
			return nil
		case p.err != nil:
			return p.err
		}
		r.written.Store(time.Now().UnixNano())
		r.unwritten.Add(-1)
		r.free <- p.room
	}
	return nil
}

// ahead is the goroutine that reads while overlap writes. It ends with the first error, io.EOF among them, or with stop.
func (r *relay) ahead() {
	for {
		select {
		case room := <-r.free:
			n, err := r.read(room)
			r.unwritten.Add(1)
			r.full <- piece{room, n, err} // there is place for all rooms
			if err != nil {
				return
			}
		case <-r.stop:
			return
		}
	}
}

// read reads from the sender. io.EOF is its end.
func (r *relay) read(room []byte) (int, error) {
	src := r.streams[r.from]
	by := time.Now().Add(r.opts.Idle)
	for {
		src.SetReadDeadline(by)
		select {
		case <-r.stop: // whoever closed it sets a deadline afterwards, so this one does not outlast it
			return 0, ErrReset
		default:
		}
		n, err := src.Read(room)
		switch {
		case err == nil, err == io.EOF:
			return n, err
		case n > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			return n, nil
		case r.ctx.Err() != nil:
			return n, context.Cause(r.ctx)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return n, &LegError{Side: r.from, Act: "read", Err: err}
		}
		// Bytes that are being written move.
		if r.unwritten.Load() > 0 {
			by = time.Now().Add(r.opts.Idle)
		} else if by = time.Unix(0, r.written.Load()).Add(r.opts.Idle); !time.Now().Before(by) {
			return n, &LegError{Side: r.from, Act: "read", Err: ErrIdle}
		}
	}
}

// write gives bytes to the inspector and then to the receiver.
func (r *relay) write(b []byte) error {
	if r.inspector != nil {
		if _, err := r.inspector.Write(b); err != nil {
			return err
		}
	}
	dst := r.streams[r.to]
	var err error
	for len(b) > 0 && err == nil {
		// However much there is, a receiver has its time for as much as it would at the least.
		var n int
		dst.SetWriteDeadline(time.Now().Add(2 * r.opts.Idle))
		n, err = dst.Write(b[:min(len(b), narrow)])
		r.bytes.Add(int64(n))
		b = b[n:]
	}
	switch {
	case err == nil:
		return nil
	case r.ctx.Err() != nil:
		return context.Cause(r.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrIdle
	}
	return &LegError{Side: r.to, Act: "write", Err: err}
}
