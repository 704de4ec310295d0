package dataconn

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/integration/ftptest"
)

// relayed is a relay of a download on the memory network, with its peers.
type relayed struct {
	*relay
	sender, receiver *ftptest.Conn
	legs             [2]*ftptest.Conn
}

func newRelayed(i Inspector) *relayed {
	at := netip.MustParseAddrPort
	r := &relayed{relay: &relay{Transfer: &Transfer{ctx: context.Background(), inspector: i}, from: Server, to: Client}}
	r.opts.Idle = time.Minute
	r.legs[Client], r.receiver = ftptest.Pipe(at("192.0.2.254:40001"), at("192.0.2.1:40002"))
	r.legs[Server], r.sender = ftptest.Pipe(at("203.0.113.254:40003"), at("203.0.113.9:40004"))
	for side, leg := range r.legs {
		r.streams[side] = bare{leg}
	}
	return r
}

func (r *relayed) close() {
	for _, c := range []*ftptest.Conn{r.sender, r.receiver, r.legs[Client], r.legs[Server]} {
		c.Close()
	}
}

// TestRelay: all bytes arrive in order, however many relays there are: with few, reading and writing overlap; with many, rooms
// are small.
func TestRelay(t *testing.T) {
	sent := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{3}).Read(sent)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	for name, others := range map[string]int64{"few": 0, "more": 8, "many": maxWide} {
		t.Run(name, func(t *testing.T) {
			relays.Add(others)
			defer relays.Add(-others)
			l := newLab(t, true, false)
			i := &taster{}
			tr := l.arm()
			tr.Begin(Download, [2]Secure{}, i)
			tr.Release()
			client, server := l.connectBoth()
			var got bytes.Buffer
			ended, readErr := read(client, &got)
			if _, err := server.Write(sent); err != nil {
				t.Fatal(err)
			}
			server.CloseWrite()
			if err := l.copied(); err != nil {
				t.Fatal(err)
			}
			tr.Commit()
			if <-ended; *readErr != nil || !bytes.Equal(got.Bytes(), sent) || !bytes.Equal(i.seen.Bytes(), sent) {
				t.Errorf("the receiver got %d bytes, and saw %v; %d were seen", got.Len(), *readErr, i.seen.Len())
			}
			client.Close()
			<-tr.Closed()
			if n := relays.Load(); n != others {
				t.Errorf("%d relays are counted", n)
			}
		})
	}
}

// TestSlowReceiver: however much is written at once, a receiver has twice Idle for each bit of it, and one that is dead is told from one
// that is slow.
func TestSlowReceiver(t *testing.T) {
	for name, reads := range map[string]int{"slow": wide / (16 << 10), "slow, then dead": 5} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelayed(nil)
				defer r.close()
				r.streams[Client] = bare{&patient{Conn: r.legs[Client]}}
				begun := time.Now()
				var last time.Time
				var receiver sync.WaitGroup
				receiver.Go(func() {
					for range reads {
						time.Sleep(2*r.opts.Idle - time.Second)
						io.ReadFull(r.receiver, make([]byte, 16<<10))
						last = time.Now()
					}
				})
				err := r.write(&piece{room: make([]byte, wide), spans: [][2]int{{0, wide}}})
				took := time.Since(begun)
				receiver.Wait()
				if name == "slow" {
					if err != nil || r.Bytes() != wide || took < time.Hour {
						t.Errorf("%v after %d bytes and %v", err, r.Bytes(), took)
					}
					return
				}
				var leg *LegError
				if !errors.Is(err, ErrIdle) || !errors.As(err, &leg) || leg.Side != Client || leg.Act != "write" {
					t.Errorf("%v", err)
				}
				if silent := begun.Add(took).Sub(last); silent < 2*r.opts.Idle || silent > 5*r.opts.Idle/2 {
					t.Errorf("%v after the last byte was taken", silent)
				}
			})
		})
	}
}

// TestOverlapIdle: a sender that is silent while its bytes are still being written is given its time from their end on.
func TestOverlapIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelayed(nil)
		defer r.close()
		r.legs[Client].Wrote = func([]byte) { time.Sleep(90 * time.Second) }
		begun := time.Now()
		r.sender.Write(make([]byte, 1000))
		go func() {
			time.Sleep(time.Second)
			r.sender.Write(make([]byte, 1000)) // another piece
		}()
		err := r.overlap(make([]byte, narrow), make([]byte, narrow))
		var leg *LegError
		if !errors.Is(err, ErrIdle) || !errors.As(err, &leg) || leg.Side != Server || leg.Act != "read" {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); took != 2*90*time.Second+r.opts.Idle {
			t.Errorf("after %v", took)
		}
		if n := r.Bytes(); n != 2000 {
			t.Errorf("%d bytes were handed on", n)
		}
	})
}

// TestOverlapStops: what fails to be written ends a read that would wait for long, and one that is about to begin.
func TestOverlapStops(t *testing.T) {
	for name, test := range map[string]struct {
		inspector Inspector
		breaks    bool
		check     func(error) bool
	}{
		"inspector": {inspector: &taster{limit: 1}, check: func(err error) bool { return err == errTaste }},
		"receiver": {breaks: true, check: func(err error) bool {
			var leg *LegError
			return errors.As(err, &leg) && leg.Side == Client && leg.Act == "write"
		}},
	} {
		for _, pieces := range []int{1, 2, 3} { // the reader waits for the sender, or for room
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRelayed(test.inspector)
					defer r.close()
					if test.breaks {
						r.receiver.SetLinger(0)
						r.receiver.Close()
					}
					begun := time.Now()
					r.sender.Write(make([]byte, pieces*100))
					if err := r.overlap(make([]byte, 100), make([]byte, 100)); !test.check(err) {
						t.Errorf("%v", err)
					}
					if took := time.Since(begun); took != 0 {
						t.Errorf("after %v", took)
					}
				})
			})
		}
	}
}

// TestOverlapOrder: a sender's bytes are handed on before it is said how it ended.
func TestOverlapOrder(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*ftptest.Conn)
		want error
	}{
		"end":     {func(c *ftptest.Conn) { c.CloseWrite() }, nil},
		"silence": {func(*ftptest.Conn) {}, ErrIdle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRelayed(nil)
				defer r.close()
				sent := make([]byte, 10_000)
				rand.NewChaCha8([32]byte{4}).Read(sent)
				r.sender.Write(sent)
				test.end(r.sender)
				var all sync.WaitGroup
				got := make([]byte, len(sent))
				all.Go(func() { io.ReadFull(r.receiver, got) })
				err := r.overlap(make([]byte, 100), make([]byte, 100))
				if !errors.Is(err, test.want) || test.want == nil && err != nil {
					t.Errorf("%v", err)
				}
				all.Wait()
				if !bytes.Equal(got, sent) {
					t.Error("the receiver got something else")
				}
			})
		})
	}
}
