package dataconn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// hole is a Pinhole that the test plays the kernel to.
type hole struct {
	changed chan struct{}

	mu        sync.Mutex
	seen      Seen
	used      bool
	count     int64
	ending    bool
	untracked bool
	did       []string
}

func newHole() *hole { return &hole{changed: make(chan struct{}, 1)} }

// set changes what is to be seen, as with a packet's passing.
func (h *hole) set(change func()) {
	h.mu.Lock()
	change()
	h.mu.Unlock()
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

func (h *hole) do(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.did = append(h.did, what)
}

func (h *hole) has(what string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, did := range h.did {
		if did == what {
			n++
		}
	}
	return n
}

func (h *hole) At() netip.AddrPort       { return netip.AddrPort{} }
func (h *hole) Changed() <-chan struct{} { return h.changed }

func (h *hole) Seen(Direction) Seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seen
}

func (h *hole) Count(Direction) (int64, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.untracked {
		return 0, false, errors.New("untracked")
	}
	return h.count, h.ending, nil
}

func (h *hole) Unused() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.used, nil
}

func (h *hole) Suspend()     { h.do("suspend") }
func (h *hole) Renew() error { h.do("renew"); return nil }
func (h *hole) Close()       { h.do("close") }
func (h *hole) Cut()         { h.do("cut") }

func (h *hole) Listen(_ context.Context, why error) (net.Listener, error) {
	h.do(why.Error())
	return nil, syscall.EADDRINUSE
}

const (
	testSetup = 30 * time.Second
	testIdle  = 2 * time.Minute
)

// pass arms a transfer through a hole in a bubble of its own time.
func pass(t *testing.T, play func(*hole, *Transfer)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHole()
		transfer := Arm(t.Context(), Options{Pinhole: h, Caller: Client, Setup: testSetup, Idle: testIdle, Linger: 5 * time.Second})
		play(h, transfer)
		transfer.Reset()
		<-transfer.Closed()
	})
}

// ended waits for a transfer's copy to end, and checks how.
func ended(t *testing.T, transfer *Transfer, bytes int64, is error, side Side, act string) {
	t.Helper()
	<-transfer.Copied()
	err := transfer.Err()
	var leg *LegError
	if is == nil && err != nil || is != nil && (!errors.Is(err, is) || !errors.As(err, &leg) || leg.Side != side || leg.Act != act) {
		t.Errorf("it ended with %v", err)
	}
	if transfer.Bytes() != bytes {
		t.Errorf("%d bytes, want %d", transfer.Bytes(), bytes)
	}
}

func TestPassed(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		if transfer.CallsClient() {
			t.Error("it would call the client, which is for the server to do")
		}
		h.set(func() { h.used, h.seen.Connected = true, true })
		synctest.Wait()
		transfer.Begin(Download, [2]Secure{}, nil)
		<-transfer.Ready()
		transfer.Release()
		h.set(func() { h.count = 1000 })
		time.Sleep(1500 * time.Millisecond)
		if n := transfer.Bytes(); n != 1000 {
			t.Errorf("%d bytes so far", n)
		}
		h.set(func() { h.seen.Ended, h.seen.Bytes = true, 1234 })
		ended(t, transfer, 1234, nil, 0, "")
		if transfer.Carried() != Passed {
			t.Error(transfer.Carried())
		}
		transfer.Commit()
		synctest.Wait()
		select {
		case <-transfer.Closed():
			t.Error("it is over before the receiver has closed")
		default:
		}
		h.set(func() { h.seen.Closed = true })
		<-transfer.Closed()
		if err := transfer.Delivered(); err != nil || h.has("close") != 1 || h.has("cut") != 0 {
			t.Errorf("%v, and %q", err, h.did)
		}
	})
}

// A receiver that resets after the sender's end may not have it all.
func TestPassedNotDelivered(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		transfer.Begin(Upload, [2]Secure{}, nil)
		h.set(func() { h.seen = Seen{Connected: true, Ended: true, Bytes: 5} })
		ended(t, transfer, 5, nil, 0, "")
		transfer.Commit()
		synctest.Wait()
		h.set(func() { h.seen.Broken = true })
		<-transfer.Closed()
		if err := transfer.Delivered(); !errors.Is(err, ErrBroken) {
			t.Error(err)
		}
	})
}

func TestPassedBroken(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		transfer.Begin(Upload, [2]Secure{}, nil)
		h.set(func() { h.seen.Connected = true })
		<-transfer.Ready()
		h.set(func() { h.seen.Broken = true })
		ended(t, transfer, 0, ErrBroken, Client, "read")
		<-transfer.Closed()
		if h.has("cut") != 1 {
			t.Errorf("it was not cut: %q", h.did)
		}
	})
}

func TestPassedRefused(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		transfer.Begin(Download, [2]Secure{}, nil)
		h.set(func() { h.seen.Broken = true })
		ended(t, transfer, 0, ErrRefused, Server, "dial invalid AddrPort")
	})
}

// What moves is known from the kernel's count alone, and that nothing moves.
func TestPassedIdle(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		transfer.Begin(Download, [2]Secure{}, nil)
		h.set(func() { h.seen.Connected = true })
		<-transfer.Ready()
		for range 10 {
			time.Sleep(testIdle - 2*time.Second)
			h.set(func() { h.count++ })
		}
		start := time.Now()
		ended(t, transfer, 10, ErrIdle, Server, "read")
		if took := time.Since(start); took < testIdle || took > testIdle+2*time.Second {
			t.Errorf("it was given %v", took)
		}
	})
}

// The news of the end may be lost. Then the kernel's count has to do.
func TestPassedUnheard(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		transfer.Begin(Download, [2]Secure{}, nil)
		h.set(func() { h.seen.Connected = true })
		<-transfer.Ready()
		h.mu.Lock()
		h.count, h.ending = 77, true
		h.mu.Unlock()
		ended(t, transfer, 77, nil, 0, "")
	})
}

// A connection of which the kernel knows nothing any more can't be followed, so it is not taken for whole.
func TestPassedUntracked(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		transfer.Begin(Download, [2]Secure{}, nil)
		h.set(func() { h.seen.Connected = true })
		<-transfer.Ready()
		h.mu.Lock()
		h.untracked = true
		h.mu.Unlock()
		<-transfer.Copied()
		if transfer.Err() == nil {
			t.Error("it is taken for whole")
		}
		<-transfer.Closed()
		if h.has("cut") != 1 {
			t.Errorf("it was not cut: %q", h.did)
		}
	})
}

// A pinhole is closed for a client that takes its time, and open again when it needs it.
func TestPassSuspended(t *testing.T) {
	pass(t, func(h *hole, transfer *Transfer) {
		time.Sleep(testSetup + time.Second)
		if h.has("suspend") != 1 {
			t.Errorf("it is open still: %q", h.did)
		}
		h.set(func() { h.used = true }) // it is gone, and that is no sign of a connection now
		time.Sleep(time.Hour)
		transfer.Begin(Download, [2]Secure{}, nil)
		h.mu.Lock()
		h.used = false
		h.mu.Unlock()
		synctest.Wait()
		if h.has("renew") != 1 {
			t.Errorf("it is not open again: %q", h.did)
		}
		start := time.Now()
		ended(t, transfer, 0, ErrSetup, Client, "accept")
		if took := time.Since(start); took != testSetup {
			t.Errorf("it was given %v", took)
		}
	})
}

// What came and did not get through comes to us, before the data verb or after.
func TestPassBlocked(t *testing.T) {
	for _, begun := range []bool{false, true} {
		pass(t, func(h *hole, transfer *Transfer) {
			if begun {
				transfer.Begin(Download, [2]Secure{}, nil)
			}
			time.Sleep(10 * time.Second)
			if h.has(ErrBlocked.Error()) != 0 {
				t.Error("nothing has come, and it is taken for blocked")
			}
			h.mu.Lock()
			h.used = true
			h.mu.Unlock()
			ended(t, transfer, 0, syscall.EADDRINUSE, Client, "accept")
			if h.has(ErrBlocked.Error()) != 1 {
				t.Errorf("%q", h.did)
			}
		})
	}
}

// What must be seen does not go past us, though that was known too late.
func TestPassSeen(t *testing.T) {
	secured := Secure(func(context.Context, net.Conn) (Stream, error) { return nil, net.ErrClosed })
	for name, begin := range map[string]func(*Transfer){
		"secured":   func(transfer *Transfer) { transfer.Begin(Download, [2]Secure{Client: secured}, nil) },
		"inspected": func(transfer *Transfer) { transfer.Begin(Download, [2]Secure{}, discard{}) },
	} {
		t.Run(name, func(t *testing.T) {
			pass(t, func(h *hole, transfer *Transfer) {
				h.set(func() { h.seen.Connected = true })
				begin(transfer)
				ended(t, transfer, 0, syscall.EADDRINUSE, Client, "accept")
				if h.has(ErrSeen.Error()) != 1 {
					t.Errorf("%q", h.did)
				}
			})
		})
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) Verdict() error              { return nil }
