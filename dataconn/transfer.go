package dataconn

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Direction is which way a transfer's bytes go.
type Direction int

// The directions.
const (
	Download Direction = iota // from the server to the client
	Upload                    // from the client to the server
)

// Options describe a transfer to Arm.
type Options struct {
	Network Network
	Client  Leg
	Server  Leg
	// Setup bounds the time from Begin until both legs are connected; Idle, the time in which no byte moves. A peer that
	// takes no data is noticed after twice Idle at the earliest, and half an Idle later at the latest.
	Setup, Idle time.Duration
	// Linger bounds how long Commit waits for the receiver to close its end.
	Linger time.Duration
	// Pinhole, if not nil, is how the kernel carries the transfer; then neither leg has a Listener, and Caller is the side that
	// calls. If nothing can come through it, the legs serve, and the caller's listens. The Transfer owns it.
	Pinhole Pinhole
	Caller  Side
	// Stranger hears of each connection refused because it came from somebody else than Leg.Peer. It is called from the
	// transfer's goroutine. Nil: nobody does.
	Stranger func(Side, netip.AddrPort)
}

// Transfer is one data connection carried across: two legs, which connect from Arm on, and one copy, which starts at
// Release. The life of one is Arm, Begin, Release, <-Copied, Commit, <-Closed; Reset may come at any time, and must
// come where Commit does not. Its methods but Bytes and Carried are for one goroutine.
type Transfer struct {
	opts   Options
	ctx    context.Context
	cancel context.CancelCauseFunc

	begun    chan struct{} // closed by Begin; direction, secure and inspector are set before
	called   chan struct{} // closed by Call
	released chan struct{} // closed by Release
	verdict  chan struct{} // closed by Commit
	copied   chan struct{} // closed when the copy, or the set-up, has ended; err is set before
	closed   chan struct{} // closed when both legs are
	ready    chan struct{} // closed when both legs are connected

	direction Direction
	secure    [2]Secure // by Side
	inspector Inspector
	pace      func(net.Conn)
	committed bool // of the caller's goroutine
	bytes     atomic.Int64
	err       error        // see copied
	delivery  error        // of the receiver's close; set before closed is closed
	carried   atomic.Int32 // a Carriage

	mu    sync.Mutex  // guards legs: Reset closes what run has opened
	legs  [2]net.Conn // by Side
	reset bool

	pinhole Pinhole   // of run's goroutine: how the kernel carries the transfer; nil: it does not, or not any more
	streams [2]Stream // by Side, of run's goroutine: what bytes go through; the legs themselves where they are not secured
}

// Stream is a leg as its bytes are read and written: the connection itself, or what protects it. CloseWrite tells the peer
// that no more comes, and leaves the connection below open.
type Stream interface {
	net.Conn
	CloseWrite() error
}

// Secure makes a connected leg one that protects its bytes. It does not own c; ctx ends it.
type Secure func(ctx context.Context, c net.Conn) (Stream, error)

// Inspector sees one file go by: each byte is written to it before it goes on. An error of Write stops the transfer, and so
// does one of Verdict, which is asked at the file's end; neither peer takes the file for whole then. It is for one goroutine
// at a time. One that may keep Write waiting has a method Stop, which Reset calls from another goroutine: Write must return then.
type Inspector interface {
	io.Writer
	Verdict() error
}

// Carriage is how a transfer's bytes were carried.
type Carriage int

// The ways of carrying bytes.
const (
	NotCarried Carriage = iota // the legs did not connect
	Spliced                    // by splice(2): they did not come through this process's memory
	Copied                     // through this process's memory
	Secured                    // the same, and TLS was ended on one side at least
	Passed                     // by the kernel, from peer to peer: they did not come to us
)

var carriageNames = [...]string{"", "splice", "copy", "tls", "kernel"}

func (c Carriage) String() string { return carriageNames[c] }

// Arm makes a transfer and lets its legs begin to connect: listening legs accept, and a leg dials as soon as the other
// has been accepted, so that each peer sees the other's own timing. It owns the legs' listeners from now on. ctx bounds
// the whole transfer.
func Arm(ctx context.Context, opts Options) *Transfer {
	ctx, cancel := context.WithCancelCause(ctx)
	t := &Transfer{
		opts: opts, ctx: ctx, cancel: cancel,
		begun: make(chan struct{}), called: make(chan struct{}), released: make(chan struct{}), verdict: make(chan struct{}),
		copied: make(chan struct{}), closed: make(chan struct{}), ready: make(chan struct{}),
	}
	go t.run()
	return t
}

// Begin says that the data verb has been given, and starts the Setup clock. secure, by Side, are the legs to be secured; nil
// leaves one as it is. inspector sees the bytes; nil: nobody does.
func (t *Transfer) Begin(d Direction, secure [2]Secure, inspector Inspector) {
	t.mu.Lock() // for Reset
	t.direction, t.secure, t.inspector = d, secure, inspector
	t.mu.Unlock()
	close(t.begun)
}

// Pace has pace given the connection that bytes leave on, before they move; nil: nothing is. Call it before Begin.
func (t *Transfer) Pace(pace func(net.Conn)) { t.pace = pace }

// Release lets bytes move. Call it once the client has been told that they will (150): small files that overtook
// the reply have confused clients.
func (t *Transfer) Release() { close(t.released) }

// Copied is closed when no more bytes will move: the sender ended, a leg broke, or the legs did not connect. Err tells.
func (t *Transfer) Copied() <-chan struct{} { return t.copied }

// Err is nil if the sender came to its end and every byte was handed on. Call it once Copied is closed.
func (t *Transfer) Err() error { return t.err }

// Carried is how the bytes go, or went.
func (t *Transfer) Carried() Carriage { return Carriage(t.carried.Load()) }

func (t *Transfer) carriedBy(c Carriage) { t.carried.Store(int32(c)) }

// Bytes is the number of bytes handed on so far.
func (t *Transfer) Bytes() int64 { return t.bytes.Load() }

// Ready is closed when both legs are connected; not if they fail to.
func (t *Transfer) Ready() <-chan struct{} { return t.ready }

// CallsClient reports whether we call the client, as a server in active mode does.
func (t *Transfer) CallsClient() bool { return t.opts.Pinhole == nil && !t.opts.Client.listens() }

// Past reports whether the kernel is to carry the bytes past us: then the peers know of an end before we do.
func (t *Transfer) Past() bool { return t.opts.Pinhole != nil }

// Call lets us call the client where the server does not call us, once: when the server has promised that there will be
// something to say. A client whose command is refused is not called.
func (t *Transfer) Call() { close(t.called) }

// Connected reports whether both legs are connected, or were.
func (t *Transfer) Connected() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// Commit ends a transfer whose Err is nil as whole: the receiver sees the end of the file. Closed follows when the
// receiver has closed its end, or after Linger.
func (t *Transfer) Commit() { close(t.verdict) }

// Reset ends the transfer, whatever its state, so that neither peer takes it for whole. Closed follows at once. After
// Commit it only cuts short what remains. It is what becomes of a transfer whose process is killed, too.
func (t *Transfer) Reset() {
	t.mu.Lock()
	t.reset = true
	legs, inspector := t.legs, t.inspector
	t.mu.Unlock()
	t.cancel(ErrReset)
	if i, ok := inspector.(interface{ Stop() }); ok {
		i.Stop()
	}
	for _, c := range legs {
		if c != nil {
			c.Close()
		}
	}
}

// Delivered is nil unless the receiver reset its connection instead of closing it: then it may not have all that it was
// sent. Call it once Closed is closed, after Commit.
func (t *Transfer) Delivered() error { return t.delivery }

// Closed is closed when both legs are.
func (t *Transfer) Closed() <-chan struct{} { return t.closed }

// run is the transfer's goroutine.
func (t *Transfer) run() {
	defer t.cancel(nil)
	defer func() {
		close(t.closed)
		if t.pinhole != nil {
			t.pinhole.Close() // after Cut it is nothing; otherwise nobody needs to wait for it
		}
	}()
	t.err = t.carry()
	close(t.copied)
	if t.err != nil {
		t.cutOff()
		return
	}
	select {
	case <-t.verdict:
		t.delivery = t.finish()
	case <-t.ctx.Done():
		t.cutOff()
	}
}

// cutOff is Reset with what only run may do.
func (t *Transfer) cutOff() {
	t.Reset()
	if t.pinhole != nil {
		t.pinhole.Cut()
	}
}

// carry connects the legs and copies, or watches the kernel do it.
func (t *Transfer) carry() error {
	if t.pinhole = t.opts.Pinhole; t.pinhole != nil {
		if err := t.watch(); err != errNotThrough {
			return err
		}
	}
	if err := t.connect(); err != nil {
		return err
	}
	close(t.ready)
	if err := t.protect(); err != nil {
		return err
	}
	select {
	case <-t.released:
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
	from, to := Server, Client
	if t.direction == Upload {
		from, to = Client, Server
	}
	err := t.copy(from, to)
	if err == nil && t.inspector != nil {
		err = t.inspector.Verdict()
	}
	if err != nil || t.direction == Upload {
		return err
	}
	// The server has said all. Some confirm only when we have closed as well (ProFTPD waits for ten seconds).
	t.close(Server)
	return nil
}

// protect secures the legs that are to be, both at once. A client begins before it hears of 150 or after. With a server we
// begin after its 150, for which Release stands: some (pyftpdlib) take what comes before they know the data verb for a fault.
// The clock runs from Release.
func (t *Transfer) protect() error {
	select {
	case <-t.begun:
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
	if t.secure[Client] == nil && t.secure[Server] == nil {
		t.streams = [2]Stream{bare{t.quick(Client)}, bare{t.quick(Server)}}
		return nil
	}
	ctx, cancel := context.WithCancelCause(t.ctx)
	var clock sync.WaitGroup
	defer clock.Wait()
	defer cancel(nil)
	clock.Go(func() { t.setupClock(ctx, cancel, t.released) })

	var legs sync.WaitGroup
	for side, secure := range t.secure {
		leg := t.quick(Side(side))
		if secure == nil {
			t.streams[side] = bare{leg}
			continue
		}
		t.carriedBy(Secured)
		legs.Go(func() {
			if Side(side) == Server {
				select {
				case <-t.released:
				case <-ctx.Done():
					return
				}
			}
			stream, err := secure(ctx, leg)
			if err != nil {
				cancel(&LegError{Side: Side(side), Act: "TLS", Err: err})
				return
			}
			t.streams[side] = stream
		})
	}
	legs.Wait()
	err := context.Cause(ctx)
	for side, stream := range t.streams {
		if err == ErrSetup && stream == nil {
			err = &LegError{Side: Side(side), Act: "TLS", Err: err}
		}
	}
	return err
}

// quick is a leg for bytes that are read and written here.
func (t *Transfer) quick(side Side) net.Conn {
	leg := t.legs[side]
	if q, ok := t.opts.Network.(Quickener); ok {
		leg = q.Quicken(leg)
	}
	return &patient{Conn: leg}
}

// bare is a leg that is not secured.
type bare struct{ net.Conn }

// CloseWrite says nothing: the end of the connection says it all.
func (bare) CloseWrite() error { return nil }

// connect makes both legs.
func (t *Transfer) connect() error {
	ctx, cancel := context.WithCancelCause(t.ctx)
	defer cancel(nil)
	defer t.unlisten()
	// The listeners' Accept knows no context: closing them is what ends it.
	stop := context.AfterFunc(ctx, t.unlisten)
	defer stop()
	var clock sync.WaitGroup
	defer clock.Wait()
	defer cancel(nil)
	clock.Go(func() { t.setupClock(ctx, cancel, t.begun) })

	client, server := t.opts.Client, t.opts.Server
	switch {
	case client.listens() && server.listens():
		var other error
		var wg sync.WaitGroup
		wg.Go(func() {
			if other = t.accept(ctx, Server); other != nil {
				cancel(other)
			}
		})
		err := t.accept(ctx, Client)
		if err != nil {
			cancel(err)
		}
		wg.Wait()
		if err != nil && !errors.Is(err, other) {
			return err
		}
		return other
	case client.listens():
		if err := t.accept(ctx, Client); err != nil {
			return err
		}
		return t.dial(ctx, Server, 0)
	case server.listens():
		if err := t.accept(ctx, Server); err != nil {
			return err
		}
		// The client sees the port that the server chose, 20 as a rule (RFC 959 §3.2).
		return t.dial(ctx, Client, AddrPort(t.legs[Server].RemoteAddr()).Port())
	default:
		if err := t.dial(ctx, Server, 0); err != nil {
			return err
		}
		// An active server calls only once it has something to say: a client whose command is refused is not called.
		select {
		case <-t.called:
		case <-t.released:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		return t.dial(ctx, Client, 0)
	}
}

// setupClock ends a set-up that takes longer than Setup, from begin on.
func (t *Transfer) setupClock(ctx context.Context, cancel context.CancelCauseFunc, begin <-chan struct{}) {
	select {
	case <-begin:
	case <-ctx.Done():
		return
	}
	clock := time.NewTimer(t.opts.Setup)
	defer clock.Stop()
	select {
	case <-clock.C:
		cancel(ErrSetup)
	case <-ctx.Done():
	}
}

func (t *Transfer) unlisten() {
	for _, l := range []net.Listener{t.opts.Client.Listener, t.opts.Server.Listener} {
		if l != nil {
			l.Close()
		}
	}
}

// accept makes a listening leg: the first connection from its peer. Strangers are turned away and the listener goes on,
// so that nobody can spoil a transfer by knocking first.
func (t *Transfer) accept(ctx context.Context, side Side) error {
	leg := t.opts.Client
	if side == Server {
		leg = t.opts.Server
	}
	for {
		c, err := leg.Listener.Accept()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return &LegError{Side: side, Act: "accept", Err: err}
		}
		if peerOf(c) == leg.Peer {
			leg.Listener.Close()
			return t.take(side, socketOf(c))
		}
		stranger := AddrPort(c.RemoteAddr())
		guard(c)
		c.Close()
		if t.opts.Stranger != nil {
			t.opts.Stranger(side, stranger)
		}
	}
}

func (t *Transfer) dial(ctx context.Context, side Side, from uint16) error {
	to := t.opts.Client.Address
	if side == Server {
		to = t.opts.Server.Address
	}
	c, err := t.opts.Network.Dial(ctx, side, from, to)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return &LegError{Side: side, Act: "dial " + to.String(), Err: err}
	}
	return t.take(side, c)
}

// take makes c the leg of a side, unless Reset has come first.
func (t *Transfer) take(side Side, c net.Conn) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	guard(c)
	if t.reset {
		c.Close()
		return ErrReset
	}
	t.legs[side] = c
	return nil
}

// bulk is how many bytes a sender must have sent in half of gatherFor to be waited for until it has sent as many again, and gatherFor is for
// how long they may wait for that: with small packets it spares two wake-ups of three.
const (
	bulk      = 1 << 20 // what the pipe of a Splice holds
	gatherFor = 20 * time.Millisecond
)

// copy carries bytes until the sender's end.
func (t *Transfer) copy(from, to Side) error {
	if t.pace != nil {
		t.pace(t.legs[to])
	}
	if s, ok := t.opts.Network.(Splicer); ok && t.Carried() != Secured && t.inspector == nil {
		if pipe := s.Splice(t.legs[from], t.legs[to]); pipe != nil {
			t.carriedBy(Spliced)
			defer pipe.Close()
			return t.splice(pipe, from, to)
		}
	}
	t.carriedBy(max(t.Carried(), Copied))
	return t.relay(from, to)
}

// splice has bytes go through a pipe until the sender's end.
func (t *Transfer) splice(pipe Splice, from, to Side) error {
	src, dst := t.legs[from], t.legs[to]
	gathers, since, moved := false, time.Now(), 0
	for {
		patience := t.opts.Idle
		if gathers {
			patience = gatherFor
		}
		src.SetReadDeadline(time.Now().Add(patience))
		n, err := pipe.Take()
		for left := n; left > 0; {
			dst.SetWriteDeadline(time.Now().Add(2 * t.opts.Idle))
			given, err := pipe.Give()
			t.bytes.Add(int64(given))
			if err != nil {
				return t.broke(to, "write", err)
			}
			left -= given
		}
		switch {
		case err == io.EOF:
			return nil
		case gathers && errors.Is(err, os.ErrDeadlineExceeded): // not as fast any more; what there is, is taken now
			pipe.Gather(1)
			gathers, since, moved = false, time.Now(), 0
			continue
		case err != nil:
			return t.broke(from, "read", err)
		}
		if moved += n; moved >= bulk && !gathers {
			now := time.Now()
			gathers = now.Sub(since) < gatherFor/2 && pipe.Gather(bulk) == nil
			since, moved = now, 0
		}
	}
}

// broke is why a transfer broke off at one of its legs.
func (t *Transfer) broke(side Side, act string, err error) error {
	switch {
	case t.ctx.Err() != nil:
		return context.Cause(t.ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = ErrIdle
	}
	return &LegError{Side: side, Act: act, Err: err}
}

// close ends a leg whose peer has said all, and so that the peer does not take it for broken.
func (t *Transfer) close(side Side) {
	unguard(t.legs[side])
	t.streams[side].SetWriteDeadline(time.Now().Add(t.opts.Linger))
	t.streams[side].CloseWrite()
	t.legs[side].Close()
}

// finish ends a whole transfer: the receiver gets the end of the file, and is given time to say that it has it by
// closing its own end; what it may say meanwhile is read and dropped, since unread bytes would turn our close into a reset.
// TLS servers that were sent a file have sent tickets which nobody has read: that reset would cost the file its end.
func (t *Transfer) finish() error {
	if t.pinhole != nil {
		return t.watchClose()
	}
	from, to := Server, Client
	if t.direction == Upload {
		from, to = Client, Server
		t.close(from) // of a download, that has been done
	}
	dst := t.legs[to]
	// The last word waits behind the bytes that the receiver still has to take, and for as long as they would.
	t.streams[to].SetWriteDeadline(time.Now().Add(2 * t.opts.Idle))
	if err := t.streams[to].CloseWrite(); err != nil {
		dst.Close()
		return &LegError{Side: to, Act: "close", Err: err}
	}
	unguard(dst)
	if h, ok := dst.(halfCloser); ok {
		h.CloseWrite()
	}
	dst.SetReadDeadline(time.Now().Add(t.opts.Linger))
	_, err := io.Copy(io.Discard, dst)
	dst.Close()
	if u, ok := t.opts.Network.(Undertaker); ok {
		u.Closed(to, AddrPort(dst.LocalAddr()), AddrPort(dst.RemoteAddr()))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return &LegError{Side: to, Act: "close", Err: err}
}
