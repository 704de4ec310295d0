package dataconn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// Pinhole is a way past us for one connection, from the peer on one side to the peer on the other. The kernel carries it, and
// tells what becomes of it. Its methods are for one goroutine.
type Pinhole interface {
	// At is where the caller has to be told to connect to.
	At() netip.AddrPort
	// Changed is sent to when there may be more to be had from Seen.
	Changed() <-chan struct{}
	// Seen is what is known of the connection, which carries a file that way.
	Seen(Direction) Seen
	// Count is how many bytes have gone that way, about, as the kernel counts them now, and whether one end has ended the
	// connection. It fails if the kernel knows of none.
	Count(Direction) (bytes int64, ending bool, err error)
	// Unused reports whether nothing has come to the pinhole. What has come without our hearing of it is in Seen from then on.
	Unused() (bool, error)
	// Suspend takes an unused pinhole back, until Renew makes it last again.
	Suspend()
	Renew() error
	// Listen gives the pinhole up, through which nothing comes, for a listener where it was. It is told why: ErrBlocked, or
	// that the transfer must be seen.
	Listen(ctx context.Context, why error) (net.Listener, error)
	// Close ends the watch; the rest of the connection may still pass. Cut lets no more of it pass, and both ends know.
	Close()
	Cut()
}

// Passer is a Network that can have the kernel carry a connection.
type Passer interface {
	// Pinhole lets the peer of a side connect to an address on the other side. The caller owns it. The error says why that
	// cannot be; then there are still the legs.
	Pinhole(ctx context.Context, caller Side, to netip.AddrPort) (Pinhole, error)
}

// Seen is what is known of a connection through a Pinhole.
type Seen struct {
	Connected bool
	Ended     bool  // the sender has said that this was all
	Closed    bool  // the receiver has ended its side as well
	Broken    bool  // one end has reset it
	Bytes     int64 // exact, once Ended
}

var (
	// ErrBlocked is a connection that came to its Pinhole and did not get through.
	ErrBlocked = errors.New("a firewall rule does not let in what is related to a connection that it let in")
	// ErrRefused and ErrBroken are what became of a connection that the kernel carries: its first packet was answered with a
	// reset, or a later one was.
	ErrRefused = errors.New("connection refused")
	ErrBroken  = errors.New("connection reset by a peer")
	// ErrSeen is a transfer that must come to us, which was known too late for the kernel not to carry it.
	ErrSeen = errors.New("the transfer must be seen")
	// errNotThrough makes a transfer whose pinhole was of no use one of two legs.
	errNotThrough = errors.New("not through the pinhole")
)

// The watch over a pinhole: how often we ask whether what came to it got through, and how often what is carried is counted.
const (
	checkEvery = 250 * time.Millisecond
	countEvery = time.Second
)

// watch follows a transfer that the kernel carries, to the sender's end. It is the way of copy, with its errors.
func (t *Transfer) watch() error {
	if err := t.watchSetup(); err != nil {
		return err
	}
	close(t.ready)
	t.carriedBy(Passed)
	return t.watchCopy()
}

// watchSetup waits for the data verb and until the two peers are connected, in whichever order. A pinhole is not left open for
// a client that takes its time.
func (t *Transfer) watchSetup() error {
	begun := t.begun
	patience := time.NewTimer(t.opts.Setup)
	defer patience.Stop()
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	// The first packet uses the pinhole up and we hear of it once it is through. Twice gone and nothing heard is not by chance.
	gone, heard, suspended := 0, false, false
	for {
		if seen := t.pinhole.Seen(t.way()); begun == nil {
			switch callee := t.callee(); {
			case seen.Connected:
				return nil
			case seen.Broken:
				return &LegError{Side: callee, Act: "dial " + t.leg(callee).Address.String(), Err: ErrRefused}
			}
		}
		select {
		case <-begun:
			if t.inspector != nil || t.secure[Client] != nil || t.secure[Server] != nil {
				return t.takeOver(ErrSeen)
			}
			begun, suspended = nil, false
			patience.Reset(t.opts.Setup)
			if err := t.pinhole.Renew(); err != nil {
				return t.takeOver(err)
			}
		case <-t.pinhole.Changed():
			heard = true
		case <-check.C:
			if heard || suspended {
				continue
			}
			if unused, err := t.pinhole.Unused(); err != nil || unused {
				continue
			}
			if gone++; gone == 2 {
				return t.takeOver(ErrBlocked)
			}
		case <-patience.C:
			if begun == nil {
				return &LegError{Side: t.opts.Caller, Act: "accept", Err: ErrSetup}
			}
			if !heard {
				t.pinhole.Suspend()
				suspended = true
			}
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
	}
}

// way is the direction once it is known, and some direction before: what matters then is the same for both.
func (t *Transfer) way() Direction {
	select {
	case <-t.begun:
		return t.direction
	default:
		return Download
	}
}

// callee is the side that is called.
func (t *Transfer) callee() Side {
	if t.opts.Caller == Client {
		return Server
	}
	return Client
}

// takeOver makes the transfer one of two legs. The caller calls again, as TCP does.
func (t *Transfer) takeOver(why error) error {
	l, err := t.pinhole.Listen(t.ctx, why)
	if err != nil {
		return &LegError{Side: t.opts.Caller, Act: "accept", Err: err}
	}
	t.pinhole = nil
	t.leg(t.opts.Caller).Listener = l
	return errNotThrough
}

// leg is the leg of a side.
func (t *Transfer) leg(side Side) *Leg {
	if side == Client {
		return &t.opts.Client
	}
	return &t.opts.Server
}

// watchCopy waits for the sender's end.
func (t *Transfer) watchCopy() error {
	from := Server
	if t.direction == Upload {
		from = Client
	}
	count := time.NewTicker(min(countEvery, t.opts.Idle/4))
	defer count.Stop()
	moved, most, ended := time.Now(), int64(0), false
	for {
		switch seen := t.pinhole.Seen(t.direction); {
		case seen.Ended:
			t.bytes.Store(seen.Bytes)
			return nil
		case seen.Broken:
			return &LegError{Side: from, Act: "read", Err: ErrBroken}
		}
		select {
		case <-t.pinhole.Changed():
		case now := <-count.C:
			n, ending, err := t.pinhole.Count(t.direction)
			switch {
			case err != nil:
				return &LegError{Side: from, Act: "read", Err: err}
			case ending && ended:
				// The news of it was lost, so the kernel's count must do. What the server says of the transfer decides.
				t.bytes.Store(n)
				return nil
			case n > most:
				moved, most = now, n
			case now.Sub(moved) >= t.opts.Idle:
				return &LegError{Side: from, Act: "read", Err: ErrIdle}
			}
			ended = ending
			t.bytes.Store(n)
		case <-t.ctx.Done():
			return context.Cause(t.ctx)
		}
	}
}

// watchClose is finish for a transfer that the kernel carries: the receiver is given time to have it all.
func (t *Transfer) watchClose() error {
	to := Client
	if t.direction == Upload {
		to = Server
	}
	lingering := time.NewTimer(t.opts.Linger)
	defer lingering.Stop()
	for {
		switch seen := t.pinhole.Seen(t.direction); {
		case seen.Closed:
			return nil
		case seen.Broken:
			return &LegError{Side: to, Act: "close", Err: ErrBroken}
		}
		select {
		case <-t.pinhole.Changed():
		case <-lingering.C:
			return nil
		case <-t.ctx.Done():
			return nil
		}
	}
}
