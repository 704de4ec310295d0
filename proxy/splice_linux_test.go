package proxy

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// spliced is a splice between two connections, and their peers.
func spliced(t testing.TB) (s *splice, sender, receiver *net.TCPConn) {
	t.Helper()
	from, sender := tcpPair(t)
	to, receiver := tcpPair(t)
	s, ok := (&network{}).Splice(from, to).(*splice)
	if !ok {
		t.Fatal("there is none")
	}
	return s, sender, receiver
}

// all moves everything up to the sender's end.
func (s *splice) all() (moved int, err error) {
	for {
		n, err := s.Take()
		if err != nil {
			return moved, err
		}
		for n > 0 {
			m, err := s.Give()
			if err != nil {
				return moved, err
			}
			moved, n = moved+m, n-m
		}
	}
}

// TestSplice: all bytes go through, whether the other end is there already or not, and nothing is allocated for them.
func TestSplice(t *testing.T) {
	sent := make([]byte, 20<<20) // more than the kernel holds
	rand.Read(sent)
	for name, late := range map[string]func(sender bool) bool{
		"late sender":   func(sender bool) bool { return sender },
		"late receiver": func(sender bool) bool { return !sender },
	} {
		t.Run(name, func(t *testing.T) {
			s, sender, receiver := spliced(t)
			defer s.Close()
			pause := func(sender bool) {
				if late(sender) {
					time.Sleep(20 * time.Millisecond)
				}
			}
			got, ended := make([]byte, len(sent)), make(chan error, 2)
			go func() {
				pause(true)
				_, err := sender.Write(sent)
				ended <- errors.Join(err, sender.CloseWrite())
			}()
			go func() {
				pause(false)
				_, err := io.ReadFull(receiver, got)
				ended <- err
			}()
			n, err := s.all()
			if err := errors.Join(<-ended, <-ended); n != len(sent) || err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes of %d, %v", n, len(sent), err)
			}
			if err != io.EOF {
				t.Errorf("and then %v", err)
			}
		})
	}
	s, sender, receiver := spliced(t)
	defer s.Close()
	b := make([]byte, 10)
	if got := testing.AllocsPerRun(100, func() {
		sender.Write(b)
		s.Take()
		s.Give()
		receiver.Read(b)
	}); got > 0 {
		t.Errorf("%v allocations for bytes that go through", got)
	}
}

// TestSpliceErrors: it is told which end has failed, and how.
func TestSpliceErrors(t *testing.T) {
	reset := func(c *net.TCPConn) { c.SetLinger(0); c.Close() }
	for name, test := range map[string]struct {
		do   func(s *splice, sender, receiver *net.TCPConn)
		give bool // it is the receiver that fails
		is   error
	}{
		"end":                       {do: func(_ *splice, sender, _ *net.TCPConn) { sender.Close() }, is: io.EOF},
		"reset":                     {do: func(_ *splice, sender, _ *net.TCPConn) { reset(sender) }, is: syscall.ECONNRESET},
		"deadline":                  {do: func(s *splice, _, _ *net.TCPConn) { s.from.SetReadDeadline(time.Now()) }, is: os.ErrDeadlineExceeded},
		"later":                     {do: func(s *splice, _, _ *net.TCPConn) { s.from.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) }, is: os.ErrDeadlineExceeded},
		"closed":                    {do: func(s *splice, _, _ *net.TCPConn) { s.from.Close() }, is: net.ErrClosed},
		"closed meanwhile":          {do: func(s *splice, _, _ *net.TCPConn) { time.AfterFunc(10*time.Millisecond, func() { s.from.Close() }) }, is: net.ErrClosed},
		"receiver reset":            {do: func(_ *splice, _, receiver *net.TCPConn) { reset(receiver) }, give: true, is: syscall.ECONNRESET},
		"receiver deadline":         {do: func(s *splice, _, _ *net.TCPConn) { s.to.SetWriteDeadline(time.Now()) }, give: true, is: os.ErrDeadlineExceeded},
		"receiver takes nothing":    {do: func(s *splice, _, _ *net.TCPConn) { s.to.SetWriteDeadline(time.Now().Add(time.Second)) }, give: true, is: os.ErrDeadlineExceeded},
		"receiver closed":           {do: func(s *splice, _, _ *net.TCPConn) { s.to.Close() }, give: true, is: net.ErrClosed},
		"receiver closed meanwhile": {do: func(s *splice, _, _ *net.TCPConn) { time.AfterFunc(100*time.Millisecond, func() { s.to.Close() }) }, give: true, is: net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			s, sender, receiver := spliced(t)
			defer s.Close()
			test.do(s, sender, receiver)
			time.Sleep(5 * time.Millisecond)
			if test.give {
				go sender.Write(make([]byte, 30<<20))
			}
			moved, err := s.all()
			if !errors.Is(err, test.is) || moved > 0 && !test.give {
				t.Errorf("%d bytes and %v, want %v", moved, err, test.is)
			}
			if test.give != (s.held > 0) {
				t.Errorf("%d bytes are in the pipe", s.held)
			}
		})
	}
}

// TestSpliceLeft: what was left in a pipe when its transfer broke goes to nobody else.
func TestSpliceLeft(t *testing.T) {
	s, sender, _ := spliced(t)
	left := s.pipe
	sender.Write([]byte("somebody's secret"))
	if n, err := s.Take(); n != 17 || err != nil {
		t.Fatal(n, err)
	}
	s.Close()
	for range 10 {
		s, sender, receiver := spliced(t)
		if s.pipe == left {
			t.Fatal("it is used again")
		}
		sender.Write([]byte("mine"))
		sender.CloseWrite()
		if n, err := s.all(); n != 4 || err != io.EOF {
			t.Fatal(n, err)
		}
		got := make([]byte, 100)
		if n, _ := receiver.Read(got); string(got[:n]) != "mine" {
			t.Errorf("it got %q", got[:n])
		}
		s.Close()
	}
}

// TestSpliceGather: what comes in small pieces is waited for, and the end is not.
func TestSpliceGather(t *testing.T) {
	s, sender, receiver := spliced(t)
	defer s.Close()
	go io.Copy(io.Discard, receiver)
	if err := s.Gather(100_000); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 15 {
			sender.Write(make([]byte, 10_000))
			time.Sleep(5 * time.Millisecond)
		}
		sender.Close()
	}()
	first, err := s.Take()
	if first < 100_000 || err != nil {
		t.Errorf("%d bytes at once, %v", first, err)
	}
	for given := 0; given < first; {
		n, err := s.Give()
		if given += n; err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := s.all(); first+rest != 150_000 || err != io.EOF {
		t.Errorf("%d bytes then, %v", rest, err)
	}
}

// TestSpliceNot: what is no bare TCP connection is not spliced.
func TestSpliceNot(t *testing.T) {
	c, _ := tcpPair(t)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if s := (&network{}).Splice(c, a); s != nil {
		t.Errorf("%v", s)
	}
	if s := (&network{}).Splice(a, c); s != nil {
		t.Errorf("%v", s)
	}
}

// BenchmarkSplice moves bytes between two connections, and as many by io.Copy in turn with it. It reports our time for them to io.Copy's.
func BenchmarkSplice(b *testing.B) {
	const share = 64 << 20
	times := map[string]time.Duration{}
	b.SetBytes(share)
	b.ReportAllocs()
	for b.Loop() {
		for _, way := range []string{"naive", "ours"} {
			s, sender, receiver := spliced(b)
			go func() {
				sender.ReadFrom(io.LimitReader(zeros{}, share))
				sender.CloseWrite()
			}()
			done := make(chan struct{})
			go func() {
				io.Copy(io.Discard, struct{ io.Reader }{receiver})
				close(done)
			}()
			begun := time.Now()
			var err error
			if way == "ours" {
				_, err = s.all()
			} else if _, err = io.Copy(s.to, s.from); err == nil {
				err = io.EOF
			}
			times[way] += time.Since(begun)
			if err != io.EOF {
				b.Fatal(err)
			}
			s.to.CloseWrite()
			<-done
			s.Close()
		}
	}
	b.ReportMetric(times["ours"].Seconds()/times["naive"].Seconds(), "x-naive")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
