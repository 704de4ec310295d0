package dataconn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestWhole: what one peer sends the other gets, to the byte, and hears of its end only once the transfer is committed.
func TestWhole(t *testing.T) {
	for _, mode := range modes {
		for _, d := range []Direction{Download, Upload} {
			for _, size := range []int64{0, 1, 1 << 20, 20 << 20} {
				t.Run(fmt.Sprintf("%s/%s/%d", mode.name, []string{"download", "upload"}[d], size), func(t *testing.T) {
					l := newLab(t, mode.clientListens, mode.serverListens)
					from, to := l.begin(d)
					got := sha256.New()
					ended, readErr := read(to, got)

					want := sha256.New()
					source := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
					if n, err := io.Copy(from, io.TeeReader(source, want)); err != nil || n != size {
						t.Fatalf("sent %d bytes: %v", n, err)
					}
					from.CloseWrite()
					if err := l.copied(); err != nil {
						t.Fatal(err)
					}
					select {
					case <-ended:
						t.Error("the receiver heard of the end before it was confirmed")
					default:
					}
					l.transfer.Commit()
					<-ended
					to.Close()
					<-l.transfer.Closed()
					if *readErr != nil {
						t.Errorf("the receiver: %v", *readErr)
					}
					if string(got.Sum(nil)) != string(want.Sum(nil)) {
						t.Error("the receiver got something else")
					}
					if err := l.transfer.Delivered(); err != nil {
						t.Error(err)
					}
					if n := l.transfer.Bytes(); n != size {
						t.Errorf("%d bytes were counted", n)
					}
					if !l.transfer.Connected() || l.transfer.Carried() != Spliced {
						t.Errorf("connected %v, carried by %v", l.transfer.Connected(), l.transfer.Carried())
					}
					// The sender's connection ends in peace.
					if n, err := from.Read(make([]byte, 1)); n != 0 || err != io.EOF {
						t.Errorf("the sender saw %v", err)
					}
				})
			}
		}
	}
}

// Nothing moves before Release: 150 comes first.
func TestReleaseComesFirst(t *testing.T) {
	l := newLab(t, true, false)
	tr := l.arm()
	client, server := l.connectBoth()
	tr.Begin(Download, [2]Secure{}, nil)
	server.Write([]byte("early"))
	server.CloseWrite()
	client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := client.Read(make([]byte, 1)); n > 0 || !errors.Is(err, errTimeout(err)) {
		t.Errorf("read %d bytes, %v, before Release", n, err)
	}
	client.SetReadDeadline(time.Time{})
	tr.Release()
	b := make([]byte, 5)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "early" {
		t.Errorf("%q, %v", b, err)
	}
	if err := l.copied(); err != nil {
		t.Error(err)
	}
}

// errTimeout is err if it is a time-out, and else something that it is not.
func errTimeout(err error) error {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return err
	}
	return errors.New("no time-out")
}

// An active server's client is called only once there is something to say, where both legs dial.
func TestBothDialCallsClientLate(t *testing.T) {
	l := newLab(t, false, false)
	tr := l.arm()
	l.connect(Server)
	tr.Begin(Download, [2]Secure{}, nil)
	clientListener := l.peers[Client].(*net.TCPListener)
	clientListener.SetDeadline(time.Now().Add(50 * time.Millisecond))
	if c, err := clientListener.Accept(); err == nil {
		c.Close()
		t.Error("the client was called before Release")
	}
	clientListener.SetDeadline(time.Time{})
	tr.Release()
	l.connect(Client)
}

// sawReset checks that a peer's connection ended in a reset, whatever came before it, and never in an end of file.
func sawReset(t *testing.T, who string, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, struct{ io.Reader }{c}); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the %s saw %v, want a reset", who, err)
	}
}

// A sender that breaks, in either direction and every mode, is never an end of file to the receiver.
func TestBrokenSender(t *testing.T) {
	for _, mode := range modes {
		for _, d := range []Direction{Download, Upload} {
			t.Run(fmt.Sprintf("%s/%d", mode.name, d), func(t *testing.T) {
				l := newLab(t, mode.clientListens, mode.serverListens)
				from, to := l.begin(d)
				from.Write(make([]byte, 100_000))
				if _, err := io.ReadFull(to, make([]byte, 100_000)); err != nil { // a reset overtakes what was not read
					t.Fatal(err)
				}
				from.SetLinger(0)
				from.Close()
				err := l.copied()
				var leg *LegError
				if !errors.As(err, &leg) || leg.Act != "read" || leg.Side != map[Direction]Side{Download: Server, Upload: Client}[d] {
					t.Errorf("%v", err)
				}
				if !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%v does not tell of the reset", err)
				}
				sawReset(t, "receiver", to)
				<-l.transfer.Closed()
			})
		}
	}
}

// A receiver that breaks makes the sender see a reset, so that it does not take its file for delivered.
func TestBrokenReceiver(t *testing.T) {
	for _, d := range []Direction{Download, Upload} {
		l := newLab(t, true, false)
		from, to := l.begin(d)
		sent, sendErr := send(from, zeros{})
		if _, err := io.ReadFull(to, make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		to.SetLinger(0)
		to.Close()
		err := l.copied()
		var leg *LegError
		if !errors.As(err, &leg) || leg.Act != "write" || leg.Side != map[Direction]Side{Download: Client, Upload: Server}[d] {
			t.Errorf("%v", err)
		}
		<-sent
		if !errors.Is(*sendErr, syscall.ECONNRESET) && !errors.Is(*sendErr, syscall.EPIPE) {
			t.Errorf("the sender saw %v", *sendErr)
		}
		<-l.transfer.Closed()
	}
}

// A receiver that resets its connection instead of closing it may not have what it was sent.
func TestDelivered(t *testing.T) {
	l := newLab(t, true, false)
	from, to := l.begin(Download)
	from.Write(make([]byte, 1000))
	from.Close()
	if err := l.copied(); err != nil {
		t.Fatal(err)
	}
	l.transfer.Commit()
	if _, err := io.Copy(io.Discard, to); err != nil { // until the end, or the reset might come before Commit
		t.Fatal(err)
	}
	to.SetLinger(0)
	to.Close()
	<-l.transfer.Closed()
	var leg *LegError
	if err := l.transfer.Delivered(); !errors.As(err, &leg) || leg.Side != Client || leg.Act != "close" {
		t.Errorf("%v", err)
	}
}

// What a receiver says is dropped, and does not turn our close into a reset that would cost it the file's end.
func TestReceiverTalksBack(t *testing.T) {
	l := newLab(t, true, false)
	from, to := l.begin(Download)
	to.Write([]byte("who asked?"))
	from.Write(make([]byte, 1000))
	from.Close()
	if err := l.copied(); err != nil {
		t.Fatal(err)
	}
	l.transfer.Commit()
	if n, err := io.Copy(io.Discard, to); n != 1000 || err != nil {
		t.Errorf("the receiver got %d bytes and saw %v", n, err)
	}
	to.Write([]byte("more"))
	to.Close()
	<-l.transfer.Closed()
	if err := l.transfer.Delivered(); err != nil {
		t.Error(err)
	}
}

// A receiver that does not close its end is waited for, but not for ever, and that is no failure.
func TestLinger(t *testing.T) {
	l := newLab(t, true, false)
	l.opts.Linger = 50 * time.Millisecond
	from, to := l.begin(Download)
	from.Close()
	if err := l.copied(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	l.commit()
	if took := time.Since(begin); took < l.opts.Linger {
		t.Errorf("waited for %v", took)
	}
	if err := l.transfer.Delivered(); err != nil {
		t.Error(err)
	}
	if _, err := to.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the receiver saw %v", err)
	}
}

// A receiver that has not taken all when Linger is over still gets it, from the kernel.
func TestLingerSlow(t *testing.T) {
	const size = 200_000 // more than the receiver's kernel holds, and less than ours
	l := newLab(t, true, false)
	l.opts.Linger = 50 * time.Millisecond
	setSendBuffer(t, l.legs[Client], 1<<20)
	tr := l.arm()
	tr.Begin(Download, [2]Secure{}, nil)
	tr.Release()
	to := l.connect(Client)
	from := l.connect(Server)
	from.Write(make([]byte, size))
	from.Close()
	if err := l.copied(); err != nil {
		t.Fatal(err)
	}
	l.commit()
	if n, err := io.Copy(io.Discard, to); n != size || err != nil {
		t.Errorf("the receiver got %d bytes, and saw %v", n, err)
	}
}

// setSendBuffer limits what the kernel keeps to send on the connections of a listener, in bytes.
func setSendBuffer(t *testing.T, l net.Listener, n int) {
	t.Helper()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var e error
	if err := raw.Control(func(fd uintptr) { e = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, n) }); err != nil || e != nil {
		t.Fatal(err, e)
	}
}

// TestReset resets a transfer in every phase of its life: what is connected sees a reset, what listens is closed, and it
// is over at once. TestMain finds what is left running.
func TestReset(t *testing.T) {
	begin := func(l *lab, released bool) (client, server *net.TCPConn) {
		client, server = l.connectBoth()
		l.transfer.Begin(Download, [2]Secure{}, nil)
		if released {
			l.transfer.Release()
			server.Write([]byte("x"))
			io.ReadFull(client, make([]byte, 1))
		}
		return client, server
	}
	for _, mode := range modes[:3] { // where both dial, the client is not called before Release
		for _, phase := range []struct {
			name string
			upTo func(l *lab) []net.Conn // what is connected then
		}{
			{"armed", func(l *lab) []net.Conn { return nil }},
			{"begun", func(l *lab) []net.Conn { l.transfer.Begin(Download, [2]Secure{}, nil); return nil }},
			{"one leg connected", func(l *lab) []net.Conn {
				side := Client
				if l.legs[Client] == nil {
					side = Server
				}
				return []net.Conn{l.connect(side)}
			}},
			{"connected", func(l *lab) []net.Conn { c, s := l.connectBoth(); return []net.Conn{c, s} }},
			{"connected and begun", func(l *lab) []net.Conn { c, s := begin(l, false); return []net.Conn{c, s} }},
			{"copying", func(l *lab) []net.Conn { c, s := begin(l, true); return []net.Conn{c, s} }},
			{"stalled", func(l *lab) []net.Conn {
				c, s := begin(l, true)
				sent, _ := send(s, zeros{})
				l.t.Cleanup(func() { <-sent })
				return []net.Conn{c, nil} // the sender's end is its own business
			}},
			{"copied", func(l *lab) []net.Conn {
				c, s := begin(l, true)
				s.Close()
				l.copied()
				return []net.Conn{c, nil}
			}},
		} {
			t.Run(mode.name+"/"+phase.name, func(t *testing.T) {
				l := newLab(t, mode.clientListens, mode.serverListens)
				tr := l.arm()
				conns := phase.upTo(l)
				tr.Reset()
				<-tr.Copied()
				<-tr.Closed()
				if err := tr.Err(); !errors.Is(err, ErrReset) && phase.name != "copied" {
					t.Errorf("%v", err)
				}
				for i, c := range conns {
					if c != nil && c != (*net.TCPConn)(nil) {
						sawReset(t, fmt.Sprintf("peer %d", i), c)
					}
				}
				for side, ln := range l.legs {
					if ln == nil {
						continue
					}
					if err := ln.(*net.TCPListener).SetDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
						t.Errorf("the %v leg still listens: %v", Side(side), err)
					}
				}
				tr.Reset() // again, as control may
			})
		}
	}
}

// After Commit, Reset cuts short what remains, and the receiver keeps its clean end.
func TestResetAfterCommit(t *testing.T) {
	l := newLab(t, true, false)
	from, to := l.begin(Download)
	from.Write([]byte("all"))
	from.Close()
	if err := l.copied(); err != nil {
		t.Fatal(err)
	}
	l.transfer.Commit()
	if b, err := io.ReadAll(to); string(b) != "all" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	l.transfer.Reset() // the receiver has not closed: Linger would be a minute
	<-l.transfer.Closed()
}

// The context of Arm bounds the whole transfer.
func TestContext(t *testing.T) {
	for _, phase := range []string{"armed", "copied"} {
		l := newLab(t, true, false)
		cause := errors.New("cause")
		ctx, cancel := context.WithCancelCause(t.Context())
		l.transfer = Arm(ctx, l.opts)
		if phase == "copied" {
			client, server := l.connectBoth()
			l.transfer.Begin(Download, [2]Secure{}, nil)
			l.transfer.Release()
			server.Close()
			if err := l.copied(); err != nil {
				t.Fatal(err)
			}
			cancel(cause)
			<-l.transfer.Closed()
			sawReset(t, "client", client)
			continue
		}
		cancel(cause)
		<-l.transfer.Closed()
		if err := l.transfer.Err(); !errors.Is(err, cause) {
			t.Errorf("%s: %v", phase, err)
		}
	}
}

// A leg that cannot be made is named, and the other's peer sees a reset.
func TestDialRefused(t *testing.T) {
	l := newLab(t, true, false)
	l.peers[Server].Close()
	tr := l.arm()
	tr.Begin(Download, [2]Secure{}, nil)
	if c, err := net.Dial("tcp", l.legs[Client].Addr().String()); err == nil {
		sawReset(t, "client", c)
		c.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) { // it may come before Dial has returned
		t.Fatal(err)
	}
	err := l.copied()
	var leg *LegError
	if !errors.As(err, &leg) || leg.Side != Server || leg.Act != "dial "+l.opts.Server.Address.String() || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v", err)
	}
	<-tr.Closed()
	if tr.Connected() {
		t.Error("it says that it was connected")
	}
}

// TestSetupClock: it runs from Begin, whichever leg is missing.
func TestSetupClock(t *testing.T) {
	for _, mode := range modes[:3] {
		for _, one := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", mode.name, one), func(t *testing.T) {
				l := newLab(t, mode.clientListens, mode.serverListens)
				l.opts.Setup = 50 * time.Millisecond
				if !mode.serverListens || !mode.clientListens {
					// The dialed leg would connect by the kernel's queue alone: only the listening one can be missing.
					one = false
				}
				tr := l.arm()
				var c *net.TCPConn
				if one {
					c = l.connect(Client)
				}
				begin := time.Now()
				tr.Begin(Download, [2]Secure{}, nil)
				err := l.copied()
				if !errors.Is(err, ErrSetup) {
					t.Errorf("%v", err)
				}
				if took := time.Since(begin); took < l.opts.Setup {
					t.Errorf("after %v", took)
				}
				if c != nil {
					sawReset(t, "client", c)
				}
			})
		}
	}
}

// TestIdleClock: no byte moves, for one reason or the other.
func TestIdleClock(t *testing.T) {
	t.Run("the sender is silent", func(t *testing.T) {
		l := newLab(t, true, false)
		l.opts.Idle = 50 * time.Millisecond
		from, to := l.begin(Download)
		from.Write([]byte("some"))
		io.ReadFull(to, make([]byte, 4))
		begin := time.Now()
		err := l.copied()
		var leg *LegError
		if !errors.Is(err, ErrIdle) || !errors.As(err, &leg) || leg.Act != "read" || leg.Side != Server {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took < l.opts.Idle/2 { // the clock began when the bytes came, a little before
			t.Errorf("after %v", took)
		}
		sawReset(t, "receiver", to)
		sawReset(t, "sender", from)
	})
	t.Run("the sender never says anything", func(t *testing.T) {
		l := newLab(t, true, false)
		l.opts.Idle = 50 * time.Millisecond
		begin := time.Now()
		_, to := l.begin(Upload)
		if err := l.copied(); !errors.Is(err, ErrIdle) {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took < l.opts.Idle {
			t.Errorf("after %v", took)
		}
		sawReset(t, "receiver", to)
	})
	t.Run("the receiver takes nothing", func(t *testing.T) {
		l := newLab(t, true, false)
		l.opts.Idle = 50 * time.Millisecond
		begin := time.Now()
		from, to := l.begin(Download)
		sent, sendErr := send(from, zeros{})
		err := l.copied()
		var leg *LegError
		if !errors.Is(err, ErrIdle) || !errors.As(err, &leg) || leg.Act != "write" || leg.Side != Client {
			t.Errorf("%v", err)
		}
		if took := time.Since(begin); took < l.opts.Idle {
			t.Errorf("after %v", took)
		}
		<-sent
		if !errors.Is(*sendErr, syscall.ECONNRESET) && !errors.Is(*sendErr, syscall.EPIPE) {
			t.Errorf("the sender saw %v", *sendErr)
		}
		sawReset(t, "receiver", to)
	})
}

// Slow is not idle, at either end: several times Idle pass while bytes trickle.
func TestSlowIsNotIdle(t *testing.T) {
	t.Parallel()             // with other tests that mostly wait
	const idle = time.Second // far above what a busy machine makes of the pauses below
	t.Run("slow sender", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, true, false)
		l.opts.Idle = idle
		from, to := l.begin(Download)
		ended, readErr := read(to, io.Discard)
		n := 0
		for begin := time.Now(); time.Since(begin) < 5*idle/2; n++ {
			if _, err := from.Write([]byte{'x'}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(50 * time.Millisecond)
		}
		from.Close()
		if err := l.copied(); err != nil || l.transfer.Bytes() != int64(n) {
			t.Fatalf("%v after %d of %d bytes", err, l.transfer.Bytes(), n)
		}
		l.transfer.Commit()
		<-ended
		to.Close()
		if *readErr != nil {
			t.Error(*readErr)
		}
	})
	t.Run("slow receiver", func(t *testing.T) {
		t.Parallel()
		l := newLab(t, true, false)
		l.opts.Idle = idle
		const size = 16 << 20 // more than the kernel buffers, so that the receiver's pace is felt
		tr := l.arm()
		tr.Begin(Download, [2]Secure{}, nil)
		tr.Release()
		to := l.connect(Client)
		to.SetReadBuffer(64 << 10)
		from := l.connect(Server)
		sent, _ := send(from, io.LimitReader(zeros{}, size))
		got, b := 0, make([]byte, 256<<10)
		for begin := time.Now(); got < size; {
			n, err := to.Read(b)
			got += n
			if err != nil {
				t.Fatalf("%v after %d bytes and %v", err, got, time.Since(begin))
			}
			if time.Since(begin) < 5*idle/2 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		<-sent
		from.Close()
		if err := l.copied(); err != nil {
			t.Fatal(err)
		}
		l.transfer.Commit()
		to.Close()
		<-tr.Closed()
	})
}

// A receiver that was fast and becomes slow still takes bytes: it is not idle. How much of them the kernel must be rid of
// before it asks for more is the Network's to limit: a third of a send buffer, which grows to megabytes by itself.
func TestFastThenSlowIsNotIdle(t *testing.T) {
	t.Parallel()
	l := newLab(t, true, false)
	setSendBuffer(t, l.legs[Client], 128<<10)
	l.opts.Idle = time.Second
	from, to := l.begin(Download)
	sent, _ := send(from, zeros{})
	if _, err := io.ReadFull(to, make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8<<10)
	for begin := time.Now(); time.Since(begin) < 7*l.opts.Idle/2; {
		if _, err := io.ReadFull(to, b); err != nil {
			t.Fatalf("after %v: %v: %v", time.Since(begin), err, l.copied())
		}
		time.Sleep(20 * time.Millisecond) // 400 KiB/s: slow for what the kernel has buffered by now
	}
	l.transfer.Reset()
	<-sent
}

// TestChunk: chunks grow while the receiver takes them a hundred times as fast as it must, and are small again when it slows
// down.
func TestChunk(t *testing.T) {
	const idle = 100 * time.Second
	c := smallChunk
	for _, step := range []struct {
		took time.Duration
		want chunk
	}{
		{time.Second, 2 * smallChunk}, {time.Second, 4 * smallChunk}, {3 * time.Second, 4 * smallChunk}, {20 * time.Second, 4 * smallChunk},
		{21 * time.Second, smallChunk}, {3 * time.Second, smallChunk},
	} {
		if c = c.after(step.took, idle); c != step.want {
			t.Errorf("after %v: %d bytes, want %d", step.took, c, step.want)
		}
	}
	for range 10 {
		c = c.after(0, idle)
	}
	if c != largeChunk {
		t.Errorf("the largest is %d bytes", c)
	}
}

// TestGather: a sender that has been fast is waited for to send much at once, yet what it sends slowly afterwards comes through, and
// its silence is seen.
func TestGather(t *testing.T) {
	l := newLab(t, true, false)
	l.opts.Idle = 500 * time.Millisecond
	from, to := l.begin(Download)
	ticks := make(chan error, 1)
	go func() {
		_, err := io.CopyN(from, zeros{}, 64<<20) // many large chunks
		for range 5 {
			time.Sleep(2 * gatherFor)
			if err == nil {
				_, err = from.Write([]byte("tick"))
			}
		}
		ticks <- err
	}()
	to.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.CopyN(io.Discard, to, 64<<20+5*4); err != nil {
		t.Fatalf("%d bytes came: %v", n, err)
	}
	if err := <-ticks; err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := l.copied(); !errors.Is(err, ErrIdle) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begun); took < l.opts.Idle-50*time.Millisecond {
		t.Errorf("idle after %v", took)
	}
}

// TestNotSpliced: where the kernel has no pipe, bytes go through this process.
func TestNotSpliced(t *testing.T) {
	l := newLab(t, true, false)
	l.opts.Network = struct{ Network }{loopback{}}
	from, to := l.begin(Upload)
	sent := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{5}).Read(sent)
	var got bytes.Buffer
	ended, readErr := read(to, &got)
	from.Write(sent)
	from.CloseWrite()
	if err := l.copied(); err != nil {
		t.Fatal(err)
	}
	if c := l.transfer.Carried(); c != Copied {
		t.Errorf("carried by %v", c)
	}
	l.transfer.Commit()
	if <-ended; *readErr != nil || !bytes.Equal(got.Bytes(), sent) || l.transfer.Bytes() != int64(len(sent)) {
		t.Errorf("%d bytes came, %d were counted, %v", got.Len(), l.transfer.Bytes(), *readErr)
	}
	to.Close()
	<-l.transfer.Closed()
}
