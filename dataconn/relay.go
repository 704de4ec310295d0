package dataconn

import (
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
	// Records that both sides have are opened and sealed in their place; nil: bytes are read and written.
	opener Opener
	sealer Sealer

	// While reading and writing overlap: what has been read goes to full, and comes back to free when it is written.
	full, free chan *piece
	stop       chan struct{} // closed when nothing more is wanted
	// unwritten is how many pieces have been read and not written yet, and written is when the last one was, in nanoseconds of Unix time.
	unwritten, written atomic.Int64
}

// Opener is a Stream whose records can be opened where they are read into. Open waits for the first of them only, and returns where in
// the room the file's bytes are; what is in spans may be overwritten. No span comes with an error, which is io.EOF at the end of the file.
type Opener interface {
	Open(room []byte, spans [][2]int) ([][2]int, error)
}

// Sealer is a Stream that can seal what an Opener of the other side has opened, in the same place, and writes it. n is how many bytes of
// spans it has written; after an error there can be no more.
type Sealer interface {
	Seal(room []byte, spans [][2]int) (n int, err error)
}

// piece is what one read gave.
type piece struct {
	room  []byte
	spans [][2]int // of room: where the bytes are
	err   error    // that came after them
}

func newPiece(room []byte) *piece { return &piece{room: room} }

// len is how many bytes a piece has.
func (p *piece) len() int {
	n := 0
	for _, s := range p.spans {
		n += s[1] - s[0]
	}
	return n
}

// Rooms for pieces, in bytes: so many records of TLS (RFC 8446 §5.2), of 16 KiB each. The more is read and written at once the less the
// kernel has to do for it (a MiB takes a sixth less of our processor time than 256 KiB), but a stalled transfer holds its room, so there
// are wide ones for a certain number of transfers only, and for those that fill a narrow one.
const (
	record  = 16<<10 + 22
	narrow  = 4 * record
	wide    = 64 * record
	maxWide = 64 // transfers
)

var narrowRooms = sync.Pool{New: func() any { return new([narrow]byte) }}
var wideRooms = sync.Pool{New: func() any { return new([wide]byte) }}

// relays is how many relays there are. They share the processors.
var relays atomic.Int64

// relay carries all bytes from one side to the other.
func (t *Transfer) relay(from, to Side) error {
	r := &relay{Transfer: t, from: from, to: to}
	opener, opens := t.streams[from].(Opener)
	if sealer, seals := t.streams[to].(Sealer); opens && seals {
		r.opener, r.sealer = opener, sealer
	}
	relays.Add(1)
	defer relays.Add(-1)
	room := narrowRooms.Get().(*[narrow]byte)
	defer narrowRooms.Put(room)
	p := newPiece(room[:])
	for {
		switch err := r.pass(p); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case p.len() > narrow/2 && relays.Load() <= maxWide:
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
	p := newPiece(room[:])
	for {
		if err := r.pass(p); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// pass reads and writes in turn. It returns io.EOF at the end.
func (r *relay) pass(p *piece) error {
	r.read(p)
	if err := r.write(p); err != nil {
		return err
	}
	return p.err
}

// overlap reads and writes at the same time, into one room and from the other.
func (r *relay) overlap(rooms ...[]byte) error {
	r.full, r.free, r.stop = make(chan *piece, len(rooms)), make(chan *piece, len(rooms)), make(chan struct{})
	for _, room := range rooms {
		r.free <- newPiece(room)
	}
	var reader sync.WaitGroup
	reader.Go(r.ahead)
	defer reader.Wait()
	// A read that waits is ended. One that is about to begin sees stop: see read.
	defer r.streams[r.from].SetReadDeadline(time.Now())
	defer close(r.stop)
	for p := range r.full {
		if err := r.write(p); err != nil {
			return err
		}
		switch {
		case p.err == io.EOF:
			return nil
		case p.err != nil:
			return p.err
		}
		r.written.Store(time.Now().UnixNano())
		r.unwritten.Add(-1)
		r.free <- p
	}
	return nil
}

// ahead is the goroutine that reads while overlap writes. It ends with the first error, io.EOF among them, or with stop.
func (r *relay) ahead() {
	for {
		select {
		case p := <-r.free:
			r.read(p)
			r.unwritten.Add(1)
			ended := p.err != nil
			r.full <- p // there is place for all
			if ended {
				return
			}
		case <-r.stop:
			return
		}
	}
}

// read reads a piece from the sender. Its error is io.EOF at the end.
func (r *relay) read(p *piece) {
	src := r.streams[r.from]
	by := time.Now().Add(r.opts.Idle)
	for {
		src.SetReadDeadline(by)
		select {
		case <-r.stop: // whoever closed it sets a deadline afterwards, so this one does not outlast it
			p.spans, p.err = p.spans[:0], ErrReset
			return
		default:
		}
		err := r.receive(p)
		switch {
		case err == nil, err == io.EOF:
		case len(p.spans) > 0 && errors.Is(err, os.ErrDeadlineExceeded):
			err = nil
		default:
			// Bytes that are being written move.
			since := time.Unix(0, r.written.Load())
			if r.unwritten.Load() > 0 {
				since = time.Now()
			}
			if by = since.Add(r.opts.Idle); r.ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(by) {
				continue
			}
			err = r.broke(r.from, "read", err)
		}
		p.err = err
		return
	}
}

// receive is one read.
func (r *relay) receive(p *piece) (err error) {
	p.spans = p.spans[:0]
	if r.opener != nil {
		p.spans, err = r.opener.Open(p.room, p.spans)
		return err
	}
	n, err := r.streams[r.from].Read(p.room)
	if n > 0 {
		p.spans = append(p.spans, [2]int{0, n})
	}
	return err
}

// write gives a piece to the inspector and then to the receiver.
func (r *relay) write(p *piece) error {
	if r.inspector != nil {
		for _, s := range p.spans {
			if _, err := r.inspector.Write(p.room[s[0]:s[1]]); err != nil {
				return err
			}
		}
	}
	dst := r.streams[r.to]
	dst.SetWriteDeadline(time.Now().Add(2 * r.opts.Idle)) // see patient
	if r.sealer != nil {
		n, err := r.sealer.Seal(p.room, p.spans)
		return r.wrote(n, err)
	}
	for _, s := range p.spans {
		n, err := dst.Write(p.room[s[0]:s[1]])
		if err := r.wrote(n, err); err != nil {
			return err
		}
	}
	return nil
}

// wrote counts what one write has handed on.
func (r *relay) wrote(n int, err error) error {
	r.bytes.Add(int64(n))
	if err != nil {
		return r.broke(r.to, "write", err)
	}
	return nil
}
